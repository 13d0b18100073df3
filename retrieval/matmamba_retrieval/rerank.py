"""Exact scoring: prefixes, cosine similarity, and the final order."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Vectors = NDArray[np.floating]
NO_KEY = -1


def prefix(x: Vectors, dim: int) -> Floats:
    """The leading `dim` coordinates of (n, D) vectors, L2-normalised again, float32."""
    cut = x[:, :dim].astype(np.float32)
    if dim == x.shape[1]:
        return cut
    norms = np.sqrt(np.einsum("nd,nd->n", cut, cut))
    return cut / np.maximum(norms, np.finfo(np.float32).tiny)[:, None]


def rerank(xq: Floats, candidates: Ints, read: Callable[[Ints], Vectors], k: int) -> tuple[Floats, Ints]:
    """The best k of each query's candidates by cosine similarity; ties go to the smaller key.

    A candidate's score depends on nothing but the two vectors, so that equal candidates give equal answers,
    whichever way they were found.

    Args:
        xq: (nq, d) normalised queries. candidates: (nq, K) keys, distinct in each row, `NO_KEY` where there
            are fewer. read: vectors of keys; the leading d coordinates are compared. k: hits wanted.

    Returns:
        D (nq, k) scores, best first, and I (nq, k) keys; -inf and `NO_KEY` where a query has fewer
            candidates.
    """
    D = np.full((len(xq), k), -np.inf, dtype=np.float32)
    I = np.full((len(xq), k), NO_KEY, dtype=np.int64)  # noqa: E741
    for q, keys in enumerate(candidates):
        keys = keys[keys != NO_KEY]
        scores = _scores(xq[q], prefix(read(keys), xq.shape[1]))
        best = np.lexsort((keys, -scores))[:k]
        D[q, : len(best)], I[q, : len(best)] = scores[best], keys[best]
    return D, I


def _scores(q: Floats, xb: Floats) -> Floats:
    # Not a BLAS product: that may differ in the last bits with the number of rows.
    return np.einsum("nd,d->n", xb, q)


def exact_candidates(xq: Floats, blocks: Iterable[tuple[int, Vectors]], k: int) -> Ints:
    """For each query, keys that are certain to contain its k nearest: those within rounding of the k-th best.

    Args:
        xq: (nq, D) normalised queries. blocks: all vectors, as (key of the first row, rows).

    Returns:
        (nq, K) keys, `NO_KEY` where a query has fewer than K.
    """
    # Two orders of summation of unit vectors differ by less than this.
    slack = 4 * xq.shape[1] * np.finfo(np.float32).eps
    kept: list[list[tuple[Floats, Ints]]] = [[] for _ in xq]
    for first, xb in blocks:
        scores = xq @ prefix(xb, xq.shape[1]).T
        for q, row in enumerate(scores):
            near = np.flatnonzero(row >= _kth_best(row, k) - slack)
            kept[q].append((row[near], near + first))
    return _pad([_within(parts, k, slack) for parts in kept])


def _within(parts: list[tuple[Floats, Ints]], k: int, slack: float) -> Ints:
    scores = np.concatenate([part[0] for part in parts])
    keys = np.concatenate([part[1] for part in parts])
    near: Ints = keys[scores >= _kth_best(scores, k) - slack]
    return near


def _kth_best(scores: Floats, k: int) -> float:
    return float(np.partition(scores, -k)[-k]) if k < len(scores) else -np.inf


def _pad(lists: list[Ints]) -> Ints:
    padded = np.full((len(lists), max(map(len, lists), default=0)), NO_KEY, dtype=np.int64)
    for row, keys in zip(padded, lists, strict=True):
        row[: len(keys)] = keys
    return padded
