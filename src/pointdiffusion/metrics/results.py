"""What an evaluation returns: one result per metric beside its finite-sample floor, and a verdict over all of them.

Many tests are made at once, so the overall verdict counts the rejections that remain after Holm's correction; the
verdict of a single metric stands for itself, and one in twenty is wrong at the level 0.05.

Below `FEW_ROWS` rows a small p-value alone is no failure. The test takes the held-out rows for fresh draws of the
population that the model stands for, while they and the training rows are both small parts of one table: a lucky or
unlucky split shows as well as a fault of the model does. There a test fails only if its value is also `CLEAR` standard
errors off; otherwise the verdict begins with the statement that there are too few rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pointdiffusion.metrics.two_sample import holm
from pointdiffusion.runtime.deprecation import renamed_attribute

LEVEL = 0.05
"""Significance level of a verdict."""

MIN_EVALUATION_ROWS = 20
"""Fewest held-out rows to evaluate with: a floor needs two parts of them."""

FEW_ROWS, CLEAR = 100, 3.0
"""Rows of each set below which a rejecting test must also be `CLEAR` standard errors off to count as failed."""

FEW_FACTOR = 1.5
"""How much larger a shift must be, below `FEW_ROWS` rows, to be `CLEAR` as well four times in five (measured)."""

SAME, TOO_FEW = "indistinguishable from fresh data", "too few rows"
CLASSIFIER, COPIES, LIKELIHOOD = "classifier AUC", "copies of training rows", "held-out log-likelihood"


@dataclass(frozen=True)
class MetricResult:
    """One metric of the samples beside its value for as many fresh rows.

    Args:
        name: Name of the metric: a key of `METRICS`, "classifier AUC", "copies of training rows" or
            "held-out log-likelihood"; of a column, or of a pair of columns, its name.
        value: Value for the samples.
        floor: Value for fresh rows; NaN with too few rows.
        error: Standard error of the difference of the two, if the samples were fresh rows.
        sigma: Standard errors by which the value is worse than the floor; negative if it is better.
        p_value: Probability of a value at least as bad if the samples were fresh rows; None where none is computed.
        verdict: Conclusion from this metric alone.
        explanation: What the metric measures and what it is blind to, a sentence.
        rows: Rows of each set that value and floor were computed on.
    """

    name: str
    value: float
    floor: float
    error: float
    sigma: float
    p_value: float | None
    verdict: str
    explanation: str
    rows: int

    @property
    def is_clear(self) -> bool:
        """Whether the value is at least `CLEAR` standard errors from the floor."""
        return abs(self.sigma) >= CLEAR


@dataclass(frozen=True)
class Evaluation:
    """All results about one set of samples, and the verdict over them; `evaluation[name]` is one result.

    Args:
        results: One result per metric.
        columns: Largest difference of the distribution functions of each column, worst first; p-values hold for all
            columns at once.
        pairs: Absolute error of the correlation of each pair of columns, worst first; p-values hold for all at once.
        verdict: Overall conclusion, a sentence, with Holm's correction over all tests.
        rejected: Names of the tests that reject after the correction.
        failed: Those of them that count as failures: all, or below `FEW_ROWS` rows those that are `CLEAR` standard
            errors off.
        tests: Number of tests.
        rows: Rows of each set that were tested.
        remark: What qualifies the verdict, a sentence or an empty string.
    """

    results: list[MetricResult]
    columns: list[MetricResult]
    pairs: list[MetricResult]
    verdict: str
    rejected: list[str]
    failed: list[str]
    tests: int
    rows: int
    remark: str = ""

    figures = renamed_attribute("figures", "results")

    def __getitem__(self, name: str) -> MetricResult:
        """Return the result of a metric.

        Args:
            name: Its name.

        Raises:
            KeyError: If it was not computed.
        """
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(f"no metric {name!r}; there are {', '.join(result.name for result in self.results)}")

    def __str__(self) -> str:
        head = ("metric", "samples", "fresh rows", "±", "p", "rows", "verdict")
        lines = [head, *(result_cells(result) for result in self.results)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [" | ".join(map(str.ljust, cells, widths)).rstrip() for cells in lines]
        table.insert(1, "-|-".join("-" * width for width in widths))
        return "\n".join([*table, f"{self.verdict} {self.remark}".rstrip()])


def result_cells(result: MetricResult) -> tuple[str, ...]:
    """Return name, value, floor, error, p-value, rows and verdict as strings."""
    numbers = ["" if math.isnan(x) else f"{x:.3g}" for x in (result.value, result.floor, result.error)]
    p = "" if result.p_value is None else f"{result.p_value:.2g}"
    return (result.name, *numbers, p, str(result.rows), result.verdict)


def metric_result(
    name: str, value: float, floor: float, error: float, p: float | None, explanation: str, rows: int, *,
    larger_is_better: bool = False,
) -> MetricResult:  # fmt: skip
    """Return a result with its verdict: by the p-value where there is one, else by two standard errors."""
    least = max(1e-9 * (abs(value) + abs(floor)), 1e-300)  # a rounding error is no difference
    worse = (floor - value if larger_is_better else value - floor) / max(error, least)
    if (worse < 2) if p is None else (p >= LEVEL):
        verdict = SAME
    elif worse >= 2:
        verdict = f"{worse:.1f} sigma worse" if worse < 1000 else "more than 1000 sigma worse"
    else:
        verdict = f"worse than fresh data, p = {p:.2g}"
    return MetricResult(name, value, floor, error, worse, p, verdict, explanation, rows)


def too_few_rows(name: str, explanation: str, rows: int) -> MetricResult:
    """Return the result of a metric that needs more rows than there are."""
    return MetricResult(name, math.nan, math.nan, math.nan, math.nan, None, TOO_FEW, explanation, rows)


def summarise(
    results: list[MetricResult], columns: list[MetricResult], pairs: list[MetricResult], n_test: int
) -> Evaluation:  # fmt: skip
    """Return the evaluation with the verdict over all results.

    Args:
        results: One result per metric.
        columns: Results by column, worst first; empty if there were too few rows for any floor.
        pairs: Results by pair of columns, worst first.
        n_test: Rows of each set that were tested.
    """
    tests = [result for result in results if result.p_value is not None]
    corrected = holm([result.p_value for result in tests if result.p_value is not None])
    rejected = [result for result, p in zip(tests, corrected, strict=True) if p < LEVEL]
    few = n_test < FEW_ROWS
    failed = [result.name for result in rejected if not few or result.is_clear]
    verdict, remark = _verdict([result.name for result in rejected], failed, len(tests), n_test, bool(columns))
    if few:
        results, columns, pairs = (_without_unclear(part) for part in (results, columns, pairs))
    names = [result.name for result in rejected]
    return Evaluation(results, columns, pairs, verdict, names, failed, len(tests), n_test, remark)


def _verdict(rejected: list[str], failed: list[str], tests: int, n_test: int, enough: bool) -> tuple[str, str]:
    """Return verdict and remark."""
    if failed:
        fail = "fails" if len(failed) == 1 else "fail"
        names = ", ".join(failed)
        verdict = f"The samples differ from fresh data: {len(failed)} of {tests} tests {fail} after Holm's correction"
        return f"{verdict} ({names}).", ""
    if not enough:
        needed = f"{MIN_EVALUATION_ROWS} held-out rows and half as many samples"
        return f"Too few rows to evaluate: a floor needs {needed}.", ""
    if n_test >= FEW_ROWS:
        verdict = (
            f"The samples are indistinguishable from fresh data with {n_test} rows each, in {tests} tests with Holm's "
            f"correction; a shift of one column below about {visible_shift(n_test):.2g} standard deviations would not "
            "be detected."
        )
        return verdict, ""
    verdict = (
        f"Too few rows for a verdict: with {n_test} rows each, a shift of one column below about "
        f"{FEW_FACTOR * visible_shift(n_test):.2g} standard deviations would not be detected."
    )
    if not rejected:
        return verdict, f"None of {tests} tests finds a difference."
    return verdict, (
        f"After Holm's correction {len(rejected)} of {tests} tests would reject ({', '.join(rejected)}), but by less "
        f"than {CLEAR:g} standard errors, which a split of few rows can do by chance: hold out more rows to be sure."
    )


def _without_unclear(results: Sequence[MetricResult]) -> list[MetricResult]:
    """Return results of few rows, with no claim about a difference that is not clear."""
    return [
        result if result.verdict == SAME or result.is_clear else replace(result, verdict=TOO_FEW) for result in results
    ]


def visible_shift(n: int) -> float:
    """Return the shift of one column, in standard deviations, that n rows of each set detect four times in five.

    For a normal column, by its mean alone, it would be 2.8 / sqrt(n / 2); that many tests are made at once, and that
    they do not know where to look, costs about half as much again (measured in two and in eight dimensions).
    """
    return 6.0 / math.sqrt(n)
