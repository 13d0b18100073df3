"""Train a model at all its widths: on photos of one's own, by fine-tuning weights that come with the package.

Where no model is named (--model.name, --model.init), a folder, Parquet files or shards start from the weights
of matmamba_mini_patch16_128, with the settings of configs/own_photos/fine_tuning.yaml where nothing else is
given; --model.init "" starts from nothing, as all other data do.

Values come from flags, then from --config, then from the defaults shown here. The run's folder receives
model.safetensors (after each epoch), best.safetensors, config.yaml (the resolved configuration),
environment.json, metrics.jsonl and metrics.csv, a TensorBoard log, and checkpoints to resume from. Ctrl-C
ends the step, saves, and stops. Several processes: torchrun or accelerate launch, -m matmamba_vision train.

examples:
  matmamba train --data.name folder --data.root PHOTOS --output runs/photos
  matmamba train --data.name folder --data.root PHOTOS --output runs/longer --optim.epochs 20
  matmamba train --data.name folder --data.root PHOTOS --output runs/anew --model.name matmamba_nano_patch4_32
  matmamba train --config configs/digits/demo.yaml --optim.epochs 30
  matmamba train --config configs/digits/demo.yaml --dry-run
  matmamba train --config configs/cifar10/nano.yaml --data.root CIFAR10 --resume auto
  torchrun --nproc-per-node 8 -m matmamba_vision train --config configs/imagenet1k/small.yaml
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Group
from rich.table import Table

from ..config_file import load_into
from ..runs.starting_point import defaults_for
from ..runs.train_config import TrainConfig, check_config
from .arguments import config_named, parse
from .bars import Shown
from .console import Console

if TYPE_CHECKING:
    from ..runs import Run, RunMemory, TrainingPlan


@dataclass
class TrainFlags:
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

    def parsed(defaults: TrainConfig) -> TrainFlags:
        settings = load_into(TrainConfig, file, defaults) if file else defaults
        return parse(TrainFlags, "train", __doc__, arguments, TrainFlags(file, run=settings))

    args = parsed(TrainConfig())
    defaults = defaults_for(args.run, lambda others: parsed(others).run, args.resume)
    if defaults is not None:
        args = parsed(defaults)
    check_config(args.run)
    from ..runs import plan_training, train

    console = Console()
    with Shown(console) as listener:
        if args.dry_run:
            print_plan(console, plan_training(args.run, resume=args.resume, progress=listener))
        else:
            say_what_next(console, train(args.run, resume=args.resume, progress=listener))


def say_what_next(console: Console, run: Run) -> None:
    """Print where the checkpoint of a run is, and what it is for; once, however many processes it has."""
    if run.process:
        return
    console.print(f"checkpoint: {run.checkpoint}", soft_wrap=True)
    console.print(
        f"next: matmamba index --checkpoint {quote(str(run.folder))} --images FOLDER --gallery GALLERY",
        soft_wrap=True,
    )


def print_plan(console: Console, plan: TrainingPlan) -> None:
    """Print what a run would do; once, however many processes it has."""
    if plan.process:
        return
    console.print(plan_tables(plan))
    console.print(f"{plan.output}: {plan.start}", soft_wrap=True, highlight=False)


def plan_tables(plan: TrainingPlan) -> Group:
    """Tables of the widths, the course and the memory of a run."""
    memory = _facts("memory of each process", _memory(plan.memory, plan.work.batch_size))
    return Group(_widths(plan), _facts("run", _course(plan)), memory)


def _widths(plan: TrainingPlan) -> Table:
    table = Table("width", "parameters", "MMACs per image", title="trained widths")
    for column in table.columns[1:]:
        column.justify = "right"
    for cost in plan.widths:
        table.add_row(cost.width, f"{cost.parameters:,}", f"{cost.macs / 1e6:,.1f}")
    return table


def _facts(title: str, facts: dict[str, str]) -> Table:
    table = Table(title=title, show_header=False)
    for name, value in facts.items():
        table.add_row(name, value)
    return table


def _course(plan: TrainingPlan) -> dict[str, str]:
    work, optim = plan.work, plan.optim
    images = f"{work.images:,} images, {work.held_out:,} held out, {plan.classes} classes"
    of_step = work.images_per_step
    parts = f"{work.processes} processes x {work.accumulation} batches x {work.batch_size}"
    return {
        "model": f"{work.model}, images of {' x '.join(map(str, plan.image))}",
        "data": f"{work.data}: {images}",
        "widths of a step": work.widths,
        "images of a step": f"{of_step:,}" if of_step == work.batch_size else f"{of_step:,} ({parts})",
        "steps": f"{optim.epochs} epochs x {work.steps_per_epoch:,} = {plan.steps:,}",
        "optimiser": f"{optim.opt}, weight decay {optim.weight_decay:g}",
        "learning rate": _rates_in_words(plan),
    }


def _rates_in_words(plan: TrainingPlan) -> str:
    rates, decay = plan.rates, plan.optim.layer_decay
    rise = f"from {rates.peak:.3g} "
    if rates.warmup_steps:
        rise = f"from {rates.first:.3g} to {rates.peak:.3g} in {rates.warmup_steps:,} steps, then "
    scale = "" if decay is None else f"; times {decay:g} for each block further down"
    return f"{rise}{plan.optim.sched} to {rates.last:.3g} in the last step{scale}"


def _memory(memory: RunMemory, batch_size: int) -> dict[str, str]:
    from ..runs.dry_run import SMALL_BATCHES

    measured = f"forward and backward of the full width, measured on {SMALL_BATCHES[0]} and"
    measured += f" {SMALL_BATCHES[1]} images, scaled to {batch_size}"
    return {
        "weights": _mib(memory.weights),
        "gradients": _mib(memory.gradients),
        "optimiser": f"{_mib(memory.optimiser)}, after a step of a copy",
        "activations": f"{_mib(memory.activations)}: {measured}",
        "sum": _mib(memory.whole),
    }


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size < 2**30 else f"{size / 2**30:,.2f} GiB"
