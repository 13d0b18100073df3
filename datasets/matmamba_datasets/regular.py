"""Reading files that are files: nothing that waits for a writer, never ends, or is larger than memory."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from .errors import BrokenImageError

_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)


def why_not_regular(mode: int) -> str:
    """What something is that is not a regular file, by its mode; "" for a regular file."""
    if stat.S_ISREG(mode):
        return ""
    return next((f"{name}, not a file" for test, name in _KINDS if test(mode)), "not a regular file")


def said(error: OSError) -> str:
    """What the system says, without the name that some messages repeat."""
    return (error.strerror or str(error) or type(error).__name__).lower()


def open_regular(path: Path | str) -> BinaryIO:
    """A file, opened to be read.

    Raises:
        BrokenImageError: it is not a regular file.
        OSError: it cannot be opened.
    """
    # Without waiting: a FIFO that took the file's place would wait for a writer for ever.
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if kind := why_not_regular(os.fstat(number).st_mode):
        os.close(number)
        raise BrokenImageError(str(path), kind)
    return os.fdopen(number, "rb")


def read_regular(path: Path | str, max_bytes: int) -> bytes:
    """The content of a file.

    Raises:
        BrokenImageError: it cannot be read, is not a regular file, or has more than `max_bytes`.
    """
    try:
        with open_regular(path) as opened:
            size = os.fstat(opened.fileno()).st_size
            if size > max_bytes:
                raise BrokenImageError(str(path), too_large(size, max_bytes))
            content = opened.read(max_bytes + 1)
    # The latter: a path with a null character.
    except (OSError, ValueError) as error:
        if isinstance(error, BrokenImageError):
            raise
        raise BrokenImageError(str(path), getattr(error, "strerror", None) or str(error)) from error
    if len(content) > max_bytes:
        raise BrokenImageError(str(path), too_large(len(content), max_bytes))
    return content


def too_large(size: int, max_bytes: int) -> str:
    """In words: a file of `size` bytes where `max_bytes` are allowed."""
    return f"{size / 1e6:,.0f} MB, more than the {max_bytes / 1e6:,.0f} that max_file_mb allows"
