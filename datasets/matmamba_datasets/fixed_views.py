"""Fixed views of images: the same few crops in every epoch, so that what is computed of one can be kept.

A teacher that sees the very view which its student sees is consistent (Beyer et al., arXiv 2106.05237); with
as many views as are kept, it needs to see each of them only once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .transforms import AugmentConfig

# What is seen of an image, at most so many times longer than wide: the middle.
LONGEST = 1.5
# Random numbers of a view: area, aspect ratio, two for the corner, flip.
DRAWS = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedViews:
    """Which part of an image each of its views shows; a function of the seed, the image and the view alone.

    The first view is the square in the middle, as a search sees an image. The others are random resized
    crops, flipped or not, within the middle part that is at most `LONGEST` times longer than wide.

    Attributes:
        keys: (n,) uint64, what each image of a collection is known by, wherever it lies.
        turns: (n,) how often the image stands before in the collection.
        repeats: (n,) how often it is there.
        count: views of an image.
        seed: of all views.
        augment: area, aspect ratio and share of flips of the random ones.
        shown: the view that is always shown; None for one after the other.
    """

    keys: NDArray[np.uint64]
    turns: NDArray[np.int64]
    repeats: NDArray[np.int64]
    count: int
    seed: int
    augment: AugmentConfig
    shown: int | None = None

    def only(self, indices: NDArray[np.int64], shown: int) -> FixedViews:
        """One view of some of the images."""
        return replace(
            self,
            keys=self.keys[indices],
            turns=self.turns[indices],
            repeats=self.repeats[indices],
            shown=shown,
        )

    def number(self, epoch: int, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """(B,) the views that some images of the collection show in an epoch: in as many, each once."""
        if self.shown is not None:
            return np.full(len(indices), self.shown, np.int64)
        first = (self.keys[indices] % np.uint64(self.count)).astype(np.int64)
        return (first + epoch * self.repeats[indices] + self.turns[indices]) % self.count

    def boxes(
        self, indices: NDArray[np.int64], numbers: NDArray[np.int64], sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, 4) top, left, height and width in pixels, and (B,) whether a view is flipped.

        Args:
            indices: (B,) positions in the collection.
            numbers: (B,) which view of each.
            sizes: (B, 2) height and width of the images as they are decoded, which can be smaller than they
                are stored: the same part of them is shown.
        """
        drawn = [
            np.random.default_rng([self.seed, int(key), int(number)]).random(DRAWS)
            for key, number in zip(self.keys[indices], numbers, strict=True)
        ]
        draws = torch.from_numpy(np.array(drawn).reshape(-1, DRAWS))
        whole = sizes.double()
        shorter = whole.min(1, keepdim=True).values
        inner = whole.minimum((LONGEST * shorter).round())
        edges = crop_edges(inner, self.augment, draws[:, :2].T).clamp(min=1).minimum(inner)
        random = torch.cat([(inner - edges) * draws[:, 2:4], edges], dim=1)
        middle = torch.cat([(inner - shorter) / 2, shorter.expand(-1, 2)], dim=1)
        first = torch.from_numpy(numbers == 0)
        boxes = torch.where(first[:, None], middle, random)
        boxes[:, :2] += (whole - inner) / 2
        return boxes, (draws[:, 4] < self.augment.hflip) & ~first

    def cut(
        self, image: Image.Image, index: int, number: int, size: int, how: Image.Resampling
    ) -> Image.Image:
        """A view of an image at `size` x `size` pixels."""
        sizes = torch.tensor([[image.height, image.width]])
        boxes, flipped = self.boxes(np.array([index]), np.array([number]), sizes)
        top, left, height, width = boxes[0].tolist()
        box = (left, top, min(left + width, image.width), min(top + height, image.height))
        view = image.resize((size, size), how, box=box)
        return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped[0] else view


def crop_edges(whole: Tensor, augment: AugmentConfig, draws: Tensor) -> Tensor:
    """(B, 2) heights and widths in pixels of random resized crops, not rounded; they can be too large.

    Area and aspect ratio are drawn once (Szegedy et al., Going deeper with convolutions, section 6).

    Args:
        whole: (B, 2) float64, heights and widths of the images.
        augment: area and aspect ratio.
        draws: (2, B) float64 between 0 and 1.
    """
    low, high = augment.scale
    area = whole.prod(1) * (low + (high - low) * draws[0])
    logs = np.log(augment.ratio)
    ratio = torch.exp(logs[0] + (logs[1] - logs[0]) * draws[1])
    return torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], dim=1)
