"""One tar file of images, here or at any URL that fsspec knows, and what was written down about it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from .remote import local_copy
from .tars import Members

# What `prepare` writes beside the shards, so that opening them reads none of them.
INDEX, INDEX_FORMAT = "index.json", 1


@dataclass(frozen=True)
class Shard:
    """A tar file and what is in it.

    Attributes:
        place: path or URL.
        bytes: size of the file as it was written; None if nobody wrote it down.
        sha256: of the file as it was written; "" if nobody wrote it down.
        ours: whether it is of a split that was made by id.
    """

    place: str
    members: Members
    bytes: int | None = None
    sha256: str = ""
    ours: bool = False

    def file(self, cache: str = "") -> Path:
        """The file on this machine; `DataError` if it is remote and cannot be fetched."""
        return local_copy(self.place, cache, self.sha256)

    def damage(self, cache: str = "") -> str:
        """What is wrong with the file as a whole by its size and checksum, "" if nothing is known to be."""
        file = self.file(cache)
        if fault := size_fault(self, file):
            return fault
        if self.sha256 and sha256_of(file) != self.sha256:
            return f"its SHA-256 is not that of {INDEX}: some bytes were changed"
        return ""


def size_fault(shard: Shard, file: Path) -> str:
    """How the size of a shard's file differs from what was written, "" if it does not."""
    found = file.stat().st_size if file.is_file() else 0
    if shard.bytes is None or found == shard.bytes:
        return ""
    return f"it has {found} bytes where {INDEX} says {shard.bytes}: truncated, changed or missing"


def sha256_of(file: Path) -> str:
    """Checksum of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(2**20):
            digest.update(piece)
    return digest.hexdigest()
