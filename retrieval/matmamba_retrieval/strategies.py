"""Ways to answer a query, from exact and dear to cheap: one protocol, and each reports what it spent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import GalleryError
from .gallery import Gallery
from .rerank import exact_candidates, prefix, rerank

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Encoded:
    """Queries encoded at one width.

    Attributes:
        xq: (nq, D) float32, L2-normalised. macs: encoder multiply-adds per query. ms: encoder time per query.
    """

    xq: Floats
    macs: float
    ms: float


class Queries(Protocol):
    """Query images, encoded at whichever widths a strategy asks for."""

    def __len__(self) -> int: ...

    def encode(self, width: str) -> Encoded:
        """Encode all of them at a width."""
        ...


@dataclass(frozen=True)
class EncodedQueries:
    """Queries encoded beforehand, by width label."""

    by_width: dict[str, Encoded]

    def __len__(self) -> int:
        return len(next(iter(self.by_width.values())).xq)

    def encode(self, width: str) -> Encoded:
        """Look them up; `GalleryError` if they were not encoded at this width."""
        if width not in self.by_width:
            raise GalleryError(
                f"queries were not encoded at width {width!r}, only at {', '.join(self.by_width)}"
            )
        return self.by_width[width]


@dataclass
class Cost:
    """What a search spent, per query.

    Attributes:
        macs: encoder multiply-adds. candidates: vectors scored at full length. bytes_read: of vectors and
            flat indexes. ms: milliseconds by stage: encode, shortlist, rerank.
    """

    macs: float = 0.0
    candidates: float = 0.0
    bytes_read: float = 0.0
    ms: dict[str, float] = field(default_factory=dict)

    @property
    def search_ms(self) -> float:
        """Milliseconds per query, without the encoder."""
        return sum(ms for stage, ms in self.ms.items() if stage != "encode")

    @contextmanager
    def timed(self, stage: str, queries: int) -> Iterator[None]:
        """Add the time of the block, divided by the number of queries, to a stage."""
        start = time.perf_counter()
        yield
        self.ms[stage] = self.ms.get(stage, 0.0) + 1e3 * (time.perf_counter() - start) / max(1, queries)

    def add_encoder(self, encoded: Encoded) -> None:
        """Count one encoding of each query."""
        self.macs += encoded.macs
        self.ms["encode"] = self.ms.get("encode", 0.0) + encoded.ms


@dataclass(frozen=True)
class Hits:
    """Answers, best first.

    Attributes:
        D: (nq, k) cosine similarities of full-length embeddings. I: (nq, k) keys of the gallery. shortlist:
            (nq, K) keys found by the first stage. cost: per query.
    """

    D: Floats
    I: Ints  # noqa: E741
    shortlist: Ints
    cost: Cost


class Strategy(Protocol):
    """A way to search one gallery."""

    @property
    def query_width(self) -> str:
        """Label of the width that encodes a query first."""
        ...

    def search(self, queries: Queries, k: int) -> Hits:
        """The k best images for each query; `GalleryError` if the gallery cannot give k."""
        ...


@dataclass(frozen=True)
class SingleShot:
    """Exact search over full-length embeddings: at full width, the reference for quality; else small-only."""

    gallery: Gallery
    query_width: str = "full"

    def search(self, queries: Queries, k: int) -> Hits:
        """Compare each query with every image."""
        _require(self.gallery, k, k)
        cost, xq = _encode(self.gallery, queries, self.query_width)
        with cost.timed("rerank", len(queries)):
            candidates = exact_candidates(xq, self.gallery.segments.blocks(), k)
            D, I = rerank(xq, candidates, self.gallery.segments.read, k)  # noqa: E741
        cost.candidates += len(self.gallery)
        cost.bytes_read += len(self.gallery) * self.gallery.spec.dim * 2
        return Hits(D, I, candidates, cost)


@dataclass(frozen=True)
class Shortlist:
    """A small-width query finds `shortlist` candidates by `dim` coordinates; the full width reranks them.

    MRL's adaptive retrieval (arXiv 2205.13147, section 4.3.1) with a cheaper encoder for the first stage.
    """

    gallery: Gallery
    query_width: str = "1/8"
    dim: int = 32
    shortlist: int = 200

    def search(self, queries: Queries, k: int) -> Hits:
        """Shortlist, then rerank by full-width, full-length embeddings."""
        lengths, dims = (self.shortlist,), (self.dim,)
        return Funnel(self.gallery, self.query_width, dims, lengths).search(queries, k)


@dataclass(frozen=True)
class Funnel:
    """A shortlist reranked in steps, each shorter and with more dims than the last; full length ends it.

    MRL's funnel retrieval (arXiv 2205.13147, section 4.3.1). The first step takes the small-width query and
    the FAISS index over `dims[0]`; the later ones take the full-width query.

    Attributes:
        dims: dims of each step before the last. lengths: candidates that each of these steps keeps.
    """

    gallery: Gallery
    query_width: str = "1/8"
    dims: tuple[int, ...] = (16, 32, 64)
    lengths: tuple[int, ...] = (200, 100, 50)

    def search(self, queries: Queries, k: int) -> Hits:
        """Shortlist, then rerank step by step."""
        if not self.dims or len(self.dims) != len(self.lengths):
            raise GalleryError(
                f"a funnel needs one length for each dim: dims {self.dims}, lengths {self.lengths}"
            )
        _require(self.gallery, k, min(self.lengths))
        cost, small = _encode(self.gallery, queries, self.query_width)
        with cost.timed("shortlist", len(queries)):
            shortlist = self.gallery.search_shortlist(prefix(small, self.dims[0]), self.lengths[0])
        cost.bytes_read += len(self.gallery) * self.dims[0] * 4
        full = small if self.query_width == "full" else _encode(self.gallery, queries, "full", cost)[1]
        candidates = shortlist
        with cost.timed("rerank", len(queries)):
            for dim, length in zip(self.dims[1:], self.lengths[1:], strict=True):
                candidates = self._rerank(full, candidates, dim, length, cost)[1]
            D, I = self._rerank(full, candidates, self.gallery.spec.dim, k, cost)  # noqa: E741
        cost.candidates += candidates.shape[1]
        return Hits(D, I, shortlist, cost)

    def _rerank(self, xq: Floats, candidates: Ints, dim: int, length: int, cost: Cost) -> tuple[Floats, Ints]:
        cost.bytes_read += candidates.shape[1] * dim * 2
        return rerank(prefix(xq, dim), candidates, self.gallery.segments.read, length)


def _encode(gallery: Gallery, queries: Queries, width: str, cost: Cost | None = None) -> tuple[Cost, Floats]:
    encoded, cost = queries.encode(width), cost or Cost()
    if encoded.xq.shape[1] != gallery.spec.dim:
        raise GalleryError(f"queries have {encoded.xq.shape[1]} dims, the gallery has {gallery.spec.dim}")
    cost.add_encoder(encoded)
    return cost, encoded.xq


def _require(gallery: Gallery, k: int, shortlist: int) -> None:
    if not 1 <= k <= len(gallery):
        raise GalleryError(f"k = {k} is not in 1..{len(gallery)}, the number of images in {gallery.folder}")
    if shortlist < k:
        raise GalleryError(f"a shortlist of {shortlist} cannot give k = {k} hits")
