"""A folder of image files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .decode import read_image
from .sample import NO_LABEL, DataError, Images, Sample, Splits, Subset, split_by_id

TRAIN_NAMES = ("train", "training")
HELD_OUT_NAMES = ("val", "valid", "validation", "test")
# Files that operating systems leave behind.
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}


class Folder:
    """All files below `root`. The first folder below `root` is the class; files beside those have no label.

    Ids are paths relative to `root`, with "/" on every system. Hidden files and folders are left out.

    Args:
        root: the folder. classes: class names in the order of their labels; by default those found, sorted.

    Raises:
        DataError: no such folder, no file in it, or a class that is not among `classes`.
    """

    def __init__(self, root: Path | str, classes: tuple[str, ...] = ()) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"no such folder: {self.root}")
        self.ids: Sequence[str] = sorted(_relative_paths(self.root))
        if not self.ids:
            raise DataError(f"no files in {self.root}")
        self.paths: Sequence[str] = [str((self.root / image_id).absolute()) for image_id in self.ids]
        owners = [image_id.split("/")[0] if "/" in image_id else None for image_id in self.ids]
        found = {owner for owner in owners if owner is not None}
        self.classes = classes or tuple(sorted(found))
        if unknown := found - set(self.classes):
            raise DataError(f"{self.root} has unknown classes: {', '.join(sorted(unknown)[:5])}")
        index_of = {name: index for index, name in enumerate(self.classes)}
        labels = [NO_LABEL if owner is None else index_of[owner] for owner in owners]
        self.labels = np.array(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return Sample(read_image(self.paths[index]), int(self.labels[index]), self.ids[index])


def open_folder(root: Path | str, held_out: float) -> Splits:
    """Splits of an image folder with one folder per class: `train/` and `val/` if there, else split by id.

    Raises:
        DataError: fewer than two classes, or a held-out class that is not trained.
    """
    root = Path(root)
    train_root, held_out_root = _named_part(root, TRAIN_NAMES), _named_part(root, HELD_OUT_NAMES)
    if train_root is None or held_out_root is None:
        return split_by_id(_labelled(Folder(root)), held_out)
    train = _labelled(Folder(train_root))
    return Splits(train, _labelled(Folder(held_out_root, train.classes)))


def _labelled(images: Folder) -> Images:
    if len(images.classes) < 2:
        raise DataError(
            f"{images.root} needs a folder for each of two or more classes, with the images in them"
        )
    inside = np.flatnonzero(images.labels != NO_LABEL)
    return images if len(inside) == len(images) else Subset(images, inside)


def _named_part(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _relative_paths(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name.lower() not in _SYSTEM_FILES:
                yield (Path(folder) / name).relative_to(root).as_posix()
