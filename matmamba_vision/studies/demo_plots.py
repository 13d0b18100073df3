"""The pictures of a demonstration's report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, floor, sqrt
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .examples import Example, Picture

RIGHT, WRONG = "#2a9d5c", "#d1373b"
MARKERS = {"single-shot": "s", "shortlist": "o", "funnel": "^"}


def draw_widths(rows: Sequence[dict[str, Any]], queries: int, file: Path) -> None:
    """Top-1 and 1-NN accuracy against multiply-adds, one point for each width.

    Bars are 95 % Wilson intervals for `queries` images: differences within them may be chance.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    mmacs = [1e3 * row["gmacs"] for row in rows]
    series = (("top1", "classification, top-1", "o", 1.0), ("knn1", "retrieval, 1-NN", "s", 1.015))
    # A little apart, so that one does not hide the other.
    for name, title, marker, apart in series:
        shares = [row[name] for row in rows]
        errors = [_wilson_bars(share, queries) for share in shares]
        axes.errorbar(
            [apart * x for x in mmacs],
            shares,
            yerr=[*zip(*errors, strict=True)],
            marker=marker,
            capsize=3,
            label=title,
        )
    for row, x in zip(rows, mmacs, strict=True):
        above = max(row["top1"], row["knn1"])
        axes.annotate(row["width"], (x, above), xytext=(10, 5), textcoords="offset points", ha="center")
    axes.set(xscale="log", xlabel="multiply-adds per image, millions", ylabel="accuracy, held-out images")
    axes.set_ylim(*_accuracy_limits(row[name] for row in rows for name in ("top1", "knn1")))
    axes.set_xticks(mmacs, [f"{x:.1f}" for x in mmacs])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(file, dpi=150)


def _wilson_bars(share: float, count: int) -> tuple[float, float]:
    """How far the 95 % Wilson interval of a share reaches below and above it."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, share - middle + half), max(0.0, middle + half - share)


def _accuracy_limits(values: Iterable[float]) -> tuple[float, float]:
    """Whole steps of 0.05 around the values, so that noise does not fill the plot, and room for labels."""
    known = list(values)
    low, high = floor(20 * min(known) - 0.5) / 20, ceil(20 * max(known)) / 20
    return low, high + 0.1 * (high - low)


def draw_retrieval(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """mAP@10 against encoder time and against search time, one point for each strategy."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name, title in zip(panels, ("encode_ms", "search_ms"), ("encoder", "search"), strict=True):
        for row in rows:
            axes.scatter(
                row[name],
                row["map10"],
                marker=MARKERS[row["strategy"]],
                s=70,
                alpha=0.8,
                label=_describe(row),
            )
        axes.set(xlabel=f"{title}, ms per query", xlim=(0, 1.1 * max(row[name] for row in rows)))
        axes.locator_params(axis="x", nbins=5)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("mAP@10")
    panels[0].set_ylim(*_accuracy_limits(row["map10"] for row in rows))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=9)
    figure.savefig(file, dpi=150)


def _describe(row: dict[str, Any]) -> str:
    if row["strategy"] == "single-shot":
        return f"single-shot, query {row['query_width']}"
    return f"{row['strategy']} of {row['shortlist']} by {row['dim']} dims,\nquery {row['query_width']}"


def draw_examples(examples: Sequence[Example], first_stage: str, file: Path) -> None:
    """A row for each query: itself, the head of its shortlist, its hits, framed as right or wrong."""
    shown = min(len(examples[0].shortlist), len(examples[0].reranked), 8)
    # Narrow empty columns set the three parts apart.
    ratios = [1.0, 0.3, *[1.0] * shown, 0.3, *[1.0] * shown]
    parts = {0: "query", 2: f"shortlist: {first_stage}", 3 + shown: "reranked by full width and length"}
    figure = Figure(figsize=(0.8 * sum(ratios), 0.95 * len(examples) + 0.5))
    top = 1 - 0.62 / figure.get_figheight()
    spacing = {"left": 0.01, "right": 0.99, "bottom": 0.01, "top": top, "wspace": 0.12, "hspace": 0.25}
    grid = figure.subplots(
        len(examples), len(ratios), squeeze=False, gridspec_kw={"width_ratios": ratios, **spacing}
    )
    for axes in grid.flat:
        axes.axis("off")
    for row, example in zip(grid, examples, strict=True):
        answer = example.query.label
        _draw_picture(row[0], example.query, None)
        for first, pictures in ((2, example.shortlist), (3 + shown, example.reranked)):
            for axes, picture in zip(row[first:], pictures[:shown], strict=False):
                _draw_picture(axes, picture, picture.label == answer)
    for column, title in parts.items():
        grid[0][column].text(0, 1.35, title, transform=grid[0][column].transAxes, fontsize=11)
    figure.savefig(file, dpi=120)


def _draw_picture(axes: Axes, picture: Picture, right: bool | None) -> None:
    axes.axis("on")
    axes.imshow(picture.image)
    axes.set_xticks([])
    axes.set_yticks([])
    mark = "" if right is None else (" ✓" if right else " ✗")
    colour = "black" if right is None else (RIGHT if right else WRONG)
    axes.set_title(picture.label[:12] + mark, fontsize=8, color=colour, pad=2)
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2.5)
