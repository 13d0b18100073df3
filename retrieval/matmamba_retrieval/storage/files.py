"""Files that are complete or not there, and their checksums."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import GalleryError

_OWN_NAME = re.compile(r"[0-9a-f]{32}\.[a-z]+")


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


def put_new(partial: Path, file: Path) -> None:
    """Give a complete file its name; `GalleryError` if another has it already.

    Both are in one folder; the disk takes in the name, and that of the folder.
    """
    try:
        try:
            os.link(partial, file)
            partial.unlink()
        except FileExistsError as error:
            raise GalleryError(f"{file} was made by another process at the same time") from error
        except OSError:  # a file system without links: whoever calls holds the writer's lock
            partial.rename(file)
        flush_folder(file.parent)
        flush_folder(file.parent.absolute().parent)
    except OSError as error:
        raise GalleryError(f"cannot make {file}: {error.strerror or error}") from error


def flush_folder(folder: Path) -> None:
    """Have the disk take in which files a folder has."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_others(folder: Path, known: Collection[str]) -> int:
    """Remove the files that a process left when it was killed: those not known; returns how many.

    Files with other names than `new_file` gives are somebody else's, and stay.
    """
    left = [file for file in folder.glob("*") if is_own_name(file.name) and file.name not in known]
    for file in left:
        file.unlink(missing_ok=True)
    return len(left)


def is_own_name(name: str) -> bool:
    """Whether a file name is one that `new_file` gives."""
    return bool(_OWN_NAME.fullmatch(name))


def require_no_links(folder: Path) -> None:
    """Raise `GalleryError` if anything in a folder is a symbolic link: it would lead to foreign files."""
    for entry in os.scandir(folder):
        if entry.is_symlink():
            raise GalleryError(f"{entry.path} is a symbolic link: a gallery holds its own files only")


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
