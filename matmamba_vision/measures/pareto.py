"""The Pareto front: what nothing else beats in both quality and cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def pareto_front(known: Iterable[T], cost: Callable[[T], float], quality: Callable[[T], float]) -> list[T]:
    """Ascending in cost, those than which nothing at most as expensive is as good.

    Args:
        known: widths, strategies or points of a plot.
        cost: what one of them costs.
        quality: how good it is.
    """
    front: list[T] = []
    for one in sorted(known, key=lambda one: (cost(one), -quality(one))):
        if not front or quality(one) > quality(front[-1]):
            front.append(one)
    return front
