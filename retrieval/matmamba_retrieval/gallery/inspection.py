"""Whether a gallery is what was written, and what can be restored where it is not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw
import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError
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
# Images to (n, D) normalised vectors at a width.
Encode = Callable[[Sequence[Row], str], NDArray[np.floating]]


@dataclass(frozen=True)
class Damage:
    """Something that is not as it was written.

    Attributes:
        file: which one. what: what is wrong with it. remedy: what `repair` needs to restore it.
    """

    file: Path
    what: str
    remedy: str


def verify(folder: Path | str) -> list[Damage]:
    """Read every byte of a gallery and compare it with its checksums; what differs.

    Raises:
        GalleryError: there is no gallery.
    """
    folder = Path(folder)
    if not (folder / CATALOG).is_file():
        raise GalleryError(f"no gallery at {folder}")
    found = _verify_catalog(folder / CATALOG)
    try:
        catalog = Catalog(folder / CATALOG)
    except GalleryError as error:
        return found or [Damage(folder / CATALOG, str(error), "a copy of it")]
    try:
        for generation in catalog.generations().values():
            found += _verify_generation(folder, catalog, generation)
    except GalleryError as error:
        found = found or [Damage(folder / CATALOG, str(error), "a copy of it")]
    finally:
        catalog.close()
    return found


def verify_vectors(gallery: Snapshot, encode: Encode, count: int, seed: int = 0) -> list[Damage]:
    """Encode some images again, by chance, and compare with what is stored; the images that differ.

    Args:
        count: how many, at most as many as there are.
    """
    chance = np.random.default_rng(seed)
    keys = np.sort(chance.permutation(gallery.live_keys())[:count])
    rows, found = gallery.rows(keys), []
    for width in (gallery.spec.width, *gallery.generation.widths):
        stored = gallery.segments_of(width).read(keys).astype(np.float32)
        similar = (stored * encode(rows, width)).sum(1)
        for row, similarity in zip(rows, similar, strict=True):
            if not similarity >= SAME_IMAGE:
                what = f"{row.id!r}: its image gives a vector of cosine {similarity:.3f}, width {width}"
                found.append(Damage(Path(row.path), what, "that image as it was, or upsert"))
    return found


def _verify_catalog(file: Path) -> list[Damage]:
    found = [Damage(file, what, "its tables to be readable") for what in damaged_pages(file)]
    if found:
        return found
    try:
        with open_database(file, write=False) as database:
            said = [row[0] for row in database.execute("PRAGMA integrity_check")]
    except apsw.Error as error:
        said = [str(error)]
    return [Damage(file, what, "its tables to be readable") for what in said if what != "ok"]


def _verify_generation(folder: Path, catalog: Catalog, generation: Generation) -> Iterator[Damage]:
    keys = key_count(catalog, generation.number)
    (images,) = catalog.run("SELECT count(*) FROM images WHERE generation = ?", (generation.number,))[0]
    if images != keys:
        yield Damage(catalog.file, f"has {images} images for {keys} vectors", "a copy of it")
    for width in (generation.spec.width, *generation.widths):
        records = catalog.segments(generation.number, width)
        end = 0
        for record in records:
            if record.start != end:
                yield Damage(catalog.file, f"has no segment of width {width} at key {end}", "a copy of it")
            end = record.start + record.rows
            yield from _verify_segment(folder / SEGMENTS, record, generation.spec.dim)
    for index in catalog.shortlists(generation.number):
        if not _fits(folder / SHORTLISTS / index.file, index.sha256):
            yield Damage(folder / SHORTLISTS / index.file, "differs from its checksum", "the vectors")


def _verify_segment(folder: Path, record: SegmentRecord, dim: int) -> Iterator[Damage]:
    if _fits(folder / record.file, record.sha256):
        return
    bad = [(first, last) for first, last, xb in checked_blocks(folder, record, dim) if xb is None]
    for first, last in bad:
        what = f"differs from its checksum in rows {first} to {last - 1}, width {record.width}"
        yield Damage(folder / record.file, what, "the images of these rows")
    if not bad:
        yield Damage(folder / record.file, "differs from its checksum around its rows", "its rows")


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
        encode: the gallery's model on images, for vectors that are damaged; without it they stay so.

    Returns:
        What was done, in words; `verify` says what is left.

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
            bad = sum(last - first for first, last, xb in checked_blocks(where, record, dim) if xb is None)
            if bad and encode is None:
                continue
            vectors = _restored(where, catalog, generation, record, encode)
            written = write_segment(where, width, record.start, vectors, record.rows, dim)
            catalog.put_segment(generation.number, written)
            yield f"wrote {record.file} anew, with {bad} images encoded again at width {width}"


def _restored(
    folder: Path, catalog: Catalog, generation: Generation, record: SegmentRecord, encode: Encode | None
) -> Iterator[NDArray[np.floating]]:
    """All vectors of a segment in blocks, the damaged ones made anew from the images."""
    for first, last, xb in checked_blocks(folder, record, generation.spec.dim):
        if xb is None:
            assert encode is not None
            keys = range(record.start + first, record.start + last)
            yield encode(catalog.rows(generation.number, keys), record.width)
        else:
            yield xb


def _repair_shortlists(folder: Path, catalog: Catalog, generation: Generation) -> Iterator[str]:
    for index in catalog.shortlists(generation.number):
        if _fits(folder / SHORTLISTS / index.file, index.sha256):
            continue
        records = catalog.segments(generation.number, index.width)
        segments = Segments(folder / SEGMENTS, records, generation.spec.dim, index.rows)
        rebuilt = build_index(segments, index.rows, index.dim, index.recipe)
        catalog.put_shortlist(
            generation.number,
            save_index(folder / SHORTLISTS, rebuilt, index.name, index.width, index.dim, index.recipe),
        )
        yield f"built the index {index.name} again"
