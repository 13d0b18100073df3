"""The images that a checkpoint is measured on: those of its training run, unless flags name others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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

from ..checkpoint import Checkpoint, CheckpointError
from ..config_file import filled
from .console import Console
from .progress import reporter


@dataclass
class NamedData:
    # By name: digits, folder, imagenet, shards, parquet, cifar10 or cifar100.
    name: str = ""
    # Its folder.
    root: str = ""


def data_config(checkpoint: Checkpoint, name: str = "", root: str = "") -> DataConfig:
    """The data settings of the training run, with another name or folder if given."""
    config = filled(DataConfig, checkpoint.run.get("data", {}), str(checkpoint.path))
    config.name, config.root = name or config.name, root or config.root
    return config


def open_data(
    console: Console, checkpoint: Checkpoint, name: str = "", root: str = "", *, any_classes: bool = False
) -> Splits:
    """The splits of the data set of the training run, or of the one that is named; says what is not read.

    Args:
        any_classes: it may have other classes than the checkpoint: labels are compared with each other, and
            not with what the classifier says.

    Raises:
        DataError: data set missing or unreadable. CheckpointError: it has other classes than the checkpoint.
    """
    splits = open_splits(data_config(checkpoint, name, root))
    if not any_classes and splits.train.classes != checkpoint.classes:
        raise CheckpointError(f"{checkpoint.path} was trained on other classes than those of this data set")
    reporter(console).left_out(splits.left_out)
    return splits


def watched_batches(
    console: Console, description: str, checkpoint: Checkpoint, images: Images, batch_size: int, workers: int
) -> Iterator[Batch]:
    """Batches prepared as the model wants them, with a bar; `DataError` if too many images are broken."""
    loader = make_loader(images, eval_transform(checkpoint.model.input), batch_size, workers=workers)
    allowed = checkpoint.run.get("data", {}).get("max_broken", DataConfig().max_broken)
    return reporter(console).watch(description, loader, BrokenTally(len(images), allowed))
