"""A budget for one width, and what widths cost under it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from matmamba_common.errors import MatMambaError

from ..models import MatMamba
from ..width import Width
from .cost import count_macs, count_parameters
from .profile import LatencyProfile, MemoryProfile

# What a budget can limit, and how people read it.
KEYS = {
    "gmacs": "multiply-adds per image, billions",
    "params": "parameters",
    "latency_ms": "latency of a batch, ms",
    "memory_mb": "weights and peak of activations, MiB",
}
MEASURED = ("latency_ms", "memory_mb")
_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}
_EXAMPLES = "gmacs=2.0, params=5M, latency_ms=20 or memory_mb=64"

# What a width costs, in the unit of the budget's key.
Price: TypeAlias = Callable[[Width], float]


class BudgetError(MatMambaError):
    """A budget that says nothing usable, or that no width meets; the message says what would be allowed."""


@dataclass(frozen=True)
class Budget:
    """The most that a width may cost.

    Attributes:
        key: one of `KEYS`.
        limit: in the key's unit; a width may cost exactly as much.
    """

    key: str
    limit: float

    def __str__(self) -> str:
        return f"{self.key}={self.limit:.12g}"


def parse_budget(text: str) -> Budget:
    """The budget meant by "gmacs=2.0"; parameters can be given as 5000000, 5e6, 5M or 500k.

    Raises:
        BudgetError: no such key, or the limit is not a finite number above 0.
    """
    key, _, value = (part.strip() for part in text.partition("="))
    if key not in KEYS:
        raise BudgetError(f"budget {text!r} limits none of {', '.join(KEYS)}: give for example {_EXAMPLES}")
    limit = _number(value, _SUFFIXES if key == "params" else {"": 1.0})
    if not (math.isfinite(limit) and limit > 0):
        raise BudgetError(f"budget {text!r}: {value!r} is not a number above 0, as in {_EXAMPLES}")
    return Budget(key, limit)


def _number(text: str, suffixes: dict[str, float]) -> float:
    found = re.fullmatch(r"(.*?)([a-z]?)", text.lower())
    try:
        return float(found[1]) * suffixes[found[2]] if found else math.nan
    except (ValueError, KeyError):
        return math.nan


def make_price(model: MatMamba, key: str, levels: Sequence[Sequence[int]], batch_size: int = 1) -> Price:
    """What any width of `model` costs in the unit of `key`, each width counted once.

    Multiply-adds and parameters are exact. Memory is exact up to what measuring it would say; latency is
    predicted from a profile that is measured now, on the device of the model.

    Args:
        levels: for each block, ascending, the head counts to profile.
        batch_size: images in one forward.
    """
    if key == "latency_ms":
        return lru_cache(maxsize=None)(LatencyProfile(model, levels, batch_size).predict)
    if key == "memory_mb":
        return lru_cache(maxsize=None)(MemoryProfile(model, batch_size).predict)
    if key == "gmacs":
        return lru_cache(maxsize=None)(lambda width: count_macs(model, width) / 1e9)
    return lru_cache(maxsize=None)(lambda width: float(count_parameters(model, width)))


def require_possible(budget: Budget, model: MatMamba, smallest: Width, price: Price) -> None:
    """Raise `BudgetError` if not even the `smallest` width is within the budget."""
    least = price(smallest)
    if least > budget.limit:
        raise BudgetError(
            f"no width of this checkpoint is within {budget}: the smallest, {model.label(smallest)}, needs"
            f" {budget.key}={least:.4g}, and full {budget.key}={price(model.width('full')):.4g}"
        )
