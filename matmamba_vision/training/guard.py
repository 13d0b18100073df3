"""A step whose numbers are not finite stops the run before it reaches the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..errors import NotFiniteError

# Ids that an error lists.
SHOWN = 8


@dataclass(frozen=True)
class LossRecord:
    """What some losses belong to.

    Attributes:
        width: its label.
        terms: names of the losses.
        ids: of the images.
    """

    width: str
    terms: tuple[str, ...]
    ids: Sequence[str]


def require_finite(step: int, own: Tensor, mean: Tensor, records: Sequence[LossRecord]) -> None:
    """Raise `NotFiniteError` naming step, width and images if a loss is not finite.

    Args:
        step: its number, from 0.
        own: (n,) losses of this process, those of the records one after the other.
        mean: the same, averaged over processes.
        records: what the losses belong to.
    """
    if mean.isfinite().all():
        return
    named = [(record, term) for record in records for term in record.terms]
    for (record, term), value in zip(named, own.tolist(), strict=True):
        if not math.isfinite(value):
            raise NotFiniteError(
                f"{term} is {value} at step {step}, width {record.width}, images {_some(record.ids)}:"
                " are these sound? A lower optim.lr, or engine.precision fp32, may help"
            )
    raise NotFiniteError(f"a loss is not finite at step {step}, in another process")


def require_finite_gradient(step: int, norm: float, records: Sequence[LossRecord]) -> None:
    """Raise `NotFiniteError` naming step and images if the norm of the gradient is not finite."""
    if not math.isfinite(norm):
        widths = ", ".join(dict.fromkeys(record.width for record in records))
        ids = list(dict.fromkeys(image_id for record in records for image_id in record.ids))
        raise NotFiniteError(
            f"the gradient's norm is {norm} at step {step}, widths {widths}, images {_some(ids)}"
        )


def _some(ids: Sequence[str]) -> str:
    more = len(ids) - SHOWN
    return ", ".join(ids[:SHOWN]) + (f" and {more} more" if more > 0 else "")
