"""What the page knows of the library, as plain numbers and texts.

Solvers, noise schedules, point sets, the plan behind `auto` and defaults are read from the library's own registries, so
that a Runge-Kutta tableau, a multistep preset or a mixture that is added there appears in the page as well.

    python -m pointdiffusion.web.registry web/registry.json    write it as JSON, for the page to be built with
"""

from __future__ import annotations

import functools
import json
import sys
from typing import Any

import numpy as np

from pointdiffusion.config import InferenceConfig
from pointdiffusion.data.base import Dataset
from pointdiffusion.data.curves import Circles, SCurve, SwissRoll
from pointdiffusion.data.datasets import DATASETS, Dots, RandomMixture
from pointdiffusion.noise import (
    SCHEDULES,
    CosineSchedule,
    KarrasSchedule,
    LinearBetaSchedule,
    LogLinearSchedule,
    RectifiedFlowSchedule,
)
from pointdiffusion.runtime.files import write_atomic
from pointdiffusion.sampling.grids import LEARNED
from pointdiffusion.sampling.plans import CANDIDATES
from pointdiffusion.solvers import (
    DDIM,
    SOLVERS,
    AdaptiveRungeKutta,
    ChurnSDE,
    ItoSDE,
    Multistep,
    RungeKutta,
    Singlestep,
    Solver,
)
from pointdiffusion.solvers.adaptive import PAIRS, pair_coefficients
from pointdiffusion.solvers.quadrature import GAUSS_NODES, GAUSS_WEIGHTS
from pointdiffusion.solvers.runge_kutta import TABLEAUS
from pointdiffusion.version import __version__
from pointdiffusion.web.limits import training_settings

USUAL: dict[str, Any] = {
    "noises": 0, "final": "denoise", "calls": 1, "quantity": "denoised", "variable": "log-sigma", "eta": 0.0,
    "rho": 7.0, "corrector": False, "rule": "exact", "start": "ramp", "lower_order_final": False,
}  # fmt: skip
"""Choices of solvers that are left out where they are these, to keep the page small."""

SHAPES = ("SwissRoll", "SCurve", "Moons", "Spirals", "Circles", "Checkerboard", "Pinwheel", "Dots", "Mixture")
"""Kinds of point sets that the page can draw from."""


def registry() -> dict[str, Any]:
    """Return all of it."""
    asked = [*(name for name, _ in LEARNED.exact.values()), "velocity-4 corrected", *LEARNED.default_solvers.values()]
    return {
        "version": __version__,
        "defaults": InferenceConfig().to_mapping(),
        "tableaus": {name: {"a": t.a, "b": t.b, "order": t.order} for name, t in TABLEAUS.items()},
        "pairs": {name: _pair(name) for name in PAIRS},
        "quadrature": {"nodes": GAUSS_NODES.tolist(), "weights": GAUSS_WEIGHTS.tolist()},
        "usual": USUAL,
        "solvers": {name: _unusual(found) for name, make in SOLVERS.items() if (found := _solver(make()))},
        "schedules": {name: found for name, kind in SCHEDULES.items() if (found := _schedule(kind()))},
        "datasets": {name: found for name, kind in DATASETS.items() if (found := _dataset(name, kind))},
        "auto": {
            "candidates": {name: CANDIDATES[name] for name in dict.fromkeys(asked)},
            "learned": {str(nfe): {"solver": name, "sigmas": sigmas} for nfe, (name, sigmas) in LEARNED.exact.items()},
            "usual_on_networks": {str(nfe): name for nfe, name in LEARNED.default_solvers.items()},
            "learned_on_networks": {name: LEARNED.networks[name] for name in LEARNED.default_solvers.values()},
        },
        "training": training_settings(),
    }


def as_json(value: Any) -> str:
    """Return JSON that may stand in a page: no text in it can end the element that holds it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _pair(name: str) -> dict[str, Any]:
    pair = pair_coefficients(name)
    return {
        "a": pair.a, "b": pair.b, "c": pair.c, "errors": pair.errors, "order": pair.order,
        "error_order": pair.error_order,
    }  # fmt: skip


def _unusual(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in USUAL or USUAL[name] != value}


def _tableau(solver: RungeKutta) -> str:
    return next(name for name, tableau in TABLEAUS.items() if tableau is solver.tableau)


def _solver(solver: Solver) -> dict[str, Any] | None:
    """Return the family of a solver and its choices; None for a family that the page does not know."""
    facts: dict[str, Any] = {"order": solver.order, "noises": solver.noises, "final": solver.final}
    match solver:
        case RungeKutta():
            return {**facts, "family": "runge-kutta", "tableau": _tableau(solver), "calls": len(solver.tableau.b)}
        case Multistep():
            form = solver.form
            return {
                **facts, "family": "multistep", "points": solver.points, "quantity": form.quantity,
                "variable": form.variable, "eta": form.eta, "rho": form.rho, "corrector": solver.corrector,
                "rule": solver.rule, "start": solver.start, "lower_order_final": solver.lower_order_final, "calls": 1,
            }  # fmt: skip
        case Singlestep():
            quantity = solver.form.quantity
            return {**facts, "family": "singlestep", "stages": solver.stages, "quantity": quantity,
                    "calls": solver.stages}  # fmt: skip
        case AdaptiveRungeKutta():
            return {
                **facts, "family": "adaptive", "pair": solver.pair_name, "rtol": solver.rtol, "atol": solver.atol,
                "max_steps": solver.max_steps, "calls": None,
            }  # fmt: skip
        case DDIM():
            return {**facts, "family": "ddim", "eta": solver.eta, "calls": 1}
        case ItoSDE():
            return {**facts, "family": "ito", "eta": solver.eta, "exact_noise": solver.exact_noise, "calls": 1}
        case ChurnSDE():
            return {
                **facts, "family": "churn", "s_churn": solver.s_churn, "s_min": solver.s_min,
                "s_max": min(solver.s_max, 1e300), "s_noise": solver.s_noise, "calls": 2,
            }  # fmt: skip
    return None


def _schedule(schedule: Any) -> dict[str, Any] | None:
    match schedule:
        case KarrasSchedule():
            return {"kind": "karras", "rho": schedule.rho}
        case LogLinearSchedule():
            return {"kind": "log-linear"}
        case CosineSchedule():
            return {"kind": "cosine", "offset": schedule.offset}
        case LinearBetaSchedule():
            return {"kind": "linear-beta", "num_timesteps": 1000, "beta_first": 1e-4, "beta_last": 0.02}
        case RectifiedFlowSchedule():
            return {"kind": "rectified-flow"}
    return None


def _dataset(name: str, dataset: Dataset) -> dict[str, Any] | None:
    """Return a point set of the plane; None where there is none."""
    kind = type(dataset).__name__
    settings: dict[str, Any] = {}
    match dataset:
        case Circles():
            settings["radii"] = dataset.radii
        case Dots():
            settings["centres"] = dataset.centres
        case SCurve() | RandomMixture():
            dataset = dataset.with_settings(n_dims=2)
        case SwissRoll():
            settings["scaling_factor"] = dataset.scaling_factor
    if isinstance(dataset, RandomMixture):
        clean = dataset.mixture(noise=0.0)
        kind, settings = "Mixture", {
            "weights": _rounded(clean.weights.numpy()), "means": _rounded(clean.means.numpy()),
            "factors": _rounded(np.linalg.cholesky(clean.covariances.numpy())),
        }  # fmt: skip
    if kind not in SHAPES or dataset.n_dims != 2:
        return None
    centre, scale = _frame(name, dataset)
    return {
        "kind": kind, "noise": dataset.noise, "classes": dataset.n_classes, "centre": centre, "scale": scale,
        **settings,
    }  # fmt: skip


def _rounded(values: Any) -> Any:
    return (np.round(values, 4) + 0.0).tolist()  # no -0.0


@functools.cache
def _frame(name: str, dataset: Dataset) -> tuple[list[float], float]:  # noqa: ARG001
    """Return centre and scale with which a set fits a window of one size; the same for both columns, so no shape is
    squeezed.
    """  # noqa: D205
    points = dataset(20_000, random_state=0)
    return (np.round(points.mean(axis=0), 2) + 0.0).tolist(), float(np.round(np.sqrt(points.var(axis=0).mean()), 2))


if __name__ == "__main__":
    write_atomic(sys.argv[1], (json.dumps(registry(), ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode())
