"""What the demo has to reach: quality and memory, never a time."""

from __future__ import annotations

from typing import Any

import pytest
from matmamba_vision.studies.goals import judge, require_goals


def results(seconds: float = 100.0, memory: int = 600, recall: float = 1.0) -> dict[str, Any]:
    return {
        "widths": [{"width": width, "top1": 0.98, "knn1": 0.98} for width in ("full", "1/8")],
        "retrieval": [{"strategy": "shortlist", "ann_recall10": recall}],
        "seconds": {"train": seconds},
        "peak_memory_mib": memory,
    }


def test_a_slow_machine_is_reported_and_fails_nothing() -> None:
    rows = judge(results(seconds=1000))
    assert [row["name"] for row in rows if not row["met"]] == ["seconds in all"]
    require_goals(rows)


@pytest.mark.parametrize(
    ("missed", "name"),
    [({"memory": 3000}, "peak memory, MiB: 3000, at most 2048"), ({"recall": 0.9}, "0.9, at least 0.99")],
)
def test_memory_and_quality_are_required(missed: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"the demo missed .*{name}"):
        require_goals(judge(results(**missed)))
