"""Who is computed next, and how wide: laws of the policy, and what it reaches in a simulation."""

from __future__ import annotations

import random

import pytest
from matmamba_vision.serving.policy import Policy, Ticket
from matmamba_vision.serving.waiting import LATELY, PRESSED, Waiting
from simulated_load import (
    ANY,
    FULL,
    MARGIN,
    MINI_MS,
    MOST,
    NARROW,
    SLO,
    WIDTHS,
    Outcome,
    Steady,
    arrivals,
    simulate,
)

POLICY = Policy(workers=2, most=MOST, margin=MARGIN)
LANE = Steady()
# Requests in a second that two workers answer at full width.
CAPACITY = 2 * 1e3 / MINI_MS[0]


def ticket(deadline: float = SLO, ranks: tuple[int, int] = ANY, lane: Steady = LANE) -> Ticket:
    return Ticket(lane=lane, deadline=deadline, widest=ranks[0], narrowest=ranks[1])


def queue(*tickets: Ticket) -> Waiting:
    waiting = Waiting(policy=POLICY, longest=256)
    for one in tickets:
        waiting.add(one)
    return waiting


def drawn(rng: random.Random, count: int) -> list[Ticket]:
    """Requests with deadlines, bounds and lanes drawn by chance, earliest deadline first."""
    lanes = [LANE, Steady()]
    tickets = []
    for _ in range(count):
        widest = rng.choice([0, 0, 0, rng.randrange(WIDTHS)])
        narrowest = rng.choice([WIDTHS - 1, rng.randrange(widest, WIDTHS)])
        tickets.append(ticket(rng.uniform(0.02, 0.15), (widest, narrowest), rng.choice(lanes)))
    return sorted(tickets, key=lambda one: one.deadline)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_chosen_keeps_every_bound(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        tickets = drawn(rng, rng.randrange(1, 40))
        busy = [rng.uniform(0, 0.05)] if rng.random() < 0.5 else []
        chosen = POLICY.choose(tickets, 0.0, busy, pressed=rng.random() < 0.2)
        # The earliest deadline is served, others only with it.
        assert chosen.tickets[0] is tickets[0]
        assert 1 <= len(chosen.tickets) <= MOST
        assert all(one.lane is tickets[0].lane for one in chosen.tickets)
        assert all(one.widest <= chosen.rank <= one.narrowest for one in chosen.tickets)
        assert chosen.seconds == tickets[0].lane.seconds(chosen.rank, len(chosen.tickets))
        deadlines = [one.deadline for one in chosen.tickets]
        assert deadlines == sorted(deadlines)
        if not POLICY.is_lost(tickets[0], 0.0):
            assert chosen.seconds + MARGIN <= tickets[0].deadline


def test_one_that_waits_alone_is_as_wide_as_its_time_allows() -> None:
    for deadline, rank in ((0.1, 0), (0.0165, 1), (0.0135, 2), (0.012, 3)):
        assert POLICY.choose([ticket(deadline)], 0.0, []).rank == rank
    assert POLICY.is_lost(ticket(0.011), 0.0)


def test_the_largest_batch_that_fits_goes_before_the_widest() -> None:
    # Six at full width would take 54 ms, and there are 50; six at half do.
    chosen = Policy(workers=1, most=MOST, margin=MARGIN).choose([ticket(0.058)] * 6, 0.0, [])
    assert (len(chosen.tickets), chosen.rank) == (6, 1)


def test_idle_workers_share_what_waits() -> None:
    assert len(POLICY.choose([ticket() for _ in range(4)], 0.0, []).tickets) == 2
    assert len(POLICY.choose([ticket() for _ in range(4)], 0.0, [0.01]).tickets) == 4


def test_width_and_least_width_are_never_undercut() -> None:
    crowd = [ticket(0.04 + place / 1e3) for place in range(40)]
    assert POLICY.choose(crowd, 0.0, [0.02]).rank == WIDTHS - 1
    for rank in range(WIDTHS):
        exact = ticket(0.04, (rank, rank))
        assert POLICY.choose([exact, *crowd], 0.0, [0.02]).rank == rank
        least = ticket(0.04, (0, rank))
        assert POLICY.choose([least, *crowd], 0.0, [0.02]).rank <= rank


def test_those_behind_are_not_made_late() -> None:
    alone = Policy(workers=1, most=1, margin=MARGIN)
    # Nine at the narrowest take 30.6 ms one by one, and with the margin they have so many milliseconds:
    for spare, rank in ((40, 0), (33.5, 1), (32, 2), (31, 3)):
        crowd = [ticket(spare / 1e3 + MARGIN) for _ in range(9)]
        assert alone.choose(crowd, 0.0, []).rank == rank
    assert alone.choose([ticket(0.039), ticket(0.2, FULL)], 0.0, []).rank == 0


def test_only_what_can_be_in_time_is_let_in() -> None:
    waiting, let_in = queue(), 0
    while waiting.late(ticket(), 0.0) <= 0:
        waiting.add(ticket())
        let_in += 1
    # What two workers answer at the narrowest in what is left of 100 ms.
    fits = 2 * (SLO - MARGIN) / (MINI_MS[-1] / 1e3)
    assert 0.8 * fits <= let_in <= fits
    assert 0 < waiting.late(ticket(), 0.0) < 0.01
    # One that has to be wide is refused before one that has not, one with more time is let in.
    assert waiting.late(ticket(ranks=FULL), 0.0) > waiting.late(ticket(), 0.0)
    assert waiting.late(ticket(2 * SLO), 0.0) <= 0


def test_one_is_let_in_where_nobody_is_though_it_should_be_late() -> None:
    """What is expected may be wrong, and is mended only by what is seen."""
    slow = Steady(each=(10.0,) * WIDTHS)
    waiting, first = queue(), ticket(lane=slow)
    assert waiting.late(first, 0.0) <= 0
    waiting.add(first)
    assert waiting.late(ticket(lane=slow), 0.0) > 0
    assert waiting.lost(0.05) == []
    chosen = waiting.take(0, 0.05)
    assert chosen is not None
    assert chosen.tickets == (first,)
    # Who comes while it is computed is not let in, nor who comes too late for anything.
    assert waiting.late(ticket(SLO, lane=slow), 0.06) > 0
    waiting.done(0)
    assert waiting.late(ticket(MARGIN / 2), 0.0) > 0


def test_no_more_wait_than_allowed() -> None:
    waiting = Waiting(policy=POLICY, longest=3)
    for _ in range(3):
        assert waiting.late(ticket(10.0), 0.0) <= 0
        waiting.add(ticket(10.0))
    assert waiting.late(ticket(10.0), 0.0) > 0


def test_what_is_lost_while_it_waits_is_given_up() -> None:
    soon, later = ticket(0.05), ticket(0.2)
    waiting = queue(soon, later)
    assert waiting.lost(0.03) == []
    assert waiting.lost(0.045) == [soon]
    chosen = waiting.take(0, 0.045)
    assert chosen is not None
    assert chosen.tickets == (later,)


def test_what_is_not_prepared_is_not_computed() -> None:
    early, late = ticket(0.05), ticket(0.1)
    early.ready = False
    waiting = queue(early, late)
    chosen = waiting.take(0, 0.0)
    assert chosen is not None
    assert chosen.tickets == (late,)
    assert waiting.take(1, 0.0) is None
    early.ready = True
    chosen = waiting.take(1, 0.0)
    assert chosen is not None
    assert chosen.tickets == (early,)


def test_after_somebody_was_sent_away_room_is_made() -> None:
    waiting = queue(ticket())
    waiting.press(0.0)
    chosen = waiting.take(0, PRESSED / 2)
    assert chosen is not None
    assert chosen.rank == WIDTHS - 1
    waiting.add(ticket(3 * PRESSED))
    chosen = waiting.take(1, 2 * PRESSED)
    assert chosen is not None
    assert chosen.rank == 0


def test_where_more_come_than_wide_answers_leave_time_for_room_is_made() -> None:
    # Of 0.25 s that two workers have, 20 take an eighth at the narrowest width, and 120 three quarters.
    for count, seconds, rank in ((20, 0.9, 0), (120, 0.9, WIDTHS - 1), (120, 10.0, 0)):
        waiting = queue(*(ticket(seconds) for _ in range(count)))
        chosen = waiting.take(0, LATELY / 2)
        assert chosen is not None
        assert chosen.rank == rank
        # They have gone by.
        waiting.clear()
        waiting.add(Ticket(lane=LANE, deadline=20.0, widest=0, narrowest=WIDTHS - 1, came=10.0))
        chosen = waiting.take(1, 10.0)
        assert chosen is not None
        assert chosen.rank == 0


def test_others_are_waited_for_only_where_it_pays() -> None:
    one_by_one, together = Steady(), Steady(each=(1e-4,) * WIDTHS, once=8e-3)
    for lane, waits in ((one_by_one, False), (together, True)):
        waiting = Waiting(policy=POLICY, longest=9, hold=0.002)
        waiting.add(ticket(lane=lane))
        assert (waiting.take(0, 0.001) is None) == waits
        if waits:
            assert waiting.due() == 0.002
            assert waiting.take(0, 0.002) is not None


def test_more_is_done_for_a_request_only_if_nobody_is_made_late_by_it() -> None:
    waiting, served = queue(), ticket(0.1)
    assert waiting.has_time(0, served, 0.02, 0.0)
    assert not waiting.has_time(0, served, 0.02, 0.08)
    for _ in range(30):
        waiting.add(ticket(0.06))
    assert not waiting.has_time(0, served, 0.02, 0.0)
    waiting.clear()
    waiting.press(0.0)
    assert not waiting.has_time(0, served, 0.02, 0.01)


@pytest.mark.parametrize("load", [0.5, 1.0, 1.5, 2.5, 3.5])
def test_by_slack_in_a_simulation(load: float) -> None:
    """Two workers of a mini, bursts, 100 ms: never worse in time than always full, wide where it can be."""
    times = arrivals(load * CAPACITY, 20.0, seed=int(10 * load))
    full, narrow, slack = (simulate(times, ranks) for ranks in (FULL, NARROW, ANY))
    for one in (full, narrow, slack):
        assert one.answered + one.shed == one.asked
        # Who is let in is answered in time.
        assert one.in_time >= 0.99 * one.answered
    assert slack.in_time >= full.in_time
    assert slack.answered >= 0.98 * narrow.answered
    if load == 0.5:
        assert slack.share(0) >= 0.95
    if load in (1.0, 1.5):
        assert slack.in_time >= 0.98 * slack.asked
        assert full.in_time < 0.95 * full.asked
    shares = [slack.share(rank) for rank in range(WIDTHS)]
    assert max(shares) == shares[0 if load <= 1.5 else -1]


@pytest.mark.parametrize("load", [1.5, 2.5])
def test_where_the_narrowest_saves_little_bursts_cost_no_more_than_by_it_alone(load: float) -> None:
    """What comes over HTTP takes most of the time at any width: bursts are more than any width answers."""
    lane, capacity = Steady(each=(0.030, 0.0235, 0.0195, 0.017), once=1e-3), 50
    narrow, slack = Outcome(), Outcome()
    for seed in range(2):
        times = arrivals(load * capacity, 20.0, seed=seed)
        for total, ranks in ((narrow, NARROW), (slack, ANY)):
            one = simulate(times, ranks, lane=lane, seed=seed)
            total.asked, total.in_time = total.asked + one.asked, total.in_time + one.in_time
            total.ranks += one.ranks
    assert slack.in_time >= narrow.in_time - 0.007 * narrow.asked
    assert slack.answered >= 0.993 * narrow.answered
    if load == 1.5:
        assert slack.share(0) >= 0.25
