r"""Two models compared on the same held-out rows: paired differences of metrics, with standard errors.

Both are compared with the same rows, and both draw from the same noise where they are given the same seed, so much of
the scatter is common and falls out of the difference. Its error is that of the grouped jackknife: with one of G blocks
of rows left out in all tables, :math:`s^2 = \frac{G - 1}{G} \sum_g (\theta_g - \bar\theta)^2` (Efron and Stein 1981,
https://doi.org/10.1214/aos/1176345462). It is exact for means, close for smooth metrics, and rough for the largest of
several and for shares of neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pointdiffusion.metrics.evaluation import in_one_scale
from pointdiffusion.metrics.permutation import Pool
from pointdiffusion.metrics.registry import METRICS, Metric
from pointdiffusion.metrics.results import LIKELIHOOD, MIN_EVALUATION_ROWS
from pointdiffusion.runtime.arrays import Array

BLOCKS = 20


@dataclass(frozen=True)
class Difference:
    """One metric of two models, and their difference.

    Args:
        name: Name of the metric.
        value: Value of the first model.
        other: Value of the second model.
        difference: `value - other`.
        error: Standard error of the difference.
        sigma: Standard errors by which the first is better; negative if it is worse.
        verdict: Conclusion from this metric alone, at two standard errors.
        rows: Rows of each set.
    """

    name: str
    value: float
    other: float
    difference: float
    error: float
    sigma: float
    verdict: str
    rows: int


def compare(
    samples: Any, other: Any, held_out: Any, *, training: Any = None, log_prob: Any = None, other_log_prob: Any = None,
    random_state: int = 0, max_rows: int = 1000,
) -> list[Difference]:  # fmt: skip
    """Compare two sets of samples by every metric of `METRICS`, and two lists of log-densities.

    Draw both with the same seed: row k of each then comes from the same noise, and its scatter falls out.

    Args:
        samples: Samples of the first model, shape `(N, D)`, in the units of the table.
        other: Samples of the second, shape `(M, D)`.
        held_out: Rows of the table that neither was trained on, shape `(K, D)`.
        training: Rows that were trained on, shape `(T, D)`, for the scale of the columns.
        log_prob: Log-densities of held-out rows under the first, in nats, shape `(L,)`.
        other_log_prob: Log-densities of the same rows under the second, shape `(L,)`.
        random_state: Seed of random directions.
        max_rows: Most rows of each set to compare.

    Returns:
        One difference per metric, that of the log-densities first.

    Raises:
        ValueError: If the tables do not fit, or hold fewer than twenty rows.

    References:
        The jackknife estimate of variance (Efron and Stein, 1981), https://doi.org/10.1214/aos/1176345462

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> held_out, good = rng.normal(size=(2, 400, 2))
        >>> differences = {each.name: each for each in compare(good, good + 0.5, held_out)}
        >>> differences["energy distance"].verdict.endswith("sigma better")
        True
    """
    tables, _ = in_one_scale({"samples": samples, "other": other, "held_out": held_out}, training)
    n = min(*(len(table) for table in tables[:3]), max_rows)
    if n < MIN_EVALUATION_ROWS:
        raise ValueError(f"samples of both and held-out rows are needed, {MIN_EVALUATION_ROWS} of each, got {n}")
    differences = []
    if log_prob is not None and other_log_prob is not None:
        differences.append(
            _by_row(np.asarray(log_prob, dtype=np.float64), np.asarray(other_log_prob, dtype=np.float64))
        )
    # The first rows of both tables of samples come from the same noise, so a block leaves out the same rows of each.
    parts = [table[:n] for table in tables[:3]]
    for name, metric in METRICS.items():
        if metric.columns <= parts[0].shape[1] and metric.fewest * BLOCKS <= n * (BLOCKS - 1):
            differences.append(_difference(name, metric, [part[: metric.most] for part in parts], random_state))
    return differences


def _difference(name: str, metric: Metric, parts: list[Array], random_state: int) -> Difference:
    """Return the difference of a metric; its error comes from leaving out one block of rows at a time."""
    n = len(parts[0]) // BLOCKS * BLOCKS
    pool = Pool(np.concatenate([part[:n] for part in parts]), random_state)
    block = np.arange(n) % BLOCKS
    included = np.concatenate([np.ones((1, n), bool), block != np.arange(BLOCKS)[:, None]]).T.astype(
        np.int8
    )  # (n, G + 1)
    none = np.zeros_like(included)
    first, second = np.concatenate([included, none, -included]), np.concatenate([none, included, -included])
    values, others = (
        np.concatenate([metric.statistic(pool, signs[:, :1]), metric.statistic(pool, signs[:, 1:])])
        for signs in (first, second)
    )  # the statistics take all columns for those of one number of rows
    left_out = values[1:] - others[1:]
    error = math.sqrt((BLOCKS - 1) * float(np.var(left_out)))
    sign = 1.0 if metric.larger_is_better else -1.0
    return _verdict(name, float(values[0]), float(others[0]), error, sign, n)


def _by_row(log_prob: Array, other: Array) -> Difference:
    if log_prob.ndim != 1 or log_prob.shape != other.shape or len(log_prob) < 2:
        raise ValueError(f"log-densities of the same rows are needed, got shapes {log_prob.shape} and {other.shape}")
    error = float((log_prob - other).std(ddof=1)) / math.sqrt(len(other))
    return _verdict(LIKELIHOOD, float(log_prob.mean()), float(other.mean()), error, 1.0, len(other))


def _verdict(name: str, value: float, other: float, error: float, sign: float, rows: int) -> Difference:
    sigma = sign * (value - other) / max(error, 1e-9 * (abs(value) + abs(other)), 1e-300)  # rounding is no difference
    verdict = "indistinguishable" if abs(sigma) < 2 else f"{min(abs(sigma), 999):.1f} sigma "
    verdict += "" if abs(sigma) < 2 else "better" if sigma > 0 else "worse"
    return Difference(name, value, other, value - other, error, sigma, verdict, rows)
