"""What the catalogue notes of a generation in the making: in SQL, for `renewal`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..storage.catalog import Catalog
from ..storage.files import INDEX, VECTORS, remove, remove_others
from ..storage.locks import Busy
from ..storage.spec import EmbeddingSpec
from .place import LOCKS, SEGMENTS, SHORTLISTS, generation_lock, hold_generation

Ints = NDArray[np.int64]
# Of a staged image: the image it was made from is gone, or was replaced since.
_FORGET_STALE = """
UPDATE images SET removed = 0 WHERE generation = ? AND removed IS NULL AND NOT EXISTS (
    SELECT 1 FROM images AS source WHERE source.generation = ? AND source.id = images.id
    AND source.removed IS NULL AND source.added = images.added
)
"""


def stage(
    catalog: Catalog, old: int, spec: EmbeddingSpec, checkpoint_path: str, widths: Sequence[str]
) -> int:
    """Begin a generation, or go on with one of this spec that was interrupted; its number."""
    staged = catalog.about("staged")
    # What is pending is found by looking for what is not there.
    catalog.require_images(old)
    with catalog.transaction():
        if staged:
            begun = catalog.generation(staged)
            if begun.spec == spec and set(begun.widths) == set(widths):
                catalog.require_images(begun.number)
                catalog.run(_FORGET_STALE, (begun.number, old))
                return begun.number
            drop_generation(catalog, begun.number)
        number = max(catalog.generations()) + 1
        catalog.new_generation(number, spec, checkpoint_path, widths)
        catalog.set_about("staged", str(number))
    return number


def pending(catalog: Catalog, old: int, staged: int) -> Ints:
    """Keys of live images of a generation that the staged one does not have yet."""
    query = """
        SELECT key FROM images AS source WHERE generation = ? AND removed IS NULL AND NOT EXISTS (
            SELECT 1 FROM images WHERE images.generation = ? AND images.id = source.id
            AND images.removed IS NULL AND images.added = source.added
        ) ORDER BY key
    """
    return np.array([key for (key,) in catalog.run(query, (old, staged))], dtype=np.int64)


def key_count(catalog: Catalog, staged: int) -> int:
    """How many keys the staged generation has given out."""
    query = "SELECT coalesce(max(start + rows), 0) FROM segments WHERE generation = ?"
    return int(catalog.run(query, (staged,))[0][0])


def copy_images(catalog: Catalog, old: int, staged: int, start: int, keys: Ints) -> None:
    """Give the staged generation the images of these keys, under the keys from `start` on."""
    catalog.run_many(
        "INSERT INTO images SELECT ?, ?, id, path, label, metadata, added, NULL FROM images"
        " WHERE generation = ? AND key = ?",
        ((staged, start + place, old, int(key)) for place, key in enumerate(keys)),
    )


def forget_images(catalog: Catalog, staged: int, keys: range) -> None:
    """Have images of a staged generation made again."""
    query = "UPDATE images SET removed = 0 WHERE generation = ? AND removed IS NULL AND key >= ? AND key < ?"
    with catalog.transaction():
        catalog.run(query, (staged, keys.start, keys.stop))


def switch(catalog: Catalog, staged: int, plan: Any = None) -> None:
    """Make the staged generation the current one, as a new version: the first that it has.

    Args:
        plan: how it is to be searched.
    """
    (live,) = catalog.run("SELECT count(*) FROM images WHERE generation = ? AND removed IS NULL", (staged,))[
        0
    ]
    number = catalog.add_version(staged, key_count(catalog, staged), live)
    catalog.run("UPDATE generations SET since = ? WHERE number = ?", (number, staged))
    catalog.save_plan(staged, plan)
    catalog.set_about("generation", str(staged))
    catalog.set_about("staged", "")


def drop_generation(catalog: Catalog, number: int) -> None:
    """Forget a generation; its files are removed by the next sweep."""
    # Those of other generations stand beside these, and have to be whole.
    catalog.require("versions")
    for table in ("images", "segments", "shortlists", "versions"):
        catalog.run(f"DELETE FROM {table} WHERE generation = ?", (number,))
    catalog.run("DELETE FROM generations WHERE number = ?", (number,))
    if catalog.about("staged") == str(number):
        catalog.set_about("staged", "")


def drop_old(catalog: Catalog, folder: Path) -> None:
    """Forget the generations that were current once, but for those that somebody reads."""
    staged = catalog.about("staged")
    # Both are there, or nothing is dropped.
    kept = {catalog.current().number, *([catalog.generation(staged).number] if staged else [])}
    for number in catalog.generations().keys() - kept:
        try:
            lock = hold_generation(folder, number, alone=True)
        except Busy:
            continue
        with catalog.transaction():
            drop_generation(catalog, number)
        if lock is not None:
            remove(folder / LOCKS / generation_lock(number))
            lock.release()


def sweep(catalog: Catalog, folder: Path) -> int:
    """Forget old generations, and remove the files that the catalogue does not speak of; returns how many."""
    drop_old(catalog, folder)
    known = catalog.files()
    places = ((SEGMENTS, VECTORS), (SHORTLISTS, INDEX))
    return sum(remove_others(folder / name, known, suffix) for name, suffix in places)
