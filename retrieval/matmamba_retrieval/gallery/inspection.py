"""Whether a gallery is what was written, and what can be restored where it is not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import apsw
import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, GalleryError
from ..index.shortlist import build_index, save_index
from ..storage.catalog import Catalog
from ..storage.database import damaged_pages, open_database, rewrite_database
from ..storage.files import require_checksum
from ..storage.records import Generation, Row, SegmentRecord
from ..storage.segments import Segments, checked_blocks, write_segment
from .gallery import hold_to_write
from .snapshot import CATALOG, SEGMENTS, SHORTLISTS, Snapshot
from .staging import key_count, sweep

log = logging.getLogger(__name__)
# Cosine from which on two vectors are of the same image and model: room for float16 and for other batches.
SAME_IMAGE = 0.999
# Images in memory while some are compared.
_ENCODED_AT_ONCE = 64
_COPY = "a copy of the gallery, or an export of it (`matmamba gallery import`)"
_TABLES = f"`matmamba gallery repair` if all its tables can be read, else {_COPY}"
_VECTORS = "`matmamba gallery repair` makes it again from the vectors"
_IMAGES = "the images of these rows: `matmamba gallery repair` encodes them again"
_WAY_OUT = "put the picture back, or delete the image (`matmamba gallery delete`), and repair again"
# Images to their normalised vectors at a width; in the place of one that cannot be encoded, why.
Encode = Callable[[Sequence[Row], str], Iterable[NDArray[np.floating] | str]]


@dataclass(frozen=True)
class Damage:
    """Something that is not as it was written.

    Attributes:
        file: which one. what: what is wrong with it. remedy: what restores it.
    """

    file: Path
    what: str
    remedy: str


def verify(folder: Path | str) -> list[Damage]:
    """Read every byte of a gallery and compare it with its checksums; what differs.

    Raises:
        GalleryError: there is no gallery, or one of another format.
    """
    folder = Path(folder)
    if not (folder / CATALOG).is_file():
        raise GalleryError(f"no gallery at {folder}")
    try:
        catalog = Catalog(folder / CATALOG)
    except FormatError:
        raise
    except GalleryError as error:
        return _verify_catalog(folder / CATALOG) or [Damage(folder / CATALOG, str(error), _COPY)]
    found = _verify_catalog(folder / CATALOG)
    try:
        for generation in catalog.generations().values():
            found += _verify_generation(folder, catalog, generation)
    except GalleryError as error:
        found = found or [Damage(folder / CATALOG, str(error), _COPY)]
    finally:
        catalog.close()
    return found


def verify_vectors(gallery: Snapshot, encode: Encode, count: int, seed: int = 0) -> list[Damage]:
    """Encode some images again, by chance, and compare with what is stored; those that differ or are lost.

    Args:
        count: how many, at most as many as there are.
    """
    chance = np.random.default_rng(seed)
    keys = np.sort(chance.permutation(gallery.live_keys())[:count])
    found: list[Damage] = []
    for first in range(0, len(keys), _ENCODED_AT_ONCE):
        found += _compare(gallery, encode, keys[first : first + _ENCODED_AT_ONCE])
    return found


def _compare(gallery: Snapshot, encode: Encode, keys: NDArray[np.int64]) -> Iterator[Damage]:
    rows = gallery.rows(keys)
    for width in (gallery.spec.width, *gallery.generation.widths):
        stored = gallery.segments_of(width).read(keys).astype(np.float32)
        for row, x, made in zip(rows, stored, encode(rows, width), strict=True):
            if isinstance(made, str):
                what = f"{row.id!r}: its image cannot be read ({made})"
            elif (similarity := float(x @ made)) >= SAME_IMAGE:
                continue
            else:
                what = f"{row.id!r}: its image gives a vector of cosine {similarity:.3f}, width {width}"
            yield Damage(Path(row.path), what, "that image as it was, or upsert")


def _verify_catalog(file: Path) -> list[Damage]:
    found = [Damage(file, what, _TABLES) for what in damaged_pages(file)]
    if found:
        return found
    try:
        with open_database(file, write=False) as database:
            said = [row[0] for row in database.execute("PRAGMA integrity_check")]
    except (apsw.Error, GalleryError) as error:
        said = [str(error)]
    return [Damage(file, what, _TABLES) for what in said if what != "ok"]


def _verify_generation(folder: Path, catalog: Catalog, generation: Generation) -> Iterator[Damage]:
    keys = key_count(catalog, generation.number)
    (images,) = catalog.run("SELECT count(*) FROM images WHERE generation = ?", (generation.number,))[0]
    if images != keys:
        yield Damage(catalog.file, f"has {images} images for {keys} vectors", _COPY)
    for width in (generation.spec.width, *generation.widths):
        records = catalog.segments(generation.number, width)
        end = 0
        for record in records:
            if record.start != end:
                yield Damage(catalog.file, f"has no segment of width {width} at key {end}", _COPY)
            end = record.start + record.rows
            yield from _verify_segment(folder / SEGMENTS, record, generation.spec.dim)
    for index in catalog.shortlists(generation.number):
        file = folder / SHORTLISTS / index.file
        if not _fits(file, index.sha256):
            what = "differs from its checksum" if file.is_file() else "is missing"
            yield Damage(file, f"{what}: it is the index {index.name}", _VECTORS)


def _verify_segment(folder: Path, record: SegmentRecord, dim: int) -> Iterator[Damage]:
    file = folder / record.file
    if _fits(file, record.sha256):
        return
    if not file.is_file():
        yield Damage(file, f"is missing, with all its {record.rows} rows of width {record.width}", _IMAGES)
        return
    bad = [(first, last) for first, last, xb in checked_blocks(folder, record, dim) if xb is None]
    for first, last in bad:
        what = f"differs from its checksum in rows {first} to {last - 1}, width {record.width}"
        yield Damage(file, what, _IMAGES)
    if not bad:
        yield Damage(file, "differs from its checksum around its rows", _VECTORS)


def _fits(file: Path, sha256: str) -> bool:
    try:
        require_checksum(file, sha256)
    except GalleryError as error:
        log.info("%s", error)
        return False
    return True


def repair(folder: Path | str, encode: Encode | None = None) -> list[str]:
    """Restore what is derived: indexes from vectors, the catalogue's own indexes, vectors from images.

    Args:
        encode: the gallery's model on images, for vectors that are damaged; without it they stay so. Those of
            deleted images need not be made again: if they cannot be, versions that had them are forgotten.

    Returns:
        What was done, and which images have lost their vectors, in words; `verify` says what is left.

    Raises:
        GalleryError: no gallery, another process writes to it, or the catalogue's tables cannot be read.
    """
    folder = Path(folder)
    lock = hold_to_write(folder)
    try:
        done = _repair_catalog(folder / CATALOG)
        catalog = Catalog(folder / CATALOG, write=True)
        try:
            for generation in catalog.generations().values():
                done += _repair_segments(folder, catalog, generation, encode)
                done += _repair_shortlists(folder, catalog, generation)
            swept = sweep(catalog, folder)
        finally:
            catalog.close()
    finally:
        lock.release()
    return done + ([f"removed {swept} files that nothing speaks of"] if swept else [])


def _repair_catalog(file: Path) -> list[str]:
    if not _verify_catalog(file):
        return []
    rewrite_database(file)
    return [f"wrote {file} anew from its tables, all of which could be read"]


def _repair_segments(
    folder: Path, catalog: Catalog, generation: Generation, encode: Encode | None
) -> Iterator[str]:
    dim, where = generation.spec.dim, folder / SEGMENTS
    for width in (generation.spec.width, *generation.widths):
        for record in catalog.segments(generation.number, width):
            if _fits(where / record.file, record.sha256):
                continue
            if encode is None and any(xb is None for *_, xb in checked_blocks(where, record, dim)):
                continue
            restored = _Restored(where, catalog, generation, record, encode)
            written = write_segment(where, width, record.start, restored.blocks(), record.rows, dim)
            with catalog.transaction():
                catalog.put_segment(generation.number, restored.noted(written))
                catalog.forget_versions(generation.number, restored.since)
            yield f"wrote {record.file} anew, with {restored.encoded} images encoded again at width {width}"
            yield from restored.lost


class _Restored:
    """All vectors of a segment, the damaged ones made anew from the images.

    Attributes:
        encoded: how many were made anew. lost: the images that could not be, in words. since: the oldest
            version none of whose images has lost its vector by being deleted.
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
        assert self._encode is not None
        rows, width = self._catalog.rows(self._number, keys), self._record.width
        gone = self._catalog.gone(self._number, keys)
        # Of unit length, so that indexes can be built over them.
        xb = np.eye(1, self._dim, dtype=np.float32).repeat(len(rows), axis=0)
        for place, found in enumerate(self._encode(rows, width)):
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
        if _fits(folder / SHORTLISTS / index.file, index.sha256):
            continue
        records = catalog.segments(generation.number, index.width)
        if not all(_fits(folder / SEGMENTS / record.file, record.sha256) for record in records):
            continue
        segments = Segments(folder / SEGMENTS, records, generation.spec.dim, index.rows)
        rebuilt = build_index(segments, index.rows, index.dim, index.recipe)
        catalog.put_shortlist(
            generation.number,
            save_index(folder / SHORTLISTS, rebuilt, index.name, index.width, index.dim, index.recipe),
        )
        yield f"built the index {index.name} again"
