"""What pictures of strategies have in common: marks, colours, and the Pareto front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .pareto import pareto_front

# What the line of single-shot means.
RIGHT_OF_LINE = "right of the dotted line all costs more than single-shot at full width"
Row = Mapping[str, Any]
Number = Callable[[Row], float]
MARKERS = {"single-shot": "s", "shortlist": "o", "funnel": "^", "gated": "D"}
# Colours of query widths, from full to the smallest.
COLOURS = ("#1b1b1b", "#d95f02", "#1f78b4", "#33a02c", "#984ea3", "#a6761d", "#e7298a", "#666666")


def mark_rows(axes: Axes, rows: Sequence[Row], x: Number, y: Number, colour: str) -> None:
    """A mark for each row, by its strategy."""
    for strategy, marker in MARKERS.items():
        known = [row for row in rows if row["strategy"] == strategy]
        places = [x(row) for row in known], [y(row) for row in known]
        axes.scatter(*places, s=38, marker=marker, color=colour, alpha=0.65, linewidths=0)


def mark_single_shot(axes: Axes, cost: float) -> None:
    """A line at what single-shot at full width costs."""
    axes.axvline(cost, color="grey", linestyle=":", linewidth=1.2)


def front_of(points: Sequence[tuple[float, float]], least: bool = False) -> list[tuple[float, float]]:
    """Of (x, y) those than which none is better in both: y high, and x low if `least`, else high."""
    return pareto_front(points, lambda point: point[0] if least else -point[0], lambda point: point[1])


def colours_of(rows: Sequence[Row]) -> dict[str, str]:
    """A colour for each query width."""
    widths = list(dict.fromkeys(row["query_width"] for row in rows))
    return {width: COLOURS[index % len(COLOURS)] for index, width in enumerate(widths)}


def marks_legend(strategies: Sequence[str], colours: Mapping[str, str]) -> list[Line2D]:
    """What marks and colours mean."""
    marks = [
        Line2D([], [], marker=MARKERS[name], color="grey", linestyle="", label=name) for name in strategies
    ]
    return marks + [
        Line2D([], [], marker="o", color=colour, linestyle="", label=f"query {width}")
        for width, colour in colours.items()
    ]
