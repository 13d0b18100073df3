"""Which requests are computed next, together, and how wide: pure functions of what waits and what it takes.

Earliest deadline first. Of the pairs of a width and a number of images that fit, the one of most images is
taken, and of these the widest. A pair fits if the earliest deadline is kept, and everybody behind can still
be in time at the narrowest width. So widths are as wide as what waits allows, and requests get narrower
instead of late. Where no pair fits, the narrowest width computes as many as keep the earliest deadline.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Lane(Protocol):
    """Requests that can be computed together: those of one gallery's version, of one kind."""

    def seconds(self, rank: int, count: int) -> float:
        """That `count` of them take together at a width; `rank` counts from 0, the widest."""
        ...


@dataclass(eq=False, kw_only=True)
class Ticket:
    """A request, as far as it matters when it is answered, and how wide.

    Attributes:
        lane: it can be computed together with others of the same one.
        deadline: in seconds.
        widest: rank of the widest width that may encode it, 0 for the widest there is.
        narrowest: rank of the narrowest one.
        ready: whether it can be computed: its image is prepared.
        tried: whether it was let in because nobody else was there, though it may be late: what is expected
            may be wrong, and would never be mended if nobody were let in.
        came: when, in seconds.
    """

    lane: Lane
    deadline: float
    widest: int
    narrowest: int
    ready: bool = True
    tried: bool = False
    came: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a worker computes next.

    Attributes:
        tickets: of it, earliest deadline first.
        rank: of the width.
        seconds: that it should take.
    """

    tickets: tuple[Ticket, ...]
    rank: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How requests share the workers.

    Attributes:
        workers: that compute.
        most: requests that are computed together.
        margin: seconds that an answer takes beside what is computed.
    """

    workers: int
    most: int
    margin: float

    def late(self, ticket: Ticket, waiting: Iterable[Ticket], now: float, busy: Sequence[float]) -> float:
        """Seconds that it would be late, even at the narrowest width; 0 or less if it can be in time.

        Args:
            ticket: that has just come.
            waiting: those before it.
            now: in seconds.
            busy: seconds that are left of what each busy worker computes.
        """
        before = sum(self.least(other) for other in waiting if other.deadline <= ticket.deadline)
        idle = self.workers - len(busy)
        delay = 0.0 if idle > 0 and not before else (sum(busy) + before) / self.workers
        return now + delay + ticket.lane.seconds(ticket.narrowest, 1) + self.margin - ticket.deadline

    def is_lost(self, ticket: Ticket, now: float) -> bool:
        """Whether it cannot be in time any more, even if it is computed alone now, at the narrowest width."""
        if ticket.tried:
            return now > ticket.deadline
        return now + ticket.lane.seconds(ticket.narrowest, 1) + self.margin > ticket.deadline

    def choose(
        self, waiting: Sequence[Ticket], now: float, busy: Sequence[float], *, pressed: bool = False
    ) -> Chosen:
        """What is computed next.

        Args:
            waiting: those that are not lost, earliest deadline first; one at least is ready.
            now: in seconds.
            busy: seconds that are left of what each other busy worker computes.
            pressed: whether others had to be sent away, or would have to be soon: then the narrowest width
                makes room for the next.
        """
        head = next(ticket for ticket in waiting if ticket.ready)
        if pressed:
            return self._narrowest(waiting, head, now)
        behind = _Behind.of(self, waiting, now, sum(busy))
        idle = self.workers - len(busy)
        found = [
            pair
            for rank in range(head.widest, head.narrowest + 1)
            if (pair := self._pair(waiting, head, rank, now, idle, behind)) is not None
        ]
        # Of equally many images the first is the widest.
        return (
            max(found, key=lambda pair: len(pair.tickets)) if found else self._narrowest(waiting, head, now)
        )

    def _pair(
        self, waiting: Sequence[Ticket], head: Ticket, rank: int, now: float, idle: int, behind: _Behind
    ) -> Chosen | None:
        """Most images at a width that fit, None if not even one does."""
        places = self._together(waiting, head, rank)
        # Idle workers share what waits, rather than one of them taking all.
        places = places[: -(-len(places) // max(1, idle))]
        for count in range(len(places), 0, -1):
            chosen = _chosen(waiting, places[:count], rank)
            if now + chosen.seconds + self.margin <= head.deadline and behind.in_time(
                places[:count], chosen.seconds
            ):
                return chosen
        return None

    def _together(self, waiting: Sequence[Ticket], head: Ticket, rank: int) -> list[int]:
        """Places of the first that can be computed together with the very first, at a width."""
        found: list[int] = []
        for place, ticket in enumerate(waiting):
            if ticket.ready and ticket.lane is head.lane and ticket.widest <= rank <= ticket.narrowest:
                found.append(place)
                if len(found) == self.most:
                    break
        return found

    def _narrowest(self, waiting: Sequence[Ticket], head: Ticket, now: float) -> Chosen:
        """As many as keep the earliest deadline at the narrowest width of the first; one at least."""
        places = self._together(waiting, head, head.narrowest)
        count = len(places)
        while count > 1 and now + head.lane.seconds(head.narrowest, count) + self.margin > head.deadline:
            count -= 1
        return _chosen(waiting, places[:count], head.narrowest)

    def has_time(
        self, ticket: Ticket, seconds: float, waiting: Sequence[Ticket], now: float, busy: Sequence[float]
    ) -> bool:
        """Whether more can be done for a request: it is in time, and those that wait still can be.

        Args:
            ticket: that is being computed.
            seconds: that more takes.
            waiting: others, earliest deadline first.
            now: in seconds.
            busy: seconds that are left of what each other busy worker computes.
        """
        if now + seconds + self.margin > ticket.deadline:
            return False
        return _Behind.of(self, waiting, now, sum(busy)).in_time((), seconds)

    def least(self, ticket: Ticket) -> float:
        """Seconds of a worker that a request takes at least: its share of the most images, the narrowest."""
        return ticket.lane.seconds(ticket.narrowest, self.most) / self.most


def _chosen(waiting: Sequence[Ticket], places: Sequence[int], rank: int) -> Chosen:
    tickets = tuple(waiting[place] for place in places)
    return Chosen(tickets=tickets, rank=rank, seconds=tickets[0].lane.seconds(rank, len(tickets)))


class _Behind:
    """Whether those that wait behind a batch can still be in time, each at its narrowest width.

    They share the workers evenly, in the order of their deadlines.
    """

    def __init__(self, workers: int, busy: float, work: Sequence[float], spare: Sequence[float]) -> None:
        self._workers, self._busy, self._work, self._spare = workers, busy, work, spare
        # The least spare time from each place on.
        self._from = [*spare, float("inf")]
        for place in range(len(spare) - 1, -1, -1):
            self._from[place] = min(self._from[place], self._from[place + 1])

    @staticmethod
    def of(policy: Policy, waiting: Sequence[Ticket], now: float, busy: float) -> _Behind:
        """For those that wait; `busy`: seconds that are left of what is computed, of all workers together."""
        work, spare, before = [], [], 0.0
        for ticket in waiting:
            alone = ticket.lane.seconds(ticket.narrowest, 1)
            work.append(policy.least(ticket))
            # What is left of its time if the workers did only what waits before it.
            spare.append(ticket.deadline - policy.margin - now - alone - before / policy.workers)
            before += work[-1]
        return _Behind(policy.workers, busy, work, spare)

    def in_time(self, taken: Sequence[int], seconds: float) -> bool:
        """Whether all others can be, while those at some places are computed for some seconds."""
        delay = (self._busy + seconds - sum(self._work[place] for place in taken)) / self._workers
        end = taken[-1] + 1 if taken else 0
        skipped = {*range(end)} - {*taken}
        return min([self._from[end], *(self._spare[place] for place in skipped)]) >= delay
