"""What a study finds out of strategies: a row for each; and a row in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matmamba_retrieval import EncodedQueries
from matmamba_retrieval.planning.grid import Grid
from matmamba_retrieval.planning.planner import NEED_LABELS
from matmamba_retrieval.planning.savings import compared, is_reference
from matmamba_retrieval.planning.trials import Bench, Trial, latencies
from matmamba_retrieval.strategies.engines import AnyGallery
from matmamba_retrieval.strategies.indexes import ensure_index, index_bytes
from matmamba_retrieval.strategies.strategy import Strategy

from ..measures.significance import with_intervals
from ..progress import Reporter

Row = dict[str, Any]
# Queries that are asked alone, for the latency of each strategy.
ALONE = 50
ROWS_FILE = "rows.jsonl"
# The title of what `over_single_shot` says.
OVER = "over single-shot"


class Subject(Protocol):
    """What strategies are tried on."""

    @property
    def name(self) -> str:
        """Of the queries, as they were encoded."""
        ...

    @property
    def gallery(self) -> AnyGallery:
        """That answers; of a folder, open for writing where indexes are to be built."""
        ...

    @property
    def queries(self) -> EncodedQueries:
        """At each width that asks, with the milliseconds of one image."""
        ...

    @property
    def labels(self) -> Sequence[str] | None:
        """Class name of each query, None if they have none."""
        ...


class StrategyRows:
    """Tries strategies; finished rows are kept in a file, and not tried again.

    Args:
        asked: gallery and queries.
        grid: hits wanted, and how gates are calibrated.
        seed: of the folds of queries, and of the resampling.
        folder: of the file; None to keep none.
        report: is told how far it is.
    """

    def __init__(self, asked: Subject, grid: Grid, seed: int, folder: Path | None, report: Reporter) -> None:
        self._asked, self._grid, self._seed, self._report = asked, grid, seed, report
        self._file = None if folder is None else folder / ROWS_FILE

    def _build(self, strategy: Strategy) -> None:
        """The indexes that a strategy needs; they replace others over the same dims."""
        gallery = self._asked.gallery
        # A query that escalates asks the index of the full width.
        for step in strategy.steps[:1]:
            widths = {step.gallery_width, "full"} if strategy.again else {step.gallery_width}
            for width in sorted(widths):
                ensure_index(gallery, step.dim, width, step.index)

    def rows(self, wanted: Sequence[tuple[Strategy, float]]) -> list[Row]:
        """A row for each strategy, as plain values.

        Args:
            wanted: strategies, and the loss in points that their gates may have.
        """
        asked, known = self._asked, self._known()
        bench = Bench(asked.gallery, asked.queries, self._grid.k, asked.labels)
        count = len(asked.queries)
        with self._report.meter("trying strategies", len(wanted) * count, "queries") as bar:
            # By index, so that each is built once.
            ordered = sorted(wanted, key=lambda tried: _index(tried[0]))
            for number, (strategy, loss) in enumerate(ordered):
                name = self._name(strategy, loss)
                if name not in known:
                    self._build(strategy)
                    known[name] = self._row(bench, strategy, loss)
                    self._keep(name, known[name])
                    bar.advance(count, f"{strategy.kind} {number + 1}/{len(wanted)}")
                else:
                    bar.skip(count)
        rows = [known[self._name(*each)] for each in wanted]
        reference = next((row for row in rows if is_reference(row)), None)
        reference = reference or self._row(bench, Strategy.single_shot(), 0.0)
        return [compared(row, reference) for row in rows]

    def _row(self, bench: Bench, strategy: Strategy, loss: float) -> Row:
        trial, about = self._tried(bench, strategy, loss)
        strategy = trial.strategy
        lost = {
            f"{name}_loss": bench.reference[name].astype(float) - trial.values[name]
            for name in NEED_LABELS
            if name in bench.reference
        }
        (quality,) = with_intervals([trial.values | lost], self._seed)
        alone = latencies(strategy, bench.gallery, bench.queries, bench.k, ALONE)
        gallery, tried, search_ms = bench.gallery, trial.row(), float(alone[:, 1].mean())
        vectors, index = gallery.spec.dim * 2, 0.0
        if strategy.steps:
            index = index_bytes(gallery, strategy.steps[0]) / gallery.key_count
        cost = {
            # Of all queries: a gate may send another share of the few that are asked alone to the full width.
            "ms": tried["encode_ms"] + search_ms,
            "ms_quartiles": np.percentile(alone.sum(1), [25, 50, 75]).tolist(),
            "one_search_ms": search_ms,
            "queries_per_second": 1e3 / search_ms,
            "index_bytes_per_image": index,
            "bytes_per_image": vectors + index,
        }
        return tried | quality | about | cost

    def _tried(self, bench: Bench, strategy: Strategy, loss: float) -> tuple[Trial, Row]:
        """The trial, and of a gate what it was calibrated to; one that is there is measured as it is."""
        if strategy.kind != "gated" or strategy.gate is not None:
            return bench.trial(strategy), {}
        grid = self._grid
        trial, found = bench.gated_trial(
            strategy, loss / 100, grid.gate_qualities, grid.gate_sure, grid.folds, self._seed
        )
        calibrated = {
            "qualities": list(grid.gate_qualities),
            "sure": grid.gate_sure,
            "share": found.share,
            "losses": list(found.losses),
            "bounds": list(found.bounds),
            "met": found.met,
        }
        return trial, {"gate_loss": loss, "calibrated": calibrated}

    def _known(self) -> dict[str, Row]:
        """Rows that are done; a line that a kill cut short is none."""
        found: dict[str, Row] = {}
        if self._file is not None and self._file.is_file():
            for line in self._file.read_text().splitlines():
                try:
                    known = json.loads(line)
                except json.JSONDecodeError:
                    continue
                found[known["name"]] = known["row"]
        return found

    def _keep(self, name: str, row: Row) -> None:
        if self._file is not None:
            with self._file.open("a") as opened:
                opened.write(json.dumps({"name": name, "row": row}) + "\n")

    def _name(self, strategy: Strategy, loss: float) -> str:
        """Of a row: all that decides what is in it."""
        asked, grid = self._asked, self._grid
        known = [strategy.to_json(), loss, grid.gate_qualities, grid.k, grid.folds, self._seed]
        known += ["sure"] * grid.gate_sure
        known += [str(asked.gallery.folder), asked.name, len(asked.queries)]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _index(strategy: Strategy) -> str:
    """Name of the index that the first step searches."""
    return strategy.steps[0].index if strategy.steps else ""


def over_single_shot(row: Row) -> str:
    """Milliseconds and multiply-adds over those of single-shot at full width: above 1 it costs more."""
    return f"{row['ms_over_single_shot']:.2f}, {row['macs_over_single_shot']:.2f}"


def first_stage(row: Row) -> str:
    """Dims and lengths of the steps, and whatever differs from the usual."""
    steps = ", ".join(f"{length} by {dim}" for dim, length in zip(row["dims"], row["lengths"], strict=True))
    parts = [steps]
    parts += [f"gallery {row['gallery_width']}"] * (row["gallery_width"] != "full")
    parts += [row["index"]] * (row["index"] not in ("", "Flat"))
    parts += [f"effort {row['effort']}"] * (row["effort"] is not None)
    parts += [f"then {', '.join(row['widths'])}"] * bool(row["widths"])
    parts += [f"expanded by {row['expand']}"] * bool(row["expand"])
    if row["gate"]:
        target = f" for {row['gate_loss']:g}" if "gate_loss" in row else ""  # a plan has one for all its rows
        parts.append(row["gate"]["rule"] + target)
        # A plan's rows are measured as they are: what their gates were calibrated to is its goal.
        calibrated = row.get("calibrated", {})
        parts += ["surely"] * calibrated.get("sure", False)
        parts += ["asked again"] * row["again"]
        parts += ["not reached"] * (not calibrated.get("met", True))
    return "; ".join(filter(None, parts)) or "-"
