"""Train, index and search handwritten digits, and write a report: about two minutes on two CPU cores.

The output folder receives the run (model.safetensors, config.yaml, metrics.jsonl), the gallery, results.json,
report.html and its plots.

examples:
  matmamba demo
  matmamba demo --output /tmp/demo --epochs 30
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matmamba_datasets import Splits, eval_transform, make_loader, open_splits
from matmamba_retrieval import Gallery
from rich.table import Table

from ..checkpoint import Checkpoint, load_checkpoint
from ..config_file import shipped_config
from ..errors import ConfigError
from ..galleries.embedder import Embedder
from ..galleries.image_intake import index
from ..measures.environment import environment, peak_memory_mib
from ..measures.report import write_report
from ..runs import TrainConfig, load_config, train
from ..widths.measure import measure_widths
from .arguments import parse
from .compare import Compared, compare_strategies, pick_examples, retrieval_table
from .console import Console
from .goals import goals_table, judge, require_goals
from .progress import Shown, shown

SHORTLIST_DIMS = [16, 32]


@dataclass
class Args:
    # Folder to write; what an earlier demo left in it is replaced.
    output: Path = Path("runs/demo")
    # Passes over the training images; by default those of configs/digits/demo.yaml.
    epochs: int | None = None
    # Seed of weights, order and augmentation.
    seed: int = 0
    # Fail if accuracy or search quality miss their goals.
    require_goals: bool = False


def run(arguments: list[str]) -> None:
    """The main job, from images to answers."""
    args = parse(Args, "demo", __doc__, arguments)
    console = Console(highlight=False)
    _clear(args.output)
    config, stages = _config(args), _Stages(console)
    with stages.timed("train"):
        checkpoint = load_checkpoint(train(config, progress=Shown(console)).folder)
    splits = open_splits(config.data)
    with stages.timed("index"):
        gallery = _index(args.output / "gallery", checkpoint, splits, console)
    with gallery:
        widths, compared = _measure(checkpoint, splits, gallery, stages)
        results = _results(args, splits, stages, widths, compared)
        for table in (widths_table(widths), retrieval_table(compared), goals_table(results["goals"])):
            console.print(table)
        (args.output / "results.json").write_text(json.dumps(results, indent=2))
        write_report(args.output, results, pick_examples(splits, gallery, compared))
    console.print(f"report: {(args.output / 'report.html').absolute()}", soft_wrap=True)
    if args.require_goals:
        require_goals(results["goals"])


class _Stages:
    """Seconds by stage, printed as they pass."""

    def __init__(self, console: Console) -> None:
        self.seconds: dict[str, float] = {}
        self._console = console

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time the block."""
        start = time.monotonic()
        yield
        self.seconds[stage] = round(time.monotonic() - start, 2)
        self._console.print(f"{stage}: {self.seconds[stage]:.1f} s")


def _clear(output: Path) -> None:
    """Remove an earlier demo; refuse to touch a folder that holds anything else."""
    if output.exists() and any(output.iterdir()):
        if not (output / "config.yaml").is_file():
            raise ConfigError(f"{output} exists and was not written by a demo: choose another --output")
        shutil.rmtree(output)


def _config(args: Args) -> TrainConfig:
    config = load_config(shipped_config("digits/demo.yaml"))
    config.output, config.seed = str(args.output), args.seed
    config.optim.epochs = config.optim.epochs if args.epochs is None else args.epochs
    return config


def _index(folder: Path, checkpoint: Checkpoint, splits: Splits, console: Console) -> Gallery:
    with shown(console) as listener:
        index(splits.train, folder, model=checkpoint, dims=SHORTLIST_DIMS, progress=listener)
    return Gallery(folder)


def _measure(
    checkpoint: Checkpoint, splits: Splits, gallery: Gallery, stages: _Stages
) -> tuple[list[dict[str, Any]], list[Compared]]:
    transform = eval_transform(checkpoint.model.input)
    stored, asked = (
        make_loader(images, transform, len(splits.held_out)) for images in (splits.train, splits.held_out)
    )
    with stages.timed("measure widths"):
        widths = measure_widths(checkpoint.model, checkpoint.model.trained_widths, stored, asked)
    with stages.timed("compare strategies"):
        labels = [splits.held_out.classes[label] for label in splits.held_out.labels]
        compared = compare_strategies(gallery, Embedder(checkpoint), next(iter(asked)).images, labels)
    return widths, compared


def _results(
    args: Args, splits: Splits, stages: _Stages, widths: list[dict[str, Any]], compared: list[Compared]
) -> dict[str, Any]:
    results: dict[str, Any] = {
        "widths": widths,
        "retrieval": [found.row for found in compared],
        **environment(),
        "seed": args.seed,
        "images": {"gallery": len(splits.train), "queries": len(splits.held_out)},
        "seconds": stages.seconds,
        "peak_memory_mib": round(peak_memory_mib()),
    }
    return results | {"goals": judge(results)}


def widths_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as people read them."""
    table = Table("width", "params", "MMACs", "top-1", "1-NN", "mAP@10", "encode ms", title="widths")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        quality = (f"{row[name]:.3f}" for name in ("top1", "knn1", "map10"))
        mmacs = f"{1e3 * row['gmacs']:,.1f}"
        table.add_row(row["width"], f"{row['params']:,}", mmacs, *quality, f"{row['encode_ms']:.1f}")
    return table
