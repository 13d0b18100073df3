"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sized
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..batch import LabelledBatch
from ..models import MatMamba
from .config import OptimConfig
from .objective import NestedObjective
from .optimiser import make_scheduler


class Batches(Iterable[LabelledBatch], Sized, Protocol):
    """A loader that knows its length and can be iterated once for each epoch."""


@dataclass(frozen=True)
class StepReport:
    """What happened in one step.

    Attributes:
        step: number of the step, from 0. epoch: number of the epoch, from 0. images: in the batch. lr:
            learning rate. losses: weighted terms by name, mean over widths, and "loss", their sum.
    """

    step: int
    epoch: int
    images: int
    lr: float
    losses: dict[str, float]


class Hooks:
    """What a caller wants to be told; override what is needed."""

    def on_batch(self, batch: LabelledBatch) -> None:
        """A batch was read and is about to be used."""

    def on_step(self, report: StepReport) -> None:
        """A step was taken."""

    def on_epoch(self, epoch: int) -> None:
        """An epoch, numbered from 0, is over; the model may be used, its mode is set again afterwards."""


def fit(
    model: MatMamba,
    objective: NestedObjective,
    loader: Batches,
    optimiser: torch.optim.Optimizer,
    config: OptimConfig,
    hooks: Hooks,
) -> None:
    """Train `model` at all its trained widths, in place, on the device where it is.

    Args:
        optimiser: over the parameters of both, see `make_optimiser`.

    Raises:
        FloatingPointError: the loss is not finite; the message names step and width.
    """
    scheduler = make_scheduler(config, optimiser, len(loader))
    step = 0
    for epoch in range(config.epochs):
        model.train()
        for batch in loader:
            hooks.on_batch(batch)
            scheduler.step_update(step)
            if len(batch):
                losses = _step(model, objective, optimiser, batch, config.clip_grad, step)
                hooks.on_step(StepReport(step, epoch, len(batch), optimiser.param_groups[0]["lr"], losses))
            step += 1
        hooks.on_epoch(epoch)


def _step(
    model: MatMamba,
    objective: NestedObjective,
    optimiser: torch.optim.Optimizer,
    batch: LabelledBatch,
    clip_grad: float,
    step: int,
) -> dict[str, float]:
    device = model.pos_embed.device
    optimiser.zero_grad()
    losses = accumulate(model, objective, batch.images.to(device), batch.labels.to(device), step)
    if clip_grad:
        parameters = [*model.parameters(), *objective.parameters()]
        torch.nn.utils.clip_grad_norm_(parameters, clip_grad)
    optimiser.step()
    return losses


def accumulate(
    model: MatMamba, objective: NestedObjective, images: Tensor, labels: Tensor, step: int = 0
) -> dict[str, float]:
    """Forward and backward of each trained width at once, largest first: gradients of the mean over widths.

    Returns:
        The terms by name, mean over widths, and their sum "loss".

    Raises:
        FloatingPointError: the loss of a width is not finite.
    """
    teacher, totals, count = None, dict[str, float](), len(model.trained_widths)
    for width in model.trained_widths:
        terms, teacher = objective(model, images, labels, width, teacher)
        loss = torch.stack(list(terms.values())).sum() / count
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"loss is {loss.item()} at step {step}, width {model.label(width)}")
        loss.backward()
        for name, term in (*terms.items(), ("loss", loss * count)):
            totals[name] = totals.get(name, 0.0) + term.item() / count
    return totals
