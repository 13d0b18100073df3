"""How strategies search the indexes of a gallery: which one, its vectors, and how many were compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError
from ..gallery.gallery import Gallery
from ..gallery.place import SHORTLISTS
from ..index.rerank import NO_KEY
from ..index.shortlist import search_index
from ..index.shortlist_index import ShortlistIndex
from ..storage.records import ShortlistRecord
from .hits import Bools, Cost
from .queries import Floats, Ints
from .strategy import Step

FLOAT16 = 2
Blocks = Iterator[tuple[int, NDArray[np.floating]]]


def find_shortlist(
    gallery: Gallery, step: Step, xq: Floats, length: int, allowed: Bools | None = None
) -> Ints:
    """(nq, length) keys by the index of a strategy's first step; (nq, dim) `xq` are normalised prefixes.

    Raises:
        GalleryError: no index over these dims of that width, or another than is named.
    """
    record = require_index(gallery, step.dim, step.gallery_width, step.index)
    found = gallery.shortlist_index(record)
    if step.effort is not None and not found.efforts:
        raise GalleryError(f"the index {record.recipe!r} takes no effort of {step.effort}")
    wanted = min(gallery.key_count, length)
    segments = gallery.segments_of(step.gallery_width)
    return search_index(found, segments, xq, wanted, allowed, step.effort or 0)


def selected_blocks(gallery: Gallery, allowed: Bools | None) -> tuple[Ints | None, Blocks]:
    """Stored vectors in blocks; of a selection its keys alone, numbered from 0, and the keys by number."""
    if allowed is None:
        return None, gallery.segments.blocks()
    return np.flatnonzero(allowed), _chosen(gallery, allowed)


def _chosen(gallery: Gallery, allowed: Bools) -> Blocks:
    number = 0
    for first, xb in gallery.segments.blocks():
        chosen = xb[allowed[first : first + len(xb)]]
        if len(chosen):
            yield number, chosen
        number += len(chosen)


def expanded(xq: Floats, I: Ints, read: Callable[[Ints], NDArray[np.floating]]) -> Floats:  # noqa: E741
    """(nq, D) means of each query and the stored vectors of its hits, normalised."""
    sums = xq.copy()
    for row, keys in zip(sums, I, strict=True):
        row += read(keys[keys != NO_KEY]).sum(0, dtype=np.float32)
    lengths: Floats = np.linalg.norm(sums, axis=1, keepdims=True)
    sums /= np.maximum(lengths, np.finfo(np.float32).tiny)
    return sums


@contextmanager
def compared_by(gallery: Gallery, step: Step, cost: Cost, queries: int) -> Iterator[None]:
    """Count what the first stage compares in the block: as FAISS counts, or all rows of a flat index."""
    before = _counted()
    yield
    found = (_counted() - before) / max(1, queries)
    vectors = found if found else float(gallery.key_count)
    cost.compare("shortlist", vectors, step.dim)
    cost.bytes_read += vectors * index_bytes(gallery, step) / gallery.key_count


def _counted() -> int:
    """Distances that FAISS computed in HNSW graphs and in inverted lists since the process began."""
    known = faiss.cvar
    return int(known.hnsw_stats.ndis + known.indexIVF_stats.ndis)


@dataclass(frozen=True)
class IndexChoice:
    """An index of a gallery, and how much of it is searched."""

    dim: int
    name: str = ""
    effort: int | None = None


def index_choices(gallery: Gallery, dims: Sequence[int]) -> list[IndexChoice]:
    """The indexes over these dims as they are built, with the efforts around the one they were built for."""
    records = [_record(gallery, dim, gallery.spec.width) for dim in dims]
    return [
        IndexChoice(record.dim, record.recipe, effort)
        for record in records
        if record is not None
        for effort in _efforts(gallery.shortlist_index(record))
    ]


def _efforts(index: ShortlistIndex) -> list[int | None]:
    """Half as much as it was built for, as much, and twice; None for an index that takes no effort."""
    around = (index.effort // 2, index.effort, 2 * index.effort)
    return [effort for effort in around if effort in index.efforts] or [None]


def ensure_index(gallery: Gallery, dim: int, width: str, index: str) -> None:
    """Build an index over the leading dims of the vectors of a width, unless it is there.

    It replaces another one over the same dims of that width.
    """
    record = _record(gallery, dim, width)
    if record is None or index not in ("", record.recipe):
        gallery.build_shortlist(dim, index, width)


def require_index(gallery: Gallery, dim: int, width: str, index: str) -> ShortlistRecord:
    """The index of that name, "" for any over these dims of that width; `GalleryError` if there is none."""
    record = _record(gallery, dim, width)
    if record is None:
        known = [f"{other.dim} dims of width {other.width}" for other in gallery.shortlists()]
        built = ", ".join(known) or "none"
        raise GalleryError(
            f"{gallery.folder} has no shortlist index over {dim} dims of width {width} (built: {built})"
        )
    if index not in ("", record.recipe):
        raise GalleryError(
            f"the index of {gallery.folder} over {dim} dims is {record.recipe!r}, not {index!r}"
        )
    return record


def _record(gallery: Gallery, dim: int, width: str) -> ShortlistRecord | None:
    return next((known for known in gallery.shortlists() if (known.dim, known.width) == (dim, width)), None)


def index_bytes(gallery: Gallery, step: Step | None) -> int:
    """Bytes of the index that a step searches; without one, of the vectors that exact search compares."""
    record = None if step is None else _record(gallery, step.dim, step.gallery_width)
    if record is None:
        return gallery.key_count * gallery.spec.dim * FLOAT16
    try:
        return (gallery.folder / SHORTLISTS / record.file).stat().st_size
    except OSError:  # another process has replaced it: this one goes on with what it has loaded
        return gallery.shortlist_index(record).memory
