"""The picture of a plan: what was tried, the Pareto front, and the choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from .retrieval_plots import MARKERS, colours_of, front_of, mark_rows, marks_legend

CHOSEN = "#d1373b"
Row = Mapping[str, Any]


def draw_plan(rows: Sequence[Row], chosen: Row, quality: str, goal: str) -> bytes:
    """A PNG: the quality of all rows against milliseconds, and against multiply-adds, of one query."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    known = colours_of(rows)
    titles = ("ms of one query, encoder and search", "billion multiply-adds per query")
    for axes, cost, title in zip(panels, ("ms", "gmacs"), titles, strict=True):
        front = front_of([(row[cost], row[quality]) for row in rows], least=True)
        axes.step(*zip(*front, strict=True), where="post", color="black", linewidth=1, alpha=0.6)
        for width, colour in known.items():
            mine = [row for row in rows if row["query_width"] == width]
            mark_rows(axes, mine, lambda row, cost=cost: row[cost], lambda row: row[quality], colour)  # type: ignore[misc]
        place = chosen[cost], chosen[quality]
        axes.scatter(*place, s=190, facecolors="none", edgecolors=CHOSEN, linewidths=2)
        axes.set(xscale="log", xlabel=title)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(quality)
    figure.suptitle(f"{goal}; ringed: chosen", fontsize=11)
    strategies = [strategy for strategy in MARKERS if any(row["strategy"] == strategy for row in rows)]
    figure.legend(handles=marks_legend(strategies, known), loc="outside lower center", ncols=8, fontsize=9)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=140, format="png")
    return buffer.getvalue()
