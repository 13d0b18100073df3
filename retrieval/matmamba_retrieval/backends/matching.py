"""Images that a search of a collection may answer with."""

from __future__ import annotations

from dataclasses import dataclass

from matmamba_common.words import shown

from ..strategies.searchable import Selection
from .engine import Condition
from .pushed_state import PushedState


@dataclass(frozen=True)
class Matching:
    """Images that fulfil a condition.

    Attributes:
        condition: of the engine; None where no image can fulfil what was asked for.
    """

    condition: Condition | None

    def any(self) -> bool:
        """Whether there may be one: the engine is not asked."""
        return self.condition is not None

    def total(self, state: PushedState) -> int:
        """How many there are."""
        return 0 if self.condition is None else state.collection.count(self.condition)

    @staticmethod
    def of(allowed: Selection | None) -> Matching | None:
        """What `PushedGallery.allowed` gave; `TypeError` if it is something else."""
        if allowed is not None and not isinstance(allowed, Matching):
            raise TypeError(f"allowed is {shown(allowed)}: it has to come from the gallery")
        return allowed
