"""Distances between point sets against another library, closed forms, and their own error bars."""

from __future__ import annotations

import numpy as np
import ot
import pytest

from pointdiffusion import compare_wasserstein2, copy_share, nearest_distances, wasserstein2
from pointdiffusion.evaluation.metrics import copies_test, energy_distance, energy_test


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


@pytest.mark.parametrize(("a", "b"), [((3, 2), (4, 2)), ((3, 2), (3, 1)), ((3,), (3,)), ((0, 2), (0, 2))])
def test_wasserstein2_refuses_what_cannot_be_assigned(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    """Both tables have the same shape and at least one row; the message tells both shapes."""
    with pytest.raises(ValueError, match="shape"):
        wasserstein2(np.zeros(a), np.zeros(b))


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
    """The share of relabellings with a distance as large, and the least value there is."""
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
