"""Files that are complete or not there, and their checksums."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from ..errors import GalleryError, SavedError

# What files of vectors and FAISS's indexes end in: no other suffix is ever ours.
VECTORS, INDEX = ".npy", ".faiss"
_OWN_NAME = re.compile(r"[0-9a-f]{32}")


@contextmanager
def system_errors(what: str) -> Iterator[None]:
    """Turn an error of the system into a `GalleryError`: cannot `what`, and the system's reason."""
    try:
        yield
    except OSError as error:
        raise GalleryError(f"cannot {what}: {error.strerror or error}") from error


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
        remove(file)
        if isinstance(error, OSError):
            raise GalleryError(f"cannot write to {folder}: {error.strerror or error}") from error
        raise


def put_new(partial: Path, file: Path) -> None:
    """Give a complete file its name, and have the disk take in the name and that of the folder.

    Raises:
        GalleryError: another has the name already, or it cannot be given: nothing was made.
        SavedError: the file is there, but the disk did not take in its name.
    """
    try:
        os.link(partial, file)
    except FileExistsError as error:
        raise GalleryError(f"{file} was made by another process at the same time") from error
    except OSError:  # a file system without links: whoever calls holds the writer's lock
        with system_errors(f"make {file}"):
            partial.rename(file)
    remove(partial)
    try:
        flush_folder(file.parent)
        flush_folder(file.parent.absolute().parent)
    except GalleryError as error:
        raise SavedError(f"{file} is made, but not yet safe on the disk: {error}") from error


def flush_folder(folder: Path) -> None:
    """Have the disk take in which files a folder has; `GalleryError` if it cannot."""
    with system_errors(f"flush {folder} to the disk"):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(file: Path) -> bool:
    """Remove a file that nobody needs, now or another time; returns whether it is gone."""
    try:
        file.unlink()
    except OSError:
        return False
    return True


def remove_others(folder: Path, known: Collection[str], suffix: str) -> int:
    """Remove the files that a process left when it was killed: those not known; returns how many.

    What has another name than `new_file` gives with this suffix, or is no file, is somebody else's and stays;
    so do files that cannot be removed now.
    """
    try:
        with os.scandir(folder) as entries:
            left = [Path(entry.path) for entry in entries if _is_own_file(entry, suffix)]
    except OSError:
        return 0
    return sum(remove(file) for file in left if file.name not in known)


def _is_own_file(entry: os.DirEntry[str], suffix: str) -> bool:
    return is_own_name(entry.name, suffix) and entry.is_file(follow_symlinks=False)


def is_own_name(name: str, suffix: str) -> bool:
    """Whether a file name is one that `new_file` gives."""
    return name.endswith(suffix) and bool(_OWN_NAME.fullmatch(name.removesuffix(suffix)))


def require_regular(folder: Path) -> None:
    """Raise `GalleryError` if a folder holds anything but files and folders.

    Links would lead to foreign files, pipes would be waited for without an end.
    """
    with system_errors(f"look into {folder}"), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                raise GalleryError(f"{entry.path} is a symbolic link: a gallery holds its own files only")
            if not (entry.is_file() or entry.is_dir()):
                raise GalleryError(f"{entry.path} is no regular file: a gallery holds its own files only")


@contextmanager
def opened_to_read(file: Path) -> Iterator[BufferedReader]:
    """A regular file, open; `GalleryError` if it is missing, is none, or cannot be read."""
    try:
        # A pipe opens at once, instead of when somebody writes to it.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise GalleryError(f"{file} is no regular file")
            yield opened
    except FileNotFoundError as error:
        raise GalleryError(f"{file} is missing") from error
    except OSError as error:
        raise GalleryError(f"{file} cannot be read: {error.strerror or error}") from error


def sha256_of(file: Path) -> str:
    """SHA-256 of a file; `GalleryError` if it cannot be read."""
    with opened_to_read(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def require_checksum(file: Path, sha256: str) -> None:
    """Raise `GalleryError` if `file` is missing or its content is not what was written."""
    if sha256_of(file) != sha256:
        raise GalleryError(f"{file} is damaged: its checksum is not the one recorded")
