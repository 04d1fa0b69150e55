"""A trained model: a denoiser, the scale of its data, and how to sample it."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointdiffusion.config import InferenceConfig, TrainingConfig
from pointdiffusion.denoisers.guidance import EVERYWHERE
from pointdiffusion.denoisers.preconditioned import KarrasDenoiser
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.likelihood import density as likelihood
from pointdiffusion.likelihood.density import Bandwidth, DensityOptions
from pointdiffusion.likelihood.variational import Bound, variational_bound
from pointdiffusion.model.conditions import Conditions, Known, rows_of
from pointdiffusion.model.file import Backbone, about, class_name, network_of, read_payload, write_payload
from pointdiffusion.model.flow import NO_GUIDANCE, Companion, Flow, Guidance
from pointdiffusion.model.options import SamplingOptions, SolverSettings, make_schedule
from pointdiffusion.networks import specification_of
from pointdiffusion.noise import LogLinearSchedule
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.runtime.randomness import BOUND, CHUNK, GRIDS, IMPUTATION, SAMPLING, chunks, generator_for
from pointdiffusion.sampling import loop as sampling
from pointdiffusion.sampling import twisted
from pointdiffusion.sampling.plans import Plan, candidate, candidate_plans, default_plan
from pointdiffusion.sampling.tuning import Case, case_of, choose_plan, optimise_plan
from pointdiffusion.solvers import Solver
from pointdiffusion.tabular.points import as_points
from pointdiffusion.tabular.standardiser import Standardiser
from pointdiffusion.version import __version__

TRIAL_POINTS = 64
"""Points on which a model tries the plans for a budget."""


def pick_device(name: str = "auto") -> str:
    """Return the device to compute on: the one named, or with "auto" a GPU where there is one.

    Raises:
        ValueError: If the device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, found in there.items() if found)
    if not there.get(name.split(":")[0], False):
        found = ", ".join(device for device, found in there.items() if found)
        raise ValueError(f"there is no device {name!r} here (there is: {found}); use auto")
    return name


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")


class SamplingSettings(SolverSettings, total=False):
    """The keyword arguments of `DiffusionModel.sample` but seed and labels, for functions that pass them on."""

    context: Any
    guidance: float
    guidance_interval: tuple[float, float]
    guide: DiffusionModel | None


class Imputed(NamedTuple):
    """Rows with what was missing filled in.

    Args:
        draws: In the user's own units, shape `(num_draws, N, D)`.
        by: How each row was made: `"given"` if nothing was missing, `"unconditional"` if everything was,
            `"a network trained with masks"`, or `"twisted diffusion"`; the last two are approximate. Shape `(N,)`.
    """

    draws: NDArray[np.float64]
    by: list[str]


@dataclass
class DiffusionModel:
    """A denoiser, the standardisation of its data and the settings of inference.

    Args:
        denoiser: Denoiser of standardised points, with the averaged weights.
        standardiser: Shift and scale of the columns.
        covariance: Covariance of the standardised training data, shape `(D, D)`.
        columns: Names of the columns.
        inference: Settings of sampling.
        training: Settings that it was trained with, if known.
        raw_weights: The weights as trained, without averaging, by name.
        metadata: Plain values that travel with the model.
        grids: Noise levels that `optimise_sigmas` found for this model, by number of evaluations.
        grid_solvers: Names of the solvers that they are for, of `plans.CANDIDATES`.
        conditions: Classes and values that it was trained with; None for a model without.
        companion: A distribution in closed form that it is mixed with, in `sample`, `trajectory` and `log_prob`; all
            else is asked of the network alone. None for a model without.
        version: Version of the library that trained it.
    """

    denoiser: KarrasDenoiser
    standardiser: Standardiser
    covariance: Tensor
    columns: list[str]
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    training: TrainingConfig | None = None
    raw_weights: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    grids: dict[int, list[float]] = field(default_factory=dict)
    grid_solvers: dict[int, str] = field(default_factory=dict)
    conditions: Conditions | None = None
    companion: Companion | None = None
    version: str = __version__
    _trials: dict[tuple[float, float], tuple[Case, dict[int, Plan]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def n_dims(self) -> int:
        """Number of dimensions D."""
        return len(self.columns)

    def to(self, device: str | torch.device) -> DiffusionModel:
        """Move the weights to a device, and return the model."""
        self.denoiser.to(device)
        return self

    @property
    def flow(self) -> Flow:
        """The flow of the denoiser in standard units."""
        low, high = self.inference.sigma_min, self.inference.sigma_max
        return Flow(self.denoiser, self.covariance, self.conditions, low, high, self.companion)

    def _chunks(
        self, num_samples: int, seed: int, options: SamplingOptions, known: Known, guidance: Guidance,
        stream: tuple[int, ...] = (SAMPLING,),
    ) -> Iterator[Iterator[sampling.Step[Tensor]]]:  # fmt: skip
        """Yield the trajectory of each chunk, in standard units."""
        flow, guided = self.flow, guidance.strength != 1
        # Nothing is known of what guidance would draw from the sum, nor of its parts where a row's values are given.
        companion = None if guided or "context" in known else flow.companion
        sigma_max, plan = options.config(self.inference).sigma_max, self.sampling_plan(options, guided=guided)
        self.denoiser.eval()
        for index, _ in chunks(num_samples):
            generator = generator_for(seed, *stream, index)
            rows = torch.arange(index * CHUNK, (index + 1) * CHUNK).clamp(max=num_samples - 1)
            here = rows_of(known, rows)
            x = flow.noise(CHUNK, generator, sigma_max, here, guidance)
            denoiser = flow.guided(here, guidance)
            if companion is not None:
                x, own = companion.start(x, sigma_max, generator, here.get("labels"))
                denoiser = companion.beside(denoiser, own, here.get("labels"))
            yield sampling.trajectory(denoiser, x.to(flow.like), plan.sigmas, solver=plan.solver, generator=generator)

    def _conditioned(
        self, count: int, labels: Any, context: Any, guidance: float, interval: tuple[float, float],
        guide: DiffusionModel | None,
    ) -> tuple[Known, Guidance]:  # fmt: skip
        """Return conditions, one row a point, and guidance, as `_guidance` does."""
        return self._guidance(self.flow.known(count, labels, context), guidance, interval, guide)

    def _guidance(
        self, known: Known, strength: float, interval: tuple[float, float], guide: DiffusionModel | None
    ) -> tuple[Known, Guidance]:  # fmt: skip
        """Return conditions and guidance as the flow takes them; at strength 0 that is neither.

        Raises:
            ValueError: If there is nothing to guide to, a number is out of range, or the guide is of another scale.
        """
        if guide is not None and not guide.standardiser.equals(self.standardiser):
            raise ValueError("the guide must be a model of the same scale; train both on the same table")
        found = Guidance(strength, interval, None if guide is None else guide.flow)
        self.flow.guided(known, found)  # refuses before anything is drawn
        return ({}, NO_GUIDANCE) if found.unconditional else (known, found)

    def sampling_plan(self, options: SamplingOptions, *, guided: bool = False) -> Plan:
        """Return solver and noise levels that `sample` draws by under these options.

        Args:
            options: As `sample` takes them one by one.
            guided: Whether guidance calls the network twice a step.

        Raises:
            ValueError: If an option is unknown or out of range, or they contradict each other.
        """
        config, solver = options.config(self.inference), options.solver_or_default(self.inference)
        nfe, cost, sigma_data = options.nfe, 2 if guided else 1, self.denoiser.sigma_data
        if nfe is None:
            sigmas = make_schedule(config).sigmas(config.num_steps, final_zero=config.final_zero)
            return sampling.resolve_plan(sigmas, solver=solver)
        if not config.final_zero and nfe >= cost:
            sigmas = LogLinearSchedule(config.sigma_min, config.sigma_max).sigmas(nfe // cost, final_zero=False)
            return sampling.resolve_plan(
                sigmas, solver=likelihood.default_solver(sigma_data) if solver == "auto" else solver
            )
        own_levels = self.inference.sigma_min, self.inference.sigma_max
        if solver == "auto" and not guided and nfe >= 1 and (config.sigma_min, config.sigma_max) == own_levels:
            return self.plan(nfe)
        if nfe < cost > 1:
            raise ValueError(f"nfe must be at least {cost}, got {nfe}: guidance calls the network twice a step")
        return sampling.resolve_plan(
            nfe=nfe // cost, sigma_max=config.sigma_max, sigma_data=sigma_data, sigma_min=config.sigma_min,
            solver=solver,
        )  # fmt: skip

    def noise(self, num_points: int, generator: torch.Generator, sigma_max: float) -> Tensor:
        """Return points at a noise level where the data are lost, in standard units, shape `(num_points, D)`, float64.

        They are of the Gaussian that has the mean and the covariance of the noisy data.
        """
        return self.flow.noise(num_points, generator, sigma_max)

    def plan(self, nfe: int, *, sigma_max: float | None = None, guided: bool = False) -> Plan:
        """Return solver and noise levels that `sample(n, nfe=nfe)` draws by.

        They are those that `optimise_sigmas` has found for this model, else those of `candidate_plans` that err least
        on a few points of noise; the first call solves the flow of these, which takes a second. A model with conditions
        takes the usual ones untried.

        Args:
            nfe: Number of evaluations.
            sigma_max: Noise level of the start; by default the model's own, and from any other the plan is the usual
                one untried.
            guided: Whether guidance calls the network twice a step: there are then half as many steps, of the usual
                plan.

        Raises:
            ValueError: If `nfe` is below 1, or below 2 under guidance, or `sigma_max` below two standard deviations of
                the data.
        """
        low, high, sigma_data = self.inference.sigma_min, self.inference.sigma_max, self.denoiser.sigma_data
        if guided and nfe < 2:
            raise ValueError(f"nfe must be at least 2, got {nfe}: guidance calls the network twice a step")
        if guided or (sigma_max is not None and sigma_max != high):
            return default_plan(nfe // 2 if guided else nfe, high if sigma_max is None else sigma_max, sigma_data, low)
        plans = candidate_plans(nfe, high, sigma_data, low)
        if nfe in self.grids and self.grids[nfe][0] == high:
            name = self.grid_solvers.get(nfe, plans[0].name)
            return Plan(name, candidate(name, sigma_data, low), torch.tensor(self.grids[nfe], dtype=torch.float64))
        if len(plans) == 1 or self.conditions is not None:  # it may know nothing of the whole
            return plans[0]
        if (low, high) not in self._trials:
            denoiser = copy.deepcopy(self.denoiser).double().cpu().eval()
            x = self.noise(TRIAL_POINTS, generator_for(0, GRIDS, 1), high)
            self._trials[low, high] = case_of(denoiser, x, high, low, sigma_data, tolerance=1e-5), {}
        case, chosen = self._trials[low, high]
        if nfe not in chosen:
            chosen[nfe] = choose_plan(case, plans)
        return chosen[nfe]

    def optimise_sigmas(self, nfe: int, *, num_points: int = 96, seed: int = 0) -> Tensor:
        """Find the noise levels that are best for this model and budget, and keep them: `sample(n, nfe=nfe)` uses them.

        See `pointdiffusion.optimise_plan`, which chooses the solver too; the work is done in float64. Both are saved
        with the model.

        Args:
            nfe: Number of evaluations.
            num_points: Points of noise to learn from.
            seed: Seed of these points.

        Returns:
            Decreasing noise levels from `inference.sigma_max` to 0, in standard deviations of the data, shape
            `(nfe + 1,)`.

        Raises:
            ValueError: If `nfe` is below 2.
        """
        start, sigma_data = self.inference.sigma_max, self.denoiser.sigma_data
        denoiser = copy.deepcopy(self.denoiser).double().cpu().eval()
        x = self.noise(num_points, generator_for(seed, GRIDS), start)
        found = optimise_plan(
            denoiser, nfe, x=x, sigma_max=start, sigma_data=sigma_data, sigma_min=self.inference.sigma_min
        )
        self.grids[nfe], self.grid_solvers[nfe] = found.sigmas.tolist(), found.name
        return found.sigmas

    def _points(self, parts: list[Tensor], num_samples: int) -> Array:
        """Return chunks as one table in the user's own units."""
        x = torch.cat(parts)[:num_samples]
        if not bool(x.isfinite().all()):
            raise ValueError("the model draws numbers that are not finite; train it again at a lower learning rate")
        return self.standardiser.inverse(x)

    def trajectory(
        self, num_samples: int, *, seed: int = 0, nfe: int | None = None, solver: str | Solver | None = None,
        num_steps: int | None = None, schedule: str | None = None, sigma_min: float | None = None,
        sigma_max: float | None = None, rho: float | None = None, final_zero: bool | None = None, labels: Any = None,
        context: Any = None, guidance: float = 1.0, guidance_interval: tuple[float, float] = EVERYWHERE,
        guide: DiffusionModel | None = None,
    ) -> Iterator[sampling.Step[Array]]:  # fmt: skip
        """Yield the points at every noise level, from pure noise to samples, in the user's own units.

        Rows do not depend on how many are asked for: the work goes in chunks of fixed size, each with a stream of its
        own. They start from the Gaussian that has the mean and the covariance of the noisy data, under guidance from
        that of the guided flow (`pointdiffusion.guided_gaussian`).

        Args:
            num_samples: Number of points.
            seed: Seed of the noise.
            nfe: Number of evaluations, for the solver and the grid that are the best known for it.
            solver: A solver, or a name of `SOLVERS`; by default the model's own, with `nfe` `"auto"`.
            num_steps: Intervals of the grid of noise levels, without `nfe`; by default, as all that follow up to
                `final_zero`, the model's own.
            schedule: How the grid is placed, a name of `SCHEDULES`.
            sigma_min: Lowest noise level above 0, in standard deviations of the data.
            sigma_max: Noise level at which sampling starts, in standard deviations of the data.
            rho: Curvature of Karras' grid.
            final_zero: Whether the last step removes the noise that is left at `sigma_min`.
            labels: A class for all points, or one for each, shape `(num_samples,)`.
            context: A row of values for all points, or one for each, shape `(num_samples, C)`.
            guidance: Strength w of classifier-free guidance; 1 is none, 0 draws as without conditions.
            guidance_interval: Lowest and highest noise level at which it holds.
            guide: A worse model to guide away from, in place of the same one without conditions (autoguidance).

        Yields:
            Steps; `x` and `denoised` are arrays `(num_samples, D)` in the units of the data, `sigma` is in standard
            deviations of the data.

        Raises:
            ValueError: If `num_samples` is below 1, or a setting is unknown, out of range or contradicts another.
        """
        _check_count("num_samples", num_samples)
        options = SamplingOptions(
            nfe=nfe, solver=solver, num_steps=num_steps, schedule=schedule, sigma_min=sigma_min, sigma_max=sigma_max,
            rho=rho, final_zero=final_zero,
        )  # fmt: skip
        known, how = self._conditioned(num_samples, labels, context, guidance, guidance_interval, guide)
        for steps in zip(*self._chunks(num_samples, seed, options, known, how), strict=True):
            x = self._points([step.x for step in steps], num_samples)
            parts = [step.denoised for step in steps if step.denoised is not None]
            denoised = self._points(parts, num_samples) if parts else None
            yield sampling.Step(x, steps[0].sigma, denoised, steps[0].nfe)

    def sample(
        self, num_samples: int, *, seed: int = 0, nfe: int | None = None, solver: str | Solver | None = None,
        num_steps: int | None = None, schedule: str | None = None, sigma_min: float | None = None,
        sigma_max: float | None = None, rho: float | None = None, final_zero: bool | None = None, labels: Any = None,
        context: Any = None, guidance: float = 1.0, guidance_interval: tuple[float, float] = EVERYWHERE,
        guide: DiffusionModel | None = None,
    ) -> Array:  # fmt: skip
        """Return points that the model draws, shape `(num_samples, D)`, in the user's own units.

        The arguments are those of `trajectory`, of which these are the last points.

        Raises:
            ValueError: As `trajectory`.
        """
        _check_count("num_samples", num_samples)
        options = SamplingOptions(
            nfe=nfe, solver=solver, num_steps=num_steps, schedule=schedule, sigma_min=sigma_min, sigma_max=sigma_max,
            rho=rho, final_zero=final_zero,
        )  # fmt: skip
        known, how = self._conditioned(num_samples, labels, context, guidance, guidance_interval, guide)
        # One table from the start: small tensors kept among large freed ones hold a gigabyte of gaps by a million rows
        for index, steps in enumerate(self._chunks(num_samples, seed, options, known, how)):
            *_, last = steps
            if index == 0:
                x = last.x.new_empty(-(-num_samples // CHUNK) * CHUNK, self.n_dims)
            x[index * CHUNK : (index + 1) * CHUNK] = last.x
        return self._points([x], num_samples)

    def log_prob(
        self, data: Any, *, sigma_min: float | None = None, labels: Any = None, context: Any = None,
        guidance: float = 1.0, guidance_interval: tuple[float, float] = EVERYWHERE,
        guide: DiffusionModel | None = None, seed: int = 0, solver: str | Solver | None = None,
        num_steps: int | None = None, tolerance: float | None = None, probes: int = 0, probe: str = "rademacher",
    ) -> Array:  # fmt: skip
        """Return the log-density of a table's rows, in nats and for the user's own units, shape `(N,)`.

        It is the density of the data blurred by `sigma_min`: a choice like the bandwidth of a kernel density, see
        `choose_sigma_min`.

        Args:
            data: Rows in the user's own units, shape `(N, D)`.
            sigma_min: The blur, in standard deviations of the data; by default the lowest level of training.
            labels: A class for all rows, or one for each: the density is then that of the class.
            context: A row of values for all rows, or one for each.
            guidance: Strength of guidance: the density is then that of the guided flow, see `trajectory`.
            guidance_interval: Noise levels at which it holds.
            guide: A worse model to guide away from.
            seed: Seed of the probes, where `probes` asks for any.
            solver: A deterministic solver for a grid of `num_steps` steps, or its name; by default a multistep method.
            num_steps: Steps of that grid.
            tolerance: In place of a grid: tolerance of a step of an adaptive method.
            probes: Random directions of Hutchinson's estimate of the divergence; 0 for the exact one.
            probe: Their distribution, `"rademacher"` or `"gaussian"`.

        Raises:
            ValueError: If the table does not fit or holds NaN, or a setting is out of range.
        """
        x, flow = torch.from_numpy(self.standardiser.transform(data)), self.flow
        known, how = self._conditioned(len(x), labels, context, guidance, guidance_interval, guide)
        options = DensityOptions(solver=solver, num_steps=num_steps, tolerance=tolerance, probes=probes, probe=probe)
        found = flow.log_prob(x, known, seed=seed, sigma_min=sigma_min, options=options, guidance=how)
        return found.numpy() - self.standardiser.log_scale

    def variational_bound(
        self, data: Any, *, sigma_min: float | None = None, seed: int = 0, num_draws: int = 64, num_ranges: int = 12
    ) -> Bound:  # fmt: skip
        """Return the variational bound on the log-density of a table's rows, in nats and for the user's own units.

        Args:
            data: Rows in the user's own units, shape `(N, D)`.
            sigma_min: The blur, in standard deviations of the data; by default the lowest level of training.
            seed: Seed of the draws.
            num_draws: Draws a row; even.
            num_ranges: Ranges of noise levels, even in their logarithm, whose shares of the bound are returned.

        Raises:
            ValueError: If the table does not fit or holds NaN, or a setting is out of range.
        """
        flow = self.flow
        x = torch.from_numpy(self.standardiser.transform(data)).to(flow.like)
        found = variational_bound(
            self.denoiser, x, generator=generator_for(seed, BOUND), num_draws=num_draws, num_ranges=num_ranges,
            **flow.ends(sigma_min=sigma_min),
        )  # fmt: skip
        jacobian = self.standardiser.log_scale
        return found._replace(log_prob=found.log_prob - jacobian, mean=found.mean - jacobian)

    def choose_sigma_min(self, validation: Any, candidates: Sequence[float] | None = None) -> Bandwidth:
        """Choose the blur at which rows that were not trained on are most likely.

        Args:
            validation: Such rows in the user's own units, shape `(N, D)`.
            candidates: Noise levels in standard deviations of the data; by default eight from the lowest level of
                training to 0.5, even in their logarithm.

        Raises:
            ValueError: If the table does not fit or holds NaN, or a level is out of range.
        """
        flow = self.flow
        x = torch.from_numpy(self.standardiser.transform(validation)).to(flow.like)
        ends = flow.ends()
        low = ends["sigma_min"]
        levels = np.geomspace(low, max(0.5, 2 * low), 8).tolist() if candidates is None else candidates
        found = likelihood.choose_sigma_min(
            self.denoiser, x, levels, sigma_max=ends["sigma_max"], mean=ends["mean"], covariance=ends["covariance"],
            sigma_data=ends["sigma_data"],
        )  # fmt: skip
        return found._replace(means=found.means - self.standardiser.log_scale)

    def latent(
        self, data: Any, *, labels: Any = None, context: Any = None, guidance: float = 1.0,
        guidance_interval: tuple[float, float] = EVERYWHERE, guide: DiffusionModel | None = None,
        tolerance: float = 1e-8,
    ) -> Array:  # fmt: skip
        """Return where the flow takes a table's rows, as standard normal numbers, shape `(N, D)`.

        Solved in float64 from `sigma_min` to `sigma_max`, and scaled by mean and covariance of noisy points there.

        Args:
            data: Rows in the user's own units, shape `(N, D)`.
            labels: A class for all rows, or one for each.
            context: A row of values for all rows, or one for each.
            guidance: Strength of guidance: the flow is then the guided one, see `trajectory`.
            guidance_interval: Noise levels at which it holds.
            guide: A worse model to guide away from.
            tolerance: Of a step of the adaptive method.

        Raises:
            ValueError: If the table does not fit or holds NaN.
        """
        x = torch.from_numpy(self.standardiser.transform(data))
        flow = self.flow
        known, how = self._conditioned(len(x), labels, context, guidance, guidance_interval, guide)
        return flow.latent(x, known, tolerance, how).numpy()

    def from_latent(
        self, latent: Any, *, labels: Any = None, context: Any = None, guidance: float = 1.0,
        guidance_interval: tuple[float, float] = EVERYWHERE, guide: DiffusionModel | None = None,
        tolerance: float = 1e-8,
    ) -> Array:  # fmt: skip
        """Return the rows that `latent` takes to these numbers, shape `(N, D)`, in the user's own units.

        The arguments are those of `latent`.

        Raises:
            ValueError: If the numbers are not finite or of another shape than `(N, D)`.
        """
        z = torch.as_tensor(np.asarray(latent, dtype=np.float64))
        if z.ndim != 2 or z.shape[1] != self.n_dims or not bool(z.isfinite().all()):
            raise ValueError(f"latent points must be finite and of shape (N, {self.n_dims}), got {tuple(z.shape)}")
        flow = self.flow
        known, how = self._conditioned(len(z), labels, context, guidance, guidance_interval, guide)
        return self.standardiser.inverse(flow.from_latent(z, known, tolerance, how))

    def impute(
        self, data: Any, *, num_draws: int = 1, seed: int = 0, num_particles: int = 64, nfe: int | None = None,
        solver: str | Solver | None = None, num_steps: int | None = None, schedule: str | None = None,
        sigma_min: float | None = None, sigma_max: float | None = None, rho: float | None = None,
        final_zero: bool | None = None, labels: Any = None, context: Any = None, guidance: float = 1.0,
        guidance_interval: tuple[float, float] = EVERYWHERE, guide: DiffusionModel | None = None,
    ) -> Imputed:  # fmt: skip
        """Return rows with what is missing in them filled in, `num_draws` times.

        A model trained with masks is asked directly. Any other is made to fit what is there by twisted diffusion (Wu et
        al. 2023), which is exact only for many particles and steps. What is there comes back as it was.

        Args:
            data: Rows in the user's own units, NaN where a value is missing, shape `(N, D)`.
            num_draws: Draws of each row.
            seed: Seed of the draws.
            num_particles: Particles of each row in twisted diffusion.
            nfe: As all settings that follow up to `final_zero`, see `trajectory`. Twisted diffusion takes steps of its
                own kind, and of these settings `num_steps`, `schedule`, `sigma_min`, `sigma_max` and `rho` alone.
            solver: See `trajectory`.
            num_steps: See `trajectory`.
            schedule: See `trajectory`.
            sigma_min: See `trajectory`.
            sigma_max: See `trajectory`.
            rho: See `trajectory`.
            final_zero: See `trajectory`.
            labels: A class for all rows, or one for each; this and what follows is for a model trained with masks.
            context: A row of values for all rows, or one for each.
            guidance: Strength of guidance, see `trajectory`.
            guidance_interval: Noise levels at which it holds.
            guide: A worse model to guide away from.

        Raises:
            ValueError: If the table does not fit, a setting is out of range, or conditions or guidance are given to a
                model without masks.
        """
        _check_count("num_draws", num_draws)
        options = SamplingOptions(
            nfe=nfe, solver=solver, num_steps=num_steps, schedule=schedule, sigma_min=sigma_min, sigma_max=sigma_max,
            rho=rho, final_zero=final_zero,
        )  # fmt: skip
        given = as_points(data, missing=True)
        x = torch.from_numpy(self.standardiser.transform(given, missing=True))
        if self.conditions is not None and self.conditions.masked:
            told = self.flow.known(len(x), labels, context)
            values = told["context"][:, : self.conditions.num_context] if "context" in told else None
            told["context"] = self.conditions.padded(values, x)
            known, how = self._guidance(told, guidance, guidance_interval, guide)
            draws = []
            for draw in range(num_draws):
                trajectories = self._chunks(len(x), seed, options, known, how, stream=(IMPUTATION, draw))
                draws.append(self._points([last.x for *_, last in trajectories], len(x)))
            by = ["given" if np.isfinite(row).all() else "a network trained with masks" for row in given]
            filled = np.stack(draws)
        else:
            if labels is not None or context is not None or guidance != 1 or guide is not None:
                raise ValueError("to fill gaps under conditions, train with masks: TrainingConfig(mask=0.5)")
            filled, by = self._twisted(x, num_draws, seed, num_particles, options)
        return Imputed(np.where(np.isfinite(given), given, filled), by)

    def _twisted(
        self, x: Tensor, num_draws: int, seed: int, num_particles: int, options: SamplingOptions
    ) -> tuple[Array, list[str]]:
        """Return gaps filled by twisted diffusion, in the user's own units, and how each row was made."""
        flow, config = self.flow, options.config(self.inference)
        found = twisted.impute(
            self.denoiser, x, sigmas=make_schedule(config).sigmas(config.num_steps), covariance=flow.covariance,
            generator=generator_for(seed, IMPUTATION), num_draws=num_draws, num_particles=num_particles,
            dtype=flow.like.dtype, device=flow.like.device,
        )  # fmt: skip
        rows = self.standardiser.inverse(found.draws.flatten(0, 1))
        return rows.reshape(num_draws, *x.shape), found.by

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, whole or not at all.

        Raises:
            ValueError: If the metadata hold more than plain values.
            OSError: If the disk is full or the folder cannot be written.
        """
        backbone = self.denoiser.backbone
        payload = {
            "version": self.version,
            "architecture": specification_of(backbone),
            "backbone": class_name(backbone),
            "sigma_data": self.denoiser.sigma_data,
            "weights": {name: value.cpu().contiguous() for name, value in backbone.state_dict().items()},
            "raw_weights": {name: value.cpu().contiguous() for name, value in self.raw_weights.items()},
            "mean": torch.from_numpy(self.standardiser.mean),
            "scale": torch.from_numpy(self.standardiser.scale),
            "covariance": self.covariance,
            "columns": self.columns,
            "inference": self.inference.to_mapping(),
            "training": None if self.training is None else self.training.to_mapping(),
            "metadata": self.metadata,
            "grids": self.grids,
            "grid_solvers": self.grid_solvers,
            "conditions": None if self.conditions is None else self.conditions.to_plain(),
            "bases": [base.to_plain() for base in self.denoiser.bases],
            "companion": None if self.companion is None else self.companion.mixture.to_plain(),
            "companion_share": 0.0 if self.companion is None else self.companion.share,
        }
        write_payload(path, payload)


def load(path: str | os.PathLike[str], *, backbone: Backbone | None = None) -> DiffusionModel:
    """Read a model from a file without executing anything in it.

    Args:
        path: File that `DiffusionModel.save` wrote.
        backbone: The network, or a function of the metadata that makes it; needed where the file's network is not made
            of the parts in `NETWORKS`, ignored where it is.

    Raises:
        ValueError: If the file is missing, damaged, foreign or hostile, or needs a `backbone`.
    """
    name, payload = str(Path(path)), read_payload(path)
    network = network_of(payload, backbone, name)
    with about(name, payload["version"]):
        training = None if payload["training"] is None else TrainingConfig.from_mapping(payload["training"])
        bases = [GaussianMixture(**plain) for plain in payload["bases"]]
        companion = None if payload["companion"] is None else GaussianMixture(**payload["companion"])
        model = DiffusionModel(
            denoiser=KarrasDenoiser(network, payload["sigma_data"], bases),
            standardiser=Standardiser(payload["mean"].double().numpy(), payload["scale"].double().numpy()),
            covariance=payload["covariance"],
            columns=payload["columns"],
            inference=InferenceConfig.from_mapping(payload["inference"]),
            training=training,
            raw_weights=payload["raw_weights"],
            metadata=payload["metadata"],
            grids=payload["grids"],
            grid_solvers=payload["grid_solvers"],
            conditions=None if payload["conditions"] is None else Conditions.from_plain(payload["conditions"]),
            companion=None if companion is None else Companion(companion, payload["companion_share"]),
            version=payload["version"],
        )
        for mixture in (*bases, companion):
            if mixture is not None and mixture.n_dims != model.n_dims:
                raise ValueError(f"its mixture is not one of {model.n_dims} columns")
        classes = range(len(model.conditions.classes)) if model.conditions is not None else range(0)
        if companion is not None and classes and set(companion.labels.tolist()) != set(classes):
            raise ValueError("its companion does not know its classes")
        model.denoiser.eval().requires_grad_(False)
        probe = torch.zeros(2, model.n_dims).to(next(network.parameters()))
        known = {} if model.conditions is None else model.conditions.probe(len(probe))
        if model.denoiser(probe, torch.ones(()).to(probe), **known).shape != probe.shape:
            raise ValueError(f"its network is not one of {model.n_dims} columns")
        if model.conditions is not None and model.conditions.n_dims != model.n_dims:
            raise ValueError(f"its conditions are not those of {model.n_dims} columns")
    return model
