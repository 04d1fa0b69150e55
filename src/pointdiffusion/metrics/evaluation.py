r"""Samples judged by every figure at once, each beside its finite-sample floor, and one sentence over all.

With N samples and M held-out rows, a figure is taken on n = min(N, M / 2) rows of each: of samples against one part of
the held-out rows (the value), and of another part of them against the same (the floor), which is what fresh rows get.
Both are means over random splits. The error is the scatter of one draw of the floor, which is a little too large, since
means scatter less. Parts of the same rows hide what these have in common, so it is at least the scatter between
disjoint rows, half as many, over sqrt(2). Sigmas are therefore on the safe side; the p-values are exact.

Where a p-value is affordable it comes from relabelling min(N, M) rows of each set: exact at any number of rows. Many
tests are made at once, so the sentence over all counts those that are left after Holm's correction; a figure's own
verdict stands for itself alone, and one in twenty is wrong at the level 0.05.

Below `FEW_ROWS` rows a small p-value alone is no failure. It takes the held-out rows for fresh ones of the population
that the model stands for, while they and the training rows are both small parts of one table: a lucky or unlucky split
shows as well as a fault of the model does. There a test fails only if its figure is also `CLEAR` standard errors off;
otherwise there are too few rows to say, which the sentence says first.

Columns are in units of the standard deviation of the training rows where these are given, else of the held-out rows.
Samples are taken for independent: those that a sampler makes in a chain, or resampled particles, are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pointdiffusion.metrics import permutation as relabelling
from pointdiffusion.metrics.marginals import spread_of
from pointdiffusion.metrics.neighbours import copies_test
from pointdiffusion.metrics.permutation import Labels, p_value
from pointdiffusion.metrics.registry import METRICS, Metric
from pointdiffusion.metrics.two_sample import classifier_test, holm
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.tabular.points import as_points, column_names

LEVEL = 0.05
"""Significance of a verdict."""

MIN_EVALUATION_ROWS = 20
"""Held-out rows below which nothing can be said: a floor needs two parts of them."""

FEW_ROWS, CLEAR = 100, 3.0
"""Rows of each set below which a failed test must be `CLEAR` standard errors off, too."""

SAME, TOO_FEW = "cannot be told from fresh data", "too few rows to say"
CLASSIFIER, COPIES, LIKELIHOOD = "classifier AUC", "copies of training rows", "held-out log-likelihood"

EXPLANATIONS = {
    CLASSIFIER: "How often trees rank a sample above a fresh row, 0.5 by guessing; blind to fine slanting lines.",
    COPIES: "Share of samples nearer to a training row than one fresh row in a hundred comes; blind to blurred copies.",
    LIKELIHOOD: "Mean in nats of held-out rows, and of the model's own samples, which agree if the model is right.",
}


@dataclass(frozen=True)
class Figure:
    """One figure about samples, beside what fresh rows of the same number get.

    Args:
        name: What it is called; a member of `METRICS` or one of three more.
        value: Of the samples.
        floor: Of fresh rows; NaN if there are too few rows to say.
        error: Standard error of the difference of both, if samples were fresh rows.
        sigma: How many errors the value is worse than the floor; less than 0 if it is better.
        p_value: Probability of a value so bad if samples were fresh rows; None where it is no test.
        verdict: What follows, for this figure alone.
        explanation: What it says and what it is blind to, a sentence.
        rows: Rows of each set that value and floor were taken on.
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


@dataclass(frozen=True)
class Judgement:
    """All figures about samples, and one sentence.

    Args:
        figures: The figures.
        columns: The largest difference of the distribution functions, column by column, worst first; p-values hold for
            all columns at once.
        pairs: The error of the correlation, pair by pair, worst first; p-values hold for all pairs at once.
        verdict: The sentence, with Holm's correction over all tests.
        rejected: Names of the tests that reject after it.
        failed: Those of them that count as failures: all, or below `FEW_ROWS` rows those that are `CLEAR` standard
            errors off.
        tests: Number of tests.
        rows: Rows of each set that were tested.
        remark: What there is to say besides, a sentence or nothing.
    """

    figures: list[Figure]
    columns: list[Figure]
    pairs: list[Figure]
    verdict: str
    rejected: list[str]
    failed: list[str]
    tests: int
    rows: int
    remark: str = ""

    def __getitem__(self, name: str) -> Figure:
        return next(figure for figure in self.figures if figure.name == name)

    def __str__(self) -> str:
        head = ("figure", "samples", "fresh rows", "±", "p", "rows", "verdict")
        lines = [head, *(figure_cells(figure) for figure in self.figures)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [" | ".join(map(str.ljust, cells, widths)).rstrip() for cells in lines]
        table.insert(1, "-|-".join("-" * width for width in widths))
        return "\n".join([*table, f"{self.verdict} {self.remark}".rstrip()])


def figure_cells(figure: Figure) -> tuple[str, ...]:
    """Return name, value, floor, error, p-value, rows and verdict as texts."""
    numbers = ["" if math.isnan(x) else f"{x:.3g}" for x in (figure.value, figure.floor, figure.error)]
    p = "" if figure.p_value is None else f"{figure.p_value:.2g}"
    return (figure.name, *numbers, p, str(figure.rows), figure.verdict)


def judge(
    samples: Any, held_out: Any, *, training: Any = None, log_prob: Any = None, own_log_prob: Any = None,
    columns: Sequence[str] | None = None, random_state: int = 0, max_rows: int = 1000, permutations: int = 499,
) -> Judgement:  # fmt: skip
    """Compare samples with rows that the model was not trained on, by every figure of `METRICS` and three more.

    Args:
        samples: Generated rows, shape `(N, D)`, in the units of the table.
        held_out: Rows of the table that were not trained on, shape `(M, D)`.
        training: The rows that were trained on: for copies, and for the scale of the columns.
        log_prob: Log-densities of the held-out rows, shape `(M,)`.
        own_log_prob: Log-densities of samples of the model, shape `(K,)`, which those of held-out rows are set beside.
        columns: Names of the columns; by default those of `held_out`.
        random_state: Seed of splits, relabellings, directions and trees.
        max_rows: Most rows of each set to compare; the classifier takes four times as many. Memory is quadratic in it.
        permutations: Relabellings of each test, at least 299; the least p-value is 1 / (permutations + 1).

    Raises:
        ValueError: If the tables do not fit or hold values that are not finite, or a number is out of range.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> fresh, narrow = rng.normal(size=(600, 2)), 0.8 * rng.normal(size=(300, 2))
        >>> judge(narrow, fresh)["energy distance"].p_value < 0.05
        True
    """
    if max_rows < MIN_EVALUATION_ROWS or permutations < 299:  # of fewer, no p-value is small enough for the correction
        raise ValueError(
            f"max_rows must be at least {MIN_EVALUATION_ROWS} and permutations at least 299, "
            f"got {max_rows} and {permutations}"
        )
    tables, names = in_one_scale({"samples": samples, "held_out": held_out}, training)
    names = names if columns is None else list(columns)
    rng = np.random.default_rng(random_state)
    own, fresh = (rng.permutation(table) for table in tables[:2])
    n_test, n = min(len(own), len(fresh), max_rows), min(len(own), len(fresh) // 2, max_rows)
    figures, by_column, by_pair = [], [], []
    if n >= MIN_EVALUATION_ROWS // 2:
        rows = np.concatenate([own[:n_test], fresh[: max(n_test, 2 * n)]])
        labels = Labels(rows, n_test, n, permutations, rng, random_state)
        figures = [_figure(name, metric, labels) for name, metric in METRICS.items() if metric.columns <= rows.shape[1]]
        by_column, by_pair = _by_column(labels, names), _by_pair(labels, names)
    else:
        figures = [_too_few(name, metric.explanation, n) for name, metric in METRICS.items()]
    figures.append(_classifier(own[: 4 * max_rows], fresh[: 4 * max_rows], permutations, random_state))
    if len(tables) > 2:
        found = copies_test(tables[0], tables[2], tables[1])
        parts = (found.share, found.share_fresh, found.standard_error, found.p_value)
        figures.append(_told(COPIES, *parts, EXPLANATIONS[COPIES], min(len(own), len(fresh))))
    if log_prob is not None:
        figures.append(_likelihood(log_prob, own_log_prob, permutations, rng))
    return _judged(figures, by_column, by_pair, n_test)


def in_one_scale(given: dict[str, Any], training: Any) -> tuple[list[Array], list[str]]:
    """Return tables in standard deviations of the training rows, or of the last one, and the names of the columns.

    Training rows, where they are given, come last.

    Raises:
        ValueError: If they are no tables of numbers, or have not the same columns.
    """
    names = column_names(list(given.values())[-1], 0)
    given = {**given, **({} if training is None else {"training": training})}
    tables = [as_points(table) for table in given.values()]
    widths = [table.shape[1] for table in tables]
    if len(set(widths)) > 1:
        raise ValueError(f"{', '.join(given)} must have the same columns, got {', '.join(map(str, widths))}")
    scale = tables[-1]  # training rows have no part in the comparison, so tests stay exact under their scale
    centre, spread = scale.mean(axis=0), spread_of(scale)
    return [(table - centre) / spread for table in tables], names or column_names(None, widths[0])


def _figure(name: str, metric: Metric, labels: Labels) -> Figure:
    n = min(labels.n, metric.most)
    if n < metric.fewest:
        return _too_few(name, metric.explanation, n)
    value, floor, half, other = (metric.statistic(labels.pool, signs) for signs in labels.splits(n))
    error = max(float(floor.std(ddof=1)), float(np.sqrt(np.square(half - other).mean())) / 2)
    sign = -1.0 if metric.larger_is_better else 1.0
    p = p_value(sign * metric.statistic(*labels.tested(metric.most))) if metric.tested else None
    numbers = (float(value.mean()), float(floor.mean()), error)
    return _told(name, *numbers, p, metric.explanation, n, larger_is_better=metric.larger_is_better)


def _told(
    name: str, value: float, floor: float, error: float, p: float | None, explanation: str, rows: int, *,
    larger_is_better: bool = False,
) -> Figure:  # fmt: skip
    """Return the figure with its verdict: by the p-value where there is one, else by two standard errors."""
    least = max(1e-9 * (abs(value) + abs(floor)), 1e-300)  # a rounding error is no difference
    worse = (floor - value if larger_is_better else value - floor) / max(error, least)
    if (worse < 2) if p is None else (p >= LEVEL):
        verdict = SAME
    elif worse >= 2:
        verdict = f"{worse:.1f} sigma worse" if worse < 1000 else "more than 1000 sigma worse"
    else:
        verdict = f"worse than fresh data, p = {p:.2g}"
    return Figure(name, value, floor, error, worse, p, verdict, explanation, rows)


def _too_few(name: str, explanation: str, rows: int) -> Figure:
    return Figure(name, math.nan, math.nan, math.nan, math.nan, None, TOO_FEW, explanation, rows)


def _classifier(own: Array, fresh: Array, permutations: int, random_state: int) -> Figure:
    n = min(len(own), len(fresh))
    if n < 80:  # a leaf of a tree holds 20 rows, and each half is to have two
        return _too_few(CLASSIFIER, EXPLANATIONS[CLASSIFIER], n)
    # Twice the smaller p-value of two is taken, and labels are cheap.
    found = classifier_test(own[:n], fresh[:n], permutations=4 * permutations, random_state=random_state)
    parts = (found.auc, 0.5, found.standard_error, found.p_value)
    return _told(CLASSIFIER, *parts, EXPLANATIONS[CLASSIFIER], n)


def _likelihood(log_prob: Any, own_log_prob: Any, permutations: int, rng: np.random.Generator) -> Figure:
    """Return the mean log-density of held-out rows beside that of own samples; off in either direction is off."""
    told = np.asarray(log_prob, dtype=np.float64)
    if told.ndim != 1 or not len(told):
        raise ValueError(f"log_prob must be a list of log-densities, one for each held-out row, got shape {told.shape}")
    own = np.asarray([] if own_log_prob is None else own_log_prob, dtype=np.float64)
    if not (np.isfinite(told).all() and np.isfinite(own).all()):
        raise ValueError("log-densities must be finite, but some are NaN or infinite; leave those rows out")
    if min(len(told), len(own)) < MIN_EVALUATION_ROWS // 2:
        error = float(told.std(ddof=1) / math.sqrt(len(told))) if len(told) > 1 else math.nan
        return Figure(
            LIKELIHOOD,
            float(told.mean()),
            math.nan,
            error,
            math.nan,
            None,
            TOO_FEW,
            EXPLANATIONS[LIKELIHOOD],
            len(told),
        )
    both = np.concatenate([told, own])
    held = np.repeat([1.0, 0.0], [len(told), len(own)])
    labels = np.stack([held, *(rng.permutation(held) for _ in range(permutations))])
    p = p_value(np.abs(labels @ (both - both.mean())))
    error = math.hypot(told.std(ddof=1) / math.sqrt(len(told)), own.std(ddof=1) / math.sqrt(len(own)))
    value, floor = float(told.mean()), float(own.mean())
    sigma = (floor - value) / max(error, 1e-300)
    verdict = SAME if p >= LEVEL else f"{abs(sigma):.1f} sigma {'less' if sigma > 0 else 'more'}"
    return Figure(
        LIKELIHOOD, value, floor, error, sigma, p, verdict, EXPLANATIONS[LIKELIHOOD], min(len(told), len(own))
    )


def _by_column(labels: Labels, names: list[str]) -> list[Figure]:
    """Return the KS figure of each column, worst first."""
    value, floor = (relabelling.marginal(labels.pool, signs)[0] for signs in labels.splits(labels.n)[:2])
    tested = relabelling.marginal(*labels.tested())[0]
    return _family(names, value, floor, tested, "Largest difference of the distribution functions.", labels.n)


def _by_pair(labels: Labels, names: list[str]) -> list[Figure]:
    """Return the error of the correlation of each pair of columns, worst first."""
    i, j = np.triu_indices(len(names), 1)
    if not len(i):
        return []
    parts = [(labels.pool, signs) for signs in labels.splits(labels.n)[:2]]
    value, floor, tested = (np.abs(relabelling.correlation_errors(*part)) for part in (*parts, labels.tested()))
    pairs = [f"{names[a]}, {names[b]}" for a, b in zip(i, j, strict=True)]
    return _family(pairs, value, floor, tested, "Absolute error of the correlation.", labels.n)


def _family(names: list[str], value: Array, floor: Array, tested: Array, explanation: str, n: int) -> list[Figure]:
    """Return a figure a member, with p-values that hold for all at once: against the largest of each relabelling."""
    worst = tested.max(axis=1)
    figures = []
    for k, name in enumerate(names):
        p = p_value(np.concatenate([tested[:1, k], worst[1:]]))
        parts = (float(value[:, k].mean()), float(floor[:, k].mean()), float(floor[:, k].std(ddof=1)))
        figures.append(_told(name, *parts, p, explanation, n))
    return sorted(figures, key=lambda figure: (figure.p_value or 0.0, -figure.value))


def _judged(figures: list[Figure], columns: list[Figure], pairs: list[Figure], n_test: int) -> Judgement:
    tests = [figure for figure in figures if figure.p_value is not None]
    corrected = holm([figure.p_value for figure in tests if figure.p_value is not None])
    rejected = [figure for figure, p in zip(tests, corrected, strict=True) if p < LEVEL]
    few = n_test < FEW_ROWS
    failed = [figure.name for figure in rejected if not few or _is_clear(figure)]
    remark = ""
    if failed:
        verdict = (
            f"The samples differ from fresh data: {len(failed)} of {len(tests)} tests "
            f"{'fails' if len(failed) == 1 else 'fail'} after Holm's correction ({', '.join(failed)})."
        )
    elif not columns:
        verdict = f"Too few rows to say: a floor needs {MIN_EVALUATION_ROWS} held-out rows and half as many samples."
    elif few:
        verdict = (
            f"Too few rows to say: by {n_test} rows each, a shift of one column below about "
            f"{FEW_FACTOR * visible_shift(n_test):.2g} standard deviations would go unseen."
        )
        remark = (
            f"After Holm's correction {len(rejected)} of {len(tests)} tests would reject "
            f"({', '.join(figure.name for figure in rejected)}), but by less than {CLEAR:g} standard errors, which a "
            "split of few rows can do by chance: hold out more rows to know."
            if rejected
            else f"None of {len(tests)} tests finds a difference."
        )
    else:
        verdict = (
            f"The samples cannot be told from fresh data by {n_test} rows each, in {len(tests)} tests with Holm's "
            f"correction; a shift of one column below about {visible_shift(n_test):.2g} standard deviations would go "
            "unseen."
        )
    if few:
        figures, columns, pairs = ([_unless_unclear(figure) for figure in part] for part in (figures, columns, pairs))
    return Judgement(
        figures, columns, pairs, verdict, [figure.name for figure in rejected], failed, len(tests), n_test, remark
    )


def _is_clear(figure: Figure) -> bool:
    return abs(figure.sigma) >= CLEAR


def _unless_unclear(figure: Figure) -> Figure:
    """Return a figure of few rows, with nothing claimed of a difference that is not clear."""
    return figure if figure.verdict == SAME or _is_clear(figure) else replace(figure, verdict=TOO_FEW)


def visible_shift(n: int) -> float:
    """Return the shift of one column, in standard deviations, that n rows of each set see four times in five.

    Of a normal column by its mean alone it would be 2.8 / sqrt(n / 2); that many tests are made at once, and that they
    do not know where to look, costs about half as much again (measured in two and in eight dimensions).
    """
    return 6.0 / math.sqrt(n)


FEW_FACTOR = 1.5
"""How much larger a shift must be, below `FEW_ROWS` rows, to be `CLEAR` as well four times in five (measured)."""
