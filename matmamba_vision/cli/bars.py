"""The events of a job on a terminal: bar, rate, time left, and lines."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from ..progress import Event, Notice, Progress, Reporter
from .console import Console

if TYPE_CHECKING:
    import rich.progress

# Seconds between two lines where there is no terminal.
LINE_SECONDS = 10


@dataclass
class _Stage:
    """A stage that is shown.

    Attributes:
        bar: on a terminal, else None.
        task: its number there.
        start: when it began.
        said: when a line was last printed.
    """

    bar: rich.progress.Progress | None
    task: rich.progress.TaskID | None
    start: float
    said: float


class Shown:
    """A listener for one job that shows events: a bar on a terminal, else a line now and then.

    When its block ends, nothing is left of its bars.

    Args:
        console: where.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._stages: dict[str, _Stage] = {}

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *_: object) -> None:
        for stage in list(self._stages):
            self.close(stage)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.console.print(event.text, markup=False, highlight=False, soft_wrap=True)
        elif event.finished:
            self.close(event.stage)
        elif not self.console.quiet:
            self._show(self._stages.get(event.stage) or self._begin(event), event)

    def close(self, stage: str) -> None:
        """Take a stage away, if it is shown."""
        if (shown := self._stages.pop(stage, None)) is not None and shown.bar is not None:
            shown.bar.stop()

    def _begin(self, event: Progress) -> _Stage:
        bar = _bar(self.console, event) if self.console.is_terminal else None
        task = None if bar is None else bar.add_task(event.stage, total=event.total, rate="", note="")
        now = time.monotonic()
        stage = self._stages[event.stage] = _Stage(bar, task, now, now)
        return stage

    def _show(self, stage: _Stage, event: Progress) -> None:
        now = time.monotonic()
        rate = (event.done - event.skipped) / max(1e-9, now - stage.start)
        said = f"{rate:,.0f} {event.unit}/s" if rate else ""
        if stage.bar is not None and stage.task is not None:
            stage.bar.update(stage.task, completed=event.done, rate=said, note=event.note)
        elif event.total is not None and rate and now - stage.said > LINE_SECONDS:
            stage.said = now
            left = timedelta(seconds=round((event.total - event.done) / rate))
            line = f"{event.stage} {event.done:,}/{event.total:,}  {said}  {left} left  {event.note}"
            self.console.print(line.rstrip(), soft_wrap=True, highlight=False)


def _bar(console: Console, event: Progress) -> rich.progress.Progress:
    """A bar on a terminal, or something that turns where the length is not known."""
    import rich.progress as bars

    text, note = bars.TextColumn("{task.description}"), bars.TextColumn("{task.fields[note]}")
    columns: tuple[bars.ProgressColumn, ...] = (bars.SpinnerColumn(), text)
    if event.total is not None:
        rate, left = bars.TextColumn("{task.fields[rate]}"), bars.TextColumn("left")
        columns = (
            text,
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            rate,
            left,
            bars.TimeRemainingColumn(),
            note,
        )
    bar = bars.Progress(*columns, console=console, transient=True)
    bar.start()
    return bar


def reporter(console: Console) -> Reporter:
    """A reporter that shows what a job tells."""
    return Reporter(Shown(console))
