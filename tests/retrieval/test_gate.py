"""Gates: their rules against naive ones, their calibration against brute force, and what passes them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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
from matmamba_retrieval.strategies.forecast import Forecast, cross_fitted, fit
from matmamba_retrieval.strategies.gate import EVERY, NONE, RULES, Gate, calibrate, classes_of, depth, gates
from matmamba_retrieval.strategies.gated import margins_of, small_hits
from small import unit_vectors

WANTED = 4
CONSTANT = Forecast(("gap",), (0.0,), (1.0,), (0.5, 0.0, 0.0))


def ranking(seed: int, count: int = 30, hits: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Descending scores and classes; -1 for no class in some places at the end."""
    rng = np.random.default_rng(seed)
    D = -np.sort(-rng.random((count, hits)).astype(np.float32), axis=1)
    classes = rng.integers(0, 3, (count, hits))
    for row in range(0, count, 5):
        D[row, 7:], classes[row, 7:] = -np.inf, NO_KEY
    return D, classes


def average_precision(row: np.ndarray, wanted: int) -> float:
    right = row[:WANTED] == wanted
    return sum(right[: rank + 1].mean() for rank in range(len(right)) if right[rank]) / WANTED


def naive(rule: str, D: np.ndarray, classes: np.ndarray) -> float:
    there = classes[classes != NO_KEY]
    if rule == "gap":
        return float(D[0]) - float(D[1])
    if rule == "boundary":
        return float(D[WANTED - 1]) - float(D[WANTED])
    if rule == "class":
        others = [float(score) for score, label in zip(D, classes, strict=True) if label != classes[0]]
        return float(D[0]) - max(others)
    if rule == "vote":
        return float((there == classes[0]).mean())
    shares = {label: (there == label).mean() for label in set(there.tolist())}
    expected = sum(share * average_precision(classes, label) for label, share in shares.items())
    return expected - max(shares.values())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_rules_agree_with_naive_ones(rule: str, seed: int) -> None:
    D, classes = ranking(seed)
    expected = [naive(rule, *query) for query in zip(D, classes, strict=True)]
    assert np.allclose(RULES[rule](D, classes, WANTED), expected, atol=1e-6)


@pytest.mark.parametrize("rule", ["gap", "boundary", "class"])
def test_where_nothing_can_be_confused_the_margin_is_large(rule: str) -> None:
    D = np.array([[0.9, 0.8, 0.7, 0.6, -np.inf], [0.9] + [-np.inf] * 4], dtype=np.float32)
    classes = np.array([[1, 1, 1, 1, NO_KEY], [1] + [NO_KEY] * 4])
    found = RULES[rule](D, classes, WANTED)
    assert found[1] > 1e29
    assert not np.isnan(found).any()


def loss(margins: np.ndarray, small: np.ndarray, full: np.ndarray, threshold: float) -> np.ndarray:
    return np.where((margins < threshold)[:, None], full, small).mean(0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.floats(0, 0.5))
def test_calibration_finds_the_fewest_below_which_no_larger_share_loses_more(
    seed: int, count: int, target: float
) -> None:
    rng = np.random.default_rng(seed)
    margins = rng.integers(0, 8, count) / 8
    small = rng.choice([-1.0, 0.0, 1.0], (count, 2), p=[0.1, 0.5, 0.4])
    full = rng.choice([0.0, 1.0], (count, 2), p=[0.9, 0.1])
    found = calibrate({Gate("gap"): margins}, small, full, target)
    thresholds = [*np.unique(margins), EVERY]
    good = [bool((loss(margins, small, full, t) <= target + 1e-12).all()) for t in thresholds]
    assert found.met == good[-1]
    if found.met:
        first = max([number + 1 for number, fits in enumerate(good) if not fits], default=0)
        assert found.share == pytest.approx((margins < thresholds[first]).mean())
        assert found.gate.hard(margins).size == round(found.share * count)
        assert np.allclose(found.losses, loss(margins, small, full, found.gate.threshold))
        assert all(np.array(found.bounds) >= found.losses)
        assert max(found.losses) <= target + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_calibration_that_is_to_be_sure_holds_the_bound_to_the_target(seed: int) -> None:
    rng = np.random.default_rng(seed)
    margins = rng.random(2000)
    small = (rng.random((2000, 1)) < 0.3 * (1 - margins[:, None])).astype(float)
    none = np.zeros_like(small)
    plain, sure = (calibrate({Gate("gap"): margins}, small, none, 0.05, sure=sure) for sure in (False, True))
    assert plain.share < sure.share < 1
    assert plain.bounds[0] > 0.05 >= sure.bounds[0] > sure.losses[0]
    each = np.where(margins < sure.gate.threshold, 0, small[:, 0])
    assert sure.bounds[0] == pytest.approx(each.mean() + 1.6449 * each.std() / np.sqrt(2000))


def test_calibration_keeps_the_rule_that_sends_fewest() -> None:
    small = np.array([[1.0], [0.0], [0.0], [0.0]])
    good, bad = np.array([0.0, 1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0, 0.0])
    found = calibrate({Gate("gap"): bad, Gate("class"): good}, small, np.zeros((4, 1)), 0.0)
    assert (found.gate, found.share) == (Gate("class", 1.0), 0.25)


def test_a_target_that_the_full_width_misses_is_said_to_be_missed() -> None:
    ones = np.ones((4, 1))
    found = calibrate({Gate("gap"): np.arange(4.0)}, ones, ones, 0.1)
    assert (found.met, found.share, found.gate.threshold) == (False, 1.0, EVERY)


def test_a_gate_that_cannot_be_is_refused() -> None:
    with pytest.raises(GalleryError, match="'luck'"):
        Gate("luck")
    with pytest.raises(GalleryError, match="with its forecast"):
        Gate("forecast")
    with pytest.raises(GalleryError, match="'forecast'"):
        Gate("forecast", forecast=replace(CONSTANT, rules=("luck",)))
    with pytest.raises(GalleryError, match="'gap'"):
        Gate("gap", forecast=CONSTANT)
    with pytest.raises(GalleryError, match="queries to calibrate"):
        calibrate({Gate("gap"): np.empty(0)}, np.empty((0, 1)), np.empty((0, 1)), 0.1)


def hills(seed: int, count: int = 2000) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Margins by two rules, and losses of those alone that are neither sure nor hopeless."""
    rng = np.random.default_rng(seed)
    by_rule = {"gap": rng.random(count), "vote": rng.random(count)}
    chance = np.clip(1 - 8 * (by_rule["gap"] - 0.5) ** 2, 0, 1) * by_rule["vote"]
    return by_rule, (rng.random(count) < chance).astype(float)


def test_a_forecast_is_the_least_squares_polynomial() -> None:
    """Against numpy's own solver of the same problem: ridge as rows of zeros behind the data."""
    by_rule, losses = hills(0, 300)
    found = fit(by_rule, losses)
    x = np.stack([*by_rule.values()], axis=1)
    x = np.clip((x - x.mean(0)) / (x.std(0) + 1e-9), -4, 4)
    a, b = x.T
    terms = np.stack([np.ones(300), a, b, a * a, a * b, b * b], axis=1)
    held = np.sqrt(0.1 * 300) * np.eye(6)[1:]
    expected = np.linalg.lstsq(np.vstack([terms, held]), np.r_[losses, np.zeros(5)], rcond=None)[0]
    assert np.allclose(found.weights, expected)
    assert np.allclose(found(by_rule), terms @ expected)


def test_a_forecast_of_a_query_has_not_seen_it() -> None:
    by_rule, losses = hills(1, 400)
    changed = losses.copy()
    changed[7] += 100
    first, second = cross_fitted(by_rule, losses), cross_fitted(by_rule, changed)
    assert first[7] == second[7]
    assert np.abs(first - second).max() > 0.1


def test_a_forecast_is_finite_where_margins_are_without_bound() -> None:
    by_rule, losses = hills(2, 200)
    by_rule["gap"][:3] = EVERY, -EVERY, np.inf
    assert np.isfinite(fit(by_rule, losses)(by_rule)).all()


def test_where_sure_and_hopeless_queries_lose_nothing_a_forecast_sends_fewer() -> None:
    by_rule, losses = hills(3)
    small, full = losses[:, None], np.zeros((len(losses), 1))
    known = gates(by_rule, small, full)
    found = calibrate(known, small, full, 0.1)
    alone = calibrate({gate: values for gate, values in known.items() if not gate.forecast}, small, full, 0.1)
    assert found.gate.rule == "forecast"
    assert found.share < 0.9 * alone.share
    # What was calibrated holds for queries of the same kind.
    others, theirs = hills(4)
    hard = found.gate.hard(found.gate.margins(others))
    assert np.delete(theirs, hard).sum() / len(theirs) < 0.12


def test_few_queries_make_no_forecast() -> None:
    by_rule, losses = hills(5, 99)
    assert all(not gate.forecast for gate in gates(by_rule, losses[:, None], np.zeros((99, 1))))


@dataclass
class CountedQueries:
    """Queries that remember how many were encoded at each width."""

    full: np.ndarray
    small: np.ndarray
    encoded: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.full)

    def encode(self, width: str) -> Encoded:
        self.encoded[width] = self.encoded.get(width, 0) + len(self)
        xq, macs = {"full": (self.full, 100.0), "1/8": (self.small, 10.0)}[width]
        return Encoded(xq, macs, macs / 10)

    def take(self, which: np.ndarray) -> CountedQueries:
        return CountedQueries(self.full[which], self.small[which], self.encoded)


@pytest.fixture
def queries() -> CountedQueries:
    return CountedQueries(unit_vectors(20, 32, seed=1), unit_vectors(20, 32, seed=2))


@pytest.mark.parametrize("expand", [0, 6])
@pytest.mark.parametrize("again", [False, True])
def test_a_gate_that_none_passes_is_a_shortlist(
    gallery: Gallery, queries: CountedQueries, again: bool, expand: int
) -> None:
    hits = search(
        gallery,
        Strategy.gated(width="1/8", dim=8, length=30, gate=Gate("gap", EVERY), again=again, expand=expand),
        queries,
        5,
    )
    expected = search(
        gallery,
        Strategy.shortlist(width="full" if again else "1/8", dim=8, length=30, expand=expand),
        queries,
        5,
    )
    assert np.array_equal(hits.I, expected.I)
    assert np.array_equal(hits.D, expected.D)
    assert hits.by_full.all()
    assert hits.cost.macs == 110


def test_a_gate_that_all_pass_is_the_small_width_alone(gallery: Gallery, queries: CountedQueries) -> None:
    hits = search(gallery, Strategy.gated(width="1/8", dim=8, length=30, gate=Gate("gap", NONE)), queries, 5)
    alone = search(gallery, Strategy.shortlist(width="1/8", dim=8, length=30, rerank_width="1/8"), queries, 5)
    assert np.array_equal(hits.I, alone.I)
    assert not hits.by_full.any()
    assert "full" not in queries.encoded
    assert hits.cost.macs == 10


@pytest.mark.parametrize("rule", RULES)
def test_only_doubtful_queries_are_encoded_at_full_width(
    gallery: Gallery, queries: CountedQueries, rule: str
) -> None:
    both = [
        search(gallery, Strategy.gated(width="1/8", dim=8, length=60, gate=Gate(rule, threshold)), queries, 5)
        for threshold in (NONE, EVERY)
    ]
    gated = Strategy.gated(width="1/8", dim=8, length=60)
    small = small_hits(gallery, gated, queries, 5)
    found = RULES[rule](small.D, classes_of(gallery, small.I), 5)
    queries.encoded.clear()
    hits = search(
        gallery,
        Strategy.gated(width="1/8", dim=8, length=60, gate=Gate(rule, float(np.median(found)))),
        queries,
        5,
    )
    assert np.array_equal(hits.by_full, found < np.median(found))
    assert 0 < hits.by_full.sum() == queries.encoded["full"] < 20
    assert hits.cost.macs == pytest.approx(10 + 100 * hits.by_full.mean())
    for q, full in enumerate(hits.by_full):
        assert np.array_equal(hits.I[q], both[int(full)].I[q])
        assert np.array_equal(hits.D[q], both[int(full)].D[q])


def test_a_gate_looks_at_what_the_query_itself_finds(gallery: Gallery, queries: CountedQueries) -> None:
    plain, wide = (Strategy.gated(width="1/8", dim=8, length=60, expand=expand) for expand in (0, 6))
    found = [
        margins_of(gallery, ["gap", "vote"], small_hits(gallery, strategy, queries, 5), 5)
        for strategy in (plain, wide)
    ]
    for rule in found[0]:
        assert np.array_equal(found[0][rule], found[1][rule])
    gate = Gate("forecast", float(np.median(-found[0]["gap"])), Forecast(("gap",), (0.0,), (1.0,), (0, 1, 0)))
    hits = search(gallery, Strategy.gated(width="1/8", dim=8, length=60, gate=gate, expand=6), queries, 5)
    assert np.array_equal(hits.by_full, -found[0]["gap"] < gate.threshold)


def test_answers_do_not_depend_on_how_queries_are_batched(gallery: Gallery, queries: CountedQueries) -> None:
    strategy = Strategy.gated(width="1/8", dim=16, length=40, gate=Gate("vote", 0.36), expand=10)
    whole = search(gallery, strategy, queries, 5)
    for size in (1, 7):
        parts = [
            search(gallery, strategy, queries.take(np.arange(start, min(20, start + size))), 5)
            for start in range(0, 20, size)
        ]
        assert np.array_equal(np.concatenate([part.I for part in parts]), whole.I)
        assert np.array_equal(np.concatenate([part.by_full for part in parts]), whole.by_full)


def test_images_without_a_label_agree_with_none(tmp_path: object, spec: EmbeddingSpec) -> None:
    xb = unit_vectors(6, 32)
    with Gallery.create(f"{tmp_path}/mixed", spec) as gallery:
        gallery.add([Row(str(key), str(key), "a" if key < 2 else None) for key in range(6)], xb)
        classes = classes_of(gallery, np.array([[0, 1, 2, 3, NO_KEY]]))[0]
        assert classes[0] == classes[1]
        assert len(set(classes[1:].tolist())) == 4
        assert classes[4] == NO_KEY


def test_a_rule_of_labels_needs_labels(tmp_path: object, spec: EmbeddingSpec) -> None:
    with Gallery.create(f"{tmp_path}/bare", spec) as gallery:
        gallery.add([Row(str(key), str(key)) for key in range(40)], unit_vectors(40, 32))
        gallery.build_shortlist(8)
        queries = EncodedQueries({"1/8": Encoded(unit_vectors(2, 32, seed=1), 1, 1)})
        with pytest.raises(GalleryError, match="no labels"):
            search(gallery, Strategy.gated(width="1/8", dim=8, length=20, gate=Gate("vote", 0.5)), queries, 5)


def test_a_gate_of_a_gallery_that_grew_knows_its_new_classes(gallery: Gallery) -> None:
    classes_of(gallery, np.array([[0]]))
    gallery.add([Row("new", "new", "another")], unit_vectors(1, 32, seed=9))
    known = classes_of(gallery, np.array([[0, 300]]))[0]
    assert known[0] != known[1] >= 0


def test_a_short_gallery_has_all_that_rules_look_at(tmp_path: object, spec: EmbeddingSpec) -> None:
    assert depth(5) == 50
    assert depth(100) == 101
    with Gallery.create(f"{tmp_path}/tiny", spec) as gallery:
        gallery.add([Row(str(key), str(key), "a") for key in range(3)], unit_vectors(3, 32))
        gallery.build_shortlist(8)
        queries = EncodedQueries(
            {width: Encoded(unit_vectors(2, 32, seed=1), 1, 1) for width in ("full", "1/8")}
        )
        for rule in RULES:
            hits = search(
                gallery, Strategy.gated(width="1/8", dim=8, length=200, gate=Gate(rule, 0.01)), queries, 3
            )
            assert (np.sort(hits.I, axis=1) == np.arange(3)).all()
