"""A linear classifier on frozen embeddings, by scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..errors import ConfigError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
# Inverse strengths of the L2 penalty to choose from; for that one in so many training images is held out.
STRENGTHS = tuple(10.0**power for power in range(-4, 3))
HELD_OUT = 5
ITERATIONS = 1000


@dataclass(frozen=True, eq=False)
class Probe:
    """What a linear probe reached.

    Attributes:
        correct: (nq,) whether each image was classified rightly.
        strength: the chosen inverse penalty.
    """

    correct: NDArray[np.bool_]
    strength: float


def linear_probe(xt: Floats, labels: Ints, xq: Floats, asked: Ints, seed: int = 0) -> Probe:
    """Fit logistic regression on standardised features, and classify other images.

    The penalty is the one that is most often right on a fifth of each class's training images, the strongest
    of equals; then all of them are used.

    Args:
        xt: (n, d) training features.
        labels: (n,) their classes.
        xq: (n, D) embeddings of the other images.
        asked: (n,) their classes.

    Raises:
        ConfigError: too few images or classes to fit anything.
    """
    kept, held = _split(labels, seed)
    if not len(held) or len(np.unique(labels[kept])) < 2:
        raise ConfigError("a linear probe needs five training images or more, of two classes or more")
    # As many as torch has: more threads than free cores make small products fifty times slower.
    with threadpool_limits(torch.get_num_threads()):
        right = [
            _fitted(xt[kept], labels[kept], strength).score(xt[held], labels[held]) for strength in STRENGTHS
        ]
        strength = STRENGTHS[int(np.argmax(right))]
        return Probe(_fitted(xt, labels, strength).predict(xq) == asked, strength)


def _fitted(x: Floats, labels: Ints, strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=ITERATIONS)).fit(x, labels)


def _split(labels: Ints, seed: int) -> tuple[Ints, Ints]:
    """Positions to fit on, and those held out: every fifth by class, in an order by chance."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    held = np.arange(len(order)) % HELD_OUT == HELD_OUT - 1
    return order[~held], order[held]
