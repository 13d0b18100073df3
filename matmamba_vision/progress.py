"""What a job tells while it works: how far it is, and what its caller should know. Nothing here prints.

A job takes a `Listener`, a function that is called with each `Event`; the command line shows them as bars and
lines, and a program may show them as it likes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matmamba_common.counts import counted as named
from matmamba_common.words import shown
from matmamba_datasets import BrokenTally, left_out_text

if TYPE_CHECKING:
    from matmamba_datasets import Batch, Loader

# Reasons that are listed; all of them where a program logs for debugging.
REASONS = 3


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far one stage of a job is.

    Attributes:
        stage: what is done, such as "indexing".
        done: how many, the skipped ones included.
        total: of how many; None where that is not known.
        unit: what is counted.
        skipped: how many of those done were there before, and took no time.
        note: a few words more, such as the number of broken files.
        finished: whether the stage is over; the last event of a stage says so.
    """

    stage: str
    done: int = 0
    total: int | None = None
    unit: str = "images"
    skipped: int = 0
    note: str = ""
    finished: bool = False


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that the caller should know and that is no error.

    Attributes:
        text: whole sentences, one or more lines.
    """

    text: str


Event = Progress | Notice
"""What a job tells."""
Listener = Callable[[Event], None]
"""What is told: a function of one event."""


def nobody(event: Event) -> None:
    """Listens to nothing."""


class Meter:
    """Counts what is done of one stage, and tells it.

    Args:
        listener: is told.
        stage: what is done.
        total: of how many.
        unit: what is counted.
    """

    def __init__(self, listener: Listener, stage: str, total: int | None, unit: str = "images") -> None:
        self._listener, self._stage, self._total, self._unit = listener, stage, total, unit
        self._done, self._skipped = 0, 0
        self._tell()

    def skip(self, count: int) -> None:
        """Count what was done before, and took no time."""
        self._skipped += count
        self.advance(count)

    def advance(self, count: int, note: str = "") -> None:
        """Count `count` more, with a few words."""
        self._done += count
        self._tell(note)

    def finish(self) -> None:
        """Tell that the stage is over."""
        self._tell(finished=True)

    def _tell(self, note: str = "", finished: bool = False) -> None:
        # Every search has a meter, and few have a listener.
        if self._listener is nobody:
            return
        self._listener(
            Progress(
                stage=self._stage,
                done=self._done,
                total=self._total,
                unit=self._unit,
                skipped=self._skipped,
                note=note,
                finished=finished,
            )
        )


class Reporter:
    """What a job tells through: notices, stages, and passes over images.

    Args:
        listener: is told; None for nobody.

    Raises:
        TypeError: it cannot be called; callers hand it over as `progress`.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        if not (listener is None or callable(listener)):
            raise TypeError(
                f"progress is {shown(listener)}: it can be a function that takes an event, or left out"
            )
        self.listener: Listener = listener or nobody

    def say(self, text: str) -> None:
        """Tell something that the caller should know."""
        self.listener(Notice(text=text))

    @contextmanager
    def meter(self, stage: str, total: int, unit: str = "images") -> Iterator[Meter]:
        """A stage whose length is known; it is over when the block ends, however it ends."""
        meter = Meter(self.listener, stage, total, unit)
        try:
            yield meter
        finally:
            meter.finish()

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        """A stage whose length is not known."""
        meter = Meter(self.listener, stage, None)
        try:
            yield
        finally:
            meter.finish()

    def watch(self, stage: str, loader: Loader, tally: BrokenTally) -> Iterator[Batch]:
        """The batches of one pass, told as a stage.

        Raises:
            DataError: more images are broken than `tally` allows.
        """
        with self.meter(stage, len(loader.images)) as meter:
            for batch in counted(loader, tally):
                yield batch
                meter.advance(len(batch) + len(batch.broken))

    def left_out(self, left_out: Mapping[str, str]) -> None:
        """Tell what a place holds beside its images, by reason."""
        if left_out:
            every = logging.getLogger().isEnabledFor(logging.DEBUG)
            self.say(left_out_text(left_out, len(left_out) if every else REASONS))

    def broken(self, tally: BrokenTally) -> None:
        """Tell which images could not be read, and what was no image."""
        if tally.found:
            self.say(f"{named(len(tally.found), 'file')} left out:\n{tally.listing()}")
        self.left_out(tally.foreign)


def counted(loader: Loader, tally: BrokenTally) -> Iterator[Batch]:
    """The batches of one pass; broken images are counted, and raise `DataError` when too many."""
    for batch in loader:
        tally.add(batch.broken)
        yield batch
