"""Intervals and paired tests against SciPy, naive loops, and data of which the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from matmamba_vision.measures.significance import bootstrap_means, mcnemar, sign_flip_test, with_intervals


def test_the_bootstrap_is_a_loop_over_resamples() -> None:
    values = np.random.default_rng(0).standard_normal((40, 3))
    rng = np.random.default_rng(5)
    expected = [values[rng.integers(40, size=40)].mean(0) for _ in range(150)]
    np.testing.assert_allclose(bootstrap_means(values, seed=5, resamples=150), expected, atol=1e-12)


def test_intervals_agree_with_scipy() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=300)
    (found,) = with_intervals([{"x": values}], resamples=20_000)
    expected = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=0)
    assert found["x"] == pytest.approx(values.mean())
    assert found["x_interval"] == pytest.approx(expected.confidence_interval, abs=0.01)


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    rng, truth = np.random.default_rng(2), 0.8
    groups = [{"right": rng.random(400) < truth} for _ in range(400)]
    intervals = [found["right_interval"] for found in with_intervals(groups, resamples=1000)]
    held = np.mean([low <= truth <= high for low, high in intervals])
    assert 0.92 <= held <= 0.98


def test_differences_are_paired() -> None:
    """Two widths that err on nearly the same images differ less than their own intervals say."""
    first = np.random.default_rng(3).random(500) < 0.7
    second = first.copy()
    second[:5] = ~second[:5]
    alone, difference = with_intervals([{"x": first}, {"x": first.astype(float) - second}])
    assert np.ptp(difference["x_interval"]) < np.ptp(alone["x_interval"]) / 3


def test_a_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    groups = [{"x": np.random.default_rng(4).random(50)}]
    assert with_intervals(groups, seed=1) == with_intervals(groups, seed=1)
    assert with_intervals(groups, seed=1) != with_intervals(groups, seed=2)


@pytest.mark.parametrize(
    ("only_first", "only_second"), [(0, 0), (0, 1), (3, 9), (7, 7), (41, 20), (900, 700)]
)
def test_mcnemar_is_a_binomial_test(only_first: int, only_second: int) -> None:
    first = np.array([True] * only_first + [False] * only_second + [True, False, True])
    second = np.array([False] * only_first + [True] * only_second + [True, False, True])
    count = only_first + only_second
    expected = scipy.stats.binomtest(only_first, count).pvalue if count else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_mcnemar_of_many_images() -> None:
    first = np.arange(50_000) % 2 == 0
    assert mcnemar(first, ~first) == 1
    assert mcnemar(np.ones(50_000, dtype=bool), np.zeros(50_000, dtype=bool)) == 0


def test_sign_flips_agree_with_all_permutations() -> None:
    differences = np.random.default_rng(6).normal(0.4, 1.0, 10)
    exact = scipy.stats.permutation_test(
        (differences, np.zeros(10)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert sign_flip_test(differences, flips=20_000) == pytest.approx(exact.pvalue, abs=0.02)
    assert sign_flip_test(np.append(differences, np.zeros(90))) == sign_flip_test(differences)


def test_sign_flips_of_equal_widths_and_of_clearly_different_ones() -> None:
    assert sign_flip_test(np.zeros(30)) == 1
    assert sign_flip_test(np.full(30, 0.1), flips=999) == pytest.approx(1 / 1000)
