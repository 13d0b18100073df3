"""What a gallery's catalogue holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .spec import EmbeddingSpec


@dataclass(frozen=True)
class Row:
    """One image of a gallery.

    Attributes:
        id: stable and unique. path: where the image can be found. label: class name, or None.
        metadata: whatever the user wants to keep with it, and filter by: a JSON object.
    """

    id: str
    path: str
    label: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SegmentRecord:
    """A file of vectors of a width: those of the keys `start` to `start + rows`.

    Attributes:
        checks: CRC-32 of each block of rows, uint32 little-endian; see `segments`.
    """

    width: str
    start: int
    rows: int
    file: str
    sha256: str
    checks: bytes


@dataclass(frozen=True)
class ShortlistRecord:
    """A FAISS index over `dim` leading coordinates of the vectors of a width, keys 0 to `rows`.

    Attributes:
        name: unique in its gallery. recipe: how it was made, in the words of `shortlist`.
    """

    name: str
    width: str
    dim: int
    recipe: str
    rows: int
    file: str
    sha256: str


@dataclass(frozen=True)
class Generation:
    """All vectors of a gallery from one model. Another model makes a new one, and so does compacting.

    Attributes:
        since: the oldest version that can still be opened. widths: further widths of which each image has a
            vector, beside that of `spec`.
    """

    number: int
    spec: EmbeddingSpec
    checkpoint_path: str
    widths: tuple[str, ...]
    since: int


@dataclass(frozen=True)
class Version:
    """The gallery after one change.

    Attributes:
        keys: how many keys were given out. live: images that were not deleted. time: UTC, ISO 8601.
    """

    number: int
    generation: int
    keys: int
    live: int
    time: str
