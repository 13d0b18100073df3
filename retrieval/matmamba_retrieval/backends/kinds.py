"""Of which kind the values of metadata are, so that filters over them have an index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .engine import BOOL, FLOAT, INTEGER, KEYWORD
from .layout import payload_path

# Mixed ones: no index would find all of them. Of a name that no image has a value for yet.
MIXED, NOTHING = "", "null"
# The engine's whole numbers end here.
_LARGEST = 2**63


def merge_kinds(known: dict[str, str], metadata: Iterable[Mapping[str, Any]]) -> None:
    """Take in the kinds of some images' metadata, by path in the payload."""
    for each in metadata:
        for path, kind in _kinds(each, ()):
            known[path] = _merged(known.get(path, NOTHING), kind)


def _merged(known: str, kind: str) -> str:
    if known == kind or kind == NOTHING:
        return known
    if known == NOTHING:
        return kind
    return FLOAT if {known, kind} == {INTEGER, FLOAT} else MIXED


def _kinds(metadata: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Of all names: a folder's filters know those of objects, and those without any value, too."""
    for name, value in metadata.items():
        names = (*above, name)
        if (path := payload_path(names)) is not None:
            yield path, _kind(value)
        if isinstance(value, Mapping):
            yield from _kinds(value, names)


def _kind(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        return INTEGER if -_LARGEST <= value < _LARGEST else MIXED
    if isinstance(value, float):
        return FLOAT
    return KEYWORD if isinstance(value, str) else MIXED
