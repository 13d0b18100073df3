"""One state of a gallery that was pushed, as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from ..errors import GalleryError
from ..strategies.strategy import Strategy
from .conditions_of_points import none_of
from .engine import BINARY, FLOAT16, INT8, Collection, Condition, Floats, Ints, StoredPoint, VectorField
from .layout import LABEL, Contents

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class PushedState:
    """What is seen of a collection: it changes as a whole.

    Attributes:
        collection: that answers.
        contents: what it said of itself.
        bound: strategies that were checked against it, by themselves and k.
        decided: what fulfils a filter, by its text, None if nothing can; of the last ones.
    """

    collection: Collection
    contents: Contents
    bound: dict[tuple[Strategy, int], Any] = field(default_factory=dict, compare=False, repr=False)
    decided: dict[str, Condition | None] = field(default_factory=dict, compare=False, repr=False)

    @property
    def place(self) -> str:
        """As messages name it."""
        return self.collection.place

    @cached_property
    def has_labels(self) -> bool:
        """Whether any image has one."""
        return self.collection.count(none_of([{"is_empty": {"key": LABEL}}])) > 0

    def field(self, width: str, dim: int) -> VectorField:
        """The vectors of so many coordinates of a width; `GalleryError` if they were not pushed."""
        found = self.contents.vector(width, dim)
        if found is None:
            known = ", ".join(f"{each.dim} dims of width {each.width}" for each in self.contents.fields)
            raise GalleryError(
                f"{self.place} has no vectors of {dim} dims of width {width} (pushed: {known})"
            )
        return found

    def vectors(self, keys: Ints, width: str = "") -> Floats:
        """(n, D) stored vectors: of a further width if the gallery has them, else those of its own."""
        spec, widths = self.contents.spec, self.contents.widths
        field = self.field(width if width in widths else spec.width, spec.dim)
        points = self.collection.retrieve(keys, [field.name], payload=False)
        found = {point.key: self._vector(point, field.name) for point in points}
        rows = [found[key] if key in found else self.gone(key) for key in keys.tolist()]
        return np.stack(rows) if rows else np.empty((0, spec.dim), dtype=np.float32)

    def _vector(self, point: StoredPoint, name: str) -> Floats:
        if name not in point.vectors:
            raise GalleryError(
                f"{self.place} is damaged: the point of key {point.key} has no vector {name!r}"
            )
        return point.vectors[name]

    def gone(self, key: int) -> NoReturn:
        """Raise `GalleryError`: there is no image of a key, or not any more."""
        raise GalleryError(f"{self.place} has no image of key {key}: it may have been deleted by a push")


def bytes_of(field: VectorField) -> int:
    """Of one vector as it is compared first: as a code, if there is one."""
    numbers = FLOAT32_BYTES if field.datatype != FLOAT16 else 2
    return {INT8: field.dim, BINARY: -(-field.dim // 8)}.get(field.quantisation, numbers * field.dim)
