"""The checkpoint that makes a gallery, and the one that made it."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from matmamba_retrieval.storage.records import Generation
from matmamba_retrieval.storage.spec import made_elsewhere

from ..checkpoint import Checkpoint, CheckpointError, load_checkpoint
from .given import require_path

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
    model: str | os.PathLike[str] | Checkpoint, device: torch.device | str = "cpu"
) -> Checkpoint:
    """The checkpoint that an argument `model` names, or is.

    Args:
        model: run folder, checkpoint file, the name of a model whose weights are shipped, or loaded already.
        device: where it is to compute, if it is not loaded yet.

    Raises:
        TypeError: it is none of these.
        CheckpointError: it is missing or damaged.
    """
    return model if isinstance(model, Checkpoint) else load_checkpoint(require_path("model", model), device)
