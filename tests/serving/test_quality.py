"""How good answers are said to be: intervals that hold, samples that are fair, widths that come and go."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from matmamba_vision.serving.quality import (
    DEPTH,
    ENOUGH,
    MOST_PENDING,
    WINDOW,
    Sampler,
    Windows,
    compared_hits,
    independent_hits,
    recall_of,
    wilson,
)

# Of published tables of Wilson's interval (Newcombe, 1998, table I, method 3), which rounds to 4 digits.
NEWCOMBE = ((81 / 263, 263, 0.2553, 0.3662), (15 / 148, 148, 0.0624, 0.1605), (0.0, 20, 0.0, 0.1611))


def overlaps(rng: np.random.Generator, count: int, recall: float, together: float) -> np.ndarray:
    """(count,) shares of hits of queries whose hits are found or missed together, by a correlation."""
    if together == 0:
        return rng.binomial(DEPTH, recall, count) / DEPTH
    of_beta = (1 - together) / together
    return rng.binomial(DEPTH, rng.beta(recall * of_beta, (1 - recall) * of_beta, count)) / DEPTH


@pytest.mark.parametrize(("share", "count", "low", "high"), NEWCOMBE)
def test_wilson_s_interval_is_the_published_one(share: float, count: int, low: float, high: float) -> None:
    assert wilson(share, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("recall", [0.8, 0.9, 0.95, 0.98])
@pytest.mark.parametrize("together", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("count", [100, WINDOW])
def test_in_93_of_100_windows_the_truth_is_within_the_interval(
    recall: float, together: float, count: int
) -> None:
    """Of 500 windows, so that it is no matter of chance."""
    rng, within = np.random.default_rng(1), 0
    for _ in range(500):
        found = recall_of([(float(one), True) for one in overlaps(rng, count, recall, together)])
        assert found is not None
        within += found.low <= recall <= found.high
    assert within >= 0.93 * 500


def test_ten_hits_of_a_query_are_not_ten_trials() -> None:
    """Taken as such, the interval would miss the truth; taken as one, it would be far too wide."""
    rng, recall, within, widths = np.random.default_rng(0), 0.9, 0, list[float]()
    for _ in range(100):
        shares = overlaps(rng, WINDOW, recall, 0.4)
        low, high = wilson(float(shares.mean()), DEPTH * WINDOW)
        within += low <= recall <= high
        found = recall_of([(float(one), True) for one in shares])
        assert found is not None
        as_one = wilson(found.estimate, WINDOW)
        widths.append((found.high - found.low) / (as_one[1] - as_one[0]))
    assert within < 80
    assert np.mean(widths) < 0.75


def test_independent_hits_are_between_one_and_ten_for_each_query() -> None:
    all_or_nothing, independent = [1.0] * 90 + [0.0] * 10, overlaps(np.random.default_rng(0), 4000, 0.9, 0.0)
    assert independent_hits(all_or_nothing) == pytest.approx(100, rel=0.02)
    assert independent_hits([*map(float, independent)]) == pytest.approx(40_000, rel=0.1)
    # Nothing was ever missed: nobody knows how hits would be missed.
    assert independent_hits([1.0] * 50) == 50
    assert independent_hits([0.5]) == 1


def test_what_is_not_known_is_not_said() -> None:
    assert recall_of([]) is None
    found = recall_of([(1.0, True), (0.5, False)])
    assert found is not None
    assert (found.estimate, found.same_first, found.samples) == (0.75, 0.5, 2)
    assert 0 <= found.low < 0.75 < found.high <= 1


def test_hits_are_compared_by_what_the_exact_answer_has() -> None:
    exact = [f"{place}" for place in range(12)]
    assert compared_hits(exact, exact) == (1.0, True)
    assert compared_hits(exact[::-1], exact) == (0.8, False)
    assert compared_hits(["0", "x", "2"], exact, 3) == (2 / 3, True)
    assert compared_hits([], []) == (1.0, True)
    assert compared_hits(["x"], []) == (0.0, False)
    assert compared_hits([], exact) == (0.0, False)


def test_each_stratum_has_its_share_at_places_that_are_fair() -> None:
    sampler, places = Sampler[int](0.01, seed=0), Counter[str]()
    for number in range(20_000):
        # One stratum in a hundred.
        rare = number % 100 == 0
        if sampler.takes("rare" if rare else "common"):
            places["rare" if rare else "common"] += 1
    assert places["rare"] == 2
    assert places.total() in (199, 200, 201)
    passing, taken = Sampler[int](0.1, seed=3), Counter[int]()
    for number in range(10_000):
        if passing.takes("one"):
            taken[number % 10] += 1
    assert taken.total() == 1000
    assert all(60 <= taken[place] <= 140 for place in range(10))
    assert not any(Sampler[int](0.0).takes("one") for _ in range(1000))


def test_what_waits_to_be_compared_is_bounded_and_fair() -> None:
    kept = Counter[bool]()
    for seed in range(20):
        sampler = Sampler[int](1.0, seed=seed)
        for number in range(4 * MOST_PENDING):
            sampler.keep(number)
        assert len(sampler) == MOST_PENDING
        while (one := sampler.pop()) is not None:
            kept[one < 2 * MOST_PENDING] += 1
    # Older ones are replaced, not all of them.
    assert 0.02 < kept[True] / kept.total() < 0.5


def test_a_width_that_is_too_bad_is_left_out_and_comes_back() -> None:
    windows = Windows(("full", "1/2", "1/4", "1/8"), 0.9)
    assert (windows.narrowest, windows.on_trial) == (3, "")
    for number in range(ENOUGH):
        changed = windows.add("1/8", 0.6, True)
        assert changed == (number == ENOUGH - 1)
    assert (windows.narrowest, windows.on_trial) == (2, "1/8")
    # One that is better, but not surely: its interval still reaches below the floor.
    for _ in range(2 * WINDOW):
        assert not windows.add("1/4", 0.95, True)
    back = [windows.add("1/8", 1.0, True) for _ in range(WINDOW)]
    assert sum(back) == 1
    assert (windows.narrowest, windows.on_trial) == (3, "")
    assert back.index(True) > ENOUGH


def test_a_bad_width_takes_narrower_ones_with_it_but_the_widest_stays() -> None:
    windows = Windows(("full", "1/2", "1/4"), 0.9)
    for width in ("1/2", "full"):
        for _ in range(ENOUGH):
            windows.add(width, 0.5, False)
    assert (windows.narrowest, windows.on_trial) == (0, "1/2")


def test_without_a_floor_no_width_is_too_bad() -> None:
    windows = Windows(("full", "1/8"))
    assert not any(windows.add("1/8", 0.0, False) for _ in range(2 * ENOUGH))
    assert windows.narrowest == 1
    found = windows.recall("1/8")
    assert found is not None
    assert found.estimate == 0
    assert windows.recall("full") is None
