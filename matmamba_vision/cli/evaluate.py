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

The folder receives results.json, results.csv and plots; embeddings, gallery and rows that are done already
are kept there, so that the same command goes on where it was stopped.

examples:
  matmamba evaluate --checkpoint runs/photos
  matmamba evaluate --name parquet --root CIFAR10 --queries 2000
  matmamba evaluate --checkpoint runs/photos --grid my.yaml --output runs/photos/mine --json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tyro
from matmamba_datasets import Splits
from matmamba_retrieval.planning.grid import Grid, strategies_of
from matmamba_retrieval.strategies.strategy import Strategy

from ..checkpoint import Checkpoint, checkpoint_file, load_checkpoint
from ..config_file import load_into, shipped_config
from ..device import resolve_device
from ..galleries.checkpoints import SHIPPED
from ..galleries.encoding import some
from ..measures.environment import environment
from ..measures.significance import RESAMPLES
from ..widths.held_out import data_config, open_data
from ..widths.slices import named_width
from .arguments import parse
from .computing import Computing, NamedData, require_least
from .console import Console, say
from .evaluation import Evaluation
from .evaluation_report import print_evaluation, write_evaluation
from .experiment import Workshop
from .progress import reporter

# Grids that are shipped, by name.
GRIDS = {"quick": "retrieval/quick.yaml", "full": "retrieval/adaptive.yaml"}
# Of the quick grid: most images in the gallery, and most queries.
QUICK_IMAGES, QUICK_QUERIES = 10_000, 1_000


@dataclass
class Args:
    # Run folder, checkpoint file, or the name of a model whose weights are shipped.
    checkpoint: Path = Path(SHIPPED)
    # What to try: quick, which ends within minutes; full, every strategy, index and dim; or a YAML file.
    grid: str = "quick"
    # Folder to write; by default the folder `evaluate` beside the checkpoint, or runs/evaluate for a shipped
    # one.
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
    args = parse(Args, "evaluate", __doc__, arguments)
    require_least(args, gallery_images=1, queries=2)
    computing = args.computing
    console = computing.begin()
    grid = load_into(Grid, shipped_config(GRIDS[args.grid]) if args.grid in GRIDS else Path(args.grid))
    if args.grid == "quick":
        args.gallery_images = args.gallery_images or QUICK_IMAGES
        args.queries = args.queries or QUICK_QUERIES
    checkpoint = load_checkpoint(args.checkpoint, resolve_device(computing.device))
    widths, gallery_widths = _widths(grid, checkpoint)
    config = data_config(checkpoint, args.data.name, args.data.root)
    splits = open_data(reporter(console), checkpoint, config, any_classes=True)
    splits = Splits(
        some(splits.train, args.gallery_images, computing.seed),
        some(splits.held_out, args.queries, computing.seed),
    )
    wanted = strategies_of(grid, widths, checkpoint.model.embedding_dim, len(splits.train))
    _say_few(console, wanted, len(splits.held_out))
    output = args.output or _beside(args.checkpoint)
    # Before the work, so that a folder that cannot be written costs none.
    output.mkdir(parents=True, exist_ok=True)
    workshop = Workshop(output / "encoded", checkpoint, console, computing.batch_size, computing.workers)
    with workshop.open(splits, _data(args, checkpoint), widths, gallery_widths) as experiment:
        evaluation = Evaluation(experiment, grid, computing.seed, output / "encoded", console)
        tables = evaluation.tables(wanted, checkpoint.model.embedding_dim)
    results = _results(args, grid, checkpoint) | tables
    write_evaluation(output, results)
    if computing.json:
        say(json.dumps(results, indent=2))
    else:
        print_evaluation(console, results, output)


def _widths(grid: Grid, checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
    """Labels of the query widths, full first, and of the gallery widths."""
    model = checkpoint.model

    def labels(names: list[str]) -> list[str]:
        return [model.label(named_width(name, checkpoint)) for name in names]

    asked = labels(grid.query_widths) or [model.label(width) for width in model.trained_widths]
    grid.query_widths = list(dict.fromkeys(["full", *asked]))
    grid.gallery_widths = list(dict.fromkeys(labels(grid.gallery_widths)))
    return grid.query_widths, grid.gallery_widths


def _say_few(console: Console, wanted: Sequence[tuple[Strategy, float]], queries: int) -> None:
    """Print it if one query is more than a gate may lose."""
    one = 100 / queries
    losses = sorted({loss for strategy, loss in wanted if strategy.kind == "gated" and loss < one})
    if losses:
        targets = ", ".join(f"{loss:g}" for loss in losses)
        console.print(
            f"{queries:,} queries are too few for gates that may lose {targets} points:"
            f" one query is {one:.2g} points of 1-NN",
            soft_wrap=True,
        )


def _beside(checkpoint: Path) -> Path:
    file = checkpoint_file(checkpoint)
    return Path("runs/evaluate") if checkpoint == Path(SHIPPED) else file.parent / "evaluate"


def _data(args: Args, checkpoint: Checkpoint) -> dict[str, Any]:
    data = data_config(checkpoint, args.data.name, args.data.root)
    return {"name": data.name, "root": data.root, "seed": args.computing.seed, "held_out": data.held_out}


def _results(args: Args, grid: Grid, checkpoint: Checkpoint) -> dict[str, Any]:
    data = data_config(checkpoint, args.data.name, args.data.root)
    return {
        "checkpoint": str(checkpoint.path),
        "digest": checkpoint.digest,
        "data": {"name": data.name, "root": data.root},
        "settings": {
            "k": grid.k,
            "seed": args.computing.seed,
            "resamples": RESAMPLES,
            "grid": asdict(grid),
        },
        **environment(),
    }
