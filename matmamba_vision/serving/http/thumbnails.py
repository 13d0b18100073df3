"""Small pictures of images, by the paths that a gallery remembers: never by a path from outside."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from matmamba_datasets import BrokenImageError, Limits, read_image
from matmamba_datasets.kinds import container_of
from matmamba_datasets.remote import entry_at, is_url
from matmamba_datasets.stored import Places

from ...galleries.pictures import OPEN, encode

MOST_BYTES = 64_000_000
# A JPEG is decoded at least so many times as large as it is wanted, and made smaller from there.
FINER = 2


@dataclass(frozen=True)
class Thumbnail:
    """A small picture.

    Attributes:
        tag: of its file as it is now, and its size.
        content: JPEG.
    """

    tag: str
    content: bytes


class Thumbnails:
    """Makes small pictures, and keeps those that were asked for last.

    Args:
        limits: that files are read within.
        most: bytes that are kept.
    """

    def __init__(self, limits: Limits, most: int = MOST_BYTES) -> None:
        self._limits, self._most, self._held = limits, most, 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock, self._threads = threading.Lock(), threading.local()

    @staticmethod
    def tag(path: str, size: int) -> str:
        """Of a picture as its file is now, "" where that is gone.

        Args:
            path: of its file, or "file#name" in a larger one.
            size: of its longer side, in pixels.
        """
        try:
            told = f"{path}\0{_state_of(path)}\0{size}".encode(errors="surrogatepass")
        except (OSError, ValueError):
            return ""
        return hashlib.blake2b(told, digest_size=12).hexdigest()

    def get(self, path: str, size: int) -> Thumbnail | None:
        """A picture, never larger than its image; None where its file is gone, or cannot be read.

        Args:
            path: of its file, or "file#name" in a larger one.
            size: of its longer side at most, in pixels.
        """
        tag = self.tag(path, size) if path else ""
        if not tag:
            return None
        if (known := self._known(tag)) is not None:
            return Thumbnail(tag, known)
        try:
            content = self._made(path, size)
        except BrokenImageError:
            return None
        self._keep(tag, content)
        return Thumbnail(tag, content)

    def _made(self, path: str, size: int) -> bytes:
        stored = self._places().stored(path)
        if not isinstance(stored, bytes):
            return encode(stored.copy(), size)
        image = read_image(io.BytesIO(stored), path, lambda found: max(found) // (FINER * size), self._limits)
        return encode(image, size)

    def _places(self) -> Places:
        """Archives that are open belong to one thread."""
        if not hasattr(self._threads, "places"):
            self._threads.places = Places(self._limits, OPEN)
        found = self._threads.places
        assert isinstance(found, Places)
        return found

    def _known(self, tag: str) -> bytes | None:
        with self._lock:
            if tag in self._kept:
                self._kept.move_to_end(tag)
            return self._kept.get(tag)

    def _keep(self, tag: str, content: bytes) -> None:
        with self._lock:
            self._held += len(content) - len(self._kept.get(tag, b""))
            self._kept[tag] = content
            while self._held > self._most:
                self._held -= len(self._kept.popitem(last=False)[1])


def _state_of(path: str) -> str:
    """What changes with the file of an image; `OSError` if it is gone."""
    file, container = Path(path), container_of(path)
    if is_url(container or path):
        entry = entry_at(container or path)
        return f"{entry.stamp}\0{entry.size}"
    found = (Path(container) if container and not file.is_file() else file).stat()
    return f"{found.st_mtime_ns}\0{found.st_size}"
