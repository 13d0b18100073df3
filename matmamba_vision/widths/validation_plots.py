"""The pictures of a validation: retrieval as heat maps, calibration as reliability diagrams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

COLOURS = "viridis"
# Labels of Mix'n'Match widths are as long as the network is deep.
LONGEST_LABEL = 10
DIAGRAMS_IN_A_ROW = 4


def draw_heatmaps(cells: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> bytes:
    """A PNG with a panel for each metric (rows) and dim (columns): query widths by gallery widths.

    Each row of panels has a colour scale of its own, from its least to its largest value.

    Args:
        cells: query_width, gallery_width, dim and metrics, 0 to 1; all combinations.
        titles: of the metrics to show, by name.
    """
    dims, queries, galleries = (
        list(dict.fromkeys(cell[name] for cell in cells)) for name in ("dim", "query_width", "gallery_width")
    )
    panel = max(1.5, 0.55 * len(galleries)), max(1.3, 0.45 * len(queries))
    size = panel[0] * len(dims) + 2.4, (panel[1] + 0.35) * len(titles) + 1.1
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(titles), len(dims), squeeze=False, sharex=True, sharey=True)
    for row, (name, title) in zip(grid, titles.items(), strict=True):
        values = np.array([100 * cell[name] for cell in cells])
        scale = ScalarMappable(_scale(values), COLOURS)
        for axes, dim in zip(row, dims, strict=True):
            chosen = values[[cell["dim"] == dim for cell in cells]]
            _draw_panel(axes, chosen.reshape(len(queries), len(galleries)), scale)
            axes.set_title(f"{title}, {dim} dims", fontsize=9)
        figure.colorbar(scale, ax=list(row), label=f"{title}, %", fraction=0.04, pad=0.01)
    _label_widths(grid, queries, galleries)
    figure.supxlabel("width of the gallery", fontsize=10)
    figure.supylabel("width of the query", fontsize=10)
    return _png(figure)


def _scale(values: NDArray[np.float64]) -> Normalize:
    # At least one point wide, so that noise is not shown as contrast.
    middle, half = (values.min() + values.max()) / 2, max(0.5, np.ptp(values) / 2)
    return Normalize(middle - half, middle + half)


def _draw_panel(axes: Axes, percent: NDArray[np.float64], scale: ScalarMappable) -> None:
    colours = scale.to_rgba(percent)
    axes.imshow(colours, aspect="auto")
    for (row, column), value in np.ndenumerate(percent):
        red, green, blue, _ = colours[row, column]
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.42
        colour = "black" if light else "white"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8, color=colour)


def _label_widths(grid: NDArray[Any], queries: Sequence[str], galleries: Sequence[str]) -> None:
    """Panels share their axes, so one names the widths of all."""
    across = [_short(label) for label in galleries]
    long = max(map(len, across)) > 4
    grid[0, 0].set_xticks(range(len(across)), across)
    grid[0, 0].set_yticks(range(len(queries)), [_short(label) for label in queries])
    for axes in grid.flat:
        axes.tick_params(labelsize=8)
    for axes in grid[-1]:
        axes.tick_params(axis="x", rotation=45 if long else 0)


def _short(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"


def draw_calibration(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG with a reliability diagram for each width: accuracy by confidence, and the images below.

    Args:
        rows: width, ece, and counts, confidences, accuracies of each bin (None where it is empty).
    """
    across = min(DIAGRAMS_IN_A_ROW, len(rows))
    down = ceil(len(rows) / across)
    figure = Figure(figsize=(2.7 * across + 0.8, 3.6 * down), layout="constrained")
    grid = figure.subplots(
        2 * down, across, squeeze=False, sharex=True, sharey="row", height_ratios=[3, 1] * down
    )
    for number, row in enumerate(rows):
        line, column = divmod(number, across)
        _draw_diagram(grid[2 * line, column], grid[2 * line + 1, column], row)
    for number in range(len(rows), down * across):
        line, column = divmod(number, across)
        grid[2 * line, column].set_axis_off()
        grid[2 * line + 1, column].set_axis_off()
    for upper, lower in zip(grid[::2, 0], grid[1::2, 0], strict=True):
        upper.set_ylabel("accuracy", fontsize=9)
        lower.set_ylabel("images, %", fontsize=9)
    legend = grid[0, 0].get_legend_handles_labels()
    # One diagram is too narrow for a line of three.
    figure.legend(*legend, loc="outside lower center", ncols=3 if across > 1 else 1, fontsize=9)
    return _png(figure)


def _draw_diagram(upper: Axes, lower: Axes, row: Mapping[str, Any]) -> None:
    counts = np.array(row["counts"])
    used = counts > 0
    left, width = np.arange(len(counts)) / len(counts), 1 / len(counts)
    confidences, accuracies = (np.array(row[name], dtype=float) for name in ("confidences", "accuracies"))
    upper.bar(left[used], accuracies[used], width, align="edge", color="#8fb4e0", label="accuracy")
    gaps = confidences[used] - accuracies[used]
    upper.bar(
        left[used],
        gaps,
        width,
        bottom=accuracies[used],
        align="edge",
        facecolor="none",
        edgecolor="#d1373b",
        hatch="////",
        label="gap to confidence",
    )
    upper.plot([0, 1], [0, 1], "--", color="grey", linewidth=1, label="calibrated")
    upper.set(xlim=(0, 1), ylim=(0, 1.03))
    upper.set_title(f"{_short(row['width'])}: ECE {row['ece']:.3f}", fontsize=10)
    lower.bar(left, 100 * counts / counts.sum(), width, align="edge", color="grey")
    lower.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    lower.set_xlabel("confidence", fontsize=9)
    # Here too, where another width is below.
    lower.tick_params(labelbottom=True)
    for axes in (upper, lower):
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, dpi=150, format="png")
    return buffer.getvalue()
