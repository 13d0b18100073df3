"""Files that are complete or not there, and their checksums."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Collection, Iterable
from pathlib import Path

from .errors import GalleryError


def write_new(folder: Path, suffix: str, parts: Iterable[bytes | memoryview]) -> tuple[str, str]:
    """Write a file under a name never used before, flushed to the disk; returns its name and SHA-256.

    Raises:
        GalleryError: the folder cannot be written to, or the disk is full; nothing is left behind.
    """
    file, digest = folder / f"{uuid.uuid4().hex}{suffix}", hashlib.sha256()
    try:
        folder.mkdir(exist_ok=True)
        with file.open("xb") as opened:
            for part in parts:
                opened.write(part)
                digest.update(part)
            opened.flush()
            os.fsync(opened.fileno())
        flush_folder(folder)
    except BaseException as error:
        file.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise GalleryError(f"cannot write to {folder}: {error.strerror or error}") from error
        raise
    return file.name, digest.hexdigest()


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
