"""The metrics of a run: a row for some steps and one for each epoch, in its folder and at the trackers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..training import Position, RunFolder, StepReport, Training
from .clock import RunClock
from .opening import RunOpening

MetricsRow = dict[str, Any]
# Columns of a step's row that are numbers of their own.
_NUMBERS = ("lr", "loss", "grad_norm", "data_seconds", "compute_seconds")


class MetricsLog:
    """Means over the steps since the last row, and rows.

    Args:
        training: of all processes.
        folder: of the run; None in all processes but the first.
        opening: opens the run before its first row.
        clock: of the run.
        batches: how many an epoch has.

    Attributes:
        window: what the steps since the last row reported.
    """

    def __init__(
        self,
        training: Training,
        folder: RunFolder | None,
        *,
        opening: RunOpening,
        clock: RunClock,
        batches: int,
    ) -> None:
        self._training, self._folder, self._opening = training, folder, opening
        self._clock, self._batches = clock, batches
        self.window: list[dict[str, Any]] = []

    def note(self, report: StepReport) -> None:
        """Count a step in."""
        self.window.append(asdict(report))

    def write_window(self, position: Position) -> None:
        """A row with the means over the steps since the last one."""
        if not self.window:
            return
        last = self.window[-1]
        row: dict[str, Any] = {"event": "step", "step": position.step}
        row |= {"epoch": round(last["epoch"] + position.batch / self._batches, 4)}
        row |= {"seconds": round(self._clock.seconds, 1)}
        row |= {name: float(np.mean([step[name] for step in self.window])) for name in _NUMBERS}
        spent = sum(step["data_seconds"] + step["compute_seconds"] for step in self.window)
        row["images_per_second"] = sum(step["images"] for step in self.window) / max(spent, 1e-9)
        trained = map(self._training.model.label, self._training.model.trained_widths)
        # Widths in their order, whatever the first step drew.
        for group, first in (("widths", trained), ("terms", ())):
            found = [name for step in self.window for name in step[group]]
            names = [name for name in dict.fromkeys((*first, *found)) if name in found]
            row[group] = {name: _mean_of(name, group, self.window) for name in names}
        self.window.clear()
        self.write(row)

    def write(self, row: dict[str, Any]) -> None:
        """Add a row to the folder, and tell the trackers its numbers."""
        self._opening.ensure()
        if self._folder:
            self._folder.add(row)
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        for group in ("widths", "terms", "top1"):
            numbers |= {f"{group}/{name}": value for name, value in row.get(group, {}).items()}
        self._training.accelerator.log(numbers, step=row["step"])

    def epoch_loss(self, epoch: int) -> float | None:
        """Mean loss of an epoch's rows, as the folder has them; None without the folder."""
        if not self._folder:
            return None
        rows = read_metrics(self._folder.metrics)
        losses = [row["loss"] for row in rows if row["event"] == "step" and epoch < row["epoch"] <= epoch + 1]
        return float(np.mean(losses))


def read_metrics(file: Path) -> list[MetricsRow]:
    """The rows of a metrics file; the last line may be unfinished.

    Raises:
        ConfigError: another line is no JSON object.
    """
    rows, lines = list[MetricsRow](), file.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise ConfigError(f"{file}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{file}, line {number} is not a JSON object")
        rows.append(row)
    return rows


def _mean_of(name: str, group: str, steps: list[dict[str, Any]]) -> float:
    """Mean over the steps that have this width or term: not each step trains each width."""
    return float(np.mean([step[group][name] for step in steps if name in step[group]]))
