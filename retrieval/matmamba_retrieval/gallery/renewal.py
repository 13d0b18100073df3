"""A new generation of a gallery: all its images with other vectors, or without what was deleted.

It is made beside the current one, which goes on answering, and becomes current in one moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..storage.records import ShortlistRecord
from ..storage.segments import BLOCK_ROWS, SEGMENT_ROWS, Segments, write_segment
from ..storage.spec import EmbeddingSpec
from . import staging
from .gallery import Gallery, Vectors
from .place import SEGMENTS

Ints = NDArray[np.int64]


class Renewal:
    """A generation in the making; one that was interrupted goes on where it was, if it is of the same spec.

    Args:
        gallery: open for writing.

    Raises:
        GalleryError: the gallery was opened for reading.
    """

    def __init__(
        self, gallery: Gallery, spec: EmbeddingSpec, checkpoint_path: str = "", widths: Sequence[str] = ()
    ) -> None:
        gallery.require_writer()
        self.gallery, self.spec, self.widths = gallery, spec, tuple(widths)
        self._catalog, self._old = gallery.catalog, gallery.generation.number
        self._number = staging.stage(self._catalog, self._old, spec, checkpoint_path, widths)

    def pending(self) -> Ints:
        """Keys of the gallery's images that still need vectors."""
        return staging.pending(self._catalog, self._old, self._number)

    def add(self, keys: Ints, xb: Vectors, small: Mapping[str, Vectors] | None = None) -> None:
        """Give images their vectors, (n, D) of the spec and of each further width; on the disk on return."""
        by_width = {self.spec.width: xb, **(small or {})}
        self._put(keys, {width: [vectors] for width, vectors in by_width.items()})

    def copy(self, keys: Ints) -> None:
        """Give images the vectors that they have now."""
        for first in range(0, len(keys), SEGMENT_ROWS):
            part = keys[first : first + SEGMENT_ROWS]
            self._put(part, {width: self._read(width, part) for width in (self.spec.width, *self.widths)})

    def finish(self, plan: Any = None) -> None:
        """Build the FAISS indexes that the gallery has, then make this its current generation.

        Those over more dims than the new vectors have, or of widths that it does not have, are left out; and
        all of them if no image is left.

        Args:
            plan: how it is to be searched, None for no plan.

        Raises:
            SavedError: it is current, but something failed then.
        """
        images = staging.key_count(self._catalog, self._number)
        records = [record for record in self.gallery.shortlists() if images and self._fits(record)]
        indexes = [self._build(record) for record in records]
        with self.gallery.changing("the new generation is current"), self._catalog.transaction():
            for record in indexes:
                self._catalog.put_shortlist(self._number, record)
            staging.switch(self._catalog, self._number, plan)
        self.gallery.tidy()

    def _put(self, keys: Ints, blocks: Mapping[str, Iterable[Vectors]]) -> None:
        catalog, start = self._catalog, staging.key_count(self._catalog, self._number)
        folder, rows, dim = self.gallery.folder / SEGMENTS, len(keys), self.spec.dim
        written = [
            write_segment(folder, parts, width=width, start=start, rows=rows, dim=dim)
            for width, parts in blocks.items()
        ]
        with catalog.transaction():
            for record in written:
                catalog.put_segment(self._number, record)
            staging.copy_images(catalog, self._old, self._number, start, keys)

    def _read(self, width: str, keys: Ints) -> Iterator[Vectors]:
        for first in range(0, len(keys), BLOCK_ROWS):
            yield self.gallery.segments_of(width).read(keys[first : first + BLOCK_ROWS])

    def _fits(self, record: ShortlistRecord) -> bool:
        return record.dim <= self.spec.dim and record.width in (self.spec.width, *self.widths)

    def _build(self, record: ShortlistRecord) -> ShortlistRecord:
        records = self._catalog.segments(self._number, record.width)
        segments = Segments(self.gallery.folder / SEGMENTS, records, self.spec.dim)
        return self.gallery.make_shortlist(
            segments, name=record.name, width=record.width, dim=record.dim, recipe=record.recipe
        )


def compact(gallery: Gallery) -> int:
    """Leave out what was deleted, and put the vectors in few files; returns how many keys are gone.

    Readers keep what they opened. Versions before this can no longer be opened.
    """
    before = gallery.key_count
    renewal = Renewal(gallery, gallery.spec, gallery.checkpoint_path, gallery.generation.widths)
    renewal.copy(renewal.pending())
    renewal.finish(gallery.plan)
    return before - gallery.key_count
