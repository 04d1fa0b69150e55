"""Fresh data are called fresh at the stated rate, what is off is found, and the results are what they say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pointdiffusion import METRICS, Evaluation, MetricResult, copies_test, evaluate, wasserstein2
from pointdiffusion.metrics import evaluation
from pointdiffusion.metrics.results import (
    CLASSIFIER,
    COPIES,
    FEW_FACTOR,
    FEW_ROWS,
    LIKELIHOOD,
    MIN_EVALUATION_ROWS,
    SAME,
    TOO_FEW,
    summarise,
    visible_shift,
)

QUICK = {"max_rows": 60, "permutations": 299}


def draw(seed: int, n: int = 60, m: int = 130, n_dims: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, n_dims)), rng.normal(size=(m, n_dims)), rng.normal(size=(200, n_dims))


@pytest.fixture(scope="module")
def of_fresh_data() -> list[Evaluation]:
    """Return evaluations of samples that are fresh data, their densities included."""
    found = []
    for seed in range(100):
        samples, held_out, training = draw(seed)
        densities = (np.exp(np.random.default_rng(10_000 + seed).normal(size=90)) for _ in range(2))
        rng = np.random.default_rng(20_000 + seed)
        told, own = next(densities), rng.permutation(np.exp(rng.normal(size=70)))
        found.append(
            evaluate(samples, held_out, training=training, log_prob=told, own_log_prob=own, random_state=seed, **QUICK)
        )
    return found


def test_fresh_data_are_called_fresh(of_fresh_data: list[Evaluation]) -> None:
    """Over all tests at once, at most one evaluation in twenty is wrong, within four errors of the rate."""
    wrong = np.mean([bool(found.rejected) for found in of_fresh_data])
    assert wrong < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 100)
    assert all(found.verdict.startswith("Too few rows") for found in of_fresh_data if not found.failed)
    assert all(set(found.failed) <= set(found.rejected) for found in of_fresh_data)


@pytest.mark.parametrize("name", [*METRICS, COPIES, LIKELIHOOD])
def test_each_figure_keeps_its_level(name: str, of_fresh_data: list[Evaluation]) -> None:
    """One in twenty of the tests is wrong; of results without a test the sigmas are of the right size."""
    results = [found[name] for found in of_fresh_data]
    wrong = np.mean([result.verdict != SAME for result in results])
    assert wrong < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 100)
    sigmas = np.array([(result.value - result.floor) / result.error for result in results])
    assert 0.4 < sigmas.std() < 1.35
    assert abs(sigmas.mean()) < 0.45 or name == COPIES  # its share_fresh is of all, and samples see the next one


def test_columns_keep_their_level_together(of_fresh_data: list[Evaluation]) -> None:
    wrong = np.mean([min(result.p_value for result in found.columns) < 0.05 for found in of_fresh_data])
    assert wrong < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 100)


def test_the_shift_that_is_said_to_be_visible_is_seen() -> None:
    """Four times in five, and half of it hardly ever is seen; 24 draws of each, so within 0.25."""
    seen = {}
    for part in (1.0, 0.3):
        hits = 0
        for seed in range(24):
            samples, held_out, training = draw(seed)
            samples[:, 0] += part * visible_shift(60)
            hits += bool(evaluate(samples, held_out, training=training, random_state=seed, **QUICK).rejected)
        seen[part] = hits / 24
    assert seen[1.0] >= 0.6
    assert seen[0.3] <= 0.3


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("shifted", ["energy distance", "MMD", "sliced W2", "W2", "largest KS", "mean W1", CLASSIFIER]),
        ("narrow", ["energy distance", "MMD", "recall", "coverage", CLASSIFIER]),
        ("wide", ["energy distance", "precision", "density"]),
        ("shuffled", ["MMD", "correlations", "rank correlations", "density"]),
        ("a mode lacks", ["energy distance", "recall", "coverage", "largest KS"]),
    ],
)
def test_what_is_off_is_found_by_what_can_see_it(what: str, names: list[str]) -> None:
    """Each defect by the results that are made for it; those that are blind to it stay quiet."""
    rng = np.random.default_rng(2)

    def fresh(n: int) -> np.ndarray:
        return rng.normal(size=(n, 2)) @ [[1.0, 0.9], [0.0, 0.45]] + np.outer(rng.random(n) < 0.3, [5.0, 0.0])

    samples, held_out = fresh(400), fresh(800)
    if what == "shifted":
        samples[:, 1] += 0.5
    elif what == "narrow":
        samples = samples.mean(axis=0) + 0.5 * (samples - samples.mean(axis=0))
    elif what == "wide":
        samples += rng.normal(size=samples.shape)
    elif what == "shuffled":
        samples[:, 1] = rng.permutation(samples[:, 1])
    else:
        samples = samples[samples[:, 0] < 3]
    found = evaluate(samples, held_out, permutations=299)
    for name in names:
        assert found[name].verdict not in (SAME, TOO_FEW), name
    assert found.rejected
    assert found.rejected[0] in found.verdict
    if what == "shuffled":
        assert found["largest KS"].verdict == SAME
        assert found.pairs[0].p_value < 0.05


def test_copies_are_found_where_nothing_else_sees_them() -> None:
    """Training rows handed back are good samples, but copies."""
    _, held_out, training = draw(3, m=400)
    found = evaluate(training + 1e-9, held_out, training=training, permutations=299)
    assert found.rejected == [COPIES]
    scale = training.std(axis=0)
    alone = copies_test(training / scale, training / scale, held_out / scale)
    assert found[COPIES].p_value == pytest.approx(alone.p_value)
    assert found[COPIES].value == 1.0


def test_value_and_floor_by_hand() -> None:
    """With as many held-out rows as two parts need, the mean over splits is near that over many more of them."""
    samples, held_out, _ = draw(0, n=40, m=80)
    result = evaluate(samples, held_out)["W2"]
    scale, rng = held_out.std(axis=0), np.random.default_rng(5)
    values, floors = [], []
    for _ in range(200):
        one, other = np.split(rng.permutation(held_out) / scale, 2)
        values.append(wasserstein2(samples / scale, one))
        floors.append(wasserstein2(other, one))
    assert result.rows == 40
    assert result.value == pytest.approx(np.mean(values), abs=5 * np.std(values) / math.sqrt(24))
    assert result.floor == pytest.approx(np.mean(floors), abs=5 * np.std(floors) / math.sqrt(24))


def test_columns_of_any_unit_count_the_same() -> None:
    """A change of units changes nothing, to rounding; neither does the order of equal tables in memory."""
    samples, held_out, training = draw(4)
    unit, offset = np.array([1e-9, 1e9]), np.array([0.0, 1e9])
    plain, scaled = (
        evaluate(*(table * u + o for table in (samples, held_out)), training=training * u + o, **QUICK)
        for u, o in ((1.0, 0.0), (unit, offset))
    )
    for one, other in zip(plain.results, scaled.results, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-6, abs=1e-9, nan_ok=True)
        assert one.verdict == other.verdict
    assert evaluate(np.asfortranarray(samples), held_out, training=training, **QUICK) == evaluate(
        samples, held_out, training=training, **QUICK
    )


def test_the_same_seed_gives_the_same_figures() -> None:
    samples, held_out, training = draw(5)
    one, again, other = (evaluate(samples, held_out, training=training, random_state=k, **QUICK) for k in (0, 0, 1))
    assert str(one) == str(again)
    assert str(one) != str(other)


def test_log_likelihood_beside_own_samples() -> None:
    """The mean of held-out rows, and of samples; less or more is off, and without samples there is nothing to say."""
    samples, held_out, _ = draw(6)
    rng = np.random.default_rng(0)
    told, own = rng.normal(size=200) - 1, rng.normal(size=300)
    result = evaluate(samples, held_out, log_prob=told, own_log_prob=own, **QUICK)[LIKELIHOOD]
    assert (result.value, result.floor) == (pytest.approx(told.mean()), pytest.approx(own.mean()))
    assert result.error == pytest.approx(math.hypot(told.std(ddof=1) / 200**0.5, own.std(ddof=1) / 300**0.5))
    assert result.verdict.endswith("sigma less")
    assert evaluate(samples, held_out, log_prob=own, own_log_prob=told, **QUICK)[LIKELIHOOD].verdict.endswith(
        "sigma more"
    )
    alone = evaluate(samples, held_out, log_prob=told, **QUICK)[LIKELIHOOD]
    assert (alone.value, alone.verdict) == (pytest.approx(told.mean()), TOO_FEW)
    assert math.isnan(alone.floor)


def test_too_few_rows_say_so() -> None:
    """Nothing is claimed of a dozen rows."""
    samples, held_out, training = draw(7, n=50, m=MIN_EVALUATION_ROWS - 1)
    found = evaluate(samples, held_out, training=training)
    assert found["energy distance"].verdict == TOO_FEW
    assert math.isnan(found["energy distance"].floor)
    assert found.verdict.startswith("Too few rows")
    enough = evaluate(samples, draw(7, m=MIN_EVALUATION_ROWS)[1])
    assert enough["energy distance"].verdict == SAME
    assert enough["precision"].verdict == TOO_FEW  # ten rows have no five neighbours to speak of


def test_one_column_constant_columns_and_names() -> None:
    """One column has no pairs; a constant one is right if it is reproduced, and off if it is not."""
    samples, held_out, _ = draw(8, n_dims=1)
    found = evaluate(samples, held_out, **QUICK)
    assert found.pairs == []
    assert "correlations" not in [result.name for result in found.results]
    tables = [pd.DataFrame({"a": table[:, 0], "b <i>": 7.0}) for table in (samples, held_out)]
    found = evaluate(*tables, **QUICK)
    assert {result.name: result.value for result in found.columns}["b <i>"] == 0
    assert found.pairs[0].name == "a, b <i>"
    assert found.failed == []
    tables[0]["b <i>"] = 7.5
    worst = evaluate(*tables, **QUICK).columns[0]
    assert (worst.name, worst.value, worst.floor, worst.p_value) == ("b <i>", 1.0, 0.0, 1 / 300)
    assert worst.verdict == "more than 1000 sigma worse"


def test_the_sentence_counts_what_is_left_of_all_tests() -> None:
    """Holm's correction by hand: of four tests 0.012 is small enough, 0.02 is not."""

    def a_result(name: str, p: float | None) -> MetricResult:
        return MetricResult(name, 1.0, 0.0, 0.1, 10.0, p, "10 sigma worse", "", 50)

    results = [
        a_result("a", 0.02),
        a_result("b", 0.012),
        a_result("c", 0.03),
        a_result("d", 0.6),
        a_result("no test", None),
    ]
    found = summarise(results, results[:1], [], 50)
    assert (found.rejected, found.tests) == (["b"], 4)
    assert found.verdict == ("The samples differ from fresh data: 1 of 4 tests fails after Holm's correction (b).")
    quiet = summarise([a_result("a", 0.02), *results[2:]], results[:1], [], FEW_ROWS)
    assert quiet.rejected == []
    assert "with 100 rows each, in 3 tests" in quiet.verdict


def test_of_few_rows_only_what_is_clear_counts() -> None:
    """Below FEW_ROWS rows a test fails if it rejects and is three standard errors off; from there on, if it rejects."""

    def a_result(name: str, p: float | None, sigma: float) -> MetricResult:
        return MetricResult(name, 1.0, 0.0, 0.1, sigma, p, f"{sigma:.1f} sigma worse", "", 25)

    results = [a_result("a", 0.001, 2.9), a_result("b", 0.6, 4.0), a_result("no test", None, 2.5)]
    few = summarise(results, results[:1], [], FEW_ROWS - 1)
    assert (few.rejected, few.failed) == (["a"], [])
    assert few.verdict.startswith("Too few rows for a verdict: with 99 rows each")
    assert "1 of 2 tests would reject (a)" in few.remark
    assert str(few).splitlines()[-1] == f"{few.verdict} {few.remark}"
    assert [result.verdict for result in few.results] == [TOO_FEW, "4.0 sigma worse", TOO_FEW]
    many = summarise(results, results[:1], [], FEW_ROWS)
    assert (many.rejected, many.failed, many.remark) == (["a"], ["a"], "")
    assert [result.verdict for result in many.results] == [result.verdict for result in results]
    clear = summarise([a_result("a", 0.001, 3.0), a_result("likelihood", 0.001, -8.0)], results[:1], [], 30)
    assert clear.failed == ["a", "likelihood"]
    assert clear.verdict.startswith("The samples differ")


def test_a_model_of_few_rows_is_not_called_bad_and_a_bad_one_is() -> None:
    """The Gaussian of the training rows is the best there is; one moved by the shift that is stated is found."""
    failed: dict[float, list[Any]] = {}
    for part in (0.0, 1.0):
        failed[part] = []
        for seed in range(15):
            rng = np.random.default_rng(seed)
            training, held_out = rng.normal(size=(120, 2)), rng.normal(size=(30, 2))
            samples = rng.multivariate_normal(training.mean(axis=0), np.cov(training.T), size=200)
            samples[:, 0] += part * FEW_FACTOR * visible_shift(30)
            found = evaluate(samples, held_out, training=training, random_state=seed, permutations=299)
            failed[part].append(bool(found.failed))
            assert found.verdict.startswith("The samples differ" if found.failed else "Too few rows")
    assert sum(failed[0.0]) <= 1
    assert sum(failed[1.0]) >= 9  # four in five are stated, so 12 of 15 within two errors of their number


def test_the_table_shows_everything() -> None:
    samples, held_out, training = draw(9, n=100, m=200)
    text = str(evaluate(samples, held_out, training=training, permutations=299))
    for name in (*METRICS, CLASSIFIER, COPIES):
        assert name in text
    assert text.splitlines()[-1].startswith("The samples ")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"samples": np.zeros((30, 3))}, "the same columns, got 3, 2"),
        ({"samples": np.full((30, 2), np.nan)}, "NaN in row 0"),
        ({"held_out": np.zeros(30)}, "must be a table"),
        ({"log_prob": np.zeros((3, 2))}, "list of log-densities"),
        ({"log_prob": [math.inf] * 30}, "log-densities must be finite"),
        ({"max_rows": 3}, "max_rows"),
        ({"permutations": 99}, "permutations"),
    ],
)
def test_what_cannot_be_judged_is_refused(change: dict[str, object], match: str) -> None:
    given = {"samples": draw(0)[0], "held_out": draw(0)[1], **change}
    with pytest.raises(ValueError, match=match):
        evaluate(**given)


def test_of_a_large_table_some_rows_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """What costs the square of the rows gets `max_rows` of each set and as many fresh ones; the classifier more."""
    seen: list[tuple[str, list[int]]] = []
    for name in ("GroupLabels", "_classifier"):
        inner = getattr(evaluation, name)

        def counted(*given: Any, name: str = name, inner: Any = inner) -> Any:
            seen.append((name, [len(each) for each in given if isinstance(each, np.ndarray)]))
            return inner(*given)

        monkeypatch.setattr(evaluation, name, counted)
    rng = np.random.default_rng(0)
    evaluate(rng.normal(size=(100_000, 2)), rng.normal(size=(100_000, 2)), max_rows=100, permutations=299)
    assert seen == [("GroupLabels", [300]), ("_classifier", [400, 400])]
