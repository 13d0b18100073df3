"""The training loop: the widths of a step, one after the other, then one step of the optimiser."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..batch import LabelledBatch
from .chance import seed_everything
from .guard import LossRecord, require_finite, require_finite_gradient
from .objective import Teacher
from .training import Training


class Batches(Protocol):
    """A loader whose batches depend on the epoch and their place in it alone."""

    def __len__(self) -> int:
        """Batches in an epoch."""
        ...

    def batches(self, epoch: int, first: int = 0) -> Iterator[LabelledBatch]:
        """The batches of an epoch, from the one numbered `first` on."""
        ...


@dataclass(frozen=True)
class Position:
    """Where a run is: `batch` batches of `epoch` are used, and `step` steps are taken; all count from 0."""

    epoch: int = 0
    batch: int = 0
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What happened in one step, on average over processes.

    Attributes:
        step: number of the step, from 0.
        epoch: number of the epoch, from 0.
        images: in the batches of this process, times processes.
        lr: largest learning rate.
        loss: sum of the weighted terms, mean over widths.
        widths: the same of each width, by label.
        terms: each term, mean over widths.
        grad_norm: norm of the gradient before it is clipped.
        data_seconds: waited for images.
        compute_seconds: the rest.
    """

    step: int
    epoch: int
    images: int
    lr: float
    loss: float
    widths: dict[str, float]
    terms: dict[str, float]
    grad_norm: float
    data_seconds: float
    compute_seconds: float


class Hooks:
    """What a caller wants to be told; override what is needed."""

    def on_batch(self, batch: LabelledBatch) -> None:
        """A batch was read and is about to be used."""

    def on_step(self, report: StepReport, position: Position) -> None:
        """A step was taken; from `position` the run would go on."""

    def on_epoch(self, position: Position) -> None:
        """An epoch is over, all of its batches are used; the model may be, its mode is set again afterwards.

        A run that goes on from `position` calls this again first.
        """


def fit(training: Training, loader: Batches, hooks: Hooks, position: Position | None = None) -> None:
    """Train in place, from `position` to the last epoch, or until the run's time is up.

    Everything random in a step is a function of seed, step and process, so that a run that goes on from a
    saved position takes the same steps as one that was never stopped.

    Raises:
        NotFiniteError: a loss or the gradient is not finite; the message names step, width and images.
    """
    position = position or Position()
    training.course.start()
    for epoch in range(position.epoch, training.settings.epochs):
        training.trainee.train()
        started = time.perf_counter()
        for batches in _groups(loader.batches(epoch, position.batch), training.settings.accumulate, hooks):
            # One step at least, so that there is something to keep.
            if training.course.time_is_up and position.step:
                break
            waited = time.perf_counter() - started
            report = take_step(training, batches, position, waited)
            position = replace(position, batch=position.batch + len(batches), step=position.step + 1)
            if report:
                hooks.on_step(report, position)
            started = time.perf_counter()
        hooks.on_epoch(position)
        if training.course.time_is_up:
            return
        position = Position(epoch + 1, 0, position.step)


def _groups(batches: Iterator[LabelledBatch], size: int, hooks: Hooks) -> Iterator[list[LabelledBatch]]:
    """The batches of each step; the last step of an epoch can have fewer."""
    group: list[LabelledBatch] = []
    for batch in batches:
        hooks.on_batch(batch)
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def take_step(
    training: Training, batches: Sequence[LabelledBatch], position: Position, waited: float
) -> StepReport | None:
    """One step; None if there is no image to take it with, in a run of one process.

    Args:
        training: what the step works with.
        batches: those of the step.
        position: where the run is before the step.
        waited: seconds that it took to read them.
    """
    started, step = time.perf_counter(), position.step
    images = sum(map(len, batches)) * training.ranks
    if not images and training.ranks == 1:
        return None
    seed_everything(training.settings.seed, step, training.rank)
    training.course.set_rate(step)
    losses = accumulate(training, batches, step)
    grad_norm = training.clip()
    widths, terms = losses.summary(training, grad_norm)
    training.update(step)
    lr = max(group["lr"] for group in training.optimiser.param_groups)
    seconds = time.perf_counter() - started
    return StepReport(
        step=step,
        epoch=position.epoch,
        images=images,
        lr=lr,
        loss=sum(terms.values()),
        widths=widths,
        terms=terms,
        grad_norm=float(grad_norm),
        data_seconds=waited,
        compute_seconds=seconds,
    )


class Losses:
    """Losses of a step by width and term, kept on the device until all are there, then read at once."""

    def __init__(self, step: int) -> None:
        self.step = step
        self._records: list[LossRecord] = []
        self._values: list[Tensor] = []

    def add(self, width: str, terms: dict[str, Tensor], ids: Sequence[str]) -> None:
        """Note the terms of a width on the images with these ids."""
        self._records.append(LossRecord(width, tuple(terms), ids))
        self._values += [term.float() for term in terms.values()]

    def summary(self, training: Training, grad_norm: Tensor) -> tuple[dict[str, float], dict[str, float]]:
        """Loss of each width, mean over batches, and each term, mean over both.

        Raises:
            NotFiniteError: one of them, or the gradient, is not finite.
        """
        own = torch.stack(self._values)
        mean = training.accelerator.reduce(own, "mean") if training.ranks > 1 else own
        require_finite(self.step, own, mean, self._records)
        if not training.scaled:
            require_finite_gradient(self.step, float(grad_norm), self._records)
        values, widths, terms = iter(mean.tolist()), dict[str, list[float]](), dict[str, float]()
        for record in self._records:
            found = {name: next(values) for name in record.terms}
            widths.setdefault(record.width, []).append(sum(found.values()))
            for name, value in found.items():
                terms[name] = terms.get(name, 0.0) + value / len(self._records)
        return {width: sum(losses) / len(losses) for width, losses in widths.items()}, terms


def accumulate(training: Training, batches: Sequence[LabelledBatch], step: int = 0) -> Losses:
    """Forward and backward of each width of the step at once, largest first: one set of activations alive.

    The gradients are those of the weighted mean over widths and batches. Processes exchange them once, in the
    last backward.
    """
    losses = Losses(step)
    for number, batch in enumerate(batches):
        images, labels = training.prepare_batch(batch)
        vectors = training.inputs.taught(batch, images)
        shares = training.widths.shares(step, number)
        teacher: Teacher | None = None
        for place, (width, weight) in enumerate(shares.items(), start=1):
            last = number == len(batches) - 1 and place == len(shares)
            with nullcontext() if last else training.accelerator.no_sync(training.trainee):
                share = weight / len(batches) if len(batch) else 0.0
                terms, teacher = training.passes(images, labels, width, teacher, share, vectors)
            losses.add(training.model.label(width), terms, batch.ids)
    return losses
