"""The planner: tries strategies on a gallery, and chooses the cheapest that is good enough."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import GalleryError
from ..strategies.engines import AnyGallery, IndexChoice
from ..strategies.indexes import index_bytes, index_choices
from ..strategies.plan import Plan
from ..strategies.queries import EncodedQueries
from ..strategies.strategy import Strategy
from .savings import COSTS, compared, fallen_back
from .trials import Bench, Trial, latencies

Row = dict[str, Any]
# What a target may name, at least; and what a budget may name, at most.
TARGETS = {
    "recall": "share of the hits of single-shot",
    "same1": "share of queries with the first hit of single-shot",
    "knn1": "share of queries whose first hit has their class",
    "map": "mAP of the k hits",
}
BUDGETS = {
    "ms": "mean milliseconds of one query asked alone, encoder and search",
    "gmacs": "multiply-adds per query, encoder and search, billions",
    "memory_mb": "MiB of the index, or of the vectors that single-shot compares",
}
# Targets that are about the classes of hits.
NEED_LABELS = ("knn1", "map")
# Shortlists are tried at these lengths, times k / 10 for larger k.
LENGTHS = (50, 100, 200, 500, 1000, 2000)
# Nearest candidates that a query is averaged with, where it is expanded.
EXPAND = 20
# Queries that are asked alone for the latency of each strategy.
ALONE = 30


@dataclass(frozen=True)
class Goal:
    """At least so much of each target, at most so much of each budget.

    Raises:
        GalleryError: a name is unknown, a number impossible, or there is neither target nor budget.
    """

    targets: Mapping[str, float] = field(default_factory=dict)
    budgets: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.targets and not self.budgets:
            raise GalleryError("a plan needs a target, such as recall=0.99, or a budget, such as ms=5")
        for given, known, kind in ((self.targets, TARGETS, "target"), (self.budgets, BUDGETS, "budget")):
            for name, value in given.items():
                if name not in known:
                    raise GalleryError(f"unknown {kind} {name!r}: one of {', '.join(known)}")
                if not 0 < value <= (1 if kind == "target" else math.inf) or not math.isfinite(value):
                    bounds = "above 0" + (", at most 1" if kind == "target" else "")
                    raise GalleryError(f"{kind} {name}={value:g}: it can be {bounds}")

    @staticmethod
    def parse(targets: Sequence[str], budgets: Sequence[str]) -> Goal:
        """From texts such as "recall=0.99"."""
        return Goal(Goal.pairs(targets), Goal.pairs(budgets))

    @staticmethod
    def pairs(texts: Sequence[str]) -> dict[str, float]:
        """Numbers by name, of texts such as "recall=0.99"."""
        return dict(map(_pair, texts))

    def __str__(self) -> str:
        parts = [f"{name} >= {value:g}" for name, value in self.targets.items()]
        return ", ".join(parts + [f"{name} <= {value:g}" for name, value in self.budgets.items()])

    def met(self, row: Row) -> bool:
        """Whether a strategy reaches all targets within all budgets."""
        good = all(row[name] >= value for name, value in self.targets.items())
        return good and all(row[name] <= value for name, value in self.budgets.items())

    @property
    def quality(self) -> str:
        """What is maximised within budgets: the first target, by default recall."""
        return next(iter(self.targets), "recall")

    @property
    def cost(self) -> str:
        """What is to be spent least of: "macs" where these have a budget and time has none, else "ms"."""
        return "macs" if "gmacs" in self.budgets and "ms" not in self.budgets else "ms"


def _pair(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError as error:
        raise GalleryError(f"{text!r} is not a name and a number, such as recall=0.99") from error


def candidates(
    gallery: AnyGallery, widths: Sequence[str], k: int, dims: Sequence[int], labelled: bool = False
) -> list[Strategy]:
    """Strategies to try: single-shot; shortlists and gates by width, index, effort and length; funnels.

    A shortlist of a small width is reranked by the full one, and by itself.

    Args:
        widths: labels, full first.
        dims: of indexes that are built.
        labelled: whether hits of the right class are wanted, rather than those of single-shot.
    """
    found = [Strategy.single_shot(width=width) for width in widths]
    for width in widths:
        for choice in index_choices(gallery, dims):
            for length in _lengths(gallery, k):
                found += _of_length(gallery, width, choice, length, k, labelled)
    return found


def _lengths(gallery: AnyGallery, k: int) -> list[int]:
    scaled = [length * max(10, k) // 10 for length in LENGTHS]
    return [length for length in scaled if length < len(gallery)] or [len(gallery)]


def _of_length(
    gallery: AnyGallery, width: str, choice: IndexChoice, length: int, k: int, labelled: bool
) -> Iterator[Strategy]:
    first: dict[str, Any] = {"width": width, "index": choice.name, "effort": choice.effort}
    stage = {**first, "dim": choice.dim, "length": length}
    yield Strategy.shortlist(**stage)
    dims, lengths = funnel_schedule(choice.dim, gallery.spec.dim, length, k, gallery.step_dims())
    if len(dims) > 1 and length >= 4 * k:
        yield Strategy.funnel(dims=dims, lengths=lengths, **first)
    # Better than the hits of single-shot, but other ones.
    expands = (0, EXPAND) if labelled and length > EXPAND else (0,)
    if width == "full":
        # What a gate comes to that would send every query to the full width.
        for expand in expands[1:]:
            yield Strategy.shortlist(expand=expand, **stage)
        return
    # Encoded once: small widths are aligned with the full one, whose stored vectors they rank well enough.
    yield Strategy.shortlist(rerank_width=width, **stage)
    for expand in expands:
        yield Strategy.gated(again=True, expand=expand, **stage)


def funnel_schedule(
    dim: int, full: int, length: int, k: int, known: Collection[int] | None = None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Dims that double below the full one, and lengths that halve but never fall under k (MRL's funnel).

    Args:
        dim: of the first step.
        full: of whole vectors.
        length: of the first list.
        k: hits wanted.
        known: dims that can be compared, behind the first; None for any.
    """
    doubled = [dim << step for step in range(1, (full - 1) // dim + 1) if dim << step < full]
    dims = [dim, *(each for each in doubled if known is None or each in known)]
    return tuple(dims), (length, *(max(k, length >> step) for step in range(1, len(dims))))


class Planner:
    """Tries strategies on encoded queries; gates are measured on queries that did not calibrate them.

    Args:
        labels: class names of the queries, if they are known.

    Raises:
        GalleryError: fewer than two queries, or a target that needs labels and there are none.
    """

    def __init__(
        self,
        gallery: AnyGallery,
        queries: EncodedQueries,
        k: int,
        goal: Goal,
        labels: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        if len(queries) < 2:
            raise GalleryError(f"a plan needs at least 2 queries, not {len(queries)}")
        missing = [name for name in goal.targets if name in NEED_LABELS and labels is None]
        if missing:
            raise GalleryError(f"target {missing[0]} needs queries with labels")
        self.gallery, self.goal, self.k = gallery, goal, k
        self._bench, self._seed = Bench(gallery, queries, k, labels), seed

    def run(self, wanted: Sequence[Strategy]) -> Iterator[Row | None]:
        """A row for each of them; None for one that need not be measured: a shorter list was enough."""
        done: set[Strategy] = set()
        for strategy in wanted:
            kind = replace(strategy, steps=tuple(replace(step, length=1) for step in strategy.steps))
            if kind in done:
                yield None
                continue
            row = self.measure(strategy)
            if self._ends(row):
                done.add(kind)
            yield row

    def _ends(self, row: Row) -> bool:
        """Whether longer lists would only cost more: the targets are met, or a budget is spent."""
        met = bool(self.goal.targets) and all(row[name] >= value for name, value in self.goal.targets.items())
        return met or any(row[name] > value for name, value in self.goal.budgets.items())

    @cached_property
    def single_shot(self) -> Row:
        """What single-shot at full width reaches and costs: all others are compared with it."""
        row = self._measured(Strategy.single_shot())
        return compared(row, row)

    def measure(self, strategy: Strategy) -> Row:
        """What a strategy reaches and costs, by itself and over single-shot; a gate is calibrated."""
        if strategy == Strategy.single_shot():
            return self.single_shot
        return compared(self._measured(strategy), self.single_shot, [self.goal.cost])

    def _measured(self, strategy: Strategy) -> Row:
        trial = self._gated(strategy) if strategy.kind == "gated" else self._bench.trial(strategy)
        strategy = trial.strategy
        alone = latencies(strategy, self.gallery, self._bench.queries, self.k, ALONE)
        row = trial.row()
        search_ms = float(alone[:, 1].mean())
        times = {
            # Of all queries: a gate may send another share of the few that are asked alone to the full width.
            "ms": row["encode_ms"] + search_ms,
            "ms_p95": float(np.quantile(alone.sum(1), 0.95)),
            "one_encode_ms": row["encode_ms"],
            "one_search_ms": search_ms,
        }
        gmacs = (row["encoder_macs"] + row["search_macs"]) / 1e9
        memory = index_bytes(self.gallery, strategy.steps[0] if strategy.steps else None) / 2**20
        return row | times | {"gmacs": gmacs, "memory_mb": memory}

    def _gated(self, strategy: Strategy) -> Trial:
        name = self.goal.quality
        allowed = {"recall": 0.01, "same1": 0.01}.get(name, 0.001)
        if name in self.goal.targets:
            reference = float(self._bench.reference[name].mean())
            allowed = max(0.0, reference - self.goal.targets[name])
        return self._bench.gated_trial(strategy, allowed, [name], seed=self._seed)[0]

    def choose(self, rows: Sequence[Row]) -> Row:
        """The cheapest that meets the goal; with budgets alone, the best of those within them.

        Cheapest is what takes the fewest milliseconds here, or multiply-adds where those have the budget. A
        gate that sends every query to the full width, or saves nothing of that, is not chosen.

        Raises:
            GalleryError: none does; the message says what came nearest.
        """
        offered = [row for row in rows if not row.get("falls_back")]
        good = [row for row in offered if self.goal.met(row)]
        if not good:
            raise GalleryError(
                f"nothing that was tried reaches {self.goal}: {_nearest(offered or rows, self.goal)}"
            )
        costs = ("gmacs", "ms") if self.goal.cost == "macs" else ("ms", "gmacs")
        if self.goal.targets:
            return min(good, key=lambda row: tuple(row[cost] for cost in costs))
        return max(good, key=lambda row: (row[self.goal.quality], -row[costs[0]]))

    def notes(self, rows: Sequence[Row], chosen: Row) -> list[str]:
        """What has to be said of a choice: where small queries do not pay, and what it costs more."""
        found = [text] if (text := fallen_back(rows)) else []
        small = any(row["query_width"] != "full" for row in rows)
        if self.goal.targets and small and chosen["query_width"] == "full":
            found.append(
                f"small queries do not pay here: of what reaches {self.goal}, {chosen['strategy']} at full"
                f" width takes the fewest {COSTS[self.goal.cost]}"
            )
        for cost, unit in COSTS.items():
            if (over := chosen[f"{cost}_over_single_shot"]) > 1:
                found.append(f"the choice takes {over:.2f} times the {unit} of single-shot at full width")
        return found

    def plan(self, row: Row) -> Plan:
        """What a gallery keeps of the choice."""
        form = Strategy.single_shot().to_json()
        return Plan(
            strategy=Strategy.from_json({name: row[name] for name in form}),
            spec=self.gallery.spec,
            k=self.k,
            goal=str(self.goal),
            measured={name: value for name, value in row.items() if name not in form},
        )


def _nearest(rows: Sequence[Row], goal: Goal) -> str:
    parts = [f"{name} was at most {max(row[name] for row in rows):.4g}" for name in goal.targets]
    parts += [f"{name} was at least {min(row[name] for row in rows):.4g}" for name in goal.budgets]
    return ", ".join(parts) + (", not at once" if len(parts) > 1 else "")
