"""Votes of neighbours: against the sum they are, on images whose labels were swapped or taken away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matmamba_retrieval import EmbeddingSpec, Gallery, GalleryError, Row, Strategy
from matmamba_retrieval.curation.labels import UNKNOWN, Votes, vote
from small import unit_vectors

PER_CLASS = 20
NAMES = ("ape", "bee", "cat")
# Of each class: one image without a label, one with that of the next class.
BLANK, SWAPPED = 3, 4


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    """Three clusters; `BLANK` of each is unlabelled, `SWAPPED` mislabelled, the last of all is deleted."""
    centres, noise = unit_vectors(3, 16), unit_vectors(3 * PER_CLASS, 16, seed=1)
    xb = np.repeat(centres, PER_CLASS, axis=0) + 0.3 * noise
    rows = []
    for key in range(3 * PER_CLASS):
        owner, place = divmod(key, PER_CLASS)
        label = None if place == BLANK else NAMES[(owner + (place == SWAPPED)) % 3]
        rows.append(Row(str(key), f"{key}.jpg", label))
    with Gallery.create(tmp_path / "g", EmbeddingSpec("a" * 64, "full", 16)) as made:
        made.add(rows, xb / np.linalg.norm(xb, axis=1, keepdims=True))
        made.delete([str(3 * PER_CLASS - 1)])
    return Gallery(tmp_path / "g")


def votes_of(gallery: Gallery, k: int = 10, **more: object) -> Votes:
    return vote(gallery, Strategy.single_shot(), gallery.live_keys(), k, **more)  # type: ignore[arg-type]


def test_missing_labels_are_suggested_and_swapped_ones_suspected(gallery: Gallery) -> None:
    votes = votes_of(gallery)
    assert votes.classes == NAMES
    blank = votes.suggestions()
    assert sorted(votes.keys[blank]) == [BLANK, PER_CLASS + BLANK, 2 * PER_CLASS + BLANK]
    assert np.array_equal(votes.winners[blank], votes.keys[blank] // PER_CLASS)
    doubts = votes.doubts()
    assert sorted(votes.keys[doubts]) == [SWAPPED, PER_CLASS + SWAPPED, 2 * PER_CLASS + SWAPPED]
    assert np.array_equal(votes.winners[doubts], votes.keys[doubts] // PER_CLASS)
    labelled = 3 * PER_CLASS - 1 - 3
    assert votes.accuracy() == pytest.approx(1 - 3 / labelled)
    for order in (votes.confidence[blank], (votes.confidence - votes.own_share)[doubts]):
        assert (np.diff(order) <= 0).all()


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_shares_are_sums_of_weights(gallery: Gallery, temperature: float) -> None:
    """In float64 over all images; neither unlabelled nor deleted ones vote, nor an image for itself."""
    votes = votes_of(gallery, 7, temperature=temperature)
    labels = np.array(gallery.labels(), dtype=object)
    xb = gallery.segments.read(np.arange(gallery.key_count)).astype(np.float64)
    voters = [key for key in gallery.live_keys() if labels[key] is not None]
    for position, key in enumerate(votes.keys):
        others = [other for other in voters if other != key]
        near = sorted(others, key=lambda other: -(xb[key] @ xb[other]))[:7]
        assert votes.neighbours[position].tolist() == near
        weights = np.exp(xb[near] @ xb[key] / temperature)
        share = {name: weights[labels[near] == name].sum() / weights.sum() for name in NAMES}
        assert NAMES[votes.winners[position]] == max(share, key=lambda name: share[name])
        assert votes.confidence[position] == pytest.approx(max(share.values()), abs=1e-5)
        assert votes.own_share[position] == pytest.approx(share.get(labels[key], 0), abs=1e-5)
        assert (votes.own[position] == UNKNOWN) == (labels[key] is None)


def test_who_may_vote_can_be_chosen(gallery: Gallery) -> None:
    """With the bees alone voting, everybody is a bee."""
    votes = votes_of(gallery, 5, allowed=gallery.allowed("label = 'bee'"))
    assert {NAMES[winner] for winner in votes.winners} == {"bee"}
    assert votes.confidence == pytest.approx(1)


def test_more_neighbours_than_there_are_is_all_of_them(gallery: Gallery) -> None:
    votes = votes_of(gallery, 10_000)
    assert votes.neighbours.shape[1] == 3 * PER_CLASS - 1 - 3 - 1
    assert len(vote(gallery, Strategy.single_shot(), np.zeros(0, dtype=np.int64)).keys) == 0


def test_votes_without_voters_are_refused(gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match="0 labelled images"):
        votes_of(gallery, allowed=gallery.allowed("label IS NULL"))
    with pytest.raises(GalleryError, match="temperature"):
        votes_of(gallery, temperature=0.0)


def test_confidence_is_how_often_votes_are_right() -> None:
    """Of votes that boast, and of ones that are too modest; of few labelled images nothing is known."""
    rng, count = np.random.default_rng(0), 4000
    shares, keys = rng.uniform(0.2, 1, count), np.arange(count)
    none, near = np.zeros(count, np.int64), np.zeros((count, 1), np.int64)
    for truth in (shares**3, np.sqrt(shares)):
        wrong = (rng.uniform(size=count) >= truth).astype(np.int64)
        # Half of the images are not labelled: what is said of them was learnt from the others.
        asked = keys % 2 == 1
        own = np.where(asked, UNKNOWN, wrong)
        votes = {"keys": keys, "own": own, "winners": none, "confidence": shares, "own_share": shares}
        found = Votes(classes=("a", "b"), **votes, neighbours=near).calibrated()
        assert np.abs(found - truth)[asked].mean() < 0.05 < np.abs(shares - truth)[asked].mean()
        assert (np.diff(found[np.argsort(shares)]) >= 0).all()
    few = Votes(classes=("a",), **{name: values[:9] for name, values in votes.items()}, neighbours=near[:9])
    assert few.calibrated() is few.confidence
