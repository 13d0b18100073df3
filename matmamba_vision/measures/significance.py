"""What chance alone may explain: intervals of means over images, and paired tests of two widths.

Images are resampled for all values together, so that differences between widths are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
RESAMPLES = 2000
FLIPS = 9999
LEVEL = 0.95
# Resamples in memory at once.
_BLOCK = 64
# Sums in another order may differ by less than this share, and are then equal.
_SLACK = 1e-9


def with_intervals(
    groups: Sequence[Mapping[str, Values]], seed: int = 0, resamples: int = RESAMPLES
) -> list[dict[str, Any]]:
    """For each group the mean of each of its values, and as `NAME_interval` its 95 % bootstrap interval.

    Percentiles of the means over resampled images (Efron, 1979). Where all values are equal it has no width.

    Args:
        groups: values by name, (n,) each, of the same n images.
    """
    columns = [values for group in groups for values in group.values()]
    if not columns:
        return [{} for _ in groups]
    means = bootstrap_means(np.stack(columns, axis=1, dtype=np.float32, casting="unsafe"), seed, resamples)
    tail = (1 - LEVEL) / 2
    intervals = iter(np.quantile(means, [tail, 1 - tail], axis=0).T.tolist())
    return [
        {
            key: value
            for name, values in group.items()
            for key, value in ((name, float(values.mean())), (f"{name}_interval", next(intervals)))
        }
        for group in groups
    ]


def bootstrap_means(values: Values, seed: int = 0, resamples: int = RESAMPLES) -> Values:
    """(resamples, M) means of (n, M) floating values over n images drawn with replacement.

    In blocks, as products with the number of times that each image was drawn, the same for all M.
    """
    count, rng = len(values), np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]), dtype=values.dtype)
    for start in range(0, resamples, _BLOCK):
        block = means[start : start + _BLOCK]
        drawn = [np.bincount(rng.integers(count, size=count), minlength=count) for _ in block]
        block[:] = np.stack(drawn).astype(values.dtype) @ values / count
    return means


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Two-sided p of McNemar's exact test (McNemar, 1947): whether both are right equally often.

    Only images count on which one is right and the other wrong; each falls to either side like a coin.

    Args:
        first: (n,) whether one width classified each image rightly.
        second: (n,) whether the other one did.
    """
    sides = int((first & ~second).sum()), int((second & ~first).sum())
    count = sum(sides)
    # Whole numbers, so that nothing is rounded: the binomial coefficients from 0 to the smaller side.
    coefficient = total = 1
    for chosen in range(min(sides)):
        coefficient = coefficient * (count - chosen) // (chosen + 1)
        total += coefficient
    return min(1.0, 2 * total / 2**count)


def sign_flip_test(differences: Values, seed: int = 0, flips: int = FLIPS) -> float:
    """Two-sided p that the mean of paired differences is 0: a randomisation test (Fisher, 1935).

    The observed signs count as one of the flips, so that p is at least 1 / (flips + 1).

    Args:
        differences: (n,) of the two widths, image by image.
    """
    # Those that are 0 change no sum.
    differences = differences[differences != 0].astype(np.float64)
    least, rng = (1 - _SLACK) * abs(differences.sum()), np.random.default_rng(seed)
    extreme = 0
    for start in range(0, flips, _BLOCK):
        shape = (min(_BLOCK, flips - start), len(differences))
        signs = 2.0 * rng.integers(2, size=shape, dtype=np.int8) - 1
        extreme += int((np.abs(signs @ differences) >= least).sum())
    return (extreme + 1) / (flips + 1)
