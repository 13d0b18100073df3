"""The last minute of a service: how fast it answered, how wide, and how many it sent away."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import numpy as np

SPAN = 60.0
# Requests that are remembered: more than two cores answer in a minute.
MOST = 100_000


class Traffic:
    """Counts what happened in the last minute.

    Args:
        clock: says what time it is, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._started = clock, clock()
        # When, milliseconds, whether in time, width.
        self._answered: deque[tuple[float, float, bool, str]] = deque(maxlen=MOST)
        self._shed: deque[float] = deque(maxlen=MOST)
        self._counting = threading.Lock()

    def answered(self, ms: float, in_time: bool, width: str) -> None:
        """A request was answered."""
        with self._counting:
            self._forget(now := self._clock())
            self._answered.append((now, ms, in_time, width))

    def shed(self) -> None:
        """A request was sent away."""
        with self._counting:
            self._forget(now := self._clock())
            self._shed.append(now)

    def _forget(self, now: float) -> None:
        """Drop what is older than the last minute: memory is that of a minute, however long it serves."""
        while self._answered and self._answered[0][0] < now - SPAN:
            self._answered.popleft()
        while self._shed and self._shed[0] < now - SPAN:
            self._shed.popleft()

    def to_dict(self) -> dict[str, Any]:
        """What `GET /v1/status` says of the last minute; None where there was nothing."""
        now = self._clock()
        with self._counting:
            self._forget(now)
            answered, shed = list(self._answered), len(self._shed)
        ms = np.array([one[1] for one in answered])
        p50, p95, p99 = (float(np.percentile(ms, p)) if len(ms) else None for p in (50, 95, 99))
        widths = Counter(one[3] for one in answered if one[3])
        # What was sent away was not in time, either.
        asked, in_time = len(answered) + shed, sum(one[2] for one in answered)
        return {
            "uptime_s": now - self._started,
            "per_second": len(answered) / max(1.0, min(SPAN, now - self._started)),
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            "in_time": in_time / asked if asked else None,
            "shed": shed,
            "widths": {width: count / widths.total() for width, count in widths.most_common()},
        }
