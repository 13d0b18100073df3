"""What one process takes at once: bytes in memory, and work that waits for a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from ..question import OverloadedError
from .refusals import RequestError

T = TypeVar("T")
# Seconds after which somebody who was turned away may come again.
SOON = 1.0


class CrowdedError(OverloadedError):
    """There are so many requests that this one is not even looked at.

    Args:
        where: what is missing, for metrics.
        message: one line.
    """

    def __init__(self, where: str, message: str) -> None:
        super().__init__(message, SOON)
        self.where = where


class MemoryBudget:
    """Bytes that uploads and decoded images take together: who finds no room is turned away at once.

    Args:
        most: bytes.

    Attributes:
        held: bytes that are taken now.
    """

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0
        self._lock = threading.Lock()

    def hold(self) -> Holding:
        """What one request takes; to be used as a context manager, which gives it back."""
        return Holding(self)

    def take(self, size: int) -> None:
        """Take so many bytes more.

        Raises:
            RequestError: there could never be so many.
            CrowdedError: others have them now.
        """
        if size > self.most:
            wanted, most = size / 1e6, self.most / 1e6
            raise RequestError(
                "too_large", f"{wanted:,.0f} MB of memory, more than the {most:,.0f} there are"
            )
        with self._lock:
            if self.held + size > self.most:
                raise CrowdedError("memory", "the requests under way leave no memory for another")
            self.held += size

    def give(self, size: int) -> None:
        """Give so many bytes back."""
        with self._lock:
            self.held -= size


class Holding:
    """Bytes that one request takes of a budget, from any thread."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget, self._size, self._ended = budget, 0, False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._budget.give(self._size)
            self._size, self._ended = 0, True

    def grow(self, size: int) -> None:
        """Take so many bytes more: as `MemoryBudget.take`, and `CrowdedError` once nobody waits for it."""
        with self._lock:
            if self._ended:
                raise CrowdedError("gone", "whoever asked has gone")
            self._budget.take(size)
            self._size += size


async def outcome(future: asyncio.Future[T]) -> T:
    """What becomes of some work, which goes on when nobody waits for it any more.

    An error holds the frames that it passed, and with them images. Were the future held there as well, each
    would hold the other until Python looks for garbage, which it seldom does.
    """
    try:
        return await asyncio.shield(future)
    finally:
        del future


class WorkPool:
    """A few threads, and a few jobs that wait for them: who finds no room is turned away at once.

    Args:
        name: of the threads.
        threads: how many.
        waiting: jobs that may wait.
    """

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most, self._held = threads + waiting, 0

    async def run(self, work: Callable[[], T]) -> T:
        """What the work gives, which a thread does; it goes on when nobody waits for it any more.

        Raises:
            CrowdedError: too many jobs wait.
        """
        if self._held >= self._most:
            raise CrowdedError("threads", "too many requests wait for a thread")
        return await outcome(self._begun(work))

    def _begun(self, work: Callable[[], T]) -> asyncio.Future[T]:
        self._held += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(self._done)
        return future

    def _done(self, future: asyncio.Future[T]) -> None:
        self._held -= 1
        if not future.cancelled():
            # Seen, even where nobody waits for it any more.
            future.exception()

    def close(self) -> None:
        """Begin nothing more; what is under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
