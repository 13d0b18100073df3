"""Images in Parquet files, in the Hugging Face schema: `image: struct<bytes, path>`, `label: int64`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .folder import HELD_OUT_NAMES, TRAIN_NAMES
from .sample import (
    CLASSES,
    NO_LABEL,
    DataError,
    Images,
    Splits,
    class_names,
    given_splits,
    require_labels,
    split_by_id,
)
from .texts import Packed, Prefixed

# Encoded images that a process keeps in memory at most, in bytes.
MEMORY = 2**30


class Parquet(Images):
    """The rows of some Parquet files of one folder, in the order of the files.

    Encoded images stay in memory if all of them are less than `memory` bytes. Else the row groups that were
    read last stay, and the images are shuffled in groups of these: to train on much more than fits, `matmamba
        data
    prepare` makes shards, which need no memory.

    Ids are "file#row". Class names come from `classes.json` (a list, or an object with a list under "names"
    or "classes") beside the files, or are the numbers themselves.

    Raises:
        DataError: a file that cannot be read, or that has no `image` column of that schema.
    """

    def __init__(self, files: list[Path], memory: int = MEMORY) -> None:
        metadata = [_metadata(file) for file in files]
        # Where each row group lies: its file, and its number there.
        self._places = [
            (file, number)
            for file, known in zip(files, metadata, strict=True)
            for number in range(known.num_row_groups)
        ]
        sizes = [known.row_group(number) for known in metadata for number in range(known.num_row_groups)]
        self._ends = np.cumsum([size.num_rows for size in sizes], dtype=np.int64)
        self._memory, self._kept = memory, OrderedDict[int, pa.ChunkedArray]()
        rows = (
            f"{file.name}#{row}" for file, m in zip(files, metadata, strict=True) for row in range(m.num_rows)
        )
        self.ids: Sequence[str] = Packed.of(rows)
        self.paths: Sequence[str] = Prefixed([f"{files[0].parent.absolute()}/"], self.ids)
        self.labels = np.concatenate([_labels(file) for file in files])
        names = files[0].with_name(CLASSES)
        self.classes = class_names(names.read_bytes() if names.is_file() else None, self.labels)
        fits = sum(size.total_byte_size for size in sizes) <= memory
        self.groups: Sequence[int] = (len(self.ids),) if fits else [size.num_rows for size in sizes]
        # Read here, so that worker processes share it.
        for group in range(len(sizes) if fits else 0):
            self._rows(group)

    def __len__(self) -> int:
        return len(self.ids)

    def stored(self, index: int) -> bytes:
        group = int(np.searchsorted(self._ends, index, side="right"))
        rows = self._rows(group)
        return rows[index - int(self._ends[group]) + len(rows)].as_py() or b""

    def _rows(self, group: int) -> pa.ChunkedArray:
        """The encoded images of a row group, which is kept; the one that was used longest ago makes room."""
        if group in self._kept:
            self._kept.move_to_end(group)
            return self._kept[group]
        self._kept[group] = _images(*self._places[group])
        while sum(rows.nbytes for rows in self._kept.values()) > self._memory and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return self._kept[group]


def open_parquet(root: Path | str, held_out: float) -> Splits:
    """Splits of a folder of Parquet files: by file names (`train-*`, `test-*` or `validation-*`), else by id.

    Raises:
        DataError: no Parquet file there, no labels, or a class that is in one of the given splits only.
    """
    files = parquet_files(Path(root))
    train = [file for file in files if file.name.startswith(TRAIN_NAMES)]
    val = [file for file in files if file.name.startswith(HELD_OUT_NAMES)]
    if train and val:
        return given_splits(Parquet(train), Parquet(val), root)
    images = Parquet(files)
    require_labels(images, root)
    return split_by_id(images, held_out)


def parquet_files(root: Path) -> list[Path]:
    """The Parquet files in a folder, or the file itself; `DataError` if there is none."""
    files = [root] if root.is_file() else sorted(root.glob("*.parquet"))
    if not files:
        raise DataError(f"no *.parquet files in {root}" if root.is_dir() else f"no such folder: {root}")
    return files


def _metadata(file: Path) -> pq.FileMetaData:
    try:
        known = pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {file}: {error}") from error
    schema = known.schema_arrow
    kind = schema.field("image").type if "image" in schema.names else None
    if kind is None or not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise DataError(f"{file} has no column `image: struct<bytes, path>`")
    return known.metadata


def _images(file: Path, group: int) -> pa.ChunkedArray:
    """The encoded images of one row group."""
    try:
        table = pq.ParquetFile(file).read_row_group(group, columns=["image"])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {file}: {error}") from error
    return pc.struct_field(table["image"], "bytes")


def _labels(file: Path) -> np.ndarray:
    if "label" not in pq.read_schema(file).names:
        return np.full(pq.read_metadata(file).num_rows, NO_LABEL, dtype=np.int64)
    labels = pq.read_table(file, columns=["label"])["label"]
    return labels.fill_null(NO_LABEL).to_numpy().astype(np.int64)
