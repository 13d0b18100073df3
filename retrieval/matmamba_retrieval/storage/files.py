"""Files that are complete or not there, and their checksums."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import GalleryError


class NewFile:
    """A file that is being written.

    Attributes:
        name: never used before.
    """

    def __init__(self, opened: BinaryIO, name: str) -> None:
        self.name, self._opened, self._digest = name, opened, hashlib.sha256()

    def write(self, part: bytes | memoryview) -> None:
        """Write some more of it."""
        self._opened.write(part)
        self._digest.update(part)

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._digest.hexdigest()


@contextmanager
def new_file(folder: Path, suffix: str) -> Iterator[NewFile]:
    """A file to write; when the block ends well it is flushed to the disk, otherwise nothing is left of it.

    Raises:
        GalleryError: the folder cannot be written to, or the disk is full.
    """
    file = folder / f"{uuid.uuid4().hex}{suffix}"
    try:
        folder.mkdir(exist_ok=True)
        with file.open("xb") as opened:
            yield NewFile(opened, file.name)
            opened.flush()
            os.fsync(opened.fileno())
        flush_folder(folder)
    except BaseException as error:
        file.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise GalleryError(f"cannot write to {folder}: {error.strerror or error}") from error
        raise


def flush_folder(folder: Path) -> None:
    """Have the disk take in which files a folder has."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_others(folder: Path, known: Collection[str]) -> int:
    """Remove the files that a process left when it was killed: those not known; returns how many."""
    strangers = [file for file in folder.glob("*") if file.name not in known]
    for file in strangers:
        file.unlink(missing_ok=True)
    return len(strangers)


def sha256_of(file: Path) -> str:
    """SHA-256 of a file; `GalleryError` if it cannot be read."""
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise GalleryError(f"{file} is missing") from error
    except OSError as error:
        raise GalleryError(f"{file} cannot be read: {error.strerror or error}") from error


def require_checksum(file: Path, sha256: str) -> None:
    """Raise `GalleryError` if `file` is missing or its content is not what was written."""
    if sha256_of(file) != sha256:
        raise GalleryError(f"{file} is damaged: its checksum is not the one recorded")
