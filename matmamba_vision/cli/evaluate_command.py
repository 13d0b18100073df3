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

Of a student with its teacher (--teacher), the teacher is the full width and encodes the gallery, which the
student asks in all strategies. Exact search is by mode, one word each for the encoders of query and gallery:
  teacher-teacher   the teacher encodes both: what the others are compared with
  student-student   the student encodes both, the gallery at full width
  student-teacher   a query by a width of the student in the gallery that the teacher encoded

With --gallery, a gallery is measured as it is, in a folder or pushed to an engine: images of --images, or
--vectors, ask it by the public search, with the strategies of the grid that its indexes answer, and with its
plan (--grid plan: with that alone). Nothing is built or changed. Without labels on both sides, recall and the
same first hit as single-shot are what is told.

The folder receives results.json, results.csv and plots, of modes also modes.csv and modes.png; embeddings,
gallery and rows that are done already are kept there, so that the same command goes on where it was stopped.

examples:
  matmamba evaluate --checkpoint runs/photos
  matmamba evaluate --name parquet --root CIFAR10 --queries 2000
  matmamba evaluate --checkpoint timm:resnet50.a1_in1k --name folder --root PHOTOS
  matmamba evaluate --checkpoint runs/student --teacher timm:resnet50.a1_in1k --name folder --root PHOTOS
  matmamba evaluate --checkpoint runs/student --teacher auto --modes teacher-teacher student-teacher
  matmamba evaluate --checkpoint runs/photos --grid my.yaml --output runs/photos/mine --json
  matmamba evaluate --gallery G --images LABELLED
  matmamba evaluate --gallery qdrant://localhost:6333/photos --images LABELLED --queries 500
  matmamba evaluate --gallery C --vectors queries.npy --model-name clip-vit-b32 --output C-study
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..errors import ConfigError
from ..galleries.gallery_model import SHIPPED
from ..galleries.given_vectors import GivenVectors
from ..galleries.searched_gallery import MOST_QUERIES
from ..progress import Listener
from .arguments import parse
from .bars import Shown
from .computing import Computing, NamedData
from .console import Console, say
from .measured_model import folder_beside, model_named, require_model
from .summary import kept

if TYPE_CHECKING:
    from ..studies.study import Study

Row = dict[str, Any]


@dataclass
class EvaluateFlags:
    # Run folder, checkpoint file, shipped name, or any encoder: timm:NAME, open_clip:ARCH/TAG, an ONNX file;
    # by default the one that is shipped. With --gallery: where its model is, if it was moved.
    checkpoint: Path | None = None
    # A gallery to be measured as it is: its folder, qdrant://host:port/collection, or edge:FOLDER.
    gallery: Path | None = None
    # With --gallery: query images, which are not its own: a folder, Parquet files or shards.
    images: Path | None = None
    # Query vectors.
    given: tyro.conf.OmitArgPrefixes[GivenVectors] = field(default_factory=GivenVectors)
    # Of a student: its teacher, which then encodes the gallery; auto for the one that its run names.
    teacher: str = ""
    # Of a student with its teacher: modes of exact search, see above; by default all three.
    modes: list[str] = field(default_factory=list)
    # What to try: quick, which ends within minutes; full, every strategy, index and dim; of a gallery plan,
    # its plan alone; or a YAML file.
    grid: str = "quick"
    # Folder to write; by default the folder `evaluate` beside the checkpoint, with a teacher the folder
    # `modes`; below runs for a model that has no folder here; runs/evaluate/G for a gallery G.
    output: Path | None = None
    # The data set, if not the one of the training run.
    data: NamedData = field(default_factory=NamedData)
    # Most images in the gallery, picked by chance; by default all, but 10,000 for the quick grid.
    gallery_images: int | None = None
    # Most held-out images that are asked, picked by chance; by default all, but 1,000 for the quick grid, and
    # for a gallery.
    queries: int | None = None
    # Of the computation.
    computing: tyro.conf.OmitArgPrefixes[Computing] = field(default_factory=Computing)


def run(arguments: list[str]) -> None:
    """Encode, try, write the folder, print tables or JSON."""
    args = parse(EvaluateFlags, "evaluate", __doc__, arguments)
    _refuse_without_meaning(args)
    console = args.computing.console()
    with Shown(console) as listener:
        study = _of_checkpoint(args, listener) if args.gallery is None else _of_gallery(args, listener)
    if args.computing.json:
        say(json.dumps(study.to_dict(), indent=2))
    else:
        _print(console, study)


def _refuse_without_meaning(args: EvaluateFlags) -> None:
    """Refuse flags of the one way to evaluate that were given with the other."""
    of_gallery = {"images": args.images, "vectors": args.given.vectors}
    of_checkpoint = {
        "teacher": args.teacher,
        "modes": args.modes,
        "name": args.data.name,
        "root": args.data.root,
        "gallery-images": args.gallery_images,
    }
    if args.gallery is None:
        if given := [name for name, value in of_gallery.items() if value is not None]:
            raise ConfigError(f"--{given[0]} asks a gallery: name it with --gallery")
        return
    if given := [name for name, value in of_checkpoint.items() if value]:
        raise ConfigError(f"--{given[0]} means nothing with --gallery, which is measured as it is")
    if (args.images is None) == (args.given.vectors is None):
        raise ConfigError("--gallery is asked by either --images, or --vectors made elsewhere")


def _of_checkpoint(args: EvaluateFlags, listener: Listener) -> Study:
    checkpoint = args.checkpoint or Path(SHIPPED)
    require_model(checkpoint)
    # Here, because it loads torch.
    from ..studies.evaluate import ENCODED, evaluate

    output = args.output or folder_beside(checkpoint, "modes" if args.teacher else "evaluate")
    with kept(output / ENCODED):
        return evaluate(
            model_named(checkpoint, args.teacher, args.computing.device),
            modes=args.modes,
            grid=args.grid,
            output=output,
            data=args.data.name,
            root=args.data.root,
            gallery_images=args.gallery_images,
            queries=args.queries,
            **args.computing.settings(),
            progress=listener,
        )


def _of_gallery(args: EvaluateFlags, listener: Listener) -> Study:
    from ..studies.gallery_study import evaluate_gallery

    assert args.gallery is not None
    return evaluate_gallery(
        args.gallery,
        args.images,
        vectors=args.given if args.given.vectors else None,
        grid=args.grid,
        # By the last part of its place.
        output=args.output or Path("runs", "evaluate", re.split("[:/]", str(args.gallery))[-1]),
        most=args.queries or MOST_QUERIES,
        model=args.checkpoint,
        **args.computing.settings(),
        progress=listener,
    )


def _about(study: Study) -> str:
    """What was measured on what, and what the columns are."""
    images, labelled = study.images, "knn1" in study.rows[0]
    who = (
        f"gallery {study.gallery}: {images['gallery']:,} images; queries: {images['queries']:,}"
        if study.gallery
        else f"gallery: {images['gallery']:,} training images; queries: {images['queries']:,} held-out images"
    )
    reached = (
        "1-NN and mAP in %, lost: points less than single-shot at full width"
        if labelled
        else "same first: queries whose first hit is that of single-shot at full width, in %"
    )
    return (
        f"{who}; gates were calibrated on other queries than those that they are measured on. {reached};"
        " full: queries that the full width answered; MMACs (encoder + search) and ms per query; over"
        " single-shot: ms and multiply-adds over those of single-shot at full width, above 1 it costs more."
        " Intervals are in results.json."
    )


def _print(console: Console, study: Study) -> None:
    """A table for each kind of strategy, and where the files are."""
    from ..studies.study import MODE_FILES

    k = study.settings["k"]
    console.print(_about(study), soft_wrap=True)
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
    if study.modes:
        console.print(_modes(study.exact))
    for note in study.notes:
        console.print(f"note: {note}", soft_wrap=True)
    files = [*study.plots, *(MODE_FILES if study.modes else ())]
    console.print(f"{study.output}: results.json, results.csv, {', '.join(files)}", soft_wrap=True)


def _modes(rows: Sequence[Row]) -> Table:
    """A line for each mode, query width and dim of exact search, with intervals."""
    from ..studies.modes import MODES, named

    names = ("mode", "query", "dim", "1-NN", "95 %", "lost", "mAP@10", "lost", "MMACs", "ms")
    title = "exact search by mode (query-gallery); lost: points less than teacher-teacher"
    table = Table(*names, title=title, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in table.columns[2:]:
        column.justify, column.no_wrap = "right", True
    for row in sorted(rows, key=lambda row: MODES.index(row["mode"])):
        low, high = row["knn1_interval"]
        interval = f"{100 * low:.1f} to {100 * high:.1f}"
        quality = (f"{100 * row['knn1']:.1f}", interval, _points(row["knn1_loss"]))
        ranked = (f"{100 * row['map10']:.1f}", _points(row["map10_loss"]))
        spent = (f"{row['encoder_macs'] / 1e6:,.1f}", f"{row['encoder_ms']:.1f}")
        table.add_row(row["mode"], named(row["query_width"]), str(row["dim"]), *quality, *ranked, *spent)
    return table


def _table(rows: Sequence[Row], title: str, k: int) -> Table:
    """A line for each row: what it is, quality, loss against single-shot, cost."""
    from ..studies.strategy_rows import OVER, first_stage, over_single_shot

    gated = any(row["gate"] for row in rows)
    share = ("full",) if gated else ()
    labelled = "knn1" in rows[0]
    reached = ("1-NN", "lost", f"mAP@{k}", "lost", "recall") if labelled else ("same first", "recall")
    names = ("query", "first stage", *reached, *share, "MMACs", "ms", OVER)
    table = Table(*names, title=title, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.columns[1].overflow = "fold"
    for column in (table.columns[0], *table.columns[2:]):
        column.no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    for row in rows:
        escalated = (f"{100 * row['by_full']:.0f} %",) if gated else ()
        macs = f"{row['encoder_macs'] / 1e6:,.1f} + {row['search_macs'] / 1e6:,.1f}"
        spent = (macs, f"{row['ms']:.1f}", over_single_shot(row))
        cells = (*_quality(row, labelled), f"{row['recall']:.3f}", *escalated, *spent)
        stage = first_stage(row) + "; the plan" * row.get("planned", False)
        table.add_row(row["query_width"], stage, *cells)
    return table


def _quality(row: Row, labelled: bool) -> list[str]:
    """1-NN and mAP, each with what is lost; without labels how often the first hit is the same."""
    if not labelled:
        return [f"{100 * row['same1']:.1f}"]
    pairs = ((f"{100 * row[name]:.1f}", _points(row[f"{name}_loss"])) for name in ("knn1", "map"))
    return [text for pair in pairs for text in pair]


def _points(share: float) -> str:
    # So that nothing is lost as -0.00.
    return f"{100 * share + 0.0:.2f}"
