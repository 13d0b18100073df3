"""What callers give, checked before anything is done with it; messages name the argument."""

from __future__ import annotations

import os
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias

from ..checkpoint import Checkpoint, load_checkpoint
from ..device import resolve_device
from ..errors import ConfigError

PathLike: TypeAlias = str | os.PathLike[str]
CheckpointLike: TypeAlias = PathLike | Checkpoint


def require_least(least: int, **given: Any) -> None:
    """Raise if a whole number, or one of a list of them, is below `least`.

    Args:
        least: the smallest that is allowed.
        given: numbers or lists of numbers by the name of the argument; None passes.

    Raises:
        ConfigError: one is below.
        TypeError: one is no whole number.
    """
    for name, value in given.items():
        numbers = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
        for number in numbers:
            if number is None:
                continue
            if isinstance(number, bool) or not isinstance(number, Integral):
                raise TypeError(f"{name} is {number!r}: it can be a whole number, {least} or more")
            if int(number) < least:
                raise ConfigError(f"{name} is {number}: it can be {least} or more")


def require_lists(**given: Any) -> None:
    """Raise `TypeError` if an argument is a single text where a list is wanted, or no list at all."""
    for name, value in given.items():
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise TypeError(f"{name} is {value!r}: it can be a list, such as [{value!r}]")


def require_texts(**given: Any) -> None:
    """Raise `TypeError` if an argument is no text."""
    for name, value in given.items():
        if not isinstance(value, str):
            raise TypeError(f"{name} is {value!r}: it can be a str")


def path_of(name: str, value: Any) -> Path:
    """The path that an argument names; `TypeError` if it is none."""
    return Path(text_of(name, value))


def text_of(name: str, value: Any) -> str:
    """A path as it is written, which may be the address of a store; `TypeError` if it is none."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} is {value!r}: it can be a path, as a str or os.PathLike")
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
    require_texts(device=device)
    if isinstance(checkpoint, Checkpoint):
        return checkpoint
    return load_checkpoint(path_of("checkpoint", checkpoint), resolve_device(device))
