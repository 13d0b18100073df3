"""The results of `matmamba validate` as files, and as people read them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from rich.table import Table

from ..checkpoint import write_whole
from .console import Console

Row = dict[str, Any]
# What identifies a row, and what its other entries are not.
KEYS = ("width", "query_width", "gallery_width", "dim", "first", "second")
TABLES = ("widths", "retrieval", "comparisons", "probes")


def write_validation(output: Path, results: dict[str, Any]) -> None:
    """Write results.json, results.csv, heatmap.png and calibration.png into a folder that exists."""
    # Here, because importing it takes most of a second.
    from ..measures.validation_plots import draw_calibration, draw_heatmaps

    votes = [k for k in results["settings"]["knn"] if k > 1][-1:]
    titles = {"knn1": "1-NN", **{f"knn{k}": f"{k}-NN" for k in votes}, "map10": "mAP@10"}
    write_whole(
        {
            output / "heatmap.png": draw_heatmaps(results["retrieval"], titles),
            output / "calibration.png": draw_calibration(results["calibration"]),
            output / "results.csv": _csv(results).encode(),
            output / "results.json": json.dumps(results, indent=2).encode(),
        }
    )


def _csv(results: dict[str, Any]) -> str:
    """One line for each number: the table it is from, what identifies it, its value and interval."""
    text = StringIO()
    writer = csv.DictWriter(text, ["table", *KEYS, "metric", "value", "low", "high"], lineterminator="\n")
    writer.writeheader()
    for table in TABLES:
        for row in results.get(table, []):
            writer.writerows(_lines(table, row))
    return text.getvalue()


def _lines(table: str, row: Row) -> Iterator[Row]:
    known = {"table": table, **{key: row[key] for key in KEYS if key in row}}
    for name, value in row.items():
        if name not in KEYS and isinstance(value, int | float):
            low, high = row.get(f"{name}_interval", (None, None))
            yield {**known, "metric": name, "value": value, "low": low, "high": high}


def print_validation(console: Console, results: dict[str, Any], output: Path) -> None:
    """Tables of widths, retrieval, comparisons and probes, and where the files are."""
    images = results["images"]
    console.print(
        f"queries: {images['queries']:,} held-out images; gallery: {images['gallery']:,} training images;"
        " ±: half of a 95 % bootstrap interval",
        soft_wrap=True,
    )
    console.print(_widths(results["widths"]))
    for name, title in (("knn1", "1-NN"), ("map10", "mAP@10")):
        console.print(_matrix(results["retrieval"], name, title))
    if results["comparisons"]:
        console.print(_comparisons(results["comparisons"]))
    if "probes" in results:
        console.print(_probes(results["probes"]))
    files = "results.json, results.csv, heatmap.png, calibration.png"
    console.print(f"{output}: {files}", soft_wrap=True)


def _widths(rows: Sequence[Row]) -> Table:
    names = ("width", "top-1", "top-5", "ECE", "NLL", "params", "MMACs", "encode ms")
    table = _table(names, "widths", left=1)
    for row in rows:
        table.add_row(
            row["width"],
            _with_interval(row, "top1"),
            *(f"{row[name]:.3f}" for name in ("top5", "ece", "nll")),
            f"{row['params']:,}",
            f"{1e3 * row['gmacs']:,.1f}",
            f"{row['encode_ms']:.1f}",
        )
    return table


def _matrix(cells: Sequence[Row], name: str, title: str) -> Table:
    """A row for each query width and gallery width, a column for each dim."""
    dims = list(dict.fromkeys(cell["dim"] for cell in cells))
    known = {(cell["query_width"], cell["gallery_width"], cell["dim"]): cell[name] for cell in cells}
    table = _table(("query", "gallery", *map(str, dims)), f"{title} by embedding dim", left=2)
    last = ""
    for query, gallery in dict.fromkeys(key[:2] for key in known):
        if last and query != last:
            table.add_section()
        values = (f"{known[query, gallery, dim]:.3f}" for dim in dims)
        table.add_row("" if query == last else query, gallery, *values)
        last = query
    return table


def _comparisons(rows: Sequence[Row]) -> Table:
    names = ("width", "against", "top-1", "p", "mAP@10", "p")
    table = _table(names, "differences; p: McNemar, sign flips", left=2)
    for row in rows:
        cells = [
            text
            for name in ("top1", "map10")
            for text in (_with_interval(row, f"{name}_difference", "+"), f"{row[f'{name}_p']:.2g}")
        ]
        table.add_row(row["first"], row["second"], *cells)
    return table


def _probes(rows: Sequence[Row]) -> Table:
    """A row for each width, a column for each dim."""
    dims = list(dict.fromkeys(row["dim"] for row in rows))
    known = {(row["width"], row["dim"]): row["probe"] for row in rows}
    table = _table(("width", *map(str, dims)), "linear probe by embedding dim", left=1)
    for width in dict.fromkeys(row["width"] for row in rows):
        table.add_row(width, *(f"{known[width, dim]:.3f}" for dim in dims))
    return table


def _table(names: Sequence[str], title: str, left: int) -> Table:
    table = Table(*names, title=title)
    for column in table.columns[:left]:
        column.overflow = "fold"
    for column in table.columns[left:]:
        column.justify = "right"
        column.no_wrap = True
    return table


def _with_interval(row: Row, name: str, sign: str = "") -> str:
    low, high = row[f"{name}_interval"]
    return f"{row[name]:{sign}.3f} ±{(high - low) / 2:.3f}"
