"""Galleries as Parquet files and back, to the bit.

A row is an image: id, path, label, metadata (JSON), vector (float16, fixed length), and a vector for each
further width. What made the vectors stands in the schema's metadata under `matmamba_gallery`, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..errors import GalleryError
from ..gallery.gallery import Gallery
from ..storage.records import Row
from ..storage.spec import EmbeddingSpec
from .parquet_vectors import reason
from .parts import parsed_metadata, text_columns

Ints = NDArray[np.int64]
Existing = Literal["refuse", "skip", "replace"]
ABOUT = b"matmamba_gallery"
FORMAT = 1
# Rows in a row group: as many are in memory at once.
GROUP_ROWS = 4096
_TEXTS = {"id": pa.string(), "path": pa.string(), "label": pa.string(), "metadata": pa.string()}


def export_parquet(
    gallery: Gallery,
    file: Path,
    keys: Ints | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> int:
    """Write images of a gallery to a Parquet file; returns how many.

    Args:
        keys: which ones; by default all.
        progress: told how many rows were written, as they are.

    Raises:
        GalleryError: the file is there already, or cannot be written. It is complete or not there.
    """
    keys = gallery.live_keys() if keys is None else keys
    widths = gallery.generation.widths
    with complete(file) as partial, pq.ParquetWriter(partial, _schema(gallery), compression="zstd") as writer:
        for start in range(0, len(keys), GROUP_ROWS):
            part = keys[start : start + GROUP_ROWS]
            columns: dict[str, Any] = {**text_columns(gallery.rows(part))}
            columns["vector"] = _packed(gallery.segments.read(part))
            columns |= {_column(width): _packed(gallery.segments_of(width).read(part)) for width in widths}
            writer.write_table(pa.table(columns, writer.schema), row_group_size=GROUP_ROWS)
            progress(len(part))
    return len(keys)


def _schema(gallery: Gallery) -> pa.Schema:
    generation = gallery.generation
    vector = pa.list_(pa.float16(), gallery.spec.dim)
    about = {
        "format": FORMAT,
        "spec": asdict(generation.spec),
        "checkpoint_path": generation.checkpoint_path,
        "widths": list(generation.widths),
    }
    fields = _TEXTS | {"vector": vector} | {_column(width): vector for width in generation.widths}
    return pa.schema(fields, {ABOUT: json.dumps(about).encode()})


def _column(width: str) -> str:
    return f"vector_{width}"


def _packed(xb: NDArray[np.float16]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(xb).ravel()), xb.shape[1])


@contextmanager
def complete(file: Path) -> Iterator[Path]:
    """A place to write to; it becomes `file` when the block ends well, and disappears otherwise.

    Raises:
        GalleryError: the file is there already, or its folder cannot be written to.
    """
    if file.exists():
        raise GalleryError(f"{file} is there already: remove it, or choose another name")
    partial = file.with_name(f".{file.name}.partial")
    try:
        yield partial
        partial.rename(file)
    except OSError as error:
        raise GalleryError(f"cannot write {file}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


class Exported:
    """A Parquet file that `export_parquet` wrote.

    Attributes:
        spec: what made its vectors.
        checkpoint_path: where the checkpoint was.
        widths: further widths.

    Raises:
        GalleryError: no such file, no Parquet, or not one of ours.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self._parquet = pq.ParquetFile(file)
        except (OSError, pa.ArrowException) as error:
            raise GalleryError(f"cannot read {file}: {reason(error)}") from error
        schema = self._parquet.schema_arrow
        try:
            about = json.loads((schema.metadata or {})[ABOUT])
            if about["format"] > FORMAT:
                raise GalleryError(f"{file} has format {about['format']}, this version reads up to {FORMAT}")
            self.spec = EmbeddingSpec(**about["spec"])
            self.checkpoint_path, self.widths = str(about["checkpoint_path"]), tuple(about["widths"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, GalleryError):
                raise
            raise GalleryError(
                f"{file} was not exported from a gallery: it does not say what made it"
            ) from error
        self._require_columns(schema)

    def __len__(self) -> int:
        return int(self._parquet.metadata.num_rows)

    def _require_columns(self, schema: pa.Schema) -> None:
        vector = pa.list_(pa.float16(), self.spec.dim)
        wanted = _TEXTS | {"vector": vector} | {_column(width): vector for width in self.widths}
        for name, kind in wanted.items():
            if name not in schema.names:
                raise GalleryError(f"{self.file} has no column {name!r}")
            if schema.field(name).type != kind:
                raise GalleryError(f"{self.file}: column {name!r} is {schema.field(name).type}, not {kind}")

    def ids(self) -> Iterator[list[str]]:
        """Ids, in parts."""
        for batch in self._batches(["id"]):
            if batch["id"].null_count:
                raise GalleryError(f"{self.file} has an image without id or path")
            yield batch["id"].to_pylist()

    def parts(self) -> Iterator[tuple[list[Row], NDArray[np.float16], dict[str, NDArray[np.float16]]]]:
        """Rows, their vectors, and those of the further widths, in parts of bounded size."""
        for batch in self._batches(None):
            vectors = {width: self._vectors(batch, _column(width)) for width in self.widths}
            yield self._rows(batch), self._vectors(batch, "vector"), vectors

    def _batches(self, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._parquet.iter_batches(GROUP_ROWS, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise GalleryError(f"{self.file} is damaged: {reason(error)}") from error

    def _vectors(self, batch: pa.RecordBatch, name: str) -> NDArray[np.float16]:
        column = batch[name]
        flat = column.flatten()
        if column.null_count or flat.null_count:
            raise GalleryError(f"{self.file}: column {name!r} has missing values")
        return flat.to_numpy(zero_copy_only=False).reshape(len(batch), self.spec.dim)

    def _rows(self, batch: pa.RecordBatch) -> list[Row]:
        texts = [batch[name].to_pylist() for name in _TEXTS]
        rows = []
        for image_id, path, label, text in zip(*texts, strict=True):
            if image_id is None or path is None:
                raise GalleryError(f"{self.file} has an image without id or path")
            rows.append(Row(image_id, path, label, parsed_metadata(self.file, image_id, text)))
        return rows


def import_parquet(
    file: Path,
    folder: Path,
    existing: Existing = "refuse",
    progress: Callable[[int], None] = lambda rows: None,
) -> int:
    """Add the images of an exported file to a gallery, made if it is not there; returns how many were added.

    Args:
        existing: what to do with ids that the gallery has: refuse the file before anything is written, skip
            them (which continues an import that was stopped), or replace the gallery's.

    Raises:
        GalleryError: the file is not an export, is damaged, or does not fit the gallery.
    """
    exported = Exported(file)
    with Gallery.open_or_create(folder, exported.spec, exported.checkpoint_path, exported.widths) as gallery:
        gallery.require_widths(exported.widths)
        if existing == "refuse":
            _require_new(exported, gallery)
        added = 0
        for rows, xb, small in exported.parts():
            new = _positions(gallery, rows, existing)
            kept = [rows[position] for position in new]
            vectors = {width: vectors[new] for width, vectors in small.items()}
            (gallery.upsert if existing == "replace" else gallery.add)(kept, xb[new], vectors)
            added += len(kept)
            progress(len(rows))
    return added


def _require_new(exported: Exported, gallery: Gallery) -> None:
    for ids in exported.ids():
        if known := gallery.keys_of(ids):
            raise GalleryError(
                f"{gallery.folder} has {len(known)} of these images already, {min(known)!r} for one:"
                " skip or replace them"
            )


def _positions(gallery: Gallery, rows: Sequence[Row], existing: Existing) -> Ints:
    known = gallery.keys_of([row.id for row in rows]) if existing == "skip" else {}
    return np.array([index for index, row in enumerate(rows) if row.id not in known], dtype=np.int64)
