"""Exact scoring: prefixes, cosine similarity, and the final order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import faiss
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Vectors = NDArray[np.floating]
NO_KEY = -1
# Candidates scored at once: their float32 vectors of 512 dims are 8 MiB, which the last cache holds.
PAIRS_AT_ONCE = 4096


def widen(x: Vectors) -> Floats:
    """Exactly `x.astype(float32)`, seven times faster for float16, which numpy converts one by one.

    A float16's exponent and fraction are moved to their places in a float32, whose exponent then is too small by
    112: a product with a power of two, so it is exact, subnormal numbers included.
    """
    if x.dtype != np.float16:
        return x.astype(np.float32)
    bits = np.ascontiguousarray(x).view(np.int16)
    exponents = np.bitwise_and(bits, np.int16(0x7C00))
    if exponents.max(initial=0) == 0x7C00:  # infinity or NaN
        return x.astype(np.float32)
    moved = bits.astype(np.int32)
    moved <<= 13
    # The sign was extended to the four highest bits; the lower three of these are the exponent's.
    moved &= np.int32(~0x70000000)
    wide: Floats = moved.view(np.float32)
    wide *= np.float32(2.0**112)
    return wide


def prefix(x: Vectors, dim: int) -> Floats:
    """The leading `dim` coordinates of (n, D) vectors, L2-normalised again, float32."""
    cut = widen(x[:, :dim])
    if dim == x.shape[1]:
        return cut
    norms = np.sqrt(np.einsum("nd,nd->n", cut, cut))
    cut /= np.maximum(norms, np.finfo(np.float32).tiny)[:, None]
    return cut


def rerank(xq: Floats, candidates: Ints, read: Callable[[Ints], Vectors], k: int) -> tuple[Floats, Ints]:
    """The best k of each query's candidates by cosine similarity; ties go to the smaller key.

    A candidate's score depends on nothing but the two vectors, so that equal candidates give equal answers,
    whichever way they were found. Vectors are read in the order of their keys, each once for several queries.

    Args:
        xq: (nq, d) normalised queries. candidates: (nq, K) keys, distinct in each row, `NO_KEY` where there
            are fewer. read: vectors of ascending keys; the leading d coordinates are compared. k: hits wanted.

    Returns:
        D (nq, k) scores, best first, and I (nq, k) keys; -inf and `NO_KEY` where a query has fewer
            candidates.
    """
    D = np.full((len(xq), k), -np.inf, dtype=np.float32)
    I = np.full((len(xq), k), NO_KEY, dtype=np.int64)  # noqa: E741
    xq, candidates = np.ascontiguousarray(xq, dtype=np.float32), np.sort(candidates, axis=1)
    shown = min(k, candidates.shape[1])
    step = max(1, PAIRS_AT_ONCE // max(1, candidates.shape[1]))
    for first in range(0, len(xq) if shown else 0, step):
        part = slice(first, first + step)
        scores = score(xq[part], candidates[part], read)
        # The keys ascend, and a stable sort leaves equal scores in that order.
        best = np.argsort(-scores, axis=1, kind="stable")[:, :shown]
        D[part, :shown] = np.take_along_axis(scores, best, 1)
        I[part, :shown] = np.take_along_axis(candidates[part], best, 1)
    return D, I


def score(xq: Floats, candidates: Ints, read: Callable[[Ints], Vectors]) -> Floats:
    """(nq, K) cosine similarities of (nq, d) queries with their candidates (nq, K); -inf for `NO_KEY`."""
    keys, places = _distinct(candidates)
    scores = np.full(candidates.shape, -np.inf, dtype=np.float32)
    if len(keys):
        xb = prefix(read(keys), xq.shape[1])
        arrays = map(faiss.swig_ptr, (scores, xq, xb, places))
        with one_thread():
            # A dot product for each pair: in a matrix product, the last bits may depend on the number of rows.
            faiss.fvec_inner_products_by_idx(*arrays, xq.shape[1], len(xq), candidates.shape[1])
    return scores


def _distinct(candidates: Ints) -> tuple[Ints, Ints]:
    """The distinct keys, ascending, and for each candidate its place among them; `NO_KEY` stays."""
    if len(candidates) == 1:
        missing = int(np.searchsorted(candidates[0], 0))
        return candidates[0, missing:], np.maximum(np.arange(candidates.shape[1]) - missing, NO_KEY)[None]
    keys, places = np.unique(candidates, return_inverse=True)
    missing = int(len(keys) > 0 and keys[0] == NO_KEY)
    return keys[missing:], np.ascontiguousarray(places.reshape(candidates.shape) - missing, dtype=np.int64)


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS uses one thread here: for so little work, waking a second one takes longer than the work."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


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
