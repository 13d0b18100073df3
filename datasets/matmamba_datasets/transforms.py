"""Image transforms, all of them timm's or equal to these, and how small an image may be decoded for them.

That of evaluation (resized, cropped at the centre, normalised) is timm's to the bit, by Pillow and NumPy:
importing timm takes longer than a search, and importing torch longer than all the rest of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from matmamba_common.settings import Bounds
from numpy.typing import NDArray
from PIL import Image

from .image_file import Draft

if TYPE_CHECKING:
    from torch import Tensor

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
Shares = Annotated[tuple[float, float], Bounds(above=0, most=1, ordered=True, what="two shares of the area")]
Ratios = Annotated[tuple[float, float], Bounds(above=0, ordered=True, what="two numbers")]
_INPUT_KEYS = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")


@dataclass(frozen=True)
class Transform:
    """From an image to (C, S, S).

    Attributes:
        steps: what is done, one after the other.
        draft: how much smaller a JPEG may be decoded, None for not at all.
    """

    steps: Callable[[Image.Image], Tensor]
    draft: Draft | None = None

    def __call__(self, image: Image.Image) -> Tensor:
        return self.steps(image)

    def array(self, image: Image.Image) -> NDArray[np.float32]:
        """The same as an array, without torch where the steps need none."""
        return self.steps.array(image) if isinstance(self.steps, EvalSteps) else self.steps(image).numpy()


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


class EvalSteps:
    """Evaluation's steps, from an image to (C, S, S): timm's, or the same to the bit without timm.

    Args:
        input: a model's data configuration, as `timm.data.resolve_data_config` gives it.
    """

    def __init__(self, input: Mapping[str, Any]) -> None:
        self._input = {key: input[key] for key in _INPUT_KEYS if key in input}
        self._view: CentredView | None = centred_view(self._input)
        self._timm: Callable[[Image.Image], Tensor] | None = None

    def __call__(self, image: Image.Image) -> Tensor:
        if self._view is None or image.mode != "RGB":
            return self._by_timm(image)
        import torch

        return torch.from_numpy(self._view(image))

    def array(self, image: Image.Image) -> NDArray[np.float32]:
        """The same as an array, without torch unless this takes timm."""
        if self._view is None or image.mode != "RGB":
            return self._by_timm(image).numpy()
        return self._view(image)

    def _by_timm(self, image: Image.Image) -> Tensor:
        if self._timm is None:
            from timm.data import create_transform

            self._timm = create_transform(**self._input, is_training=False)
        return self._timm(image)


@dataclass(frozen=True)
class CropDraft:
    """By how much an image may be smaller so that the smallest random crop is not smaller than the input.

    A crop takes at least the share `area` of the image's area, at an aspect ratio up to `ratio`; so its
    shorter edge is at least sqrt(area x width x height / ratio), or the image's shorter edge where that is
    less (Szegedy et al., Going deeper with convolutions, section 6; timm's RandomResizedCrop).

    Attributes:
        edge: longer edge of the model's input in pixels.
    """

    edge: int
    area: float
    ratio: float

    def __call__(self, size: tuple[int, int]) -> int:
        shorter = min(math.sqrt(self.area * size[0] * size[1] / self.ratio), *size)
        return int(shorter / self.edge)


@dataclass(frozen=True)
class ResizeDraft:
    """By how much an image may be smaller so that its shorter edge is still no smaller than it is resized to.

    Attributes:
        edge: the longer edge that images are resized to, in pixels.
    """

    edge: int

    def __call__(self, size: tuple[int, int]) -> int:
        return min(size) // self.edge


@dataclass
class AugmentConfig:
    """Augmentation of training images; the names are timm's."""

    # Area of the random crop, as a share of the image.
    scale: Shares = (0.35, 1.0)
    # Aspect ratio of the random crop.
    ratio: Ratios = (0.75, 1.333)
    # Probability of a horizontal flip.
    hflip: Annotated[float, Bounds(least=0, most=1)] = 0.5
    # Strength of colour jitter; not used together with auto_augment.
    color_jitter: float = 0.3
    # Policy such as rand-m9-mstd0.5-inc1; empty for none.
    auto_augment: str = ""
    # Probability of random erasing.
    re_prob: Annotated[float, Bounds(least=0, most=1)] = 0.0
    # Decode large JPEGs at 1/2, 1/4 or 1/8 of their size where even the smallest random crop then has at
    # least the model's input size: faster, and nothing is enlarged that would have been shrunk. Other
    # formats, and images that are not large enough, are decoded as they are.
    draft: bool = True


def train_transform(input: Mapping[str, Any], augment: AugmentConfig) -> Transform:
    """Augmenting transform from an image to (C, S, S).

    Args:
        input: a model's data configuration, as `timm.data.resolve_data_config` gives it.
    """
    return Transform(_augmenting(input, augment), _crop_draft(input, augment))


def view_transform(input: Mapping[str, Any], augment: AugmentConfig) -> Transform:
    """Augmenting transform from a fixed view, square and of the input's size, to (C, S, S): no crop, no flip.

    Args:
        input: as for `train_transform`.
        augment: what it does beside, and the crops that views are.
    """
    whole = replace(augment, scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0)
    return Transform(_augmenting(input, whole), _crop_draft(input, augment))


def _augmenting(input: Mapping[str, Any], augment: AugmentConfig) -> Callable[[Image.Image], Tensor]:
    from timm.data import create_transform

    known = {key: input[key] for key in _INPUT_KEYS if key in input and not key.startswith("crop")}
    steps: Callable[[Image.Image], Tensor] = create_transform(
        **known,
        is_training=True,
        scale=(augment.scale[0], augment.scale[1]),
        ratio=(augment.ratio[0], augment.ratio[1]),
        hflip=augment.hflip,
        color_jitter=augment.color_jitter,
        auto_augment=augment.auto_augment or None,
        re_prob=augment.re_prob,
    )
    return steps


def _crop_draft(input: Mapping[str, Any], augment: AugmentConfig) -> CropDraft | None:
    widest = max(augment.ratio[1], 1 / augment.ratio[0])
    return CropDraft(_edge(input), augment.scale[0], widest) if augment.draft else None


def eval_transform(input: Mapping[str, Any], draft: bool = False) -> Transform:
    """Deterministic transform from an image to (C, S, S): resize, centre crop, normalise.

    Args:
        draft: decode JPEGs at 1/2, 1/4 or 1/8 where they are resized to less than that anyway. Faster for
            large photos, but pixels differ by a little: off, so that figures and embeddings do not depend on
                it.
    """
    return Transform(EvalSteps(input), ResizeDraft(resized_edge(input)) if draft else None)


def resized_edge(input: Mapping[str, Any]) -> int:
    """Pixels that `eval_transform` resizes the shorter edge of an image to.

    Args:
        input: a model's data configuration, as `timm.data.resolve_data_config` gives it.
    """
    return math.floor(_edge(input) / (input.get("crop_pct") or DEFAULT_CROP_PCT))


def _edge(input: Mapping[str, Any]) -> int:
    return max(input["input_size"][1:])
