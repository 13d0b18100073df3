"""The model of a gallery: the one that is to encode for it, and the one that made it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from matmamba_common.lazy import Deferred
from matmamba_common.words import shown
from matmamba_retrieval import Gallery
from matmamba_retrieval.remedies import ENCODER
from matmamba_retrieval.storage.records import Generation
from matmamba_retrieval.storage.spec import made_elsewhere

from ..checkpoint import Checkpoint, CheckpointError, load_checkpoint
from ..device import place_called
from ..encoders import is_named
from ..encoders.names import FUNCTION, file_of, is_taught
from ..given import PathLike, require_path

if TYPE_CHECKING:
    import torch

    from ..encoders import Encoder
    from .embedder import Embedder
    from .taught import Taught
else:
    torch = Deferred("torch")

CheckpointLike: TypeAlias = PathLike | Checkpoint
# A checkpoint, any encoder, or a student with its teacher.
ModelLike: TypeAlias = "PathLike | Checkpoint | Encoder | Taught | Embedder"

# Good for a first gallery, before anything is trained.
SHIPPED = "matmamba_mini_patch16_128"


def embedder_of(
    folder: Path | str,
    generation: Generation,
    named: ModelLike | None = None,
    device: torch.device | str = "cpu",
) -> Embedder:
    """The model of a gallery, from where it was or from where it is now.

    Args:
        folder: of the gallery.
        generation: whose model it is.
        named: where it is, if it was moved, or the model itself.
        device: where it is to compute.

    Raises:
        CheckpointError: it is no longer where it was, or cannot be read; or its vectors were made elsewhere.
        EncoderError: an encoder that cannot be had.
    """
    if made_elsewhere(generation.spec):
        raise CheckpointError(
            f"{folder} holds vectors that were made elsewhere: no model is known for it, {ENCODER} names one"
        )
    if named is None and not is_there(generation.checkpoint_path):
        raise CheckpointError(_missing(folder, generation.checkpoint_path))
    return embedder_at(generation.checkpoint_path if named is None else named, device)


def embedder_for(folder: Path, model: ModelLike | None) -> Embedder:
    """What encodes images that a gallery is given: what is named, else what made it, else what is shipped.

    Args:
        folder: of the gallery, which need not be there.
        model: that was named; None if none was.

    Raises:
        MatMambaError: what `embedder_of` and `embedder_at` raise; or the gallery is damaged.
    """
    if model is not None or not Gallery.exists(folder):
        return embedder_at(SHIPPED if model is None else model)
    with Gallery(folder) as gallery:
        return embedder_of(folder, gallery.generation)


def is_there(place: str) -> bool:
    """Whether a model may be where a gallery remembers it: what a library keeps is not looked for."""
    if place.startswith(FUNCTION):
        return False
    file = file_of(place) if is_named(place) else Path(place)
    return file is None or file.exists()


def _missing(folder: Path | str, place: str) -> str:
    if place.startswith(FUNCTION):
        return (
            f"{folder} was made by the Python function {place.removeprefix(FUNCTION)}: give it as the model"
        )
    return f"the checkpoint of {folder} is no longer at {place}: name where it is now"


def embedder_at(model: ModelLike, device: torch.device | str = "cpu", *, name: str = "model") -> Embedder:
    """What encodes by the model that an argument names, or is.

    Args:
        model: run folder, checkpoint file, or the name of a model whose weights are shipped; `timm:NAME`,
            `open_clip:ARCH/TAG`, or an ONNX file; `student:RUN::TEACHER`, or what `with_teacher` gives; or a
            checkpoint or an encoder that is loaded, which stays on the device where it is.
        device: where it is to compute: cpu, cuda, or auto for whichever is there.
        name: of the argument.

    Raises:
        TypeError: it is none of these.
        ConfigError: no such device.
        CheckpointError: it is missing or damaged.
        EncoderError: an encoder that cannot be had, or gives no vectors.
    """
    # A model of ours that is not there is told before PyTorch is loaded.
    opened = _opened(model, device, name) if isinstance(model, (str, os.PathLike, Checkpoint)) else model
    from ..encoders import Encoder
    from .embedder import Embedder
    from .taught import Taught

    if isinstance(opened, Embedder):
        return opened
    if not isinstance(opened, Checkpoint | Encoder | Taught):
        if callable(opened):
            raise TypeError(f"{name} is {shown(opened)}: encoder_from makes an encoder of a function")
        require_path(name, opened)
    return Embedder(opened)


def _opened(model: CheckpointLike, device: torch.device | str, name: str) -> Checkpoint | Encoder | Taught:
    """The model that an argument names, or is."""
    if isinstance(model, Checkpoint) or not is_named(place := str(require_path(name, model))):
        return checkpoint_at(model, device, name=name)
    from ..encoders import open_encoder
    from .taught import open_taught

    return (open_taught if is_taught(place) else open_encoder)(place, device=place_called(device))


def checkpoint_at(
    model: CheckpointLike, device: torch.device | str = "cpu", *, name: str = "model"
) -> Checkpoint:
    """The checkpoint that an argument names, or is.

    Args:
        model: run folder, checkpoint file, or the name of a model whose weights are shipped; or one that is
            loaded, which stays on the device where it is.
        device: where it is to compute: cpu, cuda, or auto for whichever is there.
        name: of the argument.

    Raises:
        TypeError: it is none of these.
        ConfigError: no such device.
        CheckpointError: it is missing or damaged, or an encoder that is not ours.
    """
    if isinstance(model, Checkpoint):
        place_called(device)
        return model
    place = require_path(name, model)
    if is_named(str(place)):
        raise CheckpointError(f"{name} {place} is no model of ours: it has no nested widths")
    return load_checkpoint(place, place_called(device))
