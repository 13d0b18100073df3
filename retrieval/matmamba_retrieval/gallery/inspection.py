"""Whether a gallery is what was written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, GalleryError
from ..remedies import IMPORT, REPAIR
from ..storage.catalog import Catalog
from ..storage.database import damaged_pages
from ..storage.files import require_checksum
from ..storage.records import Generation, Row, SegmentRecord
from ..storage.segments import checked_blocks, rows_per_check
from .addresses import require_folder
from .place import CATALOG, SEGMENTS, SHORTLISTS, require_own_files
from .snapshot import Snapshot
from .staging import key_count

log = logging.getLogger(__name__)
# Cosine from which on two vectors are of the same image and model: room for float16 and for other batches.
SAME_IMAGE = 0.999
# Images in memory while some are compared, and rows of the catalogue while all are read.
_ENCODED_AT_ONCE, _ROWS_AT_ONCE = 64, 8192
_COPY = f"a copy of the gallery, or {IMPORT} of an export"
_TABLES = f"{REPAIR} if all its tables can be read, else {_COPY}"
_VECTORS = f"{REPAIR} makes it again from the vectors"
_IMAGES = f"the images of these rows: {REPAIR} encodes them again"
# Images to their normalised vectors at a width; in the place of one that cannot be encoded, why.
Encode = Callable[[Sequence[Row], str], Iterable[NDArray[np.floating] | str]]


@dataclass(frozen=True)
class Damage:
    """Something that is not as it was written.

    Attributes:
        file: which one.
        what: what is wrong with it.
        remedy: what restores it.
    """

    file: Path
    what: str
    remedy: str


def verify(folder: Path | str) -> list[Damage]:
    """Read every byte of a gallery and compare it with its checksums; what differs.

    Raises:
        GalleryError: there is no gallery, or one of another format.
    """
    folder = require_folder(folder)
    require_own_files(folder)
    if found := damage_of_catalog(folder / CATALOG, _verify_tables):
        return found
    try:
        with closing(Catalog(folder / CATALOG)) as catalog:
            generations = catalog.generations().values()
            return list(chain.from_iterable(_verify_files(folder, catalog, one) for one in generations))
    except GalleryError as error:
        return [Damage(folder / CATALOG, str(error), _COPY)]


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


def damage_of_catalog(
    file: Path, further: Callable[[Catalog], Iterable[Damage]] = lambda catalog: ()
) -> list[Damage]:
    """What is wrong with a catalogue: its pages, its trees, or its rows.

    Args:
        further: what else to look at where all of these are whole.

    Raises:
        FormatError: it is of another format.
    """
    try:
        # At one moment, whoever writes beside.
        with closing(Catalog(file)) as catalog, catalog.reading():
            what = damaged_pages(file) or catalog.check_structure() or catalog.differing()
            if not what:
                return list(further(catalog))
    except FormatError:
        raise
    except GalleryError as error:
        what = damaged_pages(file) or [str(error)]
    return [Damage(file, entry, _TABLES) for entry in what]


def _verify_tables(catalog: Catalog) -> Iterator[Damage]:
    """Whether what the catalogue says of its generations goes together."""
    yield from (Damage(catalog.file, what, _COPY) for what in catalog.misfits())
    if catalog.newest(catalog.current().number) is None:
        yield Damage(catalog.file, "has no version", _COPY)
    for generation in catalog.generations().values():
        yield from _verify_rows(catalog, generation)
        for width in (generation.spec.width, *generation.widths):
            end = 0
            for record in catalog.segments(generation.number, width):
                if record.start != end:
                    yield Damage(catalog.file, f"has no segment of width {width} at key {end}", _COPY)
                end = record.start + record.rows


def _verify_files(folder: Path, catalog: Catalog, generation: Generation) -> Iterator[Damage]:
    """Whether the files of a generation are what was written, but for those that were replaced meanwhile."""
    for width in (generation.spec.width, *generation.widths):
        for record in catalog.segments(generation.number, width):
            found = list(_verify_segment(folder / SEGMENTS, record, generation.spec.dim))
            if found and record in catalog.segments(generation.number, width):
                yield from found
    for index in catalog.shortlists(generation.number):
        file = folder / SHORTLISTS / index.file
        if not fits(file, index.sha256) and index in catalog.shortlists(generation.number):
            what = "differs from its checksum" if file.is_file() else "is missing"
            yield Damage(file, f"{what}: it is the index {index.name}", _VECTORS)


def _verify_rows(catalog: Catalog, generation: Generation) -> Iterator[Damage]:
    """Whether images, vectors and versions count the same, and each can be read."""
    keys = key_count(catalog, generation.number)
    (images,) = catalog.run("SELECT count(*) FROM images WHERE generation = ?", (generation.number,))[0]
    if images != keys:
        yield Damage(catalog.file, f"has {images} images for {keys} vectors", _COPY)
        return
    for first in range(0, keys, _ROWS_AT_ONCE):
        catalog.rows(generation.number, range(first, min(first + _ROWS_AT_ONCE, keys)))
    catalog.plan(generation.number)
    versions = catalog.versions(generation.number)
    for version in versions:
        if version.keys > keys or (version == versions[-1] and version.keys < keys):
            yield Damage(catalog.file, f"version {version.number} has {version.keys} images of {keys}", _COPY)
        catalog.removed(version)


def _verify_segment(folder: Path, record: SegmentRecord, dim: int) -> Iterator[Damage]:
    file = folder / record.file
    if len(record.checks) != 4 * -(-record.rows // rows_per_check(dim)):
        yield Damage(file, "has other checksums of its rows in the catalogue", _COPY)
        return
    if fits(file, record.sha256):
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


def fits(file: Path, sha256: str) -> bool:
    """Whether a file is there and has this checksum."""
    try:
        require_checksum(file, sha256)
    except GalleryError as error:
        log.info("%s", error)
        return False
    return True
