"""Calls that users make: what they are given is checked in one way, what the system refuses is an error."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from matmamba_common.settings import require
from matmamba_common.words import in_words, shown

from .errors import ConfigError, refusals

F = TypeVar("F", bound=Callable[..., Any])
PLAIN = (int, float, str, bool, NoneType, os.PathLike)
LISTS = (list, tuple, Sequence)


def public_call(call: F) -> F:
    """A decorator of calls that users make.

    Arguments whose annotation has nothing but numbers, texts, yes and no, paths, and lists of these are
    looked at first, so that no call does half its work; the call itself looks at all others. Then `refusals`
    holds.

    Args:
        call: a function or a method.

    Raises:
        TypeError: an argument is of another type than its annotation says; the message names it.
        ConfigError: a number that is none (NaN), or a path that is empty or has a NUL.
    """
    parameters = inspect.signature(call).parameters
    names = [*parameters]

    @wraps(call)
    def checked(*values: Any, **named: Any) -> Any:
        hints = _plain_hints(call)
        for name, value in (*zip(names, values, strict=False), *named.items()):
            if name in hints:
                _require(name, value, hints[name])
                if _has_path(hints[name]):
                    _require_place(name, value, hints[name], parameters[name].default)
        with refusals():
            return call(*values, **named)

    return cast("F", checked)


def _require(name: str, value: Any, hint: Any) -> None:
    if isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{name} is {shown(value)}: it can be a number")
    if not (_has_list(hint) and _may_be_a_list(value, hint)):
        require(name, value, hint)


def _require_place(name: str, value: Any, hint: Any, default: Any) -> None:
    """Refuse a path that would be the folder where the program runs, and one that no system takes."""
    if value == "" != default:
        raise ConfigError(f"{name} is empty: it can be {in_words(hint)}")
    if isinstance(value, str) and "\0" in value:
        raise ConfigError(f"{name} is {shown(value)}: it can be {in_words(hint)}, without a NUL")


def _may_be_a_list(value: Any, hint: Any) -> bool:
    """One text of several, or what gives values one by one: the call says if that is a list."""
    others = (bytes, bytearray, memoryview, Mapping, Sequence)
    if isinstance(value, str):
        return not _has_numbers(hint)
    return isinstance(value, Iterable) and not isinstance(value, others)


@cache
def _plain_hints(call: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a call that can be checked here, by argument; they are read when it is first called."""
    known = {}
    for name, text in inspect.get_annotations(call).items():
        alone = SimpleNamespace(__annotations__={name: text})
        try:
            hint = get_type_hints(alone, globalns=call.__globals__)[name]
        # Of names that only a checker of types imports: the call looks at these itself.
        except (NameError, AttributeError, TypeError):
            continue
        if _is_plain(hint):
            known[name] = hint
    return known


def _is_plain(hint: Any) -> bool:
    inner = get_args(hint) if get_origin(hint) in (Union, UnionType, *LISTS) else ()
    kinds = [one for one in inner if one is not ...]
    return all(map(_is_plain, kinds)) if kinds else (get_origin(hint) or hint) in PLAIN


def _has_numbers(hint: Any) -> bool:
    return hint in (int, float) or any(map(_has_numbers, get_args(hint)))


def _has_path(hint: Any) -> bool:
    return any((get_origin(one) or one) is os.PathLike for one in (hint, *get_args(hint)))


def _has_list(hint: Any) -> bool:
    origin = get_origin(hint)
    return origin in LISTS or (origin in (Union, UnionType) and any(map(_has_list, get_args(hint))))
