"""What the demo must reach, and whether it did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import MatMambaError


class GoalsMissedError(MatMambaError):
    """A demonstration that did not reach what it must; the message names the goals and their bounds."""


@dataclass(frozen=True)
class DemoGoal:
    """A figure of results.json and its bound.

    Attributes:
        name: what it is, in results.json.
        words: the same, to somebody who has not seen a table of this field.
        bound: the least value, or the largest if `at_most`.
        read: finds it in the results.
        at_most: whether the bound is the largest value.
        of_machine: whether it is a time, which depends on the machine and on what else it does: it is
            reported, never required.
        unit: of the bound, "" for a share.
    """

    name: str
    words: str
    bound: float
    read: Callable[[dict[str, Any]], float]
    at_most: bool = False
    of_machine: bool = False
    unit: str = ""


def _width(results: dict[str, Any], label: str) -> dict[str, Any]:
    return next(row for row in results["widths"] if row["width"] == label)


def _least_shortlist_recall(results: dict[str, Any]) -> float:
    return min(row["ann_recall10"] for row in results["retrieval"] if row["strategy"] == "shortlist")


GOALS = (
    DemoGoal(
        "top-1, full width",
        "digits recognised, full width",
        0.97,
        lambda results: _width(results, "full")["top1"],
    ),
    DemoGoal(
        "top-1, width 1/8",
        "digits recognised, 1/8 width",
        0.96,
        lambda results: _width(results, "1/8")["top1"],
    ),
    DemoGoal(
        "1-NN, query 1/8 in a full-width gallery",
        "first hit shows the same digit, asked at 1/8 width",
        0.97,
        lambda results: _width(results, "1/8")["knn1"],
    ),
    DemoGoal(
        "shortlist + rerank: share of the exact top 10",
        "of the exact first 10 hits, found by the worst shortlist with its rerank",
        0.99,
        _least_shortlist_recall,
    ),
    DemoGoal(
        "seconds in all",
        "time in all; reported, not required",
        180,
        lambda results: sum(results["seconds"].values()),
        at_most=True,
        of_machine=True,
        unit="s",
    ),
    DemoGoal(
        "peak memory, MiB",
        "most memory at once",
        2048,
        lambda results: results["peak_memory_mib"],
        at_most=True,
        unit="MiB",
    ),
)


def judge(results: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each goal: name, bound, value, and whether it was met."""
    rows = []
    for goal in GOALS:
        value = goal.read(results)
        met = value <= goal.bound if goal.at_most else value >= goal.bound
        sign = "at most" if goal.at_most else "at least"
        row = {"name": goal.name, "bound": f"{sign} {goal.bound:g}", "value": round(value, 4), "met": met}
        rows.append(row | {"of_machine": goal.of_machine})
    return rows


def require_goals(rows: Sequence[dict[str, Any]]) -> None:
    """Raise `GoalsMissedError` naming the missed goals of quality and memory; times are left aside."""
    missed = [row for row in rows if not row["met"] and not row["of_machine"]]
    if missed:
        listed = "; ".join(f"{row['name']}: {row['value']:g}, {row['bound']}" for row in missed)
        raise GoalsMissedError(f"the demo missed {listed}")
