"""The checkpoints of a run: what makes it go on as if it had never stopped."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from matmamba_datasets import BrokenTally

from ..config_file import as_plain
from ..training import Position, ResumeError, RunFolder, Saves, Training, everywhere
from .clock import RunClock
from .keeper import RunKeeper
from .metrics_log import MetricsLog
from .opening import RunOpening
from .train_config import TrainConfig


class Continuation:
    """Saves a run and takes it up again; all processes have one, because each holds a part of the state.

    Args:
        config: of the run.
        training: of all processes.
        saves: the checkpoints.
        folder: of the run; None in all processes but the first.
        batches: how many an epoch has.
        opening: of the run.
        clock: of the run.
        log: its metrics.
        keeper: its models.
        tally: its unreadable images.
    """

    def __init__(
        self,
        config: TrainConfig,
        training: Training,
        saves: Saves,
        *,
        folder: RunFolder | None,
        batches: int,
        opening: RunOpening,
        clock: RunClock,
        log: MetricsLog,
        keeper: RunKeeper,
        tally: BrokenTally,
    ) -> None:
        self._config, self._training, self._saves, self._folder = config, training, saves, folder
        self._batches, self._opening, self._clock = batches, opening, clock
        self._log, self._keeper, self._tally = log, keeper, tally

    def save(self, position: Position) -> None:
        """Write a checkpoint, with the unreadable images of all processes; all must call this.

        Raises:
            SystemRefusalError: it cannot be written; the earlier ones stay.
        """
        self._opening.ensure()
        # Each reads a part of the images, and all stop where too many are broken.
        for found in everywhere(self._training.accelerator, dict(self._tally.found)):
            self._tally.found |= found
        self._saves.save(self._training.accelerator, position.step, self.state(position))

    def state(self, position: Position) -> dict[str, Any]:
        """What a checkpoint holds besides the tensors."""
        last = position.epoch + 1 == self._config.optim.epochs and position.batch == self._batches
        return {
            "position": asdict(position),
            "trained": self._training.course.time_is_up or last,
            "processes": self._training.ranks,
            "config": as_plain(self._config),
            "metrics_bytes": self._folder.size() if self._folder else 0,
            "window": self._log.window,
            "best": self._keeper.best,
            "run_id": self._opening.run_id,
            "seconds": self._clock.seconds,
            "broken": self._tally.found,
        }

    def restore(self, path: Path, state: dict[str, Any]) -> Position:
        """Take up a checkpoint; the position to go on from.

        Raises:
            ResumeError: it is of another number of processes.
        """
        if state["processes"] != self._training.ranks:
            raise ResumeError(
                f"{path} was saved by {state['processes']} processes, and these are {self._training.ranks}:"
                " a run is continued by as many"
            )
        self._training.accelerator.load_state(str(path))
        self._opening.run_id = state["run_id"]
        self._opening.open(state["position"]["step"])
        if self._folder:
            self._folder.rewind(state["metrics_bytes"])
        self._log.window, self._keeper.best = state["window"], state["best"]
        self._clock.before = state["seconds"]
        if self._training.course.limit is not None:
            self._training.course.limit.before = self._clock.before
        self._tally.found |= state["broken"]
        return Position(**state["position"])
