"""Flags from dataclasses."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import tyro
from matmamba_common.settings import check

from ..errors import ConfigError, MatMambaError
from ..nearest import did_you_mean
from .console import say
from .flags import HELP, flags_of, refuse_unfit, refuse_values_of_switches, with_truths

A = TypeVar("A")


def parse(
    kind: type[A], command: str, description: str | None, arguments: list[str], default: A | None = None
) -> A:
    """An instance of the dataclass `kind` filled by flags.

    Flags of the data set can be written with and without `data.` before them, in all commands.

    Raises:
        ConfigError: a flag is unknown or missing, or its value is of a wrong type; the message names it.
    """
    known = {} if default is None else {"default": default}
    arguments = with_truths(kind, _spelt(kind, arguments))
    refuse_values_of_switches(kind, arguments)
    take = partial(
        tyro.cli,
        kind,
        prog=f"matmamba {command}",
        description=description,
        args=arguments,
        **known,
    )
    # Help, and completion for shells, are what the parser prints itself.
    if any(word in HELP or word.startswith("--tyro-") for word in arguments):
        return take()
    try:
        # Its own words are those of a programmer, in a box.
        with redirect_stderr(StringIO()):
            return take()
    except SystemExit as ended:
        if refused := _refused(ended):
            raise refused from None
        refuse_unfit(kind, command, arguments, default is not None)
        # Whatever else it has to say about them.
        return take()


def _refused(error: BaseException | None) -> MatMambaError | None:
    """What values that do not go together were refused with, which the parser has put into a box."""
    while error is not None and not isinstance(error, MatMambaError):
        error = error.__cause__ or error.__context__
    return error


def _spelt(kind: type[Any], arguments: list[str]) -> list[str]:
    """The flags as this command names them; one that it does not know either way stays."""
    flags = {flag.name for flag in flags_of(kind)}
    others = {flag.rpartition(".")[2] for flag in flags if "." in flag and not flag.startswith("--data.")}
    found = dict[str, str]()
    for flag in {word.partition("=")[0] for word in arguments if word.startswith("--")} - flags:
        bare = flag.removeprefix("--data.").removeprefix("--data-").removeprefix("--")
        fits = {f"--{bare}"} if bare in others else {f"--{bare}", f"--data.{bare}"}
        if one := fits & flags:
            found[flag] = one.pop()
    words = (word.partition("=") for word in arguments)
    return [found.get(flag, flag) + sign + value for flag, sign, value in words]


def config_named(arguments: Sequence[str]) -> Path | None:
    """The file behind --config, whose values become the defaults of the other flags."""
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--config", type=Path)
    file: Path | None = before.parse_known_args(arguments)[0].config
    return file


def check_flags(args: Any) -> None:
    """Refuse the first flag whose value cannot work, as the annotations of a command's dataclass have it.

    Raises:
        ConfigError: the message names the flag, its value and what would be allowed.
    """
    check(args, named=flag_of)


def flag_of(name: str) -> str:
    """How the command line spells a setting."""
    return f"--{name.replace('_', '-')}"


def milliseconds(text: str, flag: str) -> float:
    """A time as 100ms, 0.1s, or 100 in milliseconds.

    Raises:
        ConfigError: another text; the message names the flag.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|)\s*", text)
    value = float(found[1]) * (1000 if found[2] == "s" else 1) if found else 0.0
    if not 0 < value <= 600_000:
        raise ConfigError(f"{flag} {text!r}: it can be a time such as 100ms or 0.2s")
    return value


def dispatch(
    actions: Mapping[str, Callable[[list[str]], int]], command: str, description: str, arguments: list[str]
) -> int:
    """Run the action that the first argument names with the others; returns the exit status.

    Raises:
        ConfigError: there is no such action.
    """
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        say(f"usage: matmamba {command} {{{','.join(actions)}}} ...\n\n{description}")
        sys.exit(0)
    if name not in actions:
        known = f"one of {', '.join(actions)}{did_you_mean(name, actions)}"
        raise ConfigError(f"unknown action {name!r} of matmamba {command}: {known}")
    return actions[name](rest)
