"""Find the best way to search a gallery: measured here, with this model, on your queries.

Tries single-shot, shortlists, funnels and gates over the trained widths, dims, indexes and shortlist lengths.
Gates are calibrated on other queries than those that they are measured on (ten folds). With targets, the
fastest strategy that reaches them is chosen, or where gmacs have a budget and ms has none, the one of fewest
multiply-adds; with budgets alone, the one that finds most of what single-shot finds. The plan is saved in the
gallery, and `matmamba search` uses it.

Costs are those of all that a query spends: both encodings of a rerank and of a gate. `over single-shot`: ms
and multiply-adds over those of single-shot at full width; above 1 a strategy costs more. A gate that would
send every query to the full width, or save nothing of what is asked for, falls back to single-shot.

targets, at least:
  recall=0.99     share of the k hits that single-shot finds; others within 0.1 % of the k-th score count
  same1=0.99      share of queries whose first hit is the one of single-shot
  knn1=0.7        share of queries whose first hit has their class; needs labelled queries
  map=0.6         mAP@k (MRL); needs labelled queries

budgets, at most:
  ms=5            milliseconds of one query, encoder and search
  gmacs=0.5       multiply-adds per query, encoder and search, billions
  memory_mb=64    MiB of the index, or of the vectors that single-shot compares

examples:
  matmamba plan --gallery G --queries PHOTOS --target recall=0.99
  matmamba plan --gallery G --queries PHOTOS --budget ms=5 memory_mb=64 --dims 16 32 --indexes Flat HNSW32
  matmamba plan --gallery G --queries LABELLED --target knn1=0.7 --plot plan.png --json
  matmamba plan --gallery C --vectors queries.npy --model-name clip-vit-b32 --target recall=0.95
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from matmamba_retrieval.gallery.addresses import as_written
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..errors import ConfigError
from ..galleries.given_vectors import GivenVectors
from ..galleries.plans import PlanFound
from ..galleries.searched_gallery import MOST_QUERIES
from ..given import require_place
from ..progress import Listener
from ..upkeep.image_gallery import ImageGallery, open_gallery
from .arguments import parse
from .bars import Shown
from .computing import Computing
from .console import Console, say

if TYPE_CHECKING:
    from ..galleries.plans import PlanFound

Row = dict[str, Any]


@dataclass
class PlanFlags:
    # Folder of the gallery.
    gallery: Path
    # Query images: a folder, Parquet files or shards; not those of the gallery, which find themselves.
    queries: Path | None = None
    # Query vectors.
    given: tyro.conf.OmitArgPrefixes[GivenVectors] = field(default_factory=GivenVectors)
    # What a strategy has to reach, such as recall=0.99; see above.
    target: list[str] = field(default_factory=list)
    # What it may spend, such as ms=5; see above.
    budget: list[str] = field(default_factory=list)
    # Hits for each query.
    k: int = 10
    # Widths that may encode a query first; by default those that were trained.
    widths: list[str] = field(default_factory=list)
    # Dims of the first stage to try; by default those that the gallery has. Indexes that lack are built.
    dims: list[int] = field(default_factory=list)
    # Indexes to try over these dims, by name or FAISS factory string, such as flat hnsw ivf; by default those
    # that are built. Of those over the same dims, the chosen one stays.
    indexes: list[str] = field(default_factory=list)
    # Most queries, picked by chance.
    most: int = MOST_QUERIES
    # Share of query images that may be unreadable before the run stops.
    max_broken: float = 0.01
    # Where the model is, if it was moved.
    checkpoint: Path | None = None
    # Draw what was tried, with the Pareto front, into this PNG.
    plot: Path | None = None
    # Of the computation.
    computing: tyro.conf.OmitArgPrefixes[Computing] = field(default_factory=Computing)


def run(arguments: list[str]) -> None:
    """Measure, choose, save, print."""
    args = parse(PlanFlags, "plan", __doc__, arguments)
    if args.plot is not None:
        require_place("--plot", args.plot)
    if (args.queries is None) == (args.given.vectors is None):
        raise ConfigError("a plan needs either --queries, images, or --vectors made elsewhere")
    console, computing = args.computing.console(), args.computing
    with (
        open_gallery(
            args.gallery,
            model=args.checkpoint,
            write=True,
            device=computing.device,
            threads=computing.threads,
        ) as gallery,
        Shown(console) as listener,
    ):
        found = _plan(args, gallery, listener)
    if computing.json:
        say(json.dumps(found.to_dict(), indent=2))
    else:
        _print(console, args.gallery, found)


def _plan(args: PlanFlags, gallery: ImageGallery, listener: Listener) -> PlanFound:
    return gallery.plan(
        args.queries,
        target=args.target,
        budget=args.budget,
        k=args.k,
        vectors=args.given if args.given.vectors else None,
        widths=args.widths,
        dims=args.dims,
        indexes=args.indexes,
        most=args.most,
        max_broken=args.max_broken,
        plot=args.plot,
        batch_size=args.computing.batch_size,
        workers=args.computing.workers,
        seed=args.computing.seed,
        progress=listener,
    )


def _print(console: Console, folder: Path, found: PlanFound) -> None:
    tried, front, chosen = len(found.tried), list(found.front), found.chosen
    console.print(
        f"{found.goal}: {tried} strategies tried; the Pareto front, and what was chosen; over single-shot: ms"
        " and multiply-adds over those of single-shot at full width",
        soft_wrap=True,
    )
    rows = front if chosen in front else sorted([*front, chosen], key=lambda row: row["ms"])
    console.print(_table(rows, chosen, found.goal.quality))
    for note in found.notes:
        console.print(f"note: {note}", soft_wrap=True)
    console.print(f"saved in {as_written(folder)}: matmamba search uses it", soft_wrap=True)


def _table(rows: list[Row], chosen: Row, quality: str) -> Table:
    from ..studies.strategy_rows import OVER, first_stage, over_single_shot

    names = ("", "strategy", "query", "first stage", quality, "full", "MMACs", "index MiB", "ms", OVER)
    table = Table(*names, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.columns[1].no_wrap = True
    for column in table.columns[4:]:
        column.justify, column.no_wrap = "right", True
    for row in rows:
        table.add_row(
            "→" if row is chosen else "",
            row["strategy"],
            row["query_width"],
            first_stage(row),
            f"{row[quality]:.4f}",
            f"{100 * row['by_full']:.0f} %",
            _digits(1e3 * row["gmacs"]),
            _digits(row["memory_mb"]),
            f"{row['ms']:.2f}",
            over_single_shot(row),
        )
    return table


def _digits(value: float) -> str:
    """Three digits at least: a search of vectors alone costs thousandths of what an encoder does."""
    return f"{value:,.1f}" if value >= 100 else f"{value:#.3g}"
