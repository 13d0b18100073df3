"""Find the best way to search a gallery: measured here, with this model, on your queries.

Tries single-shot, shortlists, funnels and gates over the trained widths, dims, indexes and shortlist lengths.
Gates are calibrated on other queries than those that they are measured on (ten folds). With targets, the
fastest strategy that reaches them is chosen; with budgets alone, the one that finds most of what single-shot
finds. The plan is saved in the gallery, and `matmamba search` uses it.

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
from typing import Any

import numpy as np
import tyro
from matmamba_datasets import (
    NO_LABEL,
    BrokenTally,
    DataError,
    Images,
    eval_transform,
    make_loader,
    open_images,
)
from matmamba_retrieval import Encoded, EncodedQueries, Gallery, GalleryError, Strategy
from matmamba_retrieval.planning.planner import OF_LABELS, Goal, Planner, candidates, pareto_rows
from matmamba_retrieval.strategies.indexes import ensure_index
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..device import resolve_device
from ..errors import ConfigError
from ..galleries.checkpoints import checkpoint_of
from ..galleries.embedder import Embedder
from ..galleries.encoding import embed_batches
from ..galleries.given_vectors import GivenVectors
from ..galleries.strategies import say_few
from ..measures import measure_latency
from ..studies.strategy_rows import first_stage
from ..widths.held_out import some
from .arguments import parse
from .computing import Computing, require_least, require_place
from .console import Console, say
from .progress import reporter

Row = dict[str, Any]
QUERIES = 1000


@dataclass
class Args:
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
    most: int = QUERIES
    # Share of query images that may be unreadable before the run stops.
    max_broken: float = 0.01
    # Where the checkpoint is, if it was moved.
    checkpoint: Path | None = None
    # Draw what was tried, with the Pareto front, into this PNG.
    plot: Path | None = None
    # Of the computation.
    computing: tyro.conf.OmitArgPrefixes[Computing] = field(default_factory=Computing)


def run(arguments: list[str]) -> None:
    """Measure, choose, save, print."""
    args = parse(Args, "plan", __doc__, arguments)
    goal = Goal.parse(args.target, args.budget)
    _check(args)
    console = args.computing.begin()
    with Gallery(args.gallery, write=True) as gallery:
        queries, labels = _read(args, gallery) if args.given.vectors else _encode(args, gallery, console)
        say_few(reporter(console), gallery, args.k, itself=False)
        args.k = min(args.k, len(gallery))
        planner = Planner(gallery, queries, args.k, goal, labels, args.computing.seed)
        rows = _try(args, gallery, planner, list(queries.by_width), console)
        chosen = planner.choose(rows)
        plan = planner.plan(chosen)
        for step in plan.strategy.steps[:1]:
            ensure_index(gallery, step.dim, gallery.spec.width, step.index)
        gallery.save_plan(plan.to_json())
    front = pareto_rows(rows, "ms", goal.quality)
    if args.plot:
        # Here, because importing it takes most of a second.
        from ..measures.plan_plot import draw_plan

        args.plot.write_bytes(draw_plan(rows, chosen, goal.quality, str(goal)))
    if args.computing.json:
        say(json.dumps({"plan": plan.to_json(), "front": front, "tried": len(rows)}, indent=2))
    else:
        _print(console, args, rows, front, chosen, goal)


def _check(args: Args) -> None:
    require_least(args, k=1, most=2)
    if (args.queries is None) == (args.given.vectors is None):
        raise ConfigError("a plan needs either --queries, images, or --vectors made elsewhere")
    if args.given.vectors and args.widths:
        raise ConfigError("--widths: vectors made elsewhere have only the full one")
    require_place("--plot", args.plot)


def _read(args: Args, gallery: Gallery) -> tuple[EncodedQueries, list[str] | None]:
    """Query vectors, which cost no encoding, and their class names, if all have one."""
    xq, labels = args.given.some(gallery, args.most, args.computing.seed)
    known = [label for label in labels if label is not None]
    return EncodedQueries({"full": Encoded(xq, 0.0, 0.0)}), known if len(known) == len(labels) else None


def _encode(args: Args, gallery: Gallery, console: Console) -> tuple[EncodedQueries, list[str] | None]:
    """Query images at each width, with the milliseconds of one; their class names, if all have one."""
    assert args.queries is not None
    checkpoint = checkpoint_of(
        args.gallery, gallery.generation, args.checkpoint, resolve_device(args.computing.device)
    )
    embedder, model = Embedder(checkpoint), checkpoint.model
    gallery.require_queries(embedder.spec())
    wanted = [model.width(width) for width in args.widths] or list(model.trained_widths)
    widths = list(dict.fromkeys(["full", *map(model.label, wanted)]))
    images = some(open_images(args.queries), args.most, args.computing.seed)
    reporter(console).left_out(images.left_out)
    by_width, labels = _embed(args, images, embedder, widths, console)
    with console.status("measuring latency"):
        times = measure_latency(model, widths)
    encoded = {
        width: Encoded(by_width[width], embedder.macs(width), time.median)
        for width, time in zip(widths, times, strict=True)
    }
    known = None if NO_LABEL in labels else [images.classes[label] for label in labels]
    return EncodedQueries(encoded), known


def _embed(
    args: Args, images: Images, embedder: Embedder, widths: list[str], console: Console
) -> tuple[dict[str, NDArray[np.float32]], list[int]]:
    """Embeddings by width, and labels, of the images that can be read; the others are said."""
    loader = make_loader(
        images,
        eval_transform(embedder.model.input),
        args.computing.batch_size,
        workers=args.computing.workers,
    )
    tally = BrokenTally(len(images), args.max_broken)
    by_width, labels, _ = embed_batches(
        embedder, reporter(console).watch("encoding queries", loader, tally), widths
    )
    if not len(labels):
        raise DataError(f"{args.queries}: no image can be read")
    reporter(console).broken(tally)
    return by_width, labels.tolist()


def _try(args: Args, gallery: Gallery, planner: Planner, widths: list[str], console: Console) -> list[Row]:
    """A row for each strategy; indexes over the same dims take turns, each replacing the other."""
    dims = sorted(set(args.dims)) or gallery.shortlist_dims() or [min(32, gallery.spec.dim)]
    rows: list[Row] = []
    known: set[Strategy] = set()
    for name in dict.fromkeys(args.indexes or [""]):
        for dim in dims:
            with console.status(f"building {name or 'the'} index over {dim} dims"):
                ensure_index(gallery, dim, gallery.spec.width, name)
        labelled = planner.goal.quality in OF_LABELS
        wanted = [s for s in candidates(gallery, widths, args.k, dims, labelled) if s not in known]
        known.update(wanted)
        with reporter(console).meter(f"trying strategies {name}".rstrip(), len(wanted), "strategies") as bar:
            for row in planner.run(wanted):
                if row is None:
                    bar.skip(1)
                else:
                    rows.append(row)
                    bar.advance(1, f"{row['strategy']}, query {row['query_width']}")
    if not rows:
        raise GalleryError(f"{args.gallery}: there was nothing to try")
    return rows


def _print(console: Console, args: Args, rows: list[Row], front: list[Row], chosen: Row, goal: Goal) -> None:
    quality = goal.quality
    console.print(
        f"{goal}: {len(rows)} strategies tried; the Pareto front, and what was chosen", soft_wrap=True
    )
    shown = front if chosen in front else sorted([*front, chosen], key=lambda row: row["ms"])
    names = ("", "strategy", "query", "first stage", quality, "full", "MMACs", "index MiB", "ms")
    table = Table(*names, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.columns[1].no_wrap = True
    for column in table.columns[4:]:
        column.justify, column.no_wrap = "right", True
    for row in shown:
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
        )
    console.print(table)
    console.print(f"saved in {args.gallery}: matmamba search uses it", soft_wrap=True)


def _digits(value: float) -> str:
    """Three digits at least: a search of vectors alone costs thousandths of what an encoder does."""
    return f"{value:,.1f}" if value >= 100 else f"{value:#.3g}"
