"""Images by the paths that a gallery remembers, and small pictures of them."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from matmamba_datasets import BrokenImageError, DataError, Images, open_images, read_image
from matmamba_datasets.kinds import container_of
from PIL import Image

THUMBNAIL = 224


class Pictures:
    """Reads images by path: files, and rows of Parquet files and members of shards ("file#name")."""

    def __init__(self) -> None:
        self._containers: dict[str, tuple[Images, dict[str, int]]] = {}

    def read(self, path: str) -> Image.Image:
        """The image, upright RGB; `BrokenImageError` if it is not there or cannot be decoded."""
        container = container_of(path)
        if not container or not Path(container).is_file():
            return read_image(Path(path))
        images, positions = self._open(container, path)
        if path not in positions:
            raise BrokenImageError(path, "there is no such image in this file")
        return images[positions[path]].image

    def _open(self, container: str, path: str) -> tuple[Images, dict[str, int]]:
        if container not in self._containers:
            try:
                images = open_images(container)
            except DataError as error:
                raise BrokenImageError(path, str(error)) from error
            self._containers[container] = images, {found: index for index, found in enumerate(images.paths)}
        return self._containers[container]

    def thumbnail(self, source: str | bytes, size: int = THUMBNAIL) -> bytes | None:
        """JPEG of at most `size` pixels a side, of a path or an image's bytes; None if it cannot be read."""
        try:
            image = read_image(io.BytesIO(source)) if isinstance(source, bytes) else self.read(source)
        except BrokenImageError:
            return None
        return encode(image, size)

    def data_url(self, source: str | bytes, size: int = THUMBNAIL) -> str:
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
