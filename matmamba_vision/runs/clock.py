"""How long a run has taken, over all the times that it was resumed."""

from __future__ import annotations

import time


class RunClock:
    """Seconds of a run.

    Attributes:
        before: those before it was resumed.
    """

    def __init__(self) -> None:
        self.before = 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Of the run, those before it was resumed too."""
        return self.before + time.monotonic() - self._started
