"""One image with its label and id, and collections of them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import DataError
from .image_file import Draft, read_image
from .reading import Limits
from .texts import Picked

NO_LABEL = -1
"""The label of an image that has none."""


class NoImagesError(DataError):
    """A file that can be read, and has no image in it.

    Attributes:
        left_out: what it has: reason by path.
    """

    def __init__(self, message: str, left_out: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(message)
        self.left_out = left_out


@dataclass(frozen=True)
class Sample:
    """One decoded image.

    Attributes:
        image: upright, RGB.
        label: index into the collection's classes, or `NO_LABEL`.
        id: stable across runs and machines.
    """

    image: Image.Image
    label: int
    id: str


class Images(Protocol):
    """A collection of images, read one at a time.

    Attributes:
        classes: class names.
        ids: one per image.
        labels: (n,) int64.
        paths: where each image can be found again.
        groups: how many images lie together in each place that is best read from one end to the other (a
            shard); a single group where every image is read as easily as any other.
        left_out: what is there beside the images: reason by path.
        limits: that images are read within.
    """

    classes: tuple[str, ...]
    ids: Sequence[str]
    labels: NDArray[np.int64]
    paths: Sequence[str]
    groups: Sequence[int]
    left_out: Mapping[str, str] = MappingProxyType({})
    limits: Limits = Limits()

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Decode one image; raises `BrokenImageError` if it cannot be decoded."""
        return read_sample(self, index)

    def stored(self, index: int) -> bytes | Image.Image:
        """The image's file, or its pixels where there is none; `BrokenImageError` if it cannot be read."""
        ...


def read_sample(images: Images, index: int, draft: Draft | None = None) -> Sample:
    """Decode one image of a collection, smaller than it is stored where `draft` allows that.

    Raises:
        BrokenImageError: it cannot be decoded.
    """
    stored = images.stored(index)
    if isinstance(stored, bytes):
        stored = read_image(io.BytesIO(stored), images.paths[index], draft, images.limits)
    return Sample(stored, int(images.labels[index]), images.ids[index])


class Subset(Images):
    """The images of a collection at the given indices.

    Attributes:
        indices: (n,) positions in the collection.
        whole: how many images that has.
    """

    def __init__(self, images: Images, indices: Sequence[int] | NDArray[np.int64]) -> None:
        self._images, self.indices = images, np.asarray(indices, dtype=np.int64)
        self.whole = len(images)
        self.classes = images.classes
        self.ids: Sequence[str] = Picked(images.ids, self.indices)
        self.paths: Sequence[str] = Picked(images.paths, self.indices)
        self.labels = images.labels[self.indices]
        self.groups = _groups_of(self.indices, images.groups)
        self.left_out, self.limits = images.left_out, images.limits

    def __len__(self) -> int:
        return len(self.indices)

    def stored(self, index: int) -> bytes | Image.Image:
        return self._images.stored(int(self.indices[index]))


def _groups_of(indices: NDArray[np.int64], groups: Sequence[int]) -> Sequence[int]:
    """How many of the indices lie in each group; one group of all where they are not in order."""
    if np.any(np.diff(indices) < 0):
        return (len(indices),)
    ends = np.searchsorted(indices, np.cumsum(groups))
    return tuple(int(count) for count in np.diff(ends, prepend=0) if count)
