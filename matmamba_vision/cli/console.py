"""The only way to print: names that anybody may have given are shown, and never obeyed by a terminal.

Control characters are written as JSON writes them. Off a terminal nothing is wrapped, and a row of a table is
a line whose cells are separated by tabs, for programs that read it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import rich.console
from matmamba_datasets.names import printable, shown
from rich.console import ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text


class Console(rich.console.Console):
    """rich's console, safe for any text."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does, with control characters of texts escaped."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)

    def print(self, *objects: Any, **settings: Any) -> None:
        """As rich does; off a terminal, whole lines and tables as records."""
        if not self.is_terminal:
            settings.setdefault("soft_wrap", True)
            objects = tuple(_Records(one) if isinstance(one, (Table, Group)) else one for one in objects)
        super().print(*objects, **settings)


class _Records:
    """A table as lines of cells between tabs, its title before it; tables of a group one after the other."""

    def __init__(self, what: Table | Group) -> None:
        self._what = what

    def __rich_console__(self, console: rich.console.Console, options: ConsoleOptions) -> RenderResult:
        yield from (Segment(f"{line}\n") for line in _lines(self._what))


def _lines(what: RenderableType) -> Iterator[str]:
    if isinstance(what, Group):
        for part in what.renderables:
            yield from _lines(part)
    elif isinstance(what, Table):
        if what.title:
            yield _plain(what.title)
        if what.show_header and any(_plain(column.header) for column in what.columns):
            yield "\t".join(_plain(column.header) for column in what.columns)
        columns = [list(column.cells) for column in what.columns]
        yield from ("\t".join(map(_plain, row)) for row in zip(*columns, strict=True))
    else:
        yield _plain(what)


def _plain(cell: Any) -> str:
    return shown(cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain)


class Lines(logging.Formatter):
    """Log lines as they can be printed."""

    def format(self, record: logging.LogRecord) -> str:
        """As logging does, with control characters escaped."""
        return printable(super().format(record))


def say(text: str, *, stderr: bool = False) -> None:
    """Print lines as they are, but for control characters; JSON stays what it is."""
    print(printable(text), file=sys.stderr if stderr else sys.stdout)


def replace_what_cannot_be_printed() -> None:
    """A letter that the terminal's encoding lacks is written by its number, and ends nothing."""
    for stream in (sys.stdout, sys.stderr):
        # Streams that others have put there may not know how.
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
