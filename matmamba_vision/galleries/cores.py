"""The cores that answer: how many there are, and on how many threads they are computed on."""

from __future__ import annotations

import os
import sys

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..native import library


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compute_on(threads: int) -> None:
    """Let the calling thread compute on so many threads: kernels, PyTorch where it is loaded, and FAISS."""
    kernels = library()
    if kernels is not None:
        kernels.limit_own_threads(threads)
    for name, call in (("torch", "set_num_threads"), ("faiss", "omp_set_num_threads")):
        loaded = sys.modules.get(name)
        if loaded is not None and hasattr(loaded, call):
            getattr(loaded, call)(threads)


def products_on(threads: int) -> threadpool_limits:
    """Let NumPy's matrix products take so many threads, in all of this process.

    A thread that has helped with a product spins for a while, ready for the next one: where
    the core has nothing else to do it costs nothing, where requests share the cores it takes one from them.

    Returns:
        What was limited: at the end of its block, or by `restore_original_limits`, all is as it was.
    """
    return threadpool_limits(threads, user_api="blas")
