"""Flags from dataclasses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

import tyro

from .config import ConfigError
from .console import say

A = TypeVar("A")


def parse(
    kind: type[A], command: str, description: str | None, arguments: list[str], default: A | None = None
) -> A:
    """An instance of the dataclass `kind` filled by flags; a wrong flag is named, and exits with 2."""
    known = {} if default is None else {"default": default}
    return tyro.cli(kind, prog=f"matmamba {command}", description=description, args=arguments, **known)  # type: ignore[call-overload]


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
        raise ConfigError(f"unknown action {name!r} of matmamba {command}: one of {', '.join(actions)}")
    return actions[name](rest)
