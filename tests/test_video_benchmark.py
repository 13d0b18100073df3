"""The benchmark of videos: its clips change as they say, and cuts are compared as they should be."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import video_changes
from PIL import Image
from video_changes import KINDS
from video_clips import FPS, Drawn, Pixels
from video_cuts import DETECTORS, agreement, cuts_table

LENGTHS = [5.0, 6.2, 5.4]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """Views of photos, each of one colour of its own."""
    folder = tmp_path_factory.mktemp("photos") / "all"
    folder.mkdir()
    for number, colour in enumerate(np.random.default_rng(0).integers(40, 216, (40, 3))):
        Image.new("RGB", (40, 30), tuple(colour.tolist())).save(folder / f"{number}.png")
    return Drawn(folder.parent, (32, 24))


def shown(drawn: Drawn, kind: str) -> tuple[list[Pixels], list[video_changes.Change]]:
    pictures, changes = KINDS[kind](drawn, LENGTHS)
    return list(pictures), changes


@pytest.mark.parametrize("kind", ["hard cuts", "fast pans, cut"])
def test_cuts_are_where_the_picture_changes(kind: str, drawn: Drawn) -> None:
    pictures, changes = shown(drawn, kind)
    assert len(pictures) == round(sum(LENGTHS) * FPS)
    found = [place for place, pair in enumerate(pairwise(pictures), 1) if not np.array_equal(*pair)]
    assert changes == [(place / FPS, place / FPS) for place in found]


@pytest.mark.parametrize("kind", ["dissolves", "fades to black"])
def test_between_scenes_is_what_both_make(kind: str, drawn: Drawn) -> None:
    pictures, changes = shown(drawn, kind)
    for begin, end in changes:
        first, last = round(begin * FPS), round(end * FPS)
        before, after = pictures[first - 1][0, 0], pictures[last][0, 0]
        middle = pictures[(first + last) // 2][0, 0]
        wanted = np.zeros(3) if kind == "fades to black" else (before.astype(int) + after) / 2
        assert np.abs(middle - wanted).max() <= 8
        assert np.array_equal(pictures[first - 2][0, 0], before)
        assert np.array_equal(pictures[last + 1][0, 0], after)
    assert len(pictures) == round(sum(LENGTHS) * FPS) - sum(
        round((end - begin) * FPS) for begin, end in changes
    )


def test_flashes_are_no_changes_and_are_seen_at_full_seconds(drawn: Drawn) -> None:
    pictures, changes = shown(drawn, "cuts and flashes")
    cuts = {round(begin * FPS) for begin, _ in changes}
    flashes = [
        place
        for place in range(FPS, len(pictures))
        if pictures[place].min() > 225 and pictures[place - 1].min() < 220
    ]
    assert flashes == list(range(3 * FPS, len(pictures), 3 * FPS))
    assert not cuts & set(flashes)


def test_a_slide_changes_in_its_corner_alone(drawn: Drawn) -> None:
    pictures, changes = shown(drawn, "slides")
    cuts = {round(begin * FPS) for begin, _ in changes}
    changed = [place for place, pair in enumerate(pairwise(pictures), 1) if not np.array_equal(*pair)]
    assert cuts < set(changed)
    for place in set(changed) - cuts:
        differs = np.argwhere((pictures[place] != pictures[place - 1]).any(-1))
        assert (differs.min(0) >= [24 - round(0.4 * 24), 32 - round(0.3 * 32)]).all()


def test_a_cut_counts_once_and_within_a_second() -> None:
    wanted = [(2.0, 2.0), (5.0, 7.0)]
    assert agreement([2.9, 6.0], wanted) == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert agreement([2.0, 2.5, 8.0], wanted) == {"precision": 0.667, "recall": 1.0, "f1": 0.8}
    assert agreement([3.1, 3.9], wanted) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert agreement([], []) == {"precision": 1.0, "recall": 1.0, "f1": 1.0}


def test_the_table_has_a_row_for_each_kind() -> None:
    half = {"precision": 0.5, "recall": 1.0, "f1": 0.667}
    detectors = {name: {"truth": half, "ours": half} for name in DETECTORS}
    table = cuts_table([{"kind": "fades", "changes": 23, "ours": half, "detectors": detectors}])
    assert "| fades | 23 | 50, 100, 67 | 50, 100, 67 | 50, 100, 67 | 50, 100, 67 | 67, 67, 67 |" in table
