"""The flags of a command, as its dataclass has them, and what is wrong with words that do not fit them."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro
from matmamba_common.words import in_words

from ..errors import ConfigError
from ..nearest import did_you_mean

HELP = ("-h", "--help")
# Words of a list of yes and no, and how the parser wants them.
TRUTHS = {"yes": "True", "true": "True", "no": "False", "false": "False"}


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A flag, or words without one.

    Attributes:
        name: as it is written, with its dashes; of words without a flag what they are, such as GALLERY.
        hint: the type of each of its values.
        count: of values; None for any number.
        required: whether it has to be given.
    """

    name: str
    hint: Any
    count: int | None
    required: bool


def flags_of(kind: type[Any], prefix: str = "", given: bool = False) -> Iterator[Flag]:
    """All flags of a command, in the order of its dataclass.

    Args:
        kind: the dataclass, whose fields may be dataclasses.
        prefix: what stands before their names.
        given: whether defaults are known for all of them.
    """
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        hint = hints[field.name]
        marks = hint.__metadata__ if get_origin(hint) is Annotated else ()
        held = get_args(hint)[0] if marks else hint
        names = [mark.name for mark in marks if isinstance(getattr(mark, "name", None), str)]
        name = (names or [field.name.replace("_", "-")])[0]
        required = not given and field.default is MISSING and field.default_factory is MISSING
        if tyro.conf.Suppress in marks:
            continue
        if is_dataclass(held):
            within = "" if not name or tyro.conf.OmitArgPrefixes in marks else f"{prefix}{name}."
            yield from flags_of(held, within, not required)  # type: ignore[arg-type]
            continue
        alone = tyro.conf.Positional in marks
        hint, count = _values(held, tyro.conf.UseAppendAction in marks)
        written = name.upper() if alone else f"--{prefix}{name}"
        yield Flag(name=written, hint=hint, count=count, required=required)
        if hint is bool and count == 0:
            yield Flag(name=f"--{prefix}no-{name}", hint=bool, count=0, required=False)


def _values(hint: Any, one_each: bool) -> tuple[Any, int | None]:
    """The type of each value of a setting, and how many values it takes."""
    inner = get_args(hint)
    if get_origin(hint) is list:
        return inner[0], 1 if one_each else None
    if get_origin(hint) is tuple:
        return inner[0], None if ... in inner else len(inner)
    return hint, 0 if hint is bool else 1


def refuse_unfit(kind: type[Any], command: str, arguments: Sequence[str], given: bool) -> None:
    """Refuse words that do not fit the flags of a command, naming the first that does not; nothing if all do.

    Args:
        kind: the dataclass of the command.
        command: its name.
        arguments: the words behind it.
        given: whether defaults are known for all flags.

    Raises:
        ConfigError: the message names the flag, its value and what is allowed.
    """
    known = {flag.name: flag for flag in flags_of(kind, given=given)}
    before, behind = _parted(arguments)
    for word in before:
        if _is_flag(word) and word.partition("=")[0].replace("_", "-") not in {*known, *HELP}:
            raise ConfigError(_unknown(word.partition("=")[0], known, command))
    found, alone = set[str](), [*behind]
    words = [*reversed(before)]
    while words:
        word = words.pop()
        if not _is_flag(word):
            alone.append(word)
        elif word not in HELP:
            flag = known[word.partition("=")[0].replace("_", "-")]
            found.add(flag.name)
            _require_values(flag, _taken(flag, word, words))
    _require_all(known, found, alone, command)


def with_truths(kind: type[Any], arguments: Sequence[str]) -> list[str]:
    """The words with yes and no, behind flags that take a list of them, as the parser has them."""
    lists = {flag.name for flag in flags_of(kind) if flag.hint is bool and flag.count is None}
    found, behind = list[str](), False
    for word in arguments:
        if _is_flag(word):
            behind = word in lists
        found.append(TRUTHS.get(word.lower(), word) if behind else word)
    return found


def refuse_values_of_switches(kind: type[Any], arguments: Sequence[str]) -> None:
    """Refuse a value behind the = of a flag that takes none.

    Raises:
        ConfigError: the message names the flag.
    """
    written = {
        word.partition("=")[0].replace("_", "-"): word for word in _parted(arguments)[0] if "=" in word
    }
    for flag in flags_of(kind) if written else ():
        if flag.count == 0 and flag.name in written:
            raise ConfigError(f"{flag.name} takes no value: it was given as {written[flag.name]}")


def _parted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before and behind the word that ends flags."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return [*arguments[:at]], [*arguments[at + 1 :]]


def _is_flag(word: str) -> bool:
    """Whether a word can only be a flag: -1 and - are values."""
    return word.startswith("-") and word.lstrip("-")[:1].isalpha()


def _unknown(written: str, known: dict[str, Flag], command: str) -> str:
    bare = written.strip("-").replace("_", "-")
    flags = [name for name in known if name.startswith("--")]
    # Whoever forgets what stands before the dot means that flag.
    same = [name for name in flags if name.rpartition(".")[2].strip("-") == bare]
    near = f"; did you mean {same[0]}?" if same else did_you_mean(written, flags)
    return f"unknown flag {written} of matmamba {command}{near or f': `matmamba {command} --help` lists all'}"


def _taken(flag: Flag, word: str, ahead: list[str]) -> list[str]:
    """The values of a flag; those that it takes of the words ahead, the next last, are gone there."""
    taken = [word.partition("=")[2]] if "=" in word else []
    while ahead and not _is_flag(ahead[-1]) and (flag.count is None or len(taken) < flag.count):
        taken.append(ahead.pop())
    return taken


def _require_values(flag: Flag, values: list[str]) -> None:
    if flag.count is not None and len(values) < flag.count:
        many = f"{flag.count} values" if flag.count > 1 else "a value"
        raise ConfigError(f"{flag.name} needs {many}: {_said(flag)}")
    for value in values:
        if not _fits(value, flag.hint):
            each = "each can" if flag.count != 1 else "it can"
            raise ConfigError(f"{flag.name} is {value!r}: {each} be {_said(flag)}")


def _require_all(known: dict[str, Flag], found: set[str], alone: list[str], command: str) -> None:
    """Refuse what is missing, and words that belong to no flag."""
    shown = f"`matmamba {command} --help` shows how"
    places = [flag for flag in known.values() if not flag.name.startswith("--")]
    for flag in known.values():
        if flag.required and flag.name.startswith("--") and flag.name not in found:
            raise ConfigError(f"{flag.name} is missing: {shown}")
    for flag in places:
        if not alone and flag.required:
            raise ConfigError(f"{flag.name} is missing: {shown}")
        alone = [] if flag.count is None else alone[1:]
    if alone:
        raise ConfigError(f"{alone[0]!r} belongs to no flag of matmamba {command}: {shown}")


def _fits(word: str, hint: Any) -> bool:
    """Whether a word can stand for a value of a type."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(word, one) for one in get_args(hint))
    if get_origin(hint) is Literal or hint in (bool, type(None)):
        return word in {bool: TRUTHS.values(), type(None): ("None",)}.get(hint, get_args(hint))
    try:
        return hint not in (int, float) or hint(word) is not None
    except ValueError:
        return False


def _said(flag: Flag) -> str:
    """What a value of a flag can be: that it can be left out says its help."""
    kinds = get_args(flag.hint) if get_origin(flag.hint) in (Union, types.UnionType) else (flag.hint,)
    return " or ".join(in_words(kind) for kind in kinds if kind is not types.NoneType)
