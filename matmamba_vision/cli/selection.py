"""What `matmamba select` found: as files, as JSON, and as people read it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ..checkpoint import Checkpoint
from ..measures.budget import MEASURED, Budget
from ..measures.choice import Choice, Measurements
from ..measures.cost import count_macs, count_parameters
from ..measures.environment import environment
from ..measures.mixnmatch import Candidate
from ..measures.pareto import draw_front, pareto_front
from ..measures.score import Score
from .console import Console
from .slices import SLICE_FILE, write_slice


@dataclass(frozen=True)
class Selection:
    """A finished or interrupted choice.

    Attributes:
        candidates: all that were evaluated. shown: those worth a row, all measured, ascending in cost.
        images: how many decided, and how many were held back.
    """

    checkpoint: Checkpoint
    budget: Budget
    choice: Choice
    candidates: Sequence[Candidate]
    shown: Sequence[Candidate]
    measurements: Measurements
    images: tuple[int, int]
    cut_short: bool

    def label(self, candidate: Candidate) -> str:
        """Short name of a candidate's width."""
        return self.checkpoint.model.label(candidate.width)


def write_selection(output: Path, selection: Selection, settings: dict[str, Any]) -> dict[str, Any]:
    """Write candidates.json, pareto.png and, last, slice.yaml; returns what the slice says, and its path.

    Args:
        output: a folder that exists. settings: the flags of the command, to be recorded.
    """
    about, chosen = _about(selection), selection.choice.chosen
    content = {
        **about,
        "checkpoint": str(selection.checkpoint.path),
        "digest": selection.checkpoint.digest,
        "settings": {
            name: value if isinstance(value, int) else str(value) for name, value in settings.items()
        },
        "candidates": _rows(selection),
        **environment(),
    }
    (output / "candidates.json").write_text(json.dumps(content, indent=2))
    draw_front(
        selection.candidates,
        chosen,
        selection.label(chosen),
        selection.budget,
        _title(selection),
        output / "pareto.png",
        predicted=selection.budget.key in MEASURED,
    )
    file = output / SLICE_FILE
    write_slice(file, chosen.width, selection.checkpoint, about)
    own = {"label": selection.label(chosen), "heads": list(chosen.width.heads)}
    return {"slice": str(file), **own, **about}


def _title(selection: Selection) -> str:
    choice = selection.choice
    title = f"{len(selection.candidates)} widths, each on the same {selection.images[0]:,} held-out images"
    if choice.chosen is choice.found:
        return title
    return f"{title}; finds of the search were no better than the chosen one on others"


def _about(selection: Selection) -> dict[str, Any]:
    """What is known of the chosen width, as plain values."""
    choice = selection.choice
    about = {
        "budget": str(selection.budget),
        "found_by": choice.chosen.origin,
        "evaluated": len(selection.candidates),
        "cut_short": selection.cut_short,
        "costs": _costs(selection, choice.chosen),
        "accuracy": _accuracy(choice.held_back[choice.chosen.width], "held back"),
        "accuracy_of_search": _accuracy(choice.chosen.score, "search"),
    }
    if choice.rule and choice.found is not choice.rule:
        gain, error = _gain(choice)
        about["search_against_rule"] = {
            "found": selection.label(choice.found),
            "rule": selection.label(choice.rule),
            "log_likelihood_gain": gain,
            "standard_error": error,
            "used": choice.chosen is choice.found,
        }
    return about


def _gain(choice: Choice) -> tuple[float, float]:
    """Of the find of the search over the rule, on the images held back."""
    assert choice.rule is not None
    return choice.held_back[choice.found.width].gain_over(choice.held_back[choice.rule.width])


def _costs(selection: Selection, candidate: Candidate) -> dict[str, Any]:
    (costs,) = selection.measurements.of([candidate.width])
    return {
        "gmacs": costs.gmacs,
        "params": costs.params,
        "latency_ms": {name: round(ms, 4) for name, ms in asdict(costs.latency).items()},
        "memory_mb": costs.memory_mb,
        "batch": selection.measurements.batch_size,
        "device": str(selection.checkpoint.model.pos_embed.device),
    }


def _accuracy(score: Score, images: str) -> dict[str, Any]:
    known = {"top1": score.top1, "log_likelihood": score.log_likelihood}
    return known | {"images": len(score.correct), "which": images}


def _rows(selection: Selection) -> list[dict[str, Any]]:
    """One row for each candidate, in the order of evaluation."""
    model, key = selection.checkpoint.model, selection.budget.key
    front, held_back = pareto_front(selection.candidates), selection.choice.held_back
    rows = []
    for candidate in selection.candidates:
        width, known = candidate.width, candidate.width in selection.measurements
        row = {
            "width": selection.label(candidate),
            "heads": list(width.heads),
            "found_by": candidate.origin,
            "gmacs": count_macs(model, width) / 1e9,
            "params": count_parameters(model, width),
            "cost": candidate.cost,
            "within_budget": _cost(selection, candidate) <= selection.budget.limit,
            "on_front": candidate in front,
            "search": _accuracy(candidate.score, "search"),
        }
        row["predicted"] = key in MEASURED
        row["costs"] = _costs(selection, candidate) if known else None
        row["held_back"] = _accuracy(held_back[width], "held back") if width in held_back else None
        rows.append(row)
    return rows


def _cost(selection: Selection, candidate: Candidate) -> float:
    """As measured, where it was."""
    if candidate.width not in selection.measurements:
        return candidate.cost
    return selection.measurements.of([candidate.width])[0].under(selection.budget.key)


def print_selection(console: Console, selection: Selection, output: Path) -> None:
    """The Pareto front and the trained widths as a table, then the choice and what comes next."""
    console.print(_table(selection))
    for line in _summary(selection):
        console.print(line, soft_wrap=True, markup=False)
    file = output / SLICE_FILE
    console.print(f"slice: {file}; also candidates.json and pareto.png", soft_wrap=True, markup=False)
    path = selection.checkpoint.path
    console.print(
        f"next: matmamba extract --checkpoint {path} --width {file} --output SMALL",
        soft_wrap=True,
        markup=False,
    )


def _table(selection: Selection) -> Table:
    title = f"Pareto front (•) and trained widths, on the {selection.images[0]:,} images of the search"
    names = ("", "width", "by", "MMACs", "params", "ms", "MiB", "top-1", "log-lik.")
    table = Table(*names, title=title)
    for column in table.columns[3:]:
        column.justify, column.no_wrap = "right", True
    table.columns[1].overflow, table.columns[2].no_wrap = "fold", True
    front = pareto_front(selection.candidates)
    for candidate in selection.shown:
        (costs,) = selection.measurements.of([candidate.width])
        over = costs.under(selection.budget.key) > selection.budget.limit
        table.add_row(
            "•" if candidate in front else "",
            selection.label(candidate),
            candidate.origin,
            f"{1e3 * costs.gmacs:,.2f}",
            f"{costs.params:,}",
            f"{costs.latency.median:.2f}",
            f"{costs.memory_mb:.2f}",
            f"{candidate.score.top1:.3f}",
            f"{candidate.score.log_likelihood:.4f}",
            style="bold" if candidate is selection.choice.chosen else "dim" if over else "",
        )
    return table


def _summary(selection: Selection) -> list[str]:
    choice, costs = selection.choice, _costs(selection, selection.choice.chosen)
    held_back, spread = choice.held_back[choice.chosen.width], costs["latency_ms"]
    short = ", cut short" if selection.cut_short else ""
    evaluated = f"{len(selection.candidates)} widths evaluated{short}"
    return [
        f"chosen for {selection.budget}: {selection.label(choice.chosen)}, by {choice.chosen.origin};"
        f" {evaluated}",
        _against_rule(selection),
        f"costs: {costs['gmacs']:.4g} GMACs, {costs['params']:,} parameters, {costs['memory_mb']:.2f} MiB,"
        f" {spread['median']:.2f} ms (quartiles {spread['low']:.2f} to {spread['high']:.2f}),"
        f" measured on {costs['device']}, batch {costs['batch']}",
        f"accuracy: top-1 {held_back.top1:.3f}, log-likelihood {held_back.log_likelihood:.4f} on"
        f" {selection.images[1]:,} images held back from the search; on its own {selection.images[0]:,}:"
        f" {choice.chosen.score.top1:.3f}, {choice.chosen.score.log_likelihood:.4f}",
    ]


def _against_rule(selection: Selection) -> str:
    choice = selection.choice
    if choice.rule is None:
        return "no uniform width, and none of the rule, is within the budget"
    if choice.found is choice.rule:
        return "the search found nothing better"
    gain, error = _gain(choice)
    other = f"{selection.label(choice.rule)} by {choice.rule.origin}"
    on_other = f"on images held back: {gain:+.4f} ± {error:.4f} nats per image"
    if choice.chosen is choice.found:
        clearly = "it beats" if gain > error else "it is no worse than, but not clearly better than,"
        return f"{clearly} the best without search, {other}, {on_other}"
    found = selection.label(choice.found)
    return f"the search found {found}, which does not beat {other} {on_other}; so that is used"
