"""Files that are complete or not there, and their checksums."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

from .errors import GalleryError


def write_new(folder: Path, suffix: str, content: bytes | memoryview) -> tuple[str, str]:
    """Write a file under a name never used before, flushed to the disk; returns its name and SHA-256."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{uuid.uuid4().hex}{suffix}"
    with file.open("xb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return file.name, hashlib.sha256(content).hexdigest()


def require_checksum(file: Path, sha256: str) -> None:
    """Raise `GalleryError` if `file` is missing or its content is not what was written."""
    found = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while part := opened.read(1 << 20):
                found.update(part)
    except FileNotFoundError as error:
        raise GalleryError(f"{file} is missing") from error
    if found.hexdigest() != sha256:
        raise GalleryError(f"{file} is damaged: its checksum is not the one recorded")
