"""Train a model at all its widths.

Values come from flags, then from --config, then from the defaults shown here. The run's folder receives
model.safetensors (after each epoch), best.safetensors, config.yaml (the resolved configuration),
environment.json, metrics.jsonl and metrics.csv, a TensorBoard log, and checkpoints to resume from. Ctrl-C
ends the step, saves, and stops. Several processes: torchrun or accelerate launch, -m matmamba_vision train.

examples:
  matmamba train --data.name folder --data.root PHOTOS --output runs/photos
  matmamba train --config configs/digits/demo.yaml --optim.epochs 30
  matmamba train --config configs/digits/demo.yaml --dry-run
  matmamba train --config configs/cifar10/nano.yaml --data.root CIFAR10 --resume auto
  torchrun --nproc-per-node 8 -m matmamba_vision train --config configs/imagenet1k/small.yaml
"""

from __future__ import annotations

import argparse
import math
import random
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from matmamba_datasets import (
    BrokenTally,
    Loader,
    Splits,
    eval_transform,
    make_loader,
    open_splits,
    train_transform,
)

from ..checkpoint import checkpoint_file
from ..evaluate.accuracy import evaluate_widths
from ..models import MatMamba
from ..train import (
    NestedObjective,
    Position,
    RunFolder,
    Saves,
    Training,
    build_model,
    compile_widths,
    end_training,
    fit,
    make_accelerator,
    named_losses,
    prepare_training,
)
from .arguments import parse
from .config import ConfigError, TrainConfig, check_config, load_config
from .console import Console
from .device import limit_threads
from .dry_run import Plan, describe
from .progress import counted, meter, say_left_out
from .recorder import Recorder
from .resume import Found, find_checkpoint
from .trackers import trackers_of

# Below this many images, accuracy on a class says little.
FEW = 5


@dataclass
class Args:
    # YAML file that replaces defaults; flags replace its values.
    config: Path | None = None
    # auto: go on from the newest complete checkpoint in the output folder, or start; a checkpoint's folder:
    # go on from that; no: start, and refuse a folder with a run in it.
    resume: str = "no"
    # Say what would be done, with parameters, multiply-adds, memory and steps, and do nothing.
    dry_run: bool = False
    run: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)


def run(arguments: list[str]) -> None:
    """Train as the flags say."""
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--config", type=Path)
    file = before.parse_known_args(arguments)[0].config
    default = Args(file, run=load_config(file)) if file else Args()
    args = parse(Args, "train", __doc__, arguments, default)
    console = Console()
    if args.dry_run:
        plan(args.run, console, args.resume)
        return
    output = train(args.run, console, args.resume)
    console.print(f"checkpoint: {checkpoint_file(output)}", soft_wrap=True)
    console.print(
        f"next: matmamba index --checkpoint {quote(str(output))} --images FOLDER --gallery GALLERY",
        soft_wrap=True,
    )


def train(config: TrainConfig, console: Console, resume: str = "no") -> Path:
    """Train a model and leave it in the run's folder, which is returned.

    Raises:
        ConfigError: unknown model, or a run is there already. DataError: data set missing or unreadable.
        ResumeError: the run there cannot be continued. OSError: something cannot be written.
    """
    check_config(config)
    output, saves = Path(config.output), Saves(Path(config.output) / "checkpoints", config.save.keep)
    splits = open_splits(config.data)
    places = ProjectConfiguration(str(output), str(output / "tensorboard"))
    accelerator = make_accelerator(
        config.engine, config.device, log_with=trackers_of(config.trackers), project_config=places
    )
    console.quiet = not accelerator.is_main_process
    say_left_out(console, splits.left_out)
    _warn_of_small_classes(splits, console)
    with ExitStack() as stack:
        stack.enter_context(named_losses())
        folder = RunFolder(output) if accelerator.is_main_process else None
        if folder:
            stack.callback(folder.release)
        found = find_checkpoint(config, saves, resume)
        console.print(_start_in_words(found, config), soft_wrap=True, highlight=False)
        training, loaders = _prepare(config, splits, accelerator, console)
        measure = _measure(training, loaders[1], config)
        recorder = Recorder(
            config, training, loaders[0], len(splits.held_out), measure, folder, saves, console
        )
        position = recorder.restore(*found) if found else Position()
        _run(recorder, position, stack)
    return output


def _start_in_words(found: Found | None, config: TrainConfig) -> str:
    if found is None:
        return "from the start"
    position = found[1]["position"]
    if more := config.optim.epochs - found[1]["config"]["optim"]["epochs"]:
        return (
            f"going on from {found[0]} for {more} epochs more than before, at the same learning rate:"
            f" epoch {position['epoch'] + 1}, {position['step']} steps taken"
        )
    if found[1]["trained"]:
        return f"{found[0]} is the end of the training: only measured once more"
    return f"going on from {found[0]}: epoch {position['epoch'] + 1}, {position['step']} steps taken"


def plan(config: TrainConfig, console: Console, resume: str = "no") -> None:
    """Print what a run would do; nothing is written."""
    check_config(config)
    found = find_checkpoint(config, Saves(Path(config.output) / "checkpoints"), resume)
    splits = open_splits(config.data)
    accelerator = make_accelerator(config.engine, config.device)
    console.quiet = not accelerator.is_main_process
    say_left_out(console, splits.left_out)
    training, loaders = _prepare(config, splits, accelerator, console)
    model, optimiser = training.model, training.optimiser.optimizer  # type: ignore[attr-defined]
    facts = Plan(
        config.model.init or config.model.name,
        f"{config.data.name} {config.data.root}".strip(),
        len(splits.train),
        len(splits.held_out),
        config.data.batch_size,
        math.ceil(len(loaders[0]) / config.engine.accumulate),
        training.schedule.in_words(model.label),
        training.ranks,
        config.engine.accumulate,
    )
    with accelerator.autocast():
        tables = describe(facts, config.optim, model, optimiser)
    if accelerator.is_main_process:
        console.print(tables)
        console.print(f"{config.output}: {_start_in_words(found, config)}", soft_wrap=True, highlight=False)


def _run(recorder: Recorder, position: Position, stack: ExitStack) -> None:
    """Train from a position on, with a bar, until the end or until asked to stop."""
    training, config, loader = recorder.training, recorder.config, recorder.loader
    images = len(loader.images)
    stack.callback(end_training, training.accelerator)
    stack.callback(recorder.summarise)
    stack.enter_context(recorder.stop)
    bar = stack.enter_context(meter(recorder.console, "training", config.optim.epochs * images))
    bar.skip(position.epoch * images + position.batch * config.data.batch_size * training.ranks)
    recorder.bar = bar
    fit(training, loader, recorder, position)


def _prepare(
    config: TrainConfig, splits: Splits, accelerator: Accelerator, console: Console
) -> tuple[Training, tuple[Loader, Loader]]:
    _prepare_torch(config)
    model = build_model(config.model, len(splits.train.classes)).to(accelerator.device)
    objective = NestedObjective(config.objective, model.embed_dim, model.num_classes)
    if config.compile:
        _compile(model, config.data.batch_size, console)
    loaders = _loaders(config, model, splits, accelerator)
    training = prepare_training(
        model,
        objective,
        config.optim,
        len(loaders[0]),
        schedule=config.schedule,
        mix=config.mix,
        engine=config.engine,
        accelerator=accelerator,
        seed=config.seed,
    )
    labels = [model.label(width) for width in model.trained_widths]
    if config.save.best not in ("mean", *labels):
        raise ConfigError(f"save.best {config.save.best!r} is neither mean nor one of {', '.join(labels)}")
    return training, loaders


def _measure(training: Training, loader: Loader, config: TrainConfig) -> Any:
    """A function from a model to its top-1 by width on the held-out images."""
    tally = BrokenTally(len(loader.images), config.data.max_broken, "--data.max-broken")

    def measured(model: MatMamba) -> dict[str, float]:
        if not len(loader.images):
            return {}
        widths = training.model.trained_widths
        # Measured now and then: not worth graphs of its own.
        with torch.compiler.set_stance("force_eager"):
            return evaluate_widths(model, counted(loader, tally), widths)

    return measured


def _compile(model: MatMamba, batch_size: int, console: Console) -> None:
    try:
        for width, seconds in compile_widths(model.train(), batch_size):
            console.print(f"compiled width {width} in {seconds:.0f} s", highlight=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"compile: torch.compile cannot be used here: {reason}") from error


def _loaders(
    config: TrainConfig, model: MatMamba, splits: Splits, accelerator: Accelerator
) -> tuple[Loader, Loader]:
    data = config.data
    known: dict[str, Any] = {"workers": data.workers}
    known |= {"rank": accelerator.process_index, "ranks": accelerator.num_processes}
    try:
        augmented, plain = train_transform(model.input, data.augment), eval_transform(model.input)
    except AssertionError as error:
        # timm's way of refusing a policy.
        raise ConfigError(f"data.augment.auto_augment {data.augment.auto_augment!r}: {error}") from error
    return (
        make_loader(splits.train, augmented, data.batch_size, shuffle=True, seed=config.seed, **known),
        make_loader(splits.held_out, plain, data.batch_size, **known),
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
