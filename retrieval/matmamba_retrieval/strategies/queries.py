"""Queries, encoded at whichever widths a strategy asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Encoded:
    """Queries encoded at one width.

    Attributes:
        xq: (nq, D) float32, L2-normalised.
        macs: encoder multiply-adds per query.
        ms: encoder time per query.
    """

    xq: Floats
    macs: float
    ms: float


class Queries(Protocol):
    """Query images, encoded at whichever widths a strategy asks for."""

    def __len__(self) -> int: ...

    def encode(self, width: str) -> Encoded:
        """Encode all of them at a width."""
        ...

    def take(self, which: Ints) -> Queries:
        """Some of them, by position: only these are encoded when a width is asked for."""
        ...


@dataclass(frozen=True)
class EncodedQueries:
    """Queries encoded beforehand, by width label."""

    by_width: dict[str, Encoded]

    def __len__(self) -> int:
        return len(next(iter(self.by_width.values())).xq)

    def encode(self, width: str) -> Encoded:
        """Look them up; `GalleryError` if they were not encoded at this width."""
        if width not in self.by_width:
            raise GalleryError(
                f"queries were not encoded at width {width!r}, only at {', '.join(self.by_width)}"
            )
        return self.by_width[width]

    def take(self, which: Ints) -> EncodedQueries:
        """Some of them, each at the cost that it had."""
        return EncodedQueries(
            {width: Encoded(known.xq[which], known.macs, known.ms) for width, known in self.by_width.items()}
        )
