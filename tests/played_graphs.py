"""Graphs without a GPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor


class Played:
    """Captures without a GPU: what was captured is done once more, in the same place."""

    def __init__(self) -> None:
        self.captured, self.inside, self.others_capture = 0, 0, False
        self.refuses: type[Exception] | None = None
        self._lock = threading.RLock()

    def busy(self) -> bool:
        return self.others_capture

    @contextmanager
    def turn(self) -> Iterator[Callable[[Tensor], Tensor]]:
        with self._lock:
            self.inside += 1
            yield lambda result: result
            self.inside -= 1

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        assert self.inside
        if self.refuses is not None:
            raise self.refuses("not enough\nof it")
        self.captured += 1
        work()

        def replay() -> None:
            assert self.inside == 1
            work()

        return replay
