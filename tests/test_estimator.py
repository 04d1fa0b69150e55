"""The scikit-learn face: scikit-learn's own checks, and what they do not ask."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import pointdiffusion as ptd

IRIS = load_iris()
QUICK: dict[str, Any] = {"n_members": 0, "n_steps": 10, "random_state": 0, "nfe": 8}


@parametrize_with_checks([ptd.DiffusionEstimator(**QUICK)])
def test_the_checks_of_scikit_learn(estimator: Any, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, none expected to fail."""
    check(estimator)


@pytest.fixture(scope="module")
def by_class() -> ptd.DiffusionEstimator:
    settings = {**QUICK, "n_members": 2, "n_steps": 60, "base": "gaussian"}
    return ptd.DiffusionEstimator(**settings).fit(IRIS.data, IRIS.target_names[IRIS.target])


def test_scores_are_log_densities() -> None:
    """One-dimensional data: the density integrates to one."""
    rows = np.random.default_rng(0).normal(3.0, 2.0, size=(200, 1))
    estimator = ptd.DiffusionEstimator(**{**QUICK, "n_members": 2}).fit(rows)
    grid = np.linspace(-100, 100, 4001)[:, None]  # a fortieth of the standard deviation apart
    assert np.trapezoid(np.exp(estimator.score_samples(grid)), grid[:, 0]) == pytest.approx(1, abs=2e-3)
    assert estimator.score(rows) == pytest.approx(estimator.score_samples(rows).mean())


def test_the_same_seed_draws_the_same(by_class: ptd.DiffusionEstimator) -> None:
    np.testing.assert_array_equal(by_class.sample(5), by_class.sample(5))
    assert np.abs(by_class.sample(5, random_state=1) - by_class.sample(5)).max() > 1e-3


def test_copies_are_the_same_estimator(by_class: ptd.DiffusionEstimator) -> None:
    """Pickled and cloned."""
    again = pickle.loads(pickle.dumps(by_class))
    np.testing.assert_array_equal(again.score_samples(IRIS.data[:9]), by_class.score_samples(IRIS.data[:9]))
    np.testing.assert_array_equal(again.sample(5), by_class.sample(5))
    assert not hasattr(clone(by_class), "model_")


def test_classes_follow_from_densities(by_class: ptd.DiffusionEstimator) -> None:
    """Bayes' rule on the model's own densities by class, and most of the irises are recognised."""
    assert by_class.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    shares = by_class.predict_proba(IRIS.data)
    joint = np.stack([by_class.model_.log_prob(IRIS.data, labels=k) for k in range(3)], axis=1)  # classes are even
    expected = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
    np.testing.assert_allclose(shares, expected, atol=1e-3)
    assert (by_class.predict(IRIS.data) == IRIS.target_names[IRIS.target]).mean() > 0.9


def test_rows_of_a_class(by_class: ptd.DiffusionEstimator) -> None:
    """One class for all, or one each; and it is that class."""
    drawn = by_class.sample(200, "setosa")
    own = IRIS.data[IRIS.target == 0]
    assert np.abs(drawn.mean(axis=0) - own.mean(axis=0)).max() < 0.5
    mixed = by_class.sample(2, ["virginica", "setosa"])
    assert mixed[0, 2] > 3 > mixed[1, 2]  # petal lengths: setosa up to 1.9, virginica from 4.5
    for wrong, sentence in (("rose", "unknown class 'rose'"), (["setosa"] * 3, "one for each")):
        with pytest.raises(ValueError, match=sentence):
            by_class.sample(2, wrong)
    with pytest.raises(ValueError, match="without classes"):
        ptd.DiffusionEstimator(**QUICK).fit(IRIS.data).sample(2, "setosa")


def test_without_classes_there_is_no_prediction() -> None:
    """Scikit-learn's way to say so is that there is no such method."""
    assert not hasattr(ptd.DiffusionEstimator(**QUICK).fit(IRIS.data), "predict_proba")


def test_in_a_pipeline_and_a_search() -> None:
    """The scaler's Jacobian is no part of the estimator's score, which sees scaled rows."""
    pipeline = make_pipeline(StandardScaler(), ptd.DiffusionEstimator(**QUICK)).fit(IRIS.data)
    scaled = StandardScaler().fit_transform(IRIS.data)
    alone = ptd.DiffusionEstimator(**QUICK).fit(scaled)
    np.testing.assert_allclose(pipeline.score_samples(IRIS.data[:5]), alone.score_samples(scaled[:5]), rtol=1e-6)
    search = GridSearchCV(ptd.DiffusionEstimator(**QUICK), {"sigma_min": [0.02, 3.0]}, cv=KFold(2, shuffle=True)).fit(
        IRIS.data
    )
    assert search.best_params_ == {"sigma_min": 0.02}  # three standard deviations of blur are no density of irises


def test_frames_in_and_out() -> None:
    """Names are kept, and asked for by `set_output`; whole numbers stay whole."""
    frame = pd.DataFrame({"a": IRIS.data[:, 0], "count": (10 * IRIS.data[:, 1]).astype(int), "one": 7.5})
    estimator = ptd.DiffusionEstimator(**QUICK).set_output(transform="pandas").fit(frame)
    assert estimator.feature_names_in_.tolist() == ["a", "count", "one"]
    drawn = estimator.sample(50)
    assert list(drawn.columns) == ["a", "count", "one"]
    assert (drawn["one"] == 7.5).all()
    assert (drawn["count"] == drawn["count"].round()).all()
    assert estimator.set_output(transform="default").sample(2).shape == (2, 3)
    with pytest.raises(ValueError, match="set_output knows"):
        estimator.set_output(transform="arrow")
    with pytest.raises(ValueError, match="feature names"):
        estimator.score_samples(frame.rename(columns={"a": "b"}))


def test_polars_in_and_out() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"a": IRIS.data[:, 0], "b": (10 * IRIS.data[:, 1]).astype(int)})
    estimator = ptd.DiffusionEstimator(**QUICK).fit(frame).set_output(transform="polars")
    drawn = estimator.sample(5)
    assert drawn.columns == ["a", "b"]
    assert (drawn["b"] == drawn["b"].round()).all()


def test_a_row_has_its_score_whatever_stands_beside_it(by_class: ptd.DiffusionEstimator) -> None:
    """To the rounding of float64."""
    whole = by_class.score_samples(IRIS.data)
    np.testing.assert_allclose(by_class.score_samples(IRIS.data[7:8]), whole[7:8], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"base": "sphere"}, "unknown base"), ({"n_members": -1}, "num_members"), ({"n_steps": 0}, "num_steps"),
        ({"sigma_min": 0.0}, "sigma_min"), ({"max_time": -1.0}, "max_time"), ({"nfe": 0}, "nfe"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused_in_fit(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ptd.DiffusionEstimator(**{**QUICK, **settings}).fit(IRIS.data)


def test_rows_that_are_all_the_same_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to learn"):
        ptd.DiffusionEstimator(**QUICK).fit(np.ones((20, 2)))
