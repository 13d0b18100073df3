"""Images in Parquet files: Hugging Face's schema, `image: struct<bytes, path>`, and its like."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .classes import CLASSES, class_names
from .columns import Columns, Labels, as_numbers, columns_of, labels_in
from .errors import BrokenImageError, DataError
from .folder import HELD_OUT_NAMES, TRAIN_NAMES
from .listing import Listing, absolute, beside_nothing
from .reading import TableReading
from .regular import read_regular, too_large
from .remote import read_small
from .rowgroups import column, images_of, may_lack, opened
from .sample import Images, NoImagesError
from .splits import Splits, given_splits, split_by_id, with_labels
from .texts import Packed, Prefixed

# Encoded images that a process keeps in memory at most, in bytes.
MEMORY = 2**30


class Parquet(Images):
    """The rows of some Parquet files of one folder, in the order of the files.

    Encoded images stay in memory if all of them are less than `memory` bytes. Else the row groups that were
    read last stay, and the images are shuffled in groups of these: to train on much more than fits, take
    shards (see `prepare`), which need no memory.

    Ids are "file#row", the file by its path below the folder; "file#row@column" where a column was asked for
    that would not have been chosen. Class names come from `classes.json` (a list, or an object with a list
    under "names" or "classes") in the folder, from the files' metadata, from labels that are names, or are
    the numbers themselves. Rows without an image are left out by name.

    Args:
        folder: what the files' names are relative to, by default that of the first.
        reading: columns and limits.
        strays: what lies beside the files: reason by path.

    Raises:
        DataError: a file that cannot be read, or no file has a column of images.
    """

    def __init__(
        self,
        files: list[Path],
        memory: int = MEMORY,
        folder: Path | None = None,
        reading: TableReading | None = None,
        strays: Mapping[str, str] | None = None,
    ) -> None:
        reading = reading or TableReading()
        self.limits, self._memory, self._kept = reading, memory, OrderedDict[int, Any]()
        self._folder, self._left = absolute(folder or files[0].parent), dict(strays or {})
        self.left_out: Mapping[str, str] = self._left
        self._columns = self._chosen(files, reading)
        files = list(self._columns)
        self._suffix = _suffix(files, reading.image_column)
        metadata = [opened(file).metadata for file in files]
        # Where each row group lies: its file, and its number there.
        self._places = [
            (file, number)
            for file, known in zip(files, metadata, strict=True)
            for number in range(known.num_row_groups)
        ]
        sizes = [known.row_group(number) for known in metadata for number in range(known.num_row_groups)]
        self._ends = np.cumsum([size.num_rows for size in sizes], dtype=np.int64)
        fits = sum(size.total_byte_size for size in sizes) <= memory
        self._take(files, metadata, self._lacking(sizes))
        inside = np.searchsorted(self._rows_of, self._ends)
        counts = np.diff(inside, prepend=0)
        self.groups: Sequence[int] = (len(self),) if fits else [int(count) for count in counts if count]
        # Read here, so that worker processes share it.
        for group in range(len(sizes) if fits else 0):
            self._rows(group)

    def __getstate__(self) -> dict[str, Any]:
        """Sent to another process, it leaves behind the encoded images that it keeps: they are read there."""
        return {**vars(self), "_kept": OrderedDict()}

    def _chosen(self, files: list[Path], reading: TableReading) -> dict[Path, Columns]:
        """The columns of each file; one without images beside others is named."""
        found, without = dict[Path, Columns](), dict[Path, NoImagesError]()
        for file in files:
            try:
                found[file] = columns_of(file, opened(file).schema_arrow, reading)
            except NoImagesError as error:
                without[file] = error
        if not found:
            raise next(iter(without.values()))
        self._left |= {str(absolute(file)): "a table without a column of images" for file in without}
        return found

    def _take(self, files: list[Path], metadata: list[pq.FileMetaData], lacking: NDArray[np.int64]) -> None:
        """Ids, paths and labels of the rows that have an image; the others are named."""
        counts = [known.num_rows for known in metadata]
        self._names = [_name(file, self._folder) for file in files]
        self._starts = np.cumsum([0, *counts], dtype=np.int64)
        for row in lacking.tolist():
            self._left[f"{self._folder}/{self._row_name(row)}"] = "a row without an image"
        labels = self._labels(files)
        self._rows_of = np.setdiff1d(np.arange(sum(counts)), lacking)
        if not len(self._rows_of):
            raise DataError(f"no images in {files[0]}{' and others' if len(files) > 1 else ''}")
        self.ids: Sequence[str] = Packed.of(map(self._row_name, self._rows_of))
        self.paths: Sequence[str] = Prefixed([f"{self._folder}/"], self.ids)
        self.labels = labels[self._rows_of]

    def _row_name(self, row: int) -> str:
        """The id of a row, numbered through all files."""
        file = int(np.searchsorted(self._starts, row, side="right")) - 1
        return f"{self._names[file]}#{row - int(self._starts[file])}{self._suffix}"

    def _labels(self, files: list[Path]) -> NDArray[np.int64]:
        """Labels of all rows; sets the names of the classes."""
        listed, noted = self._folder / CLASSES, dict[str, None]()
        labels = Labels()
        for file in files:
            columns = self._columns[file]
            noted |= dict.fromkeys(columns.names)
            if columns.note:
                self._left[f"{file}: labels"] = columns.note
            found, odd = labels_in(column(file, columns), columns.names)
            for place, why in odd.items():
                self._left[f"{self._folder}/{self._row_name(len(labels) + place)}: label"] = why
            labels += found
        numbers, classes = as_numbers(labels, list(noted))
        content = read_small(str(listed))
        self.classes = classes if classes and content is None else class_names(content, numbers)
        if classes and set(classes) <= set(self.classes):
            numbers, self.classes = as_numbers(labels, self.classes)
        elif classes:
            self.classes = classes
        return numbers

    def _lacking(self, sizes: list[pq.RowGroupMetaData]) -> NDArray[np.int64]:
        """Rows without an image, found by the counts of nulls where the files have these."""
        found = list[NDArray[np.int64]]()
        for group, size in enumerate(sizes):
            if may_lack(size, self._columns[self._places[group][0]]):
                none = np.asarray(self._rows(group).is_null())
                found.append(np.flatnonzero(none) + int(self._ends[group]) - size.num_rows)
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def stored(self, index: int) -> bytes:
        row = int(self._rows_of[index])
        group = int(np.searchsorted(self._ends, row, side="right"))
        try:
            rows = self._rows(group)
        # It was there when the collection was opened.
        except DataError as error:
            raise BrokenImageError(self.paths[index], str(error)) from error
        found = rows[row - int(self._ends[group]) + len(rows)].as_py()
        if isinstance(found, str):
            return read_regular(self._places[group][0].parent / found, self.limits.max_bytes)
        if len(found) > self.limits.max_bytes:
            raise BrokenImageError(self.paths[index], too_large(len(found), self.limits.max_bytes))
        return found

    def _rows(self, group: int) -> Any:
        """The encoded images of a row group, or paths. It is kept; what was used longest ago makes room."""
        if group in self._kept:
            self._kept.move_to_end(group)
            return self._kept[group]
        file, number = self._places[group]
        self._kept[group] = images_of(file, number, self._columns[file])
        while sum(rows.nbytes for rows in self._kept.values()) > self._memory and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return self._kept[group]


def open_parquet(root: Path | str, held_out: float, reading: TableReading | None = None) -> Splits:
    """Splits of Parquet files: by names of files or folders (`train*`; `val*`, `heldout*`), else by id.

    Raises:
        DataError: no Parquet file there, no labels, or a class that is in the given held-out split only.
    """
    root, (files, strays) = Path(root), parquet_files(Path(root))
    folder = root if root.is_dir() else root.parent
    train, val = (_of_split(files, folder, names) for names in (TRAIN_NAMES, HELD_OUT_NAMES))
    if train and val:
        others = {str(file): "neither of a train nor of a held-out split" for file in files}
        strays |= {name: why for name, why in others.items() if Path(name) not in (*train, *val)}
        both = Parquet(train, folder=folder, reading=reading, strays=strays)
        asked = Parquet(val, folder=folder, reading=reading)
        _require_same_classes(both, asked, root)
        return given_splits(both, asked, root)
    images = Parquet(files, folder=folder, reading=reading, strays=strays)
    return split_by_id(with_labels(images, root), held_out)


def _require_same_classes(train: Parquet, asked: Parquet, root: Path) -> None:
    """Number the held-out labels as the training ones; `DataError` if there is another class."""
    if train.classes == asked.classes:
        return
    number = {name: place for place, name in enumerate(train.classes)}
    used = {asked.classes[label] for label in np.unique(asked.labels[asked.labels >= 0])}
    if unknown := sorted(used - set(number)):
        raise DataError(f"{root}: no training images of the class {', '.join(unknown[:5])}")
    table = np.array([number.get(name, -1) for name in asked.classes] + [-1], dtype=np.int64)
    asked.labels, asked.classes = table[asked.labels], train.classes


def _of_split(files: list[Path], folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Files whose name, or folder's name, begins with one of these."""
    return [
        file
        for file in files
        if file.name.startswith(names) or (file.parent != folder and file.parent.name.startswith(names))
    ]


def all_parquet(root: Path, reading: TableReading | None = None, listing: Listing | None = None) -> Parquet:
    """The images of all Parquet files of a folder, or of one file."""
    files, strays = parquet_files(root, listing)
    return Parquet(files, folder=root if root.is_dir() else None, reading=reading, strays=strays)


def parquet_files(root: Path, listing: Listing | None = None) -> tuple[list[Path], dict[str, str]]:
    """The Parquet files below a folder, or the file itself, and why what else there is is not read.

    Raises:
        DataError: there is none.
    """
    if root.is_file():
        return [root], {}
    if not root.is_dir():
        raise DataError(f"no such folder: {root}")
    listing = listing or Listing(root)
    if not listing.tables:
        raise DataError(f"no *.parquet files in {root}{beside_nothing(listing)}")
    folder = absolute(root)
    known = {str(folder / name) for name in (*listing.tables, CLASSES)}
    strays = {path: reason for path, reason in listing.left_out.items() if path not in known}
    strays |= {str(folder / name): "an image beside Parquet files" for name in listing.images}
    return [root / name for name in listing.tables], strays


def _suffix(files: list[Path], wanted: str) -> str:
    """What tells the images of a column that was asked for from those that are found without asking."""
    usual = {columns_of(file, opened(file).schema_arrow, TableReading()).image for file in files if wanted}
    return f"@{wanted}" if usual - {wanted} else ""


def _name(file: Path, folder: Path) -> str:
    found = absolute(file)
    return found.relative_to(folder).as_posix() if found.is_relative_to(folder) else file.name
