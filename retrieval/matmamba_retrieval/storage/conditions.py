"""Filters such as `label = 'cat' AND year >= 2020`: SQL that is parsed, checked, and told piece by piece.

The text is never run. sqlglot parses it, and each piece must be on a short list of what a filter may hold;
what answers a filter composes its own query of the pieces: SQL in `where.py`.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, ParseError, SqlglotError

from ..errors import GalleryError

Value = str | int | float
Node = exp.Expr
T = TypeVar("T")
COLUMNS = ("id", "path", "label")
# How like a known name one has to be that was probably meant to be it.
_LIKENESS = 0.5
# Bounds that keep SQLite within its own; the values of an IN are not counted.
MOST_CHARACTERS, MOST_COMPARISONS, MOST_NESTED, MOST_PATTERN = 1_000_000, 1_000, 50, 1_000
_COMPARISONS: dict[type[Node], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_MIRRORED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_ALLOWED = "comparisons with = <> < <= > >=, LIKE, IN (...), BETWEEN, IS NULL, AND, OR, NOT and parentheses"


@dataclass(frozen=True)
class Name:
    """A column of the images, or a field of their metadata.

    Attributes:
        shown: as it was written.
        column: id, path or label; "" for a field.
        field: keys from the outermost object inwards; none for a column.
    """

    shown: str
    column: str = ""
    field: tuple[str, ...] = ()


class ConditionReader(ABC, Generic[T]):
    """Reads a filter, and has each of its pieces composed by who derives from it; all else is refused.

    As everywhere in SQL a comparison with what is absent is neither true nor false.

    Args:
        fields: the metadata fields that there are.
    """

    def __init__(self, fields: Collection[str]) -> None:
        self._fields = fields
        self._comparisons = 0

    def read(self, text: str) -> T:
        """What the pieces of a filter come to.

        Raises:
            GalleryError: not SQL, an unknown name, or more than comparisons: functions, arithmetic,
                subqueries, comments, several statements. The message names the piece.
        """
        try:
            return self._condition(_parse(text), 0)
        except RecursionError:
            raise GalleryError(f"the filter is nested more than {MOST_NESTED} deep") from None

    @abstractmethod
    def joined(self, parts: Sequence[T], every: bool) -> T:
        """All of some parts, or one of them."""

    @abstractmethod
    def negated(self, part: T) -> T:
        """NOT."""

    @abstractmethod
    def compared(self, name: Name, sign: str, value: Value) -> T:
        """A name with a value; where it stands for one of another type, that counts as absent."""

    @abstractmethod
    def names_compared(self, left: Name, sign: str, right: Name) -> T:
        """Two names; where one is text and the other a number, as if one were absent."""

    @abstractmethod
    def one_of(self, name: Name, values: Sequence[Value]) -> T:
        """IN; of values of one type, what is of another counts as absent."""

    @abstractmethod
    def like(self, name: Name, pattern: str, escape: str | None) -> T:
        """LIKE, which ignores the case of ASCII letters."""

    @abstractmethod
    def absent(self, name: Name) -> T:
        """IS NULL."""

    def _condition(self, node: Node, depth: int) -> T:
        if depth > MOST_NESTED:
            raise GalleryError(f"the filter is nested more than {MOST_NESTED} deep")
        if isinstance(node, exp.Paren):
            return self._condition(_only(node, "this").this, depth + 1)
        if isinstance(node, exp.Not):
            return self.negated(self._condition(_only(node, "this").this, depth + 1))
        if isinstance(node, exp.And | exp.Or):
            parts = [self._condition(part, depth + 1) for part in node.flatten(unnest=False)]
            return self.joined(parts, isinstance(node, exp.And))
        self._comparisons += 1
        if self._comparisons > MOST_COMPARISONS:
            raise GalleryError(
                f"the filter has more than {MOST_COMPARISONS:,} comparisons; IN takes any number of values"
            )
        return self._predicate(node)

    def _predicate(self, node: Node) -> T:
        if type(node) in _COMPARISONS:
            _only(node, "this", "expression")
            return self._compare(node.this, _COMPARISONS[type(node)], node.expression, node)
        if isinstance(node, exp.Between):
            _only(node, "this", "low", "high")
            low = self._compare(node.this, ">=", node.args["low"], node)
            return self.joined([low, self._compare(node.this, "<=", node.args["high"], node)], True)
        if isinstance(node, exp.In):
            _only(node, "this", "expressions")
            return self._in(node)
        if isinstance(node, exp.Escape):
            return self._like(node.this, _only(node, "this", "expression").expression)
        if isinstance(node, exp.Like):
            return self._like(node, None)
        if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
            return self.absent(self._name(_only(node, "this", "expression").this))
        raise _refused(node)

    def _compare(self, left: Node, sign: str, right: Node, whole: Node) -> T:
        if _is_name(left) and _is_name(right):
            return self.names_compared(self._name(left), sign, self._name(right, perhaps_text=True))
        if _is_name(right):
            left, sign, right = right, _MIRRORED[sign], left
        if not _is_name(left):
            # Says what is wrong with an operand, if it is not simply a value.
            _value(left), _value(right)
            raise GalleryError(f"{_sql(whole)!r} compares two values: one of them has to be a name")
        value = _value(right)
        return self.compared(_fitting(self._name(left), [value], whole), sign, value)

    def _in(self, node: exp.In) -> T:
        values = [_value(each) for each in node.expressions]
        if not values:
            raise GalleryError(f"{_sql(node)!r} lists no values")
        return self.one_of(_fitting(self._name(node.this), values, node), values)

    def _like(self, node: Node, escape: Node | None) -> T:
        if not isinstance(node, exp.Like):
            raise _refused(node)
        pattern = _value(_only(node, "this", "expression", "negate").expression)
        if not isinstance(pattern, str) or len(pattern) > MOST_PATTERN:
            raise GalleryError(
                f"LIKE takes a text of at most {MOST_PATTERN:,} characters, not {_shown(str(pattern))!r}"
            )
        name = _fitting(self._name(node.this), [pattern], node)
        found = self.like(name, pattern, None if escape is None else _mark(escape))
        return self.negated(found) if node.args.get("negate") else found

    def _name(self, node: Node, perhaps_text: bool = False) -> Name:
        if not _is_name(node):
            raise _refused(node)
        parts = _parts(node)
        shown = ".".join(parts)
        if len(parts) == 1 and shown.lower() in COLUMNS:
            return Name(shown, column=shown.lower())
        if shown not in self._fields and parts[0].lower() == "metadata":
            parts = parts[1:]
        if ".".join(parts) not in self._fields:
            raise self._unknown(shown, perhaps_text)
        if any(letter in '"\\' or letter < " " for part in parts for letter in part):
            raise GalleryError(
                f"a filter cannot name the field {shown!r}: it holds a quote, \\ or a line break"
            )
        return Name(shown, field=tuple(parts))

    def _unknown(self, name: str, perhaps_text: bool) -> GalleryError:
        """What is wrong with a name: a column is misspelt, or a text beside a known one lacks its quotes."""
        known = [*COLUMNS, *sorted(set(self._fields) - set(COLUMNS))]
        by_lower = {other.lower(): other for other in known}
        close = difflib.get_close_matches(name.lower(), by_lower, 3, _LIKENESS)
        near = [by_lower[match] for match in close]
        guess = f"; did you mean {' or '.join(near)}?" if near else ""
        text = f"; text takes single quotes: '{name}'" if perhaps_text else ""
        more = f" and {len(known) - 40} more" if len(known) > 40 else ""
        listed = f"{', '.join(known[:40])}{more}"
        said = f"the filter names an unknown column {name!r}{guess}{text}; there are {listed}"
        return GalleryError(said)


def _fitting(name: Name, values: Sequence[Value], whole: Node) -> Name:
    """The name; `GalleryError` for a column, which is text, beside a number."""
    number = next((value for value in values if not isinstance(value, str)), None)
    if name.column and number is not None:
        raise GalleryError(f"{name.column} is text, in {_sql(whole)!r}: compare it with '{number}'")
    return name


def _parse(text: str) -> Node:
    if len(text) > MOST_CHARACTERS:
        raise GalleryError(f"the filter has {len(text):,} characters: at most {MOST_CHARACTERS:,}")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise GalleryError(f"the filter {_shown(text)!r} holds characters that are not text")
    try:
        for token in sqlglot.tokenize(text, read="sqlite"):
            if token.comments:
                raise GalleryError(f"a filter has no comments: {_shown(token.comments[0].strip())!r}")
            if token.token_type == sqlglot.TokenType.SEMICOLON:
                raise GalleryError(f"a filter is one condition, without ';': {_shown(text)!r}")
        return sqlglot.parse_one(text, into=exp.Condition, read="sqlite")
    except SqlglotError as error:
        raise GalleryError(f"cannot read the filter {_shown(text)!r}{_place(error)}") from None


def _place(error: SqlglotError) -> str:
    details = error.errors[0] if isinstance(error, ParseError) and error.errors else {}
    return f": it goes wrong at {details['highlight']!r}" if details.get("highlight") else ""


def _shown(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _sql(node: Node) -> str:
    # Not in SQLite's dialect, which would show a rewritten text.
    return _shown(node.sql(unsupported_level=ErrorLevel.IGNORE))


def _is_name(node: Node) -> bool:
    return isinstance(node, exp.Column | exp.Dot)


def _parts(node: Node) -> list[str]:
    """The identifiers of a dotted name; refuses anything else that a dot may stand between."""
    if isinstance(node, exp.Identifier):
        return [node.this]
    if isinstance(node, exp.Dot):
        _only(node, "this", "expression")
        return _parts(node.this) + _parts(node.expression)
    if isinstance(node, exp.Column):
        _only(node, "this", "table", "db", "catalog")
        return [
            name
            for part in ("catalog", "db", "table", "this")
            if node.args.get(part)
            for name in _parts(node.args[part])
        ]
    raise _refused(node)


def _value(node: Node) -> Value:
    if isinstance(node, exp.Paren):
        return _value(_only(node, "this").this)
    if isinstance(node, exp.Boolean):
        return int(node.this)
    if isinstance(node, exp.Null):
        raise GalleryError("a comparison with NULL is never true: write IS NULL or IS NOT NULL")
    if isinstance(node, exp.Neg) and isinstance(node.this, exp.Literal) and not node.this.is_string:
        return -_number(node.this.this)
    if isinstance(node, exp.Literal):
        return node.this if node.is_string else _number(node.this)
    raise _refused(node)


def _number(text: str) -> int | float:
    try:
        value = int(text) if text.isdecimal() and len(text) < 20 else float(text)
    except ValueError:
        raise GalleryError(f"{_shown(text)!r} in the filter is not a number") from None
    if abs(value) == float("inf"):
        raise GalleryError(f"{_shown(text)!r} in the filter is too large a number")
    # SQLite's whole numbers have 64 bits.
    return value if abs(value) < 2**63 else float(value)


def _mark(escape: Node) -> str:
    """The character behind ESCAPE."""
    mark = _value(escape)
    if not isinstance(mark, str) or len(mark) != 1:
        raise GalleryError(f"ESCAPE takes one character, not {mark!r}")
    return mark


def _only(node: Node, *known: str) -> Node:
    """`node`, if it holds nothing but these pieces: a parser may hang more on a node than we look at."""
    if any(value for name, value in node.args.items() if name not in known):
        raise _refused(node)
    return node


def _refused(node: Node) -> GalleryError:
    return GalleryError(f"a filter cannot hold {_sql(node)!r}: it takes {_ALLOWED}")
