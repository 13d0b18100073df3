"""The transform for evaluation is timm's, to the bit, with and without timm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matmamba_datasets import eval_transform
from matmamba_datasets.transforms import centred_view
from PIL import Image
from timm.data import create_transform

HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SIZES = ((32, 32), (33, 47), (640, 427), (61, 200), (200, 61), (1, 50))


def configured(size: int, **changed: Any) -> dict[str, Any]:
    return {"input_size": (3, size, size), "interpolation": "bicubic", "crop_pct": 1.0, **HALF, **changed}


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [32, 49])
@pytest.mark.parametrize("share", [1.0, 0.9, 0.875, None])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "nearest"])
@pytest.mark.parametrize("channels", [HALF, IMAGENET])
def test_it_is_timms_to_the_bit(
    size: int, share: float | None, interpolation: str, channels: dict[str, Any]
) -> None:
    input = configured(size, crop_pct=share, interpolation=interpolation, **channels)
    assert centred_view(input) is not None
    ours, theirs = eval_transform(input), create_transform(**input, is_training=False)
    for width, height in SIZES:
        image = noise(width, height)
        wanted: Any = theirs(image)
        assert torch.equal(ours(image), wanted)
        assert np.array_equal(ours.array(image), wanted.numpy())


@pytest.mark.parametrize(
    "input",
    [
        configured(32, crop_mode="squash", crop_pct=0.9),
        configured(32, crop_mode="border"),
        configured(32, crop_pct=1.25),
        configured(32) | {"input_size": (3, 32, 48)},
    ],
)
def test_other_views_are_left_to_timm(input: dict[str, Any]) -> None:
    assert centred_view(input) is None
    image, theirs = noise(50, 70), create_transform(**input, is_training=False)
    wanted: Any = theirs(image)
    assert torch.equal(eval_transform(input)(image), wanted)
    assert np.array_equal(eval_transform(input).array(image), wanted.numpy())


def test_defaults_are_timms() -> None:
    input: dict[str, Any] = {"input_size": (3, 24, 24)}
    image = noise(40, 30)
    wanted: Any = create_transform(**input, is_training=False)(image)
    assert torch.equal(eval_transform(input)(image), wanted)
