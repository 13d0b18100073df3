"""Train a model at all its widths.

Values come from flags, then from --config, then from the defaults shown here. The run's folder receives
model.safetensors (after each epoch), config.yaml (the resolved configuration), environment.json and
metrics.jsonl.

examples:
  matmamba train --data.name folder --data.root PHOTOS --output runs/photos
  matmamba train --config configs/digits/demo.yaml --optim.epochs 30
  matmamba train --data.name parquet --data.root cifar10 --data.batch-size 128
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import timm
import torch
import tyro
from matmamba_datasets import (
    BrokenTally,
    DataError,
    Loader,
    Splits,
    eval_transform,
    make_loader,
    open_splits,
    train_transform,
)
from rich.console import Console

from ..batch import LabelledBatch
from ..checkpoint import checkpoint_file, save_checkpoint
from ..evaluate import predict
from ..evaluate.environment import environment
from ..layers import Mixer
from ..models import MatMamba
from ..ops import resolve_for
from ..train import (
    Hooks,
    ModelConfig,
    NestedObjective,
    StepReport,
    compile_widths,
    fit,
    make_optimiser,
)
from .arguments import parse
from .config import ConfigError, TrainConfig, as_plain, check_config, load_config, save_config
from .device import limit_threads, resolve_device
from .progress import Meter, counted, meter

# Below this many images, accuracy on a class says little.
FEW = 5


@dataclass
class Args:
    # YAML file that replaces defaults; flags replace its values.
    config: Path | None = None
    run: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


def run(arguments: list[str]) -> None:
    """Train as the flags say."""
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--config", type=Path)
    file = before.parse_known_args(arguments)[0].config
    default = Args(file, load_config(file)) if file else Args()
    console = Console()
    config = parse(Args, "train", __doc__, arguments, default).run
    output = train(config, console)
    console.print(f"checkpoint: {checkpoint_file(output)}", soft_wrap=True)
    console.print(
        f"next: matmamba index --checkpoint {output} --images FOLDER --gallery GALLERY", soft_wrap=True
    )


def train(config: TrainConfig, console: Console) -> Path:
    """Train a model and leave it in the run's folder, which is returned.

    Raises:
        ConfigError: unknown model, or a run is there already. DataError: data set missing or unreadable.
    """
    output = Path(config.output)
    if checkpoint_file(output).exists() and not config.overwrite:
        raise ConfigError(
            f"{output} holds a finished or interrupted run: choose another --output, or --overwrite"
        )
    check_config(config)
    splits = open_splits(config.data)
    _warn_of_small_classes(splits, console)
    _prepare_torch(config)
    model = build_model(config.model, len(splits.train.classes)).to(resolve_device(config.device))
    objective = NestedObjective(config.objective, model.embed_dim, model.num_classes).to(
        resolve_device(config.device)
    )
    optimiser = make_optimiser(config.optim, model, objective)
    if config.compile:
        _compile(model, config.data.batch_size, console)
    recorder = _Recorder(config, model, splits, console)
    with meter(console, "training", config.optim.epochs * len(recorder.train_loader.images)) as bar:
        recorder.bar = bar
        try:
            fit(model, objective, recorder.train_loader, optimiser, config.optim, recorder)
        finally:
            recorder.summarise()
    return output


def build_model(config: ModelConfig, classes: int) -> MatMamba:
    """A fresh model of a registered variant; `ConfigError` if there is none of that name or like that."""
    known = timm.list_models(module="registry")
    if config.name not in known:
        raise ConfigError(f"model {config.name!r} is none with nested widths: take one of {', '.join(known)}")
    arguments: dict[str, Any] = {name: value for name, value in asdict(config).items() if value is not None}
    arguments |= {"num_classes": classes, "model_name": arguments.pop("name")}
    if config.img_size:
        arguments["pretrained_cfg_overlay"] = {"input_size": (3, config.img_size, config.img_size)}
    try:
        model = timm.create_model(**arguments)
    except TypeError as error:
        raise ConfigError(f"model: {error}") from error
    assert isinstance(model, MatMamba)
    return model


def _compile(model: MatMamba, batch_size: int, console: Console) -> None:
    try:
        for width, seconds in compile_widths(model.train(), batch_size):
            console.print(f"compiled width {width} in {seconds:.0f} s", highlight=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"compile: torch.compile cannot be used here: {reason}") from error


class _Recorder(Hooks):
    """Feeds the loop and writes down what it reports: checkpoint, metrics, progress."""

    bar: Meter

    def __init__(self, config: TrainConfig, model: MatMamba, splits: Splits, console: Console) -> None:
        self.config, self.model, self.console = config, model, console
        self.output, self.classes = Path(config.output), splits.train.classes
        self.train_loader, self.eval_loader = _loaders(config, model, splits)
        self.tally = BrokenTally(len(splits.train), config.data.max_broken, "--data.max-broken")
        self.eval_tally = BrokenTally(len(splits.held_out), config.data.max_broken, "--data.max-broken")
        self.losses: list[dict[str, float]] = []
        self.started = time.monotonic()
        self.saved_epochs = 0

    def on_batch(self, batch: LabelledBatch) -> None:
        self.tally.add(batch.broken)  # type: ignore[attr-defined]

    def on_step(self, report: StepReport) -> None:
        self.losses.append(report.losses)
        self.bar.advance(report.images, f"epoch {report.epoch + 1} loss {report.losses['loss']:.3f}")

    def on_epoch(self, epoch: int) -> None:
        """Save first, then measure: a failing measurement loses no training."""
        if not self.losses:
            raise DataError(f"{self.config.data.root}: no training image can be read\n{self.tally.listing()}")
        if epoch == 0:
            self._start_folder()
        save_checkpoint(self.output, self.model, self.classes, as_plain(self.config))
        self.saved_epochs = epoch + 1
        row: dict[str, Any] = {"epoch": epoch + 1, "seconds": round(time.monotonic() - self.started, 1)}
        row |= {name: np.mean([losses[name] for losses in self.losses]).item() for name in self.losses[-1]}
        self.losses.clear()
        last = epoch + 1 == self.config.optim.epochs
        if last or (epoch + 1) % self.config.eval_every == 0:
            row["top1"] = self._accuracy()
        with (self.output / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        self._print(row)

    def _accuracy(self) -> dict[str, float]:
        widths = self.model.trained_widths
        batches = counted(self.eval_loader, self.eval_tally)
        # Measured now and then: not worth graphs of its own.
        with torch.compiler.set_stance("force_eager"):
            predictions = predict(self.model, batches, widths)
        return {self.model.label(width): found.top1 for width, found in zip(widths, predictions, strict=True)}

    def _print(self, row: dict[str, Any]) -> None:
        accuracy = "  ".join(f"{width} {top1:.3f}" for width, top1 in row.get("top1", {}).items())
        done, epochs, seconds = row["epoch"], self.config.optim.epochs, row["seconds"]
        rate = done * len(self.train_loader.images) / max(seconds, 1e-9)
        left = timedelta(seconds=round(seconds / done * (epochs - done)))
        self.console.print(
            f"epoch {done}/{epochs}  {rate:,.0f} images/s  {left} left  loss {row['loss']:.3f}"
            + (f"  held-out top-1: {accuracy}" if accuracy else ""),
            soft_wrap=True,
            highlight=False,
        )

    def _start_folder(self) -> None:
        """The run's other files, made with its first checkpoint, so that a failed start leaves nothing."""
        self.output.mkdir(parents=True, exist_ok=True)
        save_config(self.config, self.output / "config.yaml")
        known = {**environment(), "scan_backend": _scan_backend(self.model)}
        (self.output / "environment.json").write_text(json.dumps(known, indent=2))
        (self.output / "metrics.jsonl").write_text("")

    def summarise(self) -> None:
        """Say what is there if the run was cut short, and list the images that were left out."""
        epochs = self.config.optim.epochs
        if self.saved_epochs < epochs:
            kept = f"{checkpoint_file(self.output)} is that of epoch {self.saved_epochs} of {epochs}"
            self.console.print(kept if self.saved_epochs else "nothing was saved yet", soft_wrap=True)
        broken = BrokenTally(0, 1.0, found=self.tally.found | self.eval_tally.found)
        if broken.found:
            self.console.print(
                f"{len(broken.found)} unreadable files were left out:\n{broken.listing()}", markup=False
            )


def _scan_backend(model: MatMamba) -> str:
    """What computes the scans; "" where there are none."""
    mixers = (block.mixer for block in model.stack if isinstance(block.mixer, Mixer))
    first = next(mixers, None)
    if first is None:
        return ""
    return resolve_for(model.ssd_backend, model.pos_embed, first.norm.shape[1], first.state_dim).name


def _loaders(config: TrainConfig, model: MatMamba, splits: Splits) -> tuple[Loader, Loader]:
    data = config.data
    try:
        augmented, plain = train_transform(model.input, data.augment), eval_transform(model.input)
    except AssertionError as error:
        # timm's way of refusing a policy.
        raise ConfigError(f"data.augment.auto_augment {data.augment.auto_augment!r}: {error}") from error
    return (
        make_loader(
            splits.train, augmented, data.batch_size, workers=data.workers, shuffle=True, seed=config.seed
        ),
        make_loader(splits.held_out, plain, data.batch_size, workers=data.workers),
    )


def _warn_of_small_classes(splits: Splits, console: Console) -> None:
    labels = np.concatenate([splits.train.labels, splits.held_out.labels])
    counts = np.bincount(labels, minlength=len(splits.train.classes))
    small = [
        f"{name} ({count})" for name, count in zip(splits.train.classes, counts, strict=True) if count < FEW
    ]
    if small:
        console.print(f"note: classes with few images mean little when measured: {', '.join(small)}")


def _prepare_torch(config: TrainConfig) -> None:
    random.seed(config.seed)
    np.random.seed(config.seed)  # noqa: NPY002  timm's augmentation draws from it
    torch.manual_seed(config.seed)
    limit_threads(config.threads)
