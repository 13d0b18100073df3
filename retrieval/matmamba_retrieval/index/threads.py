"""How many threads FAISS takes."""

from __future__ import annotations

from types import TracebackType

from .library import load_faiss


class one_thread:
    """FAISS uses one thread here: for so little work, waking a second one takes longer than the work.

    The number is that of the calling thread alone. A class, because a generator takes as long as some work;
    and FAISS itself, because so does looking up functions in a library that may not be imported yet.
    """

    def __enter__(self) -> None:
        self._faiss = load_faiss()
        self._before = self._faiss.omp_get_max_threads()
        if self._before != 1:
            self._faiss.omp_set_num_threads(1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before != 1:
            self._faiss.omp_set_num_threads(self._before)
