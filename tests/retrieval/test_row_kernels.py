"""The kernel in C beside NumPy in float64, with every instruction set, and what it refuses to read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matmamba_common.native import loading
from matmamba_retrieval import prefix, rerank
from matmamba_retrieval.errors import GalleryError
from matmamba_retrieval.index.row_kernels import RowKernels, RowTable, row_kernels
from matmamba_retrieval.storage.records import SegmentRecord
from matmamba_retrieval.storage.segments import Segments, write_segment

pytestmark = pytest.mark.skipif(not loading.FILE.is_file(), reason="the kernels were not built")

NAMES = ("avx512", "avx2", "neon", "plain")
NO_KEY = -1


def every_set() -> list[RowKernels]:
    """The kernel with each set of instructions that this processor has."""
    found = []
    for name in NAMES:
        try:
            found.append(RowKernels(instructions=name))
        except OSError:
            continue
    return found


def unit_rows(count: int, dim: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def wanted(xq: np.ndarray, xb: np.ndarray, keys: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """By float64, rounded once; the order is by score and key."""
    dim = xq.shape[1]
    cut = xb[:, :dim].astype(np.float64)
    if dim < xb.shape[1]:
        cut /= np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    D = np.full((len(xq), k), -np.inf, np.float32)
    I = np.full((len(xq), k), NO_KEY)  # noqa: E741
    for q, row in enumerate(keys):
        known = row[row != NO_KEY]
        scores = (cut[known] @ xq[q].astype(np.float64)).astype(np.float32)
        order = np.lexsort((known, -scores))[:k]
        D[q, : len(order)], I[q, : len(order)] = scores[order], known[order]
    return D, I


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 140), st.floats(0.05, 1), st.integers(0, 300), st.integers(1, 50),
    st.integers(1, 4), st.booleans(),
)  # fmt: skip
def test_it_finds_what_numpy_finds(
    seed: int, row: int, share: float, count: int, k: int, nq: int, duplicates: bool
) -> None:
    rng, dim = np.random.default_rng(seed), max(1, int(share * row))
    xb = unit_rows(90, row, seed).astype(np.float16)
    xb[60:] = xb[:30]  # equal vectors: the smaller key stands first
    xq = unit_rows(nq, dim, seed + 1)
    keys = rng.integers(NO_KEY, 90, (nq, count)) if duplicates else np.array(
        [rng.permutation(90)[:count] for _ in range(nq)], dtype=np.int64
    ).reshape(nq, -1)  # fmt: skip
    table = RowTable([(0, xb[:40], None, 1), (40, xb[40:41], None, 1), (41, xb[41:], None, 1)], 90, row)
    answers = [kernel.best(table, xq, np.ascontiguousarray(keys), k) for kernel in every_set()]
    D, I = wanted(xq, xb, keys, k)  # noqa: E741
    for answer in answers:
        assert answer is not None
        np.testing.assert_allclose(answer[0], D, rtol=1e-6, atol=1e-7)
        # To the bit, whichever instructions there are.
        assert np.array_equal(answer[0], answers[0][0])  # type: ignore[index]
        assert np.array_equal(answer[1], answers[0][1])  # type: ignore[index]
        # The same keys, but where two scores differ by rounding alone.
        moved = answer[1] != I
        np.testing.assert_allclose(answer[0][moved], D[moved], rtol=1e-6, atol=1e-7)
        for q in range(nq):
            ties = np.flatnonzero(answer[0][q, 1:] == answer[0][q, :-1])
            assert (answer[1][q, ties] <= answer[1][q, ties + 1]).all() or NO_KEY in answer[1][q]


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -2.5, 6e-8, 6.1e-5, 65504.0, np.inf, -np.inf, np.nan])
def test_every_float16_is_widened_exactly(value: float) -> None:
    xb = np.full((1, 1), value, np.float16)
    for kernel in every_set():
        found = kernel.best(
            RowTable([(0, xb, None, 1)], 1, 1), np.ones((1, 1), np.float32), np.zeros((1, 1), np.int64), 1
        )
        assert found is not None
        assert np.array_equal(found[0], xb.astype(np.float32), equal_nan=True)


def test_what_is_no_number_comes_last_and_then_the_keys_count() -> None:
    xb = np.array([[np.nan], [0.5], [np.nan], [1.0]], np.float16)
    table, keys = RowTable([(0, xb, None, 1)], 4, 1), np.array([[2, 1, 0, 3]])
    for kernel in every_set():
        found = kernel.best(table, np.ones((1, 1), np.float32), keys, 4)
        assert found is not None
        assert found[1].tolist() == [[3, 1, 0, 2]]


def written(folder: Path, sizes: tuple[int, ...], dim: int) -> tuple[np.ndarray, Segments]:
    """Vectors, and the segments that hold them."""
    xb, records, start = unit_rows(sum(sizes), dim, 5), list[SegmentRecord](), 0
    for rows in sizes:
        part = xb[start : start + rows]
        records.append(write_segment(folder, [part], width="full", start=start, rows=rows, dim=dim))
        start += rows
    return xb, Segments(folder, records, dim)


def test_no_key_reads_beside_the_segments(tmp_path: Path) -> None:
    _, segments = written(tmp_path, (7, 5), 16)
    shown = segments.refreshed([part.record for part in segments._parts], 10)
    xq = unit_rows(1, 16, 1)
    # Two rows of the second file belong to a later version.
    for key in (10, 11, 12, 2**62):
        with pytest.raises(GalleryError, match="not all in"):
            rerank(xq, np.array([[3, key]]), shown, 1)
    kernel = row_kernels()
    assert kernel is not None
    with pytest.raises(ValueError, match="17 dims"):
        rerank(unit_rows(1, 17, 1), np.array([[3]]), shown, 1)


def test_rows_are_checked_before_the_kernel_trusts_them(tmp_path: Path) -> None:
    xb, segments = written(tmp_path, (700, 300), 64)
    xq, keys = unit_rows(1, 64, 2), np.array([[690, 3, 710, 999]])
    assert set(rerank(xq, keys, segments, 4)[1][0]) == {690, 3, 710, 999}
    record = segments._parts[0].record
    whole = bytearray((tmp_path / record.file).read_bytes())
    whole[-1] ^= 1
    (tmp_path / record.file).write_bytes(whole)
    again = Segments(tmp_path, [part.record for part in segments._parts], 64)
    found = rerank(xq, np.array([[3, 999]]), again, 2)
    assert np.allclose(found[0][0], -np.sort(-(xb[[3, 999]] @ xq[0])), atol=1e-3)
    for _ in range(2):
        with pytest.raises(GalleryError, match="damaged in rows"):
            rerank(xq, np.array([[3, 699]]), again, 2)


@pytest.mark.parametrize("nq", [1, 5])
def test_without_the_library_answers_are_the_same_but_for_rounding(
    nq: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, segments = written(tmp_path, (400, 1, 300), 100)
    keys = np.array([np.random.default_rng(q).permutation(701)[:200] for q in range(nq)])
    keys[:, ::9] = NO_KEY
    for dim in (100, 40):
        xq = prefix(unit_rows(nq, 100, 3), dim)
        D, I = rerank(xq, keys, segments, 20)  # noqa: E741
        with monkeypatch.context() as missing:
            missing.setattr(loading, "FILE", tmp_path / "none.so")
            loading._notice.cache_clear()
            caplog.clear()
            without = [rerank(xq, keys, segments, 20) for _ in range(2)]
            (record,) = caplog.records
            assert "make native" in record.message
        assert np.array_equal(without[0][1], I)
        np.testing.assert_allclose(without[0][0], D, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("nq", [0, 1, 3])
def test_empty_lists_have_no_hits(nq: int, tmp_path: Path) -> None:
    _, segments = written(tmp_path, (9,), 8)
    for keys in (np.empty((nq, 0), np.int64), np.full((nq, 4), NO_KEY)):
        D, I = rerank(unit_rows(nq, 8, 1), keys, segments, 3)  # noqa: E741
        assert D.shape == I.shape == (nq, 3)
        assert np.all(-np.inf == D)
        assert not (I != NO_KEY).any()
