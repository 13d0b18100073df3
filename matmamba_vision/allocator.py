"""The C library's memory allocator, told to keep what is freed."""

from __future__ import annotations

import ctypes
import sys

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
