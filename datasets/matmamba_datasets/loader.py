"""Batches of transformed images. A broken image is left out of its batch and reported with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .decode import BrokenImageError
from .sample import DataError, Images
from .transforms import Transform


@dataclass(frozen=True)
class Batch:
    """Some images of a collection, without the broken ones; it can be empty.

    Attributes:
        images: (B, C, S, S). labels: (B,) int64. indices: (B,) int64, positions in the collection.
        broken: the images that could not be decoded.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    broken: list[BrokenImageError]

    def __len__(self) -> int:
        return len(self.indices)


@dataclass
class BrokenTally:
    """Counts broken images and stops the run when they are too many.

    Attributes:
        total: images in the collection. allowed: share that may be broken. setting: what the user calls
            that share. found: reasons by name.
    """

    total: int
    allowed: float
    setting: str = "--max-broken"
    found: dict[str, str] = field(default_factory=dict)

    def add(self, broken: list[BrokenImageError]) -> None:
        """Count them; raises `DataError` once more than the allowed share of the collection is broken."""
        self.found |= {error.name: error.reason for error in broken}
        if len(self.found) > self.allowed * self.total:
            share = 100 * len(self.found) / self.total
            raise DataError(
                f"{len(self.found)} of {self.total} files cannot be read: {share:.1f} %, more than the"
                f" {100 * self.allowed:g} % allowed by {self.setting}\n{self.listing()}"
            )

    def listing(self, most: int = 20) -> str:
        """One line for each broken image, the first `most` of them."""
        lines = [f"  {name}: {reason}" for name, reason in list(self.found.items())[:most]]
        more = len(self.found) - most
        return "\n".join(lines + ([f"  ... and {more} more"] if more > 0 else []))


class _Transformed(Dataset[tuple[Tensor, int, int] | BrokenImageError]):
    def __init__(self, images: Images, transform: Transform) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int] | BrokenImageError:
        try:
            sample = self.images[index]
        except BrokenImageError as error:
            return error
        return self.transform(sample.image), sample.label, index


def _collate(items: list[tuple[Tensor, int, int] | BrokenImageError]) -> Batch:
    good = [item for item in items if not isinstance(item, BrokenImageError)]
    broken = [item for item in items if isinstance(item, BrokenImageError)]
    images = torch.stack([image for image, _, _ in good]) if good else torch.empty(0)
    labels = torch.tensor([label for _, label, _ in good], dtype=torch.int64)
    return Batch(images, labels, torch.tensor([index for _, _, index in good], dtype=torch.int64), broken)


class Loader:
    """Iterable over the batches of a collection, the same ones for the same seed and epoch.

    Attributes:
        images: the collection.
    """

    def __init__(
        self, images: Images, loader: DataLoader[Batch], order: torch.Generator | None, seed: int
    ) -> None:
        self.images, self._loader, self._order, self._seed = images, loader, order, seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        if self._order is not None:
            self._order.manual_seed(self._seed + self._epoch)
        self._epoch += 1
        return iter(self._loader)


def make_loader(
    images: Images,
    transform: Transform,
    batch_size: int,
    *,
    workers: int = 0,
    shuffle: bool = False,
    seed: int = 0,
) -> Loader:
    """Loader over `images`; `shuffle`: in an order given by `seed` and epoch, without a last partial batch.

    Args:
        workers: processes that decode; 0 decodes in this one.
    """
    order = torch.Generator() if shuffle else None
    loader: DataLoader[Batch] = DataLoader(
        _Transformed(images, transform),  # type: ignore[arg-type]
        batch_size=batch_size,
        shuffle=shuffle,
        drop_last=shuffle and len(images) > batch_size,
        generator=order,
        num_workers=workers,
        collate_fn=_collate,
        persistent_workers=workers > 0,
    )
    return Loader(images, loader, order, seed)
