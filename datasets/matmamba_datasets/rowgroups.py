"""One Parquet file: its row groups of images, and its labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .columns import Columns
from .errors import DataError


class _Mixed:
    """Images of a row group of which some are given by their paths."""

    def __init__(self, content: pa.ChunkedArray, paths: pa.ChunkedArray) -> None:
        self._content, self._paths = content, paths
        self.nbytes = content.nbytes + paths.nbytes

    def __len__(self) -> int:
        return len(self._content)

    def __getitem__(self, row: int) -> Any:
        return self._content[row] if self._content[row].is_valid else self._paths[row]

    def is_null(self) -> Any:
        """Which rows have neither."""
        return pc.and_(self._content.is_null(), self._paths.is_null())


def may_lack(size: pq.RowGroupMetaData, columns: Columns) -> bool:
    """Whether images of a row group may be null: by its statistics, True where it has none."""
    wanted = f"{columns.image}.bytes" if columns.is_struct else columns.image
    for place in range(size.num_columns):
        found = size.column(place)
        if found.path_in_schema == wanted:
            known = found.statistics
            return known is None or not known.has_null_count or known.null_count > 0
    return True


def opened(file: Path) -> pq.ParquetFile:
    """The file; `DataError` if it is damaged or none."""
    if file.exists() and not file.is_file():
        raise DataError(f"{file} is not a file")
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {file}: {error}") from error


def images_of(file: Path, group: int, columns: Columns) -> Any:
    """The encoded images of one row group; where bytes are missing, paths."""
    try:
        table = opened(file).read_row_group(group, columns=[columns.image])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {file}: {error}") from error
    found = table[columns.image]
    if not columns.is_struct:
        return _plain(found)
    content = _plain(pc.struct_field(found, "bytes"))
    if not content.null_count or found.type.get_field_index("path") < 0:
        return content
    return _Mixed(content, pc.struct_field(found, "path"))


def _plain(found: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values themselves where each is kept once, and rows hold their numbers."""
    return found.cast(found.type.value_type) if pa.types.is_dictionary(found.type) else found


def column(file: Path, columns: Columns) -> Iterator[Any]:
    """The labels of a file as they are in it, None where there are none."""
    known = opened(file)
    if not columns.label:
        yield from (None for _ in range(known.metadata.num_rows))
        return
    for batch in known.iter_batches(columns=[columns.label]):
        yield from batch.column(0).to_pylist()
