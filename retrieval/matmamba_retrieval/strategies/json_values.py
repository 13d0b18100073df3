"""Values as JSON holds them, checked as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import GalleryError

T = TypeVar("T")


def filled(kind: type[T], values: Mapping[str, Any], what: str) -> T:
    """A dataclass of these values; `GalleryError` naming the key that is unknown or of wrong type."""
    names = {known.name for known in fields(kind)}  # type: ignore[arg-type]
    if unknown := values.keys() - names:
        listed = ", ".join(known.name for known in fields(kind))  # type: ignore[arg-type]
        raise GalleryError(f"{what}: unknown key {min(unknown)!r}: one of {listed}")
    if wrong := _wrong(kind, values):
        raise GalleryError(f"{what}: {wrong}")
    try:
        return kind(**values)
    except TypeError as error:
        raise GalleryError(f"{what}: {error}") from error


def require_types(value: Any) -> None:
    """Raise `TypeError` naming the first field of a dataclass whose value is not of its type."""
    kind = type(value)
    known = {field.name: getattr(value, field.name) for field in fields(value)}
    if wrong := _wrong(kind, known):
        raise TypeError(f"{kind.__name__}: {wrong}")


def _wrong(kind: type[Any], values: Mapping[str, Any]) -> str:
    """Which value is not of the type that its field has, and which that is; "" if all are."""
    hints = get_type_hints(kind)
    texts = {known.name: known.type for known in fields(kind)}
    bad = (name for name, value in values.items() if not _fits(value, hints[name]))
    return next((f"{name} is {values[name]!r}, not {texts[name]}" for name in bad), "")


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
