"""The batches of a run: augmented ones to train on, plain ones to measure on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from matmamba_datasets import (
    BrokenTally,
    DecodedLoader,
    FixedViews,
    Images,
    JoinedImages,
    Loader,
    SizedViews,
    Splits,
    decode,
    eval_transform,
    make_loader,
    train_transform,
    view_transform,
)

from ..errors import ConfigError
from ..measures.accuracy import evaluate_widths
from ..models import MatMamba
from ..progress import counted
from ..training import Training
from .train_config import TrainConfig


def make_loaders(
    config: TrainConfig,
    input: Mapping[str, Any],
    splits: Splits,
    accelerator: Accelerator,
    also: int | None = None,
    views: FixedViews | None = None,
) -> tuple[Loader | DecodedLoader, Loader]:
    """Batches to train on, and batches to measure on.

    Args:
        input: the model's data configuration.
        also: a second size at which decoded images are seen, see `DecodedLoader`.
        views: which parts of the images are trained on; random ones by default.
    """
    data = config.data
    known: dict[str, Any] = {"workers": data.workers}
    known |= {"rank": accelerator.process_index, "ranks": accelerator.num_processes}
    try:
        augmenting = train_transform if views is None else view_transform
        augmented, plain = augmenting(input, data.augment), eval_transform(input)
    except AssertionError as error:
        # timm's way of refusing a policy.
        raise ConfigError(f"data.augment.auto_augment {data.augment.auto_augment!r}: {error}") from error
    measured = make_loader(splits.held_out, plain, data.batch_size, **known)
    if data.decoded:
        return _decoded(config, input, splits.train, accelerator, also, views), measured
    known["views"] = None if views is None else SizedViews(views, int(input["input_size"][-1]))
    return make_loader(
        splits.train, augmented, data.batch_size, shuffle=True, seed=config.seed, **known
    ), measured


def _decoded(
    config: TrainConfig,
    input: Mapping[str, Any],
    images: Images,
    accelerator: Accelerator,
    also: int | None,
    views: FixedViews | None,
) -> DecodedLoader:
    if accelerator.num_processes > 1:
        raise ConfigError(
            "data.decoded: every process would hold all images; leave it out, or take one process"
        )
    data = config.data
    joined = images if isinstance(images, JoinedImages) else JoinedImages([images], [1], [True])
    pixels = [decode(source, data.decoded, data.workers) for source in joined.sources]
    return DecodedLoader(
        joined, pixels, input, data.augment, data.batch_size, config.seed, accelerator.device, also, views
    )


def measured_on(
    training: Training, loader: Loader, config: TrainConfig
) -> Callable[[MatMamba], dict[str, float]]:
    """A function from a model to its top-1 by width on the held-out images."""
    tally = BrokenTally(len(loader.images), config.data.max_broken, "data.max_broken")

    def measured(model: MatMamba) -> dict[str, float]:
        if not len(loader.images):
            return {}
        widths = training.model.trained_widths
        # Measured now and then: not worth graphs of its own.
        with torch.compiler.set_stance("force_eager"):
            return evaluate_widths(model, counted(loader, tally), widths)

    return measured
