"""Run a grid of search strategies on labelled images, and draw what they reach against what they spend.

The training images are the gallery, the held-out ones are asked, same class relevant. Tried is every
combination of the grid: single-shot, shortlist + rerank, funnel and gated, by query width, gallery width, dim
of the first stage, shortlist and index; each against single-shot at full width. Gates are calibrated on other
queries than those that they are measured on. The grid is a YAML file: quick ends within minutes, with 10,000
images and 1,000 queries at most; full, configs/retrieval/adaptive.yaml, takes all images and has the shape of
MRL's adaptive and funnel tables, AdANNS's and MatMamba's query-encoder figure.

1-NN: class of the first hit. mAP@k: precision at each hit's rank, summed, divided by k (MRL). recall: share
of the k hits of single-shot, where others within 0.1 % of the k-th score count. Intervals: 95 % bootstrap.
Multiply-adds of the search: the dims of every vector that is compared. ms: mean of queries that are asked one
by one, the encoder's as measured for one image.

A gate sends a query to the full width where the neighbours that the small width found leave it in doubt.
Calibration takes the rule of doubt that sends the fewest; the table names it, and the points it may lose:
  gap        the first neighbour is hardly nearer than the second
  boundary   the k-th is hardly nearer than the one after it
  class      the first is hardly nearer than the first of another class
  vote       few of the 50 nearest have the class of the first
  regret     hits of their likeliest class alone would give a far better mAP@k

surely: with 95 % certainty. not reached: even all queries at full width lose more. asked again: queries that
are sent there search anew, else they rerank what the small width found. expanded by 50: the query of the
small width is averaged with its 50 nearest candidates before it ranks them.

over single-shot: ms and multiply-adds, both encodings of a rerank and of a gate counted, over those of
single-shot at full width; above 1 a strategy costs more. A gate that would send every query to the full
width, or costs more in both, falls back to single-shot: it is counted below the tables, and its row is in
results.json alone.

The folder receives results.json, results.csv and plots; embeddings, gallery and rows that are done already
are kept there, so that the same command goes on where it was stopped.

examples:
  matmamba evaluate --checkpoint runs/photos
  matmamba evaluate --name parquet --root CIFAR10 --queries 2000
  matmamba evaluate --checkpoint timm:resnet50.a1_in1k --name folder --root PHOTOS
  matmamba evaluate --checkpoint runs/photos --grid my.yaml --output runs/photos/mine --json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..galleries.gallery_model import SHIPPED
from .arguments import parse
from .bars import Shown
from .computing import Computing, NamedData
from .console import Console, say
from .measured_model import folder_beside, require_model

if TYPE_CHECKING:
    from ..studies.evaluate import Study

Row = dict[str, Any]


@dataclass
class EvaluateFlags:
    # Run folder, checkpoint file, shipped name, or any encoder: timm:NAME, open_clip:ARCH/TAG, an ONNX file.
    checkpoint: Path = Path(SHIPPED)
    # What to try: quick, which ends within minutes; full, every strategy, index and dim; or a YAML file.
    grid: str = "quick"
    # Folder to write; by default the folder `evaluate` beside the checkpoint, or runs/evaluate for a model
    # that has no folder here.
    output: Path | None = None
    # The data set, if not the one of the training run.
    data: NamedData = field(default_factory=NamedData)
    # Most images in the gallery, picked by chance; by default all, but 10,000 for the quick grid.
    gallery_images: int | None = None
    # Most held-out images that are asked, picked by chance; by default all, but 1,000 for the quick grid.
    queries: int | None = None
    # Of the computation.
    computing: tyro.conf.OmitArgPrefixes[Computing] = field(default_factory=Computing)


def run(arguments: list[str]) -> None:
    """Encode, try, write the folder, print tables or JSON."""
    args = parse(EvaluateFlags, "evaluate", __doc__, arguments)
    require_model(args.checkpoint)
    from ..studies.evaluate import evaluate

    console = args.computing.console()
    with Shown(console) as listener:
        study = evaluate(
            args.checkpoint,
            grid=args.grid,
            output=args.output or folder_beside(args.checkpoint, "evaluate"),
            data=args.data.name,
            root=args.data.root,
            gallery_images=args.gallery_images,
            queries=args.queries,
            **args.computing.settings(),
            progress=listener,
        )
    if args.computing.json:
        say(json.dumps(study.to_dict(), indent=2))
    else:
        _print(console, study)


def _print(console: Console, study: Study) -> None:
    """A table for each kind of strategy, and where the files are."""
    from ..studies.evaluate import PLOTS

    images, k = study.images, study.settings["k"]
    console.print(
        f"gallery: {images['gallery']:,} training images; queries: {images['queries']:,} held-out images;"
        " gates were calibrated on other queries than those that they are measured on. 1-NN and mAP in %,"
        " lost: points less than single-shot at full width; full: queries that the full width answered; MMACs"
        " (encoder + search) and ms per query; over single-shot: ms and multiply-adds over those of"
        " single-shot at full width, above 1 it costs more. Intervals are in results.json.",
        soft_wrap=True,
    )
    titles = {
        "single-shot": "single-shot (without shortlist)",
        "shortlist": "shortlist, reranked at full width, or at the width that is named",
        "funnel": "funnel",
        "gated": "gated",
    }
    for strategy, title in titles.items():
        rows = [row for row in study.rows if row["strategy"] == strategy]
        offered = [row for row in rows if not row["falls_back"]]
        if offered:
            console.print(_table(offered, title, k))
    for note in study.notes:
        console.print(f"note: {note}", soft_wrap=True)
    console.print(f"{study.output}: results.json, results.csv, {', '.join(PLOTS)}", soft_wrap=True)


def _table(rows: Sequence[Row], title: str, k: int) -> Table:
    """A line for each row: what it is, quality, loss against single-shot, cost."""
    from ..studies.strategy_rows import OVER, first_stage, over_single_shot

    gated = any(row["gate"] for row in rows)
    share = ("full",) if gated else ()
    reached = ("1-NN", "lost", f"mAP@{k}", "lost", "recall")
    names = ("query", "first stage", *reached, *share, "MMACs", "ms", OVER)
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
        spent = (macs, f"{row['ms']:.1f}", over_single_shot(row))
        cells = (*quality, f"{row['recall']:.3f}", *escalated, *spent)
        table.add_row(row["query_width"], first_stage(row), *cells)
    return table


def _points(share: float) -> str:
    # So that nothing is lost as -0.00.
    return f"{100 * share + 0.0:.2f}"
