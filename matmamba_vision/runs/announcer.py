"""What a run tells while it goes on: a bar, a line for each epoch, and what is there when it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from matmamba_common.counts import counted
from matmamba_datasets import BrokenTally

from ..checkpoint import checkpoint_file
from ..progress import Meter, Reporter
from ..training import Position, StepReport
from .train_config import TrainConfig


class Announcer:
    """Puts a run into words.

    Args:
        config: of the run.
        images: how many an epoch sees.
        held_out: how many are measured on.
        report: told through.
    """

    def __init__(self, config: TrainConfig, images: int, held_out: int, report: Reporter) -> None:
        self._config, self._images, self._held_out, self._report = config, images, held_out, report
        self._meter: Meter | None = None

    @contextmanager
    def training(self, position: Position, processes: int) -> Iterator[None]:
        """The stage of the training, from a position on."""
        with self._report.meter("training", self._config.optim.epochs * self._images) as meter:
            batch = self._config.data.batch_size * processes
            meter.skip(position.epoch * self._images + position.batch * batch)
            self._meter = meter
            yield

    def step(self, report: StepReport) -> None:
        """A step was taken."""
        if self._meter is None:
            return
        widths = "  ".join(f"{width} {loss:.3f}" for width, loss in report.widths.items())
        spent = f"data {report.data_seconds:.2f} s compute {report.compute_seconds:.2f} s"
        note = f"epoch {report.epoch + 1} step {report.step + 1} loss {widths}  {spent}"
        self._meter.advance(report.images, note)

    def epoch(self, row: dict[str, Any], seconds: float) -> None:
        """An epoch is over.

        Args:
            row: of its metrics.
            seconds: of the run so far.
        """
        done, epochs = row["epoch"], self._config.optim.epochs
        accuracy = "  ".join(f"{width} {top1:.3f}" for width, top1 in row.get("top1", {}).items())
        rate = done * self._images / max(seconds, 1e-9)
        left = timedelta(seconds=round(seconds / done * (epochs - done)))
        self._report.say(
            f"epoch {done}/{epochs}  {rate:,.0f} images/s  {left} left  loss {row['loss'] or 0:.3f}"
            + (f"  held-out top-1: {accuracy}" if accuracy else "")
            + ("" if self._held_out else "  no held-out images, accuracy not measured")
        )

    def end(self, saved: Path | None, kept_epoch: int, tally: BrokenTally) -> None:
        """What is there if the run was cut short, and which images were left out.

        Args:
            saved: the checkpoint from which a run that was cut short would go on.
            kept_epoch: of which the model is, if the run was cut short; 0 for no model.
            tally: of the images that could not be read.
        """
        if kept_epoch:
            file, epochs = checkpoint_file(self._config.output), self._config.optim.epochs
            self._report.say(f"{file} is that of epoch {kept_epoch} of {epochs}")
        if saved:
            self._report.say(f"saved: {saved}; go on with resume auto")
        # More of them were listed by the error that ended the run.
        if tally.found and not tally.is_over:
            self._report.say(f"{counted(len(tally.found), 'unreadable file')} left out:\n{tally.listing()}")
