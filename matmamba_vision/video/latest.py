"""Between who reads a stream and who encodes it: room for one frame, and the latest one has it."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

F = TypeVar("F")
N = TypeVar("N")


class Latest(Generic[F, N]):
    """The latest frame, and what there is to be told beside frames, in the order in which both came.

    A frame that nobody has taken when the next one comes is dropped: who encodes is never behind by more than
    the frame that it is at. What is told beside frames is never dropped.

    Args:
        waits: whether whoever reads waits until a frame is taken, so that none is dropped.
    """

    def __init__(self, *, waits: bool = False) -> None:
        self._waits, self._changed = waits, threading.Condition()
        self._items = deque[F | N]()
        self._frame: F | None = None
        self._dropped, self._closed = 0, False

    def put(self, frame: F) -> None:
        """A frame was read."""
        with self._changed:
            while self._waits and self._frame is not None and not self._closed:
                self._changed.wait()
            if self._frame is not None:
                self._items = deque(item for item in self._items if item is not self._frame)
                self._dropped += 1
            self._frame = frame
            self._items.append(frame)
            self._changed.notify_all()

    def tell(self, told: N) -> None:
        """Something is to be known beside frames."""
        with self._changed:
            self._items.append(told)
            self._changed.notify_all()

    def take(self, seconds: float) -> F | N | None:
        """What came first of what is there; None if nothing comes for some seconds."""
        with self._changed:
            if not self._items:
                self._changed.wait(seconds)
            item = self._items.popleft() if self._items else None
            if item is self._frame:
                self._frame = None
                self._changed.notify_all()
            return item

    def dropped(self) -> int:
        """How many frames were dropped since this was asked last."""
        with self._changed:
            count, self._dropped = self._dropped, 0
            return count

    def close(self) -> None:
        """Nobody takes anything any more: whoever reads waits no longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
