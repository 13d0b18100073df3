"""What `matmamba validate` finds out from encoded images: every number with its interval, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from matmamba_retrieval import prefix
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from ..evaluate import Predictions, measure_latency
from ..evaluate.calibration import reliability
from ..evaluate.significance import mcnemar, sign_flip_test, with_intervals
from ..models import MatMamba
from ..width import Width
from .measure import Values, cost_row, retrieval_values

Row = dict[str, Any]
# Width of the query, width of the gallery, dim.
Cell = tuple[Width, Width, int]


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        widths: of the queries. gallery_widths: of the gallery; the first is the one that widths are compared
            on. dims: embedding dims. knn: k of kNN classification. pairs: widths to test against each other.
            probe: whether to fit linear probes. seed: of resampling and of what a probe holds out.
    """

    widths: Sequence[Width]
    gallery_widths: Sequence[Width]
    dims: Sequence[int]
    knn: Sequence[int]
    pairs: Sequence[tuple[Width, Width]]
    probe: bool
    seed: int


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a model says about the held-out images and about the gallery, at each width."""

    queries: Mapping[Width, Predictions]
    gallery: Mapping[Width, Predictions]


def assess(model: MatMamba, plan: Plan, encoded: Encoded, console: Console) -> dict[str, list[Row]]:
    """Lists of rows: widths, retrieval, comparisons, calibration, and probes if planned."""
    cells = _search(plan, encoded, console)
    tables = {
        "widths": _width_rows(model, plan, encoded, cells, console),
        "retrieval": _cell_rows(model, plan, cells),
        "comparisons": [_comparison(model, plan, encoded, cells, *pair) for pair in plan.pairs],
        "calibration": [_calibration(model, width, encoded.queries[width]) for width in plan.widths],
    }
    return tables | ({"probes": _probe_rows(model, plan, encoded, console)} if plan.probe else {})


def _search(plan: Plan, encoded: Encoded, console: Console) -> dict[Cell, dict[str, Values]]:
    wanted = list(product(plan.widths, plan.gallery_widths, plan.dims))
    return {
        (query, gallery, dim): retrieval_values(
            encoded.queries[query], encoded.gallery[gallery], dim, plan.knn
        )
        for query, gallery, dim in _tracked(wanted, "searching", console)
    }


def _tracked(wanted: Sequence[Any], description: str, console: Console) -> Any:
    return track(wanted, description, console=console, transient=True, disable=not console.is_terminal)


def _width_rows(
    model: MatMamba,
    plan: Plan,
    encoded: Encoded,
    cells: Mapping[Cell, Mapping[str, Values]],
    console: Console,
) -> list[Row]:
    """Retrieval is that of the first gallery width and the longest dim."""
    with console.status("measuring latency"):
        latencies = measure_latency(model, plan.widths)
    gallery, dim = plan.gallery_widths[0], max(plan.dims)
    groups = [
        _classification(encoded.queries[width])
        | {name: cells[width, gallery, dim][name] for name in ("knn1", "map10")}
        for width in plan.widths
    ]
    rows = []
    for width, latency, quality in zip(
        plan.widths, latencies, with_intervals(groups, plan.seed), strict=True
    ):
        found = encoded.queries[width]
        ece = reliability(found.confidences, found.correct).error
        rows.append(cost_row(model, width) | quality | {"ece": ece, "encode_ms": latency.median})
    return rows


def _classification(found: Predictions) -> dict[str, Values]:
    return {
        "top1": found.correct,
        "top5": found.in_top5,
        "nll": -found.log_likelihoods,
        "brier": found.briers,
    }


def _cell_rows(model: MatMamba, plan: Plan, cells: Mapping[Cell, Mapping[str, Values]]) -> list[Row]:
    found = with_intervals(list(cells.values()), plan.seed)
    return [
        {"query_width": model.label(query), "gallery_width": model.label(gallery), "dim": dim} | quality
        for (query, gallery, dim), quality in zip(cells, found, strict=True)
    ]


def _comparison(
    model: MatMamba,
    plan: Plan,
    encoded: Encoded,
    cells: Mapping[Cell, Mapping[str, Values]],
    first: Width,
    second: Width,
) -> Row:
    """First minus second, image by image; p of McNemar's exact test, and of a sign-flip test for mAP."""
    gallery, dim = plan.gallery_widths[0], max(plan.dims)
    right = [encoded.queries[width].correct for width in (first, second)]
    precise = [cells[width, gallery, dim]["map10"] for width in (first, second)]
    differences: dict[str, NDArray[np.float64]] = {
        "top1_difference": right[0].astype(float) - right[1],
        "map10_difference": precise[0] - precise[1],
    }
    (quality,) = with_intervals([differences], plan.seed)
    labels = {"first": model.label(first), "second": model.label(second)}
    where = {"gallery_width": model.label(gallery), "dim": dim}
    map10_p = sign_flip_test(differences["map10_difference"], plan.seed)
    return labels | where | quality | {"top1_p": mcnemar(*right), "map10_p": map10_p}


def _calibration(model: MatMamba, width: Width, found: Predictions) -> Row:
    bins = reliability(found.confidences, found.correct)
    means = {
        name: [None if np.isnan(value) else float(value) for value in values]
        for name, values in (("confidences", bins.confidences), ("accuracies", bins.accuracies))
    }
    return {"width": model.label(width), "ece": bins.error, "counts": bins.counts.tolist(), **means}


def _probe_rows(model: MatMamba, plan: Plan, encoded: Encoded, console: Console) -> list[Row]:
    """Trained on the gallery, both sides encoded by the width."""
    # Here, because scikit-learn may not be installed.
    from ..evaluate.probe import linear_probe

    wanted = list(product(plan.widths, plan.dims))
    probes = []
    for width, dim in _tracked(wanted, "fitting linear probes", console):
        stored, asked = encoded.gallery[width], encoded.queries[width]
        xt, xq = prefix(stored.embeddings, dim), prefix(asked.embeddings, dim)
        probes.append(linear_probe(xt, stored.labels, xq, asked.labels, plan.seed))
    found = with_intervals([{"probe": probe.correct} for probe in probes], plan.seed)
    return [
        {"width": model.label(width), "dim": dim, "strength": probe.strength} | quality
        for (width, dim), probe, quality in zip(wanted, probes, found, strict=True)
    ]
