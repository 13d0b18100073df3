"""Batches of transformed images. A broken image is left out of its batch and reported with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from .errors import BrokenImageError
from .fixed_views import FixedViews
from .order import EpochPlan, Rest
from .randomness import seeded
from .sample import Images, read_sample
from .transforms import Transform


@dataclass(frozen=True)
class Batch:
    """Some images of a collection, without the broken ones; it can be empty.

    Attributes:
        images: (B, C, S, S).
        labels: (B,) int64.
        indices: (B,) int64, positions in the collection.
        ids: their ids there.
        broken: the images that could not be decoded.
        larger: the same views at another size, for a second network, or None.
        views: (B,) int64, which of its fixed views each image shows, or None.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    ids: list[str]
    broken: list[BrokenImageError]
    larger: Tensor | None = None
    views: Tensor | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def pin_memory(self) -> Batch:
        """The same in memory that a GPU reads by itself; torch's loader calls this."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())


@dataclass(frozen=True)
class _Item:
    """A transformed image, its label, its position in the collection, its id, and which view it is."""

    image: Tensor
    label: int
    index: int
    id: str
    view: int | None


class _Transformed(Dataset[_Item | BrokenImageError]):
    """Images by (epoch, index): the epoch comes with each request, so that running workers learn of it."""

    def __init__(
        self,
        images: Images,
        transform: Callable[[Image.Image], Tensor],
        seed: int,
        views: SizedViews | None,
    ) -> None:
        self.images, self.transform, self.seed, self.views = images, transform, seed, views
        self.draft = transform.draft if isinstance(transform, Transform) else None

    def __getitem__(self, request: tuple[int, int]) -> _Item | BrokenImageError:
        epoch, index = request
        try:
            sample = read_sample(self.images, index, self.draft)
        except BrokenImageError as error:
            return error
        image, view = (sample.image, None) if self.views is None else self.views(sample.image, epoch, index)
        with seeded(self.seed, epoch, index):
            return _Item(self.transform(image), sample.label, index, sample.id, view)


@dataclass(frozen=True)
class SizedViews:
    """Fixed views as a loader shows them.

    Attributes:
        views: of the loader's collection.
        size: of a view, in pixels.
        interpolation: by its name in Pillow and timm.
    """

    views: FixedViews
    size: int
    interpolation: str = "bicubic"

    def __call__(self, image: Image.Image, epoch: int, index: int) -> tuple[Image.Image, int]:
        """The view of an image in an epoch, and its number."""
        number = int(self.views.number(epoch, np.array([index]))[0])
        how = getattr(Image.Resampling, self.interpolation.upper(), Image.Resampling.BICUBIC)
        return self.views.cut(image, index, number, self.size, how), number


def _collate(items: list[_Item | BrokenImageError]) -> Batch:
    good = [item for item in items if isinstance(item, _Item)]
    views = [item.view for item in good if item.view is not None]
    return Batch(
        images=torch.stack([item.image for item in good]) if good else torch.empty(0),
        labels=torch.tensor([item.label for item in good], dtype=torch.int64),
        indices=torch.tensor([item.index for item in good], dtype=torch.int64),
        ids=[item.id for item in good],
        broken=[item for item in items if isinstance(item, BrokenImageError)],
        views=torch.tensor(views) if views else None,
    )


class _Requests(Sampler[list[tuple[int, int]]]):
    """What the next pass asks for; torch's loader takes it from here when the pass begins."""

    def __init__(self) -> None:
        self.epoch, self.steps = 0, list[NDArray[np.int64]]()

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        return ([(epoch, index) for index in step.tolist()] for step in self.steps)


class Loader:
    """The batches of a collection: a function of the seed, the epoch and the position, of nothing else.

    Attributes:
        images: the collection.
    """

    def __init__(
        self,
        images: Images,
        transform: Callable[[Image.Image], Tensor],
        plan: EpochPlan | Rest,
        seed: int,
        workers: int,
        views: SizedViews | None = None,
    ) -> None:
        self.images, self._plan, self._requests = images, plan, _Requests()
        self._loader: DataLoader[Batch] = DataLoader(
            _Transformed(images, transform, seed, views),  # type: ignore[arg-type]
            batch_sampler=self._requests,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_collate,
            # torch draws a number for each pass: not from the generator that dropout draws from.
            generator=torch.Generator(),
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        """Batches per epoch of this rank; all ranks have as many."""
        return len(self._plan)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches(epoch=0)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from position `first` on; earlier ones are not read.

        They equal those of an unbroken pass bit for bit, whatever the number of workers. With workers, one
        pass at a time: a new one ends the one before.
        """
        self._requests.epoch, self._requests.steps = epoch, self._plan.steps(epoch, first)
        return iter(self._loader)


def make_loader(
    images: Images,
    transform: Callable[[Image.Image], Tensor],
    batch_size: int,
    *,
    workers: int = 0,
    shuffle: bool = False,
    seed: int = 0,
    rank: int = 0,
    ranks: int = 1,
    left: NDArray[np.int64] | None = None,
    views: SizedViews | None = None,
) -> Loader:
    """Loader over `images`.

    In order, each image is seen exactly once over all ranks. Shuffled, the order is given by `seed` and
    epoch, and the last step is left out if it is not full.

    Args:
        batch_size: images per step and rank.
        workers: processes that decode; 0 decodes in this one.
        seed: of order and augmentation, 0 or more.
        rank: which process this is; of each step's images every process takes a piece, in order.
        ranks: how many processes there are.
        left: the positions that an interrupted pass in order has not seen, ascending; each step takes those
            of its images.
        views: cut an image before it is transformed.
    """
    plan: EpochPlan | Rest = EpochPlan(images, batch_size, shuffle=shuffle, seed=seed, rank=rank, ranks=ranks)
    if left is not None:
        plan = Rest(left, batch_size)
    return Loader(images, transform, plan, seed, workers, views)
