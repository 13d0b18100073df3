"""An image as a model wants it that is not trained on it: resized, cropped at its centre, normalised.

What timm's transform for evaluation makes of an RGB image, to the bit, by Pillow and NumPy: importing timm
takes longer than a search, and importing torch longer than all the rest of one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# timm's, for a model that says nothing about it.
DEFAULT_CROP_PCT, DEFAULT_INTERPOLATION = 0.875, "bilinear"
DEFAULT_MEAN, DEFAULT_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, kw_only=True)
class CentredView:
    """From an RGB image to (3, S, S) float32.

    Attributes:
        edge: what the shorter edge is resized to, in pixels.
        size: S.
        resampling: how.
        mean: of each channel, from 0 to 1.
        std: of each channel.
    """

    edge: int
    size: int
    resampling: Image.Resampling
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        cropped = self._cropped(self._resized(image))
        pixels = np.ascontiguousarray(np.asarray(cropped).transpose(2, 0, 1)).astype(np.float32)
        pixels /= np.float32(255)
        pixels -= np.array(self.mean, np.float32)[:, None, None]
        pixels /= np.array(self.std, np.float32)[:, None, None]
        return pixels

    def _resized(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        if min(width, height) == self.edge:
            return image
        longer = int(self.edge * max(width, height) / min(width, height))
        size = (self.edge, longer) if width <= height else (longer, self.edge)
        return image.resize(size, self.resampling)

    def _cropped(self, image: Image.Image) -> Image.Image:
        left, top = (int(round((side - self.size) / 2.0)) for side in image.size)  # noqa: RUF046  as torchvision
        return image.crop((left, top, left + self.size, top + self.size))


def centred_view(input: Mapping[str, Any]) -> CentredView | None:
    """The view that a data configuration of timm's describes, if it is one of these: square, from the centre.

    Args:
        input: a model's data configuration, as `timm.data.resolve_data_config` gives it.
    """
    channels, height, width = input["input_size"]
    share = input.get("crop_pct") or DEFAULT_CROP_PCT
    resampling = _RESAMPLING.get(input.get("interpolation") or DEFAULT_INTERPOLATION)
    mean, std = tuple(input.get("mean") or DEFAULT_MEAN), tuple(input.get("std") or DEFAULT_STD)
    plain = input.get("crop_mode") in (None, "center") and height == width and share <= 1
    if not plain or resampling is None or not channels == len(mean) == len(std) == 3:
        return None
    edge = math.floor(height / share)
    return CentredView(edge=edge, size=height, resampling=resampling, mean=mean, std=std)
