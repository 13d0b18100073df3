"""Read all of a data set and say what is broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor

from .archive import Shard
from .errors import BrokenImageError
from .loader import make_loader
from .sample import Images


def decode_all(images: Images, workers: int, batch_size: int = 32) -> Iterator[list[BrokenImageError | None]]:
    """Decode every image; for each of some at a time, what is wrong with it, None for nothing."""
    for batch in make_loader(images, _nothing, batch_size, workers=workers):
        yield [*batch.broken, *[None] * len(batch)]


def _nothing(image: Image.Image) -> Tensor:
    return torch.empty(0)


def damaged_shards(shards: Sequence[Shard], cache: str = "") -> Iterator[tuple[str, str]]:
    """For each shard its place and what is wrong with its file as a whole, "" for nothing."""
    for shard in shards:
        yield shard.place, shard.damage(cache)
