"""A folder of image files."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .decode import BrokenImageError
from .sample import NO_LABEL, DataError, Images, Splits, Subset, given_splits, split_by_id
from .texts import Packed, Prefixed

TRAIN_NAMES = ("train", "training")
HELD_OUT_NAMES = ("val", "valid", "validation", "test")
# Files that operating systems leave behind.
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}


class Folder(Images):
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
        # Numbers of the owners as they come, because a million strings would take a hundred megabytes.
        numbers, seen = array("q"), dict[str | None, int]()

        def noted() -> Iterator[str]:
            for path in relative_paths(self.root):
                if not _is_text(path):
                    raise DataError(f"{self.root} has a file whose name is not UTF-8: {path!a}; rename it")
                owner = path.split("/", 1)[0] if "/" in path else None
                numbers.append(seen.setdefault(owner, len(seen)))
                yield path

        self.ids: Sequence[str] = Packed.of(noted())
        if not numbers:
            raise DataError(f"no files in {self.root}")
        self.paths: Sequence[str] = Prefixed([f"{self.root.absolute()}{os.sep}"], self.ids)
        self.groups = (len(numbers),)
        names = {owner for owner in seen if owner is not None}
        self.classes = classes or tuple(sorted(names))
        if unknown := names - set(self.classes):
            raise DataError(f"{self.root} has unknown classes: {', '.join(sorted(unknown)[:5])}")
        index_of: dict[str | None, int] = {name: index for index, name in enumerate(self.classes)}
        self.labels = np.array([index_of.get(owner, NO_LABEL) for owner in seen], dtype=np.int64)[numbers]

    def __len__(self) -> int:
        return len(self.ids)

    def stored(self, index: int) -> bytes:
        path = self.paths[index]
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise BrokenImageError(path, error.strerror or str(error)) from error


def open_folder(root: Path | str, held_out: float) -> Splits:
    """Splits of an image folder with one folder per class: `train/` and `val/` if there, else split by id.

    Raises:
        DataError: fewer than two classes, or a class that is in one of the given splits only.
    """
    root = Path(root)
    train_root, held_out_root = named_part(root, TRAIN_NAMES), named_part(root, HELD_OUT_NAMES)
    if train_root is None or held_out_root is None:
        # Only one of the two folders: what it holds is split.
        only = train_root or held_out_root
        alone = only is not None and [path for path in root.iterdir() if path.is_dir()] == [only]
        return split_by_id(labelled(Folder(only if alone and only else root)), held_out)
    train = labelled(Folder(train_root))
    return given_splits(train, labelled(Folder(held_out_root, train.classes)), root)


def labelled(images: Folder) -> Images:
    """The images that have a class; `DataError` if there are fewer than two classes."""
    if len(images.classes) < 2:
        raise DataError(
            f"{images.root} needs a folder for each of two or more classes, with the images in them"
        )
    inside = np.flatnonzero(images.labels != NO_LABEL)
    return images if len(inside) == len(images) else Subset(images, inside)


def named_part(root: Path, names: tuple[str, ...]) -> Path | None:
    """The first folder of one of these names in `root`."""
    return next((root / name for name in names if (root / name).is_dir()), None)


def relative_paths(root: Path | str, inside: str = "") -> Iterator[str]:
    """The files below a folder in the order of their paths, without hidden ones and those of systems.

    Only one folder's names at a time are in memory. Folders that cannot be read count as empty.
    """
    try:
        with os.scandir(os.path.join(root, inside)) as found:  # noqa: PTH118  strings, for speed
            # With "/", so that folders stand among the files where what is in them belongs.
            entries = sorted(
                (f"{entry.name}/" if entry.is_dir() else entry.name, _kind(entry)) for entry in found
            )
    except OSError:
        return
    for name, kind in entries:
        if kind == "folder":
            yield from relative_paths(root, inside + name)
        elif kind == "file":
            yield inside + name


def _is_text(name: str) -> bool:
    """Whether a name was decoded, and not only carried along byte by byte."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(entry: os.DirEntry[str]) -> str:
    """ "folder", "file", or "" for what is left out: links to folders, hidden entries, files of systems."""
    if entry.name.startswith(".") or (entry.is_dir() and entry.is_symlink()):
        return ""
    if entry.is_dir():
        return "folder"
    return "" if entry.name.lower() in _SYSTEM_FILES else "file"
