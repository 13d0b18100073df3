"""Filters over the catalogue: SQL written anew, every value and every metadata key a bound parameter."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from .conditions import ConditionReader, Name, Value


def compile_where(text: str, fields: Collection[str] = ()) -> tuple[str, list[Value]]:
    """The SQL condition, and its parameters, that a filter means over `images(id, path, label, metadata)`.

    Names are id, path, label and metadata fields, nested ones with dots, in double quotes where they hold
    more than letters; `metadata.label` is the field where a column has its name. Text stands in single
    quotes. As everywhere in SQL a comparison with what is absent is neither true nor false: `NOT year > 2000`
    leaves out images without a year, and `year IS NULL` finds them. A metadata value of another type counts
    as absent: numbers are compared with numbers, text with text. TRUE is 1. LIKE ignores the case of ASCII
    letters. A list in the metadata is its JSON text: `tags LIKE '%"cat"%'`.

    Args:
        fields: the metadata fields that there are. `metadata` has to hold JSON whose letters are not escaped.

    Raises:
        GalleryError: not SQL, an unknown name, or more than comparisons: functions, arithmetic, subqueries,
            comments, several statements. The message names the piece.
    """
    writer = _SqlWriter(fields)
    return writer.read(text), writer.parameters


class _SqlWriter(ConditionReader[str]):
    """Writes SQL for the pieces of a filter; `parameters` are in the order of `?`."""

    def __init__(self, fields: Collection[str]) -> None:
        super().__init__(fields)
        self.parameters: list[Value] = []

    def joined(self, parts: Sequence[str], every: bool) -> str:
        return _balanced(parts, " AND " if every else " OR ")

    def negated(self, part: str) -> str:
        return f"(NOT {part})"

    def compared(self, name: Name, sign: str, value: Value) -> str:
        column = self._typed(name, [value])
        self.parameters.append(value)
        return f"({column} {sign} ?)"

    def names_compared(self, left: Name, sign: str, right: Name) -> str:
        kinds = [f"(typeof({self._raw(name)}) = 'text')" for name in (left, right)]
        first = f"CASE WHEN {kinds[0]} = {kinds[1]} THEN {self._raw(left)} END"
        return f"({first} {sign} {self._raw(right)})"

    def one_of(self, name: Name, values: Sequence[Value]) -> str:
        column = self._typed(name, values)
        # One parameter, however many values.
        self.parameters.append(json.dumps(list(values), ensure_ascii=False))
        return f"({column} IN (SELECT value FROM json_each(?)))"

    def like(self, name: Name, pattern: str, escape: str | None) -> str:
        column = self._typed(name, [pattern])
        self.parameters += [pattern] if escape is None else [pattern, escape]
        return f"({column} LIKE ?{'' if escape is None else ' ESCAPE ?'})"

    def absent(self, name: Name) -> str:
        return f"({self._raw(name)} IS NULL)"

    def _typed(self, name: Name, values: Sequence[Value]) -> str:
        """The name's value where it is of the values' type, NULL elsewhere."""
        kinds = {isinstance(value, str) for value in values}
        if name.column or len(kinds) == 2:
            return self._raw(name)
        types = "('text')" if kinds == {True} else "('integer', 'real')"
        return f"CASE WHEN typeof({self._raw(name)}) IN {types} THEN {self._raw(name)} END"

    def _raw(self, name: Name) -> str:
        if name.column:
            return name.column
        self.parameters.append("$" + "".join(f'."{part}"' for part in name.field))
        return "json_extract(metadata, ?)"


def _balanced(parts: Sequence[str], sign: str) -> str:
    # SQLite's limit is on depth, which a plain chain would reach.
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return f"({_balanced(parts[:middle], sign)}{sign}{_balanced(parts[middle:], sign)})"
