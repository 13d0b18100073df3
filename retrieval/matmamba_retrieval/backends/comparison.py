"""Whether a collection holds what its gallery holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matmamba_common.counts import counted

from ..gallery.snapshot import Snapshot
from ..index.rerank import prefix
from .engine import FLOAT16, Collection, Floats, Ints, StoredPoint, VectorField
from .layout import EXACT, Contents, payload_of

# Images whose vectors and payload are compared, taken by chance.
SAMPLED = 500
# Read at once.
AT_ONCE = 100
# Faults that are named.
NAMED = 3
# Of a number that is rounded to float16.
HALF_STEP = 2.0**-11
# Of decimals in metadata, which engines keep to so much of their size.
LAST_DIGITS = 2.0**-50


@dataclass(frozen=True, kw_only=True)
class PushCheck:
    """What a comparison of a collection with its gallery found.

    Attributes:
        images: that the gallery had when it was pushed.
        counted: points of the collection.
        sampled: images whose vectors and payload were compared.
        faults: in words; empty if all is as it was pushed.
        added: images of the gallery that came since, and are not pushed.
        deleted: images that went since.
    """

    images: int
    counted: int
    sampled: int
    faults: list[str] = field(default_factory=list)
    added: int = 0
    deleted: int = 0

    @property
    def whole(self) -> bool:
        """Whether the collection is what was pushed."""
        return not self.faults


def compare(
    gallery: Snapshot, collection: Collection, contents: Contents, *, every_key: bool = False
) -> PushCheck:
    """Count, and compare a sample of vectors and payload: to the bit where numbers are kept as float32.

    Args:
        gallery: that was pushed.
        collection: that holds it.
        contents: what the collection says of it.
        every_key: compare the keys of all points, too, which reads them all.
    """
    live = pushed_keys(gallery, contents)
    counted = collection.count()
    faults = []
    if counted != len(live):
        faults.append(f"it has {counted:,} points for {len(live):,} images")
    if every_key:
        faults += _wrong_keys(collection, live)
    seed = np.random.default_rng()
    sample = np.sort(seed.permutation(len(live))[:SAMPLED])
    if len(live):  # the last are those that a push which was cut short lacks
        sample = np.unique(np.append(sample, len(live) - 1))
    faults += list(_differences(gallery, collection, contents, live[sample]))
    now = gallery.live_keys()
    return PushCheck(
        images=len(live),
        counted=counted,
        sampled=len(sample),
        faults=faults,
        added=int((now >= contents.keys).sum()),
        deleted=len(np.setdiff1d(live, now)),
    )


def pushed_keys(gallery: Snapshot, contents: Contents) -> Ints:
    """Keys of the images that were live when a gallery was pushed, ascending."""
    gone = gallery.catalog.gone(contents.generation, range(contents.keys))
    dead = [key for key, version in gone.items() if version <= contents.version]
    return np.setdiff1d(np.arange(contents.keys), np.array(dead, dtype=np.int64), assume_unique=True)


def _wrong_keys(collection: Collection, live: Ints) -> list[str]:
    there = np.concatenate([np.empty(0, dtype=np.int64), *collection.keys()])
    lost, foreign = np.setdiff1d(live, there), np.setdiff1d(there, live)
    found = [f"{counted(len(lost), 'image')} missing, the first of key {lost[0]}"] if len(lost) else []
    if len(foreign):
        found.append(f"{counted(len(foreign), 'point')} of no image, the first of key {foreign[0]}")
    return found


def _differences(gallery: Snapshot, collection: Collection, contents: Contents, keys: Ints) -> Iterator[str]:
    names = [vector.name for vector in contents.fields]
    wrong: list[str] = []
    for first in range(0, len(keys), AT_ONCE):
        part = keys[first : first + AT_ONCE]
        points = {point.key: point for point in collection.retrieve(part, names)}
        wanted = {vector: vectors_at(gallery, vector, part) for vector in contents.fields}
        for place, (key, row) in enumerate(zip(part.tolist(), gallery.rows(part), strict=True)):
            expected = {vector: values[place] for vector, values in wanted.items()}
            if fault := _fault(points.get(key), payload_of(row), expected):
                wrong.append(f"{row.id!r} {fault}")
    yield from wrong[:NAMED]
    if len(wrong) > NAMED:
        yield f"{len(wrong) - NAMED} more of {len(keys)} images that were compared differ"


def _fault(point: StoredPoint | None, payload: dict[str, Any], expected: dict[VectorField, Floats]) -> str:
    if point is None:
        return "is missing"
    if not _alike(point.payload, payload):
        return "has other metadata, path or label"
    for vector, values in expected.items():
        found = point.vectors.get(vector.name)
        if found is None or not _same(found, values, vector):
            return f"has another vector {vector.name}"
    return ""


def _alike(found: Any, expected: Any) -> bool:
    """Whether payloads are the same, but for last digits of decimals; earlier pushes kept no exact ones."""
    if isinstance(found, dict) and isinstance(expected, dict):
        names = (found.keys() | expected.keys()) - ({EXACT} if EXACT not in found else set())
        return all(
            name in found and name in expected and _alike(found[name], expected[name]) for name in names
        )
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(_alike, found, expected))
    if isinstance(expected, float) and isinstance(found, int | float):
        return math.isclose(found, expected, rel_tol=LAST_DIGITS)
    return type(found) is type(expected) and bool(found == expected)


def _same(found: Floats, expected: Floats, vector: VectorField) -> bool:
    if vector.datatype == FLOAT16:
        return np.allclose(found, expected, rtol=HALF_STEP, atol=2.0**-24)
    return np.array_equal(found, expected)


def vectors_at(gallery: Snapshot, vector: VectorField, keys: Ints) -> Floats:
    """The (n, dim) vectors of a field, as they are pushed."""
    return prefix(gallery.segments_of(vector.width).read(keys), vector.dim)
