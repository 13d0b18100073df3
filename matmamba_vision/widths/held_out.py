"""The images that a checkpoint is measured on: those of its training run, unless others are named."""

from __future__ import annotations

import os
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
from ..given import PathLike, require_type
from ..progress import Reporter


def data_config(checkpoint: Checkpoint, name: str = "", root: PathLike = "") -> DataConfig:
    """The data settings of the training run, with another name or folder if given.

    Args:
        checkpoint: knows the settings of its run.
        name: of the data set: digits, folder, imagenet, shards, parquet, cifar10 or cifar100.
        root: its folder.

    Raises:
        ConfigError: the settings in the checkpoint cannot be used.
        TypeError: a name that is no text, or a folder that is no path.
    """
    require_type("data", name, str, "a text")
    # As it is written: it may be the address of a store.
    require_type("root", root, (str, os.PathLike), "a path")
    folder = os.fspath(root)
    config = filled(DataConfig, checkpoint.run.get("data", {}), str(checkpoint.path))
    config.name, config.root = name or config.name, folder or config.root
    return config


def open_data(
    report: Reporter, checkpoint: Checkpoint, config: DataConfig, *, any_classes: bool = False
) -> Splits:
    """The splits of a data set; tells what is not read.

    Args:
        report: is told.
        checkpoint: what is measured.
        config: of the data set.
        any_classes: it may have other classes than the checkpoint: labels are compared with each other, and
            not with what the classifier says.

    Raises:
        DataError: data set missing or unreadable.
        CheckpointError: it has other classes than the checkpoint.
    """
    splits = open_splits(config)
    if not any_classes and splits.train.classes != checkpoint.classes:
        raise CheckpointError(f"{checkpoint.path} was trained on other classes than those of this data set")
    report.left_out(splits.left_out)
    if splits.unmeasured:
        report.say(f"note: {splits.unmeasured}")
    return splits


@dataclass(frozen=True, kw_only=True)
class BatchReader:
    """Reads images as a checkpoint's model wants them.

    Attributes:
        checkpoint: says how its images are prepared, and which share of them may be broken.
        report: is told how far a pass is.
        batch_size: images of a batch.
        workers: processes that decode.
    """

    checkpoint: Checkpoint
    report: Reporter
    batch_size: int = 64
    workers: int = 0

    def batches(self, stage: str, images: Images) -> Iterator[Batch]:
        """The batches of one pass, told as a stage; `DataError` if too many images are broken."""
        transform = eval_transform(self.checkpoint.model.input)
        loader = make_loader(images, transform, self.batch_size, workers=self.workers)
        allowed = self.checkpoint.run.get("data", {}).get("max_broken", DataConfig().max_broken)
        return self.report.watch(stage, loader, BrokenTally(len(images), allowed))
