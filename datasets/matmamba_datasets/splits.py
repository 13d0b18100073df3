"""Images to learn from and held-out ones: as a data set came with them, or by id."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from .errors import DataError
from .sample import NO_LABEL, Images, Subset


@dataclass(frozen=True)
class Splits:
    """Images to learn from, which are also the gallery, and held-out images, which are also the queries.

    Attributes:
        ours: whether the split was made by id; then a class of one image is not held out.
    """

    train: Images
    held_out: Images
    ours: bool = False

    @property
    def left_out(self) -> dict[str, str]:
        """What is there beside the images of both: reason by path."""
        return {**self.train.left_out, **self.held_out.left_out}

    @property
    def unmeasured(self) -> str:
        """Says which classes have training images alone; "" if none."""
        if not len(self.held_out):
            return ""
        missing = _labels_in(self.train) - _labels_in(self.held_out)
        return f"no held-out images of the class {_named(missing, self.train)}" if missing else ""


def given_splits(train: Images, held_out: Images, source: object, *, complete: bool = False) -> Splits:
    """The splits that a data set came with.

    Args:
        train: images to learn from.
        held_out: images to measure on; their classes are those of `train`.
        source: named in messages.
        complete: whether each class has to have held-out images.

    Raises:
        DataError: images without a label, or a class without training images.
    """
    train, held_out = (with_labels(images, source) for images in (train, held_out))
    splits = Splits(train, held_out)
    if complete and splits.unmeasured:
        raise DataError(f"{source}: {splits.unmeasured}")
    if missing := _labels_in(held_out) - _labels_in(train):
        raise DataError(f"{source}: no training images of the class {_named(missing, train)}")
    return splits


def _labels_in(images: Images) -> set[int]:
    return set(np.unique(images.labels[images.labels != NO_LABEL]).tolist())


def _named(labels: set[int], images: Images) -> str:
    names = [dict(enumerate(images.classes)).get(label, str(label)) for label in sorted(labels)]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def with_labels(images: Images, source: object, reason: str = "without a label") -> Images:
    """The images that have a label, the others among what is left out; `DataError` if none has."""
    inside = images.labels != NO_LABEL
    if inside.all():
        return images
    if not inside.any():
        raise DataError(
            f"{source}: images without a `label` cannot be trained on, {len(images)} such as {images.ids[0]}"
        )
    found = Subset(images, np.flatnonzero(inside))
    left_out = dict(images.left_out)
    for index in np.flatnonzero(~inside):
        path = images.paths[int(index)]
        # What is odd about its label says more.
        left_out[path] = left_out.pop(f"{path}: label", reason)
    found.left_out = left_out
    return found


def split_by_id(images: Images, share: float) -> Splits:
    """A fixed split where none is given: in each class, the images whose ids hash lowest are held out.

    At least one image of a class is held out if it has two. It depends on ids alone, never on order or on
    chance.
    """
    hashes = [hashlib.sha256(image_id.encode(errors="surrogateescape")).digest() for image_id in images.ids]
    held_out: list[int] = []
    for label in np.unique(images.labels):
        members = sorted(np.flatnonzero(images.labels == label), key=lambda index: hashes[index])
        count = max(round(share * len(members)), 1) if len(members) > 1 else 0
        held_out += [int(index) for index in members[:count]]
    train = np.setdiff1d(np.arange(len(images)), held_out)
    return Splits(Subset(images, train), Subset(images, sorted(held_out)), ours=True)
