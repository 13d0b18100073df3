"""Small things that tests make."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
from drawn_vectors import unit_vectors as unit_vectors
from matmamba_vision import MatMamba
from PIL import Image
from torch import Tensor

SMALL: dict[str, Any] = {
    "img_size": 16,
    "patch_size": 4,
    "num_classes": 5,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 8,
    "head_dim": 4,
    "d_state": 8,
}


def save_photos(root: Path) -> None:
    """A folder of two classes whose images differ in format, size and mode."""
    rng = np.random.default_rng(0)
    modes = ("RGB", "L", "RGBA", "CMYK", "P", "LA", "1", "I;16")
    for number in range(24):
        mode = modes[number % len(modes)]
        level = 200 if number % 2 else 40
        pixels = rng.integers(0, 55, (20 + number, 31, 3)) + level
        image = Image.fromarray(pixels.astype(np.uint8))
        image = (
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
            if mode == "I;16"
            else image
        )
        image = image if mode == "I;16" else image.convert(mode)
        suffix = {"RGB": "jpg", "L": "jpg", "CMYK": "jpg"}.get(mode, "png")
        file = root / ("bright" if number % 2 else "dark") / f"{number:02d}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)


@dataclass
class LabelledImages:
    """A batch of images (B, C, S, S) with labels (B,), and ids that say which is which."""

    images: Tensor
    labels: Tensor

    @property
    def ids(self) -> list[str]:
        return [f"image {index}" for index in range(len(self))]

    def __len__(self) -> int:
        return len(self.images)


def create(name: str, **options: Any) -> MatMamba:
    """A registered model, whose type `timm.create_model` does not say."""
    model = timm.create_model(name, **options)
    assert isinstance(model, MatMamba)
    return model


def play(work: Callable[[], None]) -> Callable[[], None]:
    """A capture without a GPU: the work, done a few times beforehand as by a real one."""
    for _ in range(2):
        work()
    return work
