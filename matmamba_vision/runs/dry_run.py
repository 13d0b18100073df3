"""What a training run would do, before it does it. Nothing is written."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..measures import count_macs, count_parameters
from ..measures.memory import measure_training_memory
from ..models import MatMamba
from ..training import OptimConfig, make_scheduler
from ..training.optimiser import warmup_steps

# Batches on which memory is measured, to be scaled: small ones, because the real one may not fit.
SMALL_BATCHES = (2, 4)


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a run would work on.

    Attributes:
        model: its name.
        data: the data set's name and folder.
        images: how many to train on.
        held_out: how many to measure on.
        batch_size: images that a process computes at once.
        steps_per_epoch: steps of the optimiser.
        widths: their schedule, in words.
        processes: how many compute at the same time.
        accumulation: batches of a step.
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

    @property
    def images_per_step(self) -> int:
        """Images of a step of the optimiser, of all processes."""
        return self.batch_size * self.processes * self.accumulation


@dataclass(frozen=True, kw_only=True)
class WidthCost:
    """What a trained width costs.

    Attributes:
        width: its label.
        parameters: how many it has.
        macs: multiply-adds of one image.
    """

    width: str
    parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class RatesAhead:
    """The course of the learning rate.

    Attributes:
        first: rate of the first step.
        peak: the largest.
        last: rate of the last step.
        warmup_steps: steps from the first to the largest.
    """

    first: float
    peak: float
    last: float
    warmup_steps: int


@dataclass(frozen=True, kw_only=True)
class RunMemory:
    """Memory of each process, in bytes.

    Attributes:
        weights: of the model and the objective.
        optimiser: what it keeps from step to step.
        activations: forward and backward of the full width, for a whole batch.
    """

    weights: int
    optimiser: int
    activations: int

    @property
    def gradients(self) -> int:
        """As many as weights."""
        return self.weights

    @property
    def whole(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimiser + self.activations


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What a run would do.

    Attributes:
        work: what it would work on.
        image: channels, height and width of the model's images.
        classes: how many.
        widths: the trained widths and their cost, the largest first.
        optim: settings of the optimiser.
        rates: the learning rate.
        memory: of each process.
        output: folder of the run.
        start: where the run would begin, in words.
        process: number of the process that says this; each of a run makes the same plan.
    """

    work: Workload
    image: tuple[int, int, int]
    classes: int
    widths: tuple[WidthCost, ...]
    optim: OptimConfig
    rates: RatesAhead
    memory: RunMemory
    output: str = ""
    start: str = ""
    process: int = 0

    @property
    def steps(self) -> int:
        """Steps of the optimiser, of the whole run."""
        return self.optim.epochs * self.work.steps_per_epoch

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        memory = {**asdict(self.memory), "gradients": self.memory.gradients, "whole": self.memory.whole}
        return {**asdict(self), "image": list(self.image), "steps": self.steps, "memory": memory}


def describe_run(
    work: Workload,
    config: OptimConfig,
    model: MatMamba,
    optimiser: torch.optim.Optimizer,
    *,
    output: str = "",
    start: str = "",
    process: int = 0,
) -> TrainingPlan:
    """Widths, course and memory of a run; `model` and `optimiser` stay as they are.

    Memory is that of one process, in the precision in which the model computes here and now: to describe a
    run under autocast, call this under it.

    Args:
        work: what the run would work on.
        config: settings of the optimiser.
        model: to be trained.
        optimiser: as made for the run, see `make_optimiser`.
        output: folder of the run.
        start: where the run would begin, in words.
        process: number of this process.
    """
    height, width = model.patch_embed.img_size
    return TrainingPlan(
        work=work,
        image=(model.in_chans, height, width),
        classes=model.num_classes,
        widths=tuple(
            WidthCost(
                width=model.label(width),
                parameters=count_parameters(model, width),
                macs=count_macs(model, width),
            )
            for width in model.trained_widths
        ),
        optim=config,
        rates=_rates_ahead(config, work.steps_per_epoch),
        memory=measure_run_memory(work.batch_size, model, optimiser),
        output=output,
        start=start,
        process=process,
    )


def _rates_ahead(config: OptimConfig, steps_per_epoch: int) -> RatesAhead:
    warmup, last = warmup_steps(config, steps_per_epoch), config.epochs * steps_per_epoch - 1
    first, peak, end = _rates(config, steps_per_epoch, (0, warmup, last))
    return RatesAhead(first=first, peak=peak, last=end, warmup_steps=warmup)


def _rates(config: OptimConfig, steps_per_epoch: int, steps: tuple[int, ...]) -> list[float]:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.lr)
    scheduler, found = make_scheduler(config, optimiser, steps_per_epoch), []
    for step in steps:
        scheduler.step_update(step)
        found.append(optimiser.param_groups[0]["lr"])
    return found


def measure_run_memory(batch_size: int, model: MatMamba, optimiser: torch.optim.Optimizer) -> RunMemory:
    """Bytes that a process would need, measured on small batches."""
    trained = [tensor for group in optimiser.param_groups for tensor in group["params"]]
    return RunMemory(
        weights=sum(tensor.nbytes for tensor in trained),
        optimiser=optimiser_bytes(optimiser),
        activations=activation_bytes(model, batch_size),
    )


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
