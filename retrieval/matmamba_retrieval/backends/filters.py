"""Filters over a collection: Qdrant's conditions, as its JSON, that hold for the same images as SQL does.

SQL knows three answers: a comparison with what is absent is neither true nor false. Qdrant knows two, so a
filter is told as two conditions, one for where it is true and one for where it is false: NOT exchanges them.
What Qdrant cannot say with the same meaning is told by where it may be true and may be false: points that may
fulfil a filter, and for all that is told may not, are looked at one by one.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..storage.conditions import ConditionReader, Name, Value
from .conditions_of_points import every, field_names, none_of
from .engine import BOOL, FLOAT, KEYWORD, Condition
from .kinds import MIXED, NOTHING
from .layout import payload_path

# Whole numbers from here on are not all numbers of double precision, by which ranges compare.
MOST_EXACT = 2**53
# By so many steps of double precision, at most, a decimal may differ from the one that was pushed.
DOUBTFUL_STEPS = 8
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
        true: the condition of points of which that is certain; None for nowhere.
        false: the same.
        may_be_true: the condition of points of which that cannot be excluded.
        may_be_false: the same.
    """

    true: Condition | None
    false: Condition | None
    may_be_true: Condition | None
    may_be_false: Condition | None

    @staticmethod
    def certain(true: Condition | None, false: Condition | None) -> Truth:
        """What the engine can say."""
        return Truth(true, false, true, false)

    @staticmethod
    def unsaid(among: Condition) -> Truth:
        """What it cannot: any of some points may fulfil it, or not."""
        return Truth(None, None, among, among)

    @property
    def doubtful(self) -> Condition | None:
        """Points that have to be looked at; None if the engine can say it all."""
        if self.may_be_true == self.true or self.may_be_true is None:
            return None
        return self.may_be_true if self.true is None else every([self.may_be_true, none_of([self.true])])


NEVER = Truth.certain(None, None)
# Any point.
_ALL: Condition = {"must_not": []}


def compile_filter(text: str, kinds: Mapping[str, str], *, truth_values: bool = True) -> Truth:
    """Where a filter is true, as `compile_where` says.

    Args:
        text: the filter.
        kinds: of the metadata's values by path in the payload: keyword, integer, float or bool for those
            that are all of that type, null where there are none, anything else for others.
        truth_values: whether the engine finds them.

    Raises:
        GalleryError: not a filter, or an unknown name.
    """
    return _FilterWriter(kinds, truth_values).read(text)


def payload_key(name: Name) -> str:
    """Where a column or a metadata field stands in the payload of a point."""
    return name.column or payload_path(name.field) or ""


class _FilterWriter(ConditionReader[Truth]):
    """Writes conditions for the pieces of a filter."""

    def __init__(self, kinds: Mapping[str, str], truth_values: bool) -> None:
        super().__init__(field_names(kinds))
        self._kinds, self._truth_values = kinds, truth_values

    def joined(self, parts: Sequence[Truth], every: bool) -> Truth:
        true, false = (_all, _any) if every else (_any, _all)
        return Truth(
            true([part.true for part in parts]),
            false([part.false for part in parts]),
            true([part.may_be_true for part in parts]),
            false([part.may_be_false for part in parts]),
        )

    def negated(self, part: Truth) -> Truth:
        return Truth(part.false, part.true, part.may_be_false, part.may_be_true)

    def compared(self, name: Name, sign: str, value: Value) -> Truth:
        kind = self._kind(name)
        if kind == MIXED:
            return Truth.unsaid(_ALL)
        if kind == NOTHING or isinstance(value, str) != (kind == KEYWORD):
            return NEVER
        if isinstance(value, str):
            if sign not in ("=", "<>"):
                return Truth.unsaid(_there(name))
            same = {"key": payload_key(name), "match": {"value": value}}
            return _unless(name, same) if sign == "=" else self.negated(_unless(name, same))
        if kind == BOOL:
            if not self._truth_values:
                return Truth.unsaid(_there(name))
            return Truth.certain(_bools(name, sign, value), _bools(name, _OPPOSITES[sign], value))
        if abs(value) >= MOST_EXACT:
            return Truth.unsaid(_there(name))
        if kind == FLOAT:
            return _of_decimals(name, sign, float(value))
        return Truth.certain(_range(name, sign, value, True), _range(name, _OPPOSITES[sign], value, True))

    def names_compared(self, left: Name, sign: str, right: Name) -> Truth:
        known = [_there(name) for name in (left, right) if self._kind(name) != MIXED]
        return Truth.unsaid(every(known) if known else _ALL)

    def one_of(self, name: Name, values: Sequence[Value]) -> Truth:
        kind = self._kind(name)
        if kind == MIXED:
            return Truth.unsaid(_ALL)
        fitting = [value for value in values if isinstance(value, str) == (kind == KEYWORD)]
        if not fitting:
            # Values of both types are compared as they are: none of these is one of the field's.
            return NEVER
        if kind == KEYWORD:
            return _unless(name, {"key": payload_key(name), "match": {"any": fitting}})
        return self.joined([self.compared(name, "=", value) for value in fitting], False)

    def like(self, name: Name, pattern: str, escape: str | None) -> Truth:
        kind = self._kind(name)
        if kind == MIXED:
            return Truth.unsaid(_ALL)
        return Truth.unsaid(_there(name)) if kind == KEYWORD else NEVER

    def absent(self, name: Name) -> Truth:
        if self._kind(name) == MIXED:
            return Truth.unsaid(_ALL)
        return Truth.certain(_empty(name), _there(name))

    def _kind(self, name: Name) -> str:
        """Of a column or field; mixed if its values are not of one type that can be compared."""
        if name.column:
            return KEYWORD
        key = payload_key(name)
        # Of some images it may be an object, in which others have a value.
        if any(path.startswith(f"{key}.") for path in self._kinds):
            return MIXED
        return self._kinds.get(key, MIXED)


def _all(parts: Sequence[Condition | None]) -> Condition | None:
    known = [part for part in parts if part is not None]
    return every(known) if len(known) == len(parts) else None


def _any(parts: Sequence[Condition | None]) -> Condition | None:
    known = [part for part in parts if part is not None]
    return (known[0] if len(known) == 1 else {"should": known}) if known else None


def _empty(name: Name) -> Condition:
    return {"is_empty": {"key": payload_key(name)}}


def _there(name: Name) -> Condition:
    return none_of([_empty(name)])


def _unless(name: Name, same: Condition) -> Truth:
    """True where a condition holds, false where there is another value."""
    return Truth.certain(same, none_of([_empty(name), same]))


def _bools(name: Name, sign: str, value: float) -> Condition | None:
    """Truth values are 0 and 1 to SQL."""
    found = [flag for flag in (False, True) if _SIGNS[sign](int(flag), value)]
    if len(found) == 2:
        return none_of([_empty(name)])
    return _any([{"key": payload_key(name), "match": {"value": flag}} for flag in found])


def _of_decimals(name: Name, sign: str, value: float) -> Truth:
    """A comparison of decimals, whose last digits an engine may keep otherwise: what is near is in doubt."""
    low, high = value, value
    for _ in range(DOUBTFUL_STEPS):
        low, high = math.nextafter(low, -math.inf), math.nextafter(high, math.inf)
    near: Condition = {"key": payload_key(name), "range": {"gte": low, "lte": high}}
    below, above = _range(name, "<", low, False), _range(name, ">", high, False)
    beyond = {"<": [below], "<=": [below], ">": [above], ">=": [above], "=": [], "<>": [below, above]}
    true, false = _any(beyond[sign]), _any(beyond[_OPPOSITES[sign]])
    return Truth(true, false, _any([true, near]), _any([false, near]))


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
