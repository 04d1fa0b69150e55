"""Solvers of the probability-flow equation and of its stochastic companions, by their public names."""

from collections.abc import Callable
from functools import partial

from pointdiffusion.solvers.adaptive import AdaptiveRungeKutta
from pointdiffusion.solvers.base import FINALS, Solver
from pointdiffusion.solvers.multistep import PRESETS, Multistep
from pointdiffusion.solvers.runge_kutta import TABLEAUS, EulerODE, HeunODE, RungeKutta
from pointdiffusion.solvers.singlestep import Singlestep
from pointdiffusion.solvers.stochastic import DDIM, ChurnSDE, ItoSDE, LangevinCorrector

SOLVERS: dict[str, Callable[..., Solver]] = {
    **{name: partial(RungeKutta, name) for name in TABLEAUS},
    "dpm-solver-2": partial(Singlestep, 2, quantity="eps"),
    "dpm-solver-3": partial(Singlestep, 3, quantity="eps"),
    "dpmpp-2s": partial(Singlestep, 2),
    "dpmpp-3s": partial(Singlestep, 3),
    **{name: partial(Multistep, **choices) for name, choices in PRESETS.items()},
    "dormand-prince": AdaptiveRungeKutta,
    "dop853": partial(AdaptiveRungeKutta, "dop853"),
    "ddim": DDIM,
    "ito": ItoSDE,
    "euler-maruyama": partial(ItoSDE, exact_noise=False),
    "churn": ChurnSDE,
}

__all__ = [
    "DDIM", "FINALS", "SOLVERS", "AdaptiveRungeKutta", "ChurnSDE", "EulerODE", "HeunODE", "ItoSDE",
    "LangevinCorrector", "Multistep", "RungeKutta", "Singlestep", "Solver",
]  # fmt: skip
