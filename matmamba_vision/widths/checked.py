"""What callers give to jobs on a checkpoint, checked before anything is done; messages name the argument."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ..checkpoint import Checkpoint, load_checkpoint
from ..device import resolve_device
from ..galleries.given import require_type

PathLike: TypeAlias = str | os.PathLike[str]
CheckpointLike: TypeAlias = PathLike | Checkpoint


def require_lists(**given: Any) -> None:
    """Raise `TypeError` if an argument is a single text where a list is wanted, or no list at all."""
    for name, value in given.items():
        if isinstance(value, str):
            raise TypeError(f"{name} is {value!r}: it can be a list, such as [{value!r}]")
        require_type(name, value, Sequence, "a list")


def path_of(name: str, value: Any) -> Path:
    """The path that an argument names; `TypeError` if it is none."""
    return Path(text_of(name, value))


def text_of(name: str, value: Any) -> str:
    """A path as it is written, which may be the address of a store; `TypeError` if it is none."""
    require_type(name, value, (str, os.PathLike), "a path")
    return str(os.fspath(value))


def opened(checkpoint: CheckpointLike, device: str = "auto") -> Checkpoint:
    """The checkpoint that an argument of this name says.

    Args:
        checkpoint: run folder, checkpoint file, or the name of a model whose weights are shipped; or one that
            is loaded, which stays on the device where it is.
        device: cpu, cuda, or auto for whichever is there.

    Raises:
        CheckpointError: there is none, or it is damaged.
        ConfigError: no such device.
        TypeError: it is none of these.
    """
    require_type("device", device, str, "a text")
    if isinstance(checkpoint, Checkpoint):
        return checkpoint
    return load_checkpoint(path_of("checkpoint", checkpoint), resolve_device(device))
