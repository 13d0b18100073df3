"""The curves of a training run, drawn from its metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..errors import ConfigError
from .metrics_log import MetricsRow, read_metrics

# Steps are drawn as means over neighbours, so that curves of long runs can be read.
POINTS = 400
# Curves of a panel.
WIDTHS = 8


def draw_curves(metrics: Path, file: Path) -> None:
    """Draw loss and top-1 per width, learning rate with gradient norm, and seconds per step, as a PNG.

    Where steps are many, a point is the mean of its neighbours.

    Args:
        metrics: JSON lines of which "event" is "step" or "epoch"; a last line that a killed run left
            unfinished is passed over.
        file: written as a whole or not at all.

    Raises:
        ConfigError: a line is no JSON object, or there is no step.
    """
    rows = read_metrics(metrics)
    steps, epochs = ([row for row in rows if row.get("event") == kind] for kind in ("step", "epoch"))
    if not steps:
        raise ConfigError(f"{metrics} has no steps to draw")
    figure = Figure(figsize=(11, 7), layout="constrained")
    panels = figure.subplots(2, 2)
    _draw_losses(panels[0, 0], steps)
    _draw_top1(panels[0, 1], epochs)
    _draw_rates(panels[1, 0], steps)
    _draw_seconds(panels[1, 1], steps)
    for axes in panels.flat:
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    _save_whole(figure, file)


def _draw_losses(axes: Axes, steps: Sequence[MetricsRow]) -> None:
    for width in _names(steps, "widths"):
        _draw_line(axes, steps, [row["widths"].get(width) for row in steps], width)
    axes.set(title="loss of each width", ylabel="loss")
    if axes.lines:
        axes.legend(fontsize=8)


def _draw_top1(axes: Axes, epochs: Sequence[MetricsRow]) -> None:
    axes.set(title="top-1 on held-out images", ylabel="top-1")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    measured = [row for row in epochs if row.get("top1")]
    for width in _names(measured, "top1"):
        points = [(row["epoch"], row["top1"][width]) for row in measured if width in row["top1"]]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=width)
    if axes.lines:
        axes.legend(fontsize=8)
    else:
        axes.text(0.5, 0.5, "not measured yet", transform=axes.transAxes, ha="center", color="grey")


def _draw_rates(axes: Axes, steps: Sequence[MetricsRow]) -> None:
    _draw_line(axes, steps, [row.get("lr") for row in steps], "learning rate")
    axes.set(title="learning rate and gradient norm", ylabel="learning rate")
    other = axes.twinx()
    norms = [row.get("grad_norm") for row in steps]
    _draw_line(other, steps, norms, "gradient norm", color="C1", alpha=0.5)
    other.set_ylabel("gradient norm")
    other.set_ylim(bottom=0)
    # The noisy one behind.
    axes.set_zorder(other.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.legend(handles=[*axes.lines, *other.lines], fontsize=8)


def _draw_seconds(axes: Axes, steps: Sequence[MetricsRow]) -> None:
    for key, name in (("data_seconds", "waiting for images"), ("compute_seconds", "computing")):
        _draw_line(axes, steps, [row.get(key) for row in steps], name)
    axes.set(title="seconds of a step", ylabel="seconds")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)


def _names(rows: Iterable[MetricsRow], key: str) -> list[str]:
    """The widths that appear most often, the first of them first: some schedules draw ever new ones."""
    counts = Counter(name for row in rows for name in row.get(key) or {})
    return [name for name, _ in counts.most_common(WIDTHS)]


def _draw_line(
    axes: Axes, steps: Sequence[MetricsRow], values: Sequence[float | None], label: str, **style: Any
) -> None:
    rows = zip(steps, values, strict=True)
    known = [(row["epoch"], value) for row, value in rows if value is not None]
    if known:
        axes.plot(*_thinned(np.array(known, dtype=np.float64)), label=label, **style)


def _thinned(points: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(2, n) means of neighbours of (steps, 2) points, n at most `POINTS`."""
    parts = np.array_split(points, min(POINTS, len(points)))
    return np.stack([part.mean(axis=0) for part in parts], axis=1)


def _save_whole(figure: Figure, file: Path) -> None:
    partial = file.with_name(file.name + ".partial")
    figure.savefig(partial, dpi=120, format="png")
    partial.replace(file)
