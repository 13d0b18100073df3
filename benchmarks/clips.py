"""Clips made from photos: a view that moves over a photo and grows or shrinks; frames that are spoilt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

# Shares of a photo's shorter side that a view is large, at its beginning and at its end.
SIDES = (0.5, 1.0)
# Standard deviations: of pixels from 0 to 255, and in pixels of a frame of 128.
NOISE, BLUR = 60.0, 3.0
SPOILT = ("noise", "blur")


def clip(photo: Image.Image, frames: int, size: int, chance: np.random.Generator) -> list[Image.Image]:
    """Square views of a photo on the way from one place to another: pan and zoom, evenly fast."""
    ends = np.stack([view(photo, chance) for _ in range(2)])
    shares = np.linspace(0, 1, frames)[:, None]
    boxes = (1 - shares) * ends[0] + shares * ends[1]
    return [photo.resize((size, size), Image.Resampling.BICUBIC, box=tuple(box)) for box in boxes.tolist()]


def view(photo: Image.Image, chance: np.random.Generator) -> NDArray[np.float64]:
    """Left, upper, right and lower edge of a square somewhere in the photo."""
    side = chance.uniform(*SIDES) * min(photo.size)
    left, upper = (chance.uniform(0, edge - side) for edge in photo.size)
    return np.array([left, upper, left + side, upper + side])


def spoil(frame: Image.Image, how: str, chance: np.random.Generator) -> Image.Image:
    """A frame with Gaussian noise, or blurred."""
    if how == "blur":
        return frame.filter(ImageFilter.GaussianBlur(BLUR * frame.width / 128))
    pixels = np.asarray(frame) + chance.normal(0, NOISE, (frame.height, frame.width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
