"""Pictures of different sizes, made of noise."""

from __future__ import annotations

import io

import numpy as np
from matmamba_datasets import Images
from PIL import Image


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


class Pictures(Images):
    """Some pictures of different sizes; one of them may be broken."""

    def __init__(self, count: int, classes: int = 2, broken: int | None = None) -> None:
        self.count, self.broken = count, broken
        self.classes = tuple(f"class {number}" for number in range(classes))
        self.labels = np.arange(count) % classes
        self.ids = [f"image {number}" for number in range(count)]
        self.paths, self.groups = self.ids, (count,)

    def __len__(self) -> int:
        return self.count

    def stored(self, index: int) -> bytes:
        file = io.BytesIO()
        picture(40 + 4 * index, 32, index).save(file, "PNG")
        return b"none" if index == self.broken else file.getvalue()
