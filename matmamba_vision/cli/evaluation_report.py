"""The results of `matmamba evaluate` as files, and as people read them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..checkpoint import write_whole
from .console import Console

Row = dict[str, Any]
PLOTS = {
    "quality_macs.png": "draw_macs",
    "quality_ms.png": "draw_ms",
    "recall_qps.png": "draw_recall",
    "query_encoder.png": "draw_query_encoder",
    "memory.png": "draw_memory",
}


def write_evaluation(output: Path, results: dict[str, Any]) -> None:
    """Write results.json, results.csv and the plots into a folder that exists."""
    # Here, because importing it takes most of a second.
    from ..measures import retrieval_plots

    drawn = {output / name: getattr(retrieval_plots, draw)(results) for name, draw in PLOTS.items()}
    tables = {
        output / "results.csv": csv_of(results["rows"]).encode(),
        output / "results.json": json.dumps(results, indent=2).encode(),
    }
    write_whole(drawn | tables)


def csv_of(rows: Sequence[Row]) -> str:
    """A line for each row; lists and objects as JSON."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                name: json.dumps(value) if isinstance(value, list | dict) else value
                for name, value in row.items()
            }
        )
    return text.getvalue()


def print_evaluation(console: Console, results: dict[str, Any], output: Path) -> None:
    """A table for each kind of strategy, and where the files are."""
    images, k = results["images"], results["settings"]["k"]
    console.print(
        f"gallery: {images['gallery']:,} training images; queries: {images['queries']:,} held-out images;"
        " gates were calibrated on other queries than those that they are measured on. 1-NN and mAP in %,"
        " lost: points less than single-shot at full width; full: queries that the full width answered; MMACs"
        " (encoder + search) and ms per query. Intervals are in results.json.",
        soft_wrap=True,
    )
    titles = {
        "single-shot": "single-shot (without shortlist)",
        "shortlist": "shortlist, reranked at full width",
        "funnel": "funnel",
        "gated": "gated",
    }
    for strategy, title in titles.items():
        rows = [row for row in results["rows"] if row["strategy"] == strategy]
        if rows:
            console.print(strategy_table(rows, title, k))
    console.print(f"{output}: results.json, results.csv, {', '.join(PLOTS)}", soft_wrap=True)


def strategy_table(rows: Sequence[Row], title: str, k: int) -> Table:
    """A line for each row: what it is, quality, loss against single-shot, cost."""
    gated = any(row["gate"] for row in rows)
    share = ("full",) if gated else ()
    names = ("query", "first stage", "1-NN", "lost", f"mAP@{k}", "lost", "recall", *share, "MMACs", "ms")
    table = Table(*names, title=title, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.columns[1].overflow = "fold"
    for column in (table.columns[0], *table.columns[2:]):
        column.no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    for row in rows:
        quality = (
            text
            for name in ("knn1", "map")
            for text in (f"{100 * row[name]:.1f}", _points(row[f"{name}_loss"]))
        )
        escalated = (f"{100 * row['by_full']:.0f} %",) if gated else ()
        macs = f"{row['encoder_macs'] / 1e6:,.1f} + {row['search_macs'] / 1e6:,.1f}"
        cells = (*quality, f"{row['recall']:.3f}", *escalated, macs, f"{row['ms']:.1f}")
        table.add_row(row["query_width"], first_stage(row), *cells)
    return table


def first_stage(row: Row) -> str:
    """Dims and lengths of the steps, and whatever differs from the usual."""
    steps = ", ".join(f"{length} by {dim}" for dim, length in zip(row["dims"], row["lengths"], strict=True))
    parts = [steps]
    parts += [f"gallery {row['gallery_width']}"] * (row["gallery_width"] != "full")
    parts += [row["index"]] * (row["index"] not in ("", "Flat"))
    parts += [f"effort {row['effort']}"] * (row["effort"] is not None)
    parts += [f"then {', '.join(row['widths'])}"] * bool(row["widths"])
    parts += [f"expanded by {row['expand']}"] * bool(row["expand"])
    if row["gate"]:
        target = f" for {row['gate_loss']:g}" if "gate_loss" in row else ""  # a plan has one for all its rows
        parts.append(row["gate"]["rule"] + target)
        # A plan's rows are measured as they are: what their gates were calibrated to is its goal.
        calibrated = row.get("calibrated", {})
        parts += ["surely"] * calibrated.get("sure", False)
        parts += ["asked again"] * row["again"]
        parts += ["not reached"] * (not calibrated.get("met", True))
    return "; ".join(filter(None, parts)) or "-"


def _points(share: float) -> str:
    # So that nothing is lost as -0.00.
    return f"{100 * share + 0.0:.2f}"
