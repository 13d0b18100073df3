"""The picture of a plan: what was tried, the Pareto front, and the choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from ..measures.retrieval_plots import (
    MARKERS,
    RIGHT_OF_LINE,
    colours_of,
    front_of,
    mark_rows,
    mark_single_shot,
    marks_legend,
)

CHOSEN = "#d1373b"
# Leading digits of the labels of an axis that spans up to so many times its least; beyond, powers of ten.
DIGITS = {5: (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), 100: (1.0, 2.0, 5.0), 1000: (1.0, 3.0)}
# Costs that span less have evenly spaced labels.
NARROW = 2
Row = Mapping[str, Any]


def draw_plan(rows: Sequence[Row], chosen: Row, single_shot: Row, quality: str, goal: str) -> bytes:
    """A PNG: the quality of all rows against milliseconds, and against multiply-adds, of one query.

    Args:
        rows: what was tried; gates that fall back to single-shot are left out.
        chosen: the row of the choice.
        single_shot: that of single-shot at full width: right of its line all costs more.
        quality: name of it.
        goal: in words.
    """
    rows = [_counted(row) for row in rows if not row["falls_back"]]
    chosen, single_shot = _counted(chosen), _counted(single_shot)
    figure = Figure(figsize=(11, 5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    known = colours_of(rows)
    titles = ("ms of one query, encoder and search", "multiply-adds per query")
    for axes, cost, title in zip(panels, ("ms", "macs"), titles, strict=True):
        front = front_of([(row[cost], row[quality]) for row in rows], least=True)
        axes.step(*zip(*front, strict=True), where="post", color="black", linewidth=1, alpha=0.6)
        for width, colour in known.items():
            mine = [row for row in rows if row["query_width"] == width]
            mark_rows(axes, mine, lambda row, cost=cost: row[cost], lambda row: row[quality], colour)  # type: ignore[misc]
        mark_single_shot(axes, single_shot[cost])
        place = chosen[cost], chosen[quality]
        axes.scatter(*place, s=190, facecolors="none", edgecolors=CHOSEN, linewidths=2)
        axes.set(xscale="log", xlabel=title)
        _space_labels(axes, [row[cost] for row in (*rows, chosen, single_shot)])
        axes.xaxis.set_major_formatter("{x:g}" if cost == "ms" else EngFormatter(sep=""))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(quality)
    figure.suptitle(f"{goal}; ringed: chosen; {RIGHT_OF_LINE}", fontsize=11)
    strategies = [strategy for strategy in MARKERS if any(row["strategy"] == strategy for row in rows)]
    figure.legend(handles=marks_legend(strategies, known), loc="outside lower center", ncols=8, fontsize=9)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=140, format="png")
    return buffer.getvalue()


def _counted(row: Row) -> Row:
    """With single multiply-adds, which thousands and millions are written of."""
    return {**row, "macs": 1e9 * row["gmacs"]}


def _space_labels(axes: Axes, costs: Sequence[float]) -> None:
    """Fewer labels the more the costs span, so that none covers another."""
    span = max(costs) / min(costs)
    # Between two powers of two a logarithmic locator finds one label or none, and takes a dozen instead.
    if span <= NARROW:
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_minor_formatter(NullFormatter())
        return
    subs = next((digits for most, digits in DIGITS.items() if span <= most), (1.0,))
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_minor_formatter(NullFormatter())
