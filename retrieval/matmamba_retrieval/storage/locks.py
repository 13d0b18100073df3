"""Who uses a gallery: one writer, and readers that hold on to what they opened."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Busy(Exception):
    """Somebody else holds the lock."""


class Lock:
    """A lock on a file, held until it is released or the process ends, however it ends.

    Raises:
        Busy: it is held in a way that excludes this one. OSError: the file cannot be made.
    """

    def __init__(self, file: Path, *, shared: bool = False) -> None:
        file.parent.mkdir(exist_ok=True)
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise Busy(str(file)) from error

    def release(self) -> None:
        """Let others have it; once released, nothing happens."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
