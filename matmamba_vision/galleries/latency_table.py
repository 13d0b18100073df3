"""What batches take at each width: measured at start, and followed while queries are answered."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

# Batches that tables show, as far as there are any so large.
SHOWN = (1, 2, 4, 8, 16, 32, 64)
# Batches whose seen times are compared with predicted ones, and how many count as predicted at first.
RATIOS, AT_FIRST = 64, 16
# The ratio moves within these: beyond, something stood still that says nothing about the next batch.
LEAST_RATIO, MOST_RATIO = 0.05, 8.0
PERCENTILE = 95
# Of a measurement with too few repeats to know its spread; beyond the most, something else was busy then.
LEAST_SPREAD, MOST_SPREAD = 1.05, 2.0

Floats = NDArray[np.float64]
# Seconds by rank of the width and number of images.
Samples = dict[tuple[int, int], list[float]]


class LatencyTable:
    """Seconds that so many requests take at each width, which 95 of 100 batches keep.

    Args:
        widths: labels, the widest first.
        typical: (widths, most images) median seconds.
        spread: how much longer than the median the 95th percentile is, as a factor.

    Attributes:
        widths: as given.
        typical: as given.
        ratio: of seen to predicted times, lately.
    """

    def __init__(self, widths: Sequence[str], typical: Floats, spread: float) -> None:
        self.widths, self.typical, self.ratio = tuple(widths), typical, 1.0
        self._predicted = (typical * spread).tolist()
        self._ratios = deque([1.0] * AT_FIRST, maxlen=RATIOS)

    @property
    def most(self) -> int:
        """Images of the largest batch."""
        return self.typical.shape[1]

    def seconds(self, rank: int, count: int) -> float:
        """What `count` images take at a width; beyond the largest batch, as many of these as it takes."""
        row, most = self._predicted[rank], self.typical.shape[1]
        if count <= most:
            return float(row[count - 1] * self.ratio)
        return float((count / most) * row[-1] * self.ratio)

    def seen(self, rank: int, count: int, seconds: float) -> None:
        """A batch took so long: the table follows the 95th percentile of seen to predicted."""
        predicted = self.seconds(rank, count) / self.ratio
        self._ratios.append(seconds / max(predicted, 1e-6))
        ratio = _percentile(self._ratios)
        self.ratio = min(max(ratio, LEAST_RATIO), MOST_RATIO)

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Milliseconds by width and number of images, as they are predicted now."""
        sizes = [size for size in SHOWN if size <= self.most]
        return {
            width: {str(size): round(1e3 * self.seconds(rank, size), 3) for size in sizes}
            for rank, width in enumerate(self.widths)
        }


def time_batches(run: Callable[[int, int], None], ranks: int, most: int, seconds: float) -> Samples:
    """Time batches of several sizes at each width in turn, until the time is over; each width once at least.

    Args:
        run: computes a batch, given the rank of its width and its number of images.
        ranks: how many widths there are.
        most: images of the largest batch.
        seconds: that may be spent; a batch that would take longer than what is left is left out.
    """
    found: Samples = {}
    end, sizes = time.perf_counter() + seconds, _sizes(most)
    for size in _turns(sizes):
        for rank in range(ranks):
            # What it should take, by the single image.
            guess = size * min(found.get((rank, 1), [0.0]))
            if found.get((rank, 1)) and time.perf_counter() + guess > end:
                continue
            start = time.perf_counter()
            run(rank, size)
            found.setdefault((rank, size), []).append(time.perf_counter() - start)
        if time.perf_counter() + min(found.get((ranks - 1, 1), [0.0])) > end:
            break
    return found


def _sizes(most: int) -> list[int]:
    """1, 2, 4 and so on, and the largest."""
    return sorted({most, *(1 << power for power in range(most.bit_length()) if 1 << power <= most)})


def _turns(sizes: Sequence[int]) -> list[int]:
    """In which order sizes are measured: what is needed first comes first and most often."""
    order = [1, *sizes[-1:], *sizes[len(sizes) // 2 :][:1], *sizes[1:]]
    return [*order, *(size for _ in range(50) for size in (1, *sizes))]


def table_of(widths: Sequence[str], most: int, *samples: Samples) -> LatencyTable:
    """The table of what was measured, by one thread or several at the same time.

    Between measured sizes time grows linearly, beyond them in proportion. What else is done meanwhile only
    makes a measurement longer: so no batch takes longer than a larger one, than its images one by one, or
    than by a wider width. The spread is of all measurements together, each divided by the median of its own
    kind: few of each suffice.

    Args:
        widths: labels, the widest first.
        most: images of the largest batch.
        samples: of `time_batches`.
    """
    joined: Samples = {}
    for part in samples:
        for cell, seconds in part.items():
            joined.setdefault(cell, []).extend(seconds)
    rows = np.stack([_row(joined, rank, most) for rank in range(len(widths))])
    # A narrower width takes no longer: what was measured longer was disturbed.
    typical = np.minimum.accumulate(rows, axis=0)
    return LatencyTable(widths, typical, _spread(joined))


def _row(samples: Samples, rank: int, most: int) -> Floats:
    sizes = sorted(size for known, size in samples if known == rank)
    medians = np.array([float(np.median(samples[rank, size])) for size in sizes])
    medians = np.minimum.accumulate(medians[::-1])[::-1]
    medians = np.minimum(medians, medians[0] * np.array(sizes) / sizes[0])
    counts = np.arange(1, most + 1)
    # Beyond the largest of them its last value would be taken again.
    found: Floats = np.interp(counts, sizes, medians) * np.maximum(1.0, counts / sizes[-1])
    return found


def _percentile(values: Iterable[float]) -> float:
    """The `PERCENTILE`th, as NumPy has it, of few values: its call would take longer than all of this."""
    ordered = sorted(values)
    place = PERCENTILE / 100 * (len(ordered) - 1)
    low = int(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def _spread(samples: Samples) -> float:
    shares = [one / float(np.median(seconds)) for seconds in samples.values() for one in seconds]
    return min(max(LEAST_SPREAD, _percentile(shares)), MOST_SPREAD)
