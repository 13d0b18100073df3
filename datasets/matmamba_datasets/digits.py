"""The 1,797 scanned handwritten digits that scikit-learn carries (UCI, Optical Recognition)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from .sample import Images


class Digits(Images):
    """8 x 8 greyscale scans, 10 classes, no download. Transforms enlarge them to the size a model takes."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        # Scans have 17 grey levels, 0 is paper.
        self._pixels = (digits.images * (255 / 16)).astype(np.uint8)
        self.labels = digits.target.astype(np.int64)
        self.classes = tuple(str(digit) for digit in range(10))
        self.ids: Sequence[str] = [f"digits/{index:04d}" for index in range(len(self.labels))]
        self.paths: Sequence[str] = self.ids
        self.groups = (len(self.labels),)

    def __len__(self) -> int:
        return len(self.labels)

    def stored(self, index: int) -> Image.Image:
        return Image.fromarray(self._pixels[index]).convert("RGB")
