"""What each width of a checkpoint is worth: accuracy, retrieval quality and cost, one row a width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matmamba_retrieval import metrics
from matmamba_retrieval.rerank import exact_candidates, rerank
from numpy.typing import NDArray
from rich.table import Table

from ..batch import LabelledBatch
from ..evaluate import Predictions, count_macs, count_parameters, measure_latency, predict
from ..models import MatMamba
from ..width import Width

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
K = 10


def measure_widths(
    model: MatMamba,
    widths: Sequence[Width],
    gallery: Iterable[LabelledBatch],
    queries: Iterable[LabelledBatch],
) -> list[dict[str, Any]]:
    """One row for each width, in the order given.

    Retrieval is exact: queries of the width against the gallery at full width, relevant = same class.

    Args:
        gallery, queries: batches of the training and of the held-out images.
    """
    stored = predict(model, gallery)[0]
    asked = predict(model, queries, widths)
    latencies = measure_latency(model, widths)
    rows = []
    for width, found, latency in zip(widths, asked, latencies, strict=True):
        row = {
            "width": model.label(width),
            "heads": list(width.heads),
            "params": count_parameters(model, width),
            "gmacs": count_macs(model, width) / 1e9,
            "top1": found.top1,
        }
        rows.append(row | _retrieval(found, stored) | {"encode_ms": latency.median})
    return rows


def _retrieval(asked: Predictions, stored: Predictions) -> dict[str, float]:
    k = min(K, len(stored.embeddings))
    candidates = exact_candidates(asked.embeddings, [(0, stored.embeddings)], k)
    _, hits = rerank(asked.embeddings, candidates, lambda keys: stored.embeddings[keys], k)
    relevant = stored.labels[hits] == asked.labels[:, None]
    return {"knn1": metrics.top1(relevant), "map10": metrics.map_at_k(relevant)}


def widths_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as people read them."""
    table = Table("width", "params", "MMACs", "top-1", "1-NN", "mAP@10", "encode ms", title="widths")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        quality = (f"{row[name]:.3f}" for name in ("top1", "knn1", "map10"))
        mmacs = f"{1e3 * row['gmacs']:,.1f}"
        table.add_row(row["width"], f"{row['params']:,}", mmacs, *quality, f"{row['encode_ms']:.1f}")
    return table
