"""The events of a job on a terminal: bar, rate, time left, and lines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import rich.progress
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn

from ..progress import Event, Notice, Progress, Reporter
from .console import Console

# Seconds between two lines where there is no terminal.
LINE_SECONDS = 10


@dataclass
class _Stage:
    """A stage that is shown.

    Attributes:
        bar: on a terminal.
        task: its number there.
        start: when it began.
        said: when a line was last printed.
    """

    bar: rich.progress.Progress
    task: rich.progress.TaskID
    start: float
    said: float


class Shown:
    """A listener that shows events: a bar on a terminal, else a line now and then; nothing stays of a bar.

    Args:
        console: where.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._stages: dict[str, _Stage] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.console.print(event.text, markup=False, highlight=False, soft_wrap=True)
        elif event.finished:
            self.close(event.stage)
        elif not self.console.quiet:
            self._show(self._stages.get(event.stage) or self._begin(event), event)

    def close(self, stage: str) -> None:
        """Take a stage away, if it is shown."""
        if (shown := self._stages.pop(stage, None)) is not None:
            shown.bar.stop()

    def _begin(self, event: Progress) -> _Stage:
        columns = (
            (SpinnerColumn(), TextColumn("{task.description}"))
            if event.total is None
            else (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
        )
        bar = rich.progress.Progress(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        )
        bar.start()
        now = time.monotonic()
        stage = _Stage(bar, bar.add_task(event.stage, total=event.total, rate="", note=""), now, now)
        self._stages[event.stage] = stage
        return stage

    def _show(self, stage: _Stage, event: Progress) -> None:
        now = time.monotonic()
        rate = (event.done - event.skipped) / max(1e-9, now - stage.start)
        said = f"{rate:,.0f} {event.unit}/s" if rate else ""
        stage.bar.update(stage.task, completed=event.done, rate=said, note=event.note)
        if stage.bar.disable and event.total is not None and rate and now - stage.said > LINE_SECONDS:
            stage.said = now
            left = timedelta(seconds=round((event.total - event.done) / rate))
            line = f"{event.stage} {event.done:,}/{event.total:,}  {said}  {left} left  {event.note}"
            self.console.print(line.rstrip(), soft_wrap=True, highlight=False)


@contextmanager
def shown(console: Console) -> Iterator[Shown]:
    """A listener for one job, whose bars are gone when the block ends."""
    listener = Shown(console)
    try:
        yield listener
    finally:
        for stage in list(listener._stages):
            listener.close(stage)


def reporter(console: Console) -> Reporter:
    """A reporter that shows what a job tells."""
    return Reporter(Shown(console))
