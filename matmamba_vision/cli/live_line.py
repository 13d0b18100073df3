"""A last line on a terminal that says how a job fares, below what it prints."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self, TextIO

from matmamba_datasets.names import printable

from ..progress import Event, Progress

# Seconds between two changes of the line: no eye reads faster.
PAUSE_S = 0.25
# To the beginning of the line, which is emptied.
_EMPTY = "\r\x1b[2K"


class LiveLine:
    """A listener that shows progress in one line, where a stream is a terminal, and else does nothing.

    Args:
        stream: such as standard error.
        columns: of the terminal; what is longer is cut.
    """

    def __init__(self, stream: TextIO, columns: int = 80) -> None:
        self._stream, self._columns, self._text, self._at = stream, columns, "", 0.0
        self._is_terminal = stream.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def __call__(self, event: Event) -> None:
        """Show how far a stage is, now and then."""
        now = time.monotonic()
        if self._is_terminal and isinstance(event, Progress) and now - self._at >= PAUSE_S:
            self._at = now
            self.show(f"{event.stage}: {event.done:,} {event.unit}, {event.note}")

    def show(self, text: str) -> None:
        """Show a text in the place of what is there."""
        self._text = printable(text)[: self._columns - 1]
        self._stream.write(_EMPTY + self._text)
        self._stream.flush()

    def clear(self) -> None:
        """Take the line away: something else is printed now."""
        if self._text:
            self._text = ""
            self._stream.write(_EMPTY)
            self._stream.flush()
