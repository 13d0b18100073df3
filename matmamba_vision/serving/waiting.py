"""Requests that wait, earliest deadline first: who is let in, who is computed next, and who is given up."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

from .policy import Chosen, Policy, Ticket

# Two images together have to take less than this share of two one by one, for one to wait for the other.
WORTH = 0.75
# Seconds for which those who come after somebody was sent away are made room for.
PRESSED = 1.0
# Where those who came lately take this share of the workers' time even at the narrowest width, wider ones
# would be at the cost of those who come next. So long is lately, in seconds.
CROWDED, LATELY = 0.7, 0.25


@dataclass(kw_only=True)
class Waiting:
    """What waits and what is computed; time is given, so that it can be simulated. One thread at a time.

    Attributes:
        policy: who is computed next, and how wide.
        longest: requests that wait at most.
        hold: seconds that a request waits at most for others to be computed with.
        running: when each busy worker should be done, in seconds.
    """

    policy: Policy
    longest: int
    hold: float = 0.0
    running: dict[Hashable, float] = field(default_factory=dict)
    _tickets: list[Ticket] = field(default_factory=list)
    _pressed_until: float = float("-inf")
    # When requests were let in lately, and what each takes of a worker at least, in seconds.
    _came: deque[tuple[float, float]] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._tickets)

    def late(self, ticket: Ticket, now: float) -> float:
        """Seconds that a request would be late if it were let in; 0 or less if it can be in time."""
        if len(self) >= self.longest:
            # Half of what waits has to go: until then others would only be sent away.
            half = sum(map(self.policy.least, self._tickets)) / self.policy.workers / 2
            return max(half, 1e-3)
        late = self.policy.late(ticket, self._tickets, now, self._left(now))
        if late > 0 and not self._tickets and not self.running:
            ticket.tried = True
            return now + self.policy.margin - ticket.deadline
        return late

    def press(self, now: float) -> None:
        """Somebody was sent away: for a while the narrowest widths make room for those who come next."""
        self._pressed_until = now + PRESSED

    def add(self, ticket: Ticket) -> int:
        """Let a request in; how many there were."""
        position = len(self)
        insort(self._tickets, ticket, key=lambda one: one.deadline)
        self._came.append((ticket.came, self.policy.least(ticket)))
        return position

    def remove(self, ticket: Ticket) -> None:
        """Forget a request, if it still waits."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)

    def clear(self) -> list[Ticket]:
        """Forget all requests; those that there were."""
        cleared, self._tickets = self._tickets, []
        return cleared

    def lost(self, now: float) -> list[Ticket]:
        """Requests that cannot be in time any more; they wait no more."""
        lost = [ticket for ticket in self._tickets if self.policy.is_lost(ticket, now)]
        if lost:
            self.press(now)
            self._tickets = [ticket for ticket in self._tickets if ticket not in lost]
        return lost

    def take(self, worker: Hashable, now: float) -> Chosen | None:
        """What a worker computes from now; None if nothing is ready, or waits for others until `due`."""
        head = next((ticket for ticket in self._tickets if ticket.ready), None)
        if head is None:
            return None
        pressed = self._is_pressed(head, now)
        chosen = self.policy.choose(self._tickets, now, self._left(now), pressed=pressed)
        if self._should_wait(chosen, now):
            return None
        taken = {*map(id, chosen.tickets)}
        self._tickets = [ticket for ticket in self._tickets if id(ticket) not in taken]
        self.running[worker] = now + chosen.seconds
        return chosen

    def done(self, worker: Hashable) -> None:
        """A worker has finished what it took."""
        self.running.pop(worker, None)

    def has_time(self, worker: Hashable, ticket: Ticket, seconds: float, now: float) -> bool:
        """Whether a worker has time to do more for a request; not if others were sent away lately."""
        busy = [max(0.0, until - now) for other, until in self.running.items() if other != worker]
        return not self._is_pressed(ticket, now) and self.policy.has_time(
            ticket, seconds, self._tickets, now, busy
        )

    def due(self) -> float:
        """When the first request that is ready has waited long enough for others; infinite if none is."""
        came = [ticket.came for ticket in self._tickets if ticket.ready]
        return min(came) + self.hold if came else float("inf")

    def _should_wait(self, chosen: Chosen, now: float) -> bool:
        """Whether others should be waited for: there is time, and two together take less than one by one."""
        first, count = chosen.tickets[0], len(chosen.tickets)
        if (
            not self.hold
            or count == self.policy.most
            or now >= min(t.came for t in chosen.tickets) + self.hold
        ):
            return False
        lane, rank = first.lane, chosen.rank
        if now + self.hold + lane.seconds(rank, count + 1) + self.policy.margin > first.deadline:
            return False
        return lane.seconds(rank, 2) < WORTH * 2 * lane.seconds(rank, 1)

    def _is_pressed(self, ticket: Ticket, now: float) -> bool:
        """Whether somebody was sent away lately, or soon would be if requests go on coming as they do.

        One that has much time left does not stand in the way of those who come.
        """
        if now < self._pressed_until:
            return True
        while self._came and self._came[0][0] < now - LATELY:
            self._came.popleft()
        share = sum(least for _, least in self._came) / (LATELY * self.policy.workers)
        return share > CROWDED and ticket.deadline - now < PRESSED

    def _left(self, now: float) -> list[float]:
        """Seconds that are left of what each busy worker computes."""
        return [max(0.0, until - now) for until in self.running.values()]
