"""What was tried for a plan, kept beside it to be shown: no search reads it, and it may be lost."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matmamba_retrieval import GalleryError, Plan, Strategy
from matmamba_retrieval.storage.files import new_file

from .strategies import strategy_text

log = logging.getLogger(__name__)
FILE = "plan_trials.json"
# No list of trials is longer.
_LONGEST = 10_000_000
# Of a trial: what it is called, encoded first by, and whether it is chosen, and on the Pareto front.
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "name": str,
    "width": str,
    "ms": (int, float),
    "gmacs": (int, float),
    "recall": (int, float),
    "chosen": bool,
    "front": bool,
}
Row = Mapping[str, Any]


def keep_trials(folder: Path, plan: Plan, tried: Sequence[Row], front: Sequence[Row], chosen: Row) -> None:
    """Write what was tried into a gallery's folder; it is no loss if that cannot be.

    Args:
        folder: of the gallery.
        plan: that was chosen.
        tried: a row for each strategy.
        front: those of which none is better in milliseconds and in quality.
        chosen: the row of the plan.
    """
    points = [_point(row, any(row is one for one in front), row is chosen) for row in tried]
    content = json.dumps({"plan": plan.to_json(), "tried": points}, indent=1).encode()
    try:
        with new_file(folder, ".partial") as file:
            file.write(content)
        (folder / file.name).replace(folder / FILE)
    except (GalleryError, OSError) as error:
        log.info("%s", error)


def _point(row: Row, front: bool, chosen: bool) -> dict[str, Any]:
    strategy = Strategy.from_json({name: row[name] for name in Strategy.single_shot().to_json()})
    costs = {name: float(row[name]) for name in ("ms", "gmacs", "recall")}
    known = {"name": strategy_text(strategy), "width": strategy.query_width}
    return {**known, **costs, "front": front, "chosen": chosen}


def kept_trials(folder: Path, plan: Plan) -> list[dict[str, Any]]:
    """What was tried for a plan, as plain values; none if nobody kept it, or it was another plan.

    Args:
        folder: of the gallery.
        plan: that the gallery has.
    """
    try:
        with (folder / FILE).open("rb") as file:
            known = json.loads(file.read(_LONGEST))
        if known["plan"] != json.loads(json.dumps(plan.to_json())):
            return []
        return [{name: point[name] for name in _KINDS} for point in known["tried"] if _is_point(point)]
    # Whatever is wrong with it, a gallery is as good without.
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _is_point(point: Any) -> bool:
    return all(isinstance(point[name], kind) for name, kind in _KINDS.items())
