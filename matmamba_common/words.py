"""What values and types are called in messages: alike on the command line, in YAML and in Python."""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

# One, and several of a list.
_WORDS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    bool: ("yes or no (true/false)", "yes or no (true/false) each"),
    bytes: ("bytes", "bytes each"),
    types.NoneType: ("left out", "nothing"),
    Any: ("anything", "anything"),
}
_LISTS = (list, Sequence)
_MAPPINGS = (dict, Mapping)
# Longer texts and lists are not shown whole.
_LONGEST = 80


def shown(value: Any) -> str:
    """A value behind "it is": itself where it is short and plain, or else what it is.

    Args:
        value: whatever was given.
    """
    if value is None or isinstance(value, bool):
        return "nothing" if value is None else str(value).lower()
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST else value[:_LONGEST] + "...")
    if isinstance(value, Real):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytes"
    if isinstance(value, list | tuple):
        return _listed(value)
    if isinstance(value, PurePath):
        return f"the path {value}"
    return _called(value)


def _listed(values: Sequence[Any]) -> str:
    """A short list with its values, a longer one with their count."""
    whole = f"[{', '.join(map(shown, values))}]" if len(values) <= _LONGEST // 2 else ""
    return whole if 0 < len(whole) <= _LONGEST else f"a list of {len(values)}"


def _called(value: Any) -> str:
    """What is neither a number, text nor list."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"an array of {value.dtype}, shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"the function {value.__name__}" if hasattr(value, "__name__") else _article(type(value).__name__)


def in_words(hint: Any) -> str:
    """A type behind "it can be".

    Args:
        hint: a type as annotations have it, or several as `isinstance` takes them.
    """
    if hint in _WORDS:
        return _WORDS[hint][0]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return in_words(inner[0])
    if origin in (Union, types.UnionType) or isinstance(hint, tuple):
        return _any_of(inner or hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if (origin or hint) in (*_LISTS, tuple):
        return _list_of(inner)
    if (origin or hint) in _MAPPINGS:
        return f"a mapping of {' to '.join(map(_several, inner))}" if inner else "a mapping"
    if (origin or hint) is Callable:
        return "a function"
    if isinstance(origin or hint, type) and issubclass(origin or hint, (os.PathLike, PurePath)):
        return "a path"
    return _article(getattr(hint, "__name__", str(hint)))


def _any_of(kinds: Sequence[Any]) -> str:
    """One of several types, whatever may be left out last; a path is a text or a path."""
    words = dict.fromkeys(in_words(kind) for kind in kinds if kind is not types.NoneType)
    if "a path" in words:
        words.pop("text", None)
    said = " or ".join(words)
    return said if types.NoneType not in kinds else f"{said}{',' * (' or ' in said)} or left out"


def _list_of(inner: tuple[Any, ...]) -> str:
    """A list of values of one type, or of as many as there are types."""
    kinds = [one for one in inner if one is not ...]
    if not kinds:
        return "a list"
    if len(inner) == 1 or ... in inner:
        return f"a list of {_several(kinds[0])}"
    if len(set(kinds)) == 1:
        return f"a list of {len(kinds)} {_several(kinds[0])}"
    return f"a list: {', '.join(map(in_words, kinds))}"


def _several(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return _several(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_several, get_args(hint)))
    return _WORDS[hint][1] if hint in _WORDS else f"{in_words(hint)} each"


def _article(name: str) -> str:
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"
