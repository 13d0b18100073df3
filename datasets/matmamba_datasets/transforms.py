"""Image transforms, all of them timm's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from PIL import Image
from timm.data import create_transform
from torch import Tensor

Transform: TypeAlias = Callable[[Image.Image], Tensor]
_INPUT_KEYS = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")


@dataclass
class AugmentConfig:
    """Augmentation of training images; the names are timm's."""

    # Area of the random crop, as a share of the image.
    scale: tuple[float, float] = (0.35, 1.0)
    # Aspect ratio of the random crop.
    ratio: tuple[float, float] = (0.75, 1.333)
    # Probability of a horizontal flip.
    hflip: float = 0.5
    # Strength of colour jitter; not used together with auto_augment.
    color_jitter: float = 0.3
    # Policy such as rand-m9-mstd0.5-inc1; empty for none.
    auto_augment: str = ""
    # Probability of random erasing.
    re_prob: float = 0.0


def train_transform(input: Mapping[str, Any], augment: AugmentConfig) -> Transform:
    """Augmenting transform from an image to (C, S, S).

    Args:
        input: a model's data configuration, as `timm.data.resolve_data_config` gives it.
    """
    known = {key: input[key] for key in _INPUT_KEYS if key in input and not key.startswith("crop")}
    return create_transform(
        **known,
        is_training=True,
        scale=(augment.scale[0], augment.scale[1]),
        ratio=(augment.ratio[0], augment.ratio[1]),
        hflip=augment.hflip,
        color_jitter=augment.color_jitter,
        auto_augment=augment.auto_augment or None,
        re_prob=augment.re_prob,
    )


def eval_transform(input: Mapping[str, Any]) -> Transform:
    """Deterministic transform from an image to (C, S, S): resize, centre crop, normalise."""
    known = {key: input[key] for key in _INPUT_KEYS if key in input}
    return create_transform(**known, is_training=False)
