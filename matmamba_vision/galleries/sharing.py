"""Many that read at a time, or one that changes what they read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Sharing:
    """A lock that threads share while they read, and that one has for itself while it changes something.

    A thread that waits to change something lets no more readers in.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._readers, self._waiting, self._alone = 0, 0, False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Read, beside others that read."""
        with self._condition:
            while self._alone or self._waiting:
                self._condition.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._condition:
                self._readers -= 1
                self._condition.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Change what others read, once all of them have finished."""
        with self._condition:
            self._waiting += 1
            try:
                while self._alone or self._readers:
                    self._condition.wait()
                self._alone = True
            finally:
                self._waiting -= 1
        try:
            yield
        finally:
            with self._condition:
                self._alone = False
                self._condition.notify_all()
