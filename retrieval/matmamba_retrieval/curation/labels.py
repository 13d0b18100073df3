"""What the neighbours say about labels: suggestions where there is none, doubts where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import GalleryError
from ..gallery.gallery import Gallery
from ..index.rerank import NO_KEY
from ..metrics import VOTE_TEMPERATURE, knn_classes
from ..strategies.neighbours import neighbours
from ..strategies.strategy import Strategy

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
UNKNOWN = -1
# Labelled images from which one can say how often votes are right.
LEAST_LABELLED = 50


@dataclass(frozen=True, kw_only=True)
class Votes:
    """Votes of the nearest labelled others of n images.

    Attributes:
        classes: names.
        keys: (n,) of the images.
        own: (n,) their classes, `UNKNOWN` where they have none.
        winners: (n,) the classes that their neighbours vote for.
        confidence: (n,) the winner's share of the votes.
        own_share: (n,) their own class's share, 0 without one.
        neighbours: (n, k) keys, the nearest first, `NO_KEY` where there are fewer.
    """

    classes: tuple[str, ...]
    keys: Ints
    own: Ints
    winners: Ints
    confidence: Floats
    own_share: Floats
    neighbours: Ints

    def accuracy(self) -> float | None:
        """Share of the labelled images whose neighbours vote for their label; None if there are none."""
        labelled = self.own != UNKNOWN
        return float((self.winners == self.own)[labelled].mean()) if labelled.any() else None

    def calibrated(self) -> Floats:
        """(n,) how often the winner is right where it has such a share of the votes, or the shares.

        The labelled images, for which nobody votes who knows the answer, say how often: isotonic regression
        of right and wrong on the share (Zadrozny and Elkan, 2002), with one more of each in every step, as
        few images prove little. Fewer than `LEAST_LABELLED` of them prove nothing.
        """
        labelled = np.flatnonzero(self.own != UNKNOWN)
        if len(labelled) < LEAST_LABELLED:
            return self.confidence
        order = labelled[np.argsort(self.confidence[labelled], kind="stable")]
        shares, rates = _isotonic(self.confidence[order], self.winners[order] == self.own[order])
        return np.interp(self.confidence, shares, rates)

    def suggestions(self) -> Ints:
        """Positions of the images without a label, the most certain first."""
        found = np.flatnonzero(self.own == UNKNOWN)
        return found[np.argsort(-self.confidence[found], kind="stable")]

    def doubts(self) -> Ints:
        """Positions of the images whose neighbours vote for another label, the most doubtful first.

        Doubt is how much larger the other label's share of the votes is than that of their own.
        """
        found = np.flatnonzero((self.own != UNKNOWN) & (self.winners != self.own))
        return found[np.argsort((self.own_share - self.confidence)[found], kind="stable")]


def vote(
    gallery: Gallery,
    strategy: Strategy,
    keys: Ints,
    k: int = 20,
    temperature: float = VOTE_TEMPERATURE,
    allowed: Bools | None = None,
    progress: Callable[[int], None] = lambda images: None,
) -> Votes:
    """What the k nearest labelled others of each image vote for, weighed as in `metrics.knn_classes`.

    An image never votes for itself, so the votes for labelled images are a leave-one-out test.

    Args:
        keys: the images.
        allowed: (keys,) which images may vote, if they have a label.

    Raises:
        GalleryError: fewer than two images may vote, or a temperature that is not above 0.
    """
    if not temperature > 0:
        raise GalleryError(f"the temperature of votes is {temperature:g}: it has to be above 0")
    classes, by_key = _classes(gallery)
    voters = (by_key != UNKNOWN) & (_all(gallery) if allowed is None else allowed)
    if voters.sum() < 2:
        raise GalleryError(f"{gallery.folder} has {voters.sum()} labelled images that may vote: too few")
    k = min(k, int(voters.sum()) - 1)
    parts = []
    for part, D, I in neighbours(gallery, strategy, keys, k, voters):  # noqa: E741
        parts.append((*_count(D, np.where(I == NO_KEY, UNKNOWN, by_key[I]), by_key[part], temperature), I))
        progress(len(part))
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        parts = [(none, np.zeros(0), np.zeros(0), np.zeros((0, k), dtype=np.int64))]
    winners, confidence, own_share, near = (np.concatenate(found) for found in zip(*parts, strict=True))
    return Votes(
        classes=classes,
        keys=keys,
        own=by_key[keys],
        winners=winners,
        confidence=confidence,
        own_share=own_share,
        neighbours=near,
    )


def _classes(gallery: Gallery) -> tuple[tuple[str, ...], Ints]:
    """Names of all classes, and the class of each key."""
    labels = gallery.labels()
    classes = tuple(sorted({label for label in labels if label is not None}))
    number = {name: index for index, name in enumerate(classes)}
    return classes, np.array([number.get(label, UNKNOWN) for label in labels], dtype=np.int64)  # type: ignore[arg-type]


def _isotonic(shares: Floats, right: Bools) -> tuple[Floats, Floats]:
    """Steps that do not fall, by pooling neighbours: mean share and share of right ones of each.

    Args:
        shares: (m,) ascending.
        right: (m,).
    """
    pools: list[tuple[float, float, int]] = []
    # Equal shares are one step, whoever comes first.
    starts = np.flatnonzero(np.diff(shares, prepend=-1.0))
    for first, last in zip(starts, [*starts[1:], len(shares)], strict=True):
        pools.append((float(shares[first:last].sum()), float(right[first:last].sum()), int(last - first)))
        while len(pools) > 1 and _rate(pools[-2]) >= _rate(pools[-1]):
            a, b = pools.pop(), pools.pop()
            pools.append((a[0] + b[0], a[1] + b[1], a[2] + b[2]))
    rates = [(hits + 1) / (count + 2) for _, hits, count in pools]
    return np.array([total / count for total, _, count in pools]), np.maximum.accumulate(rates)


def _rate(pool: tuple[float, float, int]) -> float:
    return pool[1] / pool[2]


def _all(gallery: Gallery) -> Bools:
    live = np.zeros(gallery.key_count, dtype=bool)
    live[gallery.live_keys()] = True
    return live


def _count(D: Floats, neighbours: Ints, own: Ints, temperature: float) -> tuple[Ints, Floats, Floats]:
    """(n,) winners, and shares of the votes of winners and of their own classes."""
    winners = knn_classes(D, neighbours, temperature)
    weights = np.exp((D.astype(np.float64) - D[:, :1]) / temperature)
    shares = [
        (weights * ((neighbours == some[:, None]) & (some != UNKNOWN)[:, None])).sum(1) / weights.sum(1)
        for some in (winners, own)
    ]
    return winners, shares[0], shares[1]
