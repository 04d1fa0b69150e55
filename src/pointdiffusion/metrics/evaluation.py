r"""Samples evaluated by every metric at once, each beside its finite-sample floor, and one verdict over all.

With N samples and M held-out rows, a metric is computed on n = min(N, M / 2) rows of each: of the samples against one
part of the held-out rows (the value), and of another part of them against the same part (the floor), which is what
fresh rows get. Both are means over random splits. The error is the scatter of one draw of the floor, which is a little
too large, since means scatter less. Parts of the same rows hide what these have in common, so it is at least the
scatter between disjoint rows, half as many, over sqrt(2). Sigmas are therefore on the safe side; the p-values are
exact.

Where a p-value is affordable it comes from a permutation test on min(N, M) rows of each set: exact at any number of
rows.

Columns are in units of the standard deviation of the training rows where these are given, else of the held-out rows.
Samples are taken to be independent: those of a Markov chain, or resampled particles, are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pointdiffusion.metrics import permutation
from pointdiffusion.metrics.marginals import column_std
from pointdiffusion.metrics.neighbours import copies_test
from pointdiffusion.metrics.permutation import GroupLabels, p_value
from pointdiffusion.metrics.registry import METRICS, Metric
from pointdiffusion.metrics.results import (
    CLASSIFIER,
    COPIES,
    LEVEL,
    LIKELIHOOD,
    MIN_EVALUATION_ROWS,
    SAME,
    TOO_FEW,
    Evaluation,
    MetricResult,
    metric_result,
    summarise,
    too_few_rows,
)
from pointdiffusion.metrics.two_sample import classifier_test
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.tabular.points import as_points, column_names

EXPLANATIONS = {
    CLASSIFIER: "How often trees rank a sample above a fresh row, 0.5 by guessing; blind to fine oblique structure.",
    COPIES: "Share of samples nearer to a training row than one fresh row in a hundred; blind to noisy copies.",
    LIKELIHOOD: "Mean in nats over held-out rows, and over the model's own samples; equal if the model is right.",
}


def evaluate(
    samples: Any, held_out: Any, *, training: Any = None, log_prob: Any = None, own_log_prob: Any = None,
    columns: Sequence[str] | None = None, random_state: int = 0, max_rows: int = 1000, permutations: int = 499,
) -> Evaluation:  # fmt: skip
    """Compare samples with rows that the model was not trained on, by every metric of `METRICS` and three more.

    Args:
        samples: Generated rows, shape `(N, D)`, in the units of the table; an array or a data frame.
        held_out: Rows of the table that the model was not trained on, shape `(M, D)`.
        training: Rows that it was trained on, shape `(K, D)`: for the test of copies, and for the scale of the columns.
        log_prob: Log-densities of held-out rows under the model, in nats, shape `(L,)`.
        own_log_prob: Log-densities of samples of the model, in nats, shape `(S,)`, to compare `log_prob` with.
        columns: Names of the D columns; by default those of `held_out`.
        random_state: Seed of splits, permutations, directions and trees.
        max_rows: Most rows of each set to compare, at least 20; the classifier takes four times as many. Memory is
            quadratic in it.
        permutations: Random permutations of each test, at least 299; the least p-value is 1 / (permutations + 1).

    Returns:
        One `MetricResult` per metric, per column and per pair of columns, and the verdict. Values are in standard
        deviations of the columns where they have a unit.

    Raises:
        ValueError: If the tables do not fit or hold values that are not finite, or a number is out of range.

    References:
        Permutation p-values should never be zero (Phipson and Smyth, 2010), https://arxiv.org/abs/1603.05766; a simple
        sequentially rejective multiple test procedure (Holm, 1979), https://www.jstor.org/stable/4615733

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> fresh, narrow = rng.normal(size=(600, 2)), 0.8 * rng.normal(size=(300, 2))
        >>> evaluation = evaluate(narrow, fresh)
        >>> evaluation["energy distance"].p_value < 0.05
        True
        >>> "energy distance" in evaluation.failed
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
    results, by_column, by_pair = [], [], []
    if n >= MIN_EVALUATION_ROWS // 2:
        rows = np.concatenate([own[:n_test], fresh[: max(n_test, 2 * n)]])
        labels = GroupLabels(rows, n_test, n, permutations, rng, random_state)
        results = [_result(name, metric, labels) for name, metric in METRICS.items() if metric.columns <= rows.shape[1]]
        by_column, by_pair = _by_column(labels, names), _by_pair(labels, names)
    else:
        results = [too_few_rows(name, metric.explanation, n) for name, metric in METRICS.items()]
    results.append(_classifier(own[: 4 * max_rows], fresh[: 4 * max_rows], permutations, random_state))
    if len(tables) > 2:
        copies = copies_test(tables[0], tables[2], tables[1])
        parts = (copies.share, copies.share_fresh, copies.standard_error, copies.p_value)
        results.append(metric_result(COPIES, *parts, EXPLANATIONS[COPIES], min(len(own), len(fresh))))
    if log_prob is not None:
        results.append(_likelihood(log_prob, own_log_prob, permutations, rng))
    return summarise(results, by_column, by_pair, n_test)


def in_one_scale(given: dict[str, Any], training: Any) -> tuple[list[Array], list[str]]:
    """Return tables in standard deviations of the training rows, or of the last table, and the names of the columns.

    Args:
        given: Tables by the name of the argument, each of shape `(N, D)`.
        training: Training rows, shape `(K, D)`, or None.

    Returns:
        The tables in the same order, training rows last where they are given, and D names.

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
    centre, spread = scale.mean(axis=0), column_std(scale)
    return [(table - centre) / spread for table in tables], names or column_names(None, widths[0])


def _result(name: str, metric: Metric, labels: GroupLabels) -> MetricResult:
    n = min(labels.n, metric.most)
    if n < metric.fewest:
        return too_few_rows(name, metric.explanation, n)
    value, floor, half, other_half = (metric.statistic(labels.pool, signs) for signs in labels.splits(n))
    error = max(float(floor.std(ddof=1)), float(np.sqrt(np.square(half - other_half).mean())) / 2)
    sign = -1.0 if metric.larger_is_better else 1.0
    p = p_value(sign * metric.statistic(*labels.permuted(metric.most))) if metric.tested else None
    numbers = (float(value.mean()), float(floor.mean()), error)
    return metric_result(name, *numbers, p, metric.explanation, n, larger_is_better=metric.larger_is_better)


def _classifier(own: Array, fresh: Array, permutations: int, random_state: int) -> MetricResult:
    n = min(len(own), len(fresh))
    if n < 80:  # a leaf of a tree holds 20 rows, and each half is to have two
        return too_few_rows(CLASSIFIER, EXPLANATIONS[CLASSIFIER], n)
    # Twice the smaller p-value of two is taken, and permutations of labels are cheap.
    test = classifier_test(own[:n], fresh[:n], permutations=4 * permutations, random_state=random_state)
    parts = (test.auc, 0.5, test.standard_error, test.p_value)
    return metric_result(CLASSIFIER, *parts, EXPLANATIONS[CLASSIFIER], n)


def _likelihood(log_prob: Any, own_log_prob: Any, permutations: int, rng: np.random.Generator) -> MetricResult:
    """Return the mean log-density of held-out rows beside that of own samples; off in either direction is off."""
    held_out = np.asarray(log_prob, dtype=np.float64)
    if held_out.ndim != 1 or not len(held_out):
        raise ValueError(
            f"log_prob must be a list of log-densities, one for each held-out row, got shape {held_out.shape}"
        )
    own = np.asarray([] if own_log_prob is None else own_log_prob, dtype=np.float64)
    if not (np.isfinite(held_out).all() and np.isfinite(own).all()):
        raise ValueError("log-densities must be finite, but some are NaN or infinite; leave those rows out")
    value, explanation = float(held_out.mean()), EXPLANATIONS[LIKELIHOOD]
    if min(len(held_out), len(own)) < MIN_EVALUATION_ROWS // 2:
        error = float(held_out.std(ddof=1) / math.sqrt(len(held_out))) if len(held_out) > 1 else math.nan
        nan = math.nan
        return MetricResult(LIKELIHOOD, value, nan, error, nan, None, TOO_FEW, explanation, len(held_out))
    both = np.concatenate([held_out, own])
    is_held_out = np.repeat([1.0, 0.0], [len(held_out), len(own)])
    labels = np.stack([is_held_out, *(rng.permutation(is_held_out) for _ in range(permutations))])
    p = p_value(np.abs(labels @ (both - both.mean())))
    error = math.hypot(held_out.std(ddof=1) / math.sqrt(len(held_out)), own.std(ddof=1) / math.sqrt(len(own)))
    floor = float(own.mean())
    sigma = (floor - value) / max(error, 1e-300)
    verdict = SAME if p >= LEVEL else f"{abs(sigma):.1f} sigma {'less' if sigma > 0 else 'more'}"
    rows = min(len(held_out), len(own))
    return MetricResult(LIKELIHOOD, value, floor, error, sigma, p, verdict, explanation, rows)


def _by_column(labels: GroupLabels, names: list[str]) -> list[MetricResult]:
    """Return the KS distance of each column, worst first."""
    value, floor = (permutation.marginal(labels.pool, signs)[0] for signs in labels.splits(labels.n)[:2])
    permuted = permutation.marginal(*labels.permuted())[0]
    return _family(names, value, floor, permuted, "Largest difference of the distribution functions.", labels.n)


def _by_pair(labels: GroupLabels, names: list[str]) -> list[MetricResult]:
    """Return the error of the correlation of each pair of columns, worst first."""
    i, j = np.triu_indices(len(names), 1)
    if not len(i):
        return []
    parts = [(labels.pool, signs) for signs in labels.splits(labels.n)[:2]]
    value, floor, permuted = (np.abs(permutation.correlation_errors(*part)) for part in (*parts, labels.permuted()))
    pairs = [f"{names[a]}, {names[b]}" for a, b in zip(i, j, strict=True)]
    return _family(pairs, value, floor, permuted, "Absolute error of the correlation.", labels.n)


def _family(
    names: list[str], value: Array, floor: Array, permuted: Array, explanation: str, n: int
) -> list[MetricResult]:  # fmt: skip
    """Return one result a name, with p-values that hold for all at once: against the largest of each permutation.

    References:
        Resampling-based multiple testing (Westfall and Young, 1993), section 2.
    """
    worst = permuted.max(axis=1)
    results = []
    for k, name in enumerate(names):
        p = p_value(np.concatenate([permuted[:1, k], worst[1:]]))
        parts = (float(value[:, k].mean()), float(floor[:, k].mean()), float(floor[:, k].std(ddof=1)))
        results.append(metric_result(name, *parts, p, explanation, n))
    return sorted(results, key=lambda result: (result.p_value or 0.0, -result.value))
