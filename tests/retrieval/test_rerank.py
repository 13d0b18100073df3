"""The rerank: exact, in one order, whatever is scored together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matmamba_retrieval import EmbeddingSpec, Gallery, Row, prefix, rerank
from matmamba_retrieval.index.rerank import NO_KEY, best_of, widen
from matmamba_retrieval.index.threads import one_thread
from matmamba_retrieval.storage.segments import Segments, write_segment
from small import unit_vectors


def test_widening_is_numpys_own_conversion() -> None:
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    assert np.array_equal(widen(finite).view(np.int32), finite.astype(np.float32).view(np.int32))
    assert np.array_equal(widen(every), every.astype(np.float32), equal_nan=True)
    assert np.array_equal(widen(finite[:60000].reshape(2, -1)[:, :7]), finite[:60000].reshape(2, -1)[:, :7])
    assert widen(np.empty((0, 8), np.float16)).shape == (0, 8)
    doubles = np.random.default_rng(0).random((3, 4))
    assert np.array_equal(widen(doubles), doubles.astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 50), st.booleans())
def test_the_best_are_those_of_a_full_sort(seed: int, count: int, k: int, large: bool) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 3, (4, count)).astype(np.float32) * np.float32(0.25)
    scores[rng.random((4, count)) < 0.1] = -np.inf
    scores[scores == 0] *= np.float32(-1)
    keys = np.array([rng.permutation(count) for _ in range(4)]) + (2**33 if large else 0)
    D, I = best_of(scores, keys, k)  # noqa: E741
    for row in range(4):
        order = sorted(range(count), key=lambda n: (-scores[row, n], keys[row, n]))[:k]
        assert np.array_equal(D[row], scores[row, order])
        wanted = np.where(scores[row, order] == -np.inf, NO_KEY, keys[row, order])
        assert np.array_equal(I[row], wanted)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([7, 32, 100]), st.integers(1, 60))
def test_a_score_depends_on_nothing_but_the_two_vectors(seed: int, dim: int, length: int) -> None:
    """Bit for bit: one query or many, any other candidates, any threads, missing ones included."""
    rng = np.random.default_rng(seed)
    xb, xq = unit_vectors(300, 100, seed).astype(np.float16), prefix(unit_vectors(40, 100, seed + 1), dim)
    candidates = np.array([rng.choice(300, length, replace=False) for _ in xq])
    candidates[rng.random(candidates.shape) < 0.1] = NO_KEY
    D, I = rerank(xq, candidates, lambda keys: xb[keys], 10)  # noqa: E741
    with one_thread():
        assert np.array_equal(rerank(xq, candidates, lambda keys: xb[keys], 10)[0], D)
    for q in range(0, 40, 7):
        alone = rerank(xq[q : q + 1], rng.permutation(candidates[q])[None], lambda keys: xb[keys], 10)
        assert np.array_equal(alone[0][0], D[q])
        assert np.array_equal(alone[1][0], I[q])
        for place in range(min(3, length)):
            if I[q, place] != NO_KEY:
                single = rerank(xq[q : q + 1], I[q : q + 1, place : place + 1], lambda keys: xb[keys], 1)
                assert single[0][0, 0] == D[q, place]


def test_vectors_are_read_in_order_and_once_for_queries_that_share_them() -> None:
    xb, asked = unit_vectors(50, 16), []

    def read(keys: np.ndarray) -> np.ndarray:
        asked.append(keys)
        return xb[keys]

    rerank(unit_vectors(6, 16, seed=2), np.tile([9, 3, NO_KEY, 41], (6, 1)), read, 2)
    assert [keys.tolist() for keys in asked] == [[3, 9, 41]]


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_nothing_to_score(shape: tuple[int, int]) -> None:
    candidates = np.zeros(shape, dtype=np.int64)
    D, I = rerank(unit_vectors(shape[0], 8), candidates, lambda keys: unit_vectors(len(keys), 8), 4)  # noqa: E741
    assert D.shape == I.shape == (shape[0], 4)
    assert (I == NO_KEY).all()
    assert np.isneginf(D).all()
    missing = np.full((2, 3), NO_KEY)
    assert (rerank(unit_vectors(2, 8), missing, lambda keys: unit_vectors(0, 8), 2)[1] == NO_KEY).all()


def test_segments_change_no_score(tmp_path: object, spec: EmbeddingSpec) -> None:
    xb, xq = unit_vectors(900, 32), unit_vectors(20, 32, seed=3)
    candidates = np.array([np.random.default_rng(q).choice(900, 200, replace=False) for q in range(20)])
    found = []
    for size in (900, 130):
        with Gallery.create(f"{tmp_path}/{size}", spec) as gallery:
            for start in range(0, 900, size):
                rows = [Row(str(key), "") for key in range(start, min(900, start + size))]
                gallery.add(rows, xb[start : start + size])
            found.append(rerank(xq, candidates, gallery.segments.read, 15))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([7, 32, 100]), st.integers(1, 40), st.booleans())
def test_one_query_gets_the_scores_of_many_from_segments(
    memory: Segments, seed: int, dim: int, k: int, ties: bool
) -> None:
    """Bit for bit, although most rows are compared as halves, in another order of summation."""
    rng = np.random.default_rng(seed)
    xq, length = prefix(unit_vectors(6, 100, seed), dim), int(rng.integers(1, 300))
    candidates = np.array([rng.choice(300, min(length, 300), replace=False) for _ in xq])
    if ties:  # equal vectors and their like, more than are kept beside those wanted
        candidates = np.concatenate([candidates, np.tile(np.arange(300, 400), (6, 1))], axis=1)
    candidates[rng.random(candidates.shape) < 0.1] = NO_KEY
    D, I = rerank(xq, candidates, memory.read, k)  # noqa: E741
    for q in range(len(xq)):
        for read in (memory, memory.read):
            alone = rerank(xq[q : q + 1], candidates[q : q + 1], read, k)
            assert np.array_equal(alone[0][0], D[q])
            assert np.array_equal(alone[1][0], I[q])


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Segments:
    """300 vectors, and 100 that differ from one by little or nothing."""
    xb, folder = unit_vectors(400, 100, seed=9), tmp_path_factory.mktemp("segments")
    xb[300:] = xb[0] + np.random.default_rng(1).integers(0, 2, (100, 1)) * np.float32(1e-3) * xb[300:]
    xb /= np.linalg.norm(xb, axis=1, keepdims=True)
    return Segments(folder, [write_segment(folder, [xb], width="full", start=0, rows=400, dim=100)], 100)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1.0, 1e20, np.nan])
def test_a_query_of_any_length_meets_all_that_may_be_nearest(memory: Segments, scale: float) -> None:
    xq = (unit_vectors(1, 100, seed=3) * np.float64(scale)).astype(np.float32)
    candidates = np.arange(400)[None]
    found = rerank(xq, candidates, memory, 5)
    wanted = rerank(np.repeat(xq, 2, axis=0), np.repeat(candidates, 2, axis=0), memory, 5)
    assert np.array_equal(found[0][0], wanted[0][0], equal_nan=True)
    assert np.array_equal(found[1][0], wanted[1][0])


def test_threads_compare_in_memory_of_their_own(memory: Segments) -> None:
    xq = prefix(unit_vectors(64, 100, seed=4), 100)
    candidates = np.argsort(np.random.default_rng(0).random((64, 400)), axis=1)[:, :200]
    D, I = rerank(xq, candidates, memory, 10)  # noqa: E741
    with ThreadPoolExecutor(4) as pool:
        alone = [*pool.map(lambda q: rerank(xq[q : q + 1], candidates[q : q + 1], memory, 10), range(64))]
    assert np.array_equal(np.concatenate([found[0] for found in alone]), D)
    assert np.array_equal(np.concatenate([found[1] for found in alone]), I)
