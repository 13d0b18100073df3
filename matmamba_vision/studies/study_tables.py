"""The tables of a study of encoded images: a row for each strategy, and what exact search reaches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matmamba_retrieval.planning.grid import Grid
from matmamba_retrieval.strategies.strategy import Strategy

from ..measures.significance import with_intervals
from ..progress import Reporter
from ..widths.quality_and_cost import retrieval_values
from .experiment import Experiment
from .modes import losses, mode_of
from .strategy_rows import StrategyRows

Row = dict[str, Any]


def tables_of(
    experiment: Experiment,
    grid: Grid,
    wanted: Sequence[tuple[Strategy, float]],
    seed: int,
    folder: Path,
    report: Reporter,
    modes: Sequence[str] = (),
) -> dict[str, Any]:
    """Numbers of images, exact search by width and dim, and rows of strategies, as plain values.

    Args:
        experiment: images and gallery.
        grid: hits wanted, dims of exact search, and how gates are calibrated.
        wanted: strategies, and the loss in points that their gates may have.
        seed: of the folds of queries, and of the resampling.
        folder: where rows that are done are kept.
        report: is told how far it is.
        modes: of a student and its teacher, which exact search is by; none for another model.
    """
    full = experiment.gallery.spec.dim
    dims = sorted({dim for dim in grid.dims if dim < full} | {full})
    return {
        "images": {"gallery": len(experiment.gallery), "queries": len(experiment.queries)},
        "exact": exact_rows(experiment, dims, seed, report, modes),
        "rows": StrategyRows(experiment, grid, seed, folder, report).rows(wanted),
    }


def exact_rows(
    experiment: Experiment, dims: Sequence[int], seed: int, report: Reporter, modes: Sequence[str] = ()
) -> list[Row]:
    """Quality of exact search by each query width, gallery width and dim, without rerank.

    Args:
        experiment: images and gallery.
        dims: of the embeddings that are compared, the full one last.
        seed: of the resampling.
        report: is told how far it is.
        modes: of a student and its teacher, those that are wanted; none for another model.
    """
    cells = [
        (query, gallery, dim)
        for query in experiment.asked.by_width
        for gallery in experiment.stored.by_width
        for dim in dims
        if not modes or mode_of(query, gallery) in modes
    ]
    values = [_values(experiment, cell, report) for cell in cells]
    if modes:
        reference = values[cells.index(("full", "full", dims[-1]))]
        values = [found | losses(found, reference) for found in values]
    macs = {width: known.macs for width, known in experiment.queries.by_width.items()}
    rows = [
        {"query_width": query, "gallery_width": gallery, "dim": dim, "encoder_macs": macs[query]} | found
        for (query, gallery, dim), found in zip(cells, with_intervals(values, seed), strict=True)
    ]
    return [_by_mode(experiment, row) for row in rows] if modes else rows


def _values(experiment: Experiment, cell: tuple[str, str, int], report: Reporter) -> dict[str, Any]:
    """1-NN and mAP of each query."""
    query, gallery, dim = cell
    with report.stage(f"exact search: query {query}, gallery {gallery}, {dim} dims"):
        found = retrieval_values(experiment.asked.at(query), experiment.stored.at(gallery), dim)
    return {name: found[name] for name in ("knn1", "map10")}


def _by_mode(experiment: Experiment, row: Row) -> Row:
    mode, width = mode_of(row["query_width"], row["gallery_width"]), row["query_width"]
    return {"mode": mode} | row | {"encoder_ms": experiment.queries.encode(width).ms}
