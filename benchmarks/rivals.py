"""Densities that a user would reach for first, from their own packages, each behind one function.

Every one takes training rows in standard units and returns a function from rows to log-densities. Settings that matter
are chosen on folds of the training rows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, train_test_split
from sklearn.neighbors import KernelDensity

import pointdiffusion as ptd

Points = NDArray[np.float64]
Density = Callable[[Points], Points]


def kernel_density(rows: Points, seed: int) -> Density:
    """Return scikit-learn's Gaussian kernel density, its bandwidth by likelihood on five folds."""
    spread = rows.std() * len(rows) ** (-1 / (rows.shape[1] + 4))  # Scott's rule
    grid = {"bandwidth": spread * np.geomspace(0.03, 2, 25)}
    some = rows if len(rows) <= 2000 else rows[np.random.default_rng(seed).choice(len(rows), 2000, replace=False)]
    found = GridSearchCV(KernelDensity(), grid, cv=KFold(5, shuffle=True, random_state=seed)).fit(some)
    # A bandwidth for fewer rows is too wide by Scott's power.
    bandwidth = found.best_params_["bandwidth"] * (len(rows) / len(some)) ** (-1 / (rows.shape[1] + 4))
    return KernelDensity(bandwidth=bandwidth).fit(rows).score_samples


def whitened_kernel_density(rows: Points, seed: int) -> Density:
    """Return the same in coordinates in which the covariance is a sphere."""
    mean, covariance = rows.mean(axis=0), np.atleast_2d(np.cov(rows.T)) + 1e-9 * np.eye(rows.shape[1])
    whiten = np.linalg.cholesky(np.linalg.inv(covariance))
    inner, jacobian = kernel_density((rows - mean) @ whiten, seed), np.linalg.slogdet(whiten)[1]
    return lambda x: inner((x - mean) @ whiten) + jacobian


def mixture(rows: Points, seed: int) -> Density:
    """Return scikit-learn's Gaussian mixture, number and kind of components by the Bayesian information criterion."""
    best = None
    for kind in ("full", "tied", "diag"):
        refused, least = 0, math.inf
        for count in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64):
            if count > len(rows) // 5 or refused == 2:
                break
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = GaussianMixture(
                    count, covariance_type=kind, reg_covar=1e-4, n_init=2 if count <= 8 else 1, random_state=seed
                )
                criterion = found.fit(rows).bic(rows)
            refused, least = (0 if criterion < least else refused + 1), min(least, criterion)
            if best is None or criterion < best[0]:
                best = criterion, found
    return best[1].score_samples


def stacked(rows: Points, seed: int) -> Density:
    """Return the weighted sum of a kernel density and a mixture, weights from five folds, or two tenths."""
    parts, held = (kernel_density, mixture), []
    folds = list(KFold(5 if len(rows) < 2000 else 10, shuffle=True, random_state=seed).split(rows))
    for inside, outside in folds if len(rows) < 2000 else folds[:2]:
        held.append(np.stack([part(rows[inside], seed)(rows[outside]) for part in parts], axis=1))
    weights = ptd.stacking_weights(np.concatenate(held))
    made = [part(rows, seed) for part in parts]
    return lambda x: logsumexp(np.stack([part(x) for part in made], axis=1) + np.log(weights), axis=1)


def spline_flow(rows: Points, seed: int) -> Density:
    """Return zuko's neural spline flow, stopped where a tenth of the rows says so, at most 3000 steps."""
    import zuko

    inside, outside = (
        torch.tensor(part, dtype=torch.float32) for part in train_test_split(rows, test_size=0.1, random_state=seed)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = zuko.flows.NSF(rows.shape[1], transforms=3, hidden_features=(64, 64))
        optimiser = torch.optim.AdamW(flow.parameters(), lr=2e-3, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 3000)
        best, since, kept = math.inf, 0, flow.state_dict()
        for step in range(3000):
            batch = inside[torch.randint(len(inside), (min(256, len(inside)),))]
            loss = -flow().log_prob(batch).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            if step % 50 == 49:
                with torch.no_grad():
                    value = -float(flow().log_prob(outside).mean())
                if value < best:
                    best, since = value, 0
                    kept = {name: weight.clone() for name, weight in flow.state_dict().items()}
                elif (since := since + 1) == 10:
                    break
        flow.load_state_dict(kept)

    def density(x: Points) -> Points:
        with torch.no_grad():
            found = flow().log_prob(torch.tensor(x, dtype=torch.float32))
        return np.nan_to_num(found.double().numpy(), nan=-1e3, neginf=-1e3)

    return density


RIVALS: dict[str, Callable[[Points, int], Density]] = {
    "KDE": kernel_density,
    "whitened KDE": whitened_kernel_density,
    "mixture": mixture,
    "spline flow": spline_flow,
    "KDE + mixture": stacked,
}
