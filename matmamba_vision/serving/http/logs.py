"""Logs as lines of JSON: one for each request, and one for whatever else happens."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

log = logging.getLogger("matmamba_vision.serving.http")
# Whose lines are written, with those of what is below them.
_WRITTEN = ("matmamba_vision", "uvicorn", "asyncio")
FIELDS = "matmamba_fields"


class JsonLines(logging.Formatter):
    """A record as one line of JSON: what names and texts hold is data, and ends no line."""

    def format(self, record: logging.LogRecord) -> str:
        """As JSON."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said: dict[str, Any] = {"time": time, "level": record.levelname.lower(), "event": record.getMessage()}
        said |= getattr(record, FIELDS, {})
        if record.exc_info and record.exc_info[1] is not None:
            said["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json.dumps(said, default=str)


def log_event(
    event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: Any
) -> None:
    """Write a line.

    Args:
        event: what happened.
        level: of `logging`.
        error: whose traceback is written, None for none.
        fields: whatever else is known.
    """
    log.log(level, event, extra={FIELDS: fields}, exc_info=error)


@contextmanager
def json_lines(stream: TextIO, *, requests: bool = True) -> Iterator[None]:
    """Have the service's lines written, and those of the libraries that it stands on, for the block.

    Args:
        stream: to write to.
        requests: whether each request has a line; if not, only what goes wrong.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    loggers = [logging.getLogger(name) for name in _WRITTEN]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    level = log.level
    try:
        for logger in loggers:
            logger.handlers, logger.propagate = [handler], False
            logger.setLevel(logging.WARNING)
        log.setLevel(logging.INFO if requests else logging.WARNING)
        yield
    finally:
        log.setLevel(level)
        for logger, (handlers, propagate, known) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(known)
