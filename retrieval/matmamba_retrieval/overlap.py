"""Reading ahead and committing behind, so that decoding, encoding and writing go on at the same time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Vectors = NDArray[np.floating]
Commit = Callable[[list[T], dict[str, Vectors]], int]
Part: TypeAlias = tuple[Sequence[T], Mapping[str, Vectors]]
COMMIT_ROWS, COMMIT_SECONDS = 4096, 10.0


def ahead(items: Iterable[T], count: int) -> Generator[T, None, None]:
    """The same items in the same order; up to `count` are made in a thread before they are asked for.

    What `items` raises is raised here, at the item where it happened.
    """
    end, iterator = object(), iter(items)
    with ThreadPoolExecutor(1, "reading ahead") as reader:
        waiting = deque(reader.submit(next, iterator, end) for _ in range(count))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(reader.submit(next, iterator, end))
                yield item  # type: ignore[misc]
        finally:
            reader.shutdown(cancel_futures=True)


class Intake(Generic[T]):
    """Collects items with their vectors, and commits them in large parts in a thread, one part at a time.

    At most one part is being collected while another is being written, whatever their number.

    Args:
        commit: takes some items, and by width their (n, D) vectors; once it has returned, they are safe. It
            returns how many it has taken.
        rows: a part is committed when it has so many items.
        seconds: a part is committed when it is so old.

    Attributes:
        committed: items that are safe.
    """

    def __init__(self, commit: Commit[T], rows: int = COMMIT_ROWS, seconds: float = COMMIT_SECONDS) -> None:
        self._commit, self._rows, self._seconds = commit, rows, seconds
        self._writer = ThreadPoolExecutor(1, "committing")
        self._writing: Future[int] | None = None
        self._parts: list[Part[T]] = []
        self._since = time.monotonic()
        self.committed = 0

    def add(self, items: Sequence[T], vectors: Mapping[str, Vectors]) -> None:
        """Take some items; raises what an earlier commit raised, and then nothing more is committed."""
        # In one step, for an interruption can come between any two.
        self._parts.append((items, vectors))
        if self._writing is not None and self._writing.done():
            self._wait()
        full = sum(len(items) for items, _ in self._parts) >= self._rows
        if full or time.monotonic() - self._since > self._seconds:
            self._start()

    def flush(self) -> None:
        """Return when all that was taken is safe."""
        self._start()
        self._wait()

    def close(self) -> None:
        """Let a commit that has begun end; what was only collected is forgotten."""
        self._writer.shutdown()

    def _start(self) -> None:
        self._wait()
        parts, self._parts = self._parts, []
        self._since = time.monotonic()
        if parts:
            self._writing = self._writer.submit(self._put, parts)

    def _put(self, parts: Sequence[Part[T]]) -> int:
        vectors = {
            width: np.concatenate([part[width] for _, part in parts])
            if len(parts) > 1
            else parts[0][1][width]
            for width in parts[0][1]
        }
        return self._commit([item for items, _ in parts for item in items], vectors)

    def _wait(self) -> None:
        # An error stays, and is raised again by whatever comes next.
        if self._writing is not None:
            self.committed += self._writing.result()
            self._writing = None
