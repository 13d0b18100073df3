"""Arguments of another type than a call takes: a `TypeError` that names the argument and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matmamba_common.words import in_words, shown
from numpy.typing import NDArray


def require_texts(values: Any, name: str) -> list[str]:
    """Several texts, as a list; `TypeError` if it is one text, or holds anything else."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise refusal(name, values, Sequence[str])
    found = list(values)
    for place, value in enumerate(found):
        if not isinstance(value, str):
            raise refusal(f"{name}[{place}]", value, str)
    return found


def require_wholes(values: Any, name: str) -> list[int]:
    """Several whole numbers, as a list of Python's own; `TypeError` if it holds anything else."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        found: list[int] = values.ravel().tolist()
        return found
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise refusal(name, values, Sequence[int])
    return [require_whole(value, f"{name}[{place}]") for place, value in enumerate(values)]


def require_whole(value: Any, name: str) -> int:
    """A whole number as Python's own; `TypeError` if it is anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise refusal(name, value, int)
    return int(value)


def require_text(value: Any, name: str) -> str:
    """A text; `TypeError` if it is anything else."""
    if not isinstance(value, str):
        raise refusal(name, value, str)
    return value


def require_array(value: Any, name: str, kinds: str, shape: str) -> NDArray[Any]:
    """A NumPy array whose dtype is of one of these kinds, such as "fiu"; `shape` is for the message."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds:
        words = {"f": "numbers (floating point)", "b": "yes and no (bool)"}
        raise TypeError(f"{name} is {shown(value)}: it can be an array {shape} of {words[kinds[0]]}")
    return value


def refusal(name: str, value: Any, kind: Any) -> TypeError:
    """What is raised for an argument of another type than `kind`."""
    return TypeError(f"{name} is {shown(value)}: it can be {in_words(kind)}")
