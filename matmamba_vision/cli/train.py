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

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from accelerate import Accelerator
from matmamba_datasets import Splits, open_splits

from ..errors import ConfigError
from ..models import MatMamba
from ..training import (
    NestedObjective,
    Saves,
    build_model,
    compile_widths,
    make_accelerator,
    prepare_training,
)
from .arguments import parse
from .config import TrainConfig, check_config, load_config
from .console import Console
from .dry_run import Plan, describe
from .fitting import (
    Prepared,
    accelerator_of,
    config_named,
    make_loaders,
    prepare_torch,
    require_best,
    run_training,
    say_what_next,
    start_in_words,
)
from .progress import reporter
from .resume import find_checkpoint

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
    file = config_named(arguments)
    default = Args(file, run=load_config(file)) if file else Args()
    args = parse(Args, "train", __doc__, arguments, default)
    console = Console()
    if args.dry_run:
        plan(args.run, console, args.resume)
        return
    say_what_next(console, train(args.run, console, args.resume))


def train(config: TrainConfig, console: Console, resume: str = "no") -> Path:
    """Train a model and leave it in the run's folder, which is returned.

    Raises:
        ConfigError: unknown model, or a run is there already. DataError: data set missing or unreadable.
        ResumeError: the run there cannot be continued. OSError: something cannot be written.
    """
    check_config(config)
    output = Path(config.output)
    splits = open_splits(config.data)
    accelerator = accelerator_of(config)
    console.quiet = not accelerator.is_main_process
    reporter(console).left_out(splits.left_out)
    _warn_of_small_classes(splits, console)
    prepare = partial(_prepare, config, splits, accelerator, console)
    run_training(config, len(splits.held_out), prepare, accelerator, console, resume)
    return output


def plan(config: TrainConfig, console: Console, resume: str = "no") -> None:
    """Print what a run would do; nothing is written."""
    check_config(config)
    found = find_checkpoint(config, Saves(Path(config.output) / "checkpoints"), resume)
    splits = open_splits(config.data)
    accelerator = make_accelerator(config.engine, config.device)
    console.quiet = not accelerator.is_main_process
    reporter(console).left_out(splits.left_out)
    training, loaders = _prepare(config, splits, accelerator, console)
    model, optimiser = training.model, training.optimiser.optimizer  # type: ignore[attr-defined]
    facts = Plan(
        config.model.init or config.model.name,
        f"{config.data.name} {config.data.root}".strip(),
        len(splits.train),
        len(splits.held_out),
        config.data.batch_size,
        math.ceil(len(loaders[0]) / config.engine.accumulate),
        training.widths.schedule.in_words(model.label),
        training.ranks,
        config.engine.accumulate,
    )
    with accelerator.autocast():
        tables = describe(facts, config.optim, model, optimiser)
    if accelerator.is_main_process:
        console.print(tables)
        console.print(f"{config.output}: {start_in_words(found, config)}", soft_wrap=True, highlight=False)


def _prepare(config: TrainConfig, splits: Splits, accelerator: Accelerator, console: Console) -> Prepared:
    prepare_torch(config)
    model = build_model(config.model, len(splits.train.classes)).to(accelerator.device)
    objective = NestedObjective(config.objective, model.embedding_dim, model.num_classes)
    if config.compile:
        _compile(model, config.data.batch_size, console)
    loaders = make_loaders(config, model.input, splits, accelerator)
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
    require_best(config, model)
    return training, loaders


def _compile(model: MatMamba, batch_size: int, console: Console) -> None:
    try:
        for width, seconds in compile_widths(model.train(), batch_size):
            console.print(f"compiled width {width} in {seconds:.0f} s", highlight=False)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"compile: torch.compile cannot be used here: {reason}") from error


def _warn_of_small_classes(splits: Splits, console: Console) -> None:
    labels = np.concatenate([splits.train.labels, splits.held_out.labels])
    counts = np.bincount(labels, minlength=len(splits.train.classes))
    small = [
        f"{name} ({count})" for name, count in zip(splits.train.classes, counts, strict=True) if count < FEW
    ]
    if small:
        console.print(f"note: classes with few images mean little when measured: {', '.join(small)}")
