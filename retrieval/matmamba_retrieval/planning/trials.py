"""Trying strategies on the same queries: what each reaches, and what it spends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import metrics
from ..errors import GalleryError
from ..index.rerank import NO_KEY, rerank
from ..strategies.engines import AnyGallery
from ..strategies.gate import OF_LABELS, RULES, Calibration, Gate, calibrate, gates
from ..strategies.gated import combined, margins_of, small_hits
from ..strategies.hits import Hits
from ..strategies.queries import EncodedQueries, Ints, Queries
from ..strategies.search import search
from ..strategies.strategy import Strategy

Values = NDArray[Any]
# Queries are dealt into so many parts; a gate that is measured on one was calibrated on the others.
FOLDS = 10


@dataclass(frozen=True, eq=False)
class Trial:
    """One strategy on all queries of a bench.

    Attributes:
        strategy: that was tried.
        hits: its answers.
        values: (nq,) qualities by name, as in `Bench.qualities`.
    """

    strategy: Strategy
    hits: Hits
    values: dict[str, Values]

    def row(self) -> dict[str, Any]:
        """The strategy, means of the qualities, and cost per query, as plain values."""
        quality = {name: float(values.mean()) for name, values in self.values.items()}
        return self.strategy.to_json() | quality | cost_row(self.hits)


def cost_row(hits: Hits) -> dict[str, Any]:
    """Cost per query: multiply-adds and milliseconds, encoder and search apart, all queries in one batch."""
    cost = hits.cost
    return {
        "encoder_macs": cost.macs,
        "search_macs": sum(cost.search_macs.values()),
        "search_macs_by_stage": dict(cost.search_macs),
        "by_full": float(hits.by_full.mean()),
        "candidates": cost.candidates,
        "bytes_read": cost.bytes_read,
        "encode_ms": cost.ms.get("encode", 0.0),
        "search_ms": cost.search_ms,
        "ms_by_stage": dict(cost.ms),
    }


@dataclass(frozen=True, eq=False)
class _Evidence:
    """What a gate is calibrated on.

    Attributes:
        gated: the strategy, before it has a gate.
        small: what its small width found.
        by_rule: (n,) margins of the queries by rule.
        cheap: (n, M) what each query loses of M qualities against single-shot, answered by the small width.
        expensive: (n, M) the same, answered by the full width.
    """

    gated: Strategy
    small: Hits
    by_rule: Mapping[str, NDArray[np.float64]]
    cheap: NDArray[np.float64]
    expensive: NDArray[np.float64]

    def take(self, which: Ints) -> _Evidence:
        """Of some queries; `small` stays that of all."""
        by_rule = {rule: values[which] for rule, values in self.by_rule.items()}
        return replace(self, by_rule=by_rule, cheap=self.cheap[which], expensive=self.expensive[which])

    def calibrate(self, target: float, sure: bool) -> Calibration:
        return calibrate(self._gates, self.cheap, self.expensive, target, sure)

    @cached_property
    def _gates(self) -> dict[Gate, NDArray[np.float64]]:
        return gates(self.by_rule, self.cheap, self.expensive)


class Bench:
    """Queries, encoded at all widths that are tried, on one gallery.

    Attributes:
        exact: what single-shot answers.
        k: hits wanted.
    """

    def __init__(
        self, gallery: AnyGallery, queries: EncodedQueries, k: int, labels: Sequence[str] | None = None
    ) -> None:
        self.gallery, self.queries, self.k, self.labels = gallery, queries, k, labels
        self._last: tuple[tuple[Strategy, tuple[str, ...]], _Evidence] | None = None
        self._asked: Ints | None = None
        self._stored: Ints | None = None
        if labels is not None:
            self._asked, self._stored = _codes(labels, gallery.labels())
        self.exact = search(gallery, Strategy.single_shot(), queries, k)
        self.reference = self.qualities(self.exact)

    def take(self, which: Ints) -> Bench:
        """The same with some of the queries, by position."""
        labels = None if self.labels is None else [self.labels[index] for index in which]
        return Bench(self.gallery, self.queries.take(which), self.k, labels)

    def qualities(self, hits: Hits) -> dict[str, Values]:
        """(nq,) by name. With labels, same class relevant: knn1 (of the first hit), map (MRL's mAP@k).

        Against single-shot: same1 (same first hit), recall (share of its k hits; `metrics.ann_recalls`).
        """
        I = hits.I[:, : self.k]  # noqa: E741
        found: dict[str, Values] = {}
        if self._asked is not None and self._stored is not None:
            relevant = (I != NO_KEY) & (self._stored[I] == self._asked[:, None])
            found = {"knn1": relevant[:, 0], "map": metrics.average_precision(relevant)}
        # Scores of the full width, whichever query the hits were ranked by.
        D = rerank(self.queries.encode("full").xq, I, self.gallery.vectors, self.k)[0]
        recalls = metrics.ann_recalls(D, self.exact.D)
        return found | {"same1": metrics.same_first(I, self.exact.I), "recall": recalls}

    def trial(self, strategy: Strategy) -> Trial:
        """Search for all queries."""
        hits = search(self.gallery, strategy, self.queries, self.k)
        return Trial(strategy, hits, self.qualities(hits))

    def calibrate(
        self, strategy: Strategy, target: float, qualities: Sequence[str], sure: bool = False
    ) -> Calibration:
        """The gate with which `strategy` loses at most `target` of each quality against single-shot here.

        Rules are all, or without labels those that need none.

        Args:
            target: as a share, 0.001 for a tenth of a point.
            qualities: names, as in `qualities`.
            sure: hold upper bounds of the losses against the target, as `calibrate` of the gate does.
        """
        return self._evidence_of(strategy, qualities).calibrate(target, sure)

    def gated_trial(
        self,
        strategy: Strategy,
        target: float,
        qualities: Sequence[str],
        sure: bool = False,
        folds: int = FOLDS,
        seed: int = 0,
    ) -> tuple[Trial, Calibration]:
        """Each query answered by a gate that was calibrated without it (cross-fitting).

        The queries are dealt into folds; those of one fold pass the gate that the others calibrate. So all of
        them both calibrate and are measured, and what is measured holds for queries that were not seen.

        Args:
            target: as for `calibrate`.
            qualities: as for `calibrate`.
            sure: as for `calibrate`.
            folds: how many.
            seed: of the dealing.

        Returns:
            The trial, whose strategy has the gate that all queries together calibrate, and that calibration.

        Raises:
            GalleryError: fewer than two folds or queries.
        """
        if min(folds, len(self.queries)) < 2:
            raise GalleryError(f"{len(self.queries)} queries in {folds} folds: both must be 2 at least")
        evidence, count = self._evidence_of(strategy, qualities), len(self.queries)
        dealt = np.random.default_rng(seed).permutation(count) % min(folds, count)
        hard = np.zeros(count, dtype=bool)
        for fold in range(dealt.max() + 1):
            here = np.flatnonzero(dealt == fold)
            gate = evidence.take(np.flatnonzero(dealt != fold)).calibrate(target, sure).gate
            hard[here[gate.hard(gate.margins(evidence.take(here).by_rule))]] = True
        which = np.flatnonzero(hard)
        hits = combined(self.gallery, evidence.gated, self.queries, evidence.small, which, self.k)
        whole = evidence.calibrate(target, sure)
        return Trial(replace(strategy, gate=whole.gate), hits, self.qualities(hits)), whole

    def _evidence_of(self, strategy: Strategy, qualities: Sequence[str]) -> _Evidence:
        """The last one is kept: gates of one strategy are often calibrated to one target after the other."""
        wanted = (replace(strategy, gate=None), tuple(qualities))
        if self._last is None or self._last[0] != wanted:
            self._last = wanted, self._evidence(*wanted)
        return self._last[1]

    def _evidence(self, gated: Strategy, qualities: Sequence[str]) -> _Evidence:
        every = np.arange(len(self.queries))
        small = small_hits(self.gallery, gated, self.queries, self.k)
        full = combined(self.gallery, gated, self.queries, small, every, self.k)
        rules = [rule for rule in RULES if self._stored is not None or rule not in OF_LABELS]
        by_rule = margins_of(self.gallery, rules, small, self.k)
        cheap, expensive = (self._losses(hits, qualities) for hits in (small, full))
        return _Evidence(gated, small, by_rule, cheap, expensive)

    def _losses(self, hits: Hits, qualities: Sequence[str]) -> NDArray[np.float64]:
        found = self.qualities(hits)
        return np.stack([self.reference[name].astype(float) - found[name] for name in qualities], axis=1)


def latencies(strategy: Strategy, gallery: AnyGallery, queries: Queries, k: int, most: int = 100) -> Values:
    """Milliseconds of each of the first queries, asked alone: (n, 2), encoder and search."""
    asked = [queries.take(np.array([index])) for index in range(min(most, len(queries)))]
    # The first one also opens files and indexes.
    search(gallery, strategy, asked[0], k)
    costs = [search(gallery, strategy, query, k).cost for query in asked]
    return np.array([(cost.ms.get("encode", 0.0), cost.search_ms) for cost in costs])


def _codes(asked: Sequence[str], stored: Sequence[str | None]) -> tuple[Ints, Ints]:
    """Class numbers of queries and of keys; images without a label have one that no query has."""
    number = {name: index for index, name in enumerate(dict.fromkeys(asked))}
    return (
        np.array([number[name] for name in asked], dtype=np.int64),
        np.array([-1 if name is None else number.get(name, -1) for name in stored], dtype=np.int64),
    )
