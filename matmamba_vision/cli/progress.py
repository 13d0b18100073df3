"""Progress on a terminal: bar, rate, time left."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from matmamba_datasets import Batch, BrokenTally, Loader, left_out_text
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .console import Console

# Seconds between two lines where there is no terminal.
LINE_SECONDS = 10


class Meter:
    """Progress over images, with images/s and time left: a bar on a terminal, else a line now and then.

    Args:
        unit: what is counted.
    """

    def __init__(self, progress: Progress, description: str, total: int, unit: str = "images") -> None:
        self._unit, self._progress, self._description, self._total = unit, progress, description, total
        self._task = progress.add_task(description, total=total, rate="", note="")
        self._start, self._done = time.monotonic(), 0
        self._said = self._start
        self._skipped = 0

    def skip(self, images: int) -> None:
        """Count `images` that were done before, and not at this rate."""
        self._skipped = images
        self._done += images
        self._progress.update(self._task, advance=images)

    def advance(self, images: int, note: str = "") -> None:
        """Count `images` more, and show a short note."""
        self._done += images
        now = time.monotonic()
        rate = (self._done - self._skipped) / max(1e-9, now - self._start)
        self._progress.update(self._task, advance=images, rate=f"{rate:,.0f} {self._unit}/s", note=note)
        if self._progress.disable and now - self._said > LINE_SECONDS:
            self._said = now
            left = timedelta(seconds=round((self._total - self._done) / rate))
            done = f"{self._description} {self._done:,}/{self._total:,}"
            line = f"{done}  {rate:,.0f} {self._unit}/s  {left} left  {note}"
            self._progress.console.print(line.rstrip(), soft_wrap=True, highlight=False)


@contextmanager
def meter(console: Console, description: str, total: int, unit: str = "images") -> Iterator[Meter]:
    """Show progress while the block runs; nothing stays of the bar."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Meter(progress, description, total, unit)


def counted(loader: Loader, tally: BrokenTally) -> Iterator[Batch]:
    """The batches of one pass; broken images are counted, and raise `DataError` when too many."""
    for batch in loader:
        tally.add(batch.broken)
        yield batch


def watch(console: Console, description: str, loader: Loader, tally: BrokenTally) -> Iterator[Batch]:
    """`counted` batches, with a bar."""
    with meter(console, description, len(loader.images)) as bar:
        for batch in counted(loader, tally):
            yield batch
            bar.advance(len(batch) + len(batch.broken))


def say_broken(console: Console, tally: BrokenTally) -> None:
    """Print which files were left out, if any."""
    if tally.found:
        console.print(
            f"{len(tally.found)} files were left out:\n{tally.listing()}", markup=False, soft_wrap=True
        )
    say_left_out(console, tally.foreign)


def say_left_out(console: Console, left_out: Mapping[str, str]) -> None:
    """Print what a place holds beside its images, by reason; with --debug, all of it."""
    if left_out:
        most = len(left_out) if logging.getLogger().isEnabledFor(logging.DEBUG) else 3
        console.print(left_out_text(left_out, most), markup=False, highlight=False, soft_wrap=True)
