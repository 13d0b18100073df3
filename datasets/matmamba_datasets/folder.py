"""A folder of image files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .errors import DataError
from .kinds import why_no_folder
from .left_out import left_out_text
from .listing import Listing, left_beside
from .reading import Reading
from .regular import read_regular
from .sample import NO_LABEL, Images
from .splits import Splits, given_splits, split_by_id, with_labels
from .texts import Prefixed

TRAIN_NAMES = ("train", "training")
HELD_OUT_NAMES = ("val", "valid", "validation", "test", "heldout", "held_out", "held-out")


class Folder(Images):
    """All images below `root`. The first folder below `root` is the class; files beside those have no label.

    Ids are paths relative to `root`, with "/" on every system.

    Args:
        root: the folder.
        classes: class names in the order of their labels; by default those found, sorted.
        reading: what is read of it.
        listing: what is below `root`, if that is known.

    Raises:
        DataError: no such folder, no image in it, or a class that is not among `classes`.
    """

    def __init__(
        self,
        root: Path | str,
        classes: tuple[str, ...] = (),
        reading: Reading | None = None,
        listing: Listing | None = None,
    ) -> None:
        self.root: Path | str = Path(root)
        self.limits = reading or Reading()
        if not self.root.is_dir():
            raise DataError(f"no such folder: {self.root}")
        listing = listing or Listing(self.root, reading)
        self._take(listing, classes)
        self.paths: Sequence[str] = Prefixed([listing.prefix], self.ids)

    def _take(self, listing: Listing, classes: tuple[str, ...]) -> None:
        """What is below the root: ids and labels."""
        self.ids: Sequence[str] = listing.images
        self.left_out: Mapping[str, str] = listing.left_out
        if not len(self.ids):
            raise DataError(f"no images in {self.root}{_what_else(listing)}")
        self.groups = (len(self.ids),)
        seen = listing.names
        names = {owner for owner in seen if owner is not None}
        self.classes = classes or tuple(sorted(names))
        if unknown := names - set(self.classes):
            raise DataError(f"{self.root} has unknown classes: {', '.join(sorted(unknown)[:5])}")
        index_of: dict[str | None, int] = {name: index for index, name in enumerate(self.classes)}
        labels = np.array([index_of.get(owner, NO_LABEL) for owner in seen], dtype=np.int64)
        self.labels = labels[np.asarray(listing.owners)]

    def __len__(self) -> int:
        return len(self.ids)

    def stored(self, index: int) -> bytes:
        return read_regular(self.paths[index], self.limits.max_bytes)


def _what_else(listing: Listing) -> str:
    """What is in a folder without images, and how it is read."""
    kinds = [(listing.shards, "shards"), (listing.tables, "parquet")]
    named = [
        f"; {len(files)} such as {files[0]}: the data set {name!r} reads them"
        for files, name in kinds
        if files
    ]
    return "".join(named) or ("\n" + left_out_text(listing.left_out) if listing.left_out else "")


def open_folder(root: Path | str, held_out: float, reading: Reading | None = None) -> Splits:
    """Splits of an image folder with one folder per class: `train/` and `val/` if there, else split by id.

    Raises:
        DataError: fewer than two classes, or a class that is in the given held-out split only.
    """
    root = Path(root)
    train_root, held_out_root = named_part(root, TRAIN_NAMES), named_part(root, HELD_OUT_NAMES)
    if train_root is None or held_out_root is None:
        # Only one of the two folders: what it holds is split.
        only = train_root or held_out_root
        if only is not None and _folders(root) == [only]:
            return split_by_id(beside(labelled(Folder(only, reading=reading)), root, [only]), held_out)
        return split_by_id(labelled(Folder(root, reading=reading)), held_out)
    train = beside(labelled(Folder(train_root, reading=reading)), root, [train_root, held_out_root])
    return given_splits(train, labelled(Folder(held_out_root, train.classes, reading)), root)


def split_folders(root: Path | str) -> tuple[Path, ...]:
    """The folders of whose images splits are made: `train/` and `val/` if both are there, else all of it."""
    root = Path(root)
    parts = named_part(root, TRAIN_NAMES), named_part(root, HELD_OUT_NAMES)
    return tuple(part for part in parts if part is not None) if all(parts) else (root,)


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir() and not why_no_folder(path.name)]


def beside(images: Images, root: Path, taken: Sequence[Path]) -> Images:
    """The same images, and what lies in `root` beside the folders that are taken, as left out."""
    images.left_out = {**images.left_out, **left_beside(root, taken)}
    return images


def labelled(images: Folder) -> Images:
    """The images that have a class; `DataError` if there are fewer than two classes."""
    if len(images.classes) < 2:
        raise DataError(
            f"{images.root} needs a folder for each of two or more classes, with the images in them"
        )
    return with_labels(images, images.root, "in no folder of a class")


def named_part(root: Path, names: tuple[str, ...]) -> Path | None:
    """The first folder of one of these names in `root`."""
    return next((root / name for name in names if (root / name).is_dir()), None)
