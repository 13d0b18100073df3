"""The compiled kernels of the network: checked, and called through ctypes."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_float, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

from matmamba_common.native import PLAIN, Compiled, kernels, why_no_kernels

# Channels of a panel, and what numbers of heads are rounded up to: as in `kernels.c`.
PANEL, ROUND, MOST_TAPS = 32, 16, 8
# Rows for which the gradient of a gated norm's weight is summed.
GATE_ROWS = 64
# What a call returns when there is not enough.
_NO_MEMORY = 2


def _fields(integers: str, floats: str, addresses: str) -> list[tuple[str, Any]]:
    """Fields in the order of `kernels.c`: integers, then floats, then addresses."""
    kinds = ((integers, c_int64), (floats, c_float), (addresses, c_void_p))
    return [(name, kind) for names, kind in kinds for name in names.split()]


# Sizes of a block.
SIZES = "length dim heads head_dim state taps chunk first_row"


class BlockStruct(ctypes.Structure):
    """A Mamba2 block."""

    _fields_ = _fields(
        SIZES,
        "norm_epsilon gate_epsilon",
        "project project_bias conv conv_bias rates skip out out_bias order",
    )


class PatchesStruct(ctypes.Structure):
    """What makes tokens of images."""

    _fields_ = _fields("channels height width patch_height patch_width dim length", "", "weight positions")


class EndingStruct(ctypes.Structure):
    """What makes an embedding of tokens."""

    _fields_ = _fields(
        "dim length pooled embedding_dim", "epsilon", "rows weight bias projection projection_bias"
    )


class ConvolutionStruct(ctypes.Structure):
    """Convolution and SiLU of tokens."""

    _fields_ = _fields("batch length channels taps", "", "tokens kernel bias out dout dtokens sums total")


class GateStruct(ctypes.Structure):
    """Gate and norm of rows."""

    _fields_ = [
        *_fields("rows channels", "", "y z weight out scale"),
        *_fields("", "epsilon", "dout dy dz sums total"),
    ]


class WeighingStruct(ctypes.Structure):
    """Heads of rows by factors."""

    _fields_ = _fields(
        "batch rows heads head_dim added "
        "values_image values_row more_image more_row into_image into_row factors_image skip_image",
        "",
        "values factors more skip into",
    )


class ScanEndStruct(ctypes.Structure):
    """The end of a scan backward."""

    _fields_ = _fields("rows heads head_dim", "", "dinput x dy y dt skip dx dinput_x dy_x dy_y")


_STRUCTURES = (
    BlockStruct, PatchesStruct, EndingStruct, ConvolutionStruct, GateStruct, WeighingStruct, ScanEndStruct
)  # fmt: skip


class Library(Compiled):
    """The kernels for this processor.

    Args:
        file: the compiled library, by default the one that was built.
        instructions: the set to use, by default the best that the processor has.

    Raises:
        OSError: it cannot be loaded, is of another version, or has nothing for this processor.
    """

    def __init__(self, file: Path | None = None, instructions: str = "") -> None:
        super().__init__(file, instructions)
        if self.instructions == PLAIN:
            raise OSError(f"{self.file} has nothing for {instructions or 'this processor'}")
        self._calls, self._pools = _declared(self.calls), _OwnPools()
        self._set = self.instructions.encode()
        for structure in _STRUCTURES:
            name = structure.__name__.removesuffix("Struct").encode()
            self.require_size(structure, self._calls.matmamba_size_of(name))

    def run(self, memory: Memory, *arguments: Any) -> None:
        """As `matmamba_run` in `kernels.c`, which see, without the threads and the choice of instructions."""
        names = memory.pool.address, memory.address, self._set
        self._require(self._calls.matmamba_run(*names, *arguments))

    def convolve(self, convolution: ConvolutionStruct) -> None:
        """Convolution and SiLU of tokens, forward or backward, as `matmamba_convolve` in `kernels.c`."""
        self._require(
            self._calls.matmamba_convolve(self.pool().address, self._set, ctypes.byref(convolution))
        )

    def gate(self, gate: GateStruct) -> None:
        """Gate and norm of rows, forward or backward, as `matmamba_gate` in `kernels.c`."""
        self._require(self._calls.matmamba_gate(self.pool().address, self._set, ctypes.byref(gate)))

    def weigh(self, weighing: WeighingStruct) -> None:
        """Heads of rows by factors, as `matmamba_weigh` in `kernels.c`."""
        self._require(self._calls.matmamba_weigh(self.pool().address, self._set, ctypes.byref(weighing)))

    def end_scan(self, end: ScanEndStruct) -> None:
        """The end of a scan backward, as `matmamba_end_scan` in `kernels.c`."""
        self._require(self._calls.matmamba_end_scan(self.pool().address, self._set, ctypes.byref(end)))

    def limit_own_threads(self, most: int) -> None:
        """Let at most so many threads work for the calling one from now on; 0 for no limit of its own."""
        self._pools.most = most

    def pool(self) -> Pool:
        """The threads that work for the calling one, as many as `threads` says now, within its own limit."""
        count = threads()
        key = (min(count, self._pools.most or count), os.getpid())
        known = self._pools.known
        if key not in known:
            # Those of the process that this one was forked from have no threads here.
            self._pools.known = known = {at: pool for at, pool in known.items() if at[1] == key[1]}
            known[key] = Pool(self._calls, key[0])
        return known[key]

    def memory(self, largest: BlockStruct, most_pixels: int) -> Memory:
        """What the threads of `pool` compute blocks in, no larger than `largest`.

        Raises:
            MemoryError: there is not enough.
        """
        return Memory(self._calls, self.pool(), largest, most_pixels)

    @staticmethod
    def _require(missing: int) -> None:
        if missing == _NO_MEMORY:
            raise MemoryError("no memory for the images of the kernels")
        if missing:
            raise RuntimeError("the kernels found no instructions that they were built for")


class Pool:
    """Threads of the kernels, until nobody refers to them any more.

    Raises:
        MemoryError: there is not enough.
    """

    def __init__(self, calls: Any, threads: int) -> None:
        self._calls, self._process = calls, os.getpid()
        self.address = calls.matmamba_pool_new(threads)
        if not self.address:
            raise MemoryError("no memory for the threads of the kernels")

    def wake(self) -> None:
        """Say that work is coming: threads wake while the caller prepares it."""
        self._calls.matmamba_pool_wake(self.address)

    def __del__(self, process: Callable[[], int] = os.getpid) -> None:
        # A fork has the memory, but not the threads that are to be waited for. As a process ends, the names
        # of this module may be gone already, so what is called is kept here.
        if getattr(self, "address", None) and self._process == process():
            self._calls.matmamba_pool_free(self.address)


class Memory:
    """Memory for blocks, until nobody refers to it any more, and the threads that it is for."""

    def __init__(self, calls: Any, pool: Pool, largest: BlockStruct, most_pixels: int) -> None:
        self._calls, self.pool = calls, pool
        self.address = calls.matmamba_memory_new(pool.address, ctypes.byref(largest), most_pixels)
        if not self.address:
            raise MemoryError("no memory for the blocks of the kernels")

    def __del__(self) -> None:
        if getattr(self, "address", None):
            self._calls.matmamba_memory_free(self.address)


class _OwnPools(threading.local):
    """The pool of each Python thread, by number of threads and process; and its own limit, 0 for none."""

    most = 0

    def __init__(self) -> None:
        self.known: dict[tuple[int, int], Pool] = {}


class OwnMemory(threading.local):
    """The memory of each Python thread, by the pool that computes in it."""

    def __init__(self) -> None:
        self.known: dict[Pool, Memory] = {}


def _declared(calls: Any) -> Any:
    calls.matmamba_size_of.argtypes, calls.matmamba_size_of.restype = [c_char_p], c_int64
    calls.matmamba_pool_new.argtypes, calls.matmamba_pool_new.restype = [c_int64], c_void_p
    calls.matmamba_pool_free.argtypes, calls.matmamba_pool_free.restype = [c_void_p], None
    calls.matmamba_pool_wake.argtypes, calls.matmamba_pool_wake.restype = [c_void_p], None
    calls.matmamba_memory_new.argtypes = [c_void_p, POINTER(BlockStruct), c_int64]
    calls.matmamba_memory_new.restype = c_void_p
    calls.matmamba_memory_free.argtypes, calls.matmamba_memory_free.restype = [c_void_p], None
    images = [c_void_p, c_int64, c_void_p]
    blocks = [c_void_p, c_void_p, c_int64, c_void_p]
    calls.matmamba_run.argtypes = [c_void_p, c_void_p, c_char_p, *blocks, *images]
    calls.matmamba_run.restype = c_int
    passes = (
        (calls.matmamba_convolve, ConvolutionStruct), (calls.matmamba_gate, GateStruct),
        (calls.matmamba_weigh, WeighingStruct), (calls.matmamba_end_scan, ScanEndStruct),
    )  # fmt: skip
    for call, what in passes:
        call.argtypes, call.restype = [c_void_p, c_char_p, POINTER(what)], c_int
    return calls


def library() -> Library | None:
    """The kernels, or None where there are none; then one line of notice says why, once in a process."""
    return kernels(Library)


def why_missing() -> str | None:
    """Why there are no kernels here, or None if there are some."""
    return why_no_kernels(Library)


def threads() -> int:
    """How many threads compute: as PyTorch is set where it is loaded, otherwise as OpenMP would be."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return int(torch.get_num_threads())
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdigit() and int(wanted):
        return int(wanted)
    # Not every system says which cores a process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
