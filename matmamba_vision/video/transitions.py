"""What is shown between two scenes, or at a flash: mixtures of other pictures, told by thumbnails."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
# Mean absolute difference of a thumbnail from a mixture, as a share of white: of noise, and what moves.
NEAR_MIXTURE = 0.025
# A mixture has less than this of either picture: what has more is that picture.
MOST_OF_ONE = 0.95
# By how much shares may be below 0, or their sum above 1.
_SLACK = 0.05


def misfit(now: Floats, *others: Floats, lit: bool = False) -> float:
    """How far a thumbnail is from the nearest mixture of some others, in which black may have a part.

    Args:
        now: (9, 16, 3) in 0..1.
        others: the same.
        lit: whether white may have a part, too: that of a flash.

    Returns:
        Mean absolute difference, as a share of white; infinite where none of the mixtures is near, or where
        it is one of the others.
    """
    parts = [other.ravel() for other in others]
    pictures = np.stack([*parts, np.ones_like(parts[0])] if lit else parts, axis=1)
    shares, *_ = np.linalg.lstsq(pictures, now.ravel(), rcond=None)
    if shares.min() < -_SLACK or shares.sum() > 1 + _SLACK or shares[: len(parts)].max() > MOST_OF_ONE:
        return math.inf
    return float(np.abs(pictures @ shares - now.ravel()).mean())
