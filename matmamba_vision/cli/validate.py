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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matmamba_datasets import (
    Batch,
    BrokenTally,
    DataConfig,
    Images,
    Splits,
    eval_transform,
    make_loader,
    open_splits,
)
from omegaconf import OmegaConf
from rich.console import Console

from ..checkpoint import Checkpoint, CheckpointError, load_checkpoint
from ..width import Width
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
    splits = open_data(checkpoint, data_config(checkpoint, args.name, args.root))
    rows = measure_checkpoint(checkpoint, widths, splits, console, args.batch_size, args.workers)
    if args.json:
        print(json.dumps({"checkpoint": str(checkpoint.path), "widths": rows}, indent=2))
    else:
        console.print(widths_table(rows))


def data_config(checkpoint: Checkpoint, name: str, root: str) -> DataConfig:
    """The data settings of the training run, with another name or folder if given."""
    known = OmegaConf.merge(OmegaConf.structured(DataConfig), checkpoint.run.get("data", {}))
    config: DataConfig = OmegaConf.to_object(known)  # type: ignore[assignment]
    config.name, config.root = name or config.name, root or config.root
    return config


def open_data(checkpoint: Checkpoint, config: DataConfig) -> Splits:
    """The data set on which a checkpoint can be measured.

    Raises:
        CheckpointError: its classes are not those of the checkpoint.
        DataError: see `open_splits`.
    """
    splits = open_splits(config)
    if splits.train.classes != checkpoint.classes:
        raise CheckpointError(f"{checkpoint.path} was trained on other classes than those of this data set")
    return splits


def measure_checkpoint(
    checkpoint: Checkpoint,
    widths: Sequence[Width],
    splits: Splits,
    console: Console,
    batch_size: int,
    workers: int,
) -> list[dict[str, Any]]:
    """`measure_widths` on images prepared as the model wants them; `DataError` if too many are broken."""
    allowed = checkpoint.run.get("data", {}).get("max_broken", DataConfig().max_broken)

    def batches(images: Images) -> Iterator[Batch]:
        transform = eval_transform(checkpoint.model.input)
        loader = make_loader(images, transform, batch_size, workers=workers)
        return watch(console, "encoding", loader, BrokenTally(len(images), allowed))

    return measure_widths(checkpoint.model, widths, batches(splits.train), batches(splits.held_out))
