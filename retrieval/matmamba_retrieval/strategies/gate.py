"""The gate: which queries the small width may answer, and the calibration of that rule on held-out queries.

A rule gives each query a margin, from the nearest neighbours that the small width found; queries whose margin
is below a threshold are encoded at full width. Calibration finds the threshold with the fewest such queries
whose loss against single-shot is at most a target. One rule is itself learned from these queries: the loss
that is to be expected, see `forecast`.

What calibration promises holds for the queries that it saw. For others of the same kind the loss is a mean
over a sample, whose one-sided 95 % bound stands beside it: with few queries, or a small target, it is far
above the target, and choosing rule and threshold by the same queries adds to that. Calibration that is to be
sure demands that the bound be within the target (fixed-sequence testing, Angelopoulos et al.,
arXiv 2110.01052): it sends more queries to the full width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..errors import GalleryError
from ..index.rerank import NO_KEY
from .forecast import Forecast, Values, cross_fitted, fit
from .queries import Floats, Ints
from .searchable import Searchable

# The nearest neighbours that vote.
NEIGHBOURS = 50
# A margin that none exceeds, and one that none falls below; finite, so that JSON can hold them.
EVERY, NONE = 1e30, -1e30
# Of a normal distribution 95 % lies below so many standard deviations above the mean.
ONE_SIDED_95 = 1.6449


def gap(D: Floats, classes: Ints, k: int) -> Values:
    """By how much the first neighbour is nearer than the second."""
    return _difference(D[:, 0], D[:, 1])


def boundary(D: Floats, classes: Ints, k: int) -> Values:
    """By how much the k-th neighbour is nearer than the one after it."""
    return _difference(D[:, k - 1], D[:, k])


def class_gap(D: Floats, classes: Ints, k: int) -> Values:
    """By how much the first neighbour is nearer than the first one of another class."""
    others = np.where(classes == classes[:, :1], -np.inf, D)
    return _difference(D[:, 0], others.max(1))


def vote(D: Floats, classes: Ints, k: int) -> Values:
    """Share of the neighbours that have the class of the first: whether another first would be better."""
    return (classes == classes[:, :1]).sum(1) / _voters(classes)


def regret(D: Floats, classes: Ints, k: int) -> Values:
    """Expected average precision of the k hits, less what hits of the likeliest class alone would have.

    The neighbours' classes are taken as probabilities of the query's class.
    """
    shares = np.stack([(classes == classes[:, r, None]).sum(1) for r in range(classes.shape[1])], axis=1)
    shares = np.where(classes == NO_KEY, 0, shares) / _voters(classes)[:, None]
    expected = np.zeros(len(classes))
    for rank in range(min(k, classes.shape[1])):
        precision = (classes[:, : rank + 1] == classes[:, rank, None]).mean(1)
        expected += shares[:, rank] * precision / k
    return expected - shares.max(1)


def _difference(first: Floats, second: Floats) -> Values:
    """Where there is no second, nothing can be confused."""
    found = first.astype(np.float64) - np.where(np.isfinite(second), second, NONE)
    return np.where(np.isfinite(first), found, EVERY)


def _voters(classes: Ints) -> Ints:
    return np.maximum(1, (classes != NO_KEY).sum(1))


Rule = Callable[[Floats, Ints, int], Values]
RULES: dict[str, Rule] = {
    "gap": gap,
    "boundary": boundary,
    "class": class_gap,
    "vote": vote,
    "regret": regret,
}
# Rules that need the labels of the gallery.
OF_LABELS = ("class", "vote", "regret")
# The rule whose margin is a forecast, and how many queries it takes at least to make one.
FORECAST, FORECAST_QUERIES = "forecast", 100


@dataclass(frozen=True)
class Gate:
    """Which queries are encoded at full width: those whose margin by the rule is below the threshold.

    Attributes:
        rule: a key of `RULES`, or "forecast" with one: then the margin is the gain that it expects.

    Raises:
        GalleryError: there is no such rule, or a forecast is missing or reads one that there is not.
    """

    rule: str = "gap"
    threshold: float = EVERY
    forecast: Forecast | None = None

    def __post_init__(self) -> None:
        known = self.rule == FORECAST if self.forecast else self.rule in RULES
        if not known or not RULES.keys() >= {*self.rules}:
            raise GalleryError(
                f"unknown gate rule {self.rule!r}: one of {', '.join(RULES)}, or {FORECAST} with its forecast"
            )

    def __str__(self) -> str:
        return f"{self.rule} below {self.threshold:.4g}"

    @property
    def rules(self) -> tuple[str, ...]:
        """Those whose margins it needs."""
        return self.forecast.rules if self.forecast else (self.rule,)

    def margins(self, by_rule: Mapping[str, Values]) -> Values:
        """(n,) its own, from those by rule."""
        return -self.forecast(by_rule) if self.forecast else by_rule[self.rule]

    def hard(self, margins: Values) -> Ints:
        """Which of the queries need the full width."""
        return np.flatnonzero(margins < self.threshold)


def depth(k: int) -> int:
    """How many hits of the small width the rules look at, for k that are wanted."""
    return max(k + 1, NEIGHBOURS)


def classes_of(gallery: Searchable, I: Ints) -> Ints:  # noqa: E741
    """Classes of hits, `NO_KEY` where there is no hit; images without a label share none.

    Raises:
        GalleryError: the gallery has no labels.
    """
    found = gallery.classes(I)
    if found is None:
        raise GalleryError(f"{gallery.folder} has no labels, which the rule of this gate needs")
    return np.where(I == NO_KEY, NO_KEY, found)


def margins(
    rules: Collection[str],
    gallery: Searchable,
    D: Floats,
    I: Ints,  # noqa: E741
    k: int,
) -> dict[str, Values]:
    """(nq,) margins by rule, from `depth(k)` hits of the small width, or as many as there are.

    Raises:
        GalleryError: a rule needs labels, and the gallery has none.
    """
    if D.shape[1] <= k:
        missing = ((0, 0), (0, k + 1 - D.shape[1]))
        D = np.pad(D, missing, constant_values=-np.inf)
        I = np.pad(I, missing, constant_values=NO_KEY)  # noqa: E741
    known = classes_of(gallery, I) if {*rules} & {*OF_LABELS} else np.full_like(I, NO_KEY)
    return {rule: RULES[rule](D, known, k) for rule in rules}


def gates(by_rule: Mapping[str, Values], small: Values, full: Values) -> dict[Gate, Values]:
    """Gates without a threshold, and the (n,) margins of queries to calibrate each on.

    One for each rule, and forecasts: of each quality, and of their mean.

    Args:
        by_rule: as for `calibrate`.
        small: as for `calibrate`.
        full: as for `calibrate`.
    """
    found = {Gate(rule): values for rule, values in by_rule.items()}
    if len(small) < FORECAST_QUERIES:
        return found
    gains = small - full
    for losses in (*gains.T, gains.mean(1)):
        # Each query is forecast from others: the threshold must not believe what was fitted to it.
        found[Gate(FORECAST, forecast=fit(by_rule, losses))] = -cross_fitted(by_rule, losses)
    return found


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A gate, and what it did to the queries that it was calibrated on.

    Attributes:
        share: of the queries that were encoded at full width.
        losses: of each quality against single-shot.
        bounds: one-sided 95 % upper bounds of these, as a mean of a sample.
        met: whether all losses are within the target; if not, even all queries at full width lose more,
            because the shortlist is too short.
    """

    gate: Gate
    share: float
    losses: tuple[float, ...]
    bounds: tuple[float, ...]
    met: bool


def calibrate(
    by_gate: Mapping[Gate, Values], small: Values, full: Values, target: float, sure: bool = False
) -> Calibration:
    """The gate and threshold that send the fewest queries to the full width at a loss within the target.

    For each gate the queries are ordered by margin. From all at full width, ever fewer are, until a loss
    first exceeds the target: a lucky threshold beyond that is not taken. Of gates that send equally many, the
    first is taken.

    Args:
        by_gate: (n,) margins of each query, see `gates`.
        small: (n, M) what each query loses of M qualities against single-shot, answered by the small width.
        full: (n, M) the same, answered by the full width.
        sure: hold the bounds, rather than the losses, against the target.
    """
    if not by_gate or not len(small):
        raise GalleryError("a gate needs a rule and queries to calibrate it on")
    found = [_calibrate(gate, values, small, full, target, sure) for gate, values in by_gate.items()]
    return min(found, key=lambda calibration: (not calibration.met, calibration.share))


def _calibrate(
    gate: Gate, margins: Values, small: Values, full: Values, target: float, sure: bool
) -> Calibration:
    count, order = len(margins), np.argsort(margins, kind="stable")
    ordered, expensive, cheap = margins[order], full[order], small[order]
    losses, squares = _means(expensive, cheap), _means(expensive**2, cheap**2)
    bounds = losses + ONE_SIDED_95 * np.sqrt(np.maximum(0, squares - losses**2) / count)
    # Equal margins share their fate.
    possible = np.r_[True, ordered[1:] > ordered[:-1], True]
    # Sums in another order may differ in the last bits.
    bad = possible & ((bounds if sure else losses).max(1) > target + 1e-12)
    fewest = int(np.flatnonzero(bad)[-1]) + 1 if bad.any() else 0
    met = fewest <= count
    first = int(np.flatnonzero(possible[fewest:])[0]) + fewest if met else count
    gate = replace(gate, threshold=float(ordered[first]) if first < count else EVERY)
    lost, bound = (tuple(map(float, values[first])) for values in (losses, bounds))
    return Calibration(gate=gate, share=first / count, losses=lost, bounds=bound, met=met)


def _means(expensive: Values, cheap: Values) -> Values:
    """(n + 1, M) means where the first 0, 1, ... n have the first values, and the others the second."""
    none = np.zeros((1, expensive.shape[1]))
    sums = np.vstack([none, expensive.cumsum(0)]) + np.vstack([cheap[::-1].cumsum(0)[::-1], none])
    return sums / len(expensive)
