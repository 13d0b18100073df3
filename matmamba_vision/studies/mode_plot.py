"""The picture of the three modes: what queries find against what encoding them costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from ..galleries.model_widths import FULL, STUDENT
from .modes import ACROSS, OWN, REFERENCE

Row = dict[str, Any]
_STYLES = {REFERENCE: "D-", OWN: "s-", ACROSS: "o-"}


def draw_modes(results: Mapping[str, Any]) -> bytes:
    """A PNG: 1-NN at full length against what the query's encoder costs, a line for each mode.

    Args:
        results: a study's, as plain values.
    """
    rows = results["exact"]
    longest = max(row["dim"] for row in rows)
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    grid = figure.subplots(1, 2, sharey=True)
    costs = (("encoder_macs", "multiply-adds"), ("encoder_ms", "ms"))
    for axes, (cost, title) in zip(grid, costs, strict=True):
        for mode in results["modes"]:
            _line(axes, [row for row in rows if (row["mode"], row["dim"]) == (mode, longest)], cost, mode)
        axes.set(xlabel=f"{title} of the query's encoder for one image", xscale="log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.12)
        axes.grid(alpha=0.3)
    grid[0].xaxis.set_major_formatter(EngFormatter(sep=""))
    grid[1].xaxis.set_major_formatter("{x:g}")
    grid[0].set_ylabel("1-NN, %")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=140, format="png")
    return buffer.getvalue()


def _line(axes: Axes, rows: Sequence[Row], cost: str, mode: str) -> None:
    rows = sorted(rows, key=lambda row: float(row[cost]))
    x, y = ([row[name] for row in rows] for name in (cost, "knn1"))
    ends = np.array([row["knn1_interval"] for row in rows])
    bars = 100 * np.abs(ends - np.array(y)[:, None]).T
    axes.errorbar(
        x, 100 * np.array(y), yerr=bars, fmt=_STYLES[mode], capsize=3, label=f"query-gallery: {mode}"
    )
    for row, place in zip(rows, zip(x, y, strict=True), strict=True):
        name = row["query_width"].removeprefix(STUDENT).strip() or FULL
        name = "teacher" if mode == REFERENCE else name
        where = place[0], 100 * place[1]
        axes.annotate(name, where, xytext=(5, -11), textcoords="offset points", fontsize=8)
