"""The cores that answer: how many there are, and on how many threads the calling one computes."""

from __future__ import annotations

import os
import sys

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
