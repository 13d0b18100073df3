"""The model of a gallery: the checkpoint that is to encode for it, and the one that made it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from matmamba_common.lazy import Deferred
from matmamba_retrieval.storage.records import Generation
from matmamba_retrieval.storage.spec import made_elsewhere

from ..checkpoint import Checkpoint, CheckpointError, load_checkpoint
from ..device import place_called
from ..given import PathLike, require_path, require_type

if TYPE_CHECKING:
    import torch
else:
    torch = Deferred("torch")

CheckpointLike: TypeAlias = PathLike | Checkpoint

# Good for a first gallery, before anything is trained.
SHIPPED = "matmamba_mini_patch16_128"


def checkpoint_of(
    folder: Path, generation: Generation, named: Path | None = None, device: torch.device | str = "cpu"
) -> Checkpoint:
    """The checkpoint of a gallery, from where it was or from where it is now.

    Args:
        named: where it is, if it was moved.

    Raises:
        CheckpointError: it is no longer where it was, or cannot be read; or its vectors were made elsewhere.
    """
    if made_elsewhere(generation.spec):
        raise CheckpointError(f"{folder} holds vectors that were made elsewhere: no model is known for it")
    path = named or Path(generation.checkpoint_path)
    if named is None and not path.exists():
        raise CheckpointError(f"the checkpoint of {folder} is no longer at {path}: name where it is now")
    return load_checkpoint(path, device)


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
        CheckpointError: it is missing or damaged.
    """
    if not isinstance(device, str):
        require_type("device", device, torch.device, "a text")
    if isinstance(model, Checkpoint):
        return model
    place = require_path(name, model)
    return load_checkpoint(place, place_called(device) if isinstance(device, str) else device)
