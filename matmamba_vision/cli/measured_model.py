"""The model that a command names: whether it can be there, its teacher, and what is written beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoint import checkpoint_file, require_checkpoint
from ..encoders import is_named

if TYPE_CHECKING:
    from ..galleries.taught import Taught

# The teacher that the student's run names.
AUTO = "auto"


def model_named(checkpoint: Path, teacher: str, device: str = "cpu") -> Path | Taught:
    """The model of a command: a checkpoint, or with a teacher both.

    Args:
        checkpoint: as it was named.
        teacher: its name, auto for the one that the student's run names, "" for none.
        device: where both are to compute.

    Raises:
        MatMambaError: see `with_teacher`.
    """
    if not teacher:
        return checkpoint
    # Here, because it loads torch.
    from ..galleries.taught import with_teacher

    return with_teacher(checkpoint, None if teacher == AUTO else teacher, device=device)


def require_model(model: Path) -> None:
    """Raise `CheckpointError` if a checkpoint is missing, before anything heavy is loaded."""
    if not is_named(str(model)):
        require_checkpoint(model)


def folder_beside(model: Path, name: str) -> Path:
    """The folder `name` beside a checkpoint; below runs for a model that has no folder of the user's."""
    file = checkpoint_file(model)
    return file.parent / name if file.is_file() and not is_named(str(model)) else Path("runs", name)
