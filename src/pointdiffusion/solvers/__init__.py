"""Solvers of the probability-flow equation, by their public names."""

from pointdiffusion.solvers.base import Solver
from pointdiffusion.solvers.runge_kutta import EulerODE, HeunODE

SOLVERS: dict[str, type[Solver]] = {"euler": EulerODE, "heun": HeunODE}

__all__ = ["SOLVERS", "EulerODE", "HeunODE", "Solver"]
