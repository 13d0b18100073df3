"""One image with its label and id, collections of them, and their split."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .decode import Draft, read_image
from .errors import DataError
from .names import shown
from .reading import Limits
from .texts import Picked

NO_LABEL = -1
"""The label of an image that has none."""
# Numbers from here on are no classes, but identifiers, or damage.
MOST_CLASSES = 1_000_000
# Lines of what was left out.
_REASONS = 20
# Beside Parquet files and shards: class names in the order of their labels.
CLASSES = "classes.json"


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


def left_out_text(left_out: Mapping[str, str], most: int = 3) -> str:
    """What was left out, a line for each reason with its count and the first `most` names."""
    start, names = _common(left_out), defaultdict[str, list[str]](list)
    for name, reason in left_out.items():
        names[reason].append(name[len(start) :] or ".")
    lines = [
        f"  {len(found):,} {shown(reason)}: {', '.join(map(shown, sorted(found)[:most]))}"
        + (", ..." if len(found) > most else "")
        for reason, found in sorted(names.items(), key=lambda item: -len(item[1]))
    ]
    hidden = 0 if most >= len(left_out) else max(0, len(lines) - _REASONS)
    if hidden:
        lines[_REASONS:] = [f"  ... and {hidden} more reasons"]
    where = f" in {shown(start)}" if start else ""
    count = f"{len(left_out):,} entries{where} are" if len(left_out) > 1 else f"1 entry{where} is"
    return "\n".join([f"{count} not read:", *lines])


def _common(names: Collection[str]) -> str:
    """The folder of all paths, with a slash at its end; "" if there is none."""
    folders = {name.rstrip("/").rpartition("/")[0] for name in names}
    if not all(folder.startswith("/") for folder in folders):
        return ""
    return f"{os.path.commonpath(folders)}/"


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


def class_names(content: bytes | None, labels: NDArray[np.int64]) -> tuple[str, ...]:
    """Class names from what `classes.json` holds, or the numbers themselves where it names too few.

    Args:
        content: a list in JSON, or an object with one under "names" or "classes"; None if there is no file.

    Raises:
        DataError: it is not JSON.
    """
    try:
        names = json.loads(content or b"[]")
    except ValueError as error:
        raise DataError(f"{CLASSES} is not JSON: {error}") from error
    if isinstance(names, dict):
        inside = [names.get(key) for key in ("names", "classes") if key in names]
        names = next(filter(None, inside), []) if inside else names
    known = listed_names(names)
    if known is None:
        raise DataError(f'{CLASSES} holds no list of names: ["cats", "dogs"]')
    count = int(labels.max(initial=NO_LABEL)) + 1
    return known if len(known) >= count else tuple(map(str, range(count)))


def listed_names(names: object) -> tuple[str, ...] | None:
    """Class names of a list, or of an object: names by number, or numbers by name; None if it is neither."""
    if isinstance(names, dict):
        by_number = {str(number): name for name, number in names.items() if type(number) is int}
        by_number = by_number or names
        names = [by_number.get(str(number)) for number in range(len(names))]
        names = None if None in names else names
    return tuple(map(str, names)) if isinstance(names, list) else None


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names as they are, but for those that are there before: these get their number, as "crane (134)".

    Two classes of one name, of which ImageNet has several, would become one.
    """
    seen, found = set[str](), list[str]()
    for number, name in enumerate(names):
        found.append(f"{name} ({number})" if name in seen else name)
        seen.add(name)
    return tuple(found)


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
