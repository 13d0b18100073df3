"""The pictures of a study: quality of search against what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matmamba_retrieval.planning.savings import is_reference
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from ..measures.retrieval_plots import (
    MARKERS,
    Number,
    Row,
    colours_of,
    front_of,
    mark_rows,
    mark_single_shot,
    marks_legend,
)

# What is drawn of labelled queries, and of others.
LABELLED, UNLABELLED = {"knn1": "1-NN", "map": "mAP"}, {"same1": "same first hit", "recall": "recall"}


def qualities_of(results: Row) -> dict[str, str]:
    """Titles of what is drawn, by its name in the rows."""
    return LABELLED if all("knn1" in row for row in results["rows"]) else UNLABELLED


def offered(results: Row) -> list[Row]:
    """Rows but those of gates that fall back to single-shot, as far as the rows say so."""
    return [row for row in results["rows"] if not row.get("falls_back")]


def draw_macs(results: Row) -> bytes:
    """A PNG: the qualities (rows) against multiply-adds of encoder, of search, and of both (columns)."""
    costs: dict[str, Number] = {
        "encoder": lambda row: row["encoder_macs"],
        "search": lambda row: row["search_macs"],
        "encoder and search": lambda row: row["encoder_macs"] + row["search_macs"],
    }
    figure = Figure(figsize=(13, 7.4), layout="constrained")
    grid = figure.subplots(2, 3, sharey="row", sharex="col")
    qualities = qualities_of(results)
    for axes_row, name in zip(grid, qualities, strict=True):
        for axes, (title, cost) in zip(axes_row, costs.items(), strict=True):
            _scatter(axes, results, cost, lambda row, name=name: 100 * row[name])  # type: ignore[misc]
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.set_title(title if name == next(iter(qualities)) else "", fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel("multiply-adds per query")
    _label_qualities(grid[:, 0], results)
    return _png(figure, results)


def draw_ms(results: Row) -> bytes:
    """A PNG: the qualities against milliseconds of one query, encoder and search."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    grid = figure.subplots(1, 2)
    for axes, name in zip(grid, qualities_of(results), strict=True):
        _scatter(axes, results, lambda row: row["ms"], lambda row, name=name: 100 * row[name])  # type: ignore[misc]
        axes.set_xlabel("ms of one query, encoder and search")
        axes.xaxis.set_major_formatter("{x:g}")
    _label_qualities(grid, results)
    return _png(figure, results)


def draw_recall(results: Row) -> bytes:
    """A PNG in the manner of ANN-benchmarks: queries per second by recall, without and with the encoder."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = [
        row for row in offered(results) if row["strategy"] != "single-shot" or row["query_width"] == "full"
    ]
    speeds: tuple[tuple[Axes, str, Number], ...] = (
        (left, "search alone", lambda row: row["queries_per_second"]),
        (right, "encoder and search", lambda row: 1e3 / row["ms"]),
    )
    for axes, title, speed in speeds:
        for width, colour in colours_of(results["rows"]).items():
            known = [row for row in rows if row["query_width"] == width]
            mark_rows(axes, known, lambda row: row["recall"], speed, colour)
            best = front_of([(speed(row), row["recall"]) for row in known])
            axes.plot([y for _, y in best], [x for x, _ in best], color=colour, linewidth=1.2, alpha=0.8)
        axes.set(
            yscale="log", title=title, xlabel=f"recall: share of the {results['settings']['k']} exact hits"
        )
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3, which="major")
    left.set_ylabel("queries per second, one by one (up and right is better)")
    return _png(figure, results)


def draw_query_encoder(results: Row) -> bytes:
    """A PNG after MatMamba's figure: quality against multiply-adds of the query's encoder, by method."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    grid = figure.subplots(1, 2)
    widest = max(row["dim"] for row in results["exact"])
    for axes, (name, exact) in zip(grid, (("knn1", "knn1"), ("map", "map10")), strict=True):
        for gallery in dict.fromkeys(row["gallery_width"] for row in results["exact"]):
            alone = [
                row for row in results["exact"] if row["dim"] == widest and row["gallery_width"] == gallery
            ]
            _line(axes, alone, exact, f"small width alone, gallery {gallery}", "s-")
        for strategy, style in (("shortlist", "o--"), ("gated", "D:")):
            # Of shortlists those that the full width reranks.
            known = [row for row in offered(results) if row["strategy"] == strategy and not row["widths"]]
            best = [
                max((row for row in known if row["query_width"] == width), key=lambda row: row[name])
                for width in dict.fromkeys(row["query_width"] for row in known)
            ]
            title = "best shortlist, reranked at full width" if strategy == "shortlist" else "best gate"
            _line(axes, best, name, title, style)
        axes.set(xlabel="multiply-adds of the encoder per query")
        axes.margins(x=0.08)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.3)
    _label_qualities(grid, results)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    return _png(figure, results, legend=False)


def _line(axes: Axes, rows: Sequence[Row], name: str, title: str, style: str) -> None:
    ordered = sorted(rows, key=lambda row: row["encoder_macs"])
    if not ordered:
        return
    x = [row["encoder_macs"] for row in ordered]
    y = np.array([100 * row[name] for row in ordered])
    low, high = 100 * np.array([row[f"{name}_interval"] for row in ordered]).T
    axes.errorbar(
        x, y, yerr=np.maximum(0, [y - low, high - y]), fmt=style, capsize=3, label=title, alpha=0.85
    )
    for row, place in zip(ordered, zip(x, y, strict=True), strict=True):
        axes.annotate(row["query_width"], place, xytext=(6, -11), textcoords="offset points", fontsize=8)


def draw_memory(results: Row) -> bytes:
    """A PNG: the qualities against bytes that the first stage's index takes for each image."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    grid = figure.subplots(1, 2)
    indexed = {**results, "rows": [row for row in results["rows"] if row["dims"]]}
    for axes, name in zip(grid, qualities_of(results), strict=True):
        _scatter(
            axes,
            indexed,
            lambda row: row["index_bytes_per_image"],
            lambda row, name=name: 100 * row[name],  # type: ignore[misc]
        )
        exact = next(
            row
            for row in results["rows"]
            if row["strategy"] == "single-shot" and row["query_width"] == "full"
        )
        axes.axhline(100 * exact[name], color="grey", linestyle="--", linewidth=1)
        axes.set_xlabel("index, bytes per image")
        axes.xaxis.set_major_formatter("{x:g}")
    _label_qualities(grid, results)
    return _png(figure, results)


def _scatter(axes: Axes, results: Row, cost: Number, quality: Number) -> None:
    """Rows but gates that fall back, marked by strategy, coloured by width; their front; single-shot."""
    if not (rows := offered(results)):
        # Embeddings shorter than all dims of the grid have no first stage.
        return
    front = front_of([(cost(row), quality(row)) for row in rows], least=True)
    axes.step(*zip(*front, strict=True), where="post", color="black", linewidth=1, alpha=0.5)
    for width, colour in colours_of(results["rows"]).items():
        known = [row for row in rows if row["query_width"] == width]
        mark_rows(axes, known, cost, quality, colour)
    for row in filter(is_reference, rows):
        mark_single_shot(axes, cost(row))
    costs = [cost(row) for row in rows]
    if max(costs) > 3 * min(costs) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)


def _label_qualities(axes: Sequence[Axes], results: Row) -> None:
    for each, (name, title) in zip(axes, qualities_of(results).items(), strict=True):
        each.set_ylabel(f"{title}{'@' + str(results['settings']['k']) if name == 'map' else ''}, %")


def _png(figure: Figure, results: Row, legend: bool = True) -> bytes:
    if legend:
        tried = [name for name in MARKERS if any(row["strategy"] == name for row in results["rows"])]
        handles = marks_legend(tried, colours_of(results["rows"]))
        figure.legend(handles=handles, loc="outside lower center", ncols=8, fontsize=9)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=140, format="png")
    return buffer.getvalue()
