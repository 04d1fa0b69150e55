"""Named point sets against their geometry, and tables: what is refused, and the way to standard units and back."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from sklearn.datasets import make_swiss_roll

from pointdiffusion import DATASETS, Standardiser
from pointdiffusion.data.datasets import checkerboard, eight_gaussians, moons, swiss_roll
from pointdiffusion.tabular.points import as_points, column_names
from pointdiffusion.tabular.standardiser import MIN_TRAINING_ROWS

# ------------------------------------------------------------------------------------------------------- every data set


@pytest.mark.parametrize("name", DATASETS)
def test_a_seed_gives_the_same_rows(name: str) -> None:
    """A data set is a function of its arguments: the same seed the same rows, another seed or none other rows."""
    make = DATASETS[name]
    assert np.array_equal(make(200, random_state=3), make(200, random_state=3))
    assert not np.array_equal(make(200, random_state=3), make(200, random_state=4))
    assert not np.array_equal(make(200), make(200))


@pytest.mark.parametrize("n_samples", [1, 2, 777])
@pytest.mark.parametrize("name", DATASETS)
def test_there_are_as_many_rows_as_asked_for(name: str, n_samples: int) -> None:
    """Rows are finite float64 in as many columns as the set says, as many as asked for, odd numbers included."""
    points = DATASETS[name](n_samples, random_state=0)
    assert points.shape == (n_samples, DATASETS[name].n_dims)
    assert points.dtype == np.float64
    assert np.isfinite(points).all()


@pytest.mark.parametrize("name", DATASETS)
def test_the_global_generator_is_left_alone(name: str) -> None:
    """With a seed nothing global is read or moved."""
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    DATASETS[name](100, random_state=0)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("name", DATASETS)
def test_rows_are_exchangeable(name: str) -> None:
    """Any part of a set is a set of the same distribution, and neighbours are as unrelated as strangers."""
    points = DATASETS[name](4000, random_state=0)
    centred = points - points.mean(axis=0)
    for column in range(points.shape[1]):
        # p-values of fixed draws; below 0.001 would be a defect, not luck.
        assert stats.ks_2samp(points[:2000, column], points[2000:, column]).pvalue > 1e-3
        assert stats.ks_2samp(points[::2, column], points[1::2, column]).pvalue > 1e-3
        lagged = stats.pearsonr(centred[:-1, column], centred[1:, column]).statistic
        assert abs(lagged) < 4 / math.sqrt(4000)


@pytest.mark.parametrize("name", DATASETS)
def test_noise_is_gaussian_of_the_given_size(name: str) -> None:
    """More noise widens each column's variance by just that of the noise (for the roll before it is scaled)."""
    scale = 10.0 if name.startswith("swiss-roll") else 1.0
    still, noisy = (DATASETS[name](40_000, noise=noise, random_state=0) for noise in (0.0, scale))
    grown = noisy.var(axis=0) - still.var(axis=0)
    # Both variances together have a standard error of about 0.02 here; five of them.
    np.testing.assert_allclose(grown, 1.0, atol=0.1)


@pytest.mark.parametrize("n_samples", [0, -5])
@pytest.mark.parametrize("name", DATASETS)
def test_no_rows_are_refused(name: str, n_samples: int) -> None:
    """A data set has at least one row."""
    with pytest.raises(ValueError, match=f"n_samples.*{n_samples}"):
        DATASETS[name](n_samples)


@pytest.mark.parametrize("noise", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("name", DATASETS)
def test_noise_that_is_none_is_refused(name: str, noise: float) -> None:
    """Noise is a finite standard deviation that is not negative."""
    with pytest.raises(ValueError, match=f"noise.*{noise}"):
        DATASETS[name](10, noise=noise)


# ------------------------------------------------------------------------------------------------- densities and labels


def _noise(name: str) -> float:
    """Noise at which the set has a density: its own, or enough of it."""
    return {"swiss-roll": 0.5, "swiss-roll-3d": 0.5, "s-curve": 0.1, "checkerboard": 0.1}.get(
        name, DATASETS[name].noise
    )


@pytest.mark.parametrize("name", DATASETS)
def test_points_follow_their_density(name: str) -> None:
    """Waves averaged over points agree with those integrated over the density, by importance from a Gaussian."""
    noise = _noise(name)
    kind = DATASETS[name].with_settings(noise=noise, **({"n_dims": 3} if name == "random-mixture" else {}))
    points = kind(20_000, random_state=0)
    mean, covariance = points.mean(axis=0), np.cov(points.T)
    broad = stats.multivariate_normal(mean, 2 * covariance)
    proposals = broad.rvs(50_000, random_state=np.random.default_rng(1))
    weights = np.exp(kind.log_prob(proposals) - broad.logpdf(proposals))
    rng = np.random.default_rng(2)
    waves = rng.normal(size=(points.shape[1], 12)) / np.sqrt(np.diag(covariance))[:, None] * 1.5
    for phase in (np.cos, np.sin, np.ones_like):
        drawn, integral = phase(points @ waves), weights[:, None] * phase(proposals @ waves)
        error = np.hypot(drawn.std(axis=0) / 20_000**0.5, integral.std(axis=0) / 50_000**0.5)
        assert (np.abs(drawn.mean(axis=0) - integral.mean(axis=0)) < 5 * error).all()
        assert error.max() < 0.1


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "random-mixture"])
def test_entropy_is_the_mean_of_minus_log_density(name: str) -> None:
    """Quadrature and the mean over points agree within five standard errors."""
    noise = _noise(name)
    log_p = DATASETS[name].log_prob(DATASETS[name](20_000, noise=noise, random_state=3), noise=noise)
    assert abs(DATASETS[name].entropy(noise=noise) + log_p.mean()) < 5 * log_p.std() / 20_000**0.5 + 1e-9


def _along(curve: Callable[[float], list[float]], low: float, high: float, x: list[float], noise: float) -> float:
    """The density of a curve by adaptive quadrature."""

    def at(t: float) -> float:
        return math.exp(-(math.dist(curve(t), x) ** 2) / (2 * noise**2)) / (2 * math.pi * noise**2) / (high - low)

    middle = min(np.linspace(low, high, 2001), key=lambda t: math.dist(curve(t), x))
    return integrate.quad(at, low, high, points=[middle], limit=2000, epsabs=1e-14, epsrel=1e-11)[0]


@pytest.mark.parametrize("noise", [0.05, 0.3, 2.0])
def test_densities_of_curves_are_those_of_quadrature(noise: float) -> None:
    """An independent adaptive rule, on and off the curve, to 1e-8."""
    roll = [[5.0, -3.0], [0.0, 11.0], [-8.0, 4.0], [0.0, 0.0]]
    found = np.exp(swiss_roll.log_prob(roll, noise=noise, scaling_factor=1.0))
    ends = (1.5 * math.pi, 4.5 * math.pi)
    exact = [_along(lambda t: [t * math.cos(t), t * math.sin(t)], *ends, x, noise) for x in roll]
    np.testing.assert_allclose(found, exact, rtol=1e-8, atol=1e-13)

    circle = [[0.9, 0.2], [-0.4, 0.3], [0.0, 0.0], [1.5, 1.0]]
    found = np.exp(DATASETS["circles"].log_prob(circle, noise=noise))
    exact = [
        sum(_along(lambda t, r=r: [r * math.cos(t), r * math.sin(t)], 0, 2 * math.pi, x, noise) for r in (1.0, 0.5)) / 2
        for x in circle
    ]
    np.testing.assert_allclose(found, exact, rtol=1e-8, atol=1e-13)

    board = [[0.5, 0.5], [-1.9, 1.2], [2.1, -2.1]]
    found = np.exp(checkerboard.log_prob(board, noise=noise))
    phi = stats.norm(scale=noise).cdf
    squares = [(a, b) for a in range(-2, 2) for b in range(-2, 2) if (a + b) % 2 == 0]
    exact = [
        sum((phi(x - a) - phi(x - a - 1)) * (phi(y - b) - phi(y - b - 1)) for a, b in squares) / 8 for x, y in board
    ]
    np.testing.assert_allclose(found, exact, rtol=1e-8, atol=1e-13)


def test_density_in_three_dimensions_is_that_of_the_side_times_the_height() -> None:
    """Roll and S-curve, deep inside the height, where its density is 1 over the height."""
    roll = DATASETS["swiss-roll-3d"]
    flat = swiss_roll.log_prob([[0.9, 0.1]], noise=0.5)
    np.testing.assert_allclose(roll.log_prob([[0.9, 1.0, 0.1]], noise=0.5), flat - math.log(2.1), rtol=1e-9)
    curve = DATASETS["s-curve"]
    flat = curve.log_prob([[0.9, 0.1]], n_dims=2, noise=0.05)
    np.testing.assert_allclose(curve.log_prob([[0.9, 1.0, 0.1]], noise=0.05), flat - math.log(2.0), rtol=1e-9)


@pytest.mark.parametrize("name", DATASETS)
def test_labels_are_the_classes(name: str) -> None:
    """As many as said, all drawn, of the same rows as the call; and the same seed gives the same."""
    points, labels = DATASETS[name].sample_with_labels(2000, random_state=0)
    assert np.array_equal(points, DATASETS[name](2000, random_state=0))
    assert labels.dtype == np.int64
    assert sorted(set(labels.tolist())) == list(range(DATASETS[name].n_classes))


def test_labels_tell_where_a_point_is() -> None:
    """Circles by their radius, dots by their centre, moons by their half, arms of the pinwheel by their angle."""
    points, labels = DATASETS["rings"].sample_with_labels(500, noise=0, random_state=0)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), np.array([0.75, 1.5, 2.25, 3.0])[labels])
    points, labels = eight_gaussians.sample_with_labels(500, noise=0, random_state=0)
    np.testing.assert_allclose(np.arctan2(points[:, 1], points[:, 0]) % (2 * np.pi), labels * np.pi / 4, atol=1e-12)
    points, labels = moons.sample_with_labels(500, noise=0, random_state=0)
    np.testing.assert_allclose(np.linalg.norm(points - labels[:, None] * [1.0, 0.5], axis=1), 1.0)
    points, labels = DATASETS["pinwheel"].sample_with_labels(4000, random_state=0)
    radius, angle = np.linalg.norm(points, axis=1), np.arctan2(points[:, 1], points[:, 0])
    apart = np.angle(np.exp(1j * (angle - np.exp(radius / 2) / 4 - 2 * np.pi * labels / 5)))[radius > 1]
    assert np.abs(apart).max() < 0.8


def test_mixtures_are_known_exactly() -> None:
    """The mixture of a set has the set's moments, noise included, in any number of dimensions."""
    for chosen in ({"n_dims": 3}, {"n_dims": 16, "n_components": 4, "noise": 0.3}):
        mixture = DATASETS["random-mixture"].mixture(**chosen)
        points = DATASETS["random-mixture"](40_000, random_state=0, **chosen)
        assert points.shape[1] == mixture.n_dims == chosen["n_dims"]
        np.testing.assert_allclose(points.mean(axis=0), mixture.mean.numpy(), atol=0.03)
        np.testing.assert_allclose(np.cov(points.T), mixture.covariance.numpy(), atol=0.06)
    other = DATASETS["random-mixture"].mixture(mixture_seed=1).means
    assert not torch.equal(other, DATASETS["random-mixture"].mixture().means)


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "random-mixture"])
def test_without_noise_a_curve_has_no_density(name: str) -> None:
    """Area 0 has no density, which is said, with what to do; an area has one without noise."""
    if name in ("checkerboard", "pinwheel"):
        assert np.isfinite(DATASETS[name].log_prob(DATASETS[name](100, noise=0, random_state=0), noise=0)).all()
        return
    for call in (lambda: DATASETS[name].log_prob(np.zeros((1, DATASETS[name].n_dims)), noise=0.0),
                 lambda: DATASETS[name].entropy(noise=0.0)):  # fmt: skip
        with pytest.raises(ValueError, match=r"(noise|sigma) > 0"):
            call()


def test_questions_without_an_answer_are_refused() -> None:
    """Each with a sentence that says how to mend it."""
    with pytest.raises(ValueError, match="noise=0"):
        DATASETS["pinwheel"].log_prob([[0.0, 0.0]], noise=0.1)
    with pytest.raises(ValueError, match="mean of -log_prob"):
        DATASETS["random-mixture"].entropy()
    with pytest.raises(ValueError, match=r"shape \(B, 2\)"):
        moons.log_prob([[0.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="finite"):
        moons.log_prob([[0.0, np.nan]])
    with pytest.raises(TypeError, match=r"no setting 'nois' \(it has noise"):
        moons(10, nois=0.1)
    with pytest.raises(ValueError, match="radii"):
        DATASETS["rings"](10, radii=(1.0, -1.0))
    with pytest.raises(ValueError, match="n_components"):
        DATASETS["random-mixture"](10, n_components=0)
    with pytest.raises(ValueError, match="smallest_std"):
        DATASETS["random-mixture"](10, smallest_std=2.0)


# ------------------------------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize("scaling_factor", [1.0, 10.0])
def test_roll_points_lie_on_the_spiral(scaling_factor: float) -> None:
    """Without noise each point is t (cos t, sin t) with its radius t uniform between 1.5 pi and 4.5 pi."""
    points = swiss_roll(2000, scaling_factor=scaling_factor, random_state=0) * scaling_factor
    t = np.linalg.norm(points, axis=1)
    np.testing.assert_allclose(points, t[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1), atol=1e-12)
    assert stats.kstest(t, stats.uniform(1.5 * np.pi, 3 * np.pi).cdf).pvalue > 1e-3


def test_roll_in_three_dimensions_has_its_height_in_the_middle() -> None:
    """In three dimensions the first and last column are the same spiral, and the second is uniform from 0 to 21."""
    roll, spiral = (swiss_roll(2000, n_dims=n_dims, random_state=0) for n_dims in (3, 2))
    assert roll.shape == (2000, 3)
    np.testing.assert_array_equal(roll[:, [0, 2]], spiral)
    assert stats.kstest(roll[:, 1], stats.uniform(0, 2.1).cdf).pvalue > 1e-3


def test_roll_is_that_of_scikit_learn() -> None:
    """It is scikit-learn's roll of the same seed, divided by the factor, its noise included."""
    theirs, _ = make_swiss_roll(300, noise=0.5, random_state=7)
    np.testing.assert_array_equal(swiss_roll(300, n_dims=3, noise=0.5, random_state=7), theirs / 10)


@pytest.mark.parametrize("n_dims", [0, 1, 4])
def test_roll_has_two_or_three_dimensions(n_dims: int) -> None:
    """Other numbers of dimensions are refused."""
    with pytest.raises(ValueError, match=f"dimensions, not {n_dims}"):
        swiss_roll(10, n_dims=n_dims)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf])
def test_roll_is_scaled_by_a_positive_factor(factor: float) -> None:
    """A factor of 0, or one that is negative or infinite, is refused."""
    with pytest.raises(ValueError, match="scaling_factor"):
        swiss_roll(10, scaling_factor=factor)


def test_moons_are_two_half_circles() -> None:
    """Without noise half the points lie evenly on the upper half circle, half on the lower one, moved by (1, 1/2)."""
    points = moons(4000, noise=0.0, random_state=0)
    from_upper, from_lower = points, [1.0, 0.5] - points
    upper = np.abs(np.linalg.norm(from_upper, axis=1) - 1) < 1e-12
    lower = np.abs(np.linalg.norm(from_lower, axis=1) - 1) < 1e-12
    assert (upper | lower).all()
    assert (points[upper & ~lower, 1] >= 0).all()
    assert (points[lower & ~upper, 1] <= 0.5).all()
    assert abs(upper.mean() - 0.5) < 4 * 0.5 / math.sqrt(4000)
    for arc in (from_upper[upper], from_lower[lower]):
        angle = np.arctan2(arc[:, 1], arc[:, 0])
        assert stats.kstest(angle, stats.uniform(0, np.pi).cdf).pvalue > 1e-3
    # The mean in closed form: half the half circle's 2 / pi, half what the lower one has below 1/2.
    np.testing.assert_allclose(points.mean(axis=0), [0.5, 0.25], atol=4 * 0.87 / math.sqrt(4000))


def test_checkerboard_fills_its_dark_squares_evenly() -> None:
    """Without noise all points lie in squares whose row and column sum to an even number, the eight of them alike."""
    points = checkerboard(8000, random_state=0)
    assert (np.abs(points) <= 2).all()
    square = np.floor(points).astype(int)
    assert (square.sum(axis=1) % 2 == 0).all()
    _, counts = np.unique(square, axis=0, return_counts=True)
    assert len(counts) == 8
    assert stats.chisquare(counts).pvalue > 1e-3
    for column in range(2):
        assert stats.kstest((points - square)[:, column], stats.uniform(0, 1).cdf).pvalue > 1e-3


def test_eight_gaussians_have_their_means_and_standard_deviation() -> None:
    """Eight equal groups around the corners of an octagon of radius 2, each normal of standard deviation 0.15."""
    points = eight_gaussians(16_000, random_state=0)
    angle = 2 * np.pi * np.arange(8) / 8
    centres = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    distance = np.linalg.norm(points[:, None] - centres, axis=-1)
    group = distance.argmin(axis=1)  # neighbours are 1.53 apart, ten standard deviations
    assert stats.chisquare(np.bincount(group, minlength=8)).pvalue > 1e-3
    for k in range(8):
        own = points[group == k]
        np.testing.assert_allclose(own.mean(axis=0), centres[k], atol=4.5 * 0.15 / math.sqrt(len(own)))
    scaled = (points - centres[group]) / 0.15
    assert stats.kstest(scaled.ravel(), stats.norm().cdf).pvalue > 1e-3
    assert abs(np.corrcoef(scaled.T)[0, 1]) < 4 / math.sqrt(16_000)


def test_defaults_of_the_noise_are_documented_ones() -> None:
    """Moons have noise 0.05 and the Gaussians 0.15 unless asked otherwise; roll and board none."""
    defaults: dict[str, tuple[Callable[..., Any], float]] = {
        "moons": (moons, 0.05),
        "gaussians": (eight_gaussians, 0.15),
        "roll": (swiss_roll, 0.0),
        "board": (checkerboard, 0.0),
    }
    for make, noise in defaults.values():
        assert np.array_equal(make(50, random_state=0), make(50, noise=noise, random_state=0))


# --------------------------------------------------------------------------------------------------------------- tables


def _table(n: int = 20) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 2))


def test_tables_of_every_kind_become_float64() -> None:
    """Frames, arrays, tensors (of a graph, too), lists, whole numbers and numbers as text are all the same table."""
    rows = [[1, 2], [3, 4], [5, 6]]
    expected = np.array(rows, dtype=np.float64)
    frame = pd.DataFrame(rows, columns=["a", "b"])
    tables: list[Any] = [
        rows,
        np.array(rows, dtype=np.int16),
        np.array(rows, dtype=np.float32),
        np.array([[str(value) for value in row] for row in rows]),
        np.array(rows, dtype=object),
        frame,
        frame.astype("Int64"),
        frame.astype("float32"),
        torch.tensor(rows),
        torch.tensor(rows, dtype=torch.float32, requires_grad=True),
    ]
    for table in tables:
        result = as_points(table)
        assert result.dtype == np.float64
        np.testing.assert_array_equal(result, expected)


def test_half_precision_tensors_are_tables() -> None:
    """A tensor of the type that networks are often run in is a table as well."""
    np.testing.assert_array_equal(as_points(torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16)), [[1.0, 2.0]])


def test_the_table_of_the_user_is_left_as_it_was() -> None:
    """What is handed over is copied, so that nothing done to the points changes it."""
    table = _table()
    copy = table.copy()
    points = as_points(table)
    points += 1
    np.testing.assert_array_equal(table, copy)


@pytest.mark.parametrize("method", ["fit", "transform", "as_points"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "NaN"),
        (math.inf, "an infinite value"),
        (-math.inf, "an infinite value"),
        ("abc", "'abc'"),
        ("", "''"),
        (None, "NaN"),
        ([1, 2], "[1, 2]"),
        (1j, "1j"),
        (pd.NA, "NaN"),
        (10**400, "1000"),
    ],
    ids=["nan", "inf", "-inf", "text", "empty text", "None", "list", "complex", "NA", "huge"],
)
def test_a_value_that_is_no_number_is_named_with_row_and_column(method: str, value: Any, reason: str) -> None:
    """One bad cell in a table is found and told: what it is, in which column and row."""
    frame = pd.DataFrame(_table(), columns=["width", "height"]).astype(object)
    frame["height"] = pd.Series([*frame["height"][:13], value, *frame["height"][14:]], dtype=object)
    standardiser = Standardiser(np.zeros(2), np.ones(2))
    calls = {"fit": Standardiser.fit, "transform": standardiser.transform, "as_points": as_points}
    with pytest.raises(ValueError, match=r"column 'height'.* row 13\b") as caught:
        calls[method](frame)
    assert reason in str(caught.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_number_of_bad_values_is_told(bad: float) -> None:
    """Of the values of a column that are not finite the first is named, and all are counted."""
    table = _table()
    table[[4, 9, 9], [1, 0, 1]] = bad
    with pytest.raises(ValueError, match=r"'x'.* row 9; column 'y'.* row 4 \(2 such values in all\);"):
        as_points(table)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (np.zeros(5), r"1 dimension\b"),
        (np.zeros((5, 2, 2)), "3 dimensions"),
        (5.0, "0 dimensions"),
        ("points.csv", "0 dimensions"),
        (None, "0 dimensions"),
        (pd.Series([1.0, 2.0]), r"1 dimension\b"),
        (np.zeros((0, 2)), "0 x 2"),
        (np.zeros((5, 0)), "5 x 0"),
        (pd.DataFrame({"a": []}), "0 x 1"),
        (pd.DataFrame(), "0 x 0"),
    ],
)
def test_what_is_no_table_is_refused(table: Any, reason: str) -> None:
    """Anything but rows and columns, at least one of each, is refused with what it is instead."""
    with pytest.raises(ValueError, match=f"points must .*{reason}"):
        as_points(table)


def test_rows_of_different_lengths_are_refused() -> None:
    """A ragged list is no table."""
    with pytest.raises(ValueError, match=r"\w"):
        as_points([[1.0, 2.0], [3.0]])


def test_columns_without_names_get_some() -> None:
    """A frame keeps its names; other tables have x, y, z, and beyond three columns x1, x2, ..."""
    assert column_names(pd.DataFrame({"a": [1], 5: [2]}), 2) == ["a", "5"]
    assert [column_names(None, n) for n in (1, 2, 3, 4)] == [
        ["x"],
        ["x", "y"],
        ["x", "y", "z"],
        ["x1", "x2", "x3", "x4"],
    ]


# ------------------------------------------------------------------------------------------------------- standard units


def test_standardised_columns_have_mean_zero_and_variance_one() -> None:
    """The network sees columns of mean 0 and variance 1 whatever the units."""
    table = _table(500) * [1e-6, 1e5] + [3.0, -1e6]
    points = Standardiser.fit(table).transform(table)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-8)  # 3.0 / 1e-6 costs half the digits
    np.testing.assert_allclose(points.std(axis=0), 1, rtol=1e-9)


def test_standardiser_by_hand() -> None:
    """Shift and scale are mean and standard deviation of each column, and apply to other rows and tensors, too."""
    table = np.stack([np.arange(10.0), np.tile([-1.0, 1.0], 5)], axis=1)
    standardiser = Standardiser.fit(table)
    np.testing.assert_allclose(standardiser.mean, [4.5, 0.0])
    np.testing.assert_allclose(standardiser.scale, [math.sqrt(8.25), 1.0])
    np.testing.assert_allclose(standardiser.transform([[4.5, 3.0]]), [[0.0, 3.0]])
    np.testing.assert_allclose(standardiser.inverse([[2.0, 3.0]]), [[4.5 + 2 * math.sqrt(8.25), 3.0]])
    tensor = torch.tensor([[2.0, 3.0]], requires_grad=True)
    np.testing.assert_allclose(standardiser.inverse(tensor), [[4.5 + 2 * math.sqrt(8.25), 3.0]])


@settings(
    deadline=None, max_examples=300, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    scale=st.floats(-30, 30).map(lambda power: 10.0**power),
    offset=st.sampled_from([0.0, 1.0, -100.0, 1e4]),
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(MIN_TRAINING_ROWS, 60),
    columns=st.integers(1, 4),
)
def test_standard_units_and_back(scale: float, offset: float, seed: int, rows: int, columns: int) -> None:
    """Over sixty orders of magnitude, and far from the origin, points come back to the last digits."""
    table = scale * (np.random.default_rng(seed).normal(size=(rows, columns)) + offset)
    standardiser = Standardiser.fit(table)
    points = standardiser.transform(table)
    # An offset of 1e4 standard deviations costs four of sixteen digits.
    tolerance = 1e-13 * (1 + abs(offset))
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=10 * tolerance)
    np.testing.assert_allclose(points.std(axis=0), 1, atol=10 * tolerance)
    np.testing.assert_allclose(standardiser.inverse(points), table, rtol=0, atol=scale * tolerance)


# Subnormals and the largest numbers included, and ones that square to these; now and then NaN or infinite.
_FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-10, 10).map(lambda value: value * 1e-160),
    st.floats(-10, 10).map(lambda value: value * 1e153),
    st.floats(),
)


@settings(deadline=None, max_examples=400, database=None, derandomize=True)
@given(st.lists(st.tuples(_FLOATS, _FLOATS), min_size=MIN_TRAINING_ROWS, max_size=MIN_TRAINING_ROWS + 2))
def test_any_table_of_floats_is_standardised_or_refused_in_a_sentence(table: list[tuple[float, float]]) -> None:
    """Whatever numbers a user has: either a finite standardiser comes of it that inverts, or a ValueError."""
    try:
        standardiser = Standardiser.fit(table)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    points = standardiser.transform(table)
    assert np.isfinite(points).all()
    largest = np.abs(table).max(axis=0)
    assert (np.abs(standardiser.inverse(points) - table) <= 1e-12 * largest).all()


@pytest.mark.parametrize("value", [0.0, 0.1, -1e30, 1e-300])
def test_a_constant_column_is_refused_by_name(value: float) -> None:
    """A column that never changes has no scale, even where rounding gives its mean another last digit."""
    frame = pd.DataFrame({"width": _table(50)[:, 0], "height": np.full(50, value)})
    with pytest.raises(ValueError, match=rf"column 'height' is constant \({re.escape(str(value))}\)"):
        Standardiser.fit(frame)


@pytest.mark.parametrize(("factor", "kind"), [(1e200, "large"), (1e-160, "small"), (1e-300, "small")])
def test_a_column_whose_squares_float64_cannot_hold_is_refused_by_name(factor: float, kind: str) -> None:
    """It is neither turned into NaN nor called constant; what float64 holds is standardised to all digits."""
    table = _table()
    table[:, 1] *= factor
    with pytest.raises(ValueError, match=f"column 'y' is too {kind} for float64"):
        Standardiser.fit(table)
    table[:, 1] /= factor
    np.testing.assert_allclose(Standardiser.fit(table * 1e-140).scale, table.std(axis=0) * 1e-140, rtol=1e-12)


def test_all_constant_columns_are_named_at_once() -> None:
    with pytest.raises(ValueError, match="columns 'x', 'z' are constant"):
        Standardiser.fit(np.column_stack([np.ones(20), np.arange(20), np.zeros(20)]))


@pytest.mark.parametrize("rows", [1, 2, MIN_TRAINING_ROWS - 1])
def test_too_few_rows_are_refused(rows: int) -> None:
    """Nothing can be learnt from fewer than ten rows; their number and the least are told."""
    with pytest.raises(ValueError, match=f"too few rows.*{rows}.*{MIN_TRAINING_ROWS}"):
        Standardiser.fit(_table(rows))
    Standardiser.fit(_table(MIN_TRAINING_ROWS))


def test_another_number_of_columns_is_refused() -> None:
    """A table of other columns does not broadcast by accident, not even a single one."""
    standardiser = Standardiser.fit(_table())
    for columns in (1, 3):
        with pytest.raises(ValueError, match=f"expected 2 columns, got {columns}"):
            standardiser.transform(np.zeros((5, columns)))


@pytest.mark.parametrize(
    ("mean", "scale"),
    [
        ([0.0], [1.0, 1.0]),
        ([[0.0]], [[1.0]]),
        ([0.0], [0.0]),
        ([0.0], [-1.0]),
        ([math.nan], [1.0]),
        ([0.0], [math.nan]),
        ([0.0], [math.inf]),
        ([math.inf], [1.0]),
    ],
)
def test_a_standardiser_that_is_none_is_refused(mean: Any, scale: Any) -> None:
    """Shift and scale from a file are finite lists of one length, and the scale is positive."""
    with pytest.raises(ValueError, match="scale"):
        Standardiser(np.array(mean), np.array(scale))
