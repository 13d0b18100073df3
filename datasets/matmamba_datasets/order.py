"""In which order images are seen: a function of the collection, the seed and the epoch, of nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .sample import Images

# Images that are shuffled together where they lie in groups: enough that a batch is mixed, few enough that
# what they lie in fits into memory or the system's file cache.
WINDOW = 8192


def shuffled(groups: Sequence[int], seed: int, epoch: int) -> NDArray[np.int64]:
    """(n,) positions: the groups in random order, then the images at random within a window of some groups.

    A collection of one group is shuffled as a whole. Shards are thereby read nearly one after the other.
    """
    rng = np.random.default_rng([seed, epoch])
    ends = np.cumsum(groups)
    parts = []
    for window in _windows(rng.permutation(len(groups)), groups):
        part = np.concatenate([np.arange(ends[group] - groups[group], ends[group]) for group in window])
        parts.append(rng.permutation(part))
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _windows(order: NDArray[np.int64], groups: Sequence[int]) -> Iterator[list[int]]:
    window: list[int] = []
    for group in order.tolist():
        window.append(group)
        if sum(groups[member] for member in window) >= WINDOW:
            yield window
            window = []
    if window:
        yield window


class EpochPlan:
    """Which images each step of an epoch takes.

    Shuffled, a last step that would not be full is left out, unless it is the only one; in order, every image
    is seen once. A step's images are cut into consecutive pieces, one for each rank: so two ranks with
    batches of n see what one with batches of 2n sees. Pieces of a step that is not full differ by one image
    at most, and can be empty.

    Args:
        batch_size: images per step and rank.
    """

    def __init__(
        self, images: Images, batch_size: int, *, shuffle: bool, seed: int, rank: int, ranks: int
    ) -> None:
        if not 0 <= rank < ranks:
            raise ValueError(f"rank {rank} is not in 0..{ranks - 1}")
        self._images, self._shuffle, self._seed = images, shuffle, seed
        self._rank, self._ranks, self._step = rank, ranks, batch_size * ranks

    def __len__(self) -> int:
        full, rest = divmod(len(self._images), self._step)
        return full + (rest > 0 and not (self._shuffle and full))

    def steps(self, epoch: int, first: int = 0) -> list[NDArray[np.int64]]:
        """Positions in the collection for this rank, a step each, from step `first` on."""
        order = np.arange(len(self._images))
        if self._shuffle:
            order = shuffled(self._images.groups, self._seed, epoch)
        return [
            np.array_split(order[start : start + self._step], self._ranks)[self._rank]
            for start in range(first * self._step, len(self) * self._step, self._step)
        ]


class Rest:
    """The steps of a pass in order of which some images were seen before: each takes those that are left.

    So an image meets in its batch the same others as in an unbroken pass, if steps were seen as a whole.

    Args:
        left: positions that are still to be seen, ascending.
        batch_size: images per step of the whole pass.
    """

    def __init__(self, left: NDArray[np.int64], batch_size: int) -> None:
        self._steps = [step for step in np.split(left, _changes(left // batch_size)) if len(step)]

    def __len__(self) -> int:
        return len(self._steps)

    def steps(self, epoch: int, first: int = 0) -> list[NDArray[np.int64]]:
        """Positions in the collection, a step each, from step `first` on; the same in each epoch."""
        return self._steps[first:]


def _changes(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where a value differs from the one before."""
    return np.flatnonzero(np.diff(values)) + 1
