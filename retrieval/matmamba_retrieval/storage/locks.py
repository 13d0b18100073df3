"""Who uses a gallery: one writer, and readers that hold on to what they opened."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

# Where a file cannot be written, it can still be locked.
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}
# A pipe opens at once, instead of when somebody writes to it.
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Busy(Exception):
    """Somebody else holds the lock."""


class Lock:
    """A lock on a file, held until it is released or the process ends, however it ends.

    Raises:
        Busy: it is held in a way that excludes this one.
        OSError: the file cannot be made, or opened.
    """

    def __init__(self, file: Path, *, shared: bool = False) -> None:
        self._descriptor = _open_shared(file) if shared else _open(file)
        try:
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file", str(file))
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise Busy(str(file)) from error
        except OSError:
            os.close(self._descriptor)
            raise

    @property
    def held(self) -> bool:
        """Whether it was not released yet."""
        return self._descriptor >= 0

    def release(self) -> None:
        """Let others have it; once released, nothing happens."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _open(file: Path) -> int:
    file.parent.mkdir(exist_ok=True)
    return os.open(file, os.O_RDWR | os.O_CREAT | _FLAGS, 0o644)


def _open_shared(file: Path) -> int:
    """A shared lock takes no right to write."""
    try:
        return _open(file)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        return os.open(file, os.O_RDONLY | _FLAGS)
