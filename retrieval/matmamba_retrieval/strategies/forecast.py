"""What an answer of the small width is expected to lose, from all of a query's margins together.

No single margin tells it well: a query that is sure loses nothing, and neither does one that is hopeless,
which the full width would not answer better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError

Values = NDArray[np.float64]
# Margins are differences of similarities or shares; beyond this one is as good as without bound.
MOST = 2.0
# Standard deviations at which a margin counts no further: the polynomial grows fast.
FAR = 4.0
# Weight of the squared weights of the polynomial against the mean squared error.
RIDGE = 0.1
# Queries are dealt into so many parts, each forecast from the others.
PARTS = 5


@dataclass(frozen=True)
class Forecast:
    """A polynomial of second order of the margins, by least squares.

    Attributes:
        rules: (F,) whose margins it reads.
        centre: (F,) their means.
        scale: (F,) their standard deviations.
        weights: (1 + F + F (F + 1) / 2,) of one, of the margins, and of their products.

    Raises:
        GalleryError: they are not as many as that.
    """

    rules: tuple[str, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        count = len(self.rules)
        wanted = (count, count, 1 + count + count * (count + 1) // 2)
        found = (len(self.centre), len(self.scale), len(self.weights))
        if found != wanted:
            raise GalleryError(
                f"a forecast of {count} rules has {wanted} numbers in centre, scale, weights, not {found}"
            )

    def __call__(self, by_rule: Mapping[str, Values]) -> Values:
        """(n,) losses that are to be expected of queries with these margins, (n,) by rule."""
        margins = _stacked({rule: by_rule[rule] for rule in self.rules})
        return _terms(margins, np.array(self.centre), np.array(self.scale)) @ np.array(self.weights)


def fit(by_rule: Mapping[str, Values], losses: Values) -> Forecast:
    """The forecast that is nearest to (n,) losses of queries with these margins: ridge regression."""
    margins = _stacked(by_rule)
    centre, scale = margins.mean(0), margins.std(0) + 1e-9
    terms = _terms(margins, centre, scale)
    # The constant is not held back.
    held = RIDGE * len(terms) * np.diag([0.0] + [1.0] * (terms.shape[1] - 1))
    weights = np.linalg.solve(terms.T @ terms + held, terms.T @ losses)
    return Forecast(tuple(by_rule), *(tuple(map(float, known)) for known in (centre, scale, weights)))


def cross_fitted(by_rule: Mapping[str, Values], losses: Values, seed: int = 0) -> Values:
    """(n,) expected losses, those of each query forecast from other queries."""
    dealt = np.random.default_rng(seed).permutation(len(losses)) % PARTS
    found = np.empty(len(losses))
    for part in range(PARTS):
        here, others = dealt == part, dealt != part
        forecast = fit({rule: margins[others] for rule, margins in by_rule.items()}, losses[others])
        found[here] = forecast({rule: margins[here] for rule, margins in by_rule.items()})
    return found


def _stacked(by_rule: Mapping[str, Values]) -> Values:
    """(n, F) margins within what can be computed with."""
    return np.clip(np.stack([*by_rule.values()], axis=1), -MOST, MOST)


def _terms(margins: Values, centre: Values, scale: Values) -> Values:
    """(n, 1 + F + F (F + 1) / 2): one, the normalised margins, and their products."""
    x = np.clip((margins - centre) / scale, -FAR, FAR)
    first, second = np.triu_indices(x.shape[1])
    return np.concatenate([np.ones((len(x), 1)), x, x[:, first] * x[:, second]], axis=1)
