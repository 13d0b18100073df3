"""The gallery: a folder of vectors that loses nothing that was committed."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from matmamba_common.words import shown
from numpy.typing import NDArray

from ..arguments import require_array, require_text, require_texts, require_whole
from ..errors import GalleryError, SavedError
from ..index.gallery_index import build_index, save_index
from ..index.recipes import AUTO, choose
from ..storage.catalog import Catalog
from ..storage.changes import add_images, delete_images
from ..storage.files import remove
from ..storage.locks import Lock
from ..storage.records import Row, SegmentRecord, ShortlistRecord
from ..storage.segments import Segments, write_segment
from ..storage.spec import EmbeddingSpec
from .addresses import require_folder
from .place import CATALOG, SEGMENTS, SHORTLISTS, hold_to_write, require_empty, require_own_files, take_empty
from .snapshot import Snapshot
from .staging import sweep

log = logging.getLogger(__name__)
# A stored vector may differ from unit length by this much: float16 rounding and room for other encoders.
UNIT_TOLERANCE = 1e-2
Vectors = NDArray[np.floating]


class Gallery(Snapshot):
    """Indexed images: a catalogue, immutable segments of float16 vectors, FAISS indexes over prefixes.

    Opened for reading it is a snapshot. One process at a time opens it for writing, and sees its own changes.

    Raises:
        GalleryError: no gallery there, another process writes to it, or its files are damaged; or the version
            asked for does not exist, or no longer.
    """

    def __init__(
        self, folder: Path | str, *, write: bool = False, version: int | None = None, lock: Lock | None = None
    ) -> None:
        self._writing, self._stale = lock, False
        try:
            folder = require_folder(folder)
            if write and version is not None:
                raise GalleryError(f"version {version} of {folder} can be read, not written to")
            require_own_files(folder)
            if write and lock is None:
                # Before the catalogue is read: whoever repairs it puts another file in its place.
                self._writing = hold_to_write(folder)
            number = None if version is None else require_whole(version, "version")
            super().__init__(folder, Catalog(folder / CATALOG, write=write), number)
            if write:
                self.sweep()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def create(
        folder: Path | str, spec: EmbeddingSpec, checkpoint_path: str = "", widths: Sequence[str] = ()
    ) -> Gallery:
        """A new, empty gallery, open for writing; `GalleryError` if the folder holds anything.

        Args:
            widths: labels of further widths of which each image gets a vector.
        """
        if not isinstance(spec, EmbeddingSpec):
            raise TypeError(f"spec is {shown(spec)}: it can be an EmbeddingSpec")
        folder = require_folder(folder)
        lock = take_empty(folder)
        try:
            require_empty(folder)
            Catalog.create(folder / CATALOG, spec, checkpoint_path, widths)
        except BaseException:
            lock.release()
            raise
        return Gallery(folder, write=True, lock=lock)

    @staticmethod
    def open_or_create(
        folder: Path | str, spec: EmbeddingSpec, checkpoint_path: str = "", widths: Sequence[str] = ()
    ) -> Gallery:
        """The gallery in a folder, open for writing, made if there is none.

        Raises:
            GalleryError: another checkpoint made it, or it has vectors of other widths than asked for.
        """
        folder = require_folder(folder)
        if not Gallery.exists(folder):
            try:
                return Gallery.create(folder, spec, checkpoint_path, widths)
            except GalleryError:
                # Another process may have made it in between.
                if not Gallery.exists(folder):
                    raise
        gallery = Gallery(folder, write=True)
        try:
            gallery.require(spec)
            gallery.require_widths(widths or gallery.generation.widths)
        except BaseException:
            gallery.close()
            raise
        return gallery

    @staticmethod
    def exists(folder: Path | str) -> bool:
        """Whether there is a gallery in this folder."""
        return (Path(folder) / CATALOG).is_file()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release its files and locks."""
        if hasattr(self, "catalog"):
            super().close()
        if self._writing is not None:
            self._writing.release()

    def require_writer(self) -> None:
        """Raise `GalleryError` if it was opened for reading; see what a call has saved that then failed."""
        if self._writing is None:
            raise GalleryError(f"{self.folder} was opened for reading: nothing was changed")
        if not self._writing.held:
            raise GalleryError(f"{self.folder} is closed: open it again")
        if self._stale:
            self.refresh()
            self._stale = False

    def require_widths(self, widths: Sequence[str]) -> None:
        """Raise `GalleryError` if `widths` are not the further widths of which it has vectors."""
        stored = self.generation.widths
        if set(widths) != set(stored):
            names = [", ".join(some) or "no further width" for some in (stored, widths)]
            raise GalleryError(f"{self.folder} has vectors of {names[0]}, not of {names[1]}")

    def add(
        self,
        rows: Sequence[Row],
        xb: Vectors,
        small: Mapping[str, Vectors] | None = None,
        *,
        replace: bool = False,
    ) -> None:
        """Add images with their vectors, all of them or none; they are on the disk when this returns.

        Args:
            rows: ids must be new.
            xb: (n, D) L2-normalised vectors of the gallery's spec, stored as float16.
            small: for each further width of the gallery, (n, D) vectors.
            replace: images with the same ids are deleted in the same moment.

        Raises:
            GalleryError: an id is given twice or not new, vectors of the wrong shape, not finite or not
                normalised, or a width is missing; the gallery was opened for reading; the disk is full.
            SavedError: the images are saved, but something failed then.
        """
        self.require_writer()
        for row in rows:
            if not isinstance(row, Row):
                raise TypeError(f"rows has {shown(row)}: all have to be a Row")
        by_width = {self.spec.width: xb, **(small or {})}
        self.require_widths([*(small or {})])
        for vectors in by_width.values():
            self._check(rows, vectors)
        if not len(rows):
            return
        written: list[SegmentRecord] = []
        with self.changing(f"the {len(rows)} images are saved"):
            try:
                for width, vectors in by_width.items():
                    written.append(self._write(width, vectors))
                add_images(self.catalog, self.generation.number, rows, written, replace=replace)
            except BaseException:
                self._discard(written)
                raise

    @contextmanager
    def changing(self, saved: str) -> Iterator[None]:
        """See what the block has committed; what fails from then on is a `SavedError` that says so.

        Whatever happens, the next change begins with what the catalogue has by then.
        """
        self._stale = True
        yield
        try:
            self.refresh()
        except (GalleryError, OSError) as error:
            raise SavedError(f"{self.folder}: {saved}, but cannot be read back now: {error}") from error
        self._stale = False

    def _discard(self, written: Sequence[SegmentRecord]) -> None:
        """Remove files whose images were not committed; whatever cannot be told is left to a sweep."""
        try:
            known = self.catalog.files()
        except GalleryError:
            return
        for record in written:
            if record.file not in known:
                remove(self.folder / SEGMENTS / record.file)

    def upsert(self, rows: Sequence[Row], xb: Vectors, small: Mapping[str, Vectors] | None = None) -> None:
        """Add images, in the place of those with the same ids: see `add`."""
        self.add(rows, xb, small, replace=True)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete images, all of them or none, and return how many; `GalleryError` if one is not there."""
        self.require_writer()
        wanted = list(dict.fromkeys(require_texts(ids, "ids")))
        with self.changing("the deletion is saved"):
            return delete_images(self.catalog, self.generation.number, wanted)

    def save_plan(self, plan: Any) -> None:
        """Keep a plan, a JSON object, or forget it with None."""
        self.require_writer()
        self.catalog.save_plan(self.generation.number, plan)

    def set_maker(self, spec: EmbeddingSpec, checkpoint_path: str) -> None:
        """Note what made the vectors, which stay as they are; a plan is dropped.

        Raises:
            GalleryError: it makes vectors of other dims or another width; the gallery is open for reading.
        """
        self.require_writer()
        if (spec.dim, spec.width) != (self.spec.dim, self.spec.width):
            raise GalleryError(
                f"{self.folder} has vectors of {self.spec.dim} dims, width {self.spec.width}:"
                f" not {spec.dim}, {spec.width}"
            )
        with self.changing("what made the vectors is saved"):
            self.catalog.set_maker(self.generation.number, spec, checkpoint_path)

    def build_shortlist(
        self,
        dim: int,
        factory: str = "",
        width: str = "",
        *,
        recall: float = 0.99,
        memory_bytes: float = math.inf,
    ) -> None:
        """Build and save the index over the leading `dim` coordinates of all images.

        Args:
            factory: a name of `RECIPES`, a FAISS factory string, or "auto"; by default what the index that it
                replaces was built by, else "Flat".
            width: whose vectors; by default those of the gallery's spec.
            recall: aimed at by a shortlist long enough: it sets the effort of a search.
            memory_bytes: for the index, if "auto" chooses it.

        Raises:
            GalleryError: `dim` is not in 1..D, the gallery is empty, FAISS refuses `factory`, or "auto" finds
                no index that small.
        """
        self.require_writer()
        dim, factory = require_whole(dim, "dim"), require_text(factory, "factory")
        if not 1 <= dim <= self.spec.dim:
            raise GalleryError(f"shortlist dim {dim} is not in 1..{self.spec.dim}")
        if not self.key_count:
            raise GalleryError(f"{self.folder} is empty")
        width = width or self.spec.width
        old = [record for record in self.shortlists() if (record.dim, record.width) == (dim, width)]
        recipe = factory or (old[0].recipe if old else "Flat")
        if recipe == AUTO:
            recipe = choose(self.key_count, dim, memory_bytes, recall)
        name = f"{recipe}-{dim}" + (f"@{width}" if width != self.spec.width else "")
        record = self.make_shortlist(
            self.segments_of(width), name=name, width=width, dim=dim, recipe=recipe, recall=recall
        )
        with self.changing(f"the index {name} is saved"), self.catalog.transaction():
            for replaced in old:
                self.catalog.drop_shortlist(self.generation.number, replaced.name)
            self.catalog.put_shortlist(self.generation.number, record)
        self.tidy()

    def make_shortlist(
        self, segments: Segments, *, name: str, width: str, dim: int, recipe: str, recall: float = 0.99
    ) -> ShortlistRecord:
        """Build an index over all of `segments` and write its file; it counts when the catalogue knows it."""
        index = build_index(segments, len(segments), dim, recipe, recall)
        folder = self.folder / SHORTLISTS
        record = save_index(folder, index, name=name, width=width, dim=dim, recipe=recipe)
        self._state.indexes[record.file] = index
        return record

    def sweep(self) -> int:
        """Remove what nobody needs: old generations, replaced files and those of killed processes.

        Returns how many files.
        """
        self.require_writer()
        return sweep(self.catalog, self.folder)

    def tidy(self) -> None:
        """`sweep` behind a change that is saved: what cannot be removed now is left for the next writer."""
        try:
            self.sweep()
        except (GalleryError, OSError) as error:
            log.warning("%s: not tidied up: %s", self.folder, error)

    def _write(self, width: str, vectors: Vectors) -> SegmentRecord:
        where, start, rows = self.folder / SEGMENTS, self.key_count, len(vectors)
        return write_segment(where, [vectors], width=width, start=start, rows=rows, dim=self.spec.dim)

    def _check(self, rows: Sequence[Row], xb: Vectors) -> None:
        require_array(xb, "xb", "fiu", "(n, D)")
        if xb.shape != (len(rows), self.spec.dim):
            raise GalleryError(f"vectors have shape {xb.shape}, not {(len(rows), self.spec.dim)}")
        exact = xb.astype(np.float32, copy=False)
        lengths = np.sqrt(np.einsum("nd,nd->n", exact, exact))
        # Written so that NaN counts as bad.
        bad = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))
        if len(bad):
            raise GalleryError(f"vector of {rows[bad[0]].id!r} has length {lengths[bad[0]]}, not 1")
