"""The benchmarks of the shortlist indexes: their vectors are what they say, and all sides answer."""

from __future__ import annotations

import json
from pathlib import Path

import call_overhead
import growth
import million
import numpy as np
import pytest
import retrieval_tables
from matmamba_retrieval import prefix
from matmamba_retrieval.index.threads import one_thread
from structured import BLOCK_ROWS, Structured, exact_keys, overlap


def test_vectors_are_the_same_however_they_are_drawn() -> None:
    data = Structured(dim=16, classes=7)
    whole = np.concatenate([xb for _, xb in data.blocks(BLOCK_ROWS + 300)])
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    parts = [xb for start, end in ((0, 10), (10, BLOCK_ROWS + 5)) for _, xb in data.blocks(end, start)]
    assert np.array_equal(np.concatenate(parts), whole[: BLOCK_ROWS + 5])
    assert [first for first, _ in data.blocks(BLOCK_ROWS + 5, 10)] == [10, BLOCK_ROWS]
    assert not np.array_equal(whole[:9], Structured(dim=16, classes=7, seed=1).block(0)[:9])
    assert not np.isin(data.queries(50)[:, 0], whole[:, 0]).all()


def test_longer_prefixes_know_more() -> None:
    data = Structured(dim=128, classes=20)
    xb, xq = data.block(0, 3000), data.queries(60)
    exact = exact_keys(iter([xb[:1000], xb[1000:]]), xq, 10)
    assert np.array_equal(exact, np.argsort(-(xq @ xb.T), axis=1)[:, :10])
    shares = [
        overlap(exact_keys(iter([prefix(xb, dim)]), prefix(xq, dim), 20), exact) for dim in (8, 16, 32, 64)
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.7 < 0.9 < shares[-1]


def test_overlap_is_a_share_of_the_exact_keys() -> None:
    assert overlap(np.array([[3, 1, 9], [4, 5, 6]]), np.array([[1, 3], [7, 4]])) == 0.75


def test_growth_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "growth.json"
    with one_thread():
        growth.main(["--threads", "1", "--output", str(file)], sizes=(1500, 3000))
    result = json.loads(file.read_text())
    assert [size["rows"] for size in result["sizes"]] == [1500, 3000]
    for size in result["sizes"]:
        assert size["ann_recall"] >= 0.99
        assert 0 < size["index_bytes"] < size["bound_bytes"]
        # In a process that has freed memory, so little may need none from the system.
        assert 0 <= size["peak_bytes"] < size["bound_bytes"]
        assert size["images_per_second"] > 0
    assert result["sizes"][0]["add_seconds"] <= result["sizes"][1]["add_seconds"]


def test_the_public_search_is_held_against_its_parts(tmp_path: Path) -> None:
    file = tmp_path / "call_overhead.json"
    with one_thread():
        call_overhead.main(["--quick", "--threads", "1", "--output", str(file)], rows=2000)
    cases = json.loads(file.read_text())["cases"]
    assert [case["settings"]["effort"] for case in cases] == [None, 4, 8]
    for case in cases:
        assert case["ratios"]["search / parts"]["median"] > 0.5
        assert case["sides"]["search"]["median"] > 0


def test_all_sides_of_the_comparison_answer_alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "IVF": ("IVF16,PQ128x4fsr",),
        "PCA_IVF": ("PCA32,IVF16,PQ32x4fsr",),
        "INDEXES": {64: "ivfpq", 512: "pca-ivfpq:64:16"},
        "QUERIES": 60,
        "SINGLE": 3,
    }.items():
        monkeypatch.setattr(million, name, value)
    file = tmp_path / "million.json"
    with one_thread():
        million.main(["--quick", "--threads", "1", "--output", str(file)], rows=2000)
    result = json.loads(file.read_text())
    sides = result["sides"]
    assert set(sides) > {"FAISS exact", "ours"}
    for side in sides.values():
        assert side["ann_recall"] >= million.RECALL
        assert all(side[f"ms_{how}"]["median"] > 0 for how in retrieval_tables.ASKED)
    assert sides["FAISS exact"]["ann_recall"] == 1
    assert sides["ours"]["memory_bytes"] < sides["FAISS HNSW32"]["memory_bytes"] / 4
    assert sides["ours"]["candidates"] >= 70
    assert "rested_thread: FAISS IVF-PQfs + refine / ours" in result["ratios"]
    assert retrieval_tables.million_table(result).count("\n|") == 1 + len(sides)
