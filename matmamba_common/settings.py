"""What settings can be: said beside each of them, checked in one way, refused in one sentence.

A setting is the field of a dataclass, and its annotation holds what it can be:

    @dataclass
    class Loading:
        batch_size: Annotated[int, Bounds(least=1)] = 64

`check(Loading(0), "data.")` raises "data.batch_size is 0: it can be 1 or more". The three packages stand on
this file, which imports nothing of them: what a setting can be is said where it is, and nowhere else.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from matmamba_common.errors import ConfigError
from matmamba_common.words import in_words, shown


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What the number of a setting can be, or each number of a list; None is left to the type.

    Attributes:
        least: the smallest allowed.
        above: what it has to be larger than.
        most: the largest allowed.
        below: what it has to be smaller than.
        infinite: whether the number can be infinite.
        ordered: whether numbers must not fall from one to the next.
        zero: what 0 stands for, where it is allowed, such as "no limit".
        what: what the numbers are, such as "shares of the area".
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    infinite: bool = False
    ordered: bool = False
    zero: str = ""
    what: str = ""

    def allow(self, value: Any) -> bool:
        """Whether a number can be this, or all numbers of a list or tuple."""
        if _is_list(value):
            in_order = not self.ordered or list(value) == sorted(value)
            return in_order and all(map(self.allow, value))
        return value is None or (
            (self.infinite or math.isfinite(value))
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """What is allowed, behind "it can be"."""
        low = f"above {self.above}" if self.least is None else str(self.least)
        low += f" ({self.zero})" if self.zero else ""
        high = None if self.most is None else f"to {self.most}"
        high = high if self.below is None else f"to below {self.below}"
        if high:
            words = f"{low} {high}" if self.least is None else f"from {low} {high}"
        else:
            words = low if self.least is None else f"{low} or more"
        return ", ".join(filter(None, (words, self.what, "in order" if self.ordered else "")))


# Processes or threads of one call. A machine's memory ends long before more of them have started.
CREW = Bounds(least=0, most=1024)


@dataclass(frozen=True)
class OneOf:
    """A setting that is one of some names.

    Attributes:
        names: all that are allowed.
    """

    names: tuple[str, ...]

    def allow(self, value: Any) -> bool:
        """Whether a value is one of the names; None is left to the type."""
        return value is None or value in self.names

    def __str__(self) -> str:
        """What is allowed, behind "it can be"."""
        return f"one of {', '.join(self.names)}"


Rule = Bounds | OneOf


def check(settings: Any, where: str = "", named: Callable[[str], str] = str) -> None:
    """Refuse the first field of a dataclass that has a wrong type or cannot work, those within it included.

    Args:
        settings: the dataclass.
        where: what stands before the names of its fields, such as "data.".
        named: what its user calls a field, from its name with what stands before it: flags are spelt
            otherwise.

    Raises:
        ConfigError: a value that is not allowed; the message names it and what would be.
        TypeError: a value of a wrong type.
    """
    for name, hint in _hints(type(settings)).items():
        require(f"{where}{name}", getattr(settings, name), hint, named)


def require(name: str, value: Any, hint: Any, named: Callable[[str], str] = str) -> None:
    """Refuse a value, an argument of a function for example, that is not as an annotation has it.

    Args:
        name: of the setting.
        value: what it is.
        hint: a type, or `Annotated` with `Bounds` or `OneOf`, such as `Annotated[int, Bounds(least=1)]`.
        named: what its user calls it, from its name.

    Raises:
        ConfigError: the value is not allowed; the message names it and what would be.
        TypeError: it is of a wrong type.
    """
    if not _is_of(value, hint):
        name, value, hint = _culprit(name, value, hint)
        raise TypeError(f"{named(name)} is {shown(value)}: it can be {in_words(hint)}")
    for rule in hint.__metadata__ if get_origin(hint) is Annotated else ():
        if isinstance(rule, Rule) and not rule.allow(value):
            each = " each" if isinstance(value, list) else ""
            raise ConfigError(f"{named(name)} is {shown(value)}: it can be {rule}{each}")
    if is_dataclass(value):
        check(value, f"{name}.", named)


def require_least(least: int, **given: Any) -> None:
    """Refuse arguments of which a whole number, or one of a list of them, is below `least`.

    Args:
        least: the smallest that is allowed.
        given: numbers or lists of numbers by the name of the argument; None passes.

    Raises:
        ConfigError: one is below.
        TypeError: one is no whole number.
    """
    _require_within(Bounds(least=least), given)


def require_crew(**given: Any) -> None:
    """Refuse numbers of processes or threads that no machine has: see `require_least`, and `CREW`."""
    _require_within(CREW, given)


def _require_within(bounds: Bounds, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        several = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
        for number in value if several else [value]:
            if number is not None:
                require(name, number, Annotated[int, bounds])


def _hints(kind: type) -> Mapping[str, Any]:
    """Annotations of a dataclass, by its fields in their order."""
    known = get_type_hints(kind, include_extras=True)
    return {field.name: known[field.name] for field in fields(kind)}


def _culprit(name: str, value: Any, hint: Any) -> tuple[str, Any, Any]:
    """What of a value is of another type: the first such item of a list, or the value as a whole."""
    lists = [one for one in _alternatives(hint) if get_origin(one) in (list, Sequence)]
    if len(lists) == 1 and _is_list(value):
        (inner,) = get_args(lists[0])
        place = next(place for place, one in enumerate(value) if not _is_of(one, inner))
        return _culprit(f"{name}[{place}]", value[place], inner)
    return name, value, hint


def _alternatives(hint: Any) -> Sequence[Any]:
    """The types one of which a value has to have."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _alternatives(inner[0])
    return inner if origin in (Union, types.UnionType) else (hint,)


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, as far as the types of settings go; of other types all values are."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _is_of(value, inner[0])
    if origin in (Union, types.UnionType):
        return any(_is_of(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin in (list, Sequence):
        return _is_list(value) and all(_is_of(one, inner[0]) for one in value)
    if origin is tuple:
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) and _is_list(value) else inner
        return (
            _is_list(value)
            and len(value) == len(kinds)
            and all(_is_of(one, kind) for one, kind in zip(value, kinds, strict=True))
        )
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(
            _is_of(one, inner[0]) and _is_of(value[one], inner[1]) for one in value
        )
    if origin is not None and isinstance(origin, type):
        return isinstance(value, origin)
    return hint is Any or not isinstance(hint, type) or _is_one(value, hint)


def _is_list(value: Any) -> bool:
    """Whether a value is a list of any kind, which texts are not."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)


def _is_one(value: Any, kind: type) -> bool:
    """Whether a value is of a plain type; a whole number is a number, and True and False are none."""
    numbers: dict[type, type] = {int: Integral, float: Real}
    if kind in numbers:
        return isinstance(value, numbers[kind]) and not isinstance(value, bool)
    return isinstance(value, kind)
