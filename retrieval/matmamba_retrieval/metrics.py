"""Retrieval metrics as pure functions of arrays. Elsewhere one name means many things; these say which.

`relevant` is (nq, k) bool: whether each hit has the query's class, best hit first. `relevant_total` is (nq,):
how many images of the gallery have it. Functions return the mean over queries, unless they say (nq,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.floating]
TIE = 1e-3
# Of the votes of neighbours: InstDisc (arXiv 1805.01978) and DINO (arXiv 2104.14294).
VOTE_TEMPERATURE = 0.07


def top1(relevant: Bools) -> float:
    """Share of queries whose nearest neighbour has their class (1-NN accuracy)."""
    return float(relevant[:, 0].mean())


def map_at_k(relevant: Bools) -> float:
    """MRL's mAP@k (arXiv 2205.13147), the headline: precision at each hit's rank, summed, divided by k."""
    return float(average_precision(relevant).mean())


def average_precision(relevant: Bools) -> NDArray[np.float64]:
    """(nq,) what `map_at_k` is the mean of: precision at each hit's rank, summed, divided by k."""
    precision: NDArray[np.float64] = _precision_at_hits(relevant)
    return precision.sum(1) / relevant.shape[1]


def knn_classes(D: Floats, neighbours: Ints, temperature: float = VOTE_TEMPERATURE) -> Ints:
    """(nq,) classes that the k nearest neighbours vote for (InstDisc, arXiv 1805.01978, section 3.4; DINO).

    A neighbour's vote weighs exp(similarity / temperature); of equal classes the nearest neighbour's wins.

    Args:
        D: (nq, k) cosine similarities, best first.
        neighbours: (nq, k) classes of the neighbours.
    """
    weights = np.exp(D.astype(np.float64) / temperature)
    # For each neighbour the votes of its class. A loop, because a table of classes would be larger.
    votes = np.zeros_like(weights)
    for rank in range(D.shape[1]):
        votes += weights[:, rank, None] * (neighbours == neighbours[:, rank, None])
    winners: Ints = np.take_along_axis(neighbours, votes.argmax(1)[:, None], axis=1)[:, 0]
    return winners


def map_at_k_min(relevant: Bools, relevant_total: Ints) -> float:
    """GLDv2's mAP@k: divided by min(k, R). Queries without relevant images count 0."""
    return _divided(_precision_at_hits(relevant).sum(1), np.minimum(relevant.shape[1], relevant_total))


def map_at_k_total(relevant: Bools, relevant_total: Ints) -> float:
    """TREC's average precision cut at k: divided by R. Queries without relevant images count 0."""
    return _divided(_precision_at_hits(relevant).sum(1), relevant_total)


def map_at_k_found(relevant: Bools) -> float:
    """Average precision divided by the hits found (torchmetrics' `top_k`). Queries without hits count 0."""
    return _divided(_precision_at_hits(relevant).sum(1), relevant.sum(1))


def hit_at_k(relevant: Bools) -> float:
    """Share of queries with at least one hit of their class among k ("recall@k" of metric learning)."""
    return float(relevant.any(1).mean())


def recall_ir(relevant: Bools, relevant_total: Ints) -> float:
    """Share of a query's relevant images that are among its k hits (information retrieval's recall@k)."""
    return _divided(relevant.sum(1).astype(np.float64), relevant_total)


def recall_mrl(relevant: Bools, per_class: int = 1300) -> float:
    """Hits divided by a fixed class size (MRL's recall@k; 1,300 is ImageNet-1K's)."""
    return float((relevant.sum(1) / per_class).mean())


def ann_recall(D: Floats, D_exact: Floats) -> float:
    """Share of the exact k hits that an approximate search found; ties with the k-th exact score count.

    Args:
        D: (nq, k) exact scores of the hits found, -inf where none was found.
        D_exact: (nq, k) scores of the exact hits, best first.
    """
    return float(ann_recalls(D, D_exact).mean())


def ann_recalls(D: Floats, D_exact: Floats) -> NDArray[np.float64]:
    """(nq,) what `ann_recall` is the mean of. Where there are fewer than k exact hits, of those there are."""
    there = np.isfinite(D_exact)
    least = np.where(there, D_exact, np.inf).min(1, keepdims=True)
    found = np.isfinite(D) & (least - TIE * np.abs(least) <= D)
    return np.minimum(found.sum(1), there.sum(1)) / np.maximum(1, there.sum(1))


def same_first(I: Ints, I_exact: Ints) -> NDArray[np.bool_]:  # noqa: E741
    """(nq,) whether the first hit is the exact one."""
    return I[:, 0] == I_exact[:, 0]


def _precision_at_hits(relevant: Bools) -> NDArray[np.float64]:
    """(nq, k) precision at each rank that holds a relevant image, 0 at the others."""
    ranks = np.arange(1, relevant.shape[1] + 1)
    return relevant * relevant.cumsum(1) / ranks


def _divided(sums: NDArray[np.float64], counts: Ints) -> float:
    return float(np.divide(sums, counts, out=np.zeros(len(sums)), where=counts > 0).mean())
