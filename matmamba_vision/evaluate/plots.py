"""The pictures of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .report import Example, Picture

RIGHT, WRONG = "#2a9d5c", "#d1373b"
MARKERS = {"single-shot": "s", "shortlist": "o", "funnel": "^"}


def draw_widths(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Top-1 and 1-NN accuracy against multiply-adds, one point for each width."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    mmacs = [1e3 * row["gmacs"] for row in rows]
    for name, title, marker in (("top1", "classification, top-1", "o"), ("knn1", "retrieval, 1-NN", "s")):
        axes.plot(mmacs, [row[name] for row in rows], marker=marker, label=title)
    for row, x in zip(rows, mmacs, strict=True):
        above = max(row["top1"], row["knn1"])
        axes.annotate(row["width"], (x, above), xytext=(0, 7), textcoords="offset points", ha="center")
    axes.set(xscale="log", xlabel="multiply-adds per image, millions", ylabel="accuracy, held-out images")
    axes.set_xticks(mmacs, [f"{x:.1f}" for x in mmacs])
    axes.minorticks_off()
    axes.margins(y=0.2)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(file, dpi=150)


def draw_retrieval(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """mAP@10 against encoder time and against search time, one point for each strategy."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name, title in zip(panels, ("encode_ms", "search_ms"), ("encoder", "search"), strict=True):
        for row in rows:
            axes.scatter(row[name], row["map10"], marker=MARKERS[row["strategy"]], s=60, label=_describe(row))
        axes.set(xlabel=f"{title}, ms per query", xscale="log")
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("mAP@10")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=9)
    figure.savefig(file, dpi=150)


def _describe(row: dict[str, Any]) -> str:
    if row["strategy"] == "single-shot":
        return f"single-shot, query {row['query_width']}"
    return f"{row['strategy']} of {row['shortlist']} by {row['dim']} dims,\nquery {row['query_width']}"


def draw_examples(examples: Sequence[Example], file: Path) -> None:
    """A row for each query: the query, the head of its shortlist, its reranked hits; frames say right or wrong."""
    shown = min(len(examples[0].shortlist), len(examples[0].reranked), 8)
    columns = 1 + 2 * shown
    # Narrow columns set the three parts apart.
    ratios = [1.0, 0.35, *[1.0] * shown, 0.35, *[1.0] * shown]
    figure = Figure(figsize=(0.8 * columns + 0.6, 1.05 * len(examples) + 0.5), layout="constrained")
    grid = figure.subplots(len(examples), len(ratios), squeeze=False, gridspec_kw={"width_ratios": ratios})
    for axes in grid.flat:
        axes.axis("off")
    for row, example in zip(grid, examples, strict=True):
        _draw_picture(row[0], example.query, None)
        for axes, picture in zip(row[2 : 2 + shown], example.shortlist, strict=False):
            _draw_picture(axes, picture, picture.label == example.query.label)
        for axes, picture in zip(row[3 + shown :], example.reranked, strict=False):
            _draw_picture(axes, picture, picture.label == example.query.label)
    for column, title in (
        (0, "query"),
        (2, "shortlist, nearest first"),
        (3 + shown, "reranked by the full width"),
    ):
        grid[0][column].set_title(title, loc="left", fontsize=11, pad=16)
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
