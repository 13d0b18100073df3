"""Searches among a gallery's own images, and queries by example."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matmamba_retrieval import (
    EmbeddingSpec,
    Encoded,
    EncodedQueries,
    Gallery,
    GalleryError,
    Row,
    Strategy,
    search,
)
from matmamba_retrieval.index.rerank import NO_KEY
from matmamba_retrieval.strategies.examples import Away, Joined, Stored
from matmamba_retrieval.strategies.neighbours import AT_ONCE, neighbours, without
from small import unit_vectors

COUNT = AT_ONCE + 300


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    """A few more images than are searched for at once, with an index, a second width, and equal vectors."""
    folder: Path = tmp_path_factory.mktemp("neighbours") / "g"
    xb = unit_vectors(COUNT, 16)
    xb[50:90] = xb[7]
    rows = [Row(str(n), f"{n}.jpg", "odd" if n % 2 else "even") for n in range(COUNT)]
    with Gallery.create(folder, EmbeddingSpec("a" * 64, "full", 16), widths=("1/8",)) as made:
        made.add(rows, xb, {"1/8": unit_vectors(COUNT, 16, seed=1)})
        made.build_shortlist(16)
        made.delete(["3", "60"])
    return Gallery(folder)


@pytest.mark.parametrize("strategy", ["exact", "shortlist"])
def test_neighbours_are_the_nearest_others(gallery: Gallery, strategy: str) -> None:
    way = (
        Strategy.single_shot()
        if strategy == "exact"
        else Strategy.shortlist(width="full", dim=16, length=COUNT - 2)
    )
    found = list(neighbours(gallery, way, gallery.live_keys(), 5))
    assert [len(keys) for keys, _, _ in found] == [AT_ONCE, COUNT - 2 - AT_ONCE]
    keys, D, I = (np.concatenate(parts) for parts in zip(*found, strict=True))  # noqa: E741
    xb = gallery.segments.read(np.arange(COUNT)).astype(np.float64)
    scores = xb[keys] @ xb.T
    scores[:, [3, 60]] = -np.inf
    scores[np.arange(len(keys)), keys] = -np.inf
    assert np.allclose(D, np.minimum(1, -np.sort(-scores, axis=1)[:, :5]), atol=1e-6)
    assert not (keys[:, None] == I).any()
    assert not np.isin(I, [3, 60]).any()
    assert (np.diff(np.sort(I, axis=1)) > 0).all()


def test_only_what_is_allowed_is_a_neighbour(gallery: Gallery) -> None:
    even = gallery.allowed("label = 'even'")
    assert even is not None
    ((_, D, I),) = neighbours(gallery, Strategy.single_shot(), np.array([1, 2]), COUNT, even)  # noqa: E741
    # The odd one has all even ones as others, the even one all but itself.
    assert [(row != NO_KEY).sum() for row in I] == [even.sum(), even.sum() - 1]
    assert (I[I != NO_KEY] % 2 == 0).all()
    assert np.isneginf(D[I == NO_KEY]).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 8))
def test_one_key_is_left_out_and_the_order_kept(seed: int, found: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    I = np.stack([rng.permutation(9)[:found] for _ in range(3)])  # noqa: E741
    D = -np.sort(-rng.random((3, found)).astype(np.float32), axis=1)
    keys = rng.integers(0, 9, 3)
    kept_D, kept = without(D, I, keys, k)
    for row in range(3):
        wanted = [(key, score) for key, score in zip(I[row], D[row], strict=True) if key != keys[row]][:k]
        padding = [(NO_KEY, -np.inf)] * (k - len(wanted))
        assert list(zip(kept[row], kept_D[row], strict=True)) == wanted + padding


def test_an_image_of_the_gallery_is_asked_with_its_stored_vector(gallery: Gallery) -> None:
    stored = Stored(gallery, np.array([4, 9]))
    assert np.array_equal(stored.encode("full").xq, gallery.segments.read(stored.keys))
    assert np.array_equal(stored.encode("1/8").xq, gallery.segments_of("1/8").read(stored.keys))
    # Of a width that is not stored there is nothing better than the full vector.
    assert np.array_equal(stored.encode("1/2").xq, stored.encode("full").xq)
    assert (stored.encode("full").macs, stored.encode("full").ms) == (0, 0)
    hits = search(gallery, Strategy.single_shot(), stored, 1)
    assert hits.I[:, 0].tolist() == [4, 9]


def encoded(count: int, seed: int, macs: float = 100.0, ms: float = 2.0) -> EncodedQueries:
    widths = ("full", "1/8")
    return EncodedQueries(
        {width: Encoded(unit_vectors(count, 16, seed + n), macs, ms) for n, width in enumerate(widths)}
    )


def test_joined_queries_keep_their_order_and_share_their_cost(gallery: Gallery) -> None:
    joined = Joined([Stored(gallery, np.array([1])), encoded(3, 5)])
    assert len(joined) == 4
    assert np.array_equal(joined.encode("1/8").xq[1:], encoded(3, 5).encode("1/8").xq)
    assert (joined.encode("full").macs, joined.encode("full").ms) == (75, 1.5)
    some = np.array([0, 2, 3])
    assert np.array_equal(joined.take(some).encode("full").xq, joined.encode("full").xq[some])
    assert len(joined.take(np.array([2])).parts[0]) == 0


@pytest.mark.parametrize("width", ["full", "1/8"])
def test_a_query_moves_away_from_what_it_should_not_be_like(width: str) -> None:
    queries, negatives = encoded(4, 1), encoded(2, 9)
    away = Away(queries, negatives, 0.7).encode(width)
    moved = queries.encode(width).xq - 0.7 * negatives.encode(width).xq.mean(0)
    assert np.allclose(away.xq, moved / np.linalg.norm(moved, axis=1, keepdims=True), atol=1e-6)
    # Every query becomes less like the mean of the negatives.
    mean = negatives.encode(width).xq.mean(0)
    assert (away.xq @ mean < queries.encode(width).xq @ mean).all()
    assert (away.macs, away.ms) == (150, 3)
    assert np.array_equal(
        Away(queries, negatives, 0.7).take(np.array([1, 3])).encode(width).xq, away.xq[[1, 3]]
    )


def test_a_query_of_which_nothing_is_left_is_refused() -> None:
    with pytest.raises(GalleryError, match="nothing is left"):
        Away(encoded(1, 1), encoded(1, 1), 1.0).encode("full")
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(GalleryError, match="above 0"):
            Away(encoded(1, 1), encoded(1, 2), weight)
