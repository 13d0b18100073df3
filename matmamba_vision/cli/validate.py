"""Measure a checkpoint at each width on held-out images.

Prints top-1 accuracy, 1-NN accuracy and mAP@10 of its embeddings (queries of the width, gallery of the
training images at full width), parameters, multiply-adds and the latency of one image. Data settings are
those of the training run unless flags change them.

examples:
  matmamba validate --checkpoint runs/photos
  matmamba validate --checkpoint runs/photos --widths full 1/4 3/16 --json
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from matmamba_datasets import BrokenTally, DataConfig, Images, eval_transform, make_loader, open_splits
from omegaconf import OmegaConf
from rich.console import Console

from ..checkpoint import Checkpoint, CheckpointError, load_checkpoint
from .arguments import parse
from .measure import measure_widths, widths_table
from .progress import watch


@dataclass
class Args:
    # Run folder or checkpoint file.
    checkpoint: Path
    # Data set by name, if not the one of the training run: digits, folder or parquet.
    name: str = ""
    # Folder of the data set, if not the one of the training run.
    root: str = ""
    # Widths to measure; by default those that were trained.
    widths: list[str] = field(default_factory=list)
    # Images encoded at once.
    batch_size: int = 64
    # Processes that decode images.
    workers: int = 0
    # Print JSON instead of a table.
    json: bool = False


def run(arguments: list[str]) -> None:
    """Print a table or JSON."""
    args = parse(Args, "validate", __doc__, arguments)
    console = Console(stderr=args.json)
    checkpoint = load_checkpoint(args.checkpoint)
    model = checkpoint.model
    widths = [model.width(width) for width in args.widths] or list(model.trained_widths)
    splits = open_splits(_data(args, checkpoint))
    if splits.train.classes != checkpoint.classes:
        raise CheckpointError(f"{checkpoint.path} was trained on other classes than those of this data set")
    batches = [_watched(images, args, checkpoint, console) for images in (splits.train, splits.held_out)]
    rows = measure_widths(model, widths, *batches)
    if args.json:
        print(json.dumps({"checkpoint": str(checkpoint.path), "widths": rows}, indent=2))
    else:
        console.print(widths_table(rows))


def _data(args: Args, checkpoint: Checkpoint) -> DataConfig:
    known = OmegaConf.merge(OmegaConf.structured(DataConfig), checkpoint.run.get("data", {}))
    config: DataConfig = OmegaConf.to_object(known)  # type: ignore[assignment]
    config.name, config.root = args.name or config.name, args.root or config.root
    return config


def _watched(images: Images, args: Args, checkpoint: Checkpoint, console: Console):  # type: ignore[no-untyped-def]
    transform = eval_transform(checkpoint.model.input)
    loader = make_loader(images, transform, args.batch_size, workers=args.workers)
    allowed = checkpoint.run.get("data", {}).get("max_broken", DataConfig().max_broken)
    return watch(console, "encoding", loader, BrokenTally(len(images), allowed))
