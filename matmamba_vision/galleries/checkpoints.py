"""The checkpoint that makes a gallery, and the one that made it."""

from __future__ import annotations

from pathlib import Path

import torch
from matmamba_retrieval.exchange.importing import made_elsewhere
from matmamba_retrieval.storage.records import Generation

from ..checkpoint import Checkpoint, CheckpointError, load_checkpoint

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
