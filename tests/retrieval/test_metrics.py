"""Metrics against independent implementations and a naive loop."""

from __future__ import annotations

import ir_measures
import numpy as np
import pytest
from ir_measures import AP, RR, P, R, Success
from matmamba_retrieval import metrics
from sklearn.neighbors import KNeighborsClassifier
from small import unit_vectors

K = 8


def random_hits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Relevance of 40 queries' hits, and how many relevant images there are; some queries have none."""
    rng = np.random.default_rng(seed)
    relevant = rng.random((40, K)) < rng.random((40, 1))
    relevant[:3] = False
    total = relevant.sum(1) + rng.integers(0, 9, 40)
    total[0] = 0
    return relevant, total


def oracle(measure: ir_measures.Measure, relevant: np.ndarray, total: np.ndarray) -> float:
    """ir_measures over the same hits; queries without relevant images, which it leaves out, count 0."""
    qrels, run = [], []
    for q, (row, count) in enumerate(zip(relevant, total, strict=True)):
        run += [ir_measures.ScoredDoc(str(q), f"d{rank}", float(-rank)) for rank in range(K)]
        qrels += [ir_measures.Qrel(str(q), f"d{rank}", int(hit)) for rank, hit in enumerate(row)]
        qrels += [ir_measures.Qrel(str(q), f"missed{i}", 1) for i in range(count - row.sum())]
    values = [metric.value for metric in ir_measures.iter_calc([measure], qrels, run)]
    return sum(values) / len(relevant)


@pytest.mark.parametrize("seed", range(3))
def test_agreement_with_ir_measures(seed: int) -> None:
    relevant, total = random_hits(seed)
    assert metrics.top1(relevant) == pytest.approx(oracle(P @ 1, relevant, total))
    assert metrics.hit_at_k(relevant) == pytest.approx(oracle(Success @ K, relevant, total))
    assert metrics.recall_ir(relevant, total) == pytest.approx(oracle(R @ K, relevant, total))
    assert metrics.map_at_k_total(relevant, total) == pytest.approx(oracle(AP @ K, relevant, total))
    assert metrics.top1(relevant[:, :1]) == pytest.approx(oracle(RR @ 1, relevant, total))


def naive_sum(row: np.ndarray) -> float:
    return sum(row[: rank + 1].sum() / (rank + 1) for rank in range(len(row)) if row[rank])


@pytest.mark.parametrize("seed", range(3))
def test_agreement_with_a_naive_loop(seed: int) -> None:
    relevant, total = random_hits(seed)
    sums = [naive_sum(row) for row in relevant]
    assert metrics.map_at_k(relevant) == pytest.approx(np.mean([s / K for s in sums]))
    by_min = [s / min(K, count) if count else 0 for s, count in zip(sums, total, strict=True)]
    assert metrics.map_at_k_min(relevant, total) == pytest.approx(np.mean(by_min))
    by_found = [s / row.sum() if row.any() else 0 for s, row in zip(sums, relevant, strict=True)]
    assert metrics.map_at_k_found(relevant) == pytest.approx(np.mean(by_found))
    assert metrics.recall_mrl(relevant, 1300) == pytest.approx(relevant.sum() / 1300 / 40)


def test_one_ranking_has_many_average_precisions() -> None:
    """Hits at ranks 1, 3, 4, 8 of 6 relevant ones, k = 8."""
    relevant, total = np.array([[1, 0, 1, 1, 0, 0, 0, 1]], dtype=bool), np.array([6])
    assert metrics.map_at_k(relevant) == pytest.approx(0.365, abs=5e-4)
    assert metrics.map_at_k_min(relevant, total) == pytest.approx(0.486, abs=5e-4)
    assert metrics.map_at_k_total(relevant, total) == pytest.approx(0.486, abs=5e-4)
    assert metrics.map_at_k_found(relevant) == pytest.approx(0.729, abs=5e-4)


def test_ann_recall_counts_ties() -> None:
    exact = np.array([[0.9, 0.8, 0.7]])
    assert metrics.ann_recall(exact, exact) == 1
    assert metrics.ann_recall(np.array([[0.9, 0.8, 0.6999]]), exact) == 1
    assert metrics.ann_recall(np.array([[0.9, 0.5, -np.inf]]), exact) == pytest.approx(1 / 3)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_votes_agree_with_scikit_learn(k: int) -> None:
    """Of classes and vectors by chance, so that neighbours disagree."""
    xb, xq = unit_vectors(300, 8), unit_vectors(200, 8, seed=1)
    labels = np.random.default_rng(2).integers(6, size=300)

    def weights(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / 0.07)

    oracle = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=weights).fit(xb, labels)
    similarities = xq @ xb.T
    nearest = np.argsort(-similarities, axis=1)[:, :k]
    D = np.take_along_axis(similarities, nearest, axis=1)
    found = metrics.knn_classes(D, labels[nearest])
    assert (found == oracle.predict(xq)).all()
    if k > 1:
        assert (found != labels[nearest[:, 0]]).any()


def test_equal_votes_go_to_the_nearest() -> None:
    D = np.full((1, 4), 0.5, dtype=np.float32)
    assert metrics.knn_classes(D, np.array([[3, 1, 1, 3]])).tolist() == [3]


def test_close_neighbours_outvote_many_distant_ones() -> None:
    D = np.array([[0.9, 0.5, 0.5, 0.5]])
    assert metrics.knn_classes(D, np.array([[7, 2, 2, 2]])).tolist() == [7]
    assert metrics.knn_classes(D, np.array([[7, 2, 2, 2]]), temperature=10).tolist() == [2]
