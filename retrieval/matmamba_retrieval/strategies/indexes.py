"""How strategies search the indexes of a gallery: which one, with what effort, and its vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError
from ..gallery.gallery import Gallery
from ..index.gallery_index import OpenIndex
from ..index.rerank import NO_KEY
from ..index.shortlist_index import ShortlistIndex
from .engines import AnyGallery, IndexChoice
from .hits import Bools
from .queries import Floats, Ints
from .strategy import Step

FLOAT16 = 2
Blocks = Iterator[tuple[int, NDArray[np.floating]]]


def require_index(gallery: Gallery, step: Step) -> OpenIndex:
    """The index that a step searches; `GalleryError` if there is none, or another, or it takes no effort."""
    found = gallery.open_index(step.dim, step.gallery_width)
    if found is None:
        known = [f"{other.dim} dims of width {other.width}" for other in gallery.shortlists()]
        raise GalleryError(
            f"{gallery.folder} has no shortlist index over {step.dim} dims of width {step.gallery_width}"
            f" (built: {', '.join(known) or 'none'})"
        )
    recipe = found.record.recipe
    if step.index not in ("", recipe):
        raise GalleryError(
            f"the index of {gallery.folder} over {step.dim} dims is {recipe!r}, not {step.index!r}"
        )
    if step.effort is not None and not found.index.takes_effort:
        raise GalleryError(f"the index {recipe!r} takes no effort of {step.effort}")
    return found


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


def index_choices(gallery: AnyGallery, dims: Sequence[int]) -> list[IndexChoice]:
    """The indexes over these dims as they are built, with the efforts around the one they were built for."""
    if not isinstance(gallery, Gallery):
        return gallery.index_choices(dims)
    records = [gallery.shortlist_record(dim, gallery.spec.width) for dim in dims]
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


def ensure_index(gallery: AnyGallery, dim: int, width: str, index: str) -> None:
    """Build an index over the leading dims of the vectors of a width, unless it is there.

    It replaces another one over the same dims of that width. What was pushed to an engine stays as it is.
    """
    if not isinstance(gallery, Gallery):
        return
    record = gallery.shortlist_record(dim, width)
    if record is None or index not in ("", record.recipe):
        gallery.build_shortlist(dim, index, width)


def index_bytes(gallery: AnyGallery, step: Step | None) -> int:
    """Bytes of the index that a step searches; without one, of the vectors that exact search compares."""
    if not isinstance(gallery, Gallery):
        return gallery.index_bytes(step)
    record = None if step is None else gallery.shortlist_record(step.dim, step.gallery_width)
    return gallery.key_count * gallery.spec.dim * FLOAT16 if record is None else gallery.index_bytes(record)
