"""Strategies and plans as JSON, what is refused, and grids of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from matmamba_retrieval import EmbeddingSpec, Encoded, EncodedQueries, Gallery, GalleryError, search
from matmamba_retrieval.planning.grid import FunnelSteps, Grid, IndexSettings, strategies_of
from matmamba_retrieval.strategies.forecast import Forecast
from matmamba_retrieval.strategies.gate import Gate
from matmamba_retrieval.strategies.plan import Plan, planned
from matmamba_retrieval.strategies.strategy import Strategy
from small import unit_vectors

FORECAST = Forecast(("gap", "boundary"), (0.1, 0.2), (1.0, 2.0), (0.5, 1.0, -1.0, 0.0, 0.25, 3.0))
EXAMPLES = [
    Strategy.single_shot(),
    Strategy.shortlist(
        width="1/8", dim=32, length=200, gallery_width="1/8", index="hnsw", effort=64, expand=5
    ),
    Strategy.funnel(width="1/4", dims=(16, 32), lengths=(400, 50), widths=("1/4", "full")),
    Strategy.gated(width="1/8", dim=32, length=200, gate=Gate("vote", 0.36), again=True, expand=50),
    Strategy.gated(width="1/8", dim=32, length=200, gate=Gate("forecast", 0.1, FORECAST)),
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_strategies_and_plans_survive_json(example: Strategy, spec: EmbeddingSpec) -> None:
    assert Strategy.from_json(json.loads(json.dumps(example.to_json()))) == example
    plan = Plan(
        strategy=example, spec=spec, k=10, goal="recall >= 0.99", measured={"recall": 0.995, "ms": 3.2}
    )
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_plan_of_version_0_1_is_read_and_written_as_it_was(spec: EmbeddingSpec) -> None:
    """Key by key, in the order in which that version wrote them."""
    funnel = {
        "strategy": "funnel",
        "query_width": "1/4",
        "dims": [16, 32],
        "lengths": [400, 50],
        "widths": ["1/4", "full"],
        "gallery_width": "1/8",
        "index": "hnsw",
        "effort": 64,
        "gate": None,
        "again": False,
        "expand": 5,
    }
    assert Strategy.from_json(funnel) == Strategy.funnel(
        width="1/4",
        dims=(16, 32),
        lengths=(400, 50),
        widths=("1/4", "full"),
        gallery_width="1/8",
        index="hnsw",
        effort=64,
        expand=5,
    )
    single = dict(funnel, strategy="single-shot", dims=[], lengths=[], widths=[], expand=0)
    single |= {"gallery_width": "full", "index": "", "effort": None}
    gate = {"rule": "vote", "threshold": 0.36, "forecast": None}
    gated = dict(single, strategy="gated", dims=[8], lengths=[60], gate=gate, again=True)
    for form in (funnel, single, gated, dict(gated, strategy="shortlist", gate=None, again=False)):
        stored = {"settings": form, "spec": asdict(spec), "k": 10, "goal": "ms <= 5", "measured": {"ms": 3.5}}
        assert json.dumps(Plan.from_json(stored).to_json()) == json.dumps(stored)


def wrong(value: Any) -> Any:
    """A value of another type than that of the annotation."""
    return value


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Strategy.shortlist(dim=wrong("32")), TypeError, "dim is '32': it can be a whole number"),
        (lambda: Strategy.shortlist(length=wrong(2.5)), TypeError, "length is 2.5: it can be a whole number"),
        (lambda: Strategy.single_shot(width=wrong(8)), TypeError, "rerank_width is 8: it can be text"),
        (lambda: Strategy.gated(gate=wrong("vote")), TypeError, "gate is 'vote': it can be a Gate"),
        (lambda: Strategy.shortlist(dim=0), GalleryError, "dim of a step is 0: it has to be at least 1"),
        (lambda: Strategy.shortlist(effort=-1), GalleryError, "effort of a step is -1"),
        (lambda: Strategy.shortlist(expand=-1), GalleryError, "expand is -1"),
        (lambda: Strategy.funnel(dims=(), lengths=()), GalleryError, "funnel takes one or more dim"),
        (lambda: Strategy.funnel(dims=(8, 16), lengths=(9,)), GalleryError, "one or more dim and length"),
        (lambda: Strategy(kind="guess"), GalleryError, "one of single-shot, shortlist, funnel, gated"),
        (lambda: Strategy(kind="single-shot", expand=3), GalleryError, "single-shot takes no expand"),
        (lambda: Strategy(kind="single-shot", again=True), GalleryError, "of a gated strategy, not of"),
    ],
)
def test_a_strategy_that_cannot_be_is_refused(
    make: Callable[[], Strategy], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_numbers_of_numpy_are_numbers() -> None:
    strategy = Strategy.shortlist(dim=wrong(np.int64(8)), length=wrong(np.int32(20)))
    assert strategy == Strategy.shortlist(dim=8, length=20)
    json.dumps(strategy.to_json())


def test_a_saved_plan_searches_as_it_did(gallery: Gallery) -> None:
    assert planned(gallery) is None
    vectors = unit_vectors(4, 32, seed=1), unit_vectors(4, 32, seed=2)
    queries = EncodedQueries({"full": Encoded(vectors[0], 1, 1), "1/8": Encoded(vectors[1], 1, 1)})
    gated = Strategy.gated(width="1/8", dim=8, length=60, gate=Gate("class", 0.01))
    gallery.save_plan(Plan(strategy=gated, spec=gallery.spec, k=10, goal="recall >= 0.9").to_json())
    strategy = planned(gallery)
    assert strategy is not None
    found = search(gallery, strategy, queries, 5)
    assert np.array_equal(found.I, search(gallery, gated, queries, 5).I)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speed": 3}, "unknown key 'speed'"),
        ({"settings": {"strategy": "guess"}}, "unknown strategy 'guess'"),
        ({"settings": {"strategy": "shortlist"}}, "takes one dim"),
        ({"settings": {"strategy": "funnel", "dims": [8, 16], "lengths": [9]}}, "one or more"),
        ({"settings": {"dims": ["8"]}}, "dims"),
        ({"settings": {"gate": "gap"}}, "gate is 'gap'"),
        ({"settings": {"gate": {"rule": "forecast", "forecast": 3}}}, "forecast is 3"),
        ({"settings": {"gate": {"forecast": {"rules": 3}}}}, "rules is 3"),
        (
            {
                "settings": {
                    "gate": {"forecast": {"rules": ["gap"], "centre": [], "scale": [1.0], "weights": [0.5]}}
                }
            },
            "a forecast of 1 rules",
        ),
        ({"settings": {"effort": 1.5}}, "effort is 1.5: it can be a whole number or left out"),
        ({"settings": {"gate": {"rule": "luck"}}}, "'luck'"),
        ({"settings": {"gate": {"margin": 1}}}, "gate: unknown key 'margin'"),
        ({"k": "ten"}, "k is 'ten': it can be a whole number"),
        ({"spec": {"checkpoint": "a"}}, "spec lacks width, dim"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(spec: EmbeddingSpec, change: dict[str, Any], message: str) -> None:
    known = Plan(strategy=Strategy.single_shot(), spec=spec, k=10, goal="ms <= 5").to_json()
    with pytest.raises(GalleryError, match=message):
        Plan.from_json(known | change)
    with pytest.raises(GalleryError, match="plan lacks spec"):
        Plan.from_json({name: value for name, value in known.items() if name != "spec"})


def test_a_plan_for_other_vectors_is_refused(gallery: Gallery, spec: EmbeddingSpec) -> None:
    other = Plan(
        strategy=Strategy.single_shot(), spec=replace(spec, checkpoint="b" * 64), k=10, goal="ms <= 5"
    )
    with pytest.raises(GalleryError, match=r"made for other vectors .*matmamba plan"):
        other.require(gallery)


def test_a_grid_is_every_combination_once() -> None:
    grid = Grid(
        dims=[8, 16, 64],
        shortlists=[20, 500],
        gallery_widths=["full", "1/8"],
        indexes=[IndexSettings("flat"), IndexSettings("hnsw", [16, 64])],
        funnels=[FunnelSteps([8, 16], [40, 20], ["same", "full"]), FunnelSteps([8, 128], [40, 20])],
        gate_losses=[0.1, 0.5],
        gate_expands=[0],
    )
    found = strategies_of(grid, ["full", "1/8"], 64, 100)
    kinds = [strategy.kind for strategy, _ in found]
    stages = 2 * 2 * 3
    assert kinds.count("single-shot") == 2
    assert kinds.count("shortlist") == stages * 3 * 2
    assert kinds.count("funnel") == stages
    # Of the smaller query width, by the last dim and length, asked once and again, at each loss.
    assert kinds.count("gated") == 2 * 3 * 1 * 2 * 2
    assert len(set(found)) == len(found)
    assert max(length for strategy, _ in found for length in strategy.lengths) == 100
    small = [strategy for strategy, _ in found if strategy.kind == "funnel"][-1]
    assert small.widths == ("1/8", "full")
    assert {loss for strategy, loss in found if strategy.kind != "gated"} == {0.0}
    with pytest.raises(GalleryError, match="'magic'"):
        strategies_of(Grid(strategies=["magic"]), ["full"], 64, 100)


def test_without_schedules_funnels_double_and_halve() -> None:
    grid = Grid(k=10, dims=[8], shortlists=[100], strategies=["funnel"])
    ((strategy, _),) = strategies_of(grid, ["full"], 64, 1000)
    assert strategy.dims == (8, 16, 32)
    assert strategy.lengths == (100, 50, 25)
