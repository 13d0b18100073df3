"""One image with its label and id, collections of them, and their split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NO_LABEL = -1


class DataError(ValueError):
    """A data set that is missing, empty or unusable; the message names it."""


@dataclass(frozen=True)
class Sample:
    """One decoded image.

    Attributes:
        image: upright, RGB. label: index into the collection's classes, or `NO_LABEL`. id: stable across runs
            and machines.
    """

    image: Image.Image
    label: int
    id: str


class Images(Protocol):
    """A collection of images, read one at a time.

    Attributes:
        classes: class names. ids: one per image. labels: (n,) int64. paths: where each image can be found
            again.
    """

    classes: tuple[str, ...]
    ids: Sequence[str]
    labels: NDArray[np.int64]
    paths: Sequence[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Decode one image; raises `BrokenImageError` if it cannot be decoded."""
        ...


class Subset:
    """The images of a collection at the given indices."""

    def __init__(self, images: Images, indices: Sequence[int] | NDArray[np.int64]) -> None:
        self._images, self._indices = images, np.asarray(indices, dtype=np.int64)
        self.classes = images.classes
        self.ids: Sequence[str] = [images.ids[index] for index in self._indices]
        self.paths: Sequence[str] = [images.paths[index] for index in self._indices]
        self.labels = images.labels[self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._images[int(self._indices[index])]


@dataclass(frozen=True)
class Splits:
    """Images to learn from, which are also the gallery, and held-out images, which are also the queries."""

    train: Images
    held_out: Images


def split_by_id(images: Images, share: float) -> Splits:
    """A fixed split where none is given: in each class, the images whose ids hash lowest are held out.

    At least one image of a class is held out if it has two. It depends on ids alone, never on order or on
    chance.
    """
    hashes = [hashlib.sha256(image_id.encode()).digest() for image_id in images.ids]
    held_out: list[int] = []
    for label in np.unique(images.labels):
        members = sorted(np.flatnonzero(images.labels == label), key=lambda index: hashes[index])
        count = max(round(share * len(members)), 1) if len(members) > 1 else 0
        held_out += [int(index) for index in members[:count]]
    train = np.setdiff1d(np.arange(len(images)), held_out)
    return Splits(Subset(images, train), Subset(images, sorted(held_out)))
