"""Training by labels: a model learns to classify at all its widths."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from matmamba_common.counts import counted
from matmamba_datasets import Splits, open_splits

from ..errors import ConfigError
from ..models import MatMamba
from ..progress import Listener, Reporter
from ..public_call import public_call
from ..training import (
    NestedObjective,
    Saves,
    Training,
    build_model,
    compile_widths,
    make_accelerator,
    prepare_training,
)
from .dry_run import TrainingPlan, Workload, describe_run
from .fitting import (
    Prepared,
    Run,
    accelerator_of,
    prepare_torch,
    reporter_of,
    require_best,
    run_training,
    start_in_words,
)
from .resume import find_checkpoint
from .run_batches import make_loaders
from .starting_point import settings_over_defaults
from .train_config import TrainConfig, check_config, config_of

# Below this many images, accuracy on a class says little.
FEW = 5


@public_call
def train(
    config: TrainConfig | Mapping[str, Any] | str | os.PathLike[str],
    *,
    resume: str | os.PathLike[str] = "no",
    progress: Listener | None = None,
) -> Run:
    """Train a model at all its widths, and leave it in the run's folder, `config.output`.

    The folder receives model.safetensors after each epoch, best.safetensors, config.yaml (the resolved
    configuration), environment.json, metrics.jsonl and metrics.csv, curves, a model card, a TensorBoard log,
    and checkpoints to resume from. SIGINT and SIGTERM, where this is the main thread, end the step, save,
    and raise `KeyboardInterrupt`. Each of several processes, as torchrun or accelerate launch start them,
    calls this.

    Args:
        config: settings; a mapping of some of them, such as `{"optim": {"epochs": 5}}`; or a YAML file. Of
            these two, one with photos of one's own (data of the name "folder", "parquet" or "shards") and no
            model starts from the weights of `matmamba_mini_patch16_128` that come with the package, and takes
            what it has not from `configs/own_photos/fine_tuning.yaml`; `{"model": {"init": ""}}`, or a name
            of a model, starts from nothing. A `TrainConfig` is taken as it is.
        resume: "no" starts, and refuses a folder with a run in it; "auto" goes on from the newest complete
            checkpoint in the folder, or starts; a checkpoint's folder goes on from that.
        progress: is told how far the run is, in the first process.

    Returns:
        The run at its end: where it is, its loss and its accuracy.

    Raises:
        ConfigError: a setting that cannot work, or a run is there already.
        DataError: the data set is missing or unreadable.
        ResumeError: the run there cannot be continued.
        NotFiniteError: the training diverged.
        LostProcessError: another process of the run is gone.
        SystemRefusalError: something cannot be written.
        KeyboardInterrupt: the run was asked to stop, and is saved.
        TypeError: `config` is none of these.
    """
    config, report = _checked(config, resume), Reporter(progress)
    splits = open_splits(config.data)
    accelerator = accelerator_of(config)
    report = reporter_of(accelerator, report)
    report.left_out(splits.left_out)
    report.say(f"data: {_named(config)}, {_counted(splits)}")
    _warn_of_classes(splits, report)
    prepare = partial(_prepare, config, splits, accelerator, report)
    return run_training(
        config,
        splits,
        prepare,
        accelerator=accelerator,
        report=report,
        resume=str(resume),
    )


@public_call
def plan_training(
    config: TrainConfig | Mapping[str, Any] | str | os.PathLike[str],
    *,
    resume: str | os.PathLike[str] = "no",
    progress: Listener | None = None,
) -> TrainingPlan:
    """What `train` would do: parameters, multiply-adds, memory, steps. Nothing is written.

    Args:
        config: as for `train`.
        resume: as for `train`.
        progress: is told what the data set holds beside its images.

    Raises:
        MatMambaError: as `train`, before it begins.
        TypeError: `config` is none that `train` takes.
    """
    config = _checked(config, resume)
    found = find_checkpoint(config, Saves(Path(config.output) / "checkpoints"), str(resume))
    splits = open_splits(config.data)
    accelerator = make_accelerator(config.engine, config.device)
    report = reporter_of(accelerator, Reporter(progress))
    report.left_out(splits.left_out)
    training, loaders = _prepare(config, splits, accelerator, report)
    model, optimiser = training.model, training.optimiser.optimizer  # type: ignore[attr-defined]
    work = _workload(config, splits, training, len(loaders[0]))
    known: dict[str, Any] = {"output": config.output, "start": start_in_words(found, config)}
    with accelerator.autocast():
        return describe_run(work, config.optim, model, optimiser, process=training.rank, **known)


def _workload(config: TrainConfig, splits: Splits, training: Training, batches: int) -> Workload:
    return Workload(
        model=config.model.init or config.model.name,
        data=_named(config),
        images=len(splits.train),
        held_out=len(splits.held_out),
        batch_size=config.data.batch_size,
        steps_per_epoch=math.ceil(batches / config.engine.accumulate),
        widths=training.widths.schedule.in_words(training.model.label),
        processes=training.ranks,
        accumulation=config.engine.accumulate,
    )


def _checked(
    given: TrainConfig | Mapping[str, Any] | str | os.PathLike[str], resume: str | os.PathLike[str]
) -> TrainConfig:
    if isinstance(given, TrainConfig):
        # It has a value for everything.
        config = config_of(TrainConfig, given)
    else:
        config = settings_over_defaults(partial(config_of, TrainConfig, given), str(resume))
    check_config(config)
    # As a run has it that was never asked to start from weights.
    config.model.init = config.model.init or None
    return config


def _prepare(config: TrainConfig, splits: Splits, accelerator: Accelerator, report: Reporter) -> Prepared:
    prepare_torch(config)
    model = build_model(config.model, len(splits.train.classes)).to(accelerator.device)
    objective = NestedObjective(config.objective, model.embedding_dim, model.num_classes)
    if config.compile:
        _compile(model, config.data.batch_size, report)
    loaders = make_loaders(config, model.input, splits, accelerator)
    training = prepare_training(
        model,
        objective,
        config.optim,
        len(loaders[0]),
        schedule=config.schedule,
        mix=config.mix,
        engine=config.engine,
        accelerator=accelerator,
        seed=config.seed,
    )
    require_best(config, model)
    return training, loaders


def _compile(model: MatMamba, batch_size: int, report: Reporter) -> None:
    try:
        for width, seconds in compile_widths(model.train(), batch_size):
            report.say(f"compiled width {width} in {seconds:.0f} s")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"compile: torch.compile cannot be used here: {reason}") from error


def _named(config: TrainConfig) -> str:
    return f"{config.data.name} {config.data.root}".strip()


def _counted(splits: Splits) -> str:
    train = splits.train
    return f"{counted(len(train), 'image')}, {len(splits.held_out):,} held out, {len(train.classes)} classes"


def _warn_of_classes(splits: Splits, report: Reporter) -> None:
    if splits.unmeasured:
        report.say(f"note: {splits.unmeasured}")
    labels = np.concatenate([splits.train.labels, splits.held_out.labels])
    counts = np.bincount(labels, minlength=len(splits.train.classes))
    small = [
        f"{name} ({count})" for name, count in zip(splits.train.classes, counts, strict=True) if count < FEW
    ]
    if small:
        report.say(f"note: classes with few images mean little when measured: {', '.join(small)}")
