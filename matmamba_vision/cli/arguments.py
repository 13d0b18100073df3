"""Flags from dataclasses."""

from __future__ import annotations

from typing import TypeVar

import tyro

A = TypeVar("A")


def parse(
    kind: type[A], command: str, description: str | None, arguments: list[str], default: A | None = None
) -> A:
    """An instance of the dataclass `kind` filled by flags; a wrong flag is named, and exits with 2."""
    known = {} if default is None else {"default": default}
    return tyro.cli(kind, prog=f"matmamba {command}", description=description, args=arguments, **known)  # type: ignore[call-overload]
