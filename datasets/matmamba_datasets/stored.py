"""Images by the paths under which they were found once: files, rows of Parquet files, members of shards."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .broken import BrokenImageError
from .kinds import TABLE, container_of
from .reading import Limits
from .regular import read_regular
from .sample import NO_LABEL, DataError, Images
from .shards import all_shards
from .texts import Packed

# As many of them are kept open; images that were found together mostly lie together.
OPEN = 2
# Encoded images of an open Parquet file that stay in memory, in bytes.
MEMORY = 2**27


class StoredImages(Images):
    """Images at the given paths, each read when it is asked for; one that is gone counts as broken.

    Args:
        ids, paths: one each for every image. limits: of size, the default ones if None.
    """

    def __init__(self, ids: Sequence[str], paths: Sequence[str], limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.ids, self.paths = Packed.of(ids), Packed.of(paths)
        self.labels, self.classes = np.full(len(ids), NO_LABEL, np.int64), ()
        self.groups: Sequence[int] = (len(ids),)
        self._open: OrderedDict[str, tuple[Images, dict[str, int]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self.ids)

    def stored(self, index: int) -> bytes | Image.Image:
        path = self.paths[index]
        container = container_of(path)
        if container and not Path(path).is_file():
            return self._inside(container, path)
        if not path:
            raise BrokenImageError(self.ids[index], "nobody knows where this image is")
        return read_regular(path, self.limits.max_bytes)

    def _inside(self, container: str, path: str) -> bytes | Image.Image:
        if container not in self._open:
            self._open[container] = _open(container, path)
        self._open.move_to_end(container)
        while len(self._open) > OPEN:
            self._open.popitem(last=False)
        images, positions = self._open[container]
        if path not in positions:
            raise BrokenImageError(path, "there is no such image in this file")
        return images.stored(positions[path])


def _open(container: str, path: str) -> tuple[Images, dict[str, int]]:
    try:
        images = _parquet(container) if container.endswith(TABLE) else all_shards(container)
    except (DataError, OSError) as error:
        raise BrokenImageError(path, str(error)) from error
    return images, {found: index for index, found in enumerate(images.paths)}


def _parquet(container: str) -> Images:
    if not Path(container).is_file():
        raise DataError(f"{container} is missing")
    from .parquet import Parquet

    return Parquet([Path(container)], MEMORY)
