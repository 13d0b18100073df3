"""What a training run would do, before it does it: `matmamba train --dry-run`. Nothing is written."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from rich.console import Group
from rich.table import Table
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..measures import count_macs, count_parameters
from ..measures.memory import MIB, measure_training_memory
from ..models import MatMamba
from ..training import OptimConfig, make_scheduler
from ..training.optimiser import warmup_steps

# Batches on which memory is measured, to be scaled: small ones, because the real one may not fit.
SMALL_BATCHES = (2, 4)


@dataclass(frozen=True)
class Plan:
    """What a run would work on.

    Attributes:
        model: its name. data: the data set's. images, held_out: how many. batch_size: images that a process
            computes at once. steps_per_epoch: steps of the optimiser. widths: their schedule, in words.
            processes: how many compute at the same time. accumulation: batches of a step.
    """

    model: str
    data: str
    images: int
    held_out: int
    batch_size: int
    steps_per_epoch: int
    widths: str
    processes: int = 1
    accumulation: int = 1


def describe(plan: Plan, config: OptimConfig, model: MatMamba, optimiser: torch.optim.Optimizer) -> Group:
    """Tables of the widths, the course and the memory of a run; `model` and `optimiser` stay as they are.

    Memory is that of one process, in the precision in which the model computes here and now: to describe a
    run under autocast, call this under it.

    Args:
        optimiser: as made for the run, see `make_optimiser`.
    """
    memory = _facts("memory of each process", _memory(plan, model, optimiser))
    return Group(_widths(model), _facts("run", _course(plan, config, model)), memory)


def _widths(model: MatMamba) -> Table:
    table = Table("width", "parameters", "MMACs per image", title="trained widths")
    for column in table.columns[1:]:
        column.justify = "right"
    for width in model.trained_widths:
        mmacs = count_macs(model, width) / 1e6
        table.add_row(model.label(width), f"{count_parameters(model, width):,}", f"{mmacs:,.1f}")
    return table


def _facts(title: str, facts: dict[str, str]) -> Table:
    table = Table(title=title, show_header=False)
    for name, value in facts.items():
        table.add_row(name, value)
    return table


def _course(plan: Plan, config: OptimConfig, model: MatMamba) -> dict[str, str]:
    images = f"{plan.images:,} images, {plan.held_out:,} held out, {model.num_classes} classes"
    steps = config.epochs * plan.steps_per_epoch
    of_step = plan.batch_size * plan.processes * plan.accumulation
    parts = f"{plan.processes} processes x {plan.accumulation} batches x {plan.batch_size}"
    size = " x ".join(map(str, (model.in_chans, *model.patch_embed.img_size)))
    return {
        "model": f"{plan.model}, images of {size}",
        "data": f"{plan.data}: {images}",
        "widths of a step": plan.widths,
        "images of a step": f"{of_step:,}" if of_step == plan.batch_size else f"{of_step:,} ({parts})",
        "steps": f"{config.epochs} epochs x {plan.steps_per_epoch:,} = {steps:,}",
        "optimiser": f"{config.opt}, weight decay {config.weight_decay:g}",
        "learning rate": _rates_in_words(config, plan.steps_per_epoch),
    }


def _rates_in_words(config: OptimConfig, steps_per_epoch: int) -> str:
    warmup, last = warmup_steps(config, steps_per_epoch), config.epochs * steps_per_epoch - 1
    first, peak, end = _rates(config, steps_per_epoch, (0, warmup, last))
    rise = f"from {first:.3g} to {peak:.3g} in {warmup:,} steps, then " if warmup else f"from {peak:.3g} "
    scale = (
        "" if config.layer_decay is None else f"; times {config.layer_decay:g} for each block further down"
    )
    return f"{rise}{config.sched} to {end:.3g} in the last step{scale}"


def _rates(config: OptimConfig, steps_per_epoch: int, steps: tuple[int, ...]) -> list[float]:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.lr)
    scheduler, found = make_scheduler(config, optimiser, steps_per_epoch), []
    for step in steps:
        scheduler.step_update(step)
        found.append(optimiser.param_groups[0]["lr"])
    return found


def _memory(plan: Plan, model: MatMamba, optimiser: torch.optim.Optimizer) -> dict[str, str]:
    trained = [tensor for group in optimiser.param_groups for tensor in group["params"]]
    weights = sum(tensor.nbytes for tensor in trained)
    state, activations = optimiser_bytes(optimiser), activation_bytes(model, plan.batch_size)
    measured = f"forward and backward of the full width, measured on {SMALL_BATCHES[0]} and"
    measured += f" {SMALL_BATCHES[1]} images, scaled to {plan.batch_size}"
    return {
        "weights": _mib(weights),
        "gradients": _mib(weights),
        "optimiser": f"{_mib(state)}, after a step of a copy",
        "activations": f"{_mib(activations)}: {measured}",
        "sum": _mib(2 * weights + state + activations),
    }


def optimiser_bytes(optimiser: torch.optim.Optimizer) -> int:
    """Bytes of what the optimiser keeps from step to step: that of a copy, after a step without gradients."""
    copied = copy.deepcopy(optimiser)
    for group in copied.param_groups:
        for tensor in group["params"]:
            tensor.grad = torch.zeros_like(tensor)
    copied.step()
    kept = tree_leaves(copied.state_dict()["state"])
    return sum(value.nbytes for value in kept if isinstance(value, Tensor))


def activation_bytes(model: MatMamba, batch_size: int) -> int:
    """Bytes of forward and backward beside weights and gradients: those of small batches, on a line.

    See `measure_training_memory`. The line goes through the sizes of two small batches.
    """
    few, more = SMALL_BATCHES
    less, most = (measure_training_memory(model, count) for count in SMALL_BATCHES)
    return round(most + (batch_size - more) * (most - less) / (more - few))


def _mib(size: int) -> str:
    return f"{size / MIB:,.1f} MiB" if size < 2**30 else f"{size / 2**30:,.2f} GiB"
