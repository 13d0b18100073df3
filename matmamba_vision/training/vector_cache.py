"""A teacher's vectors of fixed views, computed once: a folder for each teacher and images, a file a part.

A part is written whole, so that filling can be cut off at any moment and taken up again. It says whose
vectors it holds and has a checksum: a damaged one is made again, one of something else is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from matmamba_common.errors import MatMambaError
from safetensors.torch import save
from torch import Tensor

from ..checkpoint import flush, write_whole
from ..rotation import Rotation
from .folder import hold

# Vectors of a part, at most: as many are lost when filling is cut off.
TOGETHER = 2048
_HEADER, _PARTIAL = "vectors", ".partial"


class VectorCacheError(MatMambaError):
    """Kept vectors that are not what they should be; the message names the file."""


@dataclass(frozen=True, kw_only=True)
class CacheKey:
    """What kept vectors are of; where anything differs, they lie beside.

    Attributes:
        teacher: digest of its architecture, its weights and its transform.
        dim: D, numbers of a vector.
        images: digest of the images in their order.
        count: of images.
        views: of each image.
        cut: what else decides on which part of an image a view shows.
    """

    teacher: str
    dim: int
    images: str
    count: int
    views: int
    cut: str

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class VectorCache:
    """The vectors of one key in a folder that can hold those of others.

    Args:
        root: that folder; written to when there is something to write.
        key: what they are of.

    Attributes:
        folder: of this key.
        parts: positions of the images of each part.
    """

    def __init__(self, root: Path, key: CacheKey) -> None:
        self.root, self.key, self.folder = root, key, root / key.digest[:16]
        size = max(1, TOGETHER // key.views)
        starts = range(0, key.count, size)
        self.parts = [range(start, min(start + size, key.count)) for start in starts]

    def file(self, part: int) -> Path:
        """Where a part lies."""
        return self.folder / f"part-{part:05d}.safetensors"

    def missing(self) -> tuple[list[int], list[Path]]:
        """The parts to be made, and the files among them that are there and damaged.

        Raises:
            VectorCacheError: a file holds a part of something else.
        """
        found = [part for part in range(len(self.parts)) if self.read(part) is None]
        return found, [self.file(part) for part in found if self.file(part).exists()]

    def read(self, part: int) -> Tensor | None:
        """(n, views, D) float16 of a part; None if it is missing or damaged.

        Raises:
            VectorCacheError: the file holds a part of something else.
        """
        file = self.file(part)
        try:
            with safetensors.safe_open(file, framework="pt") as opened:
                header = json.loads((opened.metadata() or {})[_HEADER])
                values: Tensor = opened.get_tensor("values")
        except (OSError, KeyError, ValueError, safetensors.SafetensorError):
            return None
        if header.get("key") != self.key.digest or header.get("part") != part:
            raise VectorCacheError(
                f"{file} holds vectors of {_difference(self.key, header)}: take it away, or name another"
                " cache"
            )
        whole = header.get("checksum") == _checksum(values) and values.shape == self._shape(part)
        return values if whole else None

    def write(self, part: int, vectors: Tensor) -> None:
        """Keep (n, views, D) vectors as a part; all of it or nothing.

        Raises:
            VectorCacheError: they are not as many as the part has, or not as long as others.
        """
        if vectors.shape != self._shape(part):
            raise VectorCacheError(f"part {part} is {self._shape(part)}, and not {tuple(vectors.shape)}")
        values = vectors.half().contiguous().cpu()
        header = asdict(self.key) | {"key": self.key.digest, "part": part, "checksum": _checksum(values)}
        written = save({"values": values}, metadata={_HEADER: json.dumps(header)})
        write_whole({self.file(part): written})

    def rotated(self, rotation: Rotation, dim: int) -> Tensor:
        """(images x views, dim) float16 of length 1, the views of an image one after the other.

        Raises:
            VectorCacheError: a part is missing or damaged.
        """
        return torch.cat([rotation(self._whole(part).flatten(0, 1), dim).half() for part in self._all()])

    def vectors_of(self, images: Tensor, view: int = 0) -> Tensor:
        """(n, D) float32: one view of images (n,), ascending.

        Raises:
            VectorCacheError: a part is missing or damaged.
        """
        found = []
        for part in self._all():
            span = self.parts[part]
            chosen = images[(images >= span.start) & (images < span.stop)] - span.start
            if len(chosen):
                found.append(self._whole(part)[chosen, view].float())
        return torch.cat(found)

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Hold the folder while it is filled; what was cut off before goes, and so do folders left empty.

        Raises:
            RunFolderError: another process holds it, or it cannot be written to.
        """
        there = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = hold(self.folder / ".lock", "wait for it, or name another cache")
        try:
            for partial in self.folder.glob(f"*{_PARTIAL}"):
                partial.unlink()
            yield
        finally:
            if {file.name for file in self.folder.iterdir()} == {".lock"}:
                (self.folder / ".lock").unlink()
            lock.close()
            for folder in there:
                with suppress(OSError):
                    folder.rmdir()

    def _all(self) -> range:
        return range(len(self.parts))

    def _shape(self, part: int) -> torch.Size:
        return torch.Size((len(self.parts[part]), self.key.views, self.key.dim))

    def _whole(self, part: int) -> Tensor:
        if (found := self.read(part)) is None:
            raise VectorCacheError(f"{self.file(part)} is missing or damaged")
        return found


def remember(file: Path, known: dict[str, Any]) -> None:
    """Write what is known of something as JSON, with a checksum; all of it or nothing."""
    write_whole({file: json.dumps({"known": known, "checksum": _of(known)}).encode()})
    flush(file.parent)


def recall(file: Path) -> dict[str, Any] | None:
    """What was remembered; None if there is nothing, or it is damaged."""
    try:
        content = json.loads(file.read_text())
        known: dict[str, Any] = content["known"]
        return known if content["checksum"] == _of(known) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of(known: Any) -> str:
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _checksum(values: Tensor) -> str:
    return hashlib.sha256(values.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def _difference(key: CacheKey, header: dict[str, Any]) -> str:
    """In what a file's header differs from a key, in words."""
    words = {
        "teacher": "another teacher, or of another transform of images",
        "images": "other images",
        "count": "other images",
        "views": "another number of views",
        "cut": "views that were cut otherwise",
    }
    return next(
        (said for name, said in words.items() if header.get(name) != getattr(key, name)), "another part"
    )
