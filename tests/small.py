"""Small things that tests make."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
from matmamba_vision import MatMamba
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


def unit_vectors(count: int, dim: int, seed: int = 0) -> np.ndarray:
    """(count, dim) float32 vectors of length 1."""
    x = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


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
