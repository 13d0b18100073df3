"""Embeddings made elsewhere, from a NumPy or a Parquet file, read in parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError
from ..gallery.gallery import UNIT_TOLERANCE
from ..storage.files import sha256_of
from ..storage.records import Row
from ..storage.spec import ELSEWHERE, EmbeddingSpec
from .parts import Part, part_rows


class VectorFile(Protocol):
    """A file of vectors.

    Attributes:
        file: which one.
        dim: coordinates of each.
        left_out: columns that are not used.
    """

    file: Path
    dim: int
    left_out: list[str]

    def __len__(self) -> int: ...

    def ids(self) -> Iterator[list[str]]:
        """The ids, in parts."""
        ...

    def parts(self, rows: range) -> Iterator[Part]:
        """Images and vectors (n, dim) of these rows, in parts of bounded size; not checked."""
        ...


def open_vectors(file: Path, ids: Path | None = None) -> VectorFile:
    """A file of vectors by its suffix.

    Args:
        ids: of a NumPy file's rows: a text file with one on each line; by default ids are row numbers.

    Raises:
        GalleryError: neither .npy nor .parquet, or not what it should hold.
        ModuleNotFoundError: pyarrow is missing, for Parquet.
    """
    if not file.is_file():
        raise GalleryError(f"no such file: {file}")
    if file.suffix == ".npy":
        return NumpyVectors(file, ids)
    if file.suffix != ".parquet":
        raise GalleryError(f"{file} is neither .npy nor .parquet")
    if ids is not None:
        raise GalleryError(f"{ids}: a Parquet file has its ids in a column `id`")
    from .parquet_vectors import ParquetVectors

    return ParquetVectors(file)


def elsewhere(file: VectorFile, model_name: str = "") -> EmbeddingSpec:
    """The spec of vectors made elsewhere: by the model's name, or by the file's SHA-256 if it has none."""
    return EmbeddingSpec(ELSEWHERE + (model_name or sha256_of(file.file)), "full", file.dim)


class NumpyVectors:
    """A (n, D) array of floats, read by memory map.

    Raises:
        GalleryError: not such an array, or not as many ids as rows.
    """

    def __init__(self, file: Path, ids: Path | None = None) -> None:
        self.file, self._ids, self.left_out = file, ids, list[str]()
        try:
            xb = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise GalleryError(f"cannot read {file}: {error}") from error
        if xb.ndim != 2 or xb.dtype.kind != "f" or not xb.size:
            raise GalleryError(f"{file} holds {xb.dtype} of shape {xb.shape}, not floats of shape (n, D)")
        self.dim, self._count = xb.shape[1], len(xb)
        if ids is not None and (count := sum(map(len, self.ids()))) != len(self):
            raise GalleryError(f"{ids} has {count} ids for {len(self)} vectors of {file}")

    def __len__(self) -> int:
        return self._count

    def ids(self) -> Iterator[list[str]]:
        """The ids, in parts."""
        lines = self._lines()
        while part := list(islice(lines, part_rows(1))):
            yield part

    def _lines(self) -> Iterator[str]:
        if self._ids is None:
            yield from map(str, range(self._count))
            return
        try:
            with self._ids.open(encoding="utf-8-sig") as opened:
                for number, line in enumerate(opened, 1):
                    if not line.strip():
                        raise GalleryError(f"{self._ids}, line {number}: no id")
                    yield line.rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise GalleryError(f"cannot read {self._ids}: {error}") from error

    def parts(self, rows: range) -> Iterator[Part]:
        """Images and vectors of these rows."""
        lines = islice(self._lines(), rows.start, rows.stop)
        size = part_rows(self.dim)
        for start in range(rows.start, rows.stop, size):
            stop = min(start + size, rows.stop)
            # Opened for each part, so that what was read does not count as this process's memory.
            xb = np.load(self.file, mmap_mode="r")[start:stop].astype(np.float32)
            yield [Row(image_id, "") for image_id in islice(lines, stop - start)], xb


def checked(
    file: Path, rows: Sequence[Row], xb: NDArray[np.float32], *, normalise: bool
) -> NDArray[np.float32]:
    """The vectors of some images, of length 1.

    Args:
        normalise: bring them to length 1; else they must have it.

    Raises:
        GalleryError: a vector that is not finite, is zero, or has another length.
    """
    lengths = np.linalg.norm(xb, axis=1)
    # Written so that NaN counts as bad.
    good = np.isfinite(lengths) & (lengths > 0) if normalise else np.abs(lengths - 1) <= UNIT_TOLERANCE
    if not good.all():
        bad = int(np.flatnonzero(~good)[0])
        hint = "" if normalise or not lengths[bad] > 0 else ": normalise brings all to length 1"
        raise GalleryError(f"{file}: the vector of {rows[bad].id!r} has length {lengths[bad]:g}, not 1{hint}")
    return xb / lengths[:, None] if normalise else xb
