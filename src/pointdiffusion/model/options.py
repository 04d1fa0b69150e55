"""Settings of one call of `sample`, `trajectory` or `impute`, over those that a model was stored with."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypedDict

from pointdiffusion.config import InferenceConfig, unknown_name
from pointdiffusion.noise import SCHEDULES, KarrasSchedule, NoiseSchedule
from pointdiffusion.solvers import Solver


class SolverSettings(TypedDict, total=False):
    """The keyword arguments of `SamplingOptions`, for functions that pass them on."""

    nfe: int | None
    solver: str | Solver | None
    num_steps: int | None
    schedule: str | None
    sigma_min: float | None
    sigma_max: float | None
    rho: float | None
    final_zero: bool | None


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How points are taken from noise to data; what is None is as the model was stored with.

    Args:
        nfe: Number of evaluations; solver and grid are then the best known for it.
        solver: A solver, or a name of `SOLVERS`; with `nfe` `"auto"` by default.
        num_steps: Intervals of the grid of noise levels, without `nfe`.
        schedule: How the grid is placed, a name of `SCHEDULES`.
        sigma_min: Lowest noise level above 0, in standard deviations of the data.
        sigma_max: Noise level at which sampling starts, in standard deviations of the data.
        rho: Curvature of Karras' grid.
        final_zero: Whether the last step removes the noise that is left at `sigma_min`.
    """

    nfe: int | None = None
    solver: str | Solver | None = None
    num_steps: int | None = None
    schedule: str | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    rho: float | None = None
    final_zero: bool | None = None

    def config(self, own: InferenceConfig) -> InferenceConfig:
        """Return the settings of a model with these in their place; the solver stays the model's own.

        Raises:
            ValueError: If a value has the wrong type or is out of range.
        """
        names = [field.name for field in fields(self) if field.name not in ("nfe", "solver")]
        return replace(own, **{name: value for name in names if (value := getattr(self, name)) is not None})

    def solver_or_default(self, own: InferenceConfig) -> str | Solver:
        """Return the solver that is asked for: with a number of evaluations `"auto"`, else the model's own."""
        if self.solver is not None:
            return self.solver
        return own.solver if self.nfe is None else "auto"


def make_schedule(config: InferenceConfig) -> NoiseSchedule:
    """Return the noise schedule that the settings name.

    Raises:
        ValueError: If the name is unknown.
    """
    if config.schedule not in SCHEDULES:
        raise unknown_name("schedule", config.schedule, SCHEDULES)
    kind = SCHEDULES[config.schedule]
    curvature = {"rho": config.rho} if issubclass(kind, KarrasSchedule) else {}
    return kind(config.sigma_min, config.sigma_max, **curvature)
