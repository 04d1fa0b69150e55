"""Distributions in closed form: fitted ones against scikit-learn's, the Student t against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_t
from sklearn.covariance import LedoitWolf
from sklearn.mixture import GaussianMixture as Fitted

import pointdiffusion as ptd
from pointdiffusion.exact.fits import joined

RNG = np.random.default_rng(5)
ROWS = RNG.normal(size=(60, 3)) @ np.array([[1.0, 0.8, 0.0], [0.0, 0.6, 0.0], [0.0, 0.0, 1.0]])


def test_the_gaussian_is_shrunk_as_ledoit_and_wolf_do() -> None:
    """And has the small variance added that keeps it from being singular."""
    found = ptd.fit_gaussian(ROWS)
    expected = LedoitWolf().fit(ROWS).covariance_ + 1e-4 * np.eye(3)
    np.testing.assert_allclose(found.covariances[0].numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(found.mean.numpy(), ROWS.mean(axis=0), rtol=1e-12)


def test_the_gaussian_of_rows_in_a_plane_is_not_singular() -> None:
    """Columns that determine each other are ordinary in tables."""
    flat = ROWS[:, [0, 1, 1]]
    assert float(torch.linalg.eigvalsh(ptd.fit_gaussian(flat).covariance).min()) > 1e-5


@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_mixture_finds_the_number_of_components(count: int) -> None:
    """Clusters far apart: the criterion can only see so many."""
    centres = 6 * np.eye(8)[:count, :2] if count < 3 else 9 * RNG.normal(size=(count, 2))
    x = np.concatenate([centre + RNG.normal(size=(100, 2)) for centre in centres])
    assert len(ptd.fit_mixture(x).weights) == count


def test_the_mixture_is_no_worse_than_any_that_was_tried() -> None:
    """Its criterion is the least of all kinds and numbers up to six."""
    x = np.concatenate([ROWS, ROWS[:40] + np.array([4.0, 0.0, 0.0])])
    found = ptd.fit_mixture(x).to_sklearn()
    own = -2 * found.score(x) * len(x)
    for kind in ("full", "tied", "diag"):
        for count in range(1, 7):
            other = Fitted(count, covariance_type=kind, random_state=0, reg_covar=1e-4).fit(x)
            assert own < other.bic(x)


@pytest.mark.parametrize("rows", [np.zeros((12, 2)), np.repeat(ROWS[:3], 10, axis=0), ROWS[:6]])
def test_the_mixture_of_awkward_rows_has_a_density(rows: np.ndarray) -> None:
    """Copies, and too few rows for a second component."""
    found = ptd.fit_mixture(rows)
    assert bool(found.log_prob(torch.from_numpy(rows)).isfinite().all())


@pytest.mark.parametrize("degrees", [2.0, 3.0])
def test_the_student_t_is_that_of_scipy(degrees: float) -> None:
    """To a twentieth of a nat from the centre to thirty widths out."""
    covariance = np.array([[1.0, 0.3], [0.3, 2.0]])
    mean = np.array([1.0, -1.0])
    x = np.concatenate([mean + radius * RNG.normal(size=(20, 2)) for radius in (0.1, 1.0, 5.0, 10.0)])
    found = ptd.student_t(mean, covariance, degrees).log_prob(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, multivariate_t(mean, covariance, df=degrees).logpdf(x), atol=0.05)


def test_joined_is_the_weighted_sum() -> None:
    """Density and classes."""
    parts = [ptd.fit_gaussian(ROWS), ptd.fit_gaussian(ROWS + 2), ptd.fit_gaussian(ROWS - 2)]
    weights = np.array([0.25, 0.0, 0.75])
    both = joined(parts, weights, [0, 1, 2])
    x = torch.from_numpy(ROWS)
    expected = logsumexp(np.stack([parts[k].log_prob(x) + np.log(weights[k]) for k in (0, 2)]), axis=0)
    np.testing.assert_allclose(both.log_prob(x).numpy(), expected, rtol=1e-12)
    assert both.labels.tolist() == [0, 2]


def test_stacking_weights_are_the_most_likely_ones() -> None:
    """Against a general optimiser, with the one row of prior evidence that is spread over the parts."""
    log_probs = RNG.normal(size=(200, 3)) + np.array([0.5, 0.0, -2.0])

    def loss(z: np.ndarray) -> float:
        weights = softmax(z)
        return -float(logsumexp(log_probs + np.log(weights), axis=1).sum() + np.log(weights).mean())

    best = softmax(minimize(loss, np.zeros(3), tol=1e-10).x)
    np.testing.assert_allclose(ptd.stacking_weights(log_probs, steps=5000), best, atol=1e-4)


def test_class_densities_of_a_mixture_are_those_of_its_conditions() -> None:
    """`log_prob(labels=...)` and `sample_labels` against `condition`."""
    mixture = ptd.GaussianMixture([0.2, 0.3, 0.5], [[0.0], [3.0], [6.0]], torch.ones(3, 1, 1), [0, 1, 1])
    x = torch.linspace(-1, 7, 9, dtype=torch.float64)[:, None]
    for label in (0, 1):
        found = mixture.log_prob(x, 0.5, labels=torch.full((9,), label))
        torch.testing.assert_close(found, mixture.condition(label).log_prob(x, 0.5), rtol=1e-12, atol=0)
    torch.testing.assert_close(mixture.log_prob(x, labels=torch.full((9,), -1)), mixture.log_prob(x))
    generator = torch.Generator().manual_seed(0)
    drawn = mixture.sample_labels(torch.tensor([0, 1, -1]).repeat(20_000), generator, sigma=0.5).reshape(-1, 3)
    expected = [mixture.condition(0).mean, mixture.condition(1).mean, mixture.mean]
    torch.testing.assert_close(drawn.mean(dim=0), torch.cat(expected), rtol=0, atol=0.08)  # four standard errors
    with pytest.raises(ValueError, match="labels must be"):
        mixture.sample_labels(torch.tensor([7]), generator)
