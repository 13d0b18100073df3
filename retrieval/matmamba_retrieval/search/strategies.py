"""Ways to answer a query, from exact and dear to cheap; each counts what it spends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import GalleryError
from ..gallery.gallery import Gallery
from ..index.rerank import NO_KEY, exact_candidates, prefix, rerank
from .hits import Bools, Cost, Hits, Strategy
from .queries import Encoded, EncodedQueries, Floats, Ints, Queries
from .scan import compared_by, expanded, find_shortlist, selected_blocks

__all__ = [
    "Cost",
    "Encoded",
    "EncodedQueries",
    "Funnel",
    "Hits",
    "Queries",
    "Shortlist",
    "SingleShot",
    "Strategy",
]
# So many queries meet a block of vectors at once: their scores take 64 MiB.
QUERIES_AT_ONCE = 256


@dataclass(frozen=True)
class SingleShot:
    """Exact search over full-length embeddings: at full width, the reference for quality; else small-only."""

    gallery: Gallery
    query_width: str = "full"

    def search(self, queries: Queries, k: int, allowed: Bools | None = None) -> Hits:
        """Compare each query with every image."""
        selection = select(self.gallery, k, allowed)
        cost = Cost()
        xq = Encoder(self.gallery, queries, cost).at(self.query_width)
        with cost.timed("rerank", len(queries)):
            D, I = exact_search(self.gallery, xq, k, selection.allowed)  # noqa: E741
        cost.compare("rerank", selection.count, self.gallery.spec.dim)
        cost.candidates += selection.count
        cost.bytes_read += selection.count * self.gallery.spec.dim * 2
        by_full = np.full(len(queries), self.query_width == "full")
        return Hits(D, I, I, cost, by_full, selection.reason(k))


@dataclass(frozen=True)
class Shortlist:
    """A small-width query finds `shortlist` candidates by `dim` coordinates; the full width reranks them.

    MRL's adaptive retrieval (arXiv 2205.13147, section 4.3.1) with a cheaper encoder for the first stage.

    Attributes:
        gallery_width: of the vectors that the index holds: "full", or a width that the gallery stores
            besides. index: name of the index, if not the only one of that dim. effort: how much of an
            approximate index is searched (nprobe, efSearch); by default what the index was built with.
            expand: nearest candidates that the query is averaged with before it is compared a last time
            (average query expansion: Chum et al., ICCV 2007), behind the nearest one, which stays first;
            0 for none.
    """

    gallery: Gallery
    query_width: str = "1/8"
    dim: int = 32
    shortlist: int = 200
    gallery_width: str = "full"
    index: str = ""
    effort: int | None = None
    expand: int = 0

    def search(self, queries: Queries, k: int, allowed: Bools | None = None) -> Hits:
        """Shortlist, then rerank by full-width, full-length embeddings."""
        return self.with_widths("full").search(queries, k, allowed)

    def with_widths(self, rerank_width: str) -> Funnel:
        """The same as a funnel of one step, whose shortlist is reranked by queries of a width."""
        return Funnel(
            self.gallery,
            self.query_width,
            (self.dim,),
            (self.shortlist,),
            (rerank_width,),
            self.gallery_width,
            self.index,
            self.effort,
            self.expand,
        )


@dataclass(frozen=True)
class Funnel:
    """A shortlist reranked in steps, each shorter and with more dims than the last; full length ends it.

    MRL's funnel retrieval (arXiv 2205.13147, section 4.3.1), with a query width for each step. The first step
    takes the FAISS index over `dims[0]`; the later ones compare stored full-width vectors.

    Attributes:
        query_width: of the first step. dims: dims of each step before the last. lengths: candidates that each
            of these steps keeps. widths: query widths of the steps after the first, the last included; by
            default all full. gallery_width, index, effort: of the first step, and expand: of the last, as in
            `Shortlist`.
    """

    gallery: Gallery
    query_width: str = "1/8"
    dims: tuple[int, ...] = (16, 32, 64)
    lengths: tuple[int, ...] = (200, 100, 50)
    widths: tuple[str, ...] = ()
    gallery_width: str = "full"
    index: str = ""
    effort: int | None = None
    expand: int = 0

    def search(self, queries: Queries, k: int, allowed: Bools | None = None) -> Hits:
        """Shortlist, then rerank step by step."""
        widths = self._require_schedule(k)
        selection = select(self.gallery, k, allowed)
        cost = Cost()
        encoder = Encoder(self.gallery, queries, cost)
        shortlist = self._shortlist(encoder.at(self.query_width), k, selection, cost)
        candidates = shortlist
        for dim, length, width in zip(self.dims[1:], self.lengths[1:], widths[:-1], strict=True):
            candidates = rerank_step(self.gallery, encoder.at(width), candidates, dim, length, cost)[1]
        xq, by_full = encoder.at(widths[-1]), np.full(len(queries), widths[-1] == "full")
        D, I, nearest = last_step(self.gallery, xq, candidates, k, self.expand, cost)  # noqa: E741
        return Hits(D, I, shortlist, cost, by_full, selection.reason(k), nearest)

    def _shortlist(self, xq: Floats, k: int, selection: Selection, cost: Cost) -> Ints:
        dim, length = self.dims[0], min(self.lengths[0], selection.count)
        where = (self.gallery_width, self.index, self.effort)
        counted = compared_by(self.gallery, dim, self.gallery_width, cost, len(xq))
        with cost.timed("shortlist", len(xq)), counted:
            found = find_shortlist(self.gallery, prefix(xq, dim), length, selection.allowed, *where)
            return self._complete(found, xq, min(k, selection.count), length, selection)

    def _complete(self, shortlist: Ints, xq: Floats, least: int, length: int, selection: Selection) -> Ints:
        """Where an approximate index found fewer than k images that may be answered, the exact ones."""
        few = np.flatnonzero((shortlist != NO_KEY).sum(1) < least)
        if len(few):
            exact = exact_search(self.gallery, prefix(xq[few], self.dims[0]), length, selection.allowed)[1]
            wider = np.full((len(shortlist), max(shortlist.shape[1], length)), NO_KEY, dtype=np.int64)
            wider[:, : shortlist.shape[1]] = shortlist
            wider[few] = NO_KEY
            wider[few, : exact.shape[1]] = exact
            shortlist = wider
        return shortlist

    def _require_schedule(self, k: int) -> tuple[str, ...]:
        """Query widths of the later steps; `GalleryError` if the schedule is none."""
        if not self.dims or len(self.dims) != len(self.lengths):
            raise GalleryError(
                f"a funnel needs one length for each dim: dims {self.dims}, lengths {self.lengths}"
            )
        widths = self.widths or ("full",) * len(self.dims)
        if len(widths) != len(self.dims):
            raise GalleryError(f"a funnel of {len(self.dims)} dims needs as many later widths, not {widths}")
        wrong = [dim for dim in self.dims if not 1 <= dim <= self.gallery.spec.dim]
        if wrong:
            raise GalleryError(f"funnel dim {wrong[0]} is not in 1..{self.gallery.spec.dim}")
        # A k that the gallery cannot give is refused as that.
        if min(self.lengths) < k <= len(self.gallery):
            raise GalleryError(f"a shortlist of {min(self.lengths)} cannot give k = {k} hits")
        return widths


@dataclass(frozen=True)
class Selection:
    """Which images a query may be answered with: (keys,) `allowed`, or all; and how many these are."""

    allowed: Bools | None
    count: int

    def reason(self, k: int) -> str:
        """Why there are fewer than k hits, if there are."""
        images = "1 image is" if self.count == 1 else f"{self.count} images are"
        return f"only {images} in the selection: fewer than k = {k}" if self.count < k else ""


def select(gallery: Gallery, k: int, allowed: Bools | None) -> Selection:
    """What may be answered; `GalleryError` if `k` is not in 1..number of images."""
    if not 1 <= k <= len(gallery):
        raise GalleryError(f"k = {k} is not in 1..{len(gallery)}, the number of images in {gallery.folder}")
    live = gallery.allowed()
    if allowed is None:
        return Selection(live, len(gallery))
    if allowed.shape != (gallery.key_count,) or allowed.dtype != np.bool_:
        raise GalleryError(f"a selection is {allowed.dtype} {allowed.shape}, not bool {(gallery.key_count,)}")
    allowed = allowed if live is None else allowed & live
    return Selection(allowed, int(allowed.sum()))


class Encoder:
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
