"""Settings and plans as JSON, what is refused, and grids of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matmamba_retrieval import EmbeddingSpec, Encoded, EncodedQueries, Funnel, Gallery, GalleryError
from matmamba_retrieval.planning.grid import FunnelSteps, Grid, IndexSettings, settings_of
from matmamba_retrieval.search.forecast import Forecast
from matmamba_retrieval.search.gate import Gate
from matmamba_retrieval.search.gated import Gated
from matmamba_retrieval.search.settings import Plan, Settings, planned
from small import unit_vectors

FORECAST = Forecast(("gap", "boundary"), (0.1, 0.2), (1.0, 2.0), (0.5, 1.0, -1.0, 0.0, 0.25, 3.0))
EXAMPLES = [
    Settings(),
    Settings("shortlist", "1/8", (32,), (200,), gallery_width="1/8", index="hnsw", effort=64, expand=5),
    Settings("funnel", "1/4", (16, 32), (400, 50), ("1/4", "full")),
    Settings("gated", "1/8", (32,), (200,), gate=Gate("vote", 0.36), again=True, expand=50),
    Settings("gated", "1/8", (32,), (200,), gate=Gate("forecast", 0.1, FORECAST)),
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_settings_and_plans_survive_json(example: Settings, spec: EmbeddingSpec) -> None:
    assert Settings.from_json(json.loads(json.dumps(example.to_json()))) == example
    plan = Plan(example, spec, 10, "recall >= 0.99", {"recall": 0.995, "ms": 3.2})
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_settings_open_what_they_say(gallery: Gallery) -> None:
    funnel = EXAMPLES[2].open(gallery)
    assert funnel == Funnel(gallery, "1/4", (16, 32), (400, 50), ("1/4", "full"))
    gated = EXAMPLES[3].open(gallery)
    assert gated == Gated(gallery, "1/8", 32, 200, gate=Gate("vote", 0.36), again=True, expand=50)


def test_a_saved_plan_searches_as_it_did(gallery: Gallery) -> None:
    assert planned(gallery) is None
    vectors = unit_vectors(4, 32, seed=1), unit_vectors(4, 32, seed=2)
    queries = EncodedQueries({"full": Encoded(vectors[0], 1, 1), "1/8": Encoded(vectors[1], 1, 1)})
    settings = Settings("gated", "1/8", (8,), (60,), gate=Gate("class", 0.01))
    gallery.save_plan(Plan(settings, gallery.spec, 10, "recall >= 0.9").to_json())
    strategy = planned(gallery)
    assert strategy is not None
    found = strategy.search(queries, 5)
    assert np.array_equal(found.I, settings.open(gallery).search(queries, 5).I)


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
        ({"settings": {"effort": 1.5}}, "effort is 1.5, not int"),
        ({"settings": {"gate": {"rule": "luck"}}}, "'luck'"),
        ({"settings": {"gate": {"margin": 1}}}, "gate: unknown key 'margin'"),
        ({"k": "ten"}, "k is 'ten', not int"),
        ({"spec": {"checkpoint": "a"}}, "spec: .*missing"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(spec: EmbeddingSpec, change: dict[str, Any], message: str) -> None:
    known = Plan(Settings(), spec, 10, "ms <= 5").to_json()
    with pytest.raises(GalleryError, match=message):
        Plan.from_json(known | change)
    with pytest.raises(GalleryError, match="missing"):
        Plan.from_json({name: value for name, value in known.items() if name != "spec"})


def test_a_plan_for_other_vectors_is_refused(gallery: Gallery, spec: EmbeddingSpec) -> None:
    other = Plan(Settings(), replace(spec, checkpoint="b" * 64), 10, "ms <= 5")
    with pytest.raises(GalleryError, match=r"made for other vectors .*matmamba plan"):
        other.strategy(gallery)


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
    found = settings_of(grid, ["full", "1/8"], 64, 100)
    kinds = [settings.strategy for settings, _ in found]
    stages = 2 * 2 * 3
    assert kinds.count("single-shot") == 2
    assert kinds.count("shortlist") == stages * 3 * 2
    assert kinds.count("funnel") == stages
    # Of the smaller query width, by the last dim and length, asked once and again, at each loss.
    assert kinds.count("gated") == 2 * 3 * 1 * 2 * 2
    assert len(set(found)) == len(found)
    assert max(length for settings, _ in found for length in settings.lengths) == 100
    small = [settings for settings, _ in found if settings.strategy == "funnel"][-1]
    assert small.widths == ("1/8", "full")
    assert {loss for settings, loss in found if settings.strategy != "gated"} == {0.0}
    with pytest.raises(GalleryError, match="'magic'"):
        settings_of(Grid(strategies=["magic"]), ["full"], 64, 100)


def test_without_schedules_funnels_double_and_halve() -> None:
    grid = Grid(k=10, dims=[8], shortlists=[100], strategies=["funnel"])
    ((settings, _),) = settings_of(grid, ["full"], 64, 1000)
    assert settings.dims == (8, 16, 32)
    assert settings.lengths == (100, 50, 25)
