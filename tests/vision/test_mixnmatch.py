"""Widths within a budget: what they cost, who proposes them, and how one is chosen."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from matmamba_vision import MatMamba, Width, extract
from matmamba_vision.measures import Latency, count_macs, count_parameters
from matmamba_vision.measures.budget import (
    Budget,
    BudgetError,
    Price,
    make_price,
    parse_budget,
    require_possible,
)
from matmamba_vision.measures.choice import Costs, Measurements, choose
from matmamba_vision.measures.memory import MIB, measure_memory
from matmamba_vision.measures.mixnmatch import (
    Candidate,
    explore,
    head_levels,
    least_slope,
    smallest_width,
    starting_widths,
    uniform_widths,
)
from matmamba_vision.measures.pareto import pareto_front
from matmamba_vision.measures.profile import LatencyProfile
from matmamba_vision.measures.score import Score, score
from small import SMALL, LabelledImages

KEYS = ("gmacs", "params", "memory_mb")


@pytest.fixture
def evaluate(model: MatMamba) -> Callable[[Width], Score]:
    """Scores on random images whose classes are those that the full width says."""
    images = torch.randn(40, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        labels = model(images).argmax(-1)
    batches = [LabelledImages(images[:25], labels[:25]), LabelledImages(images[25:], labels[25:])]
    return lambda width: score(model, batches, width)


def half_of(model: MatMamba, price: Price) -> float:
    """A budget between the smallest and the full width."""
    return (price(model.width([1, 1, 1])) + price(model.width("full"))) / 2


def test_a_budget_is_read_with_its_unit() -> None:
    assert parse_budget("gmacs=2.0") == Budget("gmacs", 2.0)
    assert {parse_budget(f"params={text}").limit for text in ("5M", "5m", "5e6", "5000k", "5000000")} == {5e6}
    assert parse_budget(" latency_ms = 1e-3 ") == Budget("latency_ms", 0.001)
    assert str(parse_budget("params=5M")) == "params=5000000"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gmacs",
        "gmacs=",
        "gmacs=nan",
        "gmacs=inf",
        "gmacs=0",
        "params=-5M",
        "gmacs=2M",
        "watts=3",
        "params=M",
    ],
)
def test_a_budget_without_sense_is_refused_with_what_would_be_allowed(text: str) -> None:
    with pytest.raises(BudgetError, match=r"gmacs=2\.0, params=5M, latency_ms=20 or memory_mb=64"):
        parse_budget(text)


@pytest.mark.parametrize("key", KEYS)
def test_prices_are_what_the_extracted_submodel_costs(key: str, model: MatMamba) -> None:
    price = make_price(model, key, head_levels(model))
    for heads in ([8, 8, 8], [1, 8, 3], [0, 2, 5], [4, 4, 4], [7, 0, 0]):
        small = extract(model, heads)
        counted = {
            "gmacs": count_macs(small) / 1e9,
            "params": count_parameters(small),
            "memory_mb": sum(measure_memory(small, "full")) / MIB,
        }
        assert price(model.width(heads)) == counted[key], heads


def test_memory_is_that_of_the_weights_and_of_the_largest_tensors_alive() -> None:
    torch.manual_seed(0)
    model = MatMamba(**SMALL).eval()
    weights, peak = measure_memory(model, "1/2")
    assert weights == 4 * count_parameters(model, "1/2")
    tokens, dim = model.pos_embed.shape[1:]
    # The residual stream and its normalised copy at least, and nothing near all blocks' activations.
    assert 2 * 4 * tokens * dim < peak < 100 * 4 * tokens * dim
    # As large a batch, as much more: nothing else is alive.
    assert measure_memory(model, "1/2", batch_size=4)[1] == pytest.approx(4 * peak, rel=0.05)


def test_latency_is_predicted_from_what_blocks_save(model: MatMamba, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a block costs the same in every width, the prediction is exact, between levels by a line."""

    def measured(model: MatMamba, widths: list[Width], *_: int) -> list[Latency]:
        return [
            Latency(5.0 + 2 * sum(width.heads) + 3 * np.count_nonzero(width.heads), 0, 0) for width in widths
        ]

    monkeypatch.setattr("matmamba_vision.measures.profile.measure_latency", measured)
    profile = LatencyProfile(model, head_levels(model, skip_blocks=True))
    for heads in ([8, 8, 8], [1, 4, 8], [5, 5, 7], [0, 0, 1], [0, 2, 0]):
        (expected,) = measured(model, [Width(tuple(heads))])
        assert profile.predict(model.width(heads)) == pytest.approx(expected.median), heads


def test_levels_are_trained_counts_halves_and_what_is_between(model: MatMamba) -> None:
    assert head_levels(model) == [[1, 2, 3, 4, 6, 8]] * 3
    assert head_levels(model, skip_blocks=True) == [[0, 1, 2, 3, 4, 6, 8]] * 3
    assert head_levels(extract(model, [2, 4, 5])) == [[1, 2], [1, 2, 3, 4], [1, 2, 3, 5]]


def test_the_rule_never_narrows_with_depth_and_takes_the_least_slope(model: MatMamba) -> None:
    mixed = least_slope(uniform_widths(model))
    assert len(mixed) == len({*mixed}) == 1 + 7 * 3
    for width in mixed:
        assert list(width.heads) == sorted(width.heads)
        assert width.heads[-1] - width.heads[0] <= 1
    assert all(
        all(low <= high for low, high in zip(small.heads, large.heads, strict=True))
        for small, large in pairwise(mixed)
    )


def test_uniform_widths_of_a_model_with_different_blocks_have_equal_shares(model: MatMamba) -> None:
    mixed = extract(model, [2, 4, 8])
    assert [width.heads for width in uniform_widths(mixed)][3::4] == [(1, 2, 4), (2, 4, 8)]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("skip_blocks", [False, True])
def test_only_trained_widths_may_be_beyond_the_budget(
    key: str, skip_blocks: bool, model: MatMamba, evaluate: Callable[[Width], Score]
) -> None:
    levels = head_levels(model, skip_blocks)
    price = make_price(model, key, levels)
    limit = half_of(model, price)
    starts = starting_widths(model, levels, price, limit)
    assert {*model.trained_widths} <= {*starts}
    assert "rule" in starts.values()
    found = list(explore(starts, levels, price, limit, evaluate, 50))
    assert len(found) == len({candidate.width for candidate in found}) == 50
    for candidate in found:
        assert candidate.cost == price(candidate.width)
        assert candidate.cost <= limit or candidate.origin == "trained"
        assert any(candidate.width.heads)
        assert skip_blocks or all(candidate.width.heads)
    assert sum(candidate.origin == "search" for candidate in found) == 50 - len(starts)


def test_the_search_finds_what_a_known_truth_rewards(model: MatMamba) -> None:
    """The first block matters most here, so the best width narrows with depth, which the rule cannot."""
    levels = head_levels(model)
    price = make_price(model, "params", levels)
    limit = half_of(model, price)

    def evaluate(width: Width) -> Score:
        value = -sum(10.0**-block / heads for block, heads in enumerate(width.heads))
        return Score(np.array([True]), np.array([value]))

    found = list(explore(starting_widths(model, levels, price, limit), levels, price, limit, evaluate, 60))
    within = [candidate for candidate in found if candidate.cost <= limit]
    best = max(within, key=lambda candidate: candidate.score.log_likelihood)
    unsearched = [candidate.score.log_likelihood for candidate in within if candidate.origin != "search"]
    assert best.origin == "search"
    assert best.score.log_likelihood > max(unsearched)
    everything = [
        Width((a, b, c))
        for a in levels[0]
        for b in levels[1]
        for c in levels[2]
        if price(Width((a, b, c))) <= limit
    ]
    assert best.score.log_likelihood >= max(evaluate(width).log_likelihood for width in everything)


def test_the_same_seed_explores_the_same(model: MatMamba, evaluate: Callable[[Width], Score]) -> None:
    levels = head_levels(model)
    price = make_price(model, "gmacs", levels)
    limit = half_of(model, price)
    starts = starting_widths(model, levels, price, limit)

    def widths(seed: int) -> list[Width]:
        return [known.width for known in explore(starts, levels, price, limit, evaluate, 40, seed)]

    assert widths(3) == widths(3)
    assert widths(3) != widths(4)


def test_a_budget_below_every_share_leaves_skipping(model: MatMamba) -> None:
    for skip_blocks, least in ((False, (1, 1, 1)), (True, (1, 0, 0))):
        levels = head_levels(model, skip_blocks)
        price = make_price(model, "params", levels)
        smallest = smallest_width(model, levels, price)
        assert smallest.heads == least
        limit = price(smallest)
        require_possible(Budget("params", limit), model, smallest, price)
        assert next(iter(starting_widths(model, levels, price, limit))) == smallest
        with pytest.raises(BudgetError, match=rf"no width.*params={limit:.4g}.*full"):
            require_possible(Budget("params", limit - 1), model, smallest, price)


def candidates(model: MatMamba, *values: float) -> list[Candidate]:
    """One from the rule, then finds of the search, with these log-likelihoods on two images."""
    origins = ["rule", *["search"] * (len(values) - 1)]
    return [
        Candidate(
            model.width([1 + index, 2, 2]), origin, 1.0 + index, Score(np.ones(2, bool), np.full(2, value))
        )
        for index, (origin, value) in enumerate(zip(origins, values, strict=True))
    ]


class Told(Measurements):
    """Costs as told, not measured."""

    def _costs(self, width: Width, latency: Latency) -> Costs:
        return Costs(1.0, 1, Latency(float(width.heads[0]), 0, 0), 1.0)


@pytest.mark.parametrize(("elsewhere", "chosen"), [(-0.1, 2), (-0.3, 0)])
def test_a_find_is_used_only_if_other_images_confirm_it(
    elsewhere: float, chosen: int, model: MatMamba
) -> None:
    rule, worse, found = known = candidates(model, -0.2, -0.3, -0.1)
    held_back = {rule.width: -0.2, found.width: elsewhere}

    def score_held_back(width: Width) -> Score:
        return Score(np.ones(2, bool), np.full(2, held_back[width]))

    choice = choose(known, Budget("latency_ms", 9.0), Told(model), score_held_back)
    assert (choice.found, choice.rule) == (found, rule)
    assert choice.chosen is known[chosen]
    assert worse.width not in choice.held_back


def test_what_measures_beyond_the_budget_is_not_chosen(model: MatMamba) -> None:
    known = candidates(model, -0.3, -0.2, -0.1)
    own = {candidate.width: candidate.score for candidate in known}
    # Predicted to cost 1, 2, 3 and measured so, but for a budget that predictions were too low for.
    cheap = [Candidate(one.width, one.origin, 0.1, one.score) for one in known]
    assert choose(cheap, Budget("latency_ms", 2.0), Told(model), own.__getitem__).chosen is cheap[1]
    with pytest.raises(BudgetError, match=r"no width was measured within latency_ms=0\.5.*latency_ms=1"):
        choose(cheap, Budget("latency_ms", 0.5), Told(model), own.__getitem__)


def test_the_front_holds_what_nothing_cheaper_equals(model: MatMamba) -> None:
    known = candidates(model, -0.4, -0.2, -0.3, -0.2, -0.1)
    front = pareto_front(known[::-1], lambda one: one.cost, lambda one: one.score.log_likelihood)
    assert front == [known[0], known[1], known[4]]


def test_scores_are_those_of_the_logits(model: MatMamba, images: torch.Tensor) -> None:
    labels = torch.tensor([0, 1, 2, 3])
    found = score(
        model, [LabelledImages(images[:3], labels[:3]), LabelledImages(images[3:], labels[3:])], "1/2"
    )
    with torch.no_grad():
        logits = model(images, width="1/2")
    expected = -torch.nn.functional.cross_entropy(logits, labels)
    assert found.log_likelihood == pytest.approx(expected.item(), abs=1e-5)
    assert found.top1 == (logits.argmax(-1) == labels).float().mean()
    with torch.no_grad():
        model.get_parameter("head.bias")[0] = torch.nan
    with pytest.raises(FloatingPointError, match="1/2"):
        score(model, [LabelledImages(images, labels)], "1/2")


def test_the_front_has_what_nothing_beats() -> None:
    points = [(9, 1.0), (5, 0.99), (3, 0.97), (4, 0.97), (1, 0.5)]
    front = pareto_front(points, lambda point: point[0], lambda point: point[1])
    assert [cost for cost, _ in front] == [1, 3, 5, 9]
    for cost, quality in points:
        assert any(known[0] <= cost and known[1] >= quality for known in front)
