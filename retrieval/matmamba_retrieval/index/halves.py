"""Which of some float16 vectors may be the nearest to one query: FAISS compares them without widening them.

It adds up in another order than the scores of the rerank, so that the last bits differ. What is certain to be
too far away is left out, and exact scores are needed of the rest only: a dozen rows instead of hundreds.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .library import faiss
from .threads import one_thread

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
Ints = NDArray[np.int64]
# So many more than are wanted are looked at: those that rounding could put among the best are rarely more.
SPARE = 6
# Of fewer rows, the exact scores are as fast.
LEAST_ROWS = 32
# More would keep their memory, 4 MiB at 512 dims, with the thread; and so many take their time anyway.
MOST_ROWS = 4_096
# Stored vectors may be so much longer than 1; see `UNIT_TOLERANCE` of a gallery.
LONGEST = 1.01
_EPSILON = float(np.finfo(np.float32).eps)


class HalfRows(threading.local):
    """Memory of each thread for float16 rows, in an index of FAISS, to be filled again for each query."""

    _dim = _room = _count = 0

    def memory(self, count: int, dim: int) -> Halves:
        """(count, dim) rows to be filled, until the next call."""
        if dim != self._dim or count > self._room:
            self._make(dim, count)
        if count != self._count:
            self._index.ntotal = self._count = count
        return self._rows[:count]

    def _make(self, dim: int, room: int) -> None:
        half = faiss.ScalarQuantizer.QT_fp16
        self._index: Any = faiss.IndexScalarQuantizer(dim, half, faiss.METRIC_INNER_PRODUCT)
        self._dim, self._room, self._count = dim, room, 0
        codes, size = self._index.codes, 2 * dim * room
        codes.resize(size)
        self._rows = faiss.rev_swig_ptr(codes.data(), size).view(np.float16).reshape(room, dim)

    def nearest(self, xq: Floats, k: int) -> Ints | None:
        """Places, ascending, that are certain to contain the k nearest; None where these may be anywhere.

        Args:
            xq: (1, dim) query, C-contiguous.
            k: how many nearest, fewer by `SPARE` than there are rows.
        """
        asked = k + SPARE
        D, I = np.empty(asked, dtype=np.float32), np.empty(asked, dtype=np.int64)  # noqa: E741
        with one_thread():
            self._index.search_c(1, faiss.swig_ptr(xq), asked, faiss.swig_ptr(D), faiss.swig_ptr(I))
        # Two orders of summation differ by less than half of this. Written so that NaN counts as near.
        slack = 4 * self._dim * _EPSILON * LONGEST * math.sqrt(np.vdot(xq, xq))
        scores, count = D.tolist(), k
        while count < asked and not scores[count] < scores[k - 1] - slack:
            count += 1
        return np.sort(I[:count]) if count < asked else None


def worthwhile(count: int, k: int) -> bool:
    """Whether so many rows are better compared as they are stored first, where k are wanted."""
    return max(LEAST_ROWS, 2 * (k + SPARE)) <= count <= MOST_ROWS
