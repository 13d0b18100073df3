"""Requests that come at random to workers that take as long as a table says: the policy alone."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from matmamba_vision.serving.policy import Chosen, Policy, Ticket
from matmamba_vision.serving.waiting import Waiting

# A mini on one core: milliseconds of one image with its search at full width, 1/2, 1/4 and 1/8.
MINI_MS = (9.0, 5.9, 4.1, 3.1)
WIDTHS = len(MINI_MS)
FULL, NARROW, ANY = (0, 0), (WIDTHS - 1, WIDTHS - 1), (0, WIDTHS - 1)
MOST, SLO, MARGIN = 16, 0.1, 0.008
# Of every ten seconds, two have this many times the rate of the others.
BURST = 2.0


@dataclass(frozen=True)
class Steady:
    """A lane whose images take the same each, and a little more for each batch.

    Attributes:
        each: seconds of one image, by rank.
        once: seconds of a batch besides.
    """

    each: tuple[float, ...] = tuple(ms / 1e3 for ms in MINI_MS)
    once: float = 3e-4

    def seconds(self, rank: int, count: int) -> float:
        """What so many take together."""
        return self.once + self.each[rank] * count


@dataclass
class Outcome:
    """What became of the requests.

    Attributes:
        asked: how many there were.
        in_time: answered before their deadline.
        shed: sent away.
        ranks: answered, by rank of the width.
    """

    asked: int = 0
    in_time: int = 0
    shed: int = 0
    ranks: Counter[int] = field(default_factory=Counter)

    @property
    def answered(self) -> int:
        """How many were answered, in time or not."""
        return self.ranks.total()

    def share(self, rank: int) -> float:
        """Of the answers, those of a width."""
        return self.ranks[rank] / max(1, self.answered)


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests come: Poisson, with bursts, `rate` on the average."""
    rng, now, found = random.Random(seed), 0.0, list[float]()
    base = rate * 10 / (8 + 2 * BURST)
    while now < seconds:
        now += rng.expovariate(base * (BURST if now % 10 < 2 else 1))
        found.append(now)
    return found


def simulate(
    times: Sequence[float],
    ranks: tuple[int, int],
    *,
    workers: int = 2,
    lane: Steady | None = None,
    noise: float = 0.08,
    seed: int = 0,
) -> Outcome:
    """What becomes of requests that come at some times.

    Args:
        times: in seconds, ascending.
        ranks: of the widest and the narrowest width that may encode them.
        workers: that compute.
        lane: what they take; the table of a mini by default, which is what 95 of 100 keep.
        noise: standard deviation of what a batch really takes, as a share.
        seed: of that.
    """
    lane, rng, outcome = lane or Steady(), random.Random(seed), Outcome(asked=len(times))
    waiting = Waiting(policy=Policy(workers=workers, most=MOST, margin=MARGIN), longest=256)
    free, count = list(range(workers)), len(times)
    ahead: list[tuple[float, int, tuple[int, Chosen] | None]] = [(t, n, None) for n, t in enumerate(times)]
    heapq.heapify(ahead)
    while ahead:
        now, _, done = heapq.heappop(ahead)
        if done is None:
            ticket = Ticket(lane=lane, deadline=now + SLO, widest=ranks[0], narrowest=ranks[1], came=now)
            if waiting.late(ticket, now) > 0:
                waiting.press(now)
                outcome.shed += 1
            else:
                waiting.add(ticket)
        else:
            worker, chosen = done
            waiting.done(worker)
            free.append(worker)
            outcome.ranks[chosen.rank] += len(chosen.tickets)
            outcome.in_time += sum(now <= ticket.deadline for ticket in chosen.tickets)
        while free:
            outcome.shed += len(waiting.lost(now))
            taken = waiting.take(free[-1], now)
            if taken is None:
                break
            count += 1
            took = taken.seconds * max(0.6, rng.gauss(0.9, noise))
            heapq.heappush(ahead, (now + took, count, (free.pop(), taken)))
    return outcome
