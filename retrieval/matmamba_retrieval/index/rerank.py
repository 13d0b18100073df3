"""Exact scoring: prefixes, cosine similarity, and the final order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..storage.segments import Segments
from .halves import HalfRows, worthwhile
from .library import faiss
from .row_kernels import Halves, RowKernels, RowTable, row_kernels
from .threads import one_thread

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Vectors = NDArray[np.floating]
Read = Segments | Callable[[Ints], Vectors]
# From queries, candidates and k to D and I.
Reranker = Callable[[Floats, Ints, int], tuple[Floats, Ints]]
NO_KEY = -1
_TINY = np.finfo(np.float32).tiny
_LOW = 0xFFFFFFFF
# Numbers widened at once: 4 MiB, which caches hold; fewer would spend more on calls than on numbers.
FLOATS_AT_ONCE = 1 << 20
# A thread costs as much as some parts.
PARTS_A_THREAD = 8
# As much as so many numbers to the kernel.
FLOATS_A_THREAD = 1 << 21
_half_rows = HalfRows()


def widen(x: Vectors) -> Floats:
    """Exactly `x.astype(float32)`, seven times faster for float16, which numpy converts one by one.

    A float16's exponent and fraction are moved to their places in a float32, whose exponent then is too small
    by 112: a product with a power of two, so it is exact, subnormal numbers included.
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
    cut /= np.maximum(norms, _TINY)[:, None]
    return cut


def rerank(xq: Floats, candidates: Ints, read: Read, k: int) -> tuple[Floats, Ints]:
    """The best k of each query's candidates by cosine similarity; ties go to the smaller key.

    A candidate's score depends on nothing but the two vectors, so that equal candidates give equal answers,
    whichever way they were found. The kernel in C reads stored vectors where they lie; without it they are
    read in the order of their keys, each once for several queries, and scores may differ in the last bit.

    Args:
        xq: (nq, d) normalised queries.
        candidates: (nq, K) keys, distinct in each row, `NO_KEY` where there are fewer.
        read: the segments, or what gives vectors of ascending keys; the leading d coordinates are compared.
            Vectors of float32 are compared without the kernel.
        k: hits wanted.

    Returns:
        D (nq, k) scores, best first, and I (nq, k) keys; -inf and `NO_KEY` where a query has fewer
            candidates.
    """
    if (kernels := row_kernels()) is not None:
        if isinstance(read, Segments):
            return _from_segments(kernels, read.derived(_table), read, xq, candidates, k)
        distinct, places = _distinct(candidates)
        xb = read(distinct)
        if len(xb) and xb.dtype == np.float16:
            return _from_memory(kernels, xq, distinct, places, xb, k)
        read = partial(_looked_up, distinct, xb)
    return _without_kernel(read, xq, candidates, k)


def reranker(segments: Segments) -> Reranker:
    """`rerank` of stored vectors, for many calls: what is the same for all of them is found out once."""
    if (kernels := row_kernels()) is None:
        return partial(_without_kernel, segments)
    return partial(_from_segments, kernels, segments.derived(_table), segments)


def _table(segments: Segments) -> RowTable:
    return RowTable(segments.mapped(), len(segments), segments.dim)


def _without_kernel(read: Read, xq: Floats, candidates: Ints, k: int) -> tuple[Floats, Ints]:
    if len(xq) == 1:
        return _rerank_one(xq, candidates[0], read, k)
    return _rerank_many(xq, candidates, read, k)


def _from_segments(
    kernels: RowKernels, table: RowTable, segments: Segments, xq: Floats, candidates: Ints, k: int
) -> tuple[Floats, Ints]:
    """`rerank` of stored vectors by the kernel in C."""
    xq, keys = np.ascontiguousarray(xq, np.float32), np.ascontiguousarray(candidates, np.int64)
    if len(xq) > 1:
        return _in_parts(kernels, segments, table, xq, keys, k)
    return kernels.best(table, xq, keys, k) or _checked_first(kernels, segments, table, xq, keys, k)


def _from_memory(
    kernels: RowKernels, xq: Floats, keys: Ints, places: Ints, xb: Halves, k: int
) -> tuple[Floats, Ints]:
    """`rerank` by the kernel of vectors that were read: candidates are at places among ascending keys."""
    table = RowTable([(0, np.ascontiguousarray(xb), None, 1)], len(xb), xb.shape[1])
    found = kernels.best(table, np.ascontiguousarray(xq, np.float32), places, k)
    if found is None:
        raise RuntimeError("the kernel did not find vectors that are there")
    D, I = found  # noqa: E741
    return D, np.where(I == NO_KEY, NO_KEY, keys[I])


def _looked_up(known: Ints, xb: Vectors, keys: Ints) -> Vectors:
    """Vectors of some keys, of those known, which ascend."""
    return xb[np.searchsorted(known, keys)]


def _checked_first(
    kernels: RowKernels, segments: Segments, table: RowTable, xq: Floats, keys: Ints, k: int
) -> tuple[Floats, Ints]:
    """By the kernel, when the rows that it did not trust have been compared with their checksums."""
    segments.check(keys[keys != NO_KEY])
    found = kernels.best(table, xq, keys, k)
    if found is None:
        raise RuntimeError("the kernel did not trust vectors that were checked")
    return found


def _in_parts(
    kernels: RowKernels, segments: Segments, table: RowTable, xq: Floats, keys: Ints, k: int
) -> tuple[Floats, Ints]:
    """By the kernel, which knows no threads: several queries each, on as many as FAISS takes."""
    threads = max(1, min(faiss.omp_get_max_threads(), keys.size * xq.shape[1] // FLOATS_A_THREAD))
    bounds = np.linspace(0, len(xq), threads + 1).astype(int)

    def part(first: int, last: int) -> tuple[Floats, Ints]:
        some = xq[first:last], keys[first:last]
        return kernels.best(table, *some, k) or _checked_first(kernels, segments, table, *some, k)

    if threads == 1:
        return part(0, len(xq))
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(part, bounds[:-1], bounds[1:]))
    D, I = (np.concatenate(found) for found in zip(*parts, strict=True))  # noqa: E741
    return D, I


def _rerank_many(xq: Floats, candidates: Ints, read: Read, k: int) -> tuple[Floats, Ints]:
    """`rerank` of several queries without the kernel."""
    D = np.full((len(xq), k), -np.inf, dtype=np.float32)
    I = np.full((len(xq), k), NO_KEY, dtype=np.int64)  # noqa: E741
    # A query's equal scores are in the order of the keys if these ascend.
    xq, candidates = np.ascontiguousarray(xq, dtype=np.float32), np.sort(candidates, axis=1)
    shown = min(k, candidates.shape[1])
    step = max(1, FLOATS_AT_ONCE // max(1, candidates.shape[1] * xq.shape[1]))

    def part(first: int) -> None:
        some = slice(first, first + step)
        scores = score(xq[some], candidates[some], read)
        # The keys ascend, and a stable sort leaves equal scores in that order.
        best = np.argsort(-scores, axis=1, kind="stable")[:, :shown]
        rows = np.arange(len(scores))[:, None]
        D[some, :shown], I[some, :shown] = scores[rows, best], candidates[some][rows, best]

    starts = range(0, len(xq) if shown else 0, step)
    threads = min(faiss.omp_get_max_threads(), len(starts) // PARTS_A_THREAD)
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, starts))
    else:
        for first in starts:
            part(first)
    return D, I


def _rerank_one(xq: Floats, candidates: Ints, read: Read, k: int) -> tuple[Floats, Ints]:
    """`rerank` of one query (1, d) with its candidates (K,) without the kernel: by few calls."""
    xq, keys = np.ascontiguousarray(xq, dtype=np.float32), np.sort(candidates)
    if len(keys) and keys[0] < 0:
        keys = keys[np.searchsorted(keys, 0) :]
    if not len(keys):
        return np.full((1, k), -np.inf, dtype=np.float32), np.full((1, k), NO_KEY, dtype=np.int64)
    keys, xb = _nearest(xq, keys, read, k)
    scores = pair_scores(xq, prefix(xb, xq.shape[1]), np.arange(len(keys))[None])
    # The keys ascend, and a stable sort leaves equal scores in that order.
    best = np.argsort(-scores[0], kind="stable")[:k]
    D, I = scores.take(best, axis=1), keys.take(best)[None]  # noqa: E741
    if (missing := ((0, 0), (0, k - len(best))))[1][1]:
        return np.pad(D, missing, constant_values=-np.inf), np.pad(I, missing, constant_values=NO_KEY)
    return D, I


def _nearest(xq: Floats, keys: Ints, read: Read, k: int) -> tuple[Ints, Vectors]:
    """Of ascending keys, some that are certain to contain the k nearest to (1, d), and their vectors."""
    if not isinstance(read, Segments):
        return keys, read(keys)
    if read.dim != xq.shape[1] or not worthwhile(len(keys), k):
        return keys, read.read(keys)
    xb = read.read(keys, _half_rows.memory(len(keys), read.dim))
    near = _half_rows.nearest(xq, k)
    return (keys, xb) if near is None else (keys.take(near), xb.take(near, axis=0))


def score(xq: Floats, candidates: Ints, read: Read) -> Floats:
    """(nq, K) cosine similarities of (nq, d) queries with their candidates (nq, K); -inf for `NO_KEY`."""
    keys, places = _distinct(candidates)
    if not len(keys):
        return np.full(candidates.shape, -np.inf, dtype=np.float32)
    xb = read.read(keys) if isinstance(read, Segments) else read(keys)
    return pair_scores(xq, prefix(xb, xq.shape[1]), places)


def pair_scores(xq: Floats, xb: Floats, places: Ints) -> Floats:
    """(nq, K) inner products of queries (nq, d) with rows of xb (n, d) at places (nq, K); -inf at -1.

    A dot product for each pair: in a matrix product, the last bits may depend on the number of rows.
    """
    xq, places = np.ascontiguousarray(xq), np.ascontiguousarray(places)
    scores = np.empty(places.shape, dtype=np.float32)
    arrays = map(faiss.swig_ptr, (scores, xq, xb, places))
    with one_thread():
        faiss.fvec_inner_products_by_idx(*arrays, xq.shape[1], *places.shape)
    return scores


def _distinct(candidates: Ints) -> tuple[Ints, Ints]:
    """The distinct keys, ascending, and for each candidate its place among them; `NO_KEY` stays."""
    keys, places = np.unique(candidates, return_inverse=True)
    missing = int(len(keys) > 0 and keys[0] == NO_KEY)
    return keys[missing:], np.ascontiguousarray(places.reshape(candidates.shape) - missing, dtype=np.int64)


def best_of(scores: Floats, keys: Ints, k: int) -> tuple[Floats, Ints]:
    """The k greatest of each row of (nq, K) scores, best first, with their keys; equal ones by ascending key.

    Both are packed into one integer, so that a partial sort, which NumPy vectorises, gives the exact order.
    Where the score is -inf, the key is `NO_KEY`.
    """
    if keys.size and keys.max() > _LOW:
        order = np.lexsort((keys, -scores))[:, :k]
        D, I = np.take_along_axis(scores, order, 1), np.take_along_axis(keys, order, 1)  # noqa: E741
    else:
        bits = (scores + np.float32(0)).view(np.int32)  # -0 becomes 0: they are equal
        packed = (~_ordered(bits)).astype(np.int64) << 32 | keys & _LOW
        if k < packed.shape[1]:
            packed = np.partition(packed, k, axis=1)[:, :k]
        packed.sort(axis=1)
        D = _ordered(~(packed >> 32).astype(np.int32)).view(np.float32)
        I = packed & _LOW  # noqa: E741
    return D, np.where(-np.inf == D, NO_KEY, I)


def _ordered(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Bits of floats as integers in the same order; twice is back again."""
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def exact_candidates(xq: Floats, blocks: Iterable[tuple[int, Vectors]], k: int) -> Ints:
    """For each query, keys that are certain to contain its k nearest: those within rounding of the k-th best.

    Args:
        xq: (nq, D) normalised queries.
        blocks: all vectors, as (key of the first row, rows).

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
