"""Training by another network: every width of a student answers in its teacher's space. No labels are needed.

The teacher's space is rotated once, to its principal directions (an isometry, kept in the run as
rotation.safetensors), and the student learns the leading coordinates of the rotated vectors: so short
prefixes mean something for both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from matmamba_datasets import NO_LABEL, DataError, Images, JoinedImages, Splits, Subset, open_training_images
from matmamba_datasets.folder import split_folders
from matmamba_datasets.remote import is_url
from matmamba_datasets.splits import split_by_id

from ..errors import ConfigError
from ..galleries.drawn_apart import require_apart
from ..given import require_folder
from ..progress import Listener, Reporter
from ..public_call import public_call
from ..rotation import FILE_NAME
from ..training import StudentObjective, build_model, prepare_training
from .fitting import Prepared, Run, accelerator_of, prepare_torch, reporter_of, require_best, run_training
from .run_batches import make_loaders
from .teaching import VECTORS, Teaching
from .train_config import DistillConfig, check_config, config_of


@public_call
def distill(
    config: DistillConfig | Mapping[str, Any] | str | os.PathLike[str],
    *,
    resume: str | os.PathLike[str] = "no",
    progress: Listener | None = None,
) -> Run:
    """Train a student of another network at all its widths, and leave it in the run's folder.

    All else is as for `train`.

    Args:
        config: settings; a mapping of some of them, "teacher" and "images" at least; or a YAML file.
        resume: as for `train`.
        progress: is told how far the run is, in the first process.

    Returns:
        The run at its end: where it is, its loss and its accuracy.

    Raises:
        ConfigError: a setting that cannot work.
        DataError: images are missing or unreadable.
        EncoderError: a teacher that cannot be had, or that gives no vectors.
        RotationError: the run that goes on had another teacher.
        MatMambaError: as `train`.
        TypeError: `config` is none of these.
    """
    config = config_of(DistillConfig, config)
    check_config(config)
    read = [folder for place in config.images if not is_url(place) for folder in split_folders(place)]
    require_apart("output", Path(config.output), read, is_run=True)
    _complete(config)
    splits = open_sources(config)
    accelerator = accelerator_of(config)
    report = reporter_of(accelerator, Reporter(progress))
    report.left_out(splits.left_out)
    asked = {"cross_entropy": config.objective.cross_entropy, "neighbours": config.follow.neighbours}
    if not any(config.labelled) and any(asked.values()):
        report.say(f"no labels: {' and '.join(name for name in asked if asked[name])} take no part")
    prepare = partial(_prepare, config, splits, accelerator, report, str(resume))
    return run_training(
        config,
        splits,
        prepare,
        accelerator=accelerator,
        report=report,
        resume=str(resume),
    )


def _complete(config: DistillConfig) -> None:
    """Check what only a student has, and fill in what follows from it."""
    if not config.teacher or not config.images:
        raise ConfigError("a student needs a teacher, such as timm:resnet50.a1_in1k, and images, a folder")
    if config.mix.mixup or config.mix.cutmix:
        raise ConfigError("mix: mixed images have no teacher of their own; leave mixup and cutmix at 0")
    if config.crops and config.teacher.endswith(VECTORS):
        raise ConfigError(f"crops is {config.crops}: {config.teacher} has one vector for each image; take 0")
    if config.cache and not config.crops:
        raise ConfigError("cache: nothing is kept where crops is 0, and the teacher sees every view anew")
    if config.cache:
        require_folder("cache", config.cache)
    count = len(config.images)
    config.repeats = config.repeats or [1] * count
    config.labelled = config.labelled or [False] * count
    if not len(config.repeats) == len(config.labelled) == count or min(config.repeats) < 1:
        raise ConfigError(
            f"{count} folders of images, repeats {config.repeats}, labelled {config.labelled}: one number of"
            " 1 or more, and one yes or no, for each folder"
        )
    if config.objective.mrl and not any(config.labelled):
        raise ConfigError(f"objective.mrl is {config.objective.mrl}, and asks for labels: none are labelled")
    _require_followed(config)
    config.model.projection = config.dim
    # What `validate` and `evaluate` open again.
    root = Path(config.images[0])
    config.data.name = "parquet" if any(root.glob("*.parquet")) else "folder"
    config.data.root = config.images[0]


def _require_followed(config: DistillConfig) -> None:
    """Refuse a loss that follows nothing: neither the teacher nor labels."""
    follow, labels = config.follow, any(config.labelled)
    asked = (follow.neighbours, config.objective.cross_entropy, config.objective.mrl)
    followed = [follow.regression, follow.prefixes, follow.similarity, follow.anchors]
    if not any(followed) and not (labels and any(asked)):
        raise ConfigError(
            "follow.regression, follow.prefixes, follow.similarity and follow.anchors are 0: a student that"
            " follows neither its teacher nor labels learns nothing"
        )


def open_sources(config: DistillConfig) -> Splits:
    """The images to train on, and those of labelled sources that are held out.

    Raises:
        DataError: no images, or none with a label where they are to count.
    """
    train, held_out = list[Images](), list[Images]()
    for place, counts in zip(config.images, config.labelled, strict=True):
        images = open_training_images(place)
        if counts and (images.labels == NO_LABEL).all():
            raise DataError(f"{place}: labelled says that its labels count, and no image has one")
        parts = split_by_id(images, config.data.held_out) if counts else Splits(images, Subset(images, []))
        train.append(parts.train)
        held_out.append(parts.held_out)
    measured = JoinedImages(held_out, [1] * len(held_out), config.labelled)
    return Splits(JoinedImages(train, config.repeats, config.labelled), measured)


def _prepare(
    config: DistillConfig, splits: Splits, accelerator: Accelerator, report: Reporter, resume: str
) -> Prepared:
    prepare_torch(config)
    # Without labels a head of one class, which nothing trains.
    model = build_model(config.model, max(1, len(splits.train.classes))).to(accelerator.device)
    objective = StudentObjective(config.objective, config.follow, model.embedding_dim, model.num_classes)
    assert isinstance(splits.train, JoinedImages)
    lesson = Teaching(config, splits.train, accelerator, report, resume).lesson(model.input)
    objective.anchors = lesson.anchors
    loaders = make_loaders(config, model.input, splits, accelerator, lesson.also, lesson.views)
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
        follows=lesson.follows,
    )
    require_best(config, model)
    if accelerator.is_main_process:
        lesson.rotation.save(Path(config.output) / FILE_NAME)
    return training, loaders
