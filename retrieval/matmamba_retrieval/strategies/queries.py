"""Queries, encoded at whichever widths a strategy asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from matmamba_common.words import shown
from numpy.typing import NDArray

from ..arguments import require_array
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

    Raises:
        TypeError: no array of floats.
        GalleryError: an array of another shape, or with a number that is not finite.
    """

    xq: Floats
    macs: float
    ms: float

    def __post_init__(self) -> None:
        if require_array(self.xq, "xq", "f", "(nq, D)").ndim != 2:
            raise GalleryError(f"xq has shape {self.xq.shape}: it has to be (nq, D)")
        # Nothing is near to these: each index would answer in its own way.
        if not (finite := np.isfinite(self.xq)).all():
            raise GalleryError(
                f"row {int(finite.all(axis=1).argmin())} of xq holds a number that is not finite"
            )


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

    def __post_init__(self) -> None:
        if not isinstance(self.by_width, dict) or not self.by_width:
            raise TypeError(f"by_width is {shown(self.by_width)}: it can be Encoded by label of width")

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


@dataclass(frozen=True)
class Paid:
    """Queries whose encoding at a width was counted before.

    Attributes:
        queries: that keep what they have encoded.
        width: that costs nothing more.
    """

    queries: Queries
    width: str

    def __len__(self) -> int:
        return len(self.queries)

    def encode(self, width: str) -> Encoded:
        """Encode all of them at a width."""
        encoded = self.queries.encode(width)
        return Encoded(encoded.xq, 0.0, 0.0) if width == self.width else encoded

    def take(self, which: Ints) -> Paid:
        """Some of them, by position."""
        return Paid(self.queries.take(which), self.width)
