"""Images of a gallery, read again from where they are, and encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matmamba_datasets import BrokenImageError
from matmamba_retrieval import Row
from numpy.typing import NDArray
from PIL import Image

from ..galleries.pictures import Pictures

if TYPE_CHECKING:
    from ..galleries.embedder import Embedder


class Reencoder:
    """Vectors of images that are read again.

    Args:
        embedder: that encodes.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._pictures, self._embedder = Pictures(), embedder

    def __call__(self, rows: Sequence[Row], width: str) -> list[NDArray[np.float32] | str]:
        """Embeddings at a width; in the place of an image that cannot be read, why."""
        transform = self._embedder.transform_of(width).array
        images = [self._image(row, transform) for row in rows]
        readable = [image for image in images if isinstance(image, np.ndarray)]
        xb = iter(self._embedder.embed(np.stack(readable), width) if readable else ())
        return [image if isinstance(image, str) else next(xb) for image in images]

    def _image(
        self, row: Row, transform: Callable[[Image.Image], NDArray[np.float32]]
    ) -> NDArray[np.float32] | str:
        try:
            return transform(self._pictures.read(row.path))
        except BrokenImageError as error:
            return str(error)
