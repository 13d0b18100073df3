"""Values as JSON holds them, checked as they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from matmamba_common.words import in_words, shown

from ..errors import GalleryError

T = TypeVar("T")


def filled(kind: type[T], values: Mapping[str, Any], what: str) -> T:
    """A dataclass of these values; `GalleryError` naming a key that is unknown, missing or of wrong type."""
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := values.keys() - known.keys():
        raise GalleryError(f"{what}: unknown key {min(unknown)!r}: one of {', '.join(known)}")
    if wrong := _wrong(kind, values):
        raise GalleryError(f"{what}: {wrong}")
    if missing := [name for name, field in known.items() if _is_needed(field) and name not in values]:
        raise GalleryError(f"{what} lacks {', '.join(missing)}")
    return kind(**values)


def _is_needed(known: Field[Any]) -> bool:
    return known.init and known.default is MISSING and known.default_factory is MISSING


def require_types(value: Any) -> None:
    """Raise `TypeError` naming the first field of a dataclass whose value is not of its type."""
    kind = type(value)
    known = {field.name: getattr(value, field.name) for field in fields(value)}
    if wrong := _wrong(kind, known):
        raise TypeError(f"{kind.__name__}: {wrong}")


def _wrong(kind: type[Any], values: Mapping[str, Any]) -> str:
    """Which value is not of the type that its field has, and which that is; "" if all are."""
    hints = _hints(kind)
    bad = (name for name, value in values.items() if not _fits(value, hints[name]))
    return next((f"{name} is {shown(values[name])}: it can be {in_words(hints[name])}" for name in bad), "")


# To read them takes longer than to check the values of a strategy, of which each query makes one.
_hints: Callable[[Any], dict[str, Any]] = cache(get_type_hints)


def _fits(value: Any, hint: Any) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, parts[0]) for item in value)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, origin or hint)
