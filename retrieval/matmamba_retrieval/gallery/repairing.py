"""What can be restored of a damaged gallery: its catalogue, indexes from vectors, vectors from images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from matmamba_common.counts import counted
from numpy.typing import NDArray

from ..index.gallery_index import build_index, save_index
from ..remedies import DELETE
from ..storage.catalog import Catalog
from ..storage.files import flush_folder
from ..storage.records import Generation, SegmentRecord
from ..storage.rewriting import finish_rewriting, rewrite_database
from ..storage.segments import Segments, checked_blocks, write_segment
from .addresses import require_folder
from .inspection import Encode, damage_of_catalog, fits, verify
from .place import CATALOG, SEGMENTS, SHORTLISTS, hold_to_write, require_own_files
from .staging import drop_old, forget_images, sweep

_WAY_OUT = f"put the picture back, or {DELETE} the image, and repair again"
# What a line begins with that tells of damage which `verify` still finds.
LEFT = "still damaged: "
# The model that made a generation, on images; an error if it is not to be had.
EncoderOf = Callable[[Generation], Encode]


def repair(folder: Path | str, encoder_of: EncoderOf | None = None) -> list[str]:
    """Restore what is derived: indexes from vectors, the catalogue's own indexes, vectors from images.

    Args:
        encoder_of: asked for the model of a generation whose vectors are damaged; without it they stay so.
            Those of deleted images need not be made again: if they cannot be, versions that had them are
            forgotten. A generation in the making whose model is not to be had loses the damaged images: they
            are encoded when it goes on.

    Returns:
        What was done, which images have lost their vectors, and after `LEFT` each damage that is left, in
        words.

    Raises:
        GalleryError: no gallery, another process writes to it, or the catalogue's tables cannot be read.
    """
    folder = require_folder(folder)
    lock = hold_to_write(folder) if folder.is_dir() else None
    try:
        done = ["put the catalogue back that a stopped repair had moved away"] * finish_rewriting(
            folder / CATALOG
        )
        require_own_files(folder)
        done += _repair_catalog(folder / CATALOG)
        with closing(Catalog(folder / CATALOG, write=True)) as catalog:
            drop_old(catalog, folder)
            for generation in catalog.generations().values():
                done += _repair_segments(folder, catalog, generation, encoder_of)
                done += _repair_shortlists(folder, catalog, generation)
            swept = sweep(catalog, folder)
        flush_folder(folder)
        done += [f"removed what nothing speaks of: {counted(swept, 'file')}"] * bool(swept)
        return done + [
            f"{LEFT}{left.file} {left.what}; to restore it: {left.remedy}" for left in verify(folder)
        ]
    finally:
        if lock is not None:
            lock.release()


def _repair_catalog(file: Path) -> list[str]:
    if not damage_of_catalog(file):
        return []
    old = rewrite_database(file)
    return [f"wrote {file} anew from its tables, all of which could be read; the old one is {old.name}"]


def _repair_segments(
    folder: Path, catalog: Catalog, generation: Generation, encoder_of: EncoderOf | None
) -> Iterator[str]:
    for width in (generation.spec.width, *generation.widths):
        for record in catalog.segments(generation.number, width):
            if not fits(folder / SEGMENTS / record.file, record.sha256):
                yield from _repair_segment(folder / SEGMENTS, catalog, generation, record, encoder_of)


def _repair_segment(
    folder: Path,
    catalog: Catalog,
    generation: Generation,
    record: SegmentRecord,
    encoder_of: EncoderOf | None,
) -> Iterator[str]:
    dim = generation.spec.dim
    lost = [range(first, last) for first, last, xb in checked_blocks(folder, record, dim) if xb is None]
    encode = _encoder(catalog, generation, encoder_of) if lost else None
    staged = catalog.about("staged") == str(generation.number)
    if lost and encode is None and not staged:
        return
    if lost and encode is None:
        for part in lost:
            keys = range(record.start + part.start, record.start + part.stop)
            forget_images(catalog, generation.number, keys)
    restored = _Restored(folder, catalog, generation, record, encode)
    written = write_segment(
        folder, restored.blocks(), width=record.width, start=record.start, rows=record.rows, dim=dim
    )
    with catalog.transaction():
        catalog.put_segment(generation.number, restored.noted(written))
        catalog.forget_versions(generation.number, restored.since)
    encoded = counted(restored.encoded, "image")
    yield f"wrote {record.file} anew, with {encoded} encoded again at width {record.width}"
    yield from restored.lost


def _encoder(catalog: Catalog, generation: Generation, encoder_of: EncoderOf | None) -> Encode | None:
    """The model of a generation; only the one that answers cannot be repaired without."""
    if encoder_of is None:
        return None
    try:
        return encoder_of(generation)
    except (ValueError, OSError):
        if generation.number == catalog.current().number:
            raise
        return None


class _Restored:
    """All vectors of a segment, the damaged ones made anew from the images.

    Attributes:
        encoded: how many were made anew.
        lost: the images that could not be, in words.
        since: the oldest version none of whose images has lost its vector by being deleted.
    """

    def __init__(
        self,
        folder: Path,
        catalog: Catalog,
        generation: Generation,
        record: SegmentRecord,
        encode: Encode | None,
    ) -> None:
        self._folder, self._catalog, self._record, self._encode = folder, catalog, record, encode
        self._number, self._dim = generation.number, generation.spec.dim
        self._incomplete: list[int] = []
        self.encoded, self.since = 0, 0
        self.lost: list[str] = []

    def blocks(self) -> Iterator[NDArray[np.floating]]:
        """The vectors in blocks; those that are lost are some vector or other."""
        for number, (first, last, xb) in enumerate(checked_blocks(self._folder, self._record, self._dim)):
            if xb is None:
                lost = len(self.lost)
                xb = self._again(range(self._record.start + first, self._record.start + last))
                self._incomplete += [number] if len(self.lost) > lost else []
            yield xb

    def _again(self, keys: range) -> NDArray[np.floating]:
        rows, width = self._catalog.rows(self._number, keys), self._record.width
        gone = self._catalog.gone(self._number, keys)
        # Of unit length, so that indexes can be built over them.
        xb = np.eye(1, self._dim, dtype=np.float32).repeat(len(rows), axis=0)
        # Without a model all of them are forgotten, of a generation in the making.
        for place, found in enumerate(self._encode(rows, width) if self._encode else ()):
            if not isinstance(found, str):
                xb[place] = found
                self.encoded += 1
            elif keys[place] in gone:
                self.since = max(self.since, gone[keys[place]])
            else:
                self.lost.append(
                    f"{rows[place].id!r} has lost its vector of width {width}: {found}; {_WAY_OUT}"
                )
        return xb

    def noted(self, written: SegmentRecord) -> SegmentRecord:
        """What the catalogue notes: blocks with lost vectors keep their old checksums: they stay damaged."""
        if not self._incomplete:
            return written
        checks = np.frombuffer(written.checks, dtype="<u4").copy()
        checks[self._incomplete] = np.frombuffer(self._record.checks, dtype="<u4")[self._incomplete]
        return replace(written, sha256=self._record.sha256, checks=checks.tobytes())


def _repair_shortlists(folder: Path, catalog: Catalog, generation: Generation) -> Iterator[str]:
    for index in catalog.shortlists(generation.number):
        if fits(folder / SHORTLISTS / index.file, index.sha256):
            continue
        records = catalog.segments(generation.number, index.width)
        if not all(fits(folder / SEGMENTS / record.file, record.sha256) for record in records):
            continue
        segments = Segments(folder / SEGMENTS, records, generation.spec.dim, index.rows)
        rebuilt = build_index(segments, index.rows, index.dim, index.recipe)
        record = save_index(
            folder / SHORTLISTS,
            rebuilt,
            name=index.name,
            width=index.width,
            dim=index.dim,
            recipe=index.recipe,
        )
        catalog.put_shortlist(generation.number, record)
        yield f"built the index {index.name} again"
