"""Queries by example: images that the gallery has, queries joined with another, and moved away from some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError
from .queries import Encoded, Queries
from .searchable import Searchable

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Stored:
    """Images of a gallery as queries: nothing is encoded, at any width the stored vectors are asked with.

    Attributes:
        keys: (nq,) of the images.
    """

    gallery: Searchable
    keys: Ints

    def __len__(self) -> int:
        return len(self.keys)

    def encode(self, width: str) -> Encoded:
        """The stored vectors: of this width if the gallery has them, else those of its own."""
        return Encoded(self.gallery.vectors(self.keys, width).astype(np.float32), 0.0, 0.0)

    def take(self, which: Ints) -> Stored:
        """Some of them, by position."""
        return Stored(self.gallery, self.keys[which])


@dataclass(frozen=True)
class Joined:
    """Queries of several kinds, one after the other."""

    parts: Sequence[Queries]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def encode(self, width: str) -> Encoded:
        """Encode all parts at a width; multiply-adds and milliseconds are means over all queries."""
        encoded = [part.encode(width) for part in self.parts if len(part)]
        counts = np.array([len(part.xq) for part in encoded])
        macs = float(np.average([part.macs for part in encoded], weights=counts))
        ms = float(np.average([part.ms for part in encoded], weights=counts))
        return Encoded(np.concatenate([part.xq for part in encoded]), macs, ms)

    def take(self, which: Ints) -> Joined:
        """Some of them, by position, in the order of the parts; positions have to ascend."""
        starts = np.cumsum([0, *(len(part) for part in self.parts)])
        bounds = np.searchsorted(which, starts)
        pieces = zip(self.parts, starts, bounds[:-1], bounds[1:], strict=False)
        return Joined([part.take(which[first:last] - start) for part, start, first, last in pieces])


@dataclass(frozen=True)
class Towards:
    """Queries joined with one other: the mean of two vectors of length 1, normalised again, at each width.

    Attributes:
        other: a single one, such as a text.

    Raises:
        GalleryError: when a query is encoded that points away from the other, so that their mean is nothing.
    """

    queries: Queries
    other: Queries

    def __len__(self) -> int:
        return len(self.queries)

    def encode(self, width: str) -> Encoded:
        """Encode both; the other's cost is shared by the queries."""
        encoded, other = self.queries.encode(width), self.other.encode(width)
        joined = _unit(encoded.xq + other.xq, "a query is the opposite of what it is joined with")
        share = 1 / max(1, len(self.queries))
        return Encoded(joined, encoded.macs + share * other.macs, encoded.ms + share * other.ms)

    def take(self, which: Ints) -> Towards:
        """Some of the queries, by position."""
        return Towards(self.queries.take(which), self.other)


@dataclass(frozen=True)
class Away:
    """Queries moved away from negative examples: query - weight * mean of the negatives, normalised again.

    Rocchio's relevance feedback (1971) without its positive term, at each width with the vectors of that
    width.

    Attributes:
        negatives: the examples.
        weight: above 0; at 1 a query equal to its negative has no direction left.

    Raises:
        GalleryError: when a query is encoded that has no direction left, or the weight is not above 0.
    """

    queries: Queries
    negatives: Queries
    weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise GalleryError(f"the weight of negative examples is {self.weight:g}: it has to be above 0")

    def __len__(self) -> int:
        return len(self.queries)

    def encode(self, width: str) -> Encoded:
        """Encode both; the negatives' cost is shared by the queries."""
        encoded, away = self.queries.encode(width), self.negatives.encode(width)
        moved = _unit(
            encoded.xq - np.float32(self.weight) * away.xq.mean(0),
            "a query is so like its negative examples that nothing is left to search for",
        )
        share = len(self.negatives) / max(1, len(self.queries))
        macs, ms = encoded.macs + share * away.macs, encoded.ms + share * away.ms
        return Encoded(moved, macs, ms)

    def take(self, which: Ints) -> Away:
        """Some of the queries, by position."""
        return Away(self.queries.take(which), self.negatives, self.weight)


def _unit(vectors: Floats, nothing: str) -> Floats:
    """(n, D) brought to length 1; `GalleryError` with `nothing` where no direction is left."""
    lengths: Floats = np.linalg.norm(vectors, axis=1, keepdims=True)
    # What is left of equal vectors is rounding.
    if len(lengths) and lengths.min() < 1e-3:
        raise GalleryError(nothing)
    return vectors / lengths
