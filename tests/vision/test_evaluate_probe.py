"""The linear probe against scikit-learn used by hand."""

from __future__ import annotations

import numpy as np
import pytest
from matmamba_vision.measures.probe import STRENGTHS, linear_probe
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

CENTRES = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)


def clouds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three overlapping classes in six dims, of which one is a thousand times larger."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    x = CENTRES[labels] + 0.8 * rng.standard_normal((count, 6)).astype(np.float32)
    x[:, 0] *= 1000
    return x, labels


def test_the_probe_is_logistic_regression_on_standardised_features() -> None:
    (xt, labels), (xq, asked) = clouds(120, 1), clouds(60, 2)
    probe = linear_probe(xt, labels, xq, asked)
    scaler = StandardScaler().fit(xt)
    model = LogisticRegression(C=probe.strength, max_iter=1000).fit(scaler.transform(xt), labels)
    assert (probe.correct == (model.predict(scaler.transform(xq)) == asked)).all()
    assert probe.correct.mean() > 0.8


def test_the_penalty_is_chosen_by_training_images_alone() -> None:
    xt, labels = clouds(120, 1)
    noise = np.random.default_rng(3).integers(3, size=60)
    strengths = {
        linear_probe(xt, labels, clouds(60, 2)[0], asked).strength for asked in (clouds(60, 2)[1], noise)
    }
    assert len(strengths) == 1


def test_of_equals_the_strongest_penalty_is_taken() -> None:
    labels = np.arange(40) % 2
    x = (2.0 * labels[:, None] - 1).astype(np.float32)
    assert linear_probe(x, labels, x, labels).strength == STRENGTHS[0]


@pytest.mark.parametrize("labels", [[0, 1, 0, 1], [0] * 20])
def test_too_little_to_learn_from_is_refused(labels: list[int]) -> None:
    x = np.zeros((len(labels), 2), dtype=np.float32)
    with pytest.raises(ValueError, match="five training images"):
        linear_probe(x, np.array(labels), x, np.array(labels))
