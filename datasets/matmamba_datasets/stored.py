"""Images by the paths under which they were found once: files, rows of tables, members of shards, frames."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import BrokenImageError, DataError
from .frame_names import frame_of
from .kinds import container_of, is_table
from .reading import Limits, TableReading
from .regular import read_regular
from .remote import is_url, read_remote
from .sample import NO_LABEL, Images
from .shards import all_shards
from .texts import Packed
from .video_frames import VideoFrames

# As many archives and tables are kept open; images that were found together mostly lie together.
OPEN = 2
# Encoded images of an open Parquet file that stay in memory, in bytes.
MEMORY = 2**27


class StoredImages(Images):
    """Images at the given paths, each read when it is asked for; one that is gone counts as broken.

    Args:
        ids: one for every image.
        paths: one for every image.
        limits: of size, the default ones if None.
    """

    def __init__(self, ids: Sequence[str], paths: Sequence[str], limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.ids, self.paths = Packed.of(ids), Packed.of(paths)
        self.labels, self.classes = np.full(len(ids), NO_LABEL, np.int64), ()
        self.groups: Sequence[int] = (len(ids),)
        self._places = Places(self.limits)

    def __len__(self) -> int:
        return len(self.ids)

    def stored(self, index: int) -> bytes | Image.Image:
        if not self.paths[index]:
            raise BrokenImageError(self.ids[index], "nobody knows where this image is")
        return self._places.stored(self.paths[index])


class Places:
    """Reads images by their paths: files, rows of Parquet files, members of shards, frames ("file#name").

    Args:
        most: archives and tables that are kept open, and as many videos.
    """

    def __init__(self, limits: Limits, most: int = OPEN) -> None:
        self._limits, self._most = limits, most
        self._open: OrderedDict[str, tuple[Images, dict[str, int]]] = OrderedDict()
        self._videos = VideoFrames(limits, most)

    def stored(self, path: str) -> bytes | Image.Image:
        """The image's file, or its pixels; `BrokenImageError` if it cannot be read."""
        container = container_of(path)
        if not container and is_url(path):
            return read_remote(path, self._limits.max_bytes)
        # A file of its own may be called like that, too.
        if not container or Path(path).is_file():
            return read_regular(path, self._limits.max_bytes)
        if frame_of(path) is not None:
            return self._videos.picture(path)
        key = f"{container}@{_column(path)}"
        if key not in self._open:
            self._open[key] = _opened(container, path)
        self._open.move_to_end(key)
        while len(self._open) > self._most:
            self._open.popitem(last=False)
        images, positions = self._open[key]
        if path not in positions:
            raise BrokenImageError(path, "there is no such image in this file")
        return images.stored(positions[path])


def _opened(container: str, path: str) -> tuple[Images, dict[str, int]]:
    """The images of an archive or a table, and where each path is among them."""
    try:
        images = _parquet(container, _column(path)) if is_table(container) else all_shards(container)
    except (DataError, OSError) as error:
        raise BrokenImageError(path, str(error)) from error
    return images, {found: index for index, found in enumerate(images.paths)}


def _column(path: str) -> str:
    """The column of a Parquet file in which an image lies, "" for the one that is found without asking."""
    container = container_of(path)
    return path[len(container) + 1 :].partition("@")[2] if is_table(container) else ""


def _parquet(container: str, column: str) -> Images:
    if not Path(container).is_file():
        raise DataError(f"{container} is missing")
    from .parquet import Parquet

    return Parquet([Path(container)], MEMORY, reading=TableReading(image_column=column))
