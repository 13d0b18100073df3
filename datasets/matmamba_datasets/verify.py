"""Read all of a data set and say what is broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .archive import Shard
from .errors import BrokenImageError
from .processes import in_order
from .sample import Images, read_sample


def decode_all(images: Images, workers: int, batch_size: int = 32) -> Iterator[list[BrokenImageError | None]]:
    """Decode every image; for each of some at a time, what is wrong with it, None for nothing."""
    yield from in_order(_Decoding(images), range(len(images)), workers=workers, together=batch_size)


@dataclass(frozen=True)
class _Decoding:
    images: Images

    def __call__(self, index: int) -> BrokenImageError | None:
        try:
            read_sample(self.images, index)
        except BrokenImageError as error:
            return error
        return None


def damaged_shards(shards: Sequence[Shard], cache: str = "") -> Iterator[tuple[str, str]]:
    """For each shard its place and what is wrong with its file as a whole, "" for nothing."""
    for shard in shards:
        yield shard.place, shard.damage(cache)
