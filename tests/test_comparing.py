"""Paired differences: their errors are those that repetition shows, and a better model is called better."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from pointdiffusion import METRICS, compare, energy_distance
from pointdiffusion.metrics.comparison import BLOCKS
from pointdiffusion.metrics.results import LIKELIHOOD


def pair(seed: int, n: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return samples of two models that share their noise and are equally good, held-out and training rows."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 2))
    one, other = (0.8 * shared + 0.6 * rng.normal(size=(n, 2)) for _ in range(2))
    return one, other, rng.normal(size=(n, 2)), rng.normal(size=(50, 2))


@pytest.fixture(scope="module")
def of_equals() -> list[dict[str, float]]:
    found = []
    for seed in range(80):
        one, other, held_out, training = pair(seed)
        found.append({d.name: d.sigma for d in compare(one, other, held_out, training=training)})
    return found


@pytest.mark.parametrize("name", METRICS)
def test_of_two_equals_neither_is_better(name: str, of_equals: list[dict[str, float]]) -> None:
    """Differences in standard errors are centred on 0 with a spread near 1; the jackknife errs on the wide side."""
    sigmas = np.array([one[name] for one in of_equals])
    assert abs(sigmas.mean()) < 4 * sigmas.std() / np.sqrt(80)
    assert 0.4 < sigmas.std() < 1.35


def test_the_better_one_is_called_better() -> None:
    one, other, held_out, training = pair(0, n=400)
    found = {d.name: d for d in compare(one, other + 0.5, held_out, training=training)}
    again = {d.name: d for d in compare(other + 0.5, one, held_out, training=training)}
    for name in ("energy distance", "sliced W2", "W2", "largest KS", "mean W1"):
        assert found[name].verdict.endswith("sigma better")
        assert again[name].verdict.endswith("sigma worse")
        assert found[name].difference == pytest.approx(-again[name].difference)
    narrow = {d.name: d for d in compare(one, 0.4 * one, held_out, training=training)}
    assert narrow["recall"].sigma > 2  # more is better
    assert narrow["correlations"].verdict == "indistinguishable"


def test_values_and_error_by_hand() -> None:
    """The figures are those of all rows; the error is that of leaving out one block after the other."""
    one, other, held_out, training = pair(1)
    found = {d.name: d for d in compare(one, other, held_out, training=training)}["energy distance"]
    scale = training.std(axis=0)
    one, other, held_out = (table / scale for table in (one, other, held_out))
    assert found.value == pytest.approx(energy_distance(one, held_out))
    assert found.other == pytest.approx(energy_distance(other, held_out))
    block, left = np.arange(100) % BLOCKS, []
    for k in range(BLOCKS):
        kept = block != k
        left.append(energy_distance(one[kept], held_out[kept]) - energy_distance(other[kept], held_out[kept]))
    expected = np.sqrt((BLOCKS - 1) / BLOCKS * np.square(np.array(left) - np.mean(left)).sum())
    assert found.error == pytest.approx(expected, rel=1e-9)


def test_likelihoods_are_paired_row_by_row() -> None:
    """As in the paired t-test."""
    rng = np.random.default_rng(0)
    one, other, held_out, _ = pair(2)
    told = rng.normal(size=40)
    worse = told - 0.1 + 0.1 * rng.normal(size=40)
    found = compare(one, other, held_out, log_prob=told, other_log_prob=worse)[0]
    assert found.name == LIKELIHOOD
    assert found.sigma == pytest.approx(ttest_rel(told, worse).statistic, rel=1e-9)
    assert found.verdict.endswith("better")


def test_what_cannot_be_compared_is_refused() -> None:
    one, other, held_out, _ = pair(3)
    with pytest.raises(ValueError, match="20 of each, got 15"):
        compare(one[:15], other, held_out)
    with pytest.raises(ValueError, match="the same columns"):
        compare(one, other[:, :1], held_out)
    with pytest.raises(ValueError, match="of the same rows"):
        compare(one, other, held_out, log_prob=np.zeros(3), other_log_prob=np.zeros(4))


def test_a_model_beside_itself_differs_in_nothing() -> None:
    one, _, held_out, _ = pair(4)
    for found in compare(one, one, held_out):
        assert found.verdict == "indistinguishable"
        assert abs(found.difference) <= 1e-12
        assert found.error <= 1e-12
