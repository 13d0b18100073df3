"""The kernel in C that scores float16 vectors where they lie, called through ctypes; `best_rows.c` has it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from matmamba_common.native import Compiled, kernels
from numpy.typing import NDArray

from .library import load_faiss

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Halves = NDArray[np.float16]
_DONE, _UNCHECKED = 0, 1


class PartStruct(ctypes.Structure):
    """Rows of a file, or of memory."""

    _fields_ = [
        ("rows", c_void_p), ("checked", c_void_p), ("start", c_int64), ("count", c_int64), ("each", c_int64)
    ]  # fmt: skip


class TableStruct(ctypes.Structure):
    """Vectors by key."""

    _fields_ = [("parts", POINTER(PartStruct)), ("parts_count", c_int64), ("keys", c_int64), ("row", c_int64)]


class RowTable:
    """float16 vectors that the kernel can read, by key.

    Args:
        parts: of each run of keys its first, its rows (n, D), whether every so many of them were checked
            (None: all are known), and how many these are.
        keys: how many there are, from 0 on.
        dim: D.
    """

    def __init__(
        self, parts: Sequence[tuple[int, Halves, NDArray[np.bool_] | None, int]], keys: int, dim: int
    ) -> None:
        # Both live as long as their addresses are used.
        self._arrays = parts
        places = [
            PartStruct(_address(rows), None if checked is None else _address(checked), start, len(rows), each)
            for start, rows, checked, each in parts
        ]
        self._parts = (PartStruct * len(places))(*places)
        self.dim, self.struct = dim, TableStruct(self._parts, len(parts), keys, dim)
        self.place = byref(self.struct)


class RowKernels(Compiled):
    """The kernel for this processor: see `Compiled` for arguments and errors."""

    def __init__(self, file: Path | None = None, instructions: str = "") -> None:
        super().__init__(file, instructions)
        best: Any = self.calls.matmamba_best_rows
        best.argtypes = [
            c_char_p, c_void_p, c_void_p, c_int64, c_int64, c_void_p, c_int64, c_int64, c_void_p, c_void_p
        ]  # fmt: skip
        best.restype = c_int
        for structure, size in (
            (PartStruct, self.calls.matmamba_size_of_part),
            (TableStruct, self.calls.matmamba_size_of_table),
        ):
            size.restype = c_int64
            self.require_size(structure, size())
        self._best, self._name, self._address = best, self.instructions.encode(), load_faiss().swig_ptr

    def best(self, table: RowTable, xq: Floats, keys: Ints, k: int) -> tuple[Floats, Ints] | None:
        """The k best of each query's keys, as `rerank` gives them; None if one is not to be read.

        Args:
            table: the vectors.
            xq: (nq, d) queries, C-contiguous, d up to that of the vectors.
            keys: (nq, K), C-contiguous; those below 0 are left out.
            k: hits wanted.

        Returns:
            D and I (nq, k); None if a row was not checked, or there is none of a key.

        Raises:
            ValueError: queries of more dims than the vectors.
        """
        nq, dim = xq.shape
        D, I = np.empty((nq, k), np.float32), np.empty((nq, k), np.int64)  # noqa: E741
        address = self._address
        done = self._best(
            self._name, table.place, int(address(xq)), nq, dim, int(address(keys)), keys.shape[1], k,
            int(address(D)), int(address(I)),
        )  # fmt: skip
        if done == _DONE:
            return D, I
        if done == _UNCHECKED:
            return None
        raise ValueError(f"queries of {dim} dims cannot be compared with vectors of {table.dim}")


def row_kernels() -> RowKernels | None:
    """The kernel, or None where there is none; then one line of notice says why, once in a process."""
    return kernels(RowKernels)


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
