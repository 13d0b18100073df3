"""Images in Parquet files, in the Hugging Face schema: `image: struct<bytes, path>`, `label: int64`."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .decode import read_image
from .folder import HELD_OUT_NAMES, TRAIN_NAMES
from .sample import NO_LABEL, DataError, Sample, Splits, split_by_id


class Parquet:
    """The rows of some Parquet files, in the order of the files. The encoded images stay in memory.

    Ids are "file#row". Class names come from `classes.json` (a list, or an object with a list under "names"
    or "classes") beside the files, or are the numbers themselves.

    Raises:
        DataError: a file that cannot be read, or that has no `image` column of that schema.
    """

    def __init__(self, files: list[Path]) -> None:
        tables = [_read(file) for file in files]
        self._bytes = pa.chunked_array([chunk for table in tables for chunk in table["image"].chunks])
        self.ids: Sequence[str] = [
            f"{file.name}#{row}"
            for file, table in zip(files, tables, strict=True)
            for row in range(len(table))
        ]
        self.paths: Sequence[str] = [
            f"{file.absolute()}#{row}"
            for file, table in zip(files, tables, strict=True)
            for row in range(len(table))
        ]
        self.labels = np.concatenate([_labels(table) for table in tables])
        self.classes = _class_names(files[0].parent, int(self.labels.max(initial=NO_LABEL)) + 1)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        encoded = io.BytesIO(self._bytes[index].as_py() or b"")
        return Sample(read_image(encoded, self.ids[index]), int(self.labels[index]), self.ids[index])


def open_parquet(root: Path | str, held_out: float) -> Splits:
    """Splits of a folder of Parquet files: by file names (`train-*`, `test-*` or `validation-*`), else by id.

    Raises:
        DataError: no Parquet file there, or no labels.
    """
    files = parquet_files(Path(root))
    train = [file for file in files if file.name.startswith(TRAIN_NAMES)]
    val = [file for file in files if file.name.startswith(HELD_OUT_NAMES)]
    splits = Splits(Parquet(train), Parquet(val)) if train and val else split_by_id(Parquet(files), held_out)
    if any((part.labels == NO_LABEL).any() for part in (splits.train, splits.held_out)):
        raise DataError(f"{root}: images without a `label` cannot be trained on")
    return splits


def parquet_files(root: Path) -> list[Path]:
    """The Parquet files in a folder, or the file itself; `DataError` if there is none."""
    files = [root] if root.is_file() else sorted(root.glob("*.parquet"))
    if not files:
        raise DataError(f"no *.parquet files in {root}" if root.is_dir() else f"no such folder: {root}")
    return files


def _read(file: Path) -> pa.Table:
    """Encoded images, and labels if there are any."""
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {file}: {error}") from error
    try:
        encoded = pc.struct_field(table["image"], "bytes")
    except (KeyError, pa.ArrowException) as error:
        raise DataError(f"{file} has no column `image: struct<bytes, path>`") from error
    columns = {"image": encoded} | ({"label": table["label"]} if "label" in table.column_names else {})
    return pa.table(columns)


def _labels(table: pa.Table) -> np.ndarray:
    if "label" not in table.column_names:
        return np.full(len(table), NO_LABEL, dtype=np.int64)
    return table["label"].to_numpy().astype(np.int64)


def _class_names(folder: Path, count: int) -> tuple[str, ...]:
    file = folder / "classes.json"
    names = json.loads(file.read_text()) if file.is_file() else []
    if isinstance(names, dict):
        names = names.get("names") or names.get("classes") or []
    return tuple(map(str, names)) if len(names) >= count else tuple(map(str, range(count)))
