"""What every training does around its loop: the run's folder, going on, recording, the result."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from matmamba_datasets import DecodedLoader, Loader, Splits

from ..checkpoint import checkpoint_file
from ..device import limit_threads
from ..errors import ConfigError
from ..models import MatMamba
from ..progress import Reporter
from ..training import Position, Saves, Training, end_training, fit, make_accelerator, named_losses
from .agreement import from_first, hold_folder, require_same_start
from .recorder import Recorder, RunParts
from .resume import Found, find_checkpoint, require_there
from .run_batches import measured_on
from .trackers import trackers_of
from .train_config import TrainConfig

Prepared = tuple[Training, tuple["Loader | DecodedLoader", Loader]]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run that came to its end.

    Attributes:
        folder: of the run: `load_checkpoint` and `index` take it.
        checkpoint: the file of the model of the last epoch.
        epochs: passes over the training images.
        steps: of the optimiser.
        seconds: that it took, those before it was resumed too.
        images: trained on.
        held_out: number of images measured on.
        loss: mean of the last epoch; None in all processes but the first.
        top1: accuracy on the held-out images, by the label of each trained width; empty without such images.
        unreadable: images that were left out, and why, by their names.
        process: number of this process; that of number 0 has written everything.
    """

    folder: Path
    checkpoint: Path
    epochs: int
    steps: int
    seconds: float
    images: int
    held_out: int
    loss: float | None
    top1: dict[str, float]
    unreadable: dict[str, str]
    process: int = 0

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        return {**vars(self), "folder": str(self.folder), "checkpoint": str(self.checkpoint)}


def accelerator_of(config: TrainConfig) -> Accelerator:
    """The `Accelerator` of a run, with its trackers."""
    output = Path(config.output)
    places = ProjectConfiguration(str(output), str(output / "tensorboard"))
    return make_accelerator(
        config.engine, config.device, log_with=trackers_of(config.trackers), project_config=places
    )


def reporter_of(accelerator: Accelerator, report: Reporter) -> Reporter:
    """Who tells: of several processes only the first."""
    return report if accelerator.is_main_process else Reporter()


def run_training(
    config: TrainConfig,
    splits: Splits,
    prepare: Callable[[], Prepared],
    *,
    accelerator: Accelerator,
    report: Reporter,
    resume: str,
) -> Run:
    """Train what `prepare` makes, into the run's folder, from the start or from a checkpoint there.

    Args:
        config: of the run.
        splits: images to train on, and to measure on.
        prepare: makes model, optimiser and batches; called when the folder is this run's.
        accelerator: of this process.
        report: told through.
        resume: as `train` has it.

    Raises:
        MatMambaError: as `train`.
    """
    begun = time.monotonic()
    output, saves = Path(config.output), Saves(Path(config.output) / "checkpoints", config.save.keep)
    with ExitStack() as stack:
        stack.enter_context(named_losses())
        # Before the folder is made.
        from_first(accelerator, lambda: require_there(resume))
        folder = hold_folder(accelerator, output)
        if folder:
            stack.callback(folder.release)
        require_same_start(accelerator, config, (splits.train, splits.held_out))
        found = from_first(accelerator, lambda: find_checkpoint(config, saves, resume))
        report.say(start_in_words(found, config))
        training, loaders = prepare()
        if training.course.limit is not None:
            training.course.limit.begun = begun
        measure = measured_on(training, loaders[1], config)
        recorder = Recorder(
            RunParts(
                config=config,
                training=training,
                loader=loaders[0],
                held_out=len(splits.held_out),
                measure=measure,
                folder=folder,
                saves=saves,
                report=report,
            ),
        )
        position = recorder.continuation.restore(*found) if found else Position()
        _run(recorder, position, stack)
    return _result(recorder)


def _run(recorder: Recorder, position: Position, stack: ExitStack) -> None:
    """Train from a position on until the end, or until asked to stop."""
    training = recorder.parts.training
    stack.callback(end_training, training.accelerator)
    stack.callback(recorder.summarise)
    stack.enter_context(recorder.stop)
    stack.enter_context(recorder.announcer.training(position, training.ranks))
    fit(training, recorder.parts.loader, recorder, position)


def _result(recorder: Recorder) -> Run:
    parts, last = recorder.parts, recorder.last
    folder = Path(parts.config.output)
    return Run(
        folder=folder,
        checkpoint=checkpoint_file(folder),
        epochs=last["epoch"],
        steps=last["step"],
        seconds=last["seconds"],
        images=len(parts.loader.images),
        held_out=parts.held_out,
        loss=last["loss"],
        top1=last["top1"],
        unreadable=dict(recorder.tally.found),
        process=parts.training.rank,
    )


def start_in_words(found: Found | None, config: TrainConfig) -> str:
    """Where a run begins."""
    if found is None and config.model.init:
        return f'from the weights of {config.model.init} (model.init; "" there starts from nothing)'
    if found is None:
        return "from the start"
    position = found[1]["position"]
    if more := config.optim.epochs - found[1]["config"]["optim"]["epochs"]:
        return (
            f"going on from {found[0]} for {more} epochs more than before, at the same learning rate:"
            f" epoch {position['epoch'] + 1}, {position['step']} steps taken"
        )
    if found[1]["trained"]:
        return f"{found[0]} is the end of the training: only measured once more"
    return f"going on from {found[0]}: epoch {position['epoch'] + 1}, {position['step']} steps taken"


def require_best(config: TrainConfig, model: MatMamba) -> None:
    """Raise `ConfigError` if no trained width can be the best as `save.best` says."""
    labels = [model.label(width) for width in model.trained_widths]
    if config.save.best not in ("mean", *labels):
        raise ConfigError(f"save.best {config.save.best!r} is neither mean nor one of {', '.join(labels)}")


def prepare_torch(config: TrainConfig) -> None:
    """Seed all generators, and limit the threads."""
    random.seed(config.seed)
    np.random.seed(config.seed)  # noqa: NPY002  timm's augmentation draws from it
    torch.manual_seed(config.seed)
    limit_threads(config.threads)
