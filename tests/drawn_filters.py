"""Filters drawn by chance, and what they mean, by a second evaluator in Python."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

FIELDS = ("year", "score", "camera.model", "odd name", "étage", "label", "nothing")
SIGNS = {
    "=": operator.eq,
    "<>": operator.ne,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Image:
    id: str
    path: str
    label: str | None
    metadata: dict[str, Any]

    def value(self, name: str) -> Any:
        """What a name of a filter stands for; None if absent."""
        if name in ("id", "path", "label"):
            return getattr(self, name)
        found: Any = self.metadata
        for part in name.removeprefix("metadata.").replace('"', "").split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return int(found) if isinstance(found, bool) else found


# As SQL writes it, and its meaning for an image: True, False, or None for unknown.
@dataclass(frozen=True)
class Filter:
    sql: str
    holds: Any


words = st.sampled_from(["", "a", "A", "cat", "Cat", "it's", "5", "100%", "a_b", "é", "--", "; DROP", "日本"])
numbers = st.integers(-5, 5) | st.sampled_from([0.5, -2.25, 2**53 + 1, 2**62, 1e300])
scalars = words | numbers
names = st.sampled_from(
    [
        "id",
        "path",
        "label",
        "year",
        "score",
        "camera.model",
        '"odd name"',
        "étage",
        "metadata.label",
        "nothing",
    ]
)


def described(*parts: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    """What is known of an image: path, label and metadata, of which nothing is there that is None."""
    names = ("year", "score", "camera", "odd name", "étage", "label")

    def joined(path: Any, label: Any, *values: Any) -> tuple[Any, ...]:
        known = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        if "camera" in known:
            known["camera"] = {"model": known["camera"]}
        return path, label, known

    return st.builds(joined, *parts)


images = st.lists(
    described(
        words,
        st.none() | words,
        *[st.none() | scalars | st.booleans()] * 3,
        *[st.none() | scalars] * 3,
    ),
    min_size=1,
    max_size=8,
).map(lambda found: [Image(f"image {n}", *parts) for n, parts in enumerate(found)])


def quoted(value: Any) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def compared(left: Any, sign: str, right: Any) -> bool | None:
    if left is None or right is None or isinstance(left, str) != isinstance(right, str):
        return None
    return SIGNS[sign](left, right)


def is_column(name: str) -> bool:
    return name in ("id", "path", "label")


def with_value(name: str, sign: str, value: Any, mirrored: bool) -> Filter:
    value = str(value) if is_column(name) else value
    if mirrored:
        return Filter(
            f"{quoted(value)} {sign} {name}", lambda image: compared(value, sign, image.value(name))
        )
    return Filter(f"{name} {sign} {quoted(value)}", lambda image: compared(image.value(name), sign, value))


def between(name: str, low: Any, high: Any) -> Filter:
    low, high = (str(low), str(high)) if is_column(name) else (low, high)
    both = with_value(name, ">=", low, False), with_value(name, "<=", high, False)
    return Filter(
        f"{name} BETWEEN {quoted(low)} AND {quoted(high)}",
        lambda image: conjunction([part.holds(image) for part in both]),
    )


def listed(name: str, values: list[Any], negated: bool) -> Filter:
    values = [str(value) for value in values] if is_column(name) else values
    mixed = len({isinstance(value, str) for value in values}) == 2

    def holds(image: Image) -> bool | None:
        found = image.value(name)
        if found is None or (not mixed and isinstance(found, str) != isinstance(values[0], str)):
            return None
        return any(
            found == value and isinstance(found, str) == isinstance(value, str) for value in values
        ) != (negated)

    return Filter(f"{name} {'NOT ' * negated}IN ({', '.join(map(quoted, values))})", holds)


def like(name: str, start: str, negated: bool) -> Filter:
    pattern = start.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%"

    def folded(text: str) -> str:
        return "".join(letter.lower() if letter.isascii() else letter for letter in text)

    def holds(image: Image) -> bool | None:
        found = image.value(name)
        return folded(found).startswith(folded(start)) != negated if isinstance(found, str) else None

    return Filter(f"{name} {'NOT ' * negated}LIKE {quoted(pattern)} ESCAPE '!'", holds)


def conjunction(parts: list[bool | None]) -> bool | None:
    return False if False in parts else None if None in parts else True


def disjunction(parts: list[bool | None]) -> bool | None:
    return True if True in parts else None if None in parts else False


def joined(parts: list[Filter], sign: str) -> Filter:
    together = conjunction if sign == "AND" else disjunction
    return Filter(
        f" {sign} ".join(f"({part.sql})" for part in parts),
        lambda image: together([part.holds(image) for part in parts]),
    )


def negated(part: Filter) -> Filter:
    def holds(image: Image) -> bool | None:
        found = part.holds(image)
        return None if found is None else not found

    return Filter(f"NOT ({part.sql})", holds)


leaves = (
    st.builds(with_value, names, st.sampled_from(list(SIGNS)), scalars, st.booleans())
    | st.builds(
        lambda a, sign, b: Filter(
            f"{a} {sign} {b}", lambda image: compared(image.value(a), sign, image.value(b))
        ),
        names,
        st.sampled_from(list(SIGNS)),
        names,
    )
    | st.builds(between, names, scalars, scalars)
    | st.builds(listed, names, st.lists(scalars, min_size=1, max_size=4), st.booleans())
    | st.builds(like, names, words, st.booleans())
    | st.builds(
        lambda name, negative: Filter(
            f"{name} IS {'NOT ' * negative}NULL", lambda image: (image.value(name) is None) != negative
        ),
        names,
        st.booleans(),
    )
)
filters = st.recursive(
    leaves,
    lambda inner: (
        st.builds(joined, st.lists(inner, min_size=2, max_size=4), st.sampled_from(["AND", "OR"]))
        | st.builds(negated, inner)
    ),
    max_leaves=8,
)
