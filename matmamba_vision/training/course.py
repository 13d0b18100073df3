"""Where a run is between its first and its last step, by steps or by the clock."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from timm.scheduler.scheduler import Scheduler

from ..errors import ConfigError
from .optimiser import make_scheduler, warmup_steps
from .sections import OptimConfig


@dataclass(kw_only=True)
class TimeLimit:
    """Seconds that a run may take, from when it is begun to when it is saved for the last time.

    Attributes:
        seconds: how many.
        before: seconds spent before the run was resumed.
        begun: when it was begun, or resumed.
        setup: seconds before its first step, which the course of the learning rate leaves out.
    """

    seconds: float
    before: float = 0.0
    begun: float = field(default_factory=time.monotonic)
    setup: float = 0.0

    def start(self) -> None:
        """The first step is next."""
        self.setup = 0.0 if self.before else time.monotonic() - self.begun

    @property
    def share(self) -> float:
        """Share of the time for steps that is over; 1 or more when it is up."""
        spent = self.before + time.monotonic() - self.begun
        return (spent - self.setup) / max(1e-9, self.seconds - self.setup)


@dataclass(kw_only=True)
class Course:
    """The learning rate of each step, and the end.

    Attributes:
        scheduler: timm's.
        steps: of the whole run.
        warmup: steps of its warm-up.
        limit: of its time, or None.
    """

    scheduler: Scheduler
    steps: int
    warmup: int
    limit: TimeLimit | None = None

    def start(self) -> None:
        """The first step is next."""
        if self.limit is not None:
            self.limit.start()

    @property
    def time_is_up(self) -> bool:
        """Whether the run is to end before its last epoch."""
        return self.limit is not None and self.limit.share >= 1

    def set_rate(self, step: int) -> None:
        """Set the learning rate of a step; behind the warm-up, that of the clock if its end is nearer."""
        if self.limit is not None and step >= self.warmup:
            step = max(step, int(min(1.0, self.limit.share) * self.steps))
        self.scheduler.step_update(step)


def make_course(
    config: OptimConfig, optimiser: torch.optim.Optimizer, steps_per_epoch: int, processes: int = 1
) -> Course:
    """The course of a run.

    Raises:
        ConfigError: as `make_scheduler`; a time limit for several processes.
    """
    if config.max_minutes and processes > 1:
        raise ConfigError("optim.max_minutes: processes have no clock in common: give optim.epochs alone")
    scheduler = make_scheduler(config, optimiser, steps_per_epoch)
    limit = TimeLimit(seconds=60 * config.max_minutes) if config.max_minutes else None
    steps, warmup = config.epochs * steps_per_epoch, warmup_steps(config, steps_per_epoch)
    return Course(scheduler=scheduler, steps=steps, warmup=warmup, limit=limit)
