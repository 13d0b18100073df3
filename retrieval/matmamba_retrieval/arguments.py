"""Arguments of another type than a call takes: a `TypeError` that names the argument and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def require_texts(values: Any, name: str) -> list[str]:
    """Several texts, as a list; `TypeError` if it is one text, or holds anything else."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} is {values!r}: it has to be a list of texts")
    found = list(values)
    for value in found:
        if not isinstance(value, str):
            raise TypeError(f"{name} has {value!r}: all have to be texts")
    return found


def require_wholes(values: Any, name: str) -> list[int]:
    """Several whole numbers, as a list of Python's own; `TypeError` if it holds anything else."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        found: list[int] = values.ravel().tolist()
        return found
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} is {values!r}: it has to be a list of whole numbers")
    return [require_whole(value, name) for value in values]


def require_whole(value: Any, name: str) -> int:
    """A whole number as Python's own; `TypeError` if it is anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} is {value!r}: it has to be a whole number")
    return int(value)


def require_text(value: Any, name: str) -> str:
    """A text; `TypeError` if it is anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}: it has to be a text")
    return value


def require_array(value: Any, name: str, kinds: str, shape: str) -> NDArray[Any]:
    """A NumPy array whose dtype is of one of these kinds, such as "fiu"; `shape` is for the message."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds:
        given = f"{value.dtype} array" if isinstance(value, np.ndarray) else type(value).__name__
        words = {"f": "floats", "b": "truth values"}
        raise TypeError(f"{name} is a {given}: it has to be an array {shape} of {words[kinds[0]]}")
    return value
