"""The model that a command measures: whether it can be there, and where what is found out is written."""

from __future__ import annotations

from pathlib import Path

from ..checkpoint import checkpoint_file, require_checkpoint
from ..encoders import is_named


def require_model(model: Path) -> None:
    """Raise `CheckpointError` if a checkpoint is missing, before anything heavy is loaded."""
    if not is_named(str(model)):
        require_checkpoint(model)


def folder_beside(model: Path, name: str) -> Path:
    """The folder `name` beside a checkpoint; below runs for a model that has no folder of the user's."""
    file = checkpoint_file(model)
    return file.parent / name if file.is_file() and not is_named(str(model)) else Path("runs", name)
