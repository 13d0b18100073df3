"""Immutable files of float16 vectors, read by memory map, each block of rows checked when first read."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError
from ..remedies import REPAIR
from .files import VECTORS, new_file, opened_to_read, system_errors
from .records import SegmentRecord

Vectors = NDArray[np.float16]
Made = TypeVar("Made")
BLOCK_ROWS = 65_536
# Bytes under one CRC-32: little to read for one row, and 4 bytes for each are kept in the catalogue.
CHECK_BYTES = 16_384
# A larger segment would only make merging it again more expensive.
SEGMENT_ROWS = 1_048_576


def rows_per_check(dim: int) -> int:
    """Rows of `dim` float16 under one CRC-32."""
    return max(1, CHECK_BYTES // (2 * dim))


def write_segment(
    folder: Path, blocks: Iterable[NDArray[np.floating]], *, width: str, start: int, rows: int, dim: int
) -> SegmentRecord:
    """Write vectors, given in blocks (n, dim), as one file of float16 in NumPy's format.

    Args:
        folder: of the segments.
        blocks: the vectors, in the order of their keys.
        width: label of what made them.
        start: key of the first.
        rows: how many they are in all.
        dim: coordinates of each.

    Raises:
        GalleryError: the disk is full, or the folder cannot be written to.
    """
    checks: list[NDArray[np.uint32]] = []
    every = rows_per_check(dim)
    with new_file(folder, VECTORS) as file:
        file.write(_header(rows, dim))
        for part in _whole_checks(blocks, every):
            checks.append(_checksums(part, every))
            file.write(part.data.cast("B"))
    sums = np.concatenate(checks).astype("<u4").tobytes()
    return SegmentRecord(width=width, start=start, rows=rows, file=file.name, sha256=file.sha256, checks=sums)


def checked_blocks(
    folder: Path, record: SegmentRecord, dim: int
) -> Iterator[tuple[int, int, Vectors | None]]:
    """A segment's blocks as (first row, last + 1, rows), with None for rows that are not what was written."""
    every, file = rows_per_check(dim), folder / record.file
    with opened_to_read(file) if file.is_file() else nullcontext(io.BytesIO()) as opened:
        opened.seek(len(_header(record.rows, dim)))
        for number, check in enumerate(np.frombuffer(record.checks, dtype="<u4")):
            first, last = number * every, min((number + 1) * every, record.rows)
            part = opened.read(2 * dim * (last - first))
            whole = len(part) == 2 * dim * (last - first) and zlib.crc32(part) == check
            yield first, last, np.frombuffer(part, dtype="<f2").reshape(-1, dim) if whole else None


def _header(rows: int, dim: int) -> bytes:
    header = io.BytesIO()
    about = {"descr": "<f2", "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(header, about)
    return header.getvalue()


def _whole_checks(blocks: Iterable[NDArray[np.floating]], every: int) -> Iterator[Vectors]:
    """The same rows as float16, in blocks whose lengths, but for the last, are multiples of `every`."""
    left: Vectors | None = None
    for block in blocks:
        part = np.ascontiguousarray(block, dtype="<f2")
        part = part if left is None or not len(left) else np.concatenate([left, part])
        whole = len(part) // every * every
        if whole:
            yield part[:whole]
        left = part[whole:]
    if left is not None and len(left):
        yield np.ascontiguousarray(left)


def _checksums(rows: Vectors, every: int) -> NDArray[np.uint32]:
    starts = range(0, len(rows), every)
    return np.array([zlib.crc32(rows[start : start + every].data) for start in starts], dtype=np.uint32)


class _Segment:
    """One file, mapped; remembers which of its blocks were checked."""

    def __init__(self, file: Path, record: SegmentRecord, dim: int) -> None:
        self.file, self.record, self._every = file, record, rows_per_check(dim)
        self._checks = np.frombuffer(record.checks[: len(record.checks) // 4 * 4], dtype="<u4")
        self._checked = np.zeros(len(self._checks), dtype=bool)
        if len(self._checks) != -(-record.rows // self._every):
            raise GalleryError(f"the catalogue of {file} is damaged: it has other checksums")
        with system_errors(f"read {file}"):
            if file.is_symlink():
                raise GalleryError(f"{file} is a symbolic link: a gallery holds its own files only")
            size, offset = file.stat().st_size if file.is_file() else 0, len(_header(record.rows, dim))
            if size != offset + 2 * dim * record.rows:
                raise GalleryError(f"{file} is {'damaged: it has another length' if size else 'missing'}")
            # As a plain array: reading rows of NumPy's own subclass costs more.
            self._rows = np.asarray(np.memmap(file, "<f2", "r", offset, (record.rows, dim)))

    def mapped(self) -> tuple[int, Vectors, NDArray[np.bool_], int]:
        """Key of its first row, its rows in the file, whether blocks were checked, rows of each."""
        return self.record.start, self._rows, self._checked, self._every

    def check(self, rows: NDArray[np.int64]) -> None:
        """Compare the blocks of some rows with their checksums, unless that was done."""
        blocks = rows // self._every
        checked = self._checked.take(blocks)
        # As bytes: a reduction by NumPy takes ten times as long.
        if b"\0" in checked.tobytes():
            for block in np.unique(blocks[~checked]):
                self._check(int(block))

    def read(self, rows: NDArray[np.int64], out: Vectors) -> None:
        self.check(rows)
        # The rows are known to be there; "raise" would copy them twice.
        self._rows.take(rows, axis=0, out=out, mode="clip")

    def slice(self, first: int, last: int) -> Vectors:
        for block in range(first // self._every, -(-last // self._every)):
            if not self._checked[block]:
                self._check(block)
        return self._rows[first:last]

    def _check(self, block: int) -> None:
        first = block * self._every
        if zlib.crc32(self._rows[first : first + self._every].data) != self._checks[block]:
            last = min(first + self._every, self.record.rows) - 1
            raise GalleryError(
                f"{self.file} is damaged in rows {first} to {last}: {REPAIR} encodes them again"
            )
        self._checked[block] = True


class Segments:
    """The vectors of all segments of a width as if they were one array of `rows` rows of `dim` coordinates.

    Raises:
        GalleryError: a file is missing or too short; its content is checked when it is read.
    """

    def __init__(
        self,
        folder: Path,
        records: Sequence[SegmentRecord],
        dim: int,
        rows: int | None = None,
        opened: Mapping[str, _Segment] | None = None,
    ) -> None:
        self.dim, self._folder = dim, folder
        end = 0
        for record in records:
            if record.start != end:
                raise GalleryError(f"the catalogue of {folder} is damaged: no vectors of key {end}")
            end = record.start + record.rows
        if rows is not None and rows > end:
            raise GalleryError(f"the catalogue of {folder} is damaged: {end} vectors for {rows} images")
        known = opened or {}
        self._open = {
            record.file: known.get(record.file) or _Segment(folder / record.file, record, dim)
            for record in records
        }
        self._parts = list(self._open.values())
        self._starts = np.array([record.start for record in records], dtype=np.int64)
        self._count = end if rows is None else rows
        self._derived: dict[Any, Any] = {}

    def derived(self, make: Callable[[Segments], Made]) -> Made:
        """What `make` makes of these segments, made once: they never change."""
        found = self._derived.get(make)
        if found is None:
            found = self._derived[make] = make(self)
        return found

    def __len__(self) -> int:
        return self._count

    def refreshed(self, records: Sequence[SegmentRecord], rows: int) -> Segments:
        """With what was committed since: the first `rows` rows of these segments. This one stays as it is."""
        return Segments(self._folder, records, self.dim, rows, self._open)

    def mapped(self) -> list[tuple[int, Vectors, NDArray[np.bool_], int]]:
        """Of each file: key of its first row, rows, whether every so many were checked, how many these are.

        What was not checked is not to be read: see `check`.
        """
        return [part.mapped() for part in self._parts]

    def check(self, keys: NDArray[np.int64]) -> None:
        """See to it that the vectors of some keys are what was written.

        Args:
            keys: in any order.

        Raises:
            GalleryError: a file is damaged there, or a key is beyond the last.
        """
        for part, some, _ in self._runs(np.sort(keys)):
            part.check(some)

    def _runs(self, keys: NDArray[np.int64]) -> Iterator[tuple[_Segment, NDArray[np.int64], slice]]:
        """Of ascending keys: each file, rows in it, and which of the keys these are."""
        if len(keys) and not (keys.item(0) >= 0 and keys.item(-1) < self._count):
            raise GalleryError(f"keys {keys.min()} to {keys.max()} are not all in 0..{self._count - 1}")
        bounds = [0, *np.searchsorted(keys, self._starts[1:]).tolist(), len(keys)]
        for part, first, last in zip(self._parts, bounds[:-1], bounds[1:], strict=True):
            if first < last:
                yield part, keys[first:last] - part.record.start, slice(first, last)

    def read(self, keys: NDArray[np.int64], out: Vectors | None = None) -> Vectors:
        """(n, D) float16 vectors of some keys, in this order; ascending ones are read faster.

        Args:
            keys: of the vectors.
            out: (n, D) memory to be filled and returned; by default new one, which takes longer.

        Raises:
            GalleryError: a file is damaged where it is read, or a key is beyond the last.
        """
        if not len(keys):
            return np.empty((0, self.dim), dtype=np.float16)
        xb = np.empty((len(keys), self.dim), dtype=np.float16) if out is None else out
        if (keys[1:] < keys[:-1]).any():
            order = np.argsort(keys)
            xb[order] = self.read(keys[order])
            return xb
        for part, rows, which in self._runs(keys):
            part.read(rows, xb[which])
        return xb

    def blocks(self, first: int = 0, end: int | None = None) -> Iterator[tuple[int, Vectors]]:
        """The vectors of the keys `first` to `end`, as (key of the first row, rows) in bounded blocks."""
        end = self._count if end is None else min(end, self._count)
        for segment in self._parts:
            start = segment.record.start
            last = min(segment.record.rows, end - start)
            for row in range(max(0, first - start), last, BLOCK_ROWS):
                yield start + row, segment.slice(row, min(row + BLOCK_ROWS, last))
