"""Groups of near-duplicates, against a definition in a few lines of float64."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Row, Strategy
from matmamba_retrieval.curation import duplicates as module
from matmamba_retrieval.curation.duplicates import Group, find_duplicates
from small import unit_vectors

SPEC = EmbeddingSpec("a" * 64, "full", 16)
Make = Callable[..., Gallery]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(xb: np.ndarray, *, labels: list[str] | None = None, deleted: list[int] = []) -> Gallery:  # noqa: B006
        names = labels or ["x"] * len(xb)
        rows = [Row(str(n), f"{n}.jpg", label) for n, label in enumerate(names)]
        with Gallery.create(tmp_path / "g", SPEC) as gallery:
            gallery.add(rows, xb)
            gallery.build_shortlist(16)
            gallery.delete([str(n) for n in deleted])
        return Gallery(tmp_path / "g")

    return made


def clustered(seed: int, count: int, spread: float) -> np.ndarray:
    """Vectors near a few centres, so that many are similar."""
    rng = np.random.default_rng(seed)
    centres = unit_vectors(max(1, count // 5), 16, seed)
    xb = centres[rng.integers(0, len(centres), count)] + spread * rng.standard_normal((count, 16)) / 4
    return (xb / np.linalg.norm(xb, axis=1, keepdims=True)).astype(np.float32)


def connected(similar: np.ndarray) -> list[list[int]]:
    """Components of two or more."""
    left, found = set(range(len(similar))), []
    while left:
        part, new = set(), {min(left)}
        while new:
            part |= new
            new = {int(b) for a in new for b in np.flatnonzero(similar[a])} - part
        left -= part
        found += [sorted(part)] if len(part) > 1 else []
    return found


def expected(xb: np.ndarray, threshold: float) -> list[tuple[int, ...]]:
    """Members of the groups, by what `find_duplicates` promises."""
    x = xb.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    similar = x @ x.T >= threshold - 1e-6
    groups = []
    for part in connected(similar):
        while part:
            near = [key for key in part if similar[part[0], key] or key == part[0]]
            groups += [tuple(near)] if len(near) > 1 else []
            part = [key for key in part if key not in near]
    return sorted(groups, key=lambda group: (-len(group), group[0]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 60), st.sampled_from([0.05, 0.2, 0.4]))
def test_groups_are_what_they_promise(seed: int, count: int, spread: float) -> None:
    """Whatever the block sizes; a shortlist as long as the gallery finds the same."""
    xb = clustered(seed, count, spread).astype(np.float16).astype(np.float32)
    rows, columns = module.ROWS, module.COLUMNS
    try:
        module.ROWS, module.COLUMNS = 7, 11
        with tempfile.TemporaryDirectory() as folder, Gallery.create(Path(folder) / "g", SPEC) as gallery:
            gallery.add([Row(str(n), "") for n in range(count)], xb)
            found = find_duplicates(gallery, 0.97)
            listed = find_duplicates(gallery, 0.97, strategy=Strategy.single_shot(), k=count)
    finally:
        module.ROWS, module.COLUMNS = rows, columns
    assert [tuple(sorted(group.keys)) for group in found] == expected(xb, 0.97)
    assert [group.keys.tolist() for group in listed] == [group.keys.tolist() for group in found]
    for group in found:
        assert group.keys[0] == group.keys.min()
        assert group.scores[0] == pytest.approx(1, abs=1e-6)
        assert (np.diff(group.scores[1:]) <= 0).all()
        assert (group.scores >= 0.97 - 1e-6).all()


def members(groups: list[Group]) -> list[list[int]]:
    return [sorted(group.keys.tolist()) for group in groups]


def test_a_chain_is_not_one_group(make: Make) -> None:
    """Each link is similar to the next; what is too far from the first image is not deleted for its sake."""
    angles = np.deg2rad([0, 10, 20, 30, 40])
    xb = np.zeros((5, 16), dtype=np.float32)
    xb[:, 0], xb[:, 1] = np.cos(angles), np.sin(angles)
    gallery = make(xb)
    assert members(find_duplicates(gallery, float(np.cos(np.deg2rad(11))))) == [[0, 1], [2, 3]]
    assert members(find_duplicates(gallery, float(np.cos(np.deg2rad(41))))) == [[0, 1, 2, 3, 4]]


def test_many_equal_images_are_one_group(make: Make) -> None:
    """More of them than a shortlist looks at for each image."""
    xb = unit_vectors(400, 16)
    xb[100:300] = xb[5]
    gallery = make(xb)
    wanted = [[5, *range(100, 300)]]
    assert members(find_duplicates(gallery, 1.0)) == wanted
    strategy = Strategy.shortlist(width="full", dim=16, length=50)
    assert members(find_duplicates(gallery, 1.0, strategy=strategy, k=8)) == wanted


def test_only_live_and_allowed_images_are_compared(make: Make) -> None:
    xb = np.repeat(unit_vectors(2, 16), 4, axis=0)
    gallery = make(xb, labels=list("abababab"), deleted=[0, 6])
    assert members(find_duplicates(gallery, 0.99)) == [[1, 2, 3], [4, 5, 7]]
    assert members(find_duplicates(gallery, 0.99, gallery.allowed("label = 'b'"))) == [[1, 3], [5, 7]]
    told: list[int] = []
    find_duplicates(gallery, 0.99, progress=told.append)
    assert sum(told) == 6


@pytest.mark.parametrize("threshold", [0, -1, 1.5, float("nan")])
def test_a_threshold_that_is_none_is_refused(make: Make, threshold: float) -> None:
    with pytest.raises(GalleryError, match="threshold"):
        find_duplicates(make(unit_vectors(2, 16)), threshold)


def test_nothing_is_found_in_nothing(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "g", SPEC) as gallery:
        assert find_duplicates(gallery, 0.9) == []
