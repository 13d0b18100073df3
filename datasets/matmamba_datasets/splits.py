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


def given_splits(train: Images, held_out: Images, source: object) -> Splits:
    """The splits that a data set came with.

    Raises:
        DataError: images without a label, or a class that has images in one of the splits only.
    """
    train, held_out = (with_labels(images, source) for images in (train, held_out))
    trained, asked = (set(np.unique(images.labels).tolist()) for images in (train, held_out))
    for missing, lacking in ((trained - asked, "held-out"), (asked - trained, "training")):
        if missing:
            names = [dict(enumerate(train.classes)).get(label, str(label)) for label in sorted(missing)]
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise DataError(f"{source}: no {lacking} images of the class {', '.join(names[:5])}{more}")
    return Splits(train, held_out)


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
