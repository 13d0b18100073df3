"""How good answers are: which are compared with the exact ones, what that says, and which widths are too bad.

An interval of a share of hits is not that of so many coin tosses: the hits of one query are found or missed
together. The sample counts as so many independent hits as have the variance that was seen between queries
(its design effect: Kish, Survey Sampling, 1965), and Wilson's interval (1927) is taken of that number, as
Franco et al. (Comparative study of confidence intervals for proportions in complex sample surveys, 2019) do.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from .question import LiveRecall

T = TypeVar("T")
# Hits that are compared.
DEPTH = 10
# Of a normal distribution, 95 % lie within so many standard deviations.
Z_95 = 1.959964
# The variance between queries is shrunk towards the largest possible, as if so many were all or nothing:
# few queries, most of them perfect, know it badly.
ALL_OR_NOTHING = 12.0
# Compared answers of a width that count, and how many make a width too bad, or good again.
WINDOW, ENOUGH = 400, 30
# Answers that wait to be compared.
MOST_PENDING = 128


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's interval at 95 % of a share of `count` independent trials."""
    half = Z_95 * math.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2))
    middle, scale = share + Z_95**2 / (2 * count), 1 + Z_95**2 / count
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def independent_hits(overlaps: Sequence[float]) -> float:
    """How many independent hits say as much as the shares of hits that these queries had.

    Between one and `DEPTH` for each query.
    """
    shares, count = np.asarray(overlaps, dtype=np.float64), len(overlaps)
    mean = float(shares.mean())
    largest = mean * (1 - mean)
    if count < 2 or largest <= 0:
        return float(count)
    between = (count * float(shares.var()) + ALL_OR_NOTHING * largest) / (count + ALL_OR_NOTHING)
    between *= count / (count - 1)
    return min(max(count * largest / between, float(count)), float(DEPTH * count))


def recall_of(compared: Sequence[tuple[float, bool]]) -> LiveRecall | None:
    """What compared answers say of a width.

    Args:
        compared: of each the share of the exact first hits that it had, and whether its first was the exact
            one.
    """
    if not compared:
        return None
    overlaps = [overlap for overlap, _ in compared]
    estimate = sum(overlaps) / len(overlaps)
    low, high = wilson(min(estimate, 1.0), independent_hits(overlaps))
    same = sum(first for _, first in compared) / len(compared)
    return LiveRecall(estimate=estimate, low=low, high=high, same_first=same, samples=len(compared))


def compared_hits(found: Sequence[str], exact: Sequence[str], depth: int = DEPTH) -> tuple[float, bool]:
    """Share of the first exact hits that were found, and whether the first hit was the exact one.

    Args:
        found: ids of an answer's hits, best first.
        exact: ids of the exact answer's.
        depth: how many are compared.
    """
    wanted, same_first = {*exact[:depth]}, [*found[:1]] == [*exact[:1]]
    if not wanted:
        return float(not found), same_first
    return len(wanted & {*found[:depth]}) / len(wanted), same_first


class Sampler(Generic[T]):
    """Which answers are compared: of each stratum the same share, at random places.

    Of every 1 / share answers of a stratum one is taken, each with equal probability. What waits to be
    compared is bounded: beyond that, a new one takes the place of a random one.

    Args:
        share: of the answers that are taken, in 0..1.
        seed: of what is left to chance.
    """

    def __init__(self, share: float, seed: int | None = None) -> None:
        self._every = 0 if share <= 0 else max(1, round(1 / share))
        self._random = random.Random(seed)
        # Answers that have passed in the present block of each stratum, and the place of the one to take.
        self._blocks: dict[Hashable, tuple[int, int]] = {}
        self._pending: list[T] = []

    def __len__(self) -> int:
        return len(self._pending)

    def takes(self, stratum: Hashable) -> bool:
        """Whether the answer that comes now is one to compare."""
        if not self._every:
            return False
        passed, place = self._blocks.get(stratum, (0, self._random.randrange(self._every)))
        taken = passed == place
        passed += 1
        if passed == self._every:
            passed, place = 0, self._random.randrange(self._every)
        self._blocks[stratum] = passed, place
        return taken

    def keep(self, sample: T) -> None:
        """Have it compared when there is time."""
        if len(self._pending) < MOST_PENDING:
            self._pending.append(sample)
        else:
            self._pending[self._random.randrange(MOST_PENDING)] = sample

    def pop(self) -> T | None:
        """One to compare now, a random one; None if there is none."""
        if not self._pending:
            return None
        place = self._random.randrange(len(self._pending))
        self._pending[place], self._pending[-1] = self._pending[-1], self._pending[place]
        return self._pending.pop()


@dataclass
class Windows:
    """What was compared lately, of one gallery, by width; and which widths are too bad.

    A width is too bad when its estimate is below the floor, and good again when its interval is not.

    Attributes:
        widths: labels, the widest first.
        floor: recall that a width has to have; 0 for none.
        bad: widths that are not used.
    """

    widths: tuple[str, ...]
    floor: float = 0.0
    bad: set[str] = field(default_factory=set)
    _compared: dict[str, deque[tuple[float, bool]]] = field(default_factory=dict)
    _recalls: dict[str, LiveRecall | None] = field(default_factory=dict)

    def add(self, width: str, overlap: float, same_first: bool) -> bool:
        """Note what was compared; whether other widths may be used now than before."""
        known = self._compared.setdefault(width, deque(maxlen=WINDOW))
        known.append((overlap, same_first))
        before, recall = self.narrowest, recall_of(known)
        self._recalls[width] = recall
        if recall is not None and recall.samples >= ENOUGH:
            if recall.estimate < self.floor:
                self.bad.add(width)
            elif recall.low >= self.floor:
                self.bad.discard(width)
        return self.narrowest != before

    def compared(self, width: str) -> list[tuple[float, bool]]:
        """What was compared of a width."""
        return list(self._compared.get(width, ()))

    def recall(self, width: str) -> LiveRecall | None:
        """What that says; None where nothing was compared."""
        return self._recalls.get(width)

    @property
    def narrowest(self) -> int:
        """Rank of the narrowest width that is used: all wider ones are good. The widest always is."""
        bad = [rank for rank, width in enumerate(self.widths) if width in self.bad and rank > 0]
        return min(bad, default=len(self.widths)) - 1

    @property
    def on_trial(self) -> str:
        """The widest width that is not used, and still compared: it can come back. "" if all are used."""
        rank = self.narrowest + 1
        return self.widths[rank] if rank < len(self.widths) else ""
