"""Whether a width is right as often as it says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15


# Compared by identity: arrays have no single answer.
@dataclass(frozen=True, eq=False)
class Reliability:
    """Images in bins by confidence: bin b of B holds those from above b / B up to (b + 1) / B.

    Attributes:
        counts: (B,) images.
        confidences: (B,) means in each bin; not a number where it is empty.
        accuracies: (B,) the same of how many were right.
    """

    counts: NDArray[np.int64]
    confidences: NDArray[np.float64]
    accuracies: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap of the bins, each weighted by its images."""
        gaps = np.abs(self.confidences - self.accuracies)
        return float(np.nansum(gaps * self.counts) / self.counts.sum())


def reliability(
    confidences: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = BINS
) -> Reliability:
    """Bins of the reliability diagram (Guo et al., arXiv 1706.04599, section 2).

    Args:
        confidences: (n,) probability of the predicted class.
        correct: (n,) whether it was the true one.
    """
    which = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    sums = [np.bincount(which, weights=values, minlength=bins) for values in (confidences, correct)]
    means = [np.divide(found, counts, out=np.full(bins, np.nan), where=counts > 0) for found in sums]
    return Reliability(counts, *means)
