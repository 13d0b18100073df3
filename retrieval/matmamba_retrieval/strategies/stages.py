"""The stages of a search: shortlist, steps that rerank it, exact search; each counts what it spends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import GalleryError
from ..gallery.gallery import Gallery
from ..index.rerank import NO_KEY, exact_candidates, prefix, rerank
from .hits import Bools, Cost, Hits
from .indexes import compared_by, expanded, find_shortlist, selected_blocks
from .queries import Floats, Ints, Queries
from .strategy import Step, Strategy

# So many queries meet a block of vectors at once: their scores take 64 MiB.
QUERIES_AT_ONCE = 256


@dataclass(frozen=True)
class Answerable:
    """Which images a query may be answered with.

    Attributes:
        allowed: (keys,) whether each may be; None for all.
        count: how many these are.
    """

    allowed: Bools | None
    count: int

    def reason(self, k: int) -> str:
        """Why there are fewer than k hits, if there are."""
        images = "1 image is" if self.count == 1 else f"{self.count} images are"
        return f"only {images} in the selection: fewer than k = {k}" if self.count < k else ""


def answerable(gallery: Gallery, k: int, allowed: Bools | None) -> Answerable:
    """What may be answered; `GalleryError` if `k` is not in 1..number of images."""
    count = len(gallery)
    if not 1 <= k <= count:
        raise GalleryError(f"k = {k} is not in 1..{count}, the number of images in {gallery.folder}")
    live = gallery.allowed()
    if allowed is None:
        return Answerable(live, count)
    if allowed.shape != (gallery.key_count,) or allowed.dtype != np.bool_:
        raise GalleryError(f"a selection is {allowed.dtype} {allowed.shape}, not bool {(gallery.key_count,)}")
    allowed = allowed if live is None else allowed & live
    return Answerable(allowed, int(allowed.sum()))


class QueryWidths:
    """Queries at the widths that a strategy asks for: each width is encoded, and paid for, once."""

    def __init__(self, gallery: Gallery, queries: Queries, cost: Cost) -> None:
        self._gallery, self._queries, self._cost = gallery, queries, cost
        self._known: dict[str, Floats] = {}

    def at(self, width: str) -> Floats:
        """(nq, D) embeddings; `GalleryError` if they are not as long as those of the gallery."""
        if width not in self._known:
            encoded, dim = self._queries.encode(width), self._gallery.spec.dim
            if encoded.xq.shape[1] != dim:
                raise GalleryError(f"queries have {encoded.xq.shape[1]} dims, the gallery has {dim}")
            self._cost.add_encoder(encoded)
            self._known[width] = encoded.xq
        return self._known[width]


def staged(gallery: Gallery, strategy: Strategy, queries: Queries, k: int, allowed: Bools | None) -> Hits:
    """The hits of a strategy without a gate: `search` says more."""
    if not strategy.steps:
        return _single_shot(gallery, strategy.query_width, queries, k, allowed)
    _require_steps(gallery, strategy, k)
    images, cost = answerable(gallery, k, allowed), Cost()
    encoded = QueryWidths(gallery, queries, cost)
    first, *others = strategy.steps
    shortlist = _shortlist(gallery, first, encoded.at(strategy.query_width), k, images, cost)
    candidates = shortlist
    for step in others:
        xq = encoded.at(step.width or "full")
        candidates = rerank_step(gallery, xq, candidates, step.dim, step.length, cost)[1]
    width = strategy.rerank_width or "full"
    by_full = np.full(len(queries), width == "full")
    D, I, nearest = last_step(gallery, encoded.at(width), candidates, k, strategy.expand, cost)  # noqa: E741
    return Hits(D, I, shortlist, cost, by_full, images.reason(k), nearest)


def _single_shot(gallery: Gallery, width: str, queries: Queries, k: int, allowed: Bools | None) -> Hits:
    """Compare each query with every image."""
    images, cost = answerable(gallery, k, allowed), Cost()
    xq = QueryWidths(gallery, queries, cost).at(width)
    with cost.timed("rerank", len(queries)):
        D, I = exact_search(gallery, xq, k, images.allowed)  # noqa: E741
    cost.compare("rerank", images.count, gallery.spec.dim)
    cost.candidates += images.count
    cost.bytes_read += images.count * gallery.spec.dim * 2
    return Hits(D, I, I, cost, np.full(len(queries), width == "full"), images.reason(k))


def _require_steps(gallery: Gallery, strategy: Strategy, k: int) -> None:
    """Raise `GalleryError` if the steps do not fit the gallery, or keep too few candidates."""
    dim, shortest = gallery.spec.dim, min(strategy.lengths)
    wrong = [tried for tried in strategy.dims if tried > dim]
    if wrong:
        raise GalleryError(f"{strategy.kind} dim {wrong[0]} is not in 1..{dim}")
    # A k that the gallery cannot give is refused as that.
    if shortest < k <= len(gallery):
        raise GalleryError(f"a shortlist of {shortest} cannot give k = {k} hits")


def _shortlist(gallery: Gallery, step: Step, xq: Floats, k: int, images: Answerable, cost: Cost) -> Ints:
    """(nq, K) keys of the candidates; where an approximate index found fewer than k, the exact ones."""
    length = min(step.length, images.count)
    counted = compared_by(gallery, step, cost, len(xq))
    with cost.timed("shortlist", len(xq)), counted:
        found = find_shortlist(gallery, step, prefix(xq, step.dim), length, images.allowed)
        few = np.flatnonzero((found != NO_KEY).sum(1) < min(k, images.count))
        if not len(few):
            return found
        exact = exact_search(gallery, prefix(xq[few], step.dim), length, images.allowed)[1]
        wider = np.full((len(found), max(found.shape[1], length)), NO_KEY, dtype=np.int64)
        wider[:, : found.shape[1]] = found
        wider[few] = NO_KEY
        wider[few, : exact.shape[1]] = exact
        return wider


def exact_search(gallery: Gallery, xq: Floats, k: int, allowed: Bools | None = None) -> tuple[Floats, Ints]:
    """D and I (nq, k) of exact search by the leading coordinates that (nq, dim) queries have."""
    parts = [_exact(gallery, part, k, allowed) for part in _split(xq)]
    D, I = (np.concatenate(found) for found in zip(*parts, strict=True))  # noqa: E741
    return D, I


def _split(xq: Floats) -> Iterator[Floats]:
    for start in range(0, max(1, len(xq)), QUERIES_AT_ONCE):
        yield xq[start : start + QUERIES_AT_ONCE]


def _exact(gallery: Gallery, xq: Floats, k: int, allowed: Bools | None) -> tuple[Floats, Ints]:
    keys, blocks = selected_blocks(gallery, allowed)
    if keys is not None and not len(keys):
        return rerank(xq, np.empty((len(xq), 0), dtype=np.int64), gallery.segments.read, k)
    candidates = exact_candidates(xq, blocks, k)
    if keys is not None:
        candidates = np.where(candidates == NO_KEY, NO_KEY, keys[candidates])
    return rerank(xq, candidates, gallery.segments.read, k)


def last_step(
    gallery: Gallery, xq: Floats, candidates: Ints, k: int, expand: int, cost: Cost
) -> tuple[Floats, Ints, tuple[Floats, Ints] | None]:
    """D and I (nq, k) of the candidates by all coordinates; where the query is expanded, those by itself too.

    The nearest by the query itself stays first: the mean serves the hits behind it, at whose cost the first
    would often be another.
    """
    dim = gallery.spec.dim
    D, I = rerank_step(gallery, xq, candidates, dim, max(k, expand), cost)  # noqa: E741
    cost.candidates += candidates.shape[1]
    if not expand:
        return D, I, None
    with cost.timed("rerank", len(xq)):
        mean = expanded(xq, I[:, :expand], gallery.segments.read)
        first = rerank(mean, I[:, :1], gallery.segments.read, 1)
    behind = rerank_step(gallery, mean, candidates, dim, k, cost)
    return *put_first(*first, *behind), (D[:, :k], I[:, :k])


def put_first(D_first: Floats, first: Ints, D: Floats, I: Ints) -> tuple[Floats, Ints]:  # noqa: E741
    """D and I (nq, k) with the hits (nq, 1) `first` in front: moved, or instead of the last."""
    same = first == I
    left_out = np.where(same.any(1), same.argmax(1), I.shape[1] - 1)
    kept = np.arange(I.shape[1]) != left_out[:, None]
    behind = len(I), I.shape[1] - 1
    return np.hstack([D_first, D[kept].reshape(behind)]), np.hstack([first, I[kept].reshape(behind)])


def rerank_step(
    gallery: Gallery, xq: Floats, candidates: Ints, dim: int, length: int, cost: Cost
) -> tuple[Floats, Ints]:
    """D and I (nq, length) of the candidates by their leading `dim` coordinates; what it takes is counted."""
    with cost.timed("rerank", len(xq)):
        D, I = rerank(prefix(xq, dim), candidates, gallery.segments.read, length)  # noqa: E741
    cost.compare("rerank", candidates.shape[1], dim)
    cost.bytes_read += candidates.shape[1] * dim * 2
    return D, I
