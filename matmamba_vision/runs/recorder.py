"""Follows a training loop: what is noted, saved, measured and told, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matmamba_datasets import BrokenTally, DataError, DecodedLoader, Loader

from ..batch import LabelledBatch
from ..models import MatMamba
from ..progress import Reporter
from ..training import Hooks, Position, RunFolder, Saves, StepReport, Training
from .announcer import Announcer
from .clock import RunClock
from .continuation import Continuation
from .keeper import RunKeeper
from .metrics_log import MetricsLog
from .opening import RunOpening
from .stop import Stop
from .train_config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class RunParts:
    """What a run is made of.

    Attributes:
        config: its settings.
        training: model, objective and optimiser, over all processes.
        loader: batches to train on.
        held_out: number of images to measure on.
        measure: top-1 by width of a model on them.
        folder: of the run; None in all processes but the first.
        saves: checkpoints to resume from.
        report: told through.
    """

    config: TrainConfig
    training: Training
    loader: Loader | DecodedLoader
    held_out: int
    measure: Callable[[MatMamba], dict[str, float]]
    folder: RunFolder | None
    saves: Saves
    report: Reporter


class Recorder(Hooks):
    """Follows a run and leaves its folder so that it can be resumed at any time.

    All processes of a run have one, because all of them hold a part of its state; the first one writes.

    Args:
        parts: of the run.

    Attributes:
        last: metrics of the last epoch; empty before the first is over.
        ended: whether the run came to its end.
    """

    def __init__(self, parts: RunParts) -> None:
        self.parts, config, images = parts, parts.config, parts.loader.images
        self.tally = BrokenTally(len(images), config.data.max_broken, "data.max_broken")
        self.clock, self.stop = RunClock(), Stop(parts.training.accelerator)
        self.opening = RunOpening(config, parts.training, parts.folder, parts.saves)
        self.log = MetricsLog(
            parts.training,
            parts.folder,
            opening=self.opening,
            clock=self.clock,
            batches=len(parts.loader),
        )
        self.keeper = RunKeeper(config, images, parts.held_out, parts.folder)
        self.announcer = Announcer(config, len(images), parts.held_out, parts.report)
        self.continuation = Continuation(
            config,
            parts.training,
            parts.saves,
            folder=parts.folder,
            batches=len(parts.loader),
            opening=self.opening,
            clock=self.clock,
            log=self.log,
            keeper=self.keeper,
            tally=self.tally,
        )
        self.last: dict[str, Any] = {}
        self.ended = False

    def on_batch(self, batch: LabelledBatch) -> None:
        """Count what could not be read."""
        self.tally.add(batch.broken)  # type: ignore[attr-defined]

    def on_step(self, report: StepReport, position: Position) -> None:
        """Note the step; save now and then, and before the run stops because it was asked to."""
        config = self.parts.config
        self.log.note(report)
        self.announcer.step(report)
        if len(self.log.window) == config.log_every:
            self.log.write_window(position)
        if self.stop.asked():
            self.continuation.save(position)
            raise KeyboardInterrupt
        if position.step % config.save.every_steps == 0:
            self.continuation.save(position)

    def on_epoch(self, position: Position) -> None:
        """Save first, then measure: a failing measurement loses no training."""
        if not self.log.window and not self.opening.done:
            root = self.parts.config.data.root
            raise DataError(f"{root}: no training image can be read\n{self.tally.listing()}")
        self.log.write_window(position)
        self.continuation.save(position)
        # Once, because all processes take part.
        model = self.parts.training.kept_model()
        row = self._measured(model, position)
        self.keeper.keep(model, row)
        self.log.write(row)
        self.keeper.describe(model, row, self.ended)
        self.announcer.epoch(row, self.clock.seconds)
        self.last = row

    def _measured(self, model: MatMamba, position: Position) -> dict[str, Any]:
        """The row of an epoch, with accuracy if it is time for that."""
        config, epoch = self.parts.config, position.epoch + 1
        row: dict[str, Any] = {"event": "epoch", "epoch": epoch, "step": position.step}
        row |= {"seconds": round(self.clock.seconds, 1), "loss": self.log.epoch_loss(position.epoch)}
        self.ended = epoch == config.optim.epochs or self.parts.training.course.time_is_up
        if self.ended or epoch % config.eval_every == 0:
            row["top1"] = self.parts.measure(model)
        return row

    def summarise(self) -> None:
        """Tell what is there if the run was cut short, and which images were left out."""
        saved: list[Path] = [] if self.ended else self.parts.saves.all()
        kept = 0 if self.ended else self.keeper.kept_epoch
        self.announcer.end(saved[-1] if saved else None, kept, self.tally)
