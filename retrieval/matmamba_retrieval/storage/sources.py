"""The files from which images came: their size and time when they were encoded, and where they lie now.

Of images that were added before this was noted, nothing is known. Facts belong to ids, so they stay when
images are encoded by another model.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .catalog import Catalog
from .schema import SOURCES

# Of a file that was written while it was encoded: it equals no file, so that it counts as changed.
_NEVER = -1
# Files in which many images lie; the path of one is "file#name", where a name may have more of "#". Those of
# frames of videos are "file#t=time".
_CONTAINER = re.compile(r"(.*?(?:\.tar|\.parquet))#.|(.*)#t=[\d:.]+$", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class FileFacts:
    """Of a file.

    Attributes:
        size: bytes.
        modified: nanoseconds since 1970; of a file at a URL whose time nobody tells, a number that changes
            with it.
    """

    size: int
    modified: int


def file_of(path: str) -> str:
    """The file in which an image lies: its own, or an archive, a table or a video."""
    found = _CONTAINER.match(path) if "#" in path else None
    # A file of its own may be called like that, too.
    return found[1] or found[2] if found and not os.path.lexists(path) else path


def facts_of(path: str, since: int) -> FileFacts | None:
    """Of a file that is read from the moment `since` on, in nanoseconds since 1970; None if there is none."""
    try:
        found = os.stat(file_of(path))  # noqa: PTH116  strings, for speed
    except (OSError, ValueError):
        return None
    return FileFacts(found.st_size, found.st_mtime_ns if found.st_ctime_ns < since else _NEVER)


def note_facts(catalog: Catalog, facts: Mapping[str, FileFacts]) -> None:
    """Note facts by id, in one transaction, in the place of older ones."""
    if not facts:
        return
    with catalog.transaction():
        catalog.run_many(
            "INSERT OR REPLACE INTO sources VALUES (?, ?, ?)",
            ((image_id, fact.size, fact.modified) for image_id, fact in facts.items()),
        )


def known_facts(catalog: Catalog, ids: Iterable[str]) -> dict[str, FileFacts]:
    """Facts by id, of those ids of which any are known."""
    if catalog.format < SOURCES.since:
        return {}
    query = "SELECT id, size, modified FROM sources WHERE id IN (SELECT value FROM json_each(?))"
    rows = catalog.run(query, (json.dumps(list(ids)),))
    # Facts have no digest: what is no number is as good as unknown.
    return {
        image_id: FileFacts(*rest) for image_id, *rest in rows if all(isinstance(fact, int) for fact in rest)
    }


def same_file(one: str, other: str) -> bool:
    """Whether two paths of images lead to the same file, and within it to the same image."""
    if one == other:
        return True
    files = file_of(one), file_of(other)
    if one[len(files[0]) :] != other[len(files[1]) :]:
        return False
    try:
        return Path(files[0]).samefile(files[1])
    except (OSError, ValueError):
        return False


def relocate(catalog: Catalog, generation: int, old: str, new: str) -> None:
    """Let the paths of images that begin with the folder or file `old` begin with `new`."""
    below = "path = ?1 OR substr(path, 1, length(?1) + 1) IN (?1 || '/', ?1 || '#')"
    change = "UPDATE images SET path = ?2 || substr(path, length(?1) + 1)"
    with catalog.transaction():
        catalog.run(f"{change} WHERE generation = ?3 AND ({below})", (old, new, generation))
