"""Training by another network: every width of a student answers in its teacher's space. No labels are needed.

The teacher's space is rotated once, to its principal directions (an isometry, kept in the run as
rotation.safetensors), and the student learns the leading coordinates of the rotated vectors: so short
prefixes mean something for both.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from matmamba_datasets import (
    Images,
    JoinedImages,
    Splits,
    Subset,
    eval_transform,
    make_loader,
    open_training_images,
)
from matmamba_datasets.splits import split_by_id
from numpy.typing import NDArray
from torch import Tensor

from ..encoders import Encoder, open_encoder
from ..errors import ConfigError, refusals
from ..progress import Listener, Reporter
from ..rotation import FILE_NAME, Rotation, fit_rotation, load_rotation
from ..training import (
    OnlineTeacher,
    StoredTeacher,
    StudentObjective,
    build_model,
    prepare_training,
    read_vectors,
    teacher_vectors,
)
from ..training.training import Follows
from .fitting import Prepared, Run, accelerator_of, prepare_torch, reporter_of, require_best, run_training
from .run_batches import make_loaders
from .train_config import DistillConfig, check_config, config_of

VECTORS = ".npy"
# Images of a batch whose teacher vectors the rotation is fitted to.
SAMPLED = 64


@refusals()
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
    _complete(config)
    splits = open_sources(config)
    accelerator = accelerator_of(config)
    report = reporter_of(accelerator, Reporter(progress))
    prepare = partial(_prepare, config, splits, accelerator, report, str(resume))
    return run_training(
        config,
        len(splits.held_out),
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
    count = len(config.images)
    config.repeats = config.repeats or [1] * count
    config.labelled = config.labelled or [False] * count
    if not len(config.repeats) == len(config.labelled) == count or min(config.repeats) < 1:
        raise ConfigError(
            f"{count} folders of images, repeats {config.repeats}, labelled {config.labelled}: one number of"
            " 1 or more, and one yes or no, for each folder"
        )
    config.model.projection = config.dim
    # What `validate` and `evaluate` open again.
    root = Path(config.images[0])
    config.data.name = "parquet" if any(root.glob("*.parquet")) else "folder"
    config.data.root = config.images[0]


def open_sources(config: DistillConfig) -> Splits:
    """The images to train on, and those of labelled sources that are held out."""
    train, held_out = list[Images](), list[Images]()
    for place, counts in zip(config.images, config.labelled, strict=True):
        images = open_training_images(place)
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
    follows, size = _teacher(config, splits.train, model.input, accelerator.device, report, resume)
    loaders = make_loaders(config, model.input, splits, accelerator, size)
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
        follows=follows,
    )
    require_best(config, model)
    return training, loaders


def _teacher(
    config: DistillConfig,
    images: JoinedImages,
    input: Mapping[str, Any],
    device: torch.device,
    report: Reporter,
    resume: str,
) -> tuple[Follows, int | None]:
    """What the student follows, and the size of the teacher's own images if it sees some."""
    if config.teacher.endswith(VECTORS):
        vectors, digest = read_vectors(Path(config.teacher), sum(map(_stored_count, images.sources)))
        positions = _stored_rows(images)
        known = vectors[torch.from_numpy(np.unique(positions))]
        rotation = _rotation(config, digest, vectors.shape[1], lambda: known, resume)
        return StoredTeacher(rotation(vectors, config.dim).to(device), positions), None
    encoder = open_encoder(config.teacher, config.teacher_size, device, half=device.type == "cuda")
    report.say(f"teacher: {encoder.name}, {encoder.dim} numbers of {encoder.size} px, {encoder.digest[:12]}")
    sample = partial(_some_vectors, config, encoder, images, device)
    rotation = _rotation(config, encoder.digest, encoder.dim, sample, resume)
    return OnlineTeacher(encoder, rotation.to(device), input, config.dim), encoder.size


def _stored_count(images: Images) -> int:
    """Images of a source, those that are held out too."""
    return images.whole if isinstance(images, Subset) else len(images)


def _stored_rows(images: JoinedImages) -> NDArray[np.int64]:
    """For each image of the collection, its row in a file with one for each image of all sources."""
    starts = np.cumsum([0, *map(_stored_count, images.sources)])
    rows = [
        start + (source.indices if isinstance(source, Subset) else np.arange(len(source)))
        for start, source in zip(starts, images.sources, strict=False)
    ]
    return np.concatenate(rows)[images.unique]


def _some_vectors(
    config: DistillConfig, encoder: Encoder, images: JoinedImages, device: torch.device
) -> Tensor:
    """Teacher vectors of images picked by chance, as it sees them whole."""
    order = np.random.default_rng(config.seed).permutation(len(images))
    # Each once, however often an epoch sees it.
    _, first = np.unique(images.unique[order], return_index=True)
    chosen = Subset(images, np.sort(order[np.sort(first)[: config.rotation_images]]))
    transform = eval_transform(encoder.input)
    # Small batches: those of many workers lie in shared memory at once.
    loader = make_loader(chosen, transform, SAMPLED, workers=config.data.workers)
    return teacher_vectors(encoder, loader, device)


def _rotation(
    config: DistillConfig, digest: str, length: int, vectors: Callable[[], Tensor], resume: str
) -> Rotation:
    """The rotation of the run: the one in its folder if it goes on, else a new one, written there.

    Args:
        digest: of what made the vectors.
        length: of a vector.
        vectors: makes those to fit to.

    Raises:
        ConfigError: the student is to have more coordinates than the teacher.
        RotationError: the run that goes on had another teacher.
    """
    if config.dim > length:
        raise ConfigError(f"dim is {config.dim}: the teacher's vectors have {length} numbers")
    file = Path(config.output) / FILE_NAME
    if resume != "no" and file.is_file():
        rotation = load_rotation(file, digest)
    else:
        rotation = fit_rotation(vectors(), digest)
        rotation.save(file)
    config.teacher_digest, config.rotation_digest = digest, rotation.digest
    return rotation
