"""The picture of a choice: evaluated widths, their Pareto front, and the chosen one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, LogLocator

from ..measures.budget import KEYS, Budget
from ..measures.mixnmatch import Candidate
from ..measures.pareto import pareto_front

# In drawing order: what stands out comes last.
_LOOKS = {
    "search": ("o", "#8c8c8c", "search"),
    "rule": ("D", "#e08214", "rule: least slope"),
    "uniform": ("s", "#2166ac", "uniform"),
    "trained": ("^", "#1b7837", "trained"),
    "smallest": ("v", "#762a83", "smallest"),
}
_CHOSEN = "#d1373b"
# Labels longer than this say little and hide much.
_LONGEST_LABEL = 24


def draw_front(
    candidates: Sequence[Candidate],
    chosen: Candidate,
    label: str,
    budget: Budget,
    title: str,
    file: Path,
    predicted: bool = False,
) -> None:
    """Log-likelihood and top-1 on the images of the search against cost, one mark for each candidate.

    Args:
        candidates: all that were evaluated.
        chosen: one of them.
        label: of the chosen width.
        budget: that the choice kept to.
        title: above the picture.
        file: to write, a PNG.
        predicted: whether the costs are.
    """
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_panel(left, candidates, chosen, label, budget, lambda candidate: candidate.score.log_likelihood)
    _draw_panel(right, candidates, chosen, label, budget, lambda candidate: candidate.score.top1)
    left.set_ylabel("mean log-likelihood, nats per image")
    right.set_ylabel("top-1 accuracy")
    for axes in (left, right):
        axes.set_xlabel(KEYS[budget.key] + (", predicted" if predicted else ""))
    left.set_title("what the search compares", fontsize=10)
    right.set_title("accuracy", fontsize=10)
    figure.suptitle(title, fontsize=11)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=8, fontsize=9)
    figure.savefig(file, dpi=150)


def _draw_panel(
    axes: Axes,
    candidates: Sequence[Candidate],
    chosen: Candidate,
    label: str,
    budget: Budget,
    quality: Callable[[Candidate], float],
) -> None:
    front = pareto_front(candidates, lambda known: known.cost, quality)
    costs, values = [known.cost for known in front], [quality(known) for known in front]
    axes.step(costs, values, where="post", color="black", linewidth=1, alpha=0.6, label="Pareto front")
    for origin, (marker, colour, title) in _LOOKS.items():
        of_origin = [known for known in candidates if known.origin == origin]
        if of_origin:
            points = [known.cost for known in of_origin], [quality(known) for known in of_origin]
            axes.scatter(*points, s=34, marker=marker, color=colour, alpha=0.8, linewidths=0, label=title)
    axes.axvline(budget.limit, color=_CHOSEN, linestyle="--", linewidth=1.2, label=f"budget {budget}")
    place = chosen.cost, quality(chosen)
    axes.scatter(*place, s=190, facecolors="none", edgecolors=_CHOSEN, linewidths=2, label="chosen")
    axes.grid(alpha=0.3)
    _scale(axes, candidates, budget)
    _leave_out_outliers(axes, [quality(known) for known in candidates], min([*values, place[1]]))
    _annotate(axes, label if len(label) <= _LONGEST_LABEL else f"chosen, by {chosen.origin}", place)


def _scale(axes: Axes, candidates: Sequence[Candidate], budget: Budget) -> None:
    """Plain numbers, on a logarithmic axis where costs grow by factors."""
    costs = [budget.limit, *(known.cost for known in candidates)]
    if max(costs) > 3 * min(costs) > 0:
        axes.set_xscale("log")
        axes.set_xlim(min(costs) / 1.15, max(costs) * 1.15)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep="") if budget.key == "params" else "{x:g}")
    axes.minorticks_off()


def _leave_out_outliers(axes: Axes, values: Sequence[float], least: float) -> None:
    """Cut the axis below `least` and nine tenths of the values, so that a few bad widths do not fill it."""
    low, high = min(least, float(np.percentile(values, 10))), max(values)
    margin = 0.08 * (high - low) or 0.01
    axes.set_ylim(low - margin, high + margin)
    below = sum(value < low - margin for value in values)
    if below:
        axes.annotate(
            f"{below} more below",
            (0.99, 0.02),
            xycoords="axes fraction",
            ha="right",
            fontsize=8,
            color="dimgray",
        )


def _annotate(axes: Axes, text: str, place: tuple[float, float]) -> None:
    """Under the point, on the side of the picture's middle."""
    left = axes.transAxes.inverted().transform(axes.transData.transform(place))[0] > 0.5
    axes.annotate(
        text,
        place,
        xytext=(-12 if left else 12, -18),
        textcoords="offset points",
        ha="right" if left else "left",
        color=_CHOSEN,
        weight="bold",
        fontsize=9,
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )
