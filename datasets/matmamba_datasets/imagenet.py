"""ImageNet (ILSVRC 2012) as it is unpacked: `train/<wnid>/*.JPEG` and `val/` in any of its common forms."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from .errors import DataError
from .folder import HELD_OUT_NAMES, TRAIN_NAMES, Folder, beside, labelled, named_part
from .kinds import why_no_folder
from .reading import Reading
from .sample import Images, Subset
from .splits import Splits, given_splits

_KAGGLE_FOLDER, _DEVKIT_FOLDER = Path("ILSVRC/Data/CLS-LOC"), Path("ILSVRC2012_devkit_t12/data")
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
# Which wnid each number of the ground truth means, if not in the order of their names.
_SYNSETS = ("synsets.txt", "map_clsloc.txt", "meta.mat")
_NAMES = "LOC_synset_mapping.txt"
# Wnid of an image by the stem of its file name.
Listed = dict[str, str]


def open_imagenet(root: Path | str, reading: Reading | None = None) -> Splits:
    """Training and validation images; labels are those of the sorted wnids, as everywhere.

    `val/` has a folder for each wnid, or its images lie side by side and their labels in `val/` or `root` in
    one of these: `LOC_val_solution.csv` (Kaggle), `val.txt` ("file label" or "file wnid" in each line), or
    `ILSVRC2012_validation_ground_truth.txt` with `synsets.txt` or `map_clsloc.txt` (a wnid first in each
    line) or the development kit's `meta.mat` (read by scipy). Classes are called "n02012849 crane", by
    `LOC_synset_mapping.txt` or by timm, for common names alone are not unique.

    Raises:
        DataError: something of this is missing, or does not fit together; the message names it.
    """
    root = Path(root)
    base = root / _KAGGLE_FOLDER if (root / _KAGGLE_FOLDER).is_dir() else root
    train_root, val_root = named_part(base, TRAIN_NAMES), named_part(base, HELD_OUT_NAMES)
    if train_root is None or val_root is None:
        raise DataError(f"{root} is not laid out like ImageNet: it needs the folders train and val")
    train = beside(labelled(Folder(train_root, reading=reading)), base, [train_root, val_root])
    if any(entry.is_dir() and not why_no_folder(entry.name) for entry in val_root.iterdir()):
        val = labelled(Folder(val_root, train.classes, reading))
    else:
        places = [val_root, base, root, root / _DEVKIT_FOLDER]
        val = _flat(val_root, train.classes, _listed(places, train.classes), reading)
    names = _class_names(root, train.classes)
    train.classes = val.classes = names
    return given_splits(train, val, root, complete=True)


def _flat(root: Path, wnids: tuple[str, ...], listed: Listed, reading: Reading | None) -> Images:
    """Images side by side, with the labels that a list gives them."""
    folder = Folder(root, wnids, reading)
    inside = [index for index, name in enumerate(folder.ids) if name.lower().endswith((".jpeg", ".jpg"))]
    images = Subset(folder, inside)
    others = set(range(len(folder))) - set(inside)
    images.left_out = {**folder.left_out} | {
        folder.paths[index]: "not a JPEG of ImageNet" for index in others
    }
    index_of = {wnid: index for index, wnid in enumerate(wnids)}
    labels = []
    for name in images.ids:
        wnid = listed.get(Path(name).stem)
        if wnid not in index_of:
            reason = "is not in the list of labels" if wnid is None else f"is of {wnid}, which is not trained"
            raise DataError(f"{root / name} {reason}")
        labels.append(index_of[wnid])
    images.labels = np.array(labels, dtype=np.int64)
    return images


def _listed(places: Sequence[Path], wnids: tuple[str, ...]) -> Listed:
    """The labels of validation images from the first list that is there."""
    readers: dict[str, Callable[[Path], Listed]] = {
        "LOC_val_solution.csv": _read_kaggle,
        "val.txt": lambda file: _read_pairs(file, wnids),
        _TRUTH: lambda file: _read_truth(file, _synsets(places)),
    }
    for name, read in readers.items():
        if file := _find(places, name):
            return read(file)
    raise DataError(f"{places[0]} has no folders, and no labels: it needs one of {', '.join(readers)}")


def _find(places: Sequence[Path], name: str) -> Path | None:
    return next((place / name for place in places if (place / name).is_file()), None)


def _text(file: Path) -> str:
    """The content of a list; bytes that are no text stand for no name."""
    return file.read_text(encoding="utf-8-sig", errors="replace")


def _read_kaggle(file: Path) -> Listed:
    with file.open(newline="", encoding="utf-8-sig", errors="replace") as opened:
        rows = list(csv.reader(opened))[1:]
    return {row[0]: row[1].split()[0] for row in rows if len(row) > 1 and row[1].strip()}


def _read_pairs(file: Path, wnids: tuple[str, ...]) -> Listed:
    found = {}
    for line in filter(None, map(str.split, _text(file).splitlines())):
        label = line[-1]
        if label.isdecimal():
            if int(label) >= len(wnids):
                raise DataError(f"{file}: {' '.join(line)}: the label is not in 0..{len(wnids) - 1}")
            label = wnids[int(label)]
        found[Path(line[0]).stem] = label
    return found


def _read_truth(file: Path, synsets: Sequence[str]) -> Listed:
    """Line n is the class of image n, counted from 1 in the order of the synsets."""
    words = _text(file).split()
    if odd := next((word for word in words if not word.isdecimal()), ""):
        raise DataError(f"{file}: {odd!r} is not the number of a class")
    numbers = list(map(int, words))
    if numbers and not 1 <= min(numbers) <= max(numbers) <= len(synsets):
        raise DataError(f"{file}: a class is not in 1..{len(synsets)}, the synsets that are listed")
    return {
        f"ILSVRC2012_val_{image:08d}": synsets[number - 1] for image, number in enumerate(numbers, start=1)
    }


def _synsets(places: Sequence[Path]) -> list[str]:
    """Wnids in the order of the ground truth's numbers."""
    file = next(filter(None, (_find(places, name) for name in _SYNSETS)), None)
    if file is None:
        needed = ", ".join(_SYNSETS)
        raise DataError(f"{_TRUTH} in {places[0]} or above needs the order of its classes: one of {needed}")
    if file.suffix != ".mat":
        return [line.split()[0] for line in _text(file).splitlines() if line.strip()]
    from scipy.io import loadmat  # type: ignore[import-untyped,unused-ignore]

    synsets = loadmat(file, squeeze_me=True)["synsets"]
    # Those without children are the classes.
    leaves = sorted((int(row[0]), str(row[1])) for row in synsets if int(row["num_children"]) == 0)
    return [wnid for _, wnid in leaves]


def _class_names(root: Path, wnids: tuple[str, ...]) -> tuple[str, ...]:
    """Each wnid with its first common name, if there is one."""
    known: dict[str, str] = {}
    if file := _find([root], _NAMES):
        lines = (line.split(maxsplit=1) for line in _text(file).splitlines())
        known = {line[0]: line[1] for line in lines if len(line) == 2}
    elif any(re.fullmatch(r"n\d{8}", wnid) for wnid in wnids):
        from timm.data import ImageNetInfo

        # One synset of the 1k is not among the 22k.
        for subset in ("imagenet-22k", "imagenet-1k"):
            known |= cast("dict[str, str]", ImageNetInfo(subset).label_descriptions(as_dict=True))
    return tuple(f"{wnid} {known[wnid].split(',')[0].strip()}" if wnid in known else wnid for wnid in wnids)
