"""Images in memory, and rows of small models that are trained on them alike: what some benchmarks share."""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matmamba_datasets import DataConfig, Images, open_splits, read_image
from matmamba_vision import MatMamba, keep_freed_memory
from matmamba_vision.measures.environment import environment
from matmamba_vision.training import (
    DEVICES,
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
from matmamba_vision.widths.quality_and_cost import measure_widths
from measuring import write_json
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

GALLERY = 10_000
OPTIM = OptimConfig(lr=3e-3, weight_decay=0.05, epochs=3, warmup_epochs=0.3)


@dataclass(frozen=True)
class Setting:
    """How all rows of a table are trained; `shift` is in pixels. The defaults are CIFAR-10's."""

    optim: OptimConfig = field(default_factory=lambda: OPTIM)
    batch: int = 128
    shift: int = 4
    precision: str = "fp32"


@dataclass(frozen=True)
class Row:
    """What is trained: arguments of the model, its trained widths, and the objective."""

    model: Mapping[str, Any]
    widths: tuple[str, ...] = ("full", "1/2", "1/4", "1/8")
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)


@dataclass(frozen=True)
class Batch:
    """Images (B, 3, S, S) and class indices (B,)."""

    images: Tensor
    labels: Tensor

    @property
    def ids(self) -> list[str]:
        """They have no names."""
        return []

    def __len__(self) -> int:
        return len(self.labels)


class Batches:
    """Normalised images in batches; shuffled, mirrored and shifted by some pixels where there is a seed.

    Args:
        pixels: (n, 3, S, S) uint8, on the device where they are wanted. labels: (n,).
    """

    def __init__(self, pixels: Tensor, labels: Tensor, setting: Setting, seed: int | None = None) -> None:
        self.pixels, self.labels, self.images, self.setting = pixels, labels, pixels, setting
        self.seed, self.chance = seed, None if seed is None else torch.Generator()

    def __len__(self) -> int:
        return -(-len(self.labels) // self.setting.batch)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches(0)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, which always begins at its first: rows that were stopped begin anew."""
        assert not first
        if self.chance is not None:
            self.chance.manual_seed(1000 * (self.seed or 0) + epoch)
        count = len(self.labels)
        order = torch.arange(count) if self.chance is None else torch.randperm(count, generator=self.chance)
        for chosen in order.to(self.pixels.device).split(self.setting.batch):
            images = self.pixels[chosen].float().div_(127.5).sub_(1)
            yield Batch(images if self.chance is None else self._augment(images), self.labels[chosen])

    def _augment(self, images: Tensor) -> Tensor:
        (count, _, size, _), most = images.shape, self.setting.shift
        mirrored = (torch.rand(count, generator=self.chance) < 0.5).to(images.device)
        images[mirrored] = images[mirrored].flip(-1)
        shifts = torch.randint(2 * most + 1, (count, 2), generator=self.chance)
        rows_NS, columns_NS = (shifts[:, axis, None] + torch.arange(size) for axis in range(2))
        number_N11, channel_C11 = torch.arange(count)[:, None, None, None], torch.arange(3)[:, None, None]
        places = (number_N11, channel_C11, rows_NS[:, None, :, None], columns_NS[:, None, None, :])
        return F.pad(images, (most,) * 4)[tuple(place.to(images.device) for place in places)]


def pixels_of(images: Images, file: Path) -> tuple[Tensor, Tensor]:
    """All images (n, 3, S, S) uint8 with their labels (n,), decoded once and kept in `file`."""
    if not file.is_file():
        stored = [images.stored(index) for index in range(len(images))]
        with ThreadPoolExecutor() as pool:
            decoded = np.stack([*pool.map(_decoded, stored)])
        partial = file.with_suffix(".partial.npy")
        np.save(partial, decoded.transpose(0, 3, 1, 2))
        partial.replace(file)
    return torch.from_numpy(np.load(file)), torch.from_numpy(images.labels)


def _decoded(stored: bytes | Image.Image) -> NDArray[np.uint8]:
    return np.asarray(read_image(io.BytesIO(stored)) if isinstance(stored, bytes) else stored)


def load_images(data: Path, runs: Path, device: torch.device | str = "cpu") -> list[tuple[Tensor, Tensor]]:
    """Pixels and labels of the training and of the held-out images, kept in `runs`, on a device."""
    splits = open_splits(DataConfig(name="parquet", root=str(data)))
    parts = ((splits.train, "train"), (splits.held_out, "test"))
    decoded = [pixels_of(images, runs / f"{part}.npy") for images, part in parts]
    return [(pixels.to(device), labels.to(device)) for pixels, labels in decoded]


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


def train_row(name: str, row: Row, seed: int, setting: Setting, options: argparse.Namespace) -> Path:
    """Train and measure one row, unless it was done before; the file of its result."""
    epochs, runs = options.epochs, options.runs
    file = runs / f"{name.replace(' ', '_').replace('/', '-')}-seed{seed}-epochs{epochs}.json"
    if file.is_file():
        return file
    torch.set_num_threads(1)
    keep_freed_memory()
    accelerator = make_accelerator(EngineConfig(precision=setting.precision), options.device)
    train, held_out = load_images(options.data, runs, accelerator.device)
    start = time.monotonic()
    torch.manual_seed(seed)
    model = MatMamba(**row.model, trained_widths=row.widths)
    objective = NestedObjective(row.objective, model.embed_dim, model.num_classes)
    loader, optim = Batches(*train, setting, seed), replace(setting.optim, epochs=epochs)
    report = Report(f"{name}, seed {seed}", epochs * len(loader))
    training = prepare_training(model, objective, optim, len(loader), accelerator=accelerator, seed=seed)
    fit(training, loader, report)
    seconds = time.monotonic() - start
    gallery = Batches(train[0][:GALLERY], train[1][:GALLERY], setting)
    widths = measure_widths(model, model.trained_widths, gallery, Batches(*held_out, setting))
    known = {"name": name, "seed": seed, "seconds": round(seconds), "commit": environment()["commit"]}
    write_json(file, {**known, "device": device_name(accelerator.device), "widths": widths})
    return file


def device_name(device: torch.device) -> str:
    """The kind of device, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def collect(runs: Path, names: Sequence[str], epochs: int) -> list[dict[str, Any]]:
    """Results of all finished rows, in the order of the names."""
    found = [json.loads(file.read_text()) for file in runs.glob(f"*-epochs{epochs}.json")]
    found = [row for row in found if row["name"] in names]
    # Each row was trained by the commit that it names, if it does.
    return sorted(found, key=lambda row: ([*names].index(row["name"]), row["seed"]))


def train_rows(
    rows: Mapping[str, Row], wanted: Sequence[tuple[str, int]], setting: Setting, options: argparse.Namespace
) -> None:
    """Train the rows (name, seed) that are wanted, some at once."""
    options.runs.mkdir(parents=True, exist_ok=True)
    # Decoded here, so that two rows do not do it at once.
    load_images(options.data, options.runs)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(train_row, name, rows[name], seed, setting, options) for name, seed in wanted]
        for job in jobs:
            print(job.result(), flush=True)


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Flags that these benchmarks share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of Parquet files")
    parser.add_argument("--runs", type=Path, help="finished rows are kept here")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--jobs", type=int, default=1, help="rows trained at once, on one thread each")
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    parser.add_argument("--table", action="store_true", help="only write the table of what is done")
    return parser


def parse_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What the command line says; data there must be, unless only the table is wanted."""
    options = parser.parse_args()
    if not options.table and options.data is None:
        parser.error("--data is missing: where are the Parquet files?")
    return options


def mean_and_spread(shares: Sequence[float]) -> str:
    """Per cent: the mean, and of several their standard deviation."""
    spread = f" ± {100 * np.std(shares, ddof=1):.1f}" if len(shares) > 1 else ""
    return f"{100 * np.mean(shares):.1f}{spread}"
