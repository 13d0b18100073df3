"""Progress on a terminal: bar, rate, time left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from matmamba_datasets import Batch, BrokenTally, Loader
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Meter:
    """A progress bar over images, with images/s and time left."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self._start, self._done = time.monotonic(), 0

    def advance(self, images: int, note: str = "") -> None:
        """Count `images` more, and show a short note."""
        self._done += images
        rate = self._done / max(1e-9, time.monotonic() - self._start)
        self._progress.update(self._task, advance=images, rate=f"{rate:,.0f} images/s", note=note)


@contextmanager
def meter(console: Console, description: str, total: int) -> Iterator[Meter]:
    """Show a bar while the block runs; nothing stays of it."""
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
        yield Meter(progress, progress.add_task(description, total=total, rate="", note=""))


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
