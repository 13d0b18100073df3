"""What a plan chose from: kept beside the catalogue as JSON, for those who look at a plan later.

The file belongs to one plan, whose digest it has. Nothing is answered from it, and no plan needs it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from matmamba_retrieval import Strategy

FILE = "plan-trials.json"


@dataclass(frozen=True, kw_only=True)
class PlanTrial:
    """A strategy that was tried.

    Attributes:
        name: what it does, in some words.
        width: that encodes the query first.
        ms: of one query, encoder and search.
        gmacs: multiply-adds of one query, in thousands of millions.
        quality: what the plan's goal counts, in 0..1.
        front: whether nothing tried was better in quality for fewer milliseconds.
        chosen: whether it is the plan.
    """

    name: str
    width: str
    ms: float
    gmacs: float
    quality: float
    front: bool
    chosen: bool


def trial_name(strategy: Strategy) -> str:
    """What a strategy does, in some words."""
    width = "full width" if strategy.query_width == "full" else f"width {strategy.query_width}"
    if not strategy.steps:
        return f"{width}, all images"
    return f"{width}, {strategy.kind} of {strategy.lengths[0]} by {strategy.dims[0]} dims"


def keep_trials(folder: Path, plan: Any, trials: Sequence[PlanTrial]) -> None:
    """Keep what was tried; whatever was kept is replaced.

    Args:
        folder: of the gallery.
        plan: as the gallery keeps it.
        trials: what it was chosen from.

    Raises:
        OSError: it cannot be written.
    """
    content = {"plan": _digest(plan), "trials": [asdict(trial) for trial in trials]}
    partial = folder / f".{FILE}.partial"
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(folder / FILE)


def kept_trials(folder: Path, plan: Any) -> list[PlanTrial]:
    """What the plan was chosen from; nothing where that is not known, or was of another plan.

    Args:
        folder: of the gallery.
        plan: as the gallery keeps it.
    """
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if content["plan"] != _digest(plan):
            return []
        return [_trial(row) for row in content["trials"]]
    # Missing, cut short, or of a later version: it is not needed.
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _trial(row: dict[str, Any]) -> PlanTrial:
    return PlanTrial(**{known.name: row[known.name] for known in fields(PlanTrial)})


def _digest(plan: Any) -> str:
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
