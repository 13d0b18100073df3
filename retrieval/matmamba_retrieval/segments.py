"""Immutable files of float16 vectors, read by memory map."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .catalog import SegmentRecord
from .errors import GalleryError
from .files import require_checksum, write_new

Vectors = NDArray[np.float16]
BLOCK_ROWS = 65_536


def write_segment(folder: Path, xb: NDArray[np.floating]) -> tuple[str, str]:
    """Write (n, D) vectors as float16; returns file name and SHA-256."""
    buffer = io.BytesIO()
    np.save(buffer, xb.astype(np.float16))
    return write_new(folder, ".npy", buffer.getbuffer())


class Segments:
    """The vectors of all segments as if they were one array. A segment is checked when it is first read."""

    def __init__(self, folder: Path, records: list[SegmentRecord], dim: int) -> None:
        self._folder, self._dim = folder, dim
        self.refresh(records)
        self._open: dict[int, Vectors] = {}

    def __len__(self) -> int:
        return sum(record.rows for record in self._records)

    def refresh(self, records: list[SegmentRecord]) -> None:
        """Take in the segments that were committed since, here or by another process."""
        self._records = records
        self._starts = np.array([record.start for record in records], dtype=np.int64)

    def require_sizes(self) -> None:
        """Raise `GalleryError` if a file is missing or too short; its content is checked when it is read."""
        for record in self._records:
            file = self._folder / record.file
            found, least = file.stat().st_size if file.is_file() else 0, record.rows * self._dim * 2
            if found < least:
                raise GalleryError(f"{file} is {'damaged: it was cut short' if found else 'missing'}")

    def read(self, keys: NDArray[np.int64]) -> Vectors:
        """(n, D) float16 vectors of some keys, in this order; `GalleryError` if a file is lost or damaged."""
        xb = np.empty((len(keys), self._dim), dtype=np.float16)
        owners = np.searchsorted(self._starts, keys, side="right") - 1
        for owner in np.unique(owners):
            mine = owners == owner
            xb[mine] = self._segment(int(owner))[keys[mine] - self._starts[owner]]
        return xb

    def blocks(self, first: int = 0) -> Iterator[tuple[int, Vectors]]:
        """All vectors from key `first` on, as (key of the first row, rows) in blocks of bounded size."""
        for number, record in enumerate(self._records):
            for row in range(max(0, first - record.start), record.rows, BLOCK_ROWS):
                yield record.start + row, self._segment(number)[row : row + BLOCK_ROWS]

    def _segment(self, number: int) -> Vectors:
        if number not in self._open:
            record = self._records[number]
            file = self._folder / record.file
            require_checksum(file, record.sha256)
            self._open[number] = np.load(file, mmap_mode="r")
        return self._open[number]
