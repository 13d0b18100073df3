"""What each width of a checkpoint is worth: accuracy, retrieval quality and cost, one row a width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import faiss
import numpy as np
from matmamba_retrieval import metrics, prefix
from numpy.typing import NDArray

from ..batch import LabelledBatch
from ..galleries.embedder import Embedder
from ..measures import count_macs, count_parameters, measure_latency, predict
from ..models import MatMamba
from ..width import Width

Values = NDArray[Any]
K = 10


class Labelled(Protocol):
    """Embeddings (n, D), L2-normalised, of images with labels (n,)."""

    @property
    def embeddings(self) -> NDArray[np.float32]: ...

    @property
    def labels(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True, eq=False)
class Embeddings:
    """`Labelled`, and nothing else."""

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]


def measure_widths(
    model: MatMamba,
    widths: Sequence[Width],
    gallery: Iterable[LabelledBatch],
    queries: Iterable[LabelledBatch],
) -> list[dict[str, Any]]:
    """One row for each width, in the order given.

    Retrieval is exact: queries of the width against the gallery at full width, relevant = same class.

    Args:
        model: computes on its device.
        widths: to measure.
        gallery: batches of the training images.
        queries: batches of the held-out images.
    """
    stored = predict(model, gallery)[0]
    asked = predict(model, queries, widths)
    latencies = measure_latency(model, widths)
    rows = []
    for width, found, latency in zip(widths, asked, latencies, strict=True):
        values = retrieval_values(found, stored, model.embedding_dim)
        quality = {name: float(values[name].mean()) for name in ("knn1", "map10")}
        rows.append(cost_row(model, width) | {"top1": found.top1} | quality | {"encode_ms": latency.median})
    return rows


def cost_row(model: MatMamba, width: Width) -> dict[str, Any]:
    """What a width is called, its heads, and what is counted of its cost."""
    return {
        "width": model.label(width),
        "heads": list(width.heads),
        "params": count_parameters(model, width),
        "gmacs": count_macs(model, width) / 1e9,
    }


def embedder_row(embedder: Embedder, width: str) -> dict[str, Any]:
    """The same of a width of any encoder; one that is not nested has no heads."""
    if embedder.checkpoint is not None:
        return cost_row(embedder.checkpoint.model, embedder.checkpoint.model.width(width))
    return {
        "width": width,
        "heads": [],
        "params": embedder.parameters(width),
        "gmacs": embedder.macs(width) / 1e9,
    }


def retrieval_values(
    asked: Labelled, stored: Labelled, dim: int, votes: Sequence[int] = ()
) -> dict[str, Values]:
    """What each query finds by exact search in the gallery; relevant = same class.

    Similarities are computed in blocks, by FAISS; only the nearest are kept. Where the gallery has fewer
    images than k, k is their number.

    Args:
        asked: the queries.
        stored: the gallery.
        dim: leading coordinates that are compared.
        votes: k of kNN classification.

    Returns:
        (nq,) values by name: knn1, knnK for each k of `votes` and hit10 as booleans, map10 as numbers.
    """
    k = min(max([K, *votes]), len(stored.embeddings))
    xq, xb = prefix(asked.embeddings, dim), prefix(stored.embeddings, dim)
    D, hits = faiss.knn(xq, xb, k, metric=faiss.METRIC_INNER_PRODUCT)
    neighbours = stored.labels[hits]
    relevant = neighbours[:, :K] == asked.labels[:, None]
    voted = {
        f"knn{k}": metrics.knn_classes(D[:, :k], neighbours[:, :k]) == asked.labels for k in votes if k > 1
    }
    ranked = {"map10": metrics.average_precision(relevant), "hit10": relevant.any(1)}
    return {"knn1": relevant[:, 0], **voted, **ranked}
