"""Images by the paths that a gallery remembers, and small pictures of them."""

from __future__ import annotations

import base64
import io
from typing import TypeAlias

from matmamba_datasets import BrokenImageError, Limits, read_image
from matmamba_datasets.stored import Places
from PIL import Image

THUMBNAIL = 224
# Archives and tables that are kept open: hits lie all over them.
OPEN = 8
# Path, file or pixels of an image.
Source: TypeAlias = str | bytes | Image.Image


class Pictures:
    """Reads images by path: files, and rows of Parquet files and members of shards ("file#name")."""

    def __init__(self) -> None:
        self._places = Places(Limits(), OPEN)

    def read(self, path: str) -> Image.Image:
        """The image, upright RGB; `BrokenImageError` if it is not there or cannot be decoded."""
        stored = self._places.stored(path)
        return read_image(io.BytesIO(stored), path) if isinstance(stored, bytes) else stored

    def thumbnail(self, source: Source, size: int = THUMBNAIL) -> bytes | None:
        """JPEG of at most `size` pixels a side, of an image; None if it cannot be read."""
        try:
            image = self._opened(source)
        except BrokenImageError:
            return None
        return encode(image, size)

    def _opened(self, source: Source) -> Image.Image:
        """An image that nobody else has, for it is made smaller."""
        if isinstance(source, Image.Image):
            return source.copy()
        return read_image(io.BytesIO(source)) if isinstance(source, bytes) else self.read(source)

    def data_url(self, source: Source, size: int = THUMBNAIL) -> str:
        """The same for the `src` of an HTML image; "" if it cannot be read."""
        content = self.thumbnail(source, size)
        return "" if content is None else f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def encode(image: Image.Image, size: int) -> bytes:
    """JPEG of an RGB image, made smaller if a side is longer than `size` pixels."""
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # Small images show every artefact.
    image.save(buffer, "JPEG", quality=92 if max(image.size) <= 64 else 80)
    return buffer.getvalue()
