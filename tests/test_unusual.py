"""What is unusual about a row, against conditional distributions in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

import pointdiffusion as ptd
from pointdiffusion.diagnostics.anomaly import conditionals

COVARIANCE = np.array([[1.0, 0.95, 0.3], [0.95, 1.0, 0.2], [0.3, 0.2, 1.0]])


def density(mixture: ptd.GaussianMixture):
    """Return the log-density of a mixture along lines."""
    d = mixture.means.shape[1]
    return lambda lines: mixture.log_prob(torch.from_numpy(lines.reshape(-1, d))).numpy().reshape(lines.shape[:2])


@pytest.mark.parametrize("row", [[0.0, 2.0, 0.0], [0.3, 0.3, 0.3], [-1.5, -1.2, 2.5]])
def test_a_gaussian_gives_its_conditionals(row: list[float]) -> None:
    """Column j given the others has mean -P_jk x_k / P_jj and variance 1 / P_jj, with P the inverse covariance."""
    mixture = ptd.GaussianMixture([1.0], [[0.0, 0.0, 0.0]], COVARIANCE[None])
    found, precision = conditionals(density(mixture), np.array([row])), np.linalg.inv(COVARIANCE)
    for j in range(3):
        std = precision[j, j] ** -0.5
        mean = -sum(precision[j, k] * row[k] for k in range(3) if k != j) / precision[j, j]
        # The trapezoidal rule on this grid is right to a few hundredths of a standard deviation.
        assert found.modes[0, j] == pytest.approx(mean, abs=0.05 * std)
        assert found.quantiles[0, j] == pytest.approx(norm.ppf([0.05, 0.95], mean, std), abs=0.05 * std)
        far = abs(row[j] - mean) / std
        assert found.gains[0, j] == pytest.approx(far**2 / 2, abs=0.01)
        assert found.p_values[0, j] == pytest.approx(2 * norm.sf(far), abs=0.02)


def test_two_modes_and_a_narrow_ridge_are_found() -> None:
    """A ridge a hundredth of a standard deviation wide lies between the nodes of the first grid, and is seen."""
    narrow = np.array([[1.0, 0.99995], [0.99995, 1.0]])
    ridge = conditionals(density(ptd.GaussianMixture([1.0], [[0.0, 0.0]], narrow[None])), np.array([[1.234, 1.3]]))
    assert ridge.modes[0] == pytest.approx([1.3, 1.234], abs=1e-3)
    assert ridge.quantiles[0, 0, 1] - ridge.quantiles[0, 0, 0] == pytest.approx(3.29 * 0.01, rel=0.05)
    pair = ptd.GaussianMixture([0.5, 0.5], [[-2.0], [2.0]], np.full((2, 1, 1), 0.01))
    gap = conditionals(density(pair), np.array([[0.0]]))
    assert gap.gains[0, 0] == pytest.approx(2.0**2 / 0.01 / 2 - np.log(2), abs=0.5)
    assert gap.quantiles[0, 0] == pytest.approx([-2 + 0.1 * norm.ppf(0.1), 2 + 0.1 * norm.ppf(0.9)], abs=0.02)


def test_the_wrong_column_gains_most() -> None:
    """In rows of a Gaussian with one value moved by six standard deviations, that value stands out."""
    rng = np.random.default_rng(0)
    rows = rng.multivariate_normal(np.zeros(3), COVARIANCE, size=20)
    moved = rng.integers(3, size=20)
    rows[np.arange(20), moved] += 6
    mixture = ptd.GaussianMixture([1.0], [[0.0, 0.0, 0.0]], COVARIANCE[None])
    found = conditionals(density(mixture), rows)
    assert (found.gains.argmax(axis=1) == moved).all()
    assert (found.gains.min(axis=1) < found.gains.max(axis=1) / 2).all()
