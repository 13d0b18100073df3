"""Which frames are kept: what is new in its scene, or was not shown for a while."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matmamba_vision.video.sifting import MOST_RECENT, RECENT_S, Floats, Glimpse, Sieve, Sifting, Verdict

ROOM, GUEST, OTHER = np.eye(3, dtype=np.float32)
GREY = np.full((9, 16, 3), 0.5, np.float32)


def judged(views: list[Floats], step: float = 1.0, sieve: Sieve | None = None) -> list[Verdict]:
    """Verdicts of frames that look the same from far away, a step apart."""
    return verdicts([Glimpse(view, GREY, step * place) for place, view in enumerate(views)], sieve)


def verdicts(frames: list[Glimpse], sieve: Sieve | None = None) -> list[Verdict]:
    """What becomes of the frames of a video."""
    sifting = Sifting(sieve or Sieve())
    return [sifting.judge(*pair) for pair in zip(frames, [*frames[1:], None], strict=True)]


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
    kinds, lights = chance.integers(0, 6, 80), chance.choice([0.0, 0.3, 0.35, 0.8, 1.0], 80)
    times = chance.uniform(0.2, 3, 80).cumsum()
    frames = [
        Glimpse(views[kind].astype(np.float32), np.full_like(GREY, light), time)
        for kind, light, time in zip(kinds, lights, times.tolist(), strict=True)
    ]
    whole = verdicts(frames)
    begins = [place for place, verdict in enumerate(whole) if verdict.begins]
    assert 2 < len(begins) < 79
    assert all(whole[place].kept for place in begins)
    for first in begins:
        assert verdicts(frames[first:]) == whole[first:]


def picture(seed: int) -> Floats:
    """A thumbnail of a scene, which looks like no other."""
    return np.random.default_rng(seed).uniform(0.1, 0.7, GREY.shape).astype(np.float32)


STREET, BEACH = picture(1), picture(2)
BLACK, NOISE = np.zeros_like(GREY), np.random.default_rng(0).normal(0, 0.01, GREY.shape).astype(np.float32)


VIEWS = np.eye(16, dtype=np.float32)


def scenes_of(*thumbnails: Floats) -> list[tuple[bool, bool]]:
    """Of frames a second apart, whose vectors are as different as their thumbnails."""
    views = {id(thumbnail): vector for thumbnail, vector in zip(thumbnails, VIEWS, strict=False)}
    frames = [Glimpse(views[id(one)], one, float(time)) for time, one in enumerate(thumbnails)]
    return [(verdict.begins, verdict.kept) for verdict in verdicts(frames)]


FIRST, SAME, LEFT_OUT = (True, True), (False, False), (False, False)


@pytest.mark.parametrize("shares", [[0.5], [0.1], [0.9], [0.3, 0.7], [0.25, 0.5, 0.75]])
def test_a_dissolve_is_one_cut(shares: list[float]) -> None:
    """Where the next scene is there alone; what is a mixture of both is not kept."""
    between = [(1 - share) * STREET + share * BEACH + NOISE for share in shares]
    found = scenes_of(STREET, STREET, *between, BEACH, BEACH)
    assert found == [FIRST, SAME, *[LEFT_OUT] * len(shares), FIRST, SAME]


@pytest.mark.parametrize(
    "between", [[BLACK + NOISE], [0.3 * STREET, 0.4 * BEACH], [0.5 * STREET, BLACK + NOISE, 0.5 * BEACH]]
)
def test_a_fade_through_black_is_one_cut(between: list[Floats]) -> None:
    found = scenes_of(STREET, STREET, *between, BEACH, BEACH)
    assert found == [FIRST, SAME, *[LEFT_OUT] * len(between), FIRST, SAME]


@pytest.mark.parametrize("strength", [0.4, 0.9])
def test_a_flash_is_no_cut(strength: float) -> None:
    lit = 1 - (1 - strength) * (1 - STREET) + NOISE
    assert scenes_of(STREET, STREET, lit, STREET, STREET) == [FIRST, SAME, LEFT_OUT, SAME, SAME]
    # Before a cut it is of the first scene, behind it of the second.
    assert scenes_of(STREET, lit, BEACH, BEACH) == [FIRST, LEFT_OUT, FIRST, SAME]
    assert [begins for begins, _ in scenes_of(BEACH, lit, STREET, STREET)] == [True, True, False, False]


def test_what_stays_is_a_scene_however_dark_or_light() -> None:
    for still in (BLACK + NOISE, 1 - 0.1 * (1 - BEACH), 0.2 * BEACH):
        assert scenes_of(STREET, still, still, still, BEACH, BEACH)[1] == FIRST


def test_a_short_scene_is_one() -> None:
    """A second of something else."""
    assert scenes_of(STREET, STREET, BEACH, STREET, STREET)[2:4] == [FIRST, FIRST]
    assert scenes_of(STREET, BEACH, picture(3)) == [FIRST, FIRST, FIRST]


def test_memory_is_bounded() -> None:
    """However many views come at once: the oldest of too many is forgotten."""
    views = np.eye(MOST_RECENT + 1, dtype=np.float32)
    frames = [*views, views[1], views[0]]
    assert kept(frames, step=1e-3) == [*range(MOST_RECENT + 1), MOST_RECENT + 2]
