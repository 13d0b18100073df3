"""A step whose numbers are not finite stops the run before it reaches the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

# Ids that an error lists.
SHOWN = 8


@dataclass(frozen=True)
class Entry:
    """What some losses belong to: a width's label, names of the terms, ids of the images."""

    width: str
    terms: tuple[str, ...]
    ids: Sequence[str]


def require_finite(step: int, own: Tensor, mean: Tensor, entries: Sequence[Entry]) -> None:
    """Raise `FloatingPointError` naming step, width and images if a loss is not finite.

    Args:
        own: (n,) losses of this process, those of the entries one after the other. mean: the same, averaged
            over processes.
    """
    if mean.isfinite().all():
        return
    named = [(entry, term) for entry in entries for term in entry.terms]
    for (entry, term), value in zip(named, own.tolist(), strict=True):
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{term} is {value} at step {step}, width {entry.width}, images {_some(entry.ids)}: are these"
                " sound? A lower optim.lr, or engine.precision fp32, may help"
            )
    raise FloatingPointError(f"a loss is not finite at step {step}, in another process")


def require_finite_gradient(step: int, norm: float, entries: Sequence[Entry]) -> None:
    """Raise `FloatingPointError` naming step and images if the norm of the gradient is not finite."""
    if not math.isfinite(norm):
        widths = ", ".join(dict.fromkeys(entry.width for entry in entries))
        ids = list(dict.fromkeys(image_id for entry in entries for image_id in entry.ids))
        raise FloatingPointError(
            f"the gradient's norm is {norm} at step {step}, widths {widths}, images {_some(ids)}"
        )


def _some(ids: Sequence[str]) -> str:
    more = len(ids) - SHOWN
    return ", ".join(ids[:SHOWN]) + (f" and {more} more" if more > 0 else "")
