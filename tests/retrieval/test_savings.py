"""Costs over single-shot: both encodings counted, and nothing called a saving that costs more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matmamba_retrieval import EmbeddingSpec, Encoded, EncodedQueries, Gallery, Plan, Row, Strategy
from matmamba_retrieval.planning.grid import Grid, strategies_of
from matmamba_retrieval.planning.planner import Goal, Planner, candidates
from matmamba_retrieval.planning.savings import SENDS_ALL, compared, fallen_back, notes_of
from small import unit_vectors

# Encodings take so long here that the searches beside them do not matter.
FULL, SMALL = (1e9, 1000.0), (2e8, 200.0)


@pytest.fixture
def gallery(tmp_path: Path, spec: EmbeddingSpec) -> Gallery:
    made = Gallery.create(f"{tmp_path}/G", spec)
    made.add([Row(str(key), "", f"class {key % 4}") for key in range(300)], unit_vectors(300, 32))
    made.build_shortlist(16)
    return made


def queries(noise: float) -> EncodedQueries:
    """60 queries, which the small width sees through noise."""
    full = unit_vectors(60, 32, seed=1)
    small = full + np.float32(noise) * unit_vectors(60, 32, seed=2)
    small = (small / np.linalg.norm(small, axis=1, keepdims=True)).astype(np.float32)
    return EncodedQueries({"full": Encoded(full, *FULL), "1/8": Encoded(small, *SMALL)})


def tried(planner: Planner, gallery: Gallery) -> list[dict[str, Any]]:
    return [row for row in planner.run(candidates(gallery, ["full", "1/8"], 5, [16])) if row is not None]


@pytest.mark.parametrize("budgets", [{}, {"gmacs": 5.0}])
def test_a_gate_that_sends_all_is_not_offered(gallery: Gallery, budgets: dict[str, float]) -> None:
    """The small width knows nothing: every gate would ask the full one, and single-shot is chosen."""
    planner = Planner(gallery, queries(1e3), 5, Goal({"recall": 1.0}, budgets))
    rows = tried(planner, gallery)
    gates = [row for row in rows if row["strategy"] == "gated"]
    assert gates
    assert {row["falls_back"] for row in gates} == {SENDS_ALL}
    # However fast it was measured.
    fast = [row | {"ms": 0.0, "gmacs": 0.0} if row in gates else row for row in rows]
    chosen = planner.choose(fast)
    assert (chosen["strategy"], chosen["query_width"]) != ("gated", "1/8")
    first, second = planner.notes(rows, chosen)
    assert first.endswith(f"{len(gates)} would send every query to the full width")
    assert "small queries do not pay here: of what reaches recall >= 1" in second
    assert f"takes the fewest {'multiply-adds' if budgets else 'milliseconds'}" in second


def test_a_gate_that_pays_is_offered_and_both_of_its_encodings_are_counted(gallery: Gallery) -> None:
    planner = Planner(gallery, queries(0.5), 5, Goal({"recall": 0.7}))
    rows = tried(planner, gallery)
    gate = next(row for row in rows if row["strategy"] == "gated" and 0 < row["by_full"] < 0.8)
    assert (gate["falls_back"], gate["saves"]) == ("", ["ms", "macs"])
    macs = SMALL[0] + gate["by_full"] * FULL[0]
    assert gate["encoder_macs"] == pytest.approx(macs)
    assert gate["one_encode_ms"] == pytest.approx(macs / 1e6)
    assert gate["ms"] == pytest.approx(gate["one_encode_ms"] + gate["one_search_ms"])
    assert gate["macs_over_single_shot"] == pytest.approx(macs / FULL[0], rel=1e-3)
    assert gate["ms_over_single_shot"] == pytest.approx(macs / FULL[0], rel=0.02)
    rerank = next(row for row in rows if (row["strategy"], row["query_width"]) == ("shortlist", "1/8"))
    assert rerank["macs_over_single_shot"] == pytest.approx(1.2, rel=1e-3)
    assert rerank["saves"] == []


def test_a_gate_is_chosen_only_where_it_saves_what_is_asked_for(gallery: Gallery) -> None:
    """The same rows: fewer multiply-adds but more milliseconds than single-shot."""
    known = queries(0.5).by_width
    slow = EncodedQueries(known | {"1/8": Encoded(known["1/8"].xq, SMALL[0], 990.0)})
    for budgets, kind in (({}, "single-shot"), ({"gmacs": 5.0}, "gated")):
        planner = Planner(gallery, slow, 5, Goal({"recall": 0.7}, budgets))
        wanted = [Strategy.single_shot(), Strategy.gated(width="1/8", dim=16, length=100, again=True)]
        rows = [planner.measure(strategy) for strategy in wanted]
        assert planner.choose(rows)["strategy"] == kind
        assert bool(rows[1]["falls_back"]) == (kind == "single-shot")
        notes = planner.notes(rows, planner.choose(rows))
        costly = any("times the milliseconds of single-shot" in note for note in notes)
        assert costly == (kind == "gated")


def test_a_rerank_by_the_small_query_is_offered_and_pays_for_one_encoding(gallery: Gallery) -> None:
    planner = Planner(gallery, queries(0.01), 5, Goal({"recall": 0.7}))
    rows = tried(planner, gallery)
    once = next(row for row in rows if row["widths"] == ["1/8"])
    assert once["encoder_macs"] == SMALL[0]
    assert (once["saves"], once["by_full"]) == (["ms", "macs"], 0)
    chosen = planner.choose(rows)
    assert (chosen["query_width"], chosen["encoder_macs"]) == ("1/8", SMALL[0])
    length = once["lengths"][0]
    kept = Strategy.shortlist(width="1/8", dim=16, length=length, index="Flat", rerank_width="1/8")
    assert Strategy.from_json(kept.to_json()) == kept
    assert planner.plan(once).strategy == kept


def test_a_grid_reranks_by_the_same_width_or_by_the_full_one() -> None:
    grid = Grid(dims=[8], shortlists=[50], strategies=["shortlist"], rerank_widths=["full", "same"])
    found = [strategy for strategy, _ in strategies_of(grid, ["full", "1/8"], 32, 100)]
    assert [(known.query_width, known.rerank_width) for known in found] == [
        ("full", ""),
        ("1/8", ""),
        ("1/8", "1/8"),
    ]


def test_a_plan_of_before_is_read_and_new_ones_say_what_they_cost(gallery: Gallery) -> None:
    planner = Planner(gallery, queries(0.1), 5, Goal({"recall": 0.5}))
    plan = planner.plan(planner.measure(Strategy.shortlist(width="1/8", dim=16, length=50)))
    assert plan.measured["macs_over_single_shot"] > 1
    new = plan.to_json()
    old = new | {"measured": {name: new["measured"][name] for name in ("recall", "ms", "gmacs")}}
    assert Plan.from_json(old).require(gallery) == Plan.from_json(new).require(gallery)


positive = st.floats(1e-3, 1e3)
measured = st.fixed_dictionaries(
    {
        "strategy": st.sampled_from(["single-shot", "shortlist", "funnel", "gated"]),
        "query_width": st.sampled_from(["full", "1/8"]),
        "widths": st.sampled_from([[], ["1/8"]]),
        "by_full": st.sampled_from([0.0, 0.5, 1.0]),
        "encode_ms": positive,
        "one_search_ms": positive,
        "encoder_macs": positive,
        "search_macs": positive,
    }
)


@given(st.lists(measured, min_size=1), measured)
def test_nothing_is_called_a_saving_that_costs_more(
    rows: list[dict[str, Any]], reference: dict[str, Any]
) -> None:
    found = [compared(row, reference) for row in rows]
    spent = {"ms": ("encode_ms", "one_search_ms"), "macs": ("encoder_macs", "search_macs")}
    for row in found:
        for cost, parts in spent.items():
            costly = sum(row[part] for part in parts) >= sum(reference[part] for part in parts)
            assert (cost in row["saves"]) == (row[f"{cost}_over_single_shot"] < 1)
            assert not (costly and cost in row["saves"])
        offered_gate = row["strategy"] == "gated" and not row["falls_back"]
        assert not offered_gate or (row["saves"] and row["by_full"] < 1)
        assert row["strategy"] == "gated" or not row["falls_back"]
    assert bool(fallen_back(found)) == any(row["falls_back"] for row in found)
    costly = [row for row in found if row["strategy"] == "shortlist" and not row["saves"]]
    twice = [row for row in costly if {row["query_width"], *(row["widths"] or ["full"])} == {"full", "1/8"}]
    assert not twice or "no saving" in notes_of(found)[-1]
