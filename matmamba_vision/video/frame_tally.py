"""How many frames were answered, how late, and by which width: counted in constant memory."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

# Lags are counted in steps of one per cent, from a tenth of a millisecond up.
STEP, LEAST_MS = 1.01, 0.1


@dataclass(kw_only=True)
class Lags:
    """Milliseconds of any number of frames, to one per cent.

    Attributes:
        most: the longest, exactly.
    """

    most: float = 0.0
    _steps: Counter[int] = field(default_factory=Counter)

    def add(self, ms: float) -> None:
        """One frame more."""
        self.most = max(self.most, ms)
        self._steps[math.ceil(math.log(max(ms, LEAST_MS) / LEAST_MS, STEP))] += 1

    def percentile(self, share: float) -> float:
        """What so many of 100 frames do not exceed; 0 without frames."""
        wanted, found = share / 100 * self._steps.total(), 0
        for step in sorted(self._steps):
            found += self._steps[step]
            if found >= wanted:
                return min(self.most, LEAST_MS * STEP**step)
        return 0.0

    def to_dict(self) -> dict[str, float]:
        """p50, p99 and max."""
        return {"p50": self.percentile(50), "p99": self.percentile(99), "max": self.most}


@dataclass(kw_only=True)
class FrameTally:
    """What became of frames.

    Attributes:
        frames: that were answered.
        dropped: that were not.
        damaged: packets that could not be decoded.
        lags: from when a frame was due until it was answered.
        widths: how many frames each width encoded.
    """

    frames: int = 0
    dropped: int = 0
    damaged: int = 0
    lags: Lags = field(default_factory=Lags)
    widths: Counter[str] = field(default_factory=Counter)

    def answered(self, width: str, lag_s: float) -> None:
        """A frame was answered, so many seconds after it was due."""
        self.frames += 1
        self.widths[width] += 1
        self.lags.add(1e3 * max(0.0, lag_s))
