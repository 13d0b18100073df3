"""What every training command does around its loop: loaders, the run's folder, going on, measuring."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from matmamba_datasets import (
    BrokenTally,
    DecodedLoader,
    Images,
    JoinedImages,
    Loader,
    Splits,
    decode,
    eval_transform,
    make_loader,
    train_transform,
)

from ..checkpoint import checkpoint_file
from ..device import limit_threads
from ..errors import ConfigError
from ..measures.accuracy import evaluate_widths
from ..models import MatMamba
from ..progress import counted
from ..training import (
    Position,
    RunFolder,
    Saves,
    Training,
    end_training,
    fit,
    make_accelerator,
    named_losses,
)
from .config import TrainConfig
from .console import Console
from .progress import reporter
from .recorder import Recorder
from .resume import Found, find_checkpoint
from .trackers import trackers_of

Prepared = tuple[Training, tuple["Loader | DecodedLoader", Loader]]


def config_named(arguments: Sequence[str]) -> Path | None:
    """The file behind --config, whose values become the defaults of the other flags."""
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--config", type=Path)
    file: Path | None = before.parse_known_args(arguments)[0].config
    return file


def say_what_next(console: Console, output: Path) -> None:
    """Print where the checkpoint of a run is, and what it is for."""
    console.print(f"checkpoint: {checkpoint_file(output)}", soft_wrap=True)
    console.print(
        f"next: matmamba index --checkpoint {quote(str(output))} --images FOLDER --gallery GALLERY",
        soft_wrap=True,
    )


def accelerator_of(config: TrainConfig) -> Accelerator:
    """The `Accelerator` of a run, with its trackers."""
    output = Path(config.output)
    places = ProjectConfiguration(str(output), str(output / "tensorboard"))
    return make_accelerator(
        config.engine, config.device, log_with=trackers_of(config.trackers), project_config=places
    )


def run_training(
    config: TrainConfig,
    held_out: int,
    prepare: Callable[[], Prepared],
    accelerator: Accelerator,
    console: Console,
    resume: str,
) -> None:
    """Train what `prepare` makes, into the run's folder, from the start or from a checkpoint there.

    Args:
        held_out: number of images to measure on.

    Raises: as `train`.
    """
    begun = time.monotonic()
    output, saves = Path(config.output), Saves(Path(config.output) / "checkpoints", config.save.keep)
    with ExitStack() as stack:
        stack.enter_context(named_losses())
        folder = RunFolder(output) if accelerator.is_main_process else None
        if folder:
            stack.callback(folder.release)
        found = find_checkpoint(config, saves, resume)
        console.print(start_in_words(found, config), soft_wrap=True, highlight=False)
        training, loaders = prepare()
        if training.course.limit is not None:
            training.course.limit.begun = begun
        measure = measured_on(training, loaders[1], config)
        recorder = Recorder(config, training, loaders[0], held_out, measure, folder, saves, console)
        position = recorder.restore(*found) if found else Position()
        _run(recorder, position, stack)


def start_in_words(found: Found | None, config: TrainConfig) -> str:
    """Where a run begins."""
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


def _run(recorder: Recorder, position: Position, stack: ExitStack) -> None:
    """Train from a position on, with a bar, until the end or until asked to stop."""
    training, config, loader = recorder.training, recorder.config, recorder.loader
    images = len(loader.images)
    stack.callback(end_training, training.accelerator)
    stack.callback(recorder.summarise)
    stack.enter_context(recorder.stop)
    bar = stack.enter_context(reporter(recorder.console).meter("training", config.optim.epochs * images))
    bar.skip(position.epoch * images + position.batch * config.data.batch_size * training.ranks)
    recorder.bar = bar
    fit(training, loader, recorder, position)


def require_best(config: TrainConfig, model: MatMamba) -> None:
    """Raise `ConfigError` if no trained width can be the best as `save.best` says."""
    labels = [model.label(width) for width in model.trained_widths]
    if config.save.best not in ("mean", *labels):
        raise ConfigError(f"save.best {config.save.best!r} is neither mean nor one of {', '.join(labels)}")


def measured_on(training: Training, loader: Loader, config: TrainConfig) -> Any:
    """A function from a model to its top-1 by width on the held-out images."""
    tally = BrokenTally(len(loader.images), config.data.max_broken, "--data.max-broken")

    def measured(model: MatMamba) -> dict[str, float]:
        if not len(loader.images):
            return {}
        widths = training.model.trained_widths
        # Measured now and then: not worth graphs of its own.
        with torch.compiler.set_stance("force_eager"):
            return evaluate_widths(model, counted(loader, tally), widths)

    return measured


def make_loaders(
    config: TrainConfig,
    input: Mapping[str, Any],
    splits: Splits,
    accelerator: Accelerator,
    also: int | None = None,
) -> tuple[Loader | DecodedLoader, Loader]:
    """Batches to train on, and batches to measure on.

    Args:
        input: the model's data configuration. also: a second size at which decoded images are seen, see
            `DecodedLoader`.
    """
    data = config.data
    known: dict[str, Any] = {"workers": data.workers}
    known |= {"rank": accelerator.process_index, "ranks": accelerator.num_processes}
    try:
        augmented, plain = train_transform(input, data.augment), eval_transform(input)
    except AssertionError as error:
        # timm's way of refusing a policy.
        raise ConfigError(f"data.augment.auto_augment {data.augment.auto_augment!r}: {error}") from error
    measured = make_loader(splits.held_out, plain, data.batch_size, **known)
    if data.decoded:
        return _decoded(config, input, splits.train, accelerator, also), measured
    return make_loader(
        splits.train, augmented, data.batch_size, shuffle=True, seed=config.seed, **known
    ), measured


def _decoded(
    config: TrainConfig, input: Mapping[str, Any], images: Images, accelerator: Accelerator, also: int | None
) -> DecodedLoader:
    if accelerator.num_processes > 1:
        raise ConfigError(
            "data.decoded: every process would hold all images; leave it out, or take one process"
        )
    data = config.data
    joined = images if isinstance(images, JoinedImages) else JoinedImages([images], [1], [True])
    pixels = [decode(source, data.decoded, data.workers) for source in joined.sources]
    return DecodedLoader(
        joined, pixels, input, data.augment, data.batch_size, config.seed, accelerator.device, also
    )


def prepare_torch(config: TrainConfig) -> None:
    """Seed all generators, and limit the threads."""
    random.seed(config.seed)
    np.random.seed(config.seed)  # noqa: NPY002  timm's augmentation draws from it
    torch.manual_seed(config.seed)
    limit_threads(config.threads)
