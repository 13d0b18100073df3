"""Embeddings made elsewhere, in a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..errors import GalleryError
from ..storage.records import Row
from .parts import Part, parsed_metadata, part_rows

_OURS = ("id", "vector", "path", "label", "metadata")
# What a column of metadata can hold.
_SIMPLE = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string)


class ParquetVectors:
    """Columns `id` and `vector` (lists of floats), and if there `path`, `label` and `metadata` (JSON).

    Further columns of numbers, texts or truth values are metadata, too. Read a row group at a time.

    Raises:
        GalleryError: not Parquet, a column is missing or of another type, or has empty cells.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            # With a buffer, pages are read as they are needed and not whole columns.
            self._parquet = pq.ParquetFile(file, buffer_size=1 << 20)
        except (OSError, pa.ArrowException) as error:
            raise GalleryError(f"cannot read {file}: {reason(error)}") from error
        schema = self._parquet.schema_arrow
        for name in ("id", "vector"):
            if name not in schema.names:
                raise GalleryError(f"{file} has no column {name!r} (it has {', '.join(schema.names)})")
        kind = schema.field("vector").type
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if not lists or not pa.types.is_floating(kind.value_type):
            raise GalleryError(f"{file}: column 'vector' is {kind}, not lists of floats")
        others = [name for name in schema.names if name not in _OURS]
        self._extra = [name for name in others if any(fits(schema.field(name).type) for fits in _SIMPLE)]
        self.left_out = [name for name in others if name not in self._extra]
        self._columns = [name for name in _OURS if name in schema.names] + self._extra
        self._groups = [
            self._parquet.metadata.row_group(n).num_rows for n in range(self._parquet.num_row_groups)
        ]
        self.dim = self._first_dim()

    def __len__(self) -> int:
        return int(self._parquet.metadata.num_rows)

    def _first_dim(self) -> int:
        for batch in self._batches([*range(len(self._groups))], ["vector"], 1):
            if not batch["vector"].null_count:
                return len(batch["vector"][0])
        raise GalleryError(f"{self.file} has no vectors")

    def ids(self) -> Iterator[list[str]]:
        """The ids, in parts."""
        start = 0
        for batch in self._batches([*range(len(self._groups))], ["id"], part_rows(1)):
            yield self._ids(batch, start)
            start += len(batch)

    def parts(self, rows: range) -> Iterator[Part]:
        """Images and vectors of these rows."""
        starts = np.cumsum([0, *self._groups])
        groups = [n for n in range(len(self._groups)) if starts[n] < rows.stop and starts[n + 1] > rows.start]
        place = int(starts[groups[0]]) if groups else 0
        for batch in self._batches(groups, self._columns, part_rows(self.dim)):
            first, last = max(rows.start - place, 0), min(rows.stop - place, len(batch))
            if first < last:
                part = batch.slice(first, last - first)
                yield self._rows(part, place + first), self._vectors(part, place + first)
            place += len(batch)

    def _batches(self, groups: list[int], columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._parquet.iter_batches(size, groups, columns)
        except (OSError, pa.ArrowException) as error:
            raise GalleryError(f"{self.file} is damaged: {reason(error)}") from error

    def _ids(self, batch: pa.RecordBatch, start: int) -> list[str]:
        if batch["id"].null_count:
            missing = int(np.flatnonzero(batch["id"].is_null().to_numpy(zero_copy_only=False))[0])
            raise GalleryError(f"{self.file}: column 'id' has no value in row {start + missing}")
        return pc.cast(batch["id"], pa.string()).to_pylist()

    def _rows(self, batch: pa.RecordBatch, start: int) -> list[Row]:
        ids, none = self._ids(batch, start), [None] * len(batch)
        texts = [
            pc.cast(batch[name], pa.string()).to_pylist() if name in self._columns else none
            for name in ("path", "label", "metadata")
        ]
        extra: list[list[Any]] = [batch[name].to_pylist() for name in self._extra]
        rows = []
        for place, (image_id, path, label, text) in enumerate(zip(ids, *texts, strict=True)):
            found = parsed_metadata(self.file, image_id, text)
            values = ((name, column[place]) for name, column in zip(self._extra, extra, strict=True))
            # NaN is no JSON.
            found |= {name: value for name, value in values if value is not None and value == value}
            rows.append(Row(image_id, path or "", label, found))
        return rows

    def _vectors(self, batch: pa.RecordBatch, start: int) -> NDArray[np.float32]:
        column = batch["vector"]
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        if column.null_count or (lengths != self.dim).any():
            bad = int(np.flatnonzero(~(lengths == self.dim))[0])
            found = "none" if column[bad].as_py() is None else f"{len(column[bad])} dims"
            raise GalleryError(f"{self.file}: the vector of row {start + bad} has {found}, not {self.dim}")
        flat = column.flatten()
        if flat.null_count:
            raise GalleryError(f"{self.file}: a vector in rows {start} to {start + len(batch) - 1} has a gap")
        return flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(batch), self.dim)


def reason(error: Exception) -> str:
    """The first line of what went wrong."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
