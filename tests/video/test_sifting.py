"""Which frames are kept: what is new in its scene, or was not shown for a while."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matmamba_vision.video.sifting import MOST_RECENT, RECENT_S, Floats, Sieve, Sifting, Verdict

ROOM, GUEST, OTHER = np.eye(3, dtype=np.float32)
GREY = np.full((9, 16, 3), 0.5, np.float32)


def judged(views: list[Floats], step: float = 1.0, sieve: Sieve | None = None) -> list[Verdict]:
    """Verdicts of frames that look the same from far away, a step apart."""
    sifting = Sifting(sieve or Sieve())
    return [sifting.judge(view, GREY, step * place) for place, view in enumerate(views)]


def kept(views: list[Floats], step: float = 1.0) -> list[int]:
    """Places of the frames that are kept."""
    return [place for place, verdict in enumerate(judged(views, step)) if verdict.kept]


def test_the_empty_place_behind_a_visitor_is_no_news() -> None:
    assert kept([ROOM, ROOM, GUEST, GUEST, ROOM, ROOM]) == [0, 2]


def test_a_visitor_who_comes_again_later_is_kept_again() -> None:
    gone = [ROOM] * (int(RECENT_S) + 1)
    assert kept([ROOM, GUEST, *gone, GUEST, ROOM]) == [0, 1, len(gone) + 2]
    # So is an empty place that was not seen for long.
    stay = [GUEST] * (int(RECENT_S) + 1)
    assert kept([ROOM, *stay, ROOM]) == [0, 1, len(stay) + 1]


def test_what_is_shown_now_is_no_news_however_long_a_step_is() -> None:
    assert kept([ROOM, ROOM, GUEST, GUEST, OTHER], step=10 * RECENT_S) == [0, 2, 4]


def test_a_view_that_moves_slowly_is_kept_again_and_again() -> None:
    angles = np.linspace(0, np.pi / 2, 31)
    turning = [np.array([np.cos(a), np.sin(a), 0], np.float32) for a in angles]
    places = kept(turning)
    assert places[0] == 0
    for before, after in itertools.pairwise(places):
        assert float(turning[before] @ turning[after]) < 0.9 <= float(turning[before] @ turning[after - 1])


@pytest.mark.parametrize("seed", range(5))
def test_a_pass_from_where_a_scene_begins_says_the_same(seed: int) -> None:
    chance = np.random.default_rng(seed)
    views = chance.normal(size=(6, 8))
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    frames = [
        (views[which].astype(np.float32), np.full_like(GREY, light))
        for which, light in zip(chance.integers(0, 6, 80), chance.choice([0.3, 0.35, 0.8], 80), strict=True)
    ]
    times = chance.uniform(0.2, 3, 80).cumsum()

    def verdicts(first: int) -> list[Verdict]:
        sifting = Sifting(Sieve())
        return [
            sifting.judge(*frame, time)
            for frame, time in zip(frames[first:], times[first:].tolist(), strict=True)
        ]

    whole = verdicts(0)
    begins = [place for place, verdict in enumerate(whole) if verdict.begins]
    assert 2 < len(begins) < 79
    assert all(whole[place].kept for place in begins)
    for first in begins:
        assert verdicts(first) == whole[first:]


def test_memory_is_bounded() -> None:
    """However many views come at once: the oldest of too many is forgotten."""
    views = np.eye(MOST_RECENT + 1, dtype=np.float32)
    frames = [*views, views[1], views[0]]
    assert kept(frames, step=1e-3) == [*range(MOST_RECENT + 1), MOST_RECENT + 2]
