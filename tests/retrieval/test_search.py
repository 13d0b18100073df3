"""Scoring and strategies: exact where they say so, and honest about their cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matmamba_retrieval import (
    Encoded,
    EncodedQueries,
    Gallery,
    GalleryError,
    Strategy,
    prefix,
    rerank,
    search,
)
from matmamba_retrieval.index.rerank import NO_KEY, exact_candidates
from matmamba_retrieval.strategies import stages
from small import unit_vectors


@pytest.fixture
def queries(gallery: Gallery) -> EncodedQueries:
    full, small = unit_vectors(12, 32, seed=1), unit_vectors(12, 32, seed=2)
    return EncodedQueries({"full": Encoded(full, 100.0, 2.0), "1/8": Encoded(small, 10.0, 0.5)})


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 8), st.integers(1, 300))
def test_exact_search_is_exact(seed: int, count: int, k: int, block: int) -> None:
    """Against float64 arithmetic, in any division into blocks; equal vectors are ordered by key."""
    rng = np.random.default_rng(seed)
    xb = unit_vectors(count, 16, seed).astype(np.float16)
    xb[rng.integers(0, count, count // 3)] = xb[0]
    xq = unit_vectors(3, 16, seed + 1)
    blocks = [(start, xb[start : start + block]) for start in range(0, count, block)]
    D, found = rerank(xq, exact_candidates(xq, blocks, k), lambda keys: xb[keys], k)
    exact = xq.astype(np.float64) @ xb.astype(np.float64).T
    order = np.sort(-exact, axis=1)[:, :k]
    assert np.allclose(D[:, : order.shape[1]], -order, atol=1e-6)
    assert (found[:, min(k, count) :] == NO_KEY).all()
    for row, scores in zip(found, D, strict=True):
        tied = np.flatnonzero(np.diff(scores[: min(k, count)]) == 0)
        assert (row[tied] < row[tied + 1]).all()


@pytest.mark.parametrize("chosen", [None, 0, 1, 7, 39])
@pytest.mark.parametrize("dim", [8, 32])
@pytest.mark.parametrize("at_once", [3, 1000])
def test_few_queries_are_answered_as_many_are(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, chosen: int | None, dim: int, at_once: int
) -> None:
    """Where vectors lie, or widened in blocks: to the bit, of all images and of some."""
    monkeypatch.setattr(stages, "KEYS_AT_ONCE", at_once)
    xq = unit_vectors(stages.FEW_QUERIES, 32, seed=8)[:, :dim]
    xq /= np.linalg.norm(xq, axis=1, keepdims=True)
    allowed = None
    if chosen is not None:
        allowed = np.zeros(len(gallery.segments), bool)
        allowed[np.random.default_rng(chosen).permutation(len(allowed))[:chosen]] = True
    found = stages.exact_search(gallery, xq, 5, allowed)
    monkeypatch.setattr(stages, "FEW_QUERIES", 0)
    for few, many in zip(found, stages.exact_search(gallery, xq, 5, allowed), strict=True):
        np.testing.assert_array_equal(few, many)


def test_a_score_depends_on_its_two_vectors_alone() -> None:
    xb, xq = unit_vectors(500, 100), unit_vectors(1, 100, seed=4)
    _, order = rerank(xq, np.arange(500)[None], lambda keys: xb[keys], 500)
    together = dict(
        zip(order[0], rerank(xq, np.arange(500)[None], lambda keys: xb[keys], 500)[0][0], strict=True)
    )
    for key in range(0, 500, 7):
        assert rerank(xq, np.array([[key]]), lambda keys: xb[keys], 1)[0][0, 0] == together[key]


def test_a_prefix_is_normalised_again() -> None:
    x = unit_vectors(5, 32)
    assert np.allclose(np.linalg.norm(prefix(x, 7), axis=1), 1)
    assert np.array_equal(prefix(x, 32), x)
    assert not np.isnan(prefix(np.zeros((1, 32), dtype=np.float16), 7)).any()


def test_a_shortlist_reranks_what_its_index_found(gallery: Gallery, queries: EncodedQueries) -> None:
    hits = search(gallery, Strategy.shortlist(width="1/8", dim=8, length=30), queries, 5)
    small, full = queries.by_width["1/8"].xq, queries.by_width["full"].xq
    stored = gallery.segments.read(np.arange(300)).astype(np.float32)
    nearest = np.argsort(-(prefix(small, 8) @ prefix(stored, 8).T), axis=1)[:, :30]
    for q in range(12):
        assert set(hits.shortlist[q]) == set(nearest[q])
        best = nearest[q][np.argsort(-(stored[nearest[q]] @ full[q]))][:5]
        assert np.array_equal(hits.I[q], best)


def test_a_funnel_of_one_step_is_a_shortlist(gallery: Gallery, queries: EncodedQueries) -> None:
    one = search(gallery, Strategy.shortlist(width="1/8", dim=16, length=40), queries, 5)
    other = search(gallery, Strategy.funnel(width="1/8", dims=(16,), lengths=(40,)), queries, 5)
    assert np.array_equal(one.I, other.I)


def test_a_funnel_narrows_by_more_and_more_dims(gallery: Gallery, queries: EncodedQueries) -> None:
    hits = search(gallery, Strategy.funnel(width="1/8", dims=(8, 20), lengths=(60, 10)), queries, 5)
    stored, full = gallery.segments.read(np.arange(300)).astype(np.float32), queries.by_width["full"].xq
    for q in range(12):
        kept = hits.shortlist[q]
        kept = kept[np.argsort(-(prefix(stored[kept], 20) @ prefix(full[q : q + 1], 20)[0]))][:10]
        assert set(hits.I[q]) <= set(kept)


def test_the_cost_says_what_was_spent(gallery: Gallery, queries: EncodedQueries) -> None:
    single = search(gallery, Strategy.single_shot(), queries, 5).cost
    assert (single.macs, single.ms["encode"], single.candidates) == (100, 2, 300)
    assert single.bytes_read == 300 * 32 * 2
    listed = search(gallery, Strategy.shortlist(width="1/8", dim=8, length=30), queries, 5).cost
    assert (listed.macs, listed.ms["encode"], listed.candidates) == (110, 2.5, 30)
    # The index has a header besides its rows.
    assert 0 <= listed.bytes_read - (300 * 8 * 4 + 30 * 32 * 2) < 100
    assert set(listed.ms) == {"encode", "shortlist", "rerank"}
    assert listed.search_ms == listed.ms["shortlist"] + listed.ms["rerank"] > 0
    full_only = search(gallery, Strategy.shortlist(width="full", dim=8, length=30), queries, 5).cost
    assert full_only.macs == 100


@pytest.mark.parametrize("k", [0, -1, 301])
def test_a_k_that_the_gallery_cannot_give_is_refused(
    gallery: Gallery, queries: EncodedQueries, k: int
) -> None:
    with pytest.raises(GalleryError, match=str(k)):
        search(gallery, Strategy.single_shot(), queries, k)


def test_what_cannot_be_searched_is_named(gallery: Gallery, queries: EncodedQueries) -> None:
    with pytest.raises(GalleryError, match="shortlist of 3"):
        search(gallery, Strategy.shortlist(width="1/8", dim=8, length=3), queries, 5)
    with pytest.raises(GalleryError, match="'1/4'"):
        search(gallery, Strategy.shortlist(width="1/4", dim=8, length=30), queries, 5)
    with pytest.raises(GalleryError, match="one or more dim and length"):
        search(gallery, Strategy.funnel(width="1/8", dims=(8, 16), lengths=(30,)), queries, 5)
    short = EncodedQueries({"full": Encoded(unit_vectors(1, 16), 0, 0)})
    with pytest.raises(GalleryError, match="16 dims, the gallery has 32"):
        search(gallery, Strategy.single_shot(), short, 5)
