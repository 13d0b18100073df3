"""Changes to the images of a catalogue, each within one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import GalleryError
from .catalog import Catalog
from .records import Row, SegmentRecord, as_json

# Deeper metadata is no description but a mistake; SQLite reads JSON of up to 1,000.
MOST_NESTED = 100


def add_images(
    catalog: Catalog,
    generation: int,
    rows: Sequence[Row],
    segments: Sequence[SegmentRecord],
    *,
    replace: bool,
) -> None:
    """Commit images whose vectors are on the disk already, in a segment for each width.

    Args:
        replace: images with the same ids are deleted; else they are an error.

    Raises:
        GalleryError: an id is given twice, or is there already and not to be replaced.
    """
    _require_text(rows)
    _require_distinct(rows)
    with catalog.transaction():
        last = catalog.newest(generation)
        keys, live = (last.keys, last.live) if last else (0, 0)
        known = catalog.keys_of(generation, [row.id for row in rows])
        if known and not replace:
            raise GalleryError(f"the gallery has an image {next(iter(known))!r} already: upsert replaces it")
        number = catalog.add_version(generation, keys + len(rows), live + len(rows) - len(known))
        _mark_removed(catalog, generation, number, known)
        for record in segments:
            catalog.put_segment(generation, record)
        _insert(catalog, generation, keys, rows, number)


def _insert(catalog: Catalog, generation: int, start: int, rows: Sequence[Row], version: int) -> None:
    # Letters as they are: conditions look up the names of metadata in this text.
    described = [as_json(dict(row.metadata), f"the metadata of {row.id!r} are") for row in rows]
    catalog.run_many(
        "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
        (
            (generation, start + place, row.id, row.path, row.label, metadata, version)
            for place, (row, metadata) in enumerate(zip(rows, described, strict=True))
        ),
    )
    names = {name for row in rows if row.metadata for name in _names(row.metadata)}
    catalog.run_many("INSERT OR IGNORE INTO fields VALUES (?)", ((name,) for name in sorted(names)))


def delete_images(catalog: Catalog, generation: int, ids: Sequence[str]) -> int:
    """Commit that images are gone; `GalleryError` if one is not there, and then none is. Returns how many."""
    with catalog.transaction():
        known = catalog.keys_of(generation, ids)
        missing = [image_id for image_id in ids if image_id not in known]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise GalleryError(f"the gallery has no image {missing[0]!r}{more}: nothing was deleted")
        if known:
            last = catalog.newest(generation)
            assert last is not None
            number = catalog.add_version(generation, last.keys, last.live - len(known))
            _mark_removed(catalog, generation, number, known)
    return len(known)


def _mark_removed(catalog: Catalog, generation: int, version: int, keys: Mapping[str, int]) -> None:
    catalog.run_many(
        "UPDATE images SET removed = ? WHERE generation = ? AND key = ?",
        ((version, generation, key) for key in keys.values()),
    )


def _require_distinct(rows: Sequence[Row]) -> None:
    twice = [image_id for image_id, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        raise GalleryError(f"the id {twice[0]!r} is given twice: ids are unique")


def _require_text(rows: Sequence[Row]) -> None:
    """Raise `GalleryError` for what cannot be stored: half a surrogate pair, a number as a key."""
    for row in rows:
        for name in ("id", "path", "label"):
            value = getattr(row, name)
            if not (_storable(value) or (name == "label" and value is None)):
                raise GalleryError(f"the {name} of {row.id!a} is {value!a}: not a text that can be stored")
        if not isinstance(row.metadata, Mapping):
            raise GalleryError(f"the metadata of {row.id!r} are {row.metadata!a:.80}, not an object")
        if row.metadata and (fault := _unfit(row.metadata)):
            raise GalleryError(f"the metadata of {row.id!r} are not JSON: {fault}")


def _unfit(value: Any, depth: int = 0) -> str:
    """What in metadata cannot be stored: a text, a key that is none, or their depth; "" if all is well."""
    if depth > MOST_NESTED:
        return f"they are nested deeper than {MOST_NESTED}"
    if isinstance(value, Mapping):
        bad = [key for key in value if not _storable(key)]
        if bad:
            return f"the key {bad[0]!a} is not a text that can be stored"
        return next(filter(None, (_unfit(part, depth + 1) for part in value.values())), "")
    if isinstance(value, (list, tuple)):
        return next(filter(None, (_unfit(part, depth + 1) for part in value)), "")
    if isinstance(value, str) and not _storable(value):
        return f"{value!a} is not a text that can be stored"
    return ""


def _storable(text: Any) -> bool:
    try:
        # Most are ASCII, which a text knows of itself.
        return isinstance(text, str) and (text.isascii() or text.encode() is not None)
    except UnicodeEncodeError:
        return False


def _names(metadata: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for name, value in metadata.items():
        yield before + name
        if isinstance(value, Mapping):
            yield from _names(value, f"{before}{name}.")
