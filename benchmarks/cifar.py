"""CIFAR-10 in memory, and rows of small models that are trained on it alike: what some benchmarks share."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matmamba_datasets import DataConfig, Images, open_splits
from matmamba_vision import MatMamba, keep_freed_memory
from matmamba_vision.cli.measure import measure_widths
from matmamba_vision.evaluate.environment import environment
from matmamba_vision.train import (
    EngineConfig,
    Hooks,
    NestedObjective,
    ObjectiveConfig,
    OptimConfig,
    Position,
    StepReport,
    fit,
    make_accelerator,
    prepare_training,
)
from measuring import write_json
from torch import Tensor
from torch.nn import functional as F

BATCH, GALLERY = 128, 10_000
OPTIM = OptimConfig(lr=3e-3, weight_decay=0.05, epochs=3, warmup_epochs=0.3)


@dataclass(frozen=True)
class Row:
    """What is trained: arguments of the model, its trained widths, and the objective."""

    model: Mapping[str, Any]
    widths: tuple[str, ...] = ("full", "1/2", "1/4", "1/8")
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)


@dataclass(frozen=True)
class Batch:
    """Images (B, 3, 32, 32) and class indices (B,)."""

    images: Tensor
    labels: Tensor

    @property
    def ids(self) -> list[str]:
        """They have no names."""
        return []

    def __len__(self) -> int:
        return len(self.labels)


class Batches:
    """Normalised images in batches; shuffled, mirrored and shifted by up to 4 pixels where there is a seed.

    Args:
        pixels: (n, 3, S, S) uint8. labels: (n,).
    """

    def __init__(self, pixels: Tensor, labels: Tensor, seed: int | None = None) -> None:
        self.pixels, self.labels, self.images = pixels, labels, pixels
        self.seed, self.chance = seed, None if seed is None else torch.Generator()

    def __len__(self) -> int:
        return -(-len(self.labels) // BATCH)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches(0)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, which always begins at its first: rows that were stopped begin anew."""
        assert not first
        if self.chance is not None:
            self.chance.manual_seed(1000 * (self.seed or 0) + epoch)
        count = len(self.labels)
        order = torch.arange(count) if self.chance is None else torch.randperm(count, generator=self.chance)
        for chosen in order.split(BATCH):
            images = self.pixels[chosen].float().div_(127.5).sub_(1)
            yield Batch(images if self.chance is None else self._augment(images), self.labels[chosen])

    def _augment(self, images: Tensor) -> Tensor:
        count, _, size, _ = images.shape
        mirrored = torch.rand(count, generator=self.chance) < 0.5
        images[mirrored] = images[mirrored].flip(-1)
        shifts = torch.randint(9, (count, 2), generator=self.chance)
        padded = F.pad(images, (4, 4, 4, 4))
        parts = zip(padded, shifts.tolist(), strict=True)
        return torch.stack([image[:, y : y + size, x : x + size] for image, (y, x) in parts])


def pixels_of(images: Images, file: Path) -> tuple[Tensor, Tensor]:
    """All images (n, 3, S, S) uint8 with their labels (n,), decoded once and kept in `file`."""
    if not file.is_file():
        decoded = np.stack([np.asarray(images[index].image) for index in range(len(images))])
        partial = file.with_suffix(".partial.npy")
        np.save(partial, decoded.transpose(0, 3, 1, 2))
        partial.replace(file)
    return torch.from_numpy(np.load(file)), torch.from_numpy(images.labels)


def load_cifar(data: Path, runs: Path) -> list[tuple[Tensor, Tensor]]:
    """Pixels and labels of the training and of the test images, kept in `runs`."""
    splits = open_splits(DataConfig(name="parquet", root=str(data)))
    parts = ((splits.train, "train"), (splits.held_out, "test"))
    return [pixels_of(images, runs / f"{part}.npy") for images, part in parts]


class Report(Hooks):
    """Prints how far a row is."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps, self.started = name, steps, time.monotonic()

    def on_step(self, report: StepReport, position: Position) -> None:
        """Every hundredth step."""
        done = position.step
        if done % 100 == 0:
            seconds = time.monotonic() - self.started
            left = seconds / done * (self.steps - done)
            line = f"{self.name}: step {done}/{self.steps}, loss {report.loss:.3f}, {left:.0f} s left"
            print(line, flush=True)


def train_row(name: str, row: Row, seed: int, epochs: int, runs: Path, data: Path) -> Path:
    """Train and measure one row, unless it was done before; the file of its result."""
    file = runs / f"{name.replace(' ', '_').replace('/', '-')}-seed{seed}-epochs{epochs}.json"
    if file.is_file():
        return file
    torch.set_num_threads(1)
    keep_freed_memory()
    train, held_out = load_cifar(data, runs)
    start = time.monotonic()
    torch.manual_seed(seed)
    model = MatMamba(**row.model, trained_widths=row.widths)
    objective = NestedObjective(row.objective, model.embed_dim, model.num_classes)
    loader, optim = Batches(*train, seed), replace(OPTIM, epochs=epochs)
    report = Report(f"{name}, seed {seed}", epochs * len(loader))
    accelerator = make_accelerator(EngineConfig(), "cpu")
    training = prepare_training(model, objective, optim, len(loader), accelerator=accelerator, seed=seed)
    fit(training, loader, report)
    seconds = time.monotonic() - start
    gallery = Batches(train[0][:GALLERY], train[1][:GALLERY])
    widths = measure_widths(model, model.trained_widths, gallery, Batches(*held_out))
    known = {"name": name, "seed": seed, "seconds": round(seconds), "commit": environment()["commit"]}
    write_json(file, {**known, "widths": widths})
    return file


def collect(runs: Path, names: Sequence[str], epochs: int) -> list[dict[str, Any]]:
    """Results of all finished rows, in the order of the names."""
    found = [json.loads(file.read_text()) for file in runs.glob(f"*-epochs{epochs}.json")]
    found = [row for row in found if row["name"] in names]
    # Each row was trained by the commit that it names, if it does.
    return sorted(found, key=lambda row: ([*names].index(row["name"]), row["seed"]))


def train_rows(
    rows: Mapping[str, Row], wanted: Sequence[tuple[str, int]], options: argparse.Namespace
) -> None:
    """Train the rows (name, seed) that are wanted, some at once."""
    options.runs.mkdir(parents=True, exist_ok=True)
    # Decoded here, so that two rows do not do it at once.
    load_cifar(options.data, options.runs)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(train_row, name, rows[name], seed, options.epochs, options.runs, options.data)
            for name, seed in wanted
        ]
        for job in jobs:
            print(job.result(), flush=True)


def parse_options(description: str | None, runs: Path, epochs: int) -> argparse.Namespace:
    """Flags that these benchmarks share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10 in Parquet files")
    parser.add_argument("--runs", type=Path, default=runs, help="finished rows are kept here")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--jobs", type=int, default=1, help="rows trained at once, on one thread each")
    parser.add_argument("--table", action="store_true", help="only write the table of what is done")
    options = parser.parse_args()
    if not options.table and options.data is None:
        parser.error("--data is missing: where are the Parquet files of CIFAR-10?")
    return options


def mean_and_spread(shares: Sequence[float]) -> str:
    """Per cent: the mean, and of several their standard deviation."""
    spread = f" ± {100 * np.std(shares, ddof=1):.1f}" if len(shares) > 1 else ""
    return f"{100 * np.mean(shares):.1f}{spread}"
