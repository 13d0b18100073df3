"""Train, index and search handwritten digits, and write a report: about two minutes on two CPU cores.

The output folder receives the run (model.safetensors, config.yaml, metrics.jsonl), the gallery, results.json,
report.html and its plots.

examples:
  matmamba demo
  matmamba demo --output /tmp/demo --epochs 30
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from .arguments import parse
from .bars import Shown
from .console import Console

Row = dict[str, Any]


@dataclass
class DemoFlags:
    # Folder to write; what an earlier demo left in it is replaced.
    output: Path = Path("runs/demo")
    # Passes over the training images; by default those of configs/digits/demo.yaml.
    epochs: int | None = None
    # Seed of weights, order and augmentation.
    seed: int = 0
    # Fail if accuracy or search quality miss their goals.
    require_goals: bool = False


def run(arguments: list[str]) -> None:
    """The main job, from images to answers, and tables of what it reached."""
    args = parse(DemoFlags, "demo", __doc__, arguments)
    from ..studies.demo import demo

    console = Console(highlight=False)
    with Shown(console) as listener:
        found = demo(args.output, epochs=args.epochs, seed=args.seed, progress=listener)
    for table in (_widths(found.widths), _retrieval(found.retrieval), _goals(found.goals)):
        console.print(table)
    console.print(f"report: {found.report.absolute()}", soft_wrap=True)
    if args.require_goals:
        found.require_goals()


def _widths(rows: Sequence[Row]) -> Table:
    table = Table("width", "params", "MMACs", "top-1", "1-NN", "mAP@10", "encode ms", title="widths")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        quality = (f"{row[name]:.3f}" for name in ("top1", "knn1", "map10"))
        mmacs = f"{1e3 * row['gmacs']:,.1f}"
        table.add_row(row["width"], f"{row['params']:,}", mmacs, *quality, f"{row['encode_ms']:.1f}")
    return table


def _retrieval(rows: Sequence[Row]) -> Table:
    names = ("strategy", "query", "dim", "K", "top-1", "mAP@10", "recall", "encode", "search")
    table = Table(*names, title="retrieval; recall of the exact top 10; ms per query")
    for column in table.columns[2:]:
        column.justify = "right"
    for row in rows:
        settings = (row["strategy"], row["query_width"], str(row["dim"]), str(row["shortlist"] or "-"))
        quality = (f"{row[name]:.3f}" for name in ("top1", "map10", "ann_recall10"))
        table.add_row(*settings, *quality, f"{row['encode_ms']:.2f}", f"{row['search_ms']:.2f}")
    table.columns[0].no_wrap = True
    return table


def _goals(rows: Sequence[Row]) -> Table:
    table = Table("goal", "bound", "reached", "met?", title="goals")
    for row in rows:
        table.add_row(
            row["name"], row["bound"], f"{row['value']:g}", "yes" if row["met"] else "[red]no[/red]"
        )
    return table
