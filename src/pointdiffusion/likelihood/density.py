r"""Densities by the probability-flow equation.

Along the flow :math:`dx / d\sigma = (x - D(x; \sigma)) / \sigma` the density changes by the divergence of the slope
(Chen et al. 2018, arXiv 1806.07366; Song et al. 2021, arXiv 2011.13456, section 4.3):

.. math:: \log p(x; \sigma_{min}) = \log p(x(\sigma_{max}); \sigma_{max})
    + \int_{\sigma_{min}}^{\sigma_{max}} \bigl(d - \operatorname{tr} \partial_x D\bigr) \, d \log \sigma .

What comes out is the density of the data blurred by `sigma_min`, which is a choice like the bandwidth of a kernel
density (`choose_sigma_min`). The far end is the Gaussian with the mean and the covariance of the data, blurred: what it
leaves out falls like the third cumulants over :math:`\sigma_{max}^3`.

On a fixed grid the points are carried by any solver, and the integral is taken by a cubic spline through the
divergences at the nodes: one evaluation and its derivative a node, no derivative at the stages in between. An adaptive
solver carries the integral as one more coordinate, with step sizes and error of each row's own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointdiffusion.config import QualityWarning, unknown_name
from pointdiffusion.contract import DenoiserFunction, call_denoiser
from pointdiffusion.sampling.loop import exact_flow, make_solver
from pointdiffusion.solvers import AdaptiveRungeKutta, Multistep, Solver

MOST_ERROR = 0.01
"""Nats that a log-density may be off by before `log_prob` warns."""

PROBES = ("rademacher", "gaussian")
"""Random directions of Hutchinson's estimate."""

End = Callable[[float], tuple[Tensor, Tensor]]
"""Mean and covariance of noisy points by the noise level."""


@dataclass(frozen=True, kw_only=True)
class DensityOptions:
    """How a log-density is integrated; what each setting means says `log_prob`."""

    solver: str | Solver | None = None
    num_steps: int | None = None
    tolerance: float | None = None
    probes: int = 0
    probe: str = "rademacher"


class FlowEnds(TypedDict):
    """The ends of a flow, as `log_prob` takes them: noise levels, and mean and covariance of the data."""

    sigma_min: float
    sigma_max: float
    mean: Any
    covariance: Any
    sigma_data: float


class LogProb(NamedTuple):
    """A log-density and what it may be off by, all in nats and of shape `(B,)`.

    Args:
        log_prob: Log-density of the data blurred by `sigma_min`.
        x: Points at `sigma_max`, shape `(B, D)`.
        solver_error: Difference to the same with a coarser grid, or tolerance.
        probe_error: Standard error of Hutchinson's estimate; 0 for the exact divergence.
        end_error: Difference to the same with a Gaussian at half of `sigma_max`; about eight times what is left.
    """

    log_prob: Tensor
    x: Tensor
    solver_error: Tensor
    probe_error: Tensor
    end_error: Tensor


def log_prob(
    denoiser: DenoiserFunction, x: Tensor, *, sigma_min: float, sigma_max: float, mean: Any = 0.0,
    covariance: Any = 1.0, sigma_data: float = 1.0, solver: str | Solver | None = None, num_steps: int | None = None,
    tolerance: float | None = None, probes: int = 0, probe: str = "rademacher",
    generator: torch.Generator | None = None, end: End | None = None,
) -> Tensor:  # fmt: skip
    """Return the log-density of the data blurred by `sigma_min`, in nats, shape `(B,)`.

    Args:
        denoiser: Any callable that keeps the contract of `denoisers`, differentiable in `x`, each row by itself.
        x: Points, shape `(B, D)`.
        sigma_min: Noise level whose density is asked for, above 0.
        sigma_max: Noise level at which the density is taken for that of a Gaussian.
        mean: Mean of the data, a number or of shape `(D,)`; of each row's own kind of data, shape `(B, D)`.
        covariance: Covariance of the data, a variance or of shape `(D, D)`, or `(B, D, D)`.
        sigma_data: Standard deviation of the data, a scale for solvers.
        solver: A deterministic solver for a grid of `num_steps` steps in log sigma, or its name; by default a
            multistep method of order 4 with a corrector.
        num_steps: Steps of that grid, which are twice as dense around 0.2 standard deviations of the data. By default
            40, and more for a range of noise levels wider than a factor of 1000 (`steps_for`); a warning then tells
            where the integral over every second node differs by more than 0.01 nats.
        tolerance: In place of a grid: relative and absolute tolerance of a step of an adaptive method of order 8.
        probes: Random directions of Hutchinson's estimate of the divergence (Hutchinson 1989); 0 for the exact one,
            which costs D backward passes and is right up to a few dozen dimensions.
        probe: One of `PROBES`.
        generator: Where the probes come from.
        end: In place of mean and covariance of the data: a function of the noise level that returns those of noisy
            points, for flows that are of no data, as guided ones (`guided_gaussian`).

    Raises:
        ValueError: If a level, a shape, a name or a point is out of range, or the tolerance cannot be met.
    """
    walk = _Flow(denoiser, x, sigma_min, sigma_max, mean, covariance, sigma_data, probes, probe, generator, end)
    if tolerance is not None:
        return walk.adaptive(tolerance)[0]
    steps = steps_for(sigma_min, sigma_max) if num_steps is None else num_steps
    found = walk.on_grid(solver, steps)
    if num_steps is None:
        _warn_of(found.thinned, steps)
    return found.value


def log_prob_with_errors(
    denoiser: DenoiserFunction, x: Tensor, *, sigma_min: float, sigma_max: float, mean: Any = 0.0,
    covariance: Any = 1.0, sigma_data: float = 1.0, solver: str | Solver | None = None, num_steps: int | None = None,
    tolerance: float | None = None, probes: int = 0, probe: str = "rademacher",
    generator: torch.Generator | None = None, end: End | None = None,
) -> LogProb:  # fmt: skip
    """Return the log-density with its error budget; arguments as `log_prob`, at about one and a half of its cost.

    Raises:
        ValueError: As `log_prob`; and if `num_steps` is below 8.
    """
    walk = _Flow(denoiser, x, sigma_min, sigma_max, mean, covariance, sigma_data, probes, probe, generator, end)
    if tolerance is not None:
        found, coarse = walk.adaptive(tolerance), walk.adaptive(30 * tolerance)[0]
    else:
        steps = steps_for(sigma_min, sigma_max) if num_steps is None else num_steps
        found, coarse = walk.on_grid(solver, steps), walk.on_grid(solver, steps // 2)[0]
    value = found.value
    return LogProb(value, found.x, (value - coarse).abs(), found.spread, (value - found.early).abs())


def steps_for(sigma_min: float, sigma_max: float) -> int:
    """Return the number of steps that `log_prob` takes by default: 40 up to a range of 1000, wider in proportion."""
    return max(40, math.ceil(40 * math.log(sigma_max / sigma_min) / math.log(1000)))


def _warn_of(difference: Tensor, num_steps: int) -> None:
    """Warn where the integral is not settled: its error is of the size of this difference, or a few times that."""
    wrong = int((difference > MOST_ERROR).sum())
    if wrong:
        warnings.warn(
            f"{num_steps} steps are few for {wrong} of {len(difference)} log-densities, which may be off by more than "
            f"{MOST_ERROR} nats (estimated error up to {float(difference.max()):.2g}); give num_steps={4 * num_steps}, "
            "tolerance=1e-5, or a higher sigma_min, and see log_prob_with_errors",
            QualityWarning,
            stacklevel=3,
        )


class Bandwidth(NamedTuple):
    """How well each blur explains rows that were not trained on.

    Args:
        sigma_min: The best of the candidates.
        candidates: Noise levels, shape `(K,)`.
        means: Mean log-density of the rows at each, nats, shape `(K,)`.
        standard_errors: Of these means, shape `(K,)`.
    """

    sigma_min: float
    candidates: Tensor
    means: Tensor
    standard_errors: Tensor


def choose_sigma_min(
    denoiser: DenoiserFunction, x: Tensor, candidates: Sequence[float], *, sigma_max: float, mean: Any = 0.0,
    covariance: Any = 1.0, sigma_data: float = 1.0, solver: str | Solver | None = None, num_steps: int | None = None,
    tolerance: float | None = None, probes: int = 0, probe: str = "rademacher",
    generator: torch.Generator | None = None, end: End | None = None,
) -> Bandwidth:  # fmt: skip
    """Choose the blur at which validation rows are most likely, as the bandwidth of a kernel density is chosen.

    Args:
        denoiser: As in `log_prob`.
        x: Rows that were not trained on, shape `(B, D)`.
        candidates: Noise levels to choose from.
        sigma_max: As in `log_prob`.
        mean: As in `log_prob`.
        covariance: As in `log_prob`.
        sigma_data: As in `log_prob`.
        solver: As in `log_prob`.
        num_steps: As in `log_prob`.
        tolerance: As in `log_prob`.
        probes: As in `log_prob`.
        probe: As in `log_prob`.
        generator: As in `log_prob`.
        end: As in `log_prob`.

    Raises:
        ValueError: As `log_prob`; and if there is no candidate.
    """
    if len(candidates) == 0:
        raise ValueError("candidates must hold at least one noise level")
    values = torch.stack([
        log_prob(
            denoiser, x, sigma_min=level, sigma_max=sigma_max, mean=mean, covariance=covariance, sigma_data=sigma_data,
            solver=solver, num_steps=num_steps, tolerance=tolerance, probes=probes, probe=probe, generator=generator,
            end=end,
        )
        for level in candidates
    ])  # fmt: skip
    means = values.mean(dim=1)
    best = float(candidates[int(means.argmax())])
    return Bandwidth(best, torch.tensor(candidates), means, values.std(dim=1) / math.sqrt(len(x)))


class _Solved(NamedTuple):
    """Log-densities of rows, each of shape `(B,)`, and what they are made of.

    Args:
        value: Log-density.
        x: Points at `sigma_max`, shape `(B, D)`.
        spread: Standard error over probes.
        early: Log-density with a Gaussian at half of `sigma_max`.
        thinned: Difference to the integral over every second node; 0 for adaptive steps.
    """

    value: Tensor
    x: Tensor
    spread: Tensor
    early: Tensor
    thinned: Tensor


class _Flow:
    """The flow up from `sigma_min`, with the divergence along it."""

    def __init__(
        self, denoiser: DenoiserFunction, x: Tensor, sigma_min: float, sigma_max: float, mean: Any = 0.0,
        covariance: Any = 1.0, sigma_data: float = 1.0, probes: int = 0, probe: str = "rademacher",
        generator: torch.Generator | None = None, end: End | None = None,
    ) -> None:  # fmt: skip
        if x.ndim != 2 or len(x) == 0:
            raise ValueError(f"points must have shape (B, D), got {tuple(x.shape)}")
        if not bool(x.isfinite().all()):
            raise ValueError("points must be finite numbers, but some are NaN or infinite; drop those rows")
        if not 0 < sigma_min < sigma_max < math.inf:
            raise ValueError(
                f"sigma_min must lie above 0 and below sigma_max, got {sigma_min} and {sigma_max}: at 0 data on a "
                "curve, and finite sets, have no density"
            )
        self.denoiser, self.x, self.sigma_data = denoiser, x, sigma_data
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        n_dims = x.shape[1]
        self.mean = torch.as_tensor(mean, dtype=torch.float64).to(x.device).expand(x.shape)
        covariance = torch.as_tensor(covariance, dtype=torch.float64).to(x.device)
        self.eye = torch.eye(n_dims, dtype=torch.float64, device=x.device)
        self.covariance = covariance if covariance.ndim else covariance * self.eye
        if self.covariance.shape not in ((n_dims, n_dims), (*x.shape, n_dims)):
            raise ValueError(f"the covariance must have shape {(n_dims, n_dims)}, got {tuple(self.covariance.shape)}")
        self.end = end or (lambda sigma: (self.mean, self.covariance + sigma**2 * self.eye))
        self.directions = draw_probes(x, probes, probe, generator)

    def gaussian(self, x: Tensor, sigma: float) -> Tensor:
        """Return the log-density of the far end, in float64."""
        mean, covariance = (part.to(self.eye) for part in self.end(sigma))
        factor = torch.linalg.cholesky(covariance)
        return torch.distributions.MultivariateNormal(mean, scale_tril=factor).log_prob(x.double())

    def _spread(self, parts: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard error over probes, shape `(probes, B)` to `(B,)`; one row is exact."""
        if self.directions is None:
            return parts[0], torch.zeros_like(parts[0])
        error = parts.std(dim=0) / math.sqrt(len(parts)) if len(parts) > 1 else torch.full_like(parts[0], math.nan)
        return parts.mean(dim=0), error

    def on_grid(self, solver: str | Solver | None, num_steps: int) -> _Solved:
        """Return log-densities by steps in log sigma."""
        from scipy.interpolate import CubicSpline

        stepper = default_solver(self.sigma_data) if solver is None else make_solver(solver)
        if stepper.noises or isinstance(stepper, AdaptiveRungeKutta):
            raise ValueError("a density needs a deterministic solver on a grid; for an adaptive one give tolerance")
        if num_steps < 4:
            raise ValueError(f"num_steps must be at least 4, got {num_steps}")
        logs = _levels(math.log(self.sigma_min), math.log(self.sigma_max), self.sigma_data, num_steps)
        spline = CubicSpline(logs, np.eye(len(logs)))
        half = max(3, int(np.searchsorted(logs, math.log(self.sigma_max / 2))))
        weights, to_half = spline.integrate(logs[0], logs[-1]), spline.integrate(logs[0], logs[half])
        every = np.unique([*range(0, len(logs), 2), len(logs) - 1])
        apart = weights.copy()
        apart[every] -= CubicSpline(logs[every], np.eye(len(every))).integrate(logs[0], logs[-1])
        grid = torch.from_numpy(np.exp(logs))
        grid[0], grid[-1] = self.sigma_min, self.sigma_max  # to the last digit
        x, state = self.x, stepper.initial_state(grid.flip(0).tolist())
        total, early, thinned, gaussian = (torch.zeros(()) for _ in range(4))
        for k in range(num_steps + 1):
            first = _First(self.denoiser, self.directions)
            here = x
            if k < num_steps:
                x, state = stepper.step(first, x, grid[k], grid[k + 1], state)
            else:
                first(x, grid[k])
            if k == half:
                gaussian = self.gaussian(here, float(grid[half]))
            change = self.x.shape[1] - first.traces[0].double()
            total, early = total + float(weights[k]) * change, early + float(to_half[k]) * change
            thinned = thinned + float(apart[k]) * change
        value, error = self._spread(total)
        return _Solved(
            self.gaussian(x, self.sigma_max) + value, x, error, gaussian + self._spread(early)[0],
            self._spread(thinned)[0].abs(),
        )  # fmt: skip

    def adaptive(self, tolerance: float) -> _Solved:
        """Return the same by the adaptive method, the integral as coordinates of its own."""
        n_dims = self.x.shape[1]
        count = 1 if self.directions is None else len(self.directions)

        def together(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
            """Return a denoiser of points and integrals: the integral's slope is what makes it one."""
            denoised, trace = denoised_and_trace(self.denoiser, x[:, :n_dims], sigma, self.directions)
            return torch.cat([denoised, x[:, n_dims:] - (n_dims - trace.T)], dim=1)

        z = torch.cat([self.x, self.x.new_zeros(len(self.x), count)], dim=1)
        middle = max(self.sigma_max / 2, self.sigma_min)
        z = exact_flow(together, z, self.sigma_min, middle, tolerance=tolerance, sigma_data=self.sigma_data).x
        early = self.gaussian(z[:, :n_dims], middle) + self._spread(z[:, n_dims:].T.double())[0]
        z = exact_flow(together, z, middle, self.sigma_max, tolerance=tolerance, sigma_data=self.sigma_data).x
        value, error = self._spread(z[:, n_dims:].T.double())
        x = z[:, :n_dims]
        return _Solved(self.gaussian(x, self.sigma_max) + value, x, error, early, torch.zeros_like(value))


class _First:
    """A denoiser that takes the divergence at its first call alone."""

    def __init__(self, denoiser: DenoiserFunction, directions: Tensor | None) -> None:
        self.denoiser, self.directions = denoiser, directions
        self.traces: list[Tensor] = []

    def __call__(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        level = sigma.to(x)
        if not self.traces:
            denoised, trace = denoised_and_trace(self.denoiser, x, level, self.directions)
            self.traces.append(trace)
            return denoised
        with torch.no_grad():
            return call_denoiser(self.denoiser, x, level, **condition)


def _levels(low: float, high: float, sigma_data: float, num_steps: int) -> NDArray[np.float64]:
    """Return log noise levels, shape `(num_steps + 1,)`, densest where the flow parts points from each other.

    There the divergence bends most: even steps err two to seven times more on networks of the plane.
    """
    from scipy.special import erf

    fine = np.linspace(low, high, 64 * num_steps + 1)
    centre, width = math.log(0.2 * sigma_data), 1.6
    place = fine + width * math.sqrt(math.pi) / 2 * erf((fine - centre) / width)  # a bell's integral
    return np.interp(np.linspace(place[0], place[-1], num_steps + 1), place, fine)


def default_solver(sigma_data: float) -> Solver:
    """Return the solver of `log_prob`."""
    return Multistep(4, quantity="velocity", variable="flow", corrector=True, sigma_data=sigma_data)


def draw_probes(x: Tensor, probes: int, probe: str, generator: torch.Generator | None) -> Tensor | None:
    """Return directions of mean 0 and variance 1, shape `(probes, *x.shape)`, or None for none.

    Raises:
        ValueError: If the number is negative, the name is unknown, or there is no generator.
    """
    if probes < 0:
        raise ValueError(f"probes must be 0, for the exact divergence, or their number, got {probes}")
    if probe not in PROBES:
        raise unknown_name("probe", probe, PROBES)
    if probes == 0:
        return None
    if generator is None:
        raise ValueError("probes are random: hand over a generator, torch.Generator().manual_seed(seed)")
    draw = torch.randn((probes, *x.shape), generator=generator, dtype=torch.float64)
    if probe == "rademacher":
        draw = draw.sign()
    return draw.to(x)


def denoised_and_trace(
    denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, directions: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the denoised points and the trace of their Jacobian, one evaluation and one backward pass a direction.

    Args:
        denoiser: A denoiser that treats each row by itself.
        x: Points, shape `(B, D)`.
        sigma: Noise level, a scalar or shape `(B,)`.
        directions: Probes v of Hutchinson's estimate v'Jv, shape `(probes, B, D)`; None for the exact trace.

    Returns:
        Denoised points, shape `(B, D)`; traces, shape `(probes, B)`, or `(1, B)` where they are exact.
    """
    n_dims = x.shape[1]
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        denoised = call_denoiser(denoiser, x, sigma)
        seeds = directions if directions is not None else torch.eye(n_dims).to(x)[:, None].expand(-1, len(x), -1)
        products = []
        for k, seed in enumerate(seeds):
            (row,) = torch.autograd.grad(denoised, x, seed, retain_graph=k + 1 < len(seeds))
            products.append((row * seed).sum(dim=1))
    traces = torch.stack(products)
    return denoised.detach(), traces if directions is not None else traces.sum(dim=0, keepdim=True)
