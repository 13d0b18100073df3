"""Writes down what the training loop reports: checkpoints, metrics, trackers, progress."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from matmamba_datasets import BrokenTally, DataError, DecodedLoader, Loader

from ..batch import LabelledBatch
from ..checkpoint import checkpoint_file, save_checkpoint
from ..layers import Mixer
from ..measures.environment import environment
from ..models import MatMamba
from ..ops import resolve_for
from ..progress import Meter
from ..training import Hooks, Position, ResumeError, RunFolder, Saves, StepReport, Training
from .config import TrainConfig, as_plain, save_config
from .console import Console
from .run_card import RunFacts, save_run_card
from .stop import Stop
from .trackers import PROJECT, tracker_settings, trackers_of

BEST = "best.safetensors"
# Columns of a step's row that are numbers of their own.
_NUMBERS = ("lr", "loss", "grad_norm", "data_seconds", "compute_seconds")


class Recorder(Hooks):
    """Follows a run and leaves its folder so that it can be resumed at any time.

    All processes of a run have one, because all of them hold a part of its state; the first one writes.

    Args:
        held_out: number of held-out images. measure: top-1 by width of a model on them. folder: None in all
            processes but the first. saves: checkpoints to resume from.
    """

    def __init__(
        self,
        config: TrainConfig,
        training: Training,
        loader: Loader | DecodedLoader,
        held_out: int,
        measure: Callable[[MatMamba], dict[str, float]],
        folder: RunFolder | None,
        saves: Saves,
        console: Console,
    ) -> None:
        self.config, self.training, self.loader, self.held_out = config, training, loader, held_out
        self.measure, self.folder, self.saves, self.console = measure, folder, saves, console
        self.tally = BrokenTally(len(loader.images), config.data.max_broken, "--data.max-broken")
        self.window: list[dict[str, Any]] = []
        self.ended = False
        self.best, self.begun, self.kept_epoch, self.run_id = -1.0, False, 0, uuid4().hex
        self.before, self.started = 0.0, time.monotonic()
        self.stop = Stop(training.accelerator)
        self.bar: Meter | None = None

    @property
    def seconds(self) -> float:
        """Of the run, those before it was resumed too."""
        return self.before + time.monotonic() - self.started

    # What a checkpoint holds besides the tensors.

    def state(self, position: Position) -> dict[str, Any]:
        """What makes the run go on as if it had never stopped."""
        return {
            "position": asdict(position),
            "trained": self.training.course.time_is_up
            or (position.epoch + 1 == self.config.optim.epochs and position.batch == len(self.loader)),
            "processes": self.training.ranks,
            "config": as_plain(self.config),
            "metrics_bytes": self.folder.size() if self.folder else 0,
            "window": self.window,
            "best": self.best,
            "run_id": self.run_id,
            "seconds": self.seconds,
            "broken": self.tally.found,
        }

    def restore(self, path: Path, state: dict[str, Any]) -> Position:
        """Take up a checkpoint; the position to go on from."""
        if state["processes"] != self.training.ranks:
            raise ResumeError(
                f"{path} was saved by {state['processes']} processes, and these are {self.training.ranks}:"
                " a run is continued by as many"
            )
        self.training.accelerator.load_state(str(path))
        self.run_id = state["run_id"]
        self._begin(state["position"]["step"])
        if self.folder:
            self.folder.rewind(state["metrics_bytes"])
        self.window, self.best, self.before = state["window"], state["best"], state["seconds"]
        if self.training.course.limit is not None:
            self.training.course.limit.before = self.before
        self.tally.found |= state["broken"]
        return Position(**state["position"])

    def save(self, position: Position) -> None:
        """Write a checkpoint."""
        if not self.begun:
            self._begin(0)
        self.saves.save(self.training.accelerator, position.step, self.state(position))

    # What the loop tells.

    def on_batch(self, batch: LabelledBatch) -> None:
        self.tally.add(batch.broken)  # type: ignore[attr-defined]

    def on_step(self, report: StepReport, position: Position) -> None:
        self.window.append(asdict(report))
        if self.bar:
            widths = "  ".join(f"{width} {loss:.3f}" for width, loss in report.widths.items())
            spent = f"data {report.data_seconds:.2f} s compute {report.compute_seconds:.2f} s"
            note = f"epoch {report.epoch + 1} step {report.step + 1} loss {widths}  {spent}"
            self.bar.advance(report.images, note)
        if len(self.window) == self.config.log_every:
            self._write_window(position)
        if self.stop.asked():
            self.save(position)
            raise KeyboardInterrupt
        if position.step % self.config.save.every_steps == 0:
            self.save(position)

    def on_epoch(self, position: Position) -> None:
        """Save first, then measure: a failing measurement loses no training."""
        if not self.window and not self.begun:
            raise DataError(f"{self.config.data.root}: no training image can be read\n{self.tally.listing()}")
        self._write_window(position)
        self.save(position)
        epoch = position.epoch + 1
        row: dict[str, Any] = {"event": "epoch", "epoch": epoch, "step": position.step}
        row |= {"seconds": round(self.seconds, 1), "loss": self._epoch_loss(position.epoch)}
        self.ended = epoch == self.config.optim.epochs or self.training.course.time_is_up
        if self.ended or epoch % self.config.eval_every == 0:
            row["top1"] = self.measure(self.training.kept_model())
        self._keep(row)
        self._write(row)
        self._draw(row)
        self._print(row)

    def _begin(self, step: int) -> None:
        """Open the trackers, and write what is known from the start unless the run goes on from a step.

        Not before there is something to keep, so that a failed start leaves nothing.
        """
        self.begun = True
        accelerator, output = self.training.accelerator, Path(self.config.output)
        settings = tracker_settings(trackers_of(self.config.trackers), output, self.run_id, step)
        accelerator.init_trackers(PROJECT, init_kwargs=settings)
        if self.folder and not step:
            self.saves.clear()
            self.folder.metrics.write_text("")
            save_config(self.config, self.folder.path / "config.yaml")
            known = {**environment(), "scan_backend": scan_backend(self.training.model)}
            (self.folder.path / "environment.json").write_text(json.dumps(known, indent=2))

    def _write_window(self, position: Position) -> None:
        """A row with the means over the steps since the last one."""
        if not self.window:
            return
        last = self.window[-1]
        row: dict[str, Any] = {"event": "step", "step": position.step}
        row |= {"epoch": round(last["epoch"] + position.batch / len(self.loader), 4)}
        row |= {"seconds": round(self.seconds, 1)}
        row |= {name: float(np.mean([step[name] for step in self.window])) for name in _NUMBERS}
        spent = sum(step["data_seconds"] + step["compute_seconds"] for step in self.window)
        row["images_per_second"] = sum(step["images"] for step in self.window) / max(spent, 1e-9)
        trained = map(self.training.model.label, self.training.model.trained_widths)
        # Widths in their order, whatever the first step drew.
        for group, first in (("widths", trained), ("terms", ())):
            found = [name for step in self.window for name in step[group]]
            names = [name for name in dict.fromkeys((*first, *found)) if name in found]
            row[group] = {name: _mean_of(name, group, self.window) for name in names}
        self.window.clear()
        self._write(row)

    def _write(self, row: dict[str, Any]) -> None:
        if not self.begun:
            self._begin(0)
        if self.folder:
            self.folder.add(row)
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        for group in ("widths", "terms", "top1"):
            numbers |= {f"{group}/{name}": value for name, value in row.get(group, {}).items()}
        self.training.accelerator.log(numbers, step=row["step"])

    def _epoch_loss(self, epoch: int) -> float | None:
        if not self.folder:
            return None
        rows = [json.loads(line) for line in self.folder.metrics.read_text().splitlines()]
        losses = [row["loss"] for row in rows if row["event"] == "step" and epoch < row["epoch"] <= epoch + 1]
        return float(np.mean(losses))

    def _keep(self, row: dict[str, Any]) -> None:
        """Write the model, and write it as the best if it is."""
        model = self.training.kept_model()
        if not self.folder:
            return
        run, self.kept_epoch = as_plain(self.config), row["epoch"]
        classes = self.loader.images.classes
        save_checkpoint(self.folder.path, model, classes, run)
        if row.get("top1"):
            found = self._figure(row["top1"])
            if found > self.best:
                self.best = found
                save_checkpoint(self.folder.path / BEST, model, classes, run)

    def _draw(self, row: dict[str, Any]) -> None:
        """Curves, table and model card, whenever there is something new about accuracy."""
        if self.folder and "top1" in row:
            from ..measures.curves import draw_curves

            self.folder.write_csv()
            draw_curves(self.folder.metrics, self.folder.path / "curves.png")
            images, data = self.loader.images, self.config.data
            # The folder's name says more than its format.
            name = f"{Path(data.root).name} ({data.name})" if data.root else data.name
            facts = RunFacts(
                self.training.kept_model(), images.classes, name, len(images), self.held_out,
                as_plain(self.config), row["top1"],
            )  # fmt: skip
            save_run_card(self.folder.path, facts)

    def _figure(self, top1: dict[str, float]) -> float:
        wanted = self.config.save.best
        return float(np.mean([*top1.values()])) if wanted == "mean" else top1[wanted]

    def _print(self, row: dict[str, Any]) -> None:
        done, epochs = row["epoch"], self.config.optim.epochs
        accuracy = "  ".join(f"{width} {top1:.3f}" for width, top1 in row.get("top1", {}).items())
        rate = done * len(self.loader.images) / max(self.seconds, 1e-9)
        left = timedelta(seconds=round(self.seconds / done * (epochs - done)))
        self.console.print(
            f"epoch {done}/{epochs}  {rate:,.0f} images/s  {left} left  loss {row['loss'] or 0:.3f}"
            + (f"  held-out top-1: {accuracy}" if accuracy else "")
            + ("" if self.held_out else "  no held-out images, accuracy not measured"),
            soft_wrap=True,
            highlight=False,
        )

    def summarise(self) -> None:
        """Say what is there if the run was cut short, and list the images that were left out."""
        saved, epochs = self.saves.all(), self.config.optim.epochs
        if self.ended:
            saved = []
        elif self.kept_epoch:
            file = checkpoint_file(self.config.output)
            self.console.print(f"{file} is that of epoch {self.kept_epoch} of {epochs}", soft_wrap=True)
        if saved:
            self.console.print(f"saved: {saved[-1]}; go on with --resume auto", soft_wrap=True)
        # More of them were listed by the error that ended the run.
        if 0 < len(self.tally.found) <= self.tally.allowed * self.tally.total:
            self.console.print(
                f"{len(self.tally.found)} unreadable files were left out:\n{self.tally.listing()}",
                markup=False,
            )


def scan_backend(model: MatMamba) -> str:
    """What computes the scans; "" where there are none."""
    mixers = (block.mixer for block in model.stack if isinstance(block.mixer, Mixer))
    first = next(mixers, None)
    if first is None:
        return ""
    return resolve_for(model.ssd_backend, model.pos_embed, first.norm.shape[1], first.state_dim).name


def _mean_of(name: str, group: str, steps: list[dict[str, Any]]) -> float:
    """Mean over the steps that have this width or term: not each step trains each width."""
    return float(np.mean([step[group][name] for step in steps if name in step[group]]))
