"""What has become of the files of a gallery's images: gone, changed, moved."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..errors import GalleryError
from ..storage.records import Row
from ..storage.sources import FileFacts, file_of, known_facts, relocate
from .gallery import Gallery

# Images that are looked up at once.
_CHUNK = 8192
_GONE = (errno.ENOENT, errno.ENOTDIR)


@dataclass
class Changes:
    """Ids of images whose files are gone, or differ in size or time from when they were encoded.

    Attributes:
        unknown: how many there are of which nothing was noted.
        unreachable: whose files cannot be looked at.
    """

    gone: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unknown: int = 0
    unreachable: int = 0


class ImageFiles(Protocol):
    """The files of images that lie in one place."""

    def holds(self, path: str) -> bool:
        """Whether an image with such a path lies there."""
        ...

    def look(self, path: str) -> FileFacts | int | None:
        """Facts of the file of such an image, or the number of the error; None if nobody tells."""
        ...


class LocalFiles:
    """Those in a folder, an archive or a table of this machine.

    Args:
        places: its absolute paths, with and without links.
    """

    def __init__(self, places: Sequence[str]) -> None:
        self._places, self._seen = places, dict[str, FileFacts | int]()

    def holds(self, path: str) -> bool:
        return any(_is_in(path, place) for place in self._places)

    def look(self, path: str) -> FileFacts | int:
        """A file of many images is looked at once."""
        file, seen = file_of(path), self._seen
        if file not in seen:
            if len(seen) > _CHUNK:
                seen.clear()
            try:
                found = os.stat(file)  # noqa: PTH116  strings, for speed
                seen[file] = FileFacts(found.st_size, found.st_mtime_ns)
            except OSError as error:
                seen[file] = error.errno or -1
        return seen[file]


def compare(gallery: Gallery, files: ImageFiles) -> Changes:
    """Look at the files of the images that lie in a place.

    Args:
        files: of that place.
    """
    found = Changes()
    keys = gallery.live_keys()
    for start in range(0, len(keys), _CHUNK):
        rows = [row for row in gallery.rows(keys[start : start + _CHUNK]) if files.holds(row.path)]
        known = known_facts(gallery.catalog, [row.id for row in rows])
        for row in rows:
            _judge(row, known.get(row.id), files.look(row.path), found)
    return found


def _is_in(path: str, place: str) -> bool:
    return path.startswith((f"{place.rstrip(os.sep)}{os.sep}", f"{place}#")) or path == place


def _judge(row: Row, known: FileFacts | None, now: FileFacts | int | None, found: Changes) -> None:
    if isinstance(now, int):
        if now in _GONE:
            found.gone.append(row.id)
        else:
            found.unreachable += 1
    elif known is None or now is None:
        found.unknown += 1
    elif known != now:
        found.changed.append(row.id)


def move(gallery: Gallery, old: Path, new: Path) -> tuple[int, int]:
    """Look for the files below `old` below `new` from now on; returns how many paths, and how many are there.

    Raises:
        GalleryError: no image of the gallery lies below `old`, or none of their files is below `new`.
    """
    gallery.require_writer()
    keys = gallery.live_keys()
    moved = there = 0
    for start in range(0, len(keys), _CHUNK):
        for row in gallery.rows(keys[start : start + _CHUNK]):
            if _is_in(row.path, str(old)):
                moved += 1
                there += Path(file_of(str(new) + row.path[len(str(old)) :])).is_file()
    if not moved:
        raise GalleryError(f"{gallery.folder} has no image below {old}: nothing was changed")
    if not there:
        raise GalleryError(f"none of the {moved} files is below {new}: nothing was changed")
    relocate(gallery.catalog, gallery.generation.number, str(old), str(new))
    return moved, there
