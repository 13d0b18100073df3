"""The pictures of a demonstration's report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, floor, sqrt
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .demo_words import way_words, width_words
from .examples import Example, Picture

RIGHT, WRONG = "#2a9d5c", "#d1373b"
RECOGNISED, FOUND = "#2f6fd0", "#c77a1a"
ENCODER, SEARCH = "#0b6e66", "#8cc7bf"


def draw_widths(rows: Sequence[dict[str, Any]], queries: int, file: Path) -> None:
    """Top-1 and 1-NN accuracy against multiply-adds, one point for each width.

    Bars are 95 % Wilson intervals for `queries` images: differences within them may be chance.
    """
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    mmacs = [1e3 * row["gmacs"] for row in rows]
    # A little apart, so that one does not hide the other.
    series = (
        ("top1", "digit recognised (top-1)", "o", RECOGNISED, 0.985),
        ("knn1", "first hit shows the same digit (1-NN)", "s", FOUND, 1.015),
    )
    for name, title, marker, colour, apart in series:
        shares = [row[name] for row in rows]
        bars = zip(*(_wilson_bars(share, queries) for share in shares), strict=True)
        places = [apart * x for x in mmacs]
        axes.errorbar(
            places, shares, yerr=[*bars], marker=marker, capsize=3, color=colour, label=title, linewidth=1.5
        )
    axes.set(xscale="log", xlabel="multiply-adds of one image, millions", ylabel="of the held-out digits")
    axes.set_ylim(*_accuracy_limits(row[name] for row in rows for name in ("top1", "knn1")))
    names = [f"{x:.1f}\n{width_words(row['width'])}" for row, x in zip(rows, mmacs, strict=True)]
    axes.set_xticks(mmacs, names)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
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
    """A line for each strategy: its milliseconds, encoder and search apart, and how good its hits are."""
    figure = Figure(figsize=(11, 0.9 + 0.42 * len(rows)), layout="constrained")
    cost, quality = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1))
    lines = range(len(rows))
    encoder, search = ([row[name] for row in rows] for name in ("encode_ms", "search_ms"))
    cost.barh(lines, encoder, height=0.62, color=ENCODER, label="encoder")
    cost.barh(lines, search, height=0.62, left=encoder, color=SEARCH, label="search")
    cost.set_yticks(lines, [way_words(row) for row in rows], fontsize=9)
    cost.set(xlabel="milliseconds of one query")
    cost.invert_yaxis()
    _draw_quality(quality, rows)
    for axes in (cost, quality):
        axes.grid(alpha=0.3, axis="x")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=9, frameon=False)
    figure.savefig(file, dpi=150)


def _draw_quality(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Two marks for each strategy, one above the other, for both are often whole."""
    for name, title, marker, colour, down in (
        ("map10", "same digit (mAP@10)", "o", FOUND, -0.16),
        ("ann_recall10", "of the exact first 10, found", "D", RECOGNISED, 0.16),
    ):
        shares, lines = [row[name] for row in rows], [line + down for line in range(len(rows))]
        axes.plot(shares, lines, marker, color=colour, label=title, markersize=7, alpha=0.85)
    axes.set(xlim=(0, 1.03))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


def draw_examples(examples: Sequence[Example], first_stage: str, file: Path) -> None:
    """A row for each query: itself, the head of its shortlist, its hits, framed as right or wrong."""
    shown = min(len(examples[0].shortlist), len(examples[0].reranked), 8)
    # Narrow empty columns set the three parts apart.
    ratios = [1.0, 0.3, *[1.0] * shown, 0.3, *[1.0] * shown]
    parts = {0: "query", 2: f"shortlist: {first_stage}", 3 + shown: "compared again at full width"}
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
