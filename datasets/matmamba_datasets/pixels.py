"""Training images decoded once and kept in memory; crops, flips and colours are made where the model is.

Decoding and augmenting by Pillow keeps a small model on a GPU waiting. A photo of 144 x 192 pixels takes
83 kB: tens of thousands fit into the memory of a GPU. A crop resampled to a square is two matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from matmamba_common.errors import ConfigError
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .errors import BrokenImageError
from .fixed_views import LONGEST, FixedViews, crop_edges
from .joined import JoinedImages
from .loader import Batch
from .order import EpochPlan
from .sample import Images, read_sample
from .transforms import AugmentConfig

# How brightness is made of red, green and blue (ITU-R BT.601).
GREY = (0.299, 0.587, 0.114)
# Images that a worker hands over at once.
TOGETHER = 64
# Pixels (H, W, C), or why there are none.
Decoded: TypeAlias = "NDArray[np.uint8] | BrokenImageError"


@dataclass(frozen=True, eq=False)
class Pixels:
    """Decoded images of a collection.

    Attributes:
        values: (n, C, H, W) uint8, each in the upper left corner, zeros beside it.
        sizes: (n, 2) int64, height and width.
        broken: by position, those that could not be decoded.
    """

    values: Tensor
    sizes: Tensor
    broken: dict[int, BrokenImageError]


def decode(images: Images, edge: int, workers: int = 0) -> Pixels:
    """Decode a collection; an image whose shorter edge is longer than `edge` pixels is made smaller.

    Args:
        workers: processes that decode; 0 decodes in this one. Threads would wait for each other.
    """
    loader: DataLoader[Any] = DataLoader(
        _Fitted(images, edge), TOGETHER, num_workers=workers, collate_fn=list, generator=torch.Generator()
    )
    found = [one for batch in loader for one in batch]
    broken = {index: one for index, one in enumerate(found) if isinstance(one, BrokenImageError)}
    sizes = np.array([(1, 1) if isinstance(one, BrokenImageError) else one.shape[:2] for one in found])
    height, width = sizes.max(0)
    values = np.zeros((len(found), 3, height, width), np.uint8)
    for index, one in enumerate(found):
        if not isinstance(one, BrokenImageError):
            values[index, :, : one.shape[0], : one.shape[1]] = one.transpose(2, 0, 1)
    return Pixels(torch.from_numpy(values), torch.from_numpy(sizes), broken)


class _Fitted(Dataset[Decoded]):
    """Decoded images, no larger than they are kept."""

    def __init__(self, images: Images, edge: int) -> None:
        self.images, self.edge = images, edge

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Decoded:
        try:
            return _fitted(read_sample(self.images, index).image, self.edge)
        except BrokenImageError as error:
            return error


def _fitted(image: Image.Image, edge: int) -> NDArray[np.uint8]:
    shorter = min(image.size)
    if shorter > edge:
        size = (max(edge, round(side * edge / shorter)) for side in image.size)
        image = image.resize(tuple(size), Image.Resampling.BICUBIC)  # type: ignore[arg-type]
    width, height = image.size
    most = round(LONGEST * min(width, height))
    left, top = max(0, width - most) // 2, max(0, height - most) // 2
    return np.asarray(image.crop((left, top, left + min(width, most), top + min(height, most))))


class DecodedLoader:
    """Augmented batches of a collection in memory: a function of the seed, the epoch and the position alone.

    Attributes:
        images: the collection.

    Args:
        input: a model's data configuration, as `timm.data.resolve_data_config` gives it.
        pixels: of each source of the collection, moved to `device`.
        augment: crop, flip and colour jitter; other kinds cannot be made here.
        also: a second size at which a batch has its views, for another network.
        views: which parts of the images are seen, instead of random ones; they are only coloured anew.

    Raises:
        ConfigError: an augmentation that cannot be made here.
    """

    def __init__(
        self,
        images: JoinedImages,
        pixels: list[Pixels],
        input: Mapping[str, Any],
        augment: AugmentConfig,
        batch_size: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        also: int | None = None,
        views: FixedViews | None = None,
    ) -> None:
        for name in ("auto_augment", "re_prob"):
            if getattr(augment, name):
                raise ConfigError(f"data.augment.{name} cannot be used with data.decoded: leave one out")
        self.images, self.augment, self.seed, self.device = images, augment, seed, torch.device(device)
        self.views = views
        size = int(input["input_size"][-1])
        self.sizes = [size] if also in (None, size) else [size, int(also)]
        self.mean, self.std = (
            torch.tensor(input[key], device=device).view(-1, 1, 1) for key in ("mean", "std")
        )
        self._pixels = [Pixels(known.values.to(device), known.sizes, known.broken) for known in pixels]
        self._plan = EpochPlan(images, batch_size, shuffle=True, seed=seed, rank=0, ranks=1)

    def __len__(self) -> int:
        return len(self._plan)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from position `first` on; they equal those of an unbroken pass."""
        for number, indices in enumerate(self._plan.steps(epoch, first), first):
            yield self._batch(indices, epoch, number)

    def _batch(self, indices: NDArray[np.int64], epoch: int, number: int) -> Batch:
        key, images = [self.seed, epoch, number], self.images
        state = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
        chance = torch.Generator().manual_seed(state >> 1)
        broken, parts, kept = list[BrokenImageError](), list[list[Tensor]](), list[NDArray[np.int64]]()
        for source, pixels in enumerate(self._pixels):
            mine = indices[images.source[indices] == source]
            faults = np.array([int(row) in pixels.broken for row in images.row[mine]], bool)
            broken += [pixels.broken[int(row)] for row in images.row[mine[faults]]]
            mine = mine[~faults]
            if len(mine):
                kept.append(mine)
                parts.append(self._views(pixels, mine, epoch, chance))
        order = np.concatenate(kept) if kept else np.empty(0, np.int64)
        labels = torch.from_numpy(images.labels[order])
        ids = [images.ids[int(index)] for index in order]
        views = [torch.cat(of_size) for of_size in zip(*parts, strict=True)] or [torch.empty(0)]
        larger = views[1] if len(views) > 1 else None
        return Batch(
            images=views[0],
            labels=labels,
            indices=torch.from_numpy(order),
            ids=ids,
            broken=broken,
            larger=larger,
            views=None if self.views is None else torch.from_numpy(self.views.number(epoch, order)),
        )

    def _views(
        self, pixels: Pixels, indices: NDArray[np.int64], epoch: int, chance: torch.Generator
    ) -> list[Tensor]:
        """(B, C, S, S) normalised views of some images of a source, at each size."""
        rows = torch.from_numpy(self.images.row[indices])
        if self.views is None:
            boxes = random_boxes(pixels.sizes[rows], self.augment, chance)
            flipped = torch.rand(len(rows), generator=chance) < self.augment.hflip
        else:
            numbers = self.views.number(epoch, indices)
            boxes, flipped = self.views.boxes(indices, numbers, pixels.sizes[rows])
        strength = self.augment.color_jitter
        factors = 1 + strength * (2 * torch.rand(len(rows), 3, generator=chance) - 1)
        whole = pixels.values[rows.to(self.device)].float()
        boxes, flipped, factors = (values.to(self.device) for values in (boxes, flipped, factors))
        found = [resample(whole, boxes, size, flipped) / 255 for size in self.sizes]
        jittered = [jitter(views, factors) for views in found] if strength else found
        return [(views - self.mean) / self.std for views in jittered]


def random_boxes(sizes: Tensor, augment: AugmentConfig, chance: torch.Generator) -> Tensor:
    """(B, 4) crops (top, left, height, width) in whole pixels, as a random resized crop takes them.

    A crop that does not fit is cut.
    """
    count, whole = len(sizes), sizes.double()
    draws = torch.rand(4, count, generator=chance, dtype=torch.float64)
    edges = crop_edges(whole, augment, draws).round().clamp(min=1).minimum(whole)
    corners = ((whole - edges + 1) * draws[2:].T).floor()
    return torch.cat([corners, edges], dim=1)


def resample(images: Tensor, boxes: Tensor, size: int, flipped: Tensor) -> Tensor:
    """Crops (B, 4) of images (B, C, H, W) at `size` x `size`, bicubic and antialiased; float32, 0 to 255.

    As Pillow resizes a crop, up to rounding. A crop is flipped from left to right where `flipped` (B,) says.
    """
    boxes = boxes.float()
    rows = _weights(boxes[:, 0], boxes[:, 2], images.shape[2], size)
    columns = _weights(boxes[:, 1], boxes[:, 3], images.shape[3], size)
    columns = torch.where(flipped[:, None, None], columns.flip(1), columns)
    resized = rows[:, None] @ images.float() @ columns.mT[:, None]
    return resized.clamp(0, 255)


def _weights(start: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """(B, size, pixels): what each pixel of an edge counts in each pixel of the resampled one."""
    scale = (length / size)[:, None, None]
    out = torch.arange(size, device=start.device) + 0.5
    centre = start[:, None, None] + out[None, :, None] * scale
    at = torch.arange(pixels, device=start.device) + 0.5
    weights = _cubic((at - centre) / scale.clamp(min=1))
    inside = (at > start[:, None, None]) & (at < (start + length)[:, None, None])
    weights = weights * inside
    return weights / weights.sum(-1, keepdim=True)


def _cubic(x: Tensor, a: float = -0.5) -> Tensor:
    """The bicubic kernel of Pillow (Keys, 1981)."""
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Images (B, 3, S, S) from 0 to 1 with brightness, contrast and saturation changed by factors (B, 3)."""
    brightness, contrast, saturation = factors[..., None, None, None].unbind(1)
    images = (images * brightness).clamp(0, 1)
    mean = _grey(images).mean(dim=(-2, -1), keepdim=True)
    images = (mean + contrast * (images - mean)).clamp(0, 1)
    grey = _grey(images)
    return (grey + saturation * (images - grey)).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    return (images * torch.tensor(GREY, device=images.device).view(-1, 1, 1)).sum(1, keepdim=True)
