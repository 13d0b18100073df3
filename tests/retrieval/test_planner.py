"""Benches against naive figures, and the planner's choice against all that it tried."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matmamba_retrieval import (
    EmbeddingSpec,
    Encoded,
    EncodedQueries,
    Gallery,
    GalleryError,
    Plan,
    Row,
    Strategy,
    search,
)
from matmamba_retrieval.planning.planner import Goal, Planner, candidates
from matmamba_retrieval.planning.trials import Bench, latencies


def near(x: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Vectors like those given, some noise apart."""
    moved = x + noise * np.random.default_rng(seed).standard_normal(x.shape) / np.sqrt(x.shape[1])
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def world(tmp_path: Path, spec: EmbeddingSpec) -> tuple[Gallery, EncodedQueries, list[str]]:
    """400 images of 8 classes, and 80 queries that the small width sees through more noise."""
    rng = np.random.default_rng(0)
    centres = near(np.eye(8, 32), 0.1, 1)
    labels, asked = rng.integers(8, size=400), rng.integers(8, size=80)
    gallery = Gallery.create(f"{tmp_path}/world", spec)
    xb = near(centres[labels], 1.2, 2)
    gallery.add([Row(str(key), str(key), f"class {label}") for key, label in enumerate(labels)], xb)
    gallery.build_shortlist(8)
    gallery.build_shortlist(16)
    full = near(centres[asked], 1.0, 3)
    queries = {"full": Encoded(full, 1e6, 1.0), "1/8": Encoded(near(full, 0.5, 4), 2e5, 0.2)}
    return gallery, EncodedQueries(queries), [f"class {label}" for label in asked]


World = tuple[Gallery, EncodedQueries, list[str]]


def test_qualities_are_what_a_loop_finds(world: World) -> None:
    gallery, queries, labels = world
    bench = Bench(gallery, queries, 5, labels)
    trial = bench.trial(Strategy.shortlist(width="1/8", dim=8, length=30))
    stored = gallery.labels()
    xb = gallery.segments.read(np.arange(400)).astype(np.float64)
    for q, keys in enumerate(trial.hits.I):
        right = np.array([stored[key] == labels[q] for key in keys])
        exact = np.argsort(-(xb @ queries.encode("full").xq[q].astype(np.float64)), kind="stable")[:5]
        assert trial.values["knn1"][q] == right[0]
        precise = sum(right[: rank + 1].mean() for rank in range(5) if right[rank]) / 5
        assert trial.values["map"][q] == pytest.approx(precise)
        assert trial.values["same1"][q] == (keys[0] == exact[0])
        assert trial.values["recall"][q] >= len(set(keys) & set(exact)) / 5
    row = trial.row()
    assert row["recall"] == trial.values["recall"].mean()
    assert (row["encoder_macs"], row["by_full"], row["dims"]) == (1.2e6, 1.0, [8])
    assert row["search_macs"] == 400 * 8 + 30 * 32


def test_single_shot_is_the_reference(world: World) -> None:
    gallery, queries, labels = world
    bench = Bench(gallery, queries, 5, labels)
    for name, values in bench.trial(Strategy.single_shot()).values.items():
        assert np.array_equal(values, bench.reference[name]), name
    assert bench.reference["recall"].all()
    assert bench.reference["same1"].all()
    assert set(Bench(gallery, queries, 5).reference) == {"same1", "recall"}


@pytest.mark.parametrize("qualities", [("knn1", "map"), ("recall",), ("same1",)])
def test_a_calibrated_gate_loses_what_it_says(world: World, qualities: tuple[str, ...]) -> None:
    gallery, queries, labels = world
    bench = Bench(gallery, queries, 5, labels)
    strategy = Strategy.gated(width="1/8", dim=16, length=200)
    found = bench.calibrate(strategy, 0.02, qualities)
    assert found.met
    trial = bench.trial(replace(strategy, gate=found.gate))
    assert trial.hits.by_full.mean() == pytest.approx(found.share)
    for name, loss in zip(qualities, found.losses, strict=True):
        assert bench.reference[name].mean() - trial.values[name].mean() == pytest.approx(loss, abs=1e-9)
        assert loss <= 0.02 + 1e-9


@pytest.mark.parametrize("folds", [2, 5])
def test_the_gate_that_a_query_meets_was_calibrated_without_it(world: World, folds: int) -> None:
    """By hand: each fold's queries by the gate of the others; and the gate that is kept is that of all."""
    gallery, queries, labels = world
    bench = Bench(gallery, queries, 5, labels)
    strategy, wanted = Strategy.gated(width="1/8", dim=16, length=200), (0.03, ("knn1", "map"))
    trial, found = bench.gated_trial(strategy, *wanted, folds=folds, seed=3)
    assert trial.strategy.gate == found.gate == bench.calibrate(strategy, *wanted).gate
    dealt = np.random.default_rng(3).permutation(80) % folds
    for fold in range(folds):
        here, others = (np.flatnonzero(same) for same in (dealt == fold, dealt != fold))
        gate = bench.take(others).calibrate(strategy, *wanted).gate
        expected = bench.take(here).trial(replace(strategy, gate=gate))
        assert np.array_equal(trial.hits.I[here], expected.hits.I)
        assert np.array_equal(trial.hits.by_full[here], expected.hits.by_full)
        assert np.array_equal(trial.values["map"][here], expected.values["map"])
    assert trial.hits.cost.macs == pytest.approx(2e5 + 1e6 * trial.hits.by_full.mean())
    with pytest.raises(GalleryError, match="1 folds"):
        bench.gated_trial(strategy, *wanted, folds=1)


def test_without_labels_a_gate_takes_a_rule_that_needs_none(world: World) -> None:
    gallery, queries, _ = world
    found = Bench(gallery, queries, 5).calibrate(
        Strategy.gated(width="1/8", dim=16, length=200), 0.1, ["recall"]
    )
    assert found.gate.rule in ("gap", "boundary")


def test_latencies_are_of_queries_asked_alone(world: World) -> None:
    gallery, queries, _ = world
    found = latencies(Strategy.shortlist(width="1/8", dim=8, length=30), gallery, queries, 5, most=7)
    assert found.shape == (7, 2)
    assert np.allclose(found[:, 0], 1.2)
    assert (found[:, 1] > 0).all()


def row(ms: float, recall: float, gmacs: float = 1.0, memory: float = 1.0) -> dict[str, Any]:
    return {"ms": ms, "recall": recall, "gmacs": gmacs, "memory_mb": memory}


ROWS = [row(9, 1.0), row(5, 0.99, 2), row(3, 0.97), row(4, 0.97), row(1, 0.5, memory=9)]


def test_the_fastest_that_reaches_the_target_is_chosen(world: World) -> None:
    def choose(**given: Any) -> dict[str, Any]:
        return Planner(world[0], world[1], 5, Goal(**given)).choose(ROWS)

    assert choose(targets={"recall": 0.98})["ms"] == 5
    assert choose(targets={"recall": 0.98}, budgets={"gmacs": 1.5})["ms"] == 9
    assert choose(budgets={"ms": 4})["ms"] == 3
    assert choose(budgets={"ms": 2})["recall"] == 0.5
    with pytest.raises(GalleryError, match=r"ms <= 4: recall was at most 1, ms was at least 1"):
        choose(targets={"recall": 0.98}, budgets={"ms": 4})


def test_a_plan_is_made_of_what_was_measured(world: World) -> None:
    gallery, queries, labels = world
    planner = Planner(gallery, queries, 5, Goal({"recall": 0.9}), labels)
    wanted = candidates(gallery, ["full", "1/8"], 5, [8, 16])
    found = list(planner.run(wanted))
    rows = [known for known in found if known is not None]
    assert {known["strategy"] for known in rows} == {"single-shot", "shortlist", "funnel", "gated"}
    chosen = planner.choose(rows)
    assert chosen["ms"] == min(known["ms"] for known in rows if known["recall"] >= 0.9)
    plan = planner.plan(chosen)
    assert plan.measured["recall"] == chosen["recall"]
    assert search(gallery, Plan.from_json(plan.to_json()).require(gallery), queries, 5).I.shape == (80, 5)
    # What was left out is a longer list of one that reached the target.
    for strategy, known in zip(wanted, found, strict=True):
        if known is None:
            shorter = [
                other
                for other in rows
                if (other["strategy"], other["query_width"]) == (strategy.kind, strategy.query_width)
                and tuple(other["dims"]) == strategy.dims
                and other["lengths"][0] < strategy.lengths[0]
            ]
            assert max(other["recall"] for other in shorter) >= 0.9


@pytest.mark.parametrize(
    ("targets", "budgets", "message"),
    [
        ([], [], "a target, such as recall=0.99, or a budget"),
        (["recall"], [], "'recall' is not a name and a number"),
        (["recall=all"], [], "not a name and a number"),
        (["speed=3"], [], "unknown target 'speed'"),
        (["recall=1.2"], [], "above 0, at most 1"),
        ([], ["ms=0"], "ms=0: it can be above 0"),
        ([], ["ms=nan"], "ms=nan"),
        ([], ["recall=0.9"], "unknown budget 'recall'"),
    ],
)
def test_a_goal_that_cannot_be_is_refused(targets: list[str], budgets: list[str], message: str) -> None:
    with pytest.raises(GalleryError, match=message):
        Goal.parse(targets, budgets)


def test_what_cannot_be_planned_is_refused(world: World) -> None:
    gallery, queries, _ = world
    with pytest.raises(GalleryError, match="knn1 needs queries with labels"):
        Planner(gallery, queries, 5, Goal({"knn1": 0.5}))
    with pytest.raises(GalleryError, match="at least 2 queries, not 1"):
        Planner(gallery, queries.take(np.array([0])), 5, Goal({"recall": 0.5}))


def test_a_plan_weighs_efforts_and_the_memory_of_its_own_index(world: World) -> None:
    gallery, queries, _ = world
    gallery.build_shortlist(8, "ivf")
    first = [step for tried in candidates(gallery, ["full"], 5, [8, 16]) for step in tried.steps[:1]]
    index = gallery.shortlist_index(next(known for known in gallery.shortlists() if known.dim == 8))
    efforts = {tried.effort for tried in first if tried.dim == 8}
    assert index.effort in efforts
    assert len(efforts) > 1
    assert efforts <= set(index.efforts)
    assert {tried.effort for tried in first if tried.dim == 16} == {None}
    planner = Planner(gallery, queries, 5, Goal.parse(["recall=0.9"], []))
    for dim, name in ((8, "ivf"), (16, "Flat")):
        size = (
            gallery.folder / "shortlist" / next(r.file for r in gallery.shortlists() if r.dim == dim)
        ).stat()
        row = planner.measure(Strategy.shortlist(width="full", dim=dim, length=50, index=name))
        assert row["memory_mb"] * 2**20 == size.st_size
