"""Memory of a whole process: what the C library keeps that is freed, and when Python looks for garbage."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from matmamba_common.lazy import around_import

# Constants of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# The largest threshold that every version of glibc takes: larger arrays still go back to the system.
_LARGEST_KEPT_BYTES = 32 * 2**20
_KEPT_FREE_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Keep up to 1 GiB of freed memory in this process, in pieces of at most 32 MiB; a matter of speed alone.

    By default glibc returns the large temporaries of a network to the system and asks for them again in the
    next layer, and the system fills them with zeros each time: on a CPU that costs as much as half of the
    arithmetic. It is a decision for a whole process, so programs take it, and no import does.

    Returns:
        Whether the C library took it: False for other libraries than glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES), (_M_TRIM_THRESHOLD, _KEPT_FREE_BYTES))
    return all(mallopt(option, value) == 1 for option, value in wanted)


def load_torch_uncollected() -> None:
    """Have Python look for no garbage while torch is imported, if that was not done.

    There is none, and looking through all that torch makes of itself takes a fifth of the time of the import.
    It is a decision for a whole process, so programs take it, and no import does.
    """
    around_import("torch", _uncollected)


@contextmanager
def _uncollected() -> Iterator[None]:
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            # What is there now stays as long as the process: it is not looked through later, either.
            gc.freeze()
            gc.enable()
