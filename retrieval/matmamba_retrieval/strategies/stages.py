"""The stages of a search: shortlist, steps that rerank it, exact search; each counts what it spends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from ..arguments import require_array
from ..errors import GalleryError
from ..gallery.gallery import Gallery
from ..index.rerank import NO_KEY, exact_candidates, prefix, rerank, reranker
from ..index.row_kernels import row_kernels
from ..storage.segments import Segments
from .engines import AnyGallery
from .hits import Bools, Cost, Hits
from .indexes import FLOAT16, expanded, require_index, selected_blocks
from .queries import Floats, Ints, Queries
from .searchable import Searchable, Selection
from .strategy import Strategy

# So many queries meet a block of vectors at once: their scores take 64 MiB.
QUERIES_AT_ONCE = 256
# So few are compared with vectors where they lie: for these alone, to widen all vectors would take longest.
FEW_QUERIES = 4
# Keys that they are compared with at once: 8 MiB for each query.
KEYS_AT_ONCE = 1 << 20
NONE_FULFILS = "no image fulfils the condition"
# Strategies that are remembered for a state of a gallery: a service asks a few, a planner tries hundreds.
MOST_BOUND = 64


class Answerable(NamedTuple):
    """Which images a query may be answered with.

    Attributes:
        allowed: (keys,) whether each may be; None for all.
        total: how many these are.
        keys: how many keys there are, of images that may be answered or not.
        dim: of their vectors.
    """

    allowed: Bools | None
    total: int
    keys: int
    dim: int

    def reason(self, k: int) -> str:
        """Why there are fewer than k hits, if there are."""
        return why_fewer(self.total, k)


def why_fewer(total: int, k: int) -> str:
    """Why there are fewer than k hits among `total` images, if there are."""
    if total >= k:
        return ""
    if not total:
        return NONE_FULFILS
    images = "1 image is" if total == 1 else f"{total} images are"
    return f"only {images} in the selection: fewer than k = {k}"


def require_k(gallery: Searchable, k: int, live: int) -> None:
    """Raise `GalleryError` if there are not so many images that were not deleted."""
    if not 1 <= k <= live:
        raise GalleryError(f"k = {k} is not in 1..{live}, the number of images in {gallery.folder}")


def answerable(gallery: Gallery, k: int, selection: Selection | None) -> Answerable:
    """What may be answered; `GalleryError` if `k` is not in 1..number of images."""
    seen = gallery.seen()
    version, live, dim = seen.version, seen.live, seen.generation.spec.dim
    require_k(gallery, k, version.live)
    if selection is None:
        return Answerable(live, version.live, version.keys, dim)
    allowed = require_array(selection, "allowed", "biuf", "(keys,)")
    if allowed.shape != (version.keys,) or allowed.dtype != np.bool_:
        raise GalleryError(f"a selection is {allowed.dtype} {allowed.shape}, not bool {(version.keys,)}")
    allowed = allowed if live is None else allowed & live
    return Answerable(allowed, int(allowed.sum()), version.keys, dim)


class QueryWidths:
    """Queries at the widths that a strategy asks for: each width is encoded, and paid for, once.

    Attributes:
        dim: of the embeddings that are wanted.
    """

    def __init__(self, queries: Queries, dim: int, cost: Cost) -> None:
        self.dim, self._queries, self._cost = dim, queries, cost
        self._known: dict[str, Floats] = {}

    def at(self, width: str) -> Floats:
        """(nq, D) embeddings; `GalleryError` if they are not as long as those of the gallery."""
        known = self._known.get(width)
        if known is not None:
            return known
        encoded = self._queries.encode(width)
        if encoded.xq.shape[1] != self.dim:
            raise GalleryError(f"queries have {encoded.xq.shape[1]} dims, the gallery has {self.dim}")
        self._cost.encoded(encoded.macs, encoded.ms)
        self._known[width] = encoded.xq
        return encoded.xq


class Bound:
    """A strategy for k hits, bound to what a gallery holds now: asked and checked once, not by each query.

    Args:
        gallery: open.
        strategy: without a gate, with a first step.
        k: hits wanted.
        images: that may be answered.

    Raises:
        GalleryError: the strategy does not fit the gallery, or k is not in 1..number of images.
    """

    def __init__(self, gallery: Gallery, strategy: Strategy, k: int, images: Answerable) -> None:
        require_fit(strategy, k, images.dim)
        self._strategy, self._k, self._images = strategy, k, images
        self._step = step = strategy.steps[0]
        self._index = found = require_index(gallery, step)
        self._compared = found.index.compared
        self._query_width, self._last_width = strategy.query_width, strategy.rerank_width or "full"
        self._length, self._is_whole = min(step.length, images.total), step.dim == images.dim
        self._reason, self._segments = images.reason(k), gallery.segments
        self._find = (
            found.finder(self._length, step.effort)
            if images.allowed is None
            else partial(found.search, shortlist=self._length, allowed=images.allowed, effort=step.effort)
        )

    def hits(self, queries: Queries) -> Hits:
        """The k best images for each query."""
        cost = Cost()
        encoded = QueryWidths(queries, self._images.dim, cost)
        candidates = shortlist = self._shortlist(encoded.at(self._query_width), cost)
        for step in self._strategy.steps[1:]:
            xq = encoded.at(step.width or "full")
            candidates = rerank_step(self._segments, xq, candidates, step.dim, step.length, cost)[1]
        xq, expand = encoded.at(self._last_width), self._strategy.expand
        D, I, nearest = last_step(self._segments, xq, candidates, self._k, expand, cost)  # noqa: E741
        return Hits(
            D=D,
            I=I,
            shortlist=shortlist,
            cost=cost,
            by_full=flags(len(D), self._last_width == "full"),
            reason=self._reason,
            nearest=nearest,
        )

    def _shortlist(self, xq: Floats, cost: Cost) -> Ints:
        """(nq, K) keys of candidates by the index, and by newer vectors; what was compared is counted."""
        start, index, dim, keys = time.perf_counter(), self._index, self._step.dim, self._images.keys
        before = self._compared()
        found = self._find(xq if self._is_whole else prefix(xq, dim))
        compared = (self._compared() - before) / (len(xq) or 1) or float(keys)
        cost.compared("shortlist", start, len(xq), compared * dim, compared * index.file_bytes / keys)
        return found


def bound(gallery: Gallery, strategy: Strategy, k: int) -> Bound:
    """A strategy for all images, bound once to what the gallery holds now: every query asks for it."""
    known = gallery.seen().bound
    found = known.get((strategy, k))
    if found is None:
        if len(known) >= MOST_BOUND:
            known.clear()
        found = known[strategy, k] = Bound(gallery, strategy, k, answerable(gallery, k, None))
    return found


def staged(
    gallery: AnyGallery, strategy: Strategy, queries: Queries, k: int, allowed: Selection | None
) -> Hits:
    """The hits of a strategy without a gate: `search` says more."""
    if not isinstance(gallery, Gallery):
        return gallery.staged(strategy, queries, k, allowed)
    if allowed is None and strategy.steps:
        return bound(gallery, strategy, k).hits(queries)
    images = answerable(gallery, k, allowed)
    if strategy.steps:
        return Bound(gallery, strategy, k, images).hits(queries)
    cost = Cost()
    encoded = QueryWidths(queries, images.dim, cost)
    return _single_shot(gallery, strategy.query_width, encoded, k, images, cost)


def _single_shot(
    gallery: Gallery, width: str, encoded: QueryWidths, k: int, images: Answerable, cost: Cost
) -> Hits:
    """Compare each query with every image."""
    xq, start = encoded.at(width), time.perf_counter()
    D, I = exact_search(gallery, xq, k, images.allowed)  # noqa: E741
    macs = images.total * images.dim
    cost.compared("rerank", start, len(xq), macs, macs * FLOAT16)
    cost.candidates += images.total
    by_full = flags(len(xq), width == "full")
    return Hits(D=D, I=I, shortlist=I, cost=cost, by_full=by_full, reason=images.reason(k))


@lru_cache(maxsize=32)
def flags(count: int, flag: bool) -> Bools:
    """(count,) times the same, read-only: made once, because it takes as long as the rest of an answer."""
    flags = np.full(count, flag)
    flags.flags.writeable = False
    return flags


def require_fit(strategy: Strategy, k: int, dim: int) -> None:
    """Raise `GalleryError` if the steps do not fit vectors of a dim, or keep too few candidates."""
    if strategy.longest_dim > dim:
        raise GalleryError(f"{strategy.kind} dim {strategy.longest_dim} is not in 1..{dim}")
    if strategy.shortest_list < k:
        raise GalleryError(f"a shortlist of {strategy.shortest_list} cannot give k = {k} hits")


def exact_search(gallery: Gallery, xq: Floats, k: int, allowed: Bools | None = None) -> tuple[Floats, Ints]:
    """D and I (nq, k) of exact search by the leading coordinates that (nq, dim) queries have."""
    parts = [_exact(gallery, part, k, allowed) for part in _split(xq)]
    D, I = (np.concatenate(found) for found in zip(*parts, strict=True))  # noqa: E741
    return D, I


def _split(xq: Floats) -> Iterator[Floats]:
    for start in range(0, max(1, len(xq)), QUERIES_AT_ONCE):
        yield xq[start : start + QUERIES_AT_ONCE]


def _exact(gallery: Gallery, xq: Floats, k: int, allowed: Bools | None) -> tuple[Floats, Ints]:
    if len(xq) <= FEW_QUERIES and row_kernels() is not None:
        return _exact_of_few(gallery.segments, xq, k, allowed)
    keys, blocks = selected_blocks(gallery, allowed)
    if keys is not None and not len(keys):
        return rerank(xq, np.empty((len(xq), 0), dtype=np.int64), gallery.segments, k)
    candidates = exact_candidates(xq, blocks, k)
    if keys is not None:
        candidates = np.where(candidates == NO_KEY, NO_KEY, keys[candidates])
    return rerank(xq, candidates, gallery.segments, k)


def _exact_of_few(segments: Segments, xq: Floats, k: int, allowed: Bools | None) -> tuple[Floats, Ints]:
    """Exact search by the kernel alone: the best of some keys at a time, then the best of these."""
    found = list[tuple[Floats, Ints]]()
    for first in range(0, max(1, len(segments)), KEYS_AT_ONCE):
        last = min(first + KEYS_AT_ONCE, len(segments))
        keys = np.arange(first, last) if allowed is None else first + np.flatnonzero(allowed[first:last])
        found.append(rerank(xq, np.broadcast_to(keys, (len(xq), len(keys))), segments, k))
    if len(found) == 1:
        return found[0]
    return rerank(xq, np.concatenate([keys for _, keys in found], axis=1), segments, k)


def last_step(
    segments: Segments, xq: Floats, candidates: Ints, k: int, expand: int, cost: Cost
) -> tuple[Floats, Ints, tuple[Floats, Ints] | None]:
    """D and I (nq, k) of the candidates by all coordinates; where the query is expanded, those by itself too.

    The nearest by the query itself stays first: the mean serves the hits behind it, at whose cost the first
    would often be another.
    """
    dim = xq.shape[1]
    D, I = rerank_step(segments, xq, candidates, dim, max(k, expand), cost)  # noqa: E741
    cost.candidates += candidates.shape[1]
    if not expand:
        return D, I, None
    start = time.perf_counter()
    mean = expanded(xq, I[:, :expand], segments.read)
    first = rerank(mean, I[:, :1], segments, 1)
    cost.took("rerank", start, len(xq))
    behind = rerank_step(segments, mean, candidates, dim, k, cost)
    return *put_first(*first, *behind), (D[:, :k], I[:, :k])


def put_first(D_first: Floats, first: Ints, D: Floats, I: Ints) -> tuple[Floats, Ints]:  # noqa: E741
    """D and I (nq, k) with the hits (nq, 1) `first` in front: moved, or instead of the last."""
    same = first == I
    left_out = np.where(same.any(1), same.argmax(1), I.shape[1] - 1)
    kept = np.arange(I.shape[1]) != left_out[:, None]
    behind = len(I), I.shape[1] - 1
    return np.hstack([D_first, D[kept].reshape(behind)]), np.hstack([first, I[kept].reshape(behind)])


def rerank_step(
    segments: Segments, xq: Floats, candidates: Ints, dim: int, length: int, cost: Cost
) -> tuple[Floats, Ints]:
    """D and I (nq, length) of the candidates by their leading `dim` coordinates; what it takes is counted."""
    start = time.perf_counter()
    cut = xq if dim == xq.shape[1] else prefix(xq, dim)
    D, I = segments.derived(reranker)(cut, candidates, length)  # noqa: E741
    macs = candidates.shape[1] * dim
    cost.compared("rerank", start, len(xq), macs, macs * FLOAT16)
    return D, I
