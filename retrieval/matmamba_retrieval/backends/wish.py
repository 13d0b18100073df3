"""Which vectors of a gallery are to be pushed, and how good and how large their search may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import GalleryError
from ..gallery.snapshot import Snapshot
from ..strategies.plan import Plan

# Share of the nearest by a prefix that a search of it is to find, where nothing else is asked for.
RECALL = 0.99


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked for of a push; what is left open is as it was, or is chosen.

    Attributes:
        dims: of prefixes, beside those that the gallery's plan compares.
        recall: share of the 10 nearest by a prefix that a list of 100 is to hold; 0 for no wish.
        memory: bytes of what every query goes through; 0 for no wish.

    Raises:
        GalleryError: a number that cannot be.
    """

    dims: tuple[int, ...] = ()
    recall: float = 0.0
    memory: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.recall <= 1:
            raise GalleryError(f"recall={self.recall:g}: a share can be above 0, at most 1")
        if not (math.isfinite(self.memory) and self.memory >= 0):
            raise GalleryError(f"memory of {self.memory:g} bytes: it has to be above 0")

    @staticmethod
    def kept(known: dict[str, Any], longest: int) -> Wish:
        """What `to_json` gave, but for prefixes that vectors of the longest dim do not have any more."""
        dims = tuple(dim for dim in known.get("dims", ()) if dim <= longest)
        return Wish(dims=dims, recall=known.get("recall", 0.0), memory=known.get("memory", 0.0))

    @property
    def given(self) -> bool:
        """Whether anything is asked for."""
        return self != Wish()

    def to_json(self) -> dict[str, Any]:
        """As a collection remembers it."""
        return {"dims": sorted(self.dims), "recall": self.recall, "memory": self.memory}


def vectors_of(gallery: Snapshot, dims: Sequence[int]) -> list[tuple[str, int]]:
    """Width and dim of the vectors that each point gets: full ones of each width, and prefixes.

    Args:
        gallery: whose plan, or where it has none whose indexes, say which prefixes are compared.
        dims: further prefixes, of the gallery's own width.

    Raises:
        GalleryError: a dim that no vector has.
    """
    spec = gallery.spec
    for dim in dims:
        if not 0 < dim <= spec.dim:
            raise GalleryError(f"no prefix has {dim} dims: the vectors of {gallery.folder} have {spec.dim}")
    prefixes = {(spec.width, dim) for dim in dims} | _compared(gallery)
    full = [(width, spec.dim) for width in (spec.width, *gallery.generation.widths)]
    return full + sorted(prefixes - set(full), key=lambda each: (each[0] != spec.width, *each))


def _compared(gallery: Snapshot) -> set[tuple[str, int]]:
    if gallery.plan is None:
        return {(record.width, record.dim) for record in gallery.shortlists()}
    steps = Plan.from_json(gallery.plan).strategy.steps
    return {(step.gallery_width, step.dim) for step in steps}
