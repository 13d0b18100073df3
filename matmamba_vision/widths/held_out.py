"""The images that a checkpoint is measured on: those of its training run, unless others are named."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matmamba_common.settings import require
from matmamba_datasets import (
    Batch,
    BrokenTally,
    DataConfig,
    Images,
    Splits,
    make_loader,
    open_splits,
)
from matmamba_datasets.registry import folders_read
from matmamba_datasets.transforms import Transform

from ..checkpoint import Checkpoint, CheckpointError
from ..config_file import filled
from ..errors import ConfigError
from ..galleries.drawn_apart import require_apart
from ..galleries.embedder import Embedder
from ..galleries.model_widths import FULL
from ..given import PathLike
from ..progress import Reporter


def data_config(embedder: Embedder, name: str = "", root: PathLike = "") -> DataConfig:
    """The data settings of the training run, with another name or folder if given.

    Args:
        embedder: of a checkpoint that knows the settings of its run, or of another encoder.
        name: of the data set: digits, folder, imagenet, shards, parquet, cifar10 or cifar100.
        root: its folder.

    Raises:
        ConfigError: the settings in the checkpoint cannot be used; or an encoder that is not ours, and no
            data set.
        TypeError: a name that is no text, or a folder that is no path.
    """
    require("data", name, str)
    # As it is written: it may be the address of a store.
    require("root", root, PathLike)
    folder = os.fspath(root)
    if embedder.trained is None and not (name or folder):
        raise ConfigError(f"{embedder.place} has no training run here: name the data set, and its root")
    config = filled(DataConfig, _settings(embedder), embedder.place)
    config.name, config.root = name or config.name, folder or config.root
    return config


def _settings(embedder: Embedder) -> Mapping[str, Any]:
    """Of the data of its training run, if it had one here."""
    known: Mapping[str, Any] = {} if embedder.trained is None else embedder.trained.run.get("data", {})
    return known


def classes_fit(embedder: Embedder, splits: Splits) -> bool:
    """Whether its classifier tells apart the classes of a data set."""
    return embedder.checkpoint is not None and embedder.checkpoint.classes == splits.train.classes


def open_data(report: Reporter, config: DataConfig, output: Path | None = None) -> Splits:
    """The splits of a data set; tells what is not read.

    Args:
        report: is told.
        config: of the data set.
        output: where what is found is drawn, if it is.

    Raises:
        ConfigError: the output lies among the images.
        DataError: data set missing or unreadable.
    """
    require_apart("output", output, folders_read(config))
    splits = open_splits(config)
    report.left_out(splits.left_out)
    if splits.unmeasured:
        report.say(f"note: {splits.unmeasured}")
    return splits


def open_data_of_its_classes(
    report: Reporter, embedder: Embedder, config: DataConfig, output: Path | None = None
) -> Splits:
    """The same, of the classes that a model's classifier tells apart.

    Raises:
        ConfigError: the output lies among the images.
        DataError: data set missing or unreadable.
        CheckpointError: it has other classes than the model.
    """
    splits = open_data(report, config, output)
    if not classes_fit(embedder, splits):
        raise CheckpointError(f"{embedder.place} was trained on other classes than those of this data set")
    return splits


@dataclass(frozen=True, kw_only=True)
class BatchReader:
    """Reads images as a model wants them.

    Attributes:
        embedder: says how its images are prepared, and which share of them may be broken.
        report: is told how far a pass is.
        batch_size: images of a batch.
        workers: processes that decode.
    """

    embedder: Embedder
    report: Reporter
    batch_size: int = 64
    workers: int = 0

    @property
    def checkpoint(self) -> Checkpoint:
        """Of a model of ours, the only kind that has widths to choose among."""
        assert self.embedder.checkpoint is not None
        return self.embedder.checkpoint

    def batches(self, stage: str, images: Images, transform: Transform | None = None) -> Iterator[Batch]:
        """The batches of one pass, told as a stage; `DataError` if too many images are broken.

        Args:
            stage: what is told.
            images: that are read.
            transform: how they are prepared, by default as the full width wants them.
        """
        transform = transform or self.embedder.transform_of(FULL)
        loader = make_loader(images, transform, self.batch_size, workers=self.workers)
        allowed = _settings(self.embedder).get("max_broken", DataConfig().max_broken)
        return self.report.watch(stage, loader, BrokenTally(len(images), allowed))
