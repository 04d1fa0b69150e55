"""Distances between point sets against another library, closed forms, and their own error bars."""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import ot
import pytest

from pointdiffusion import (
    METRICS,
    classifier_test,
    compare_wasserstein2,
    copies_test,
    copy_share,
    energy_distance,
    energy_test,
    holm,
    marginal_errors,
    mmd,
    mmd_test,
    nearest_distances,
    pairwise_errors,
    precision_recall,
    sliced_wasserstein2,
    wasserstein2,
)
from pointdiffusion.metrics import distances, permutation


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# --------------------------------------------------------------------------------------------------------- wasserstein2


@pytest.mark.parametrize(("n", "n_dims"), [(1, 2), (7, 1), (50, 2), (200, 3)])
def test_wasserstein2_agrees_with_pot(n: int, n_dims: int) -> None:
    """POT's exact solver of the transport problem finds the same distance."""
    a, b = _normal(n, n_dims), 1 + 2 * _normal(n, n_dims, seed=1)
    expected = np.sqrt(ot.emd2(np.full(n, 1 / n), np.full(n, 1 / n), ot.dist(a, b)))
    assert wasserstein2(a, b) == pytest.approx(expected, rel=1e-9)  # POT sums in another order


def test_wasserstein2_in_one_dimension_matches_sorted_points() -> None:
    """On the line the best assignment is by rank."""
    a, b = _normal(300, 1), _normal(300, 1, seed=1) ** 3
    expected = np.sqrt(np.mean((np.sort(a[:, 0]) - np.sort(b[:, 0])) ** 2))
    assert wasserstein2(a, b) == pytest.approx(expected, rel=1e-12)


def test_wasserstein2_of_a_shift_is_its_length() -> None:
    """A translated sample is as far away as it was moved, whatever its order."""
    a = _normal(100, 2)
    assert wasserstein2(a, a[::-1] + np.array([3.0, -4.0])) == pytest.approx(5.0, rel=1e-12)
    assert wasserstein2(a, a[::-1]) == pytest.approx(0.0, abs=1e-12)


def test_wasserstein2_is_symmetric_and_scales() -> None:
    """A distance: the same both ways, in proportion to the units, and within the triangle inequality."""
    a, b, c = (_normal(60, 2, seed=seed) for seed in range(3))
    assert wasserstein2(a, b) == pytest.approx(wasserstein2(b, a), rel=1e-12)
    assert wasserstein2(1e-3 * a, 1e-3 * b) == pytest.approx(1e-3 * wasserstein2(a, b), rel=1e-12)
    assert wasserstein2(a, c) <= wasserstein2(a, b) + wasserstein2(b, c)


def test_wasserstein2_takes_single_precision_and_lists() -> None:
    """Whatever holds numbers is taken, and computed in float64."""
    a, b = _normal(20, 2).astype(np.float32), _normal(20, 2, seed=1).astype(np.float32)
    assert wasserstein2(a.tolist(), b) == wasserstein2(a.astype(np.float64), b.astype(np.float64))


@pytest.mark.parametrize(("n", "m"), [(1, 5), (30, 20), (17, 40)])
def test_wasserstein2_of_unequal_numbers(n: int, m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """POT and SciPy agree, and so does the assignment of rows repeated to one number."""
    a, b = _normal(n, 2), 1 + 2 * _normal(m, 2, seed=1)
    repeated = wasserstein2(np.repeat(a, m, axis=0), np.repeat(b, n, axis=0))
    assert wasserstein2(a, b) == pytest.approx(repeated, rel=1e-9)
    monkeypatch.setattr(distances, "_transport", distances._transport_by_scipy)
    assert wasserstein2(a, b) == pytest.approx(repeated, rel=1e-9)


def test_without_pot_scipy_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where POT is not installed, the answer is the same."""
    a, b = _normal(12, 2), _normal(9, 2, seed=1)
    expected = wasserstein2(a, b)
    monkeypatch.setitem(sys.modules, "ot", None)
    assert wasserstein2(a, b) == pytest.approx(expected, rel=1e-9)


def test_a_transport_that_stops_early_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its limit POT returns a plan that moves a part of the mass, and warns at most; no distance comes of it."""
    a, b = _normal(80, 2), 1 + 2 * _normal(60, 2, seed=1)
    monkeypatch.setattr(distances, "MAX_ITERATIONS", 10)
    with pytest.raises(ValueError, match=r"80 to 60 rows was not solved .*compare fewer rows"):
        wasserstein2(a, b)


def test_a_plan_that_moves_less_than_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mass is checked as well as its status."""
    a, b = _normal(8, 2), _normal(6, 2, seed=1)
    solved = ot.emd

    def part(*args: Any, **settings: Any) -> Any:
        plan, log = solved(*args, **settings)
        return 0.85 * plan, log

    monkeypatch.setattr(ot, "emd", part)
    with pytest.raises(ValueError, match=r"moves 0\.850000 of the mass"):
        wasserstein2(a, b)


def test_a_linear_program_that_is_not_solved_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """SciPy tells by a status alone, beside a value that is no distance."""
    import scipy.optimize

    solved = scipy.optimize.linprog
    limited = functools.partial(solved, options={"maxiter": 1, "presolve": False})
    monkeypatch.setitem(sys.modules, "ot", None)
    monkeypatch.setattr(scipy.optimize, "linprog", limited)
    with pytest.raises(ValueError, match="was not solved"):
        wasserstein2(_normal(12, 2), 1 + 2 * _normal(9, 2, seed=1))


@pytest.mark.parametrize(("a", "b"), [((3, 2), (3, 1)), ((3,), (3,)), ((0, 2), (0, 2)), ((0, 2), (3, 2))])
def test_wasserstein2_refuses_what_cannot_be_moved(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    """Both tables have the same columns and at least one row; the message tells both shapes."""
    with pytest.raises(ValueError, match="shape"):
        wasserstein2(np.zeros(a), np.zeros(b))


# ----------------------------------------------------------------------------------------------------------- sliced W2


@pytest.mark.parametrize(("n", "m"), [(50, 50), (50, 31)])
def test_sliced_wasserstein2_agrees_with_pot(n: int, m: int) -> None:
    """POT's own, along the same directions."""
    a, b = _normal(n, 3), 1 + _normal(m, 3, seed=1) ** 3
    units = distances.unit_vectors(3, 40, 7)
    expected = ot.sliced_wasserstein_distance(a, b, projections=units.T)
    assert sliced_wasserstein2(a, b, directions=units) == pytest.approx(expected, rel=1e-9)
    assert sliced_wasserstein2(a, b, directions=40, random_state=7) == pytest.approx(expected, rel=1e-9)


def test_sliced_wasserstein2_of_a_shift_is_known() -> None:
    """The mean square of a unit vector along one axis is 1 / D, so a shift by s is s / sqrt(D) away."""
    a = _normal(20, 5)
    found = sliced_wasserstein2(a, a + np.array([3.0, 0, 0, 0, 0]), directions=20_000)
    # The square of a coordinate on the sphere has variance 2 (D - 1) / D^2 (D + 2) = 0.0457; 4 errors of its mean.
    assert found**2 / 9 == pytest.approx(0.2, abs=4 * np.sqrt(0.0457 / 20_000))


def test_sliced_wasserstein2_refuses_other_directions() -> None:
    for directions in (np.ones((3, 2)), np.eye(3), np.ones(2)):
        with pytest.raises(ValueError, match="unit vectors"):
            sliced_wasserstein2(np.zeros((2, 2)), np.zeros((2, 2)), directions=directions)
    with pytest.raises(ValueError, match="at least 1"):
        sliced_wasserstein2(np.zeros((2, 2)), np.zeros((2, 2)), directions=0)


# ----------------------------------------------------------------------------------------------------------- comparison


def test_fresh_data_cannot_be_told_from_fresh_data() -> None:
    """The ratio of a sample of the same distribution is 1 within its error bars, and these are honest.

    Over 60 comparisons the ratio less 1, in standard errors, is centred on 0 and spread by about 1.
    """
    deviations = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        result = compare_wasserstein2(rng.normal(size=(300, 2)), rng.normal(size=(1100, 2)), n_samples=25, draws=12)
        deviations.append((result.ratio - 1) / result.standard_error)
    # Spread: Student's t of 11 degrees of freedom has 1.1, its estimate from 60 a standard error of 0.11.
    assert 0.7 < np.std(deviations) < 1.5
    assert abs(np.mean(deviations)) < 4 * 1.1 / np.sqrt(60)
    assert max(np.abs(deviations)) < 5


def test_one_block_of_samples_has_wider_error_bars() -> None:
    """If all draws compare the same few samples, averaging over draws does not hide how few they are."""
    deviations = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        result = compare_wasserstein2(rng.normal(size=(25, 2)), rng.normal(size=(1100, 2)), n_samples=25, draws=12)
        deviations.append((result.ratio - 1) / result.standard_error)
    assert 0.5 < np.std(deviations) < 1.5


@pytest.mark.parametrize("change", ["shifted", "narrowed", "collapsed"])
def test_another_distribution_is_told_apart(change: str) -> None:
    """Samples that are shifted, too narrow or all alike get a ratio clearly above 1."""
    rng = np.random.default_rng(0)
    samples, fresh = rng.normal(size=(600, 2)), rng.normal(size=(1900, 2))
    samples = {"shifted": samples + 1.0, "narrowed": 0.3 * samples, "collapsed": 0 * samples}[change]
    result = compare_wasserstein2(samples, fresh, n_samples=100, draws=6)
    assert result.ratio > 1.5
    assert result.ratio - 1 > 5 * result.standard_error


def test_comparison_by_hand() -> None:
    """Each draw compares the next block of samples with fresh rows of its own, and two more blocks make the floor."""
    rng = np.random.default_rng(0)
    samples, fresh = rng.normal(size=(20, 2)), rng.normal(size=(60, 2))
    result = compare_wasserstein2(samples, fresh, n_samples=10, draws=2)
    parts = fresh.reshape(6, 10, 2)
    values = [wasserstein2(samples[:10], parts[0]), wasserstein2(samples[10:], parts[3])]
    floors = [wasserstein2(parts[1], parts[2]), wasserstein2(parts[4], parts[5])]
    assert result.value == pytest.approx(np.mean(values), rel=1e-12)
    assert result.floor == pytest.approx(np.mean(floors), rel=1e-12)
    assert result.floor_std == pytest.approx(np.std(floors, ddof=1), rel=1e-12)
    assert result.ratio == pytest.approx(np.mean(values) / np.mean(floors), rel=1e-12)
    assert result.n_samples == 10


def test_every_sample_of_a_draw_is_compared() -> None:
    """Of fewer samples than the most allowed all are compared; later blocks count as much as the first."""
    rng = np.random.default_rng(0)
    samples, fresh = rng.normal(size=(30, 2)), rng.normal(size=(400, 2))
    assert compare_wasserstein2(samples, fresh, n_samples=1000, draws=4).n_samples == 30
    spoilt = samples.copy()
    spoilt[20:] += 10
    clean, dirty = (compare_wasserstein2(points, fresh, n_samples=10, draws=3).value for points in (samples, spoilt))
    assert dirty > clean + 2  # a third of the draws is 14 away


@pytest.mark.parametrize(
    ("samples", "fresh", "draws"), [(100, 1799, 6), (100, 0, 6), (0, 1000, 6), (100, 1000, 1), (100, 1000, 0)]
)
def test_too_few_rows_or_draws_are_refused(samples: int, fresh: int, draws: int) -> None:
    """Three independent blocks a draw are needed, at least one sample, and two draws for a scatter."""
    with pytest.raises(ValueError, match="fresh rows"):
        compare_wasserstein2(np.zeros((samples, 2)), np.zeros((fresh, 2)), n_samples=100, draws=draws)


# --------------------------------------------------------------------------------------------------------------- copies


def test_nearest_distances_agree_with_brute_force() -> None:
    """The distance to the nearest of all rows, point by point."""
    points, reference = _normal(80, 3), _normal(150, 3, seed=1)
    expected = np.sqrt(((points[:, None] - reference) ** 2).sum(axis=-1)).min(axis=1)
    np.testing.assert_allclose(nearest_distances(points, reference), expected, rtol=1e-12)


def test_copy_share_by_hand() -> None:
    """The share of points nearer than the radius to some training row; exactly at the radius is not nearer."""
    training = [[0.0, 0.0], [10.0, 0.0]]
    points = [[0.0, 0.5], [10.0, 0.0], [5.0, 0.0], [0.0, 1.0]]
    assert copy_share(points, training, 1.0) == 0.5
    assert copy_share(points, training, 5.1) == 1.0
    assert copy_share(points, training, 1e-9) == 0.25


def test_copies_are_told_from_fresh_points() -> None:
    """All of a copied set are copies; of a fresh set only what falls near by chance, here under a percent."""
    training, fresh = _normal(500, 2), _normal(500, 2, seed=1)
    assert copy_share(training[::-1] + 1e-6, training, 1e-4) == 1.0
    assert copy_share(fresh, training, 1e-4) < 0.01


def test_copies_test_by_hand() -> None:
    """With one fresh point as the k-th, r of n samples before it have probability 1 / (n + 1) each."""
    training, fresh = [[0.0]], [[1.0]]
    found = copies_test([[0.5], [0.6], [2.0]], training, fresh)
    assert found.p_value == pytest.approx(2 / 4)  # two of three before it, or three: 2 of the 4 places
    assert (found.share, found.share_fresh, found.radius) == (pytest.approx(2 / 3), 0.5, 1.0)
    assert copies_test([[2.0]], training, fresh).p_value == 1


def test_copies_test_keeps_its_level() -> None:
    """Of fresh points in place of samples, at most one set in twenty is called copied at that level."""
    rng = np.random.default_rng(0)
    found = [copies_test(*(rng.normal(size=(n, 2)) for n in (300, 50, 300))).p_value for _ in range(300)]
    assert np.mean(np.array(found) < 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_a_tenth_of_copies_is_counted() -> None:
    """The excess is the share that was copied, within its error."""
    rng = np.random.default_rng(1)
    training, fresh = rng.normal(size=(100, 2)), rng.normal(size=(2000, 2))
    samples = np.concatenate([rng.normal(size=(1800, 2)), training[:100], training[:100]])
    found = copies_test(samples, training, fresh)
    assert abs(found.excess - 0.1) < 4 * found.standard_error
    assert found.p_value < 1e-6


# ------------------------------------------------------------------------------------------------------ energy distance


def test_energy_distance_of_gaussians_is_known() -> None:
    """On the line E|N(m, s^2)| has a closed form; over many draws the estimate has no bias."""
    rng = np.random.default_rng(0)
    found = [energy_distance(rng.normal(size=(10, 1)), 1 + rng.normal(size=(15, 1))) for _ in range(1600)]
    m, s = 1.0, np.sqrt(2)
    between = s * np.sqrt(2 / np.pi) * np.exp(-(m**2) / 2 / s**2) + m * (1 - 2 * 0.23975006109347669)  # Phi(-m / s)
    expected = 2 * between - 2 * s * np.sqrt(2 / np.pi)
    assert abs(np.mean(found) - expected) < 4 * np.std(found) / 40


def test_energy_test_by_brute_force() -> None:
    """The share of permutations with a distance as large, and the least value there is."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(30, 2)), rng.normal(size=(30, 2)) + 0.3
    pool, shuffle, count = np.concatenate([a, b]), np.random.default_rng(0), 0
    for _ in range(99):
        signs = shuffle.permutation(np.repeat([1.0, -1.0], 30))
        count += energy_distance(pool[signs > 0], pool[signs < 0]) >= energy_distance(a, b)
    assert energy_test(a, b, permutations=99) == pytest.approx((count + 1) / 100)
    assert energy_test(a, b + 5, permutations=99) == pytest.approx(0.01)


def test_energy_test_keeps_its_level() -> None:
    """Of equal distributions, one in twenty is called different at that level."""
    rng = np.random.default_rng(0)
    found = [energy_test(*rng.normal(size=(2, 40, 2)), permutations=99, random_state=k) for k in range(300)]
    assert abs(np.mean(np.array(found) <= 0.05) - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 300)


# ------------------------------------------------------------------------------------------------------------------ MMD


def test_mmd_of_gaussians_is_known() -> None:
    """Of normal points under a Gaussian kernel each expectation is a Gaussian integral; the estimate has no bias."""
    rng, h, shift, n_dims = np.random.default_rng(0), 1.5, 0.7, 2
    found = [
        mmd(rng.normal(size=(12, n_dims)), shift + rng.normal(size=(9, n_dims)), bandwidths=h) for _ in range(2500)
    ]
    # E exp(-|z|^2 / 2 h^2) for z normal of variance 2 and mean m, a dimension at a time.
    overlap = lambda m: (h / np.sqrt(h**2 + 2) * np.exp(-(m**2) / 2 / (h**2 + 2))) ** n_dims  # noqa: E731
    assert abs(np.mean(found) - 2 * (overlap(0) - overlap(shift))) < 4 * np.std(found) / 50


def test_mmd_by_hand() -> None:
    """Two kernels are averaged; equal rows are left out of the median, unequal ones are not."""
    from sklearn.metrics.pairwise import rbf_kernel

    a, b = _normal(15, 3), 0.5 + _normal(11, 3, seed=1)
    kernels = [sum(rbf_kernel(x, y, gamma=1 / 2 / h**2) for h in (0.8, 2.0)) / 2 for x, y in ((a, a), (b, b), (a, b))]
    aa, bb = (k[~np.eye(len(k), dtype=bool)].mean() for k in kernels[:2])
    assert mmd(a, b, bandwidths=[0.8, 2.0]) == pytest.approx(aa + bb - 2 * kernels[2].mean(), rel=1e-9)
    assert mmd([[0.0], [0.0]], [[1.0], [1.0]]) == pytest.approx(
        2 - 2 * np.mean([np.exp(-0.5 / f**2) for f in distances.BANDWIDTH_FACTORS]), rel=1e-12
    )
    with pytest.raises(ValueError, match="positive"):
        mmd(a, b, bandwidths=0.0)


# ------------------------------------------------------------------------------------------------------ classifier test


def test_classifier_keeps_its_level_and_sees_a_shift() -> None:
    """Of equal distributions at most one in twenty is called different; a shift by one is seen, and its AUC known."""
    rng = np.random.default_rng(0)
    found = [
        classifier_test(*rng.normal(size=(2, 60, 2)), permutations=99, random_state=k, max_iter=10).p_value
        for k in range(120)
    ]
    assert np.mean(np.array(found) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)
    a, b = rng.normal(size=(2, 1500, 2))
    shifted = classifier_test(a + np.array([1.0, 0.0]), b)
    assert shifted.p_value == pytest.approx(0.002)  # twice the least of a half
    best = 0.7602499389065233  # Phi(1 / sqrt 2): of two normal variables one apart, the larger is the shifted one
    assert best - 0.06 < shifted.auc < best + 4 * shifted.standard_error
    assert 0.6 < shifted.accuracy < 0.72  # of the best rule: Phi(1/2) = 0.69


def test_area_under_the_curve_is_that_of_scikit_learn() -> None:
    """With ties, too."""
    from sklearn.metrics import roc_auc_score

    from pointdiffusion.metrics.two_sample import _auc_test

    rng = np.random.default_rng(0)
    scores, first = rng.integers(0, 6, 80) / 6, rng.random(80) < 0.4
    assert _auc_test(scores, first, 19, rng)[0] == pytest.approx(roc_auc_score(first, scores), rel=1e-12)


def test_holm_by_hand() -> None:
    """The smallest is multiplied by the number of tests, and no corrected value falls below the one before it."""
    np.testing.assert_allclose(holm([0.02, 0.5, 0.01, 0.015]), [0.045, 0.5, 0.04, 0.045])
    assert holm([]).shape == (0,)
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]


# ------------------------------------------------------------------------------------------------- columns and manifold


def test_marginal_errors_agree_with_scipy() -> None:
    """KS and W1 of each column, with ties and unequal numbers."""
    from scipy.stats import ks_2samp, wasserstein_distance

    rng = np.random.default_rng(0)
    a = np.column_stack([rng.normal(size=70), rng.integers(0, 4, 70), np.full(70, 2.0)])
    b = np.column_stack([rng.normal(size=55) ** 3, rng.integers(0, 5, 55), np.full(55, 5.0)])
    found = marginal_errors(a, b)
    np.testing.assert_allclose(found.ks, [ks_2samp(x, y).statistic for x, y in zip(a.T, b.T, strict=True)], rtol=1e-12)
    scale = [b[:, 0].std(), b[:, 1].std(), 1.0]
    expected = [wasserstein_distance(x, y) / s for x, y, s in zip(a.T, b.T, scale, strict=True)]
    np.testing.assert_allclose(found.w1, expected, rtol=1e-12)


def test_pairwise_errors_agree_with_scipy() -> None:
    """Both correlations, with ties; a constant column has none."""
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    a = np.column_stack([rng.normal(size=(60, 2)) @ [[1, 0.8], [0, 0.6]], rng.integers(0, 4, 60), np.ones(60)])
    b = np.column_stack([rng.normal(size=(40, 2)), rng.integers(0, 4, 40), np.ones(40)])
    found = pairwise_errors(a, b)
    np.testing.assert_allclose(found.correlation[:3, :3], np.corrcoef(a[:, :3].T) - np.corrcoef(b[:, :3].T), atol=1e-12)
    expected = spearmanr(a[:, :3]).statistic - spearmanr(b[:, :3]).statistic
    np.testing.assert_allclose(found.spearman[:3, :3], expected, atol=1e-12)
    assert not found.correlation[3].any()


def test_precision_and_recall_by_brute_force() -> None:
    """The definitions of the papers, point by point."""
    rng, k = np.random.default_rng(0), 3
    a, b = 0.6 * rng.normal(size=(40, 2)), rng.normal(size=(30, 2))

    def radius(x: np.ndarray) -> np.ndarray:
        return np.array([np.sort(np.linalg.norm(x - row, axis=1))[k] for row in x])

    own, other, apart = radius(a), radius(b), np.linalg.norm(a[:, None] - b, axis=-1)
    found = precision_recall(a, b, neighbours=k)
    assert found.precision == np.mean([any(apart[i, j] <= other[j] for j in range(30)) for i in range(40)])
    assert found.recall == np.mean([any(apart[i, j] <= own[i] for i in range(40)) for j in range(30)])
    assert found.density == pytest.approx(sum(apart[i, j] <= other[j] for i in range(40) for j in range(30)) / k / 40)
    assert found.coverage == np.mean([any(apart[i, j] <= other[j] for i in range(40)) for j in range(30)])
    assert found.precision > found.recall  # samples that are too narrow
    with pytest.raises(ValueError, match="4 rows"):
        precision_recall(a, b[:3], neighbours=3)
    with pytest.raises(ValueError, match="neighbours"):
        precision_recall(a, b, neighbours=0)


# ------------------------------------------------------------------------------------------------- the registry as such

BY_HAND = {
    "energy distance": energy_distance,
    "MMD": mmd,
    "sliced W2": lambda a, b: sliced_wasserstein2(a, b, directions=permutation.DIRECTIONS),
    "W2": wasserstein2,
    "largest KS": lambda a, b: marginal_errors(a, b).ks.max(),
    "mean W1": lambda a, b: marginal_errors(a, b).w1.mean(),
    "correlations": lambda a, b: _rms(pairwise_errors(a, b).correlation),
    "rank correlations": lambda a, b: _rms(pairwise_errors(a, b).spearman),
    "precision": lambda a, b: precision_recall(a, b).precision,
    "recall": lambda a, b: precision_recall(a, b).recall,
    "density": lambda a, b: precision_recall(a, b).density,
    "coverage": lambda a, b: precision_recall(a, b).coverage,
}


def _rms(matrix: np.ndarray) -> float:
    return float(np.sqrt(np.mean(matrix[np.triu_indices(len(matrix), 1)] ** 2)))


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_is_its_public_function(name: str) -> None:
    """In standard deviations of the fresh rows: for many permutations at once and for one table, the same number."""
    a, b = _normal(40, 3) * [1, 10, 100], (1 + _normal(40, 3, seed=1)) * [1, 20, 100]
    rows = (np.concatenate([a, b]) - b.mean(axis=0)) / b.std(axis=0)
    assert METRICS[name](a, b) == pytest.approx(BY_HAND[name](rows[:40], rows[40:]), rel=1e-9, abs=1e-12)
    # Of three sets of rows, two are compared, and two ways to label them are.
    pool = permutation.Pool(np.concatenate([rows, rows[:5] + 3]))
    pool.rows[:, 2] = np.round(pool.rows[:, 2])  # ties
    signs = np.zeros((85, 2), dtype=np.int8)
    order = np.random.default_rng(0).permutation(85)
    signs[order[:35], 0], signs[order[35:70], 0], signs[:35, 1], signs[40:75, 1] = 1, -1, 1, -1
    found = METRICS[name].statistic(pool, signs)
    for k in (0, 1):
        if name != "MMD":  # its bandwidths are those of the pool
            one, other = (pool.rows[signs[:, k] == sign] for sign in (1, -1))
            expected = BY_HAND[name](one, other)
            if name == "mean W1":
                expected = (marginal_errors(one, other).w1 * other.std(axis=0)).mean()
            assert found[k] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_refuses_what_it_cannot_say(name: str) -> None:
    with pytest.raises(ValueError, match="are needed"):
        METRICS[name](np.zeros((5, 2)), np.zeros((5, 2)))
    with pytest.raises(ValueError, match="are needed"):
        METRICS[name](_normal(40, 2), _normal(41, 2))


def test_mmd_test_by_brute_force() -> None:
    """The share of permutations with a discrepancy as large."""
    a, b = _normal(25, 2), _normal(25, 2, seed=1) + 0.3
    pool, shuffle, count = np.concatenate([a, b]), np.random.default_rng(0), 0
    for _ in range(99):
        signs = shuffle.permutation(np.repeat([1.0, -1.0], 25))
        count += mmd(pool[signs > 0], pool[signs < 0]) >= mmd(a, b)
    assert mmd_test(a, b, permutations=99) == pytest.approx((count + 1) / 100)
    assert mmd_test(a, b + 5, permutations=99) == pytest.approx(0.01)
    with pytest.raises(ValueError, match="of one shape"):
        mmd_test(a, b[:-1])


def test_tests_refuse_what_they_cannot_compare() -> None:
    with pytest.raises(ValueError, match="each at least one row"):
        copies_test(np.zeros((0, 2)), np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="two rows or more"):
        energy_distance(np.zeros((1, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="the same columns"):
        energy_distance(np.zeros((3, 1)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="of one shape"):
        energy_test(np.zeros((4, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="a permutation"):
        energy_test(np.zeros((4, 2)), np.zeros((4, 2)), permutations=0)
