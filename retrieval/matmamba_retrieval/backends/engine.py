"""What a vector engine has to be able to do, in plain values: keys, arrays and dictionaries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

# Of points by their payload or keys, as Qdrant's JSON has it: see `filters.py`.
Condition = dict[str, Any]

# Of no point.
NO_KEY = -1
# Kinds of payload indexes.
KEYWORD, INTEGER, FLOAT, BOOL = "keyword", "integer", "float", "bool"
# How numbers of vectors are stored, and what is compared in their place first.
FLOAT32, FLOAT16 = "float32", "float16"
INT8, BINARY = "int8", "binary"
# So many times k are found by codes, and compared by their numbers.
OVERSAMPLING = 3.0


@dataclass(frozen=True, kw_only=True)
class VectorField:
    """One vector of each point.

    Attributes:
        name: that the engine knows it by.
        width: label of the width that made it.
        dim: coordinates.
        links: of each point in the HNSW graph (its m); 0 for none, and every point is compared.
        effort: candidates while the graph is built (its ef_construct).
        datatype: "float32", or "float16", in which queries are rounded, too.
        quantisation: "int8" or "binary" for codes that are compared first, in memory; "" for none.
        on_disk: whether the numbers lie on the disk, read when asked for; else in memory, as codes do.
        search_effort: candidates while a graph is searched (ef) that were measured to be enough; 0 for none.
    """

    name: str
    width: str
    dim: int
    links: int = 0
    effort: int = 128
    datatype: str = FLOAT32
    quantisation: str = ""
    on_disk: bool = False
    search_effort: int = 0

    @property
    def approximate(self) -> bool:
        """Whether a search may miss some of the nearest, unless it is told to compare all exactly."""
        return bool(self.links or self.quantisation) or self.datatype != FLOAT32

    @property
    def index(self) -> str:
        """How it is called what it is searched by: flat, hnsw16, int8, hnsw16-int8, binary, or float16."""
        numbers = self.quantisation or ("" if self.datatype == FLOAT32 else self.datatype)
        return "-".join(filter(None, (f"hnsw{self.links}" if self.links else "", numbers))) or "flat"


@dataclass(frozen=True)
class StoredPoint:
    """What an engine has of one image.

    Attributes:
        key: of the image in its gallery.
        payload: id, path, label and metadata; empty if it was not asked for.
        vectors: those that were asked for, by name, (dim,) float32.
    """

    key: int
    payload: dict[str, Any]
    vectors: dict[str, Floats] = field(default_factory=dict)

    @staticmethod
    def of(record: Any, vectors: Sequence[str]) -> StoredPoint:
        """That of an engine's record, with some of its vectors."""
        found = record.vector or {}
        arrays = {name: np.array(found[name], dtype=np.float32) for name in vectors if name in found}
        return StoredPoint(int(record.id), dict(record.payload or {}), arrays)


class Stage(NamedTuple):
    """One comparison of queries: with all points, or with those that the stage before it kept.

    Attributes:
        field: vectors that are compared.
        xq: (nq, dim) of length 1.
        length: points that are kept.
        exact: whether all are compared by their vectors, whatever graph or codes there are.
        effort: candidates while a graph is searched; 0 for as many as the field has it.
    """

    field: VectorField
    xq: Floats
    length: int
    exact: bool = True
    effort: int = 0


class ScoredPoint(NamedTuple):
    """A point that a query has found.

    Attributes:
        key: of the image in its gallery.
        score: inner product with the query.
        payload: id, path, label and metadata; empty if it was not asked for.
    """

    key: int
    score: float
    payload: dict[str, Any]


class Collection(Protocol):
    """One collection that is there, open.

    Raises:
        GalleryError: whatever the engine refuses, or cannot be reached; the message names the place.
    """

    # As users named it, for messages.
    place: str
    # Whether conditions find truth values.
    truth_values: bool

    def about(self) -> dict[str, Any]:
        """What is remembered with the collection, as JSON; empty if nothing of ours is."""
        ...

    def note(self, values: Mapping[str, Any]) -> None:
        """Remember some more, in the place of what has the same names, when all changes before are safe."""
        ...

    def upsert(
        self, keys: Ints, vectors: Mapping[str, Floats], payloads: Sequence[Mapping[str, Any]]
    ) -> None:
        """Put points in, in the place of those with the same keys.

        Args:
            keys: (n,).
            vectors: (n, dim) by name.
            payloads: n JSON objects.
        """
        ...

    def delete(self, keys: Ints) -> None:
        """Take points out; keys that are not there are passed over."""
        ...

    def count(self, condition: Condition | None = None) -> int:
        """How many points there are, exactly; with a condition, that fulfil it."""
        ...

    def keys(self, first: int = 0) -> Iterator[Ints]:
        """All keys from `first` on, ascending, in blocks."""
        ...

    def retrieve(self, keys: Ints, vectors: Sequence[str] = (), *, payload: bool = True) -> list[StoredPoint]:
        """Points by their keys, in this order; those that are not there are left out."""
        ...

    def query(
        self, stages: Sequence[Stage], condition: Condition | None = None, *, payload: bool = True
    ) -> list[list[ScoredPoint]]:
        """The best points for each query, in one call, best first; the first stage's fulfil the condition.

        The order of equal scores is the engine's.
        """
        ...

    def scroll(self, condition: Condition, parts: Sequence[str] = ()) -> Iterator[list[StoredPoint]]:
        """Points that fulfil a condition, by ascending keys, in blocks; of the payload some parts alone."""
        ...

    def index_payload(self, name: str, kind: str) -> None:
        """Index a part of the payload, such as "metadata.year", for filters; once is enough.

        Args:
            name: its path.
            kind: of its values; "" for no index, where there was one.
        """
        ...

    def finish(self, fields: Sequence[VectorField]) -> None:
        """Build graphs and codes of these vectors, where they have any; returns when that is done."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Store(Protocol):
    """A place under which one collection answers, and others are made beside it to take its place.

    Raises:
        GalleryError: as `Collection`.
    """

    # As users named it.
    place: str

    def about(self) -> dict[str, Any] | None:
        """What is remembered with the collection that answers, which is not opened; None if there is none."""
        ...

    def current(self) -> Collection | None:
        """The collection that answers; None if there is none."""
        ...

    def staged(self, token: str) -> Collection | None:
        """One that was begun under a name of ours and is not current; None if it is not there."""
        ...

    def create(self, token: str, fields: Sequence[VectorField], about: Mapping[str, Any]) -> Collection:
        """A new, empty one beside the current."""
        ...

    def publish(self, token: str) -> None:
        """Have a staged one answer, in one moment; others that were made for this place are removed."""
        ...

    def close(self) -> None:
        """Let go of it, and of all that it opened."""
        ...
