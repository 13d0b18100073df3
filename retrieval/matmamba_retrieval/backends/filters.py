"""Filters over a collection: Qdrant's conditions, as its JSON, that hold for the same images as SQL does.

SQL knows three answers: a comparison with what is absent is neither true nor false. Qdrant knows two, so a
filter is told as two conditions, one for where it is true and one for where it is false: NOT exchanges them.
What Qdrant cannot say with the same meaning is refused.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import GalleryError
from ..storage.conditions import ConditionReader, Name, Value
from .conditions_of_points import every, field_names, none_of
from .engine import BOOL, FLOAT, INTEGER, KEYWORD, Condition
from .layout import payload_path

# Whole numbers from here on are not all numbers of double precision, by which ranges compare.
MOST_EXACT = 2**53
_RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_OPPOSITES = {"=": "<>", "<>": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Truth:
    """Where a piece of a filter is true, and where it is false; elsewhere it is neither.

    Attributes:
        true: the condition; None for nowhere.
        false: the same.
    """

    true: Condition | None
    false: Condition | None


NEVER = Truth(None, None)


def compile_filter(text: str, kinds: Mapping[str, str], place: str) -> Condition | None:
    """The condition that a filter means, as `compile_where` says; None if no image can fulfil it.

    Args:
        text: the filter.
        kinds: of the metadata's values by path in the payload: keyword, integer, float or bool for those
            that are all of that type, anything else for others.
        place: of the collection, for messages.

    Raises:
        GalleryError: not a filter, an unknown name, or one that cannot be said with the same meaning.
    """
    return _FilterWriter(kinds, place).read(text).true


def payload_key(name: Name) -> str:
    """Where a column or a metadata field stands in the payload of a point."""
    return name.column or payload_path(name.field) or ""


class _FilterWriter(ConditionReader[Truth]):
    """Writes conditions for the pieces of a filter."""

    def __init__(self, kinds: Mapping[str, str], place: str) -> None:
        super().__init__(field_names(kinds))
        self._kinds, self._place = kinds, place

    def joined(self, parts: Sequence[Truth], every: bool) -> Truth:
        true, false = [part.true for part in parts], [part.false for part in parts]
        return Truth(_all(true), _any(false)) if every else Truth(_any(true), _all(false))

    def negated(self, part: Truth) -> Truth:
        return Truth(part.false, part.true)

    def compared(self, name: Name, sign: str, value: Value) -> Truth:
        kind = self._kind(name)
        if isinstance(value, str) != (kind == KEYWORD):
            return NEVER
        if isinstance(value, str):
            if sign not in ("=", "<>"):
                raise self._refused(f"{name.shown} {sign} '{value}'", "texts are compared by = and <> alone")
            same = {"key": payload_key(name), "match": {"value": value}}
            return _unless(name, same) if sign == "=" else self.negated(_unless(name, same))
        if kind == BOOL:
            return Truth(_bools(name, sign, value), _bools(name, _OPPOSITES[sign], value))
        if abs(value) >= MOST_EXACT:
            raise self._refused(f"{name.shown} {sign} {value}", "numbers are below 2^53 there")
        whole = kind == INTEGER
        return Truth(_range(name, sign, value, whole), _range(name, _OPPOSITES[sign], value, whole))

    def names_compared(self, left: Name, sign: str, right: Name) -> Truth:
        raise self._refused(f"{left.shown} {sign} {right.shown}", "a name is compared with a value alone")

    def one_of(self, name: Name, values: Sequence[Value]) -> Truth:
        kind = self._kind(name)
        fitting = [value for value in values if isinstance(value, str) == (kind == KEYWORD)]
        if not fitting:
            # Values of both types are compared as they are: none of these is one of the field's.
            return NEVER
        if kind == KEYWORD:
            return _unless(name, {"key": payload_key(name), "match": {"any": fitting}})
        found = self.joined([self.compared(name, "=", value) for value in fitting], False)
        return NEVER if found.true is None and found.false is None else found

    def like(self, name: Name, pattern: str, escape: str | None) -> Truth:
        raise self._refused(f"{name.shown} LIKE '{pattern}'", "texts are compared by =, <> and IN alone")

    def absent(self, name: Name) -> Truth:
        self._kind(name)
        return Truth(_empty(name), none_of([_empty(name)]))

    def _kind(self, name: Name) -> str:
        """Of a column or field; `GalleryError` if its values are not of one type that can be compared."""
        kind = KEYWORD if name.column else self._kinds.get(payload_key(name), "")
        if kind not in (KEYWORD, INTEGER, FLOAT, BOOL):
            raise self._refused(name.shown, "its values are lists, or of several types")
        return kind

    def _refused(self, piece: str, why: str) -> GalleryError:
        shown = piece if len(piece) <= 80 else f"{piece[:77]}..."
        return GalleryError(f"{self._place} cannot filter by {shown}: {why}; ask the folder gallery")


def _all(parts: Sequence[Condition | None]) -> Condition | None:
    known = [part for part in parts if part is not None]
    return every(known) if len(known) == len(parts) else None


def _any(parts: Sequence[Condition | None]) -> Condition | None:
    known = [part for part in parts if part is not None]
    return (known[0] if len(known) == 1 else {"should": known}) if known else None


def _empty(name: Name) -> Condition:
    return {"is_empty": {"key": payload_key(name)}}


def _unless(name: Name, same: Condition) -> Truth:
    """True where a condition holds, false where there is another value."""
    return Truth(same, none_of([_empty(name), same]))


def _bools(name: Name, sign: str, value: float) -> Condition | None:
    """Truth values are 0 and 1 to SQL."""
    found = [flag for flag in (False, True) if _SIGNS[sign](int(flag), value)]
    if len(found) == 2:
        return none_of([_empty(name)])
    return _any([{"key": payload_key(name), "match": {"value": flag}} for flag in found])


def _range(name: Name, sign: str, value: float, whole: bool) -> Condition | None:
    """Numbers that compare so with a value; of whole ones, whose bounds Qdrant cuts, by whole bounds."""
    key = payload_key(name)
    if sign == "<>":
        return _any([_range(name, other, value, whole) for other in ("<", ">")])
    if sign == "=":
        if whole and value != int(value):
            return None
        return {"key": key, "range": {"gte": value, "lte": value}}
    if whole and value != int(value):
        below = sign in ("<", "<=")
        sign, value = ("<=", math.floor(value)) if below else (">=", math.ceil(value))
    return {"key": key, "range": {_RANGES[sign]: value}}
