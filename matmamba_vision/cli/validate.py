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
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matmamba_datasets import Splits
from rich.console import Console

from ..checkpoint import Checkpoint, load_checkpoint
from ..width import Width
from .arguments import parse
from .held_out import open_data, watched_batches
from .measure import measure_widths, widths_table
from .slices import named_width


@dataclass
class Args:
    # Run folder or checkpoint file.
    checkpoint: Path
    # Data set by name, if not the one of the training run: digits, folder or parquet.
    name: str = ""
    # Folder of the data set, if not the one of the training run.
    root: str = ""
    # Widths to measure, or slices that `matmamba select` wrote; by default the widths that were trained.
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
    widths = [named_width(width, checkpoint) for width in args.widths] or list(model.trained_widths)
    splits = open_data(checkpoint, args.name, args.root)
    rows = measure_checkpoint(checkpoint, widths, splits, console, args.batch_size, args.workers)
    if args.json:
        print(json.dumps({"checkpoint": str(checkpoint.path), "widths": rows}, indent=2))
    else:
        console.print(widths_table(rows))


def measure_checkpoint(
    checkpoint: Checkpoint,
    widths: Sequence[Width],
    splits: Splits,
    console: Console,
    batch_size: int,
    workers: int,
) -> list[dict[str, Any]]:
    """`measure_widths` on images prepared as the model wants them; `DataError` if too many are broken."""
    batches = [
        watched_batches(console, "encoding", checkpoint, images, batch_size, workers)
        for images in (splits.train, splits.held_out)
    ]
    return measure_widths(checkpoint.model, widths, *batches)
