"""What a study finds out: a row for each strategy of a grid, and exact search; and a row in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matmamba_retrieval.planning.grid import Grid
from matmamba_retrieval.planning.savings import compared, is_reference
from matmamba_retrieval.planning.trials import Bench, Trial, latencies
from matmamba_retrieval.strategies.indexes import ensure_index, index_bytes
from matmamba_retrieval.strategies.strategy import Strategy

from ..measures.significance import with_intervals
from ..progress import Reporter
from ..widths.quality_and_cost import retrieval_values
from .experiment import Experiment
from .modes import losses, mode_of

Row = dict[str, Any]
# Queries that are asked alone, for the latency of each strategy.
ALONE = 50
ROWS_FILE = "rows.jsonl"
# The title of what `over_single_shot` says.
OVER = "over single-shot"


class StrategyRows:
    """Tries strategies; finished rows are kept in a file, and not tried again.

    Args:
        experiment: images and gallery.
        grid: hits wanted, dims of exact search, and how gates are calibrated.
        seed: of the folds of queries, and of the resampling.
        folder: of the file.
        report: is told how far it is.
        modes: of a student and its teacher, which exact search is by; none for another model.
    """

    def __init__(
        self,
        experiment: Experiment,
        grid: Grid,
        seed: int,
        folder: Path,
        report: Reporter,
        modes: Sequence[str] = (),
    ) -> None:
        self._modes = modes
        self._experiment, self._grid, self._seed, self._report = experiment, grid, seed, report
        self._file = folder / ROWS_FILE

    def tables(self, wanted: Sequence[tuple[Strategy, float]], full: int) -> dict[str, Any]:
        """Rows of strategies, exact search by width and dim, and numbers of images, as plain values.

        Args:
            wanted: strategies, and the loss in points that their gates may have.
            full: dim of embeddings.
        """
        experiment = self._experiment
        images = {"gallery": len(experiment.gallery), "queries": len(experiment.queries)}
        dims = sorted({dim for dim in self._grid.dims if dim < full} | {full})
        return {"images": images, "exact": self._exact(dims), "rows": self._rows(wanted)}

    def _build(self, strategy: Strategy) -> None:
        """The indexes that a strategy needs; they replace others over the same dims."""
        gallery = self._experiment.gallery
        # A query that escalates asks the index of the full width.
        for step in strategy.steps[:1]:
            widths = {step.gallery_width, "full"} if strategy.again else {step.gallery_width}
            for width in sorted(widths):
                ensure_index(gallery, step.dim, width, step.index)

    def _exact(self, dims: Sequence[int]) -> list[Row]:
        """Quality of exact search by each query width, gallery width and dim, without rerank."""
        asked, stored = self._experiment.asked, self._experiment.stored
        cells = [
            (query, gallery, dim)
            for query in asked.by_width
            for gallery in stored.by_width
            for dim in dims
            if not self._modes or mode_of(query, gallery) in self._modes
        ]
        values = []
        for query, gallery, dim in cells:
            with self._report.stage(f"exact search: query {query}, gallery {gallery}, {dim} dims"):
                found = retrieval_values(asked.at(query), stored.at(gallery), dim)
                values.append({name: found[name] for name in ("knn1", "map10")})
        if self._modes:
            reference = values[cells.index(("full", "full", dims[-1]))]
            values = [found | losses(found, reference) for found in values]
        quality = with_intervals(values, self._seed)
        macs = {width: known.macs for width, known in self._experiment.queries.by_width.items()}
        rows = [
            {"query_width": query, "gallery_width": gallery, "dim": dim, "encoder_macs": macs[query]} | found
            for (query, gallery, dim), found in zip(cells, quality, strict=True)
        ]
        return [self._by_mode(row) for row in rows] if self._modes else rows

    def _by_mode(self, row: Row) -> Row:
        mode, width = mode_of(row["query_width"], row["gallery_width"]), row["query_width"]
        return {"mode": mode} | row | {"encoder_ms": self._experiment.queries.encode(width).ms}

    def _rows(self, wanted: Sequence[tuple[Strategy, float]]) -> list[Row]:
        experiment, known = self._experiment, self._known()
        bench = Bench(experiment.gallery, experiment.queries, self._grid.k, experiment.labels)
        count = len(experiment.queries)
        with self._report.meter("trying strategies", len(wanted) * count, "queries") as bar:
            # By index, so that each is built once.
            ordered = sorted(wanted, key=lambda tried: _index(tried[0]))
            for number, (strategy, loss) in enumerate(ordered):
                name = self._name(strategy, loss)
                if name not in known:
                    self._build(strategy)
                    known[name] = self._row(bench, strategy, loss)
                    with self._file.open("a") as opened:
                        opened.write(json.dumps({"name": name, "row": known[name]}) + "\n")
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
            for name in ("knn1", "map")
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
        """The trial, and of a gate what it was calibrated to."""
        if strategy.kind != "gated":
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
        if self._file.is_file():
            for line in self._file.read_text().splitlines():
                try:
                    known = json.loads(line)
                except json.JSONDecodeError:
                    continue
                found[known["name"]] = known["row"]
        return found

    def _name(self, strategy: Strategy, loss: float) -> str:
        """Of a row: all that decides what is in it."""
        experiment, grid = self._experiment, self._grid
        known = [strategy.to_json(), loss, grid.gate_qualities, grid.k, grid.folds, self._seed]
        known += ["sure"] * grid.gate_sure
        known += [str(experiment.gallery.folder), experiment.name, len(experiment.queries)]
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
