r"""Twisted diffusion: weighted particles for :math:`p(x_0 | y)`, and imputation of missing coordinates.

An unconditional model walks down by :math:`p(x' | x) = N(x + a (D - x), v I)`, :math:`a = 1 - \sigma'^2 / \sigma^2`,
:math:`v = a \sigma'^2 + a^2 V` (for V = 0 the ancestral step). Let :math:`\tilde p(y | x)` be a guess at the likelihood
of noisy points, and :math:`\Delta = \sigma^2 \nabla \log \tilde p` (`observation.Twist`). Particles move by

.. math:: x' \sim q = N(x + a (D + \Delta - x), v I), \qquad
    w \leftarrow w \, \frac{p(x' | x)}{q(x')} \, \frac{\tilde p(y | x')}{\tilde p(y | x)}

(Wu et al. 2023, arXiv 2306.17775, algorithm 1), starting from weights :math:`\tilde p(y | x)`, and are drawn anew
where few of a row carry its weight. So the weights undo what is wrong with the guess: with ever more particles the
draws are those of the *walk* given y, with the guess only at the lowest noise level. What stays is the error of the
model, of steps that are not small, and of a finite number of particles: the draws are approximate.

Where we differ from the paper:

- V is the variance of a coordinate of :math:`x_0` given x, the mean of all, which the noise of a step has to make up
  for: without it draws of smooth data are too narrow, in 100 steps by a tenth of their variance. It is estimated from
  one random direction, Hutchinson's way, at the price of a backward pass; `matched=False` leaves it out;
- the guess is that of MMPS, whose covariance is the true one of y given x, or that of Pi-GDM, the paper's;
- the last step, to noise level 0, is the mean of :math:`x_0` given x and y under the guess, and leaves no spread of its
  own. For an exact observation (imputation) it meets y by itself, where the data can.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pointdiffusion.config import unknown_name
from pointdiffusion.contract import DenoiserFunction, check_sigmas
from pointdiffusion.denoisers.observation import Observed, Twist, traced
from pointdiffusion.exact.mixtures import check_observation
from pointdiffusion.runtime.randomness import generator_for
from pointdiffusion.sampling.smc import effective_sample_sizes, systematic_resample

TWISTS = ("mmps", "pigdm")
"""Guesses at the likelihood that have a normalised density."""

NUMBERS = 2**22
"""Most numbers in the largest tensor; rows beyond that are walked in turn."""

PARTICLES = 2**13
"""Most particles at once: a network keeps hundreds of numbers of each for its derivative."""

Ask = Callable[[Tensor, Tensor, Tensor | None], Twist]


class Posterior(NamedTuple):
    """Weighted particles of each row.

    Args:
        x: Particles, shape `(R, P, D)`.
        log_weights: Logarithms of their weights, which sum to 1 in each row, shape `(R, P)`.
        log_evidence: Estimates of log p(y), in nats, shape `(R,)`.
        effective_sizes: Effective number of particles at each noise level above 0, before they are drawn anew, shape
            `(num_steps, R)`.
    """

    x: Tensor
    log_weights: Tensor
    log_evidence: Tensor
    effective_sizes: Tensor

    def draw(self, num_draws: int, generator: torch.Generator) -> Tensor:
        """Return draws of each row in proportion to the weights, in random order, shape `(num_draws, R, D)`.

        They come from one population of particles, so they may be equal, and share what the population misses.

        Raises:
            ValueError: If `num_draws` is below 1.
        """
        if num_draws < 1:
            raise ValueError(f"num_draws must be at least 1, got {num_draws}")
        rows = zip(self.x, self.log_weights, _streams(range(len(self.x)), _seed(generator)), strict=True)
        return torch.stack([_draw(x, weights, num_draws, stream) for x, weights, stream in rows], dim=1)


class Imputation(NamedTuple):
    """Rows with what was missing filled in.

    Args:
        draws: Shape `(num_draws, N, D)`.
        by: How each row was made: `"given"` (nothing was missing), `"unconditional"` (everything was) or
            `"twisted diffusion"`, which is approximate, shape `(N,)`.
        effective_sizes: Effective number of particles behind the draws of each row, the least over the walk, shape
            `(N,)`; infinite where there was nothing to draw.
    """

    draws: Tensor
    by: list[str]
    effective_sizes: Tensor


def twisted_diffusion(
    denoiser: DenoiserFunction, matrix: Any, y: Any, noise: float, *, sigmas: Tensor, generator: torch.Generator,
    num_particles: int = 64, method: str = "mmps", sigma_data: float = 1.0, mean: Any = 0.0, covariance: Any = 1.0,
    threshold: float = 0.5, matched: bool = True, dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
) -> Posterior:  # fmt: skip
    """Return weighted particles for the clean points of each row, given its observation.

    A step costs one evaluation for each particle and as many backward passes as `Observed`. Every row has a stream of
    noise of its own, by its number: up to rounding a row does not depend on how many others there are.

    Args:
        denoiser: The unconditional denoiser; differentiable in its points, each row by itself.
        matrix: A, shape `(M, D)`, or one for each row, `(R, M, D)`.
        y: What was observed, shape `(R, M)`, or `(M,)` for a single row.
        noise: Standard deviation of the observation's noise; 0 is an exact observation.
        sigmas: Strictly decreasing noise levels, the last 0; many, since the step is of first order.
        generator: Where the noise comes from.
        num_particles: Particles P of a row.
        method: Guess at the likelihood of noisy points, one of `TWISTS`.
        sigma_data: Standard deviation of the data, for `"pigdm"`.
        mean: Mean of the data, shape `(D,)` or a number: points start from the Gaussian that the noisy data have.
        covariance: Covariance of the data, shape `(D, D)`, or a variance.
        threshold: Particles are drawn anew where the effective number falls below this share of P; 0 is never.
        matched: Match the variance of a step, see above.
        dtype: Type of the points.
        device: Where the denoiser is.

    Raises:
        ValueError: If a shape, a name or a setting is out of range.
    """
    matrix, y = (torch.as_tensor(value, dtype=torch.float64).detach().cpu() for value in (matrix, y))
    check_observation(matrix, y, matrix.shape[-1] if matrix.ndim else 0, noise)
    _check(sigmas, num_particles, method, threshold)
    y = y.expand(len(matrix), -1) if y.ndim == 1 and matrix.ndim == 3 else torch.atleast_2d(y)
    start = _Start(matrix.shape[-1], float(sigmas[0]), mean, covariance, dtype, device)
    seed, parts = _seed(generator), []
    count = _rows_at_once(num_particles, matrix.shape[-2], matrix.shape[-1])
    for first in range(0, len(y), count):
        rows = slice(first, first + count)
        streams = _streams(range(len(y))[rows], seed)
        own = matrix[rows].repeat_interleave(num_particles, 0) if matrix.ndim == 3 else matrix
        values = y[rows].repeat_interleave(num_particles, 0)
        observed = Observed(denoiser, own, values, noise, method=method, sigma_data=sigma_data)
        parts.append(_walk(observed.twist, start(num_particles, streams), sigmas, streams, threshold, matched))
    return Posterior(*(torch.cat(part, dim=-1 if k == 3 else 0) for k, part in enumerate(zip(*parts, strict=True))))


def impute(
    denoiser: DenoiserFunction, x: Any, *, sigmas: Tensor, generator: torch.Generator, num_draws: int = 1,
    num_particles: int = 64, method: str = "mmps", sigma_data: float = 1.0, mean: Any = 0.0, covariance: Any = 1.0,
    threshold: float = 0.5, matched: bool = True, dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
) -> Imputation:  # fmt: skip
    """Return draws of what is missing in each row given what is there, by twisted diffusion with exact observations.

    What is there comes back as it was. All draws of a row come from one population of particles.

    Args:
        denoiser: As all settings that are not explained here, see `twisted_diffusion`.
        x: Rows, NaN where a coordinate is missing, shape `(N, D)`.
        sigmas: Noise levels.
        generator: Where the noise comes from.
        num_draws: Draws of each row.
        num_particles: Particles of each row; at least as many as draws, or some are bound to be equal.
        method: Guess at the likelihood.
        sigma_data: For `"pigdm"`.
        mean: Mean of the data.
        covariance: Covariance of the data.
        threshold: When particles are drawn anew.
        matched: Match the variance of a step.
        dtype: Type of the points.
        device: Where the denoiser is.

    Raises:
        ValueError: If the rows are no table or hold infinite numbers, or a setting is out of range.
    """
    x = torch.as_tensor(x, dtype=torch.float64).detach().cpu()
    if x.ndim != 2 or 0 in x.shape or bool(x.isinf().any()):
        raise ValueError(f"rows must be of shape (N, D), finite or NaN where missing, got {tuple(x.shape)}")
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    _check(sigmas, num_particles, method, threshold)
    there, seed = x.isfinite(), _seed(generator)
    start = _Start(x.shape[1], float(sigmas[0]), mean, covariance, dtype, device)
    draws, sizes = x.expand(num_draws, -1, -1).clone(), torch.full((len(x),), math.inf)
    counts = there.sum(dim=1)
    for observed in counts[counts < x.shape[1]].unique().tolist():  # rows of one number of values walk together
        most = _rows_at_once(num_particles, observed, x.shape[1])
        for rows in (counts == observed).nonzero().flatten().split(most):
            where = there[rows].nonzero()[:, 1].reshape(len(rows), observed)
            ask = _exact(denoiser, where, x[rows].gather(1, where), x.shape[1], num_particles, method, sigma_data)
            own = _streams(rows.tolist(), seed)
            found = _walk(ask, start(num_particles, own), sigmas, own, threshold, matched)
            sizes[rows] = found.effective_sizes.amin(dim=0).float().cpu()
            for k, row in enumerate(rows.tolist()):
                draws[:, row] = _draw(found.x[k], found.log_weights[k], num_draws, own[k]).double().cpu()
    names = {0: "unconditional", x.shape[1]: "given"}
    by = [names.get(count, "twisted diffusion") for count in counts.tolist()]
    return Imputation(torch.where(there, x, draws), by, sizes)


def _exact(
    denoiser: DenoiserFunction, where: Tensor, values: Tensor, n_dims: int, num_particles: int, method: str,
    sigma_data: float,
) -> Ask:  # fmt: skip
    """Return what coordinates `where`, shape `(R, M)`, say that are known to be `values`; M may be 0."""
    if where.shape[1] == 0:

        def nothing(x: Tensor, sigma: Tensor, probe: Tensor | None) -> Twist:
            with torch.enable_grad():
                z = x.detach().requires_grad_()
                end = denoiser(z, sigma)
                variance = None if probe is None else sigma**2 * traced(end, z, probe)
            return Twist(end.detach(), torch.zeros_like(x), x.new_zeros(len(x)), variance)

        return nothing
    matrix = torch.eye(n_dims, dtype=torch.float64)[where].repeat_interleave(num_particles, 0)  # (R P, M, D)
    y = values.repeat_interleave(num_particles, 0)
    return Observed(denoiser, matrix, y, 0.0, method=method, sigma_data=sigma_data).twist


class _Answers(NamedTuple):
    """A `Twist` of particles: shapes `(R, P, D)` twice, then `(R, P, 1)` twice."""

    denoised: Tensor
    shift: Tensor
    log_likelihood: Tensor
    variance: Tensor


class _Start:
    """Draws points at the highest noise level, from the Gaussian with the mean and the covariance of the noisy data."""

    def __init__(
        self, n_dims: int, sigma: float, mean: Any, covariance: Any, dtype: torch.dtype, device: str | torch.device
    ) -> None:
        mean, covariance = (torch.as_tensor(value, dtype=torch.float64).cpu() for value in (mean, covariance))
        eye = torch.eye(n_dims, dtype=torch.float64)
        if mean.shape not in ((), (n_dims,)) or covariance.shape not in ((), (n_dims, n_dims)):
            raise ValueError(
                f"mean and covariance must be numbers or have shapes ({n_dims},) and ({n_dims}, {n_dims}), got "
                f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
            )
        self.mean, full = mean, covariance * eye if covariance.ndim == 0 else covariance
        self.factor, failed = torch.linalg.cholesky_ex(full + sigma**2 * eye)
        if bool(failed) or not bool(self.factor.isfinite().all() and mean.isfinite().all()):
            raise ValueError("mean and covariance of the data must be finite, with no negative variance")
        self.dtype, self.device = dtype, device

    def __call__(self, num_particles: int, streams: list[torch.Generator]) -> Tensor:
        """Return points, shape `(R, P, D)`."""
        x = self.mean + _normal(num_particles, len(self.factor), streams, torch.float64) @ self.factor.T
        return x.to(device=self.device, dtype=self.dtype)


@torch.no_grad()
def _walk(
    ask: Ask, x: Tensor, sigmas: Tensor, streams: list[torch.Generator], threshold: float, matched: bool
) -> Posterior:  # fmt: skip
    """Walk particles, shape `(R, P, D)`, down to noise level 0."""
    grid, count = sigmas.detach().double().cpu(), x.shape[1]
    now = _ask(ask, x, grid[0], streams, matched)
    log_weights, log_evidence = now.log_likelihood[..., 0], x.new_zeros(len(x))
    sizes = [effective_sample_sizes(log_weights)]
    for sigma, below in itertools.pairwise(grid[:-1]):
        few = sizes[-1] < threshold * count
        if bool(few.any()):
            picked = _picked(log_weights, few, streams)
            x, *parts = (part.gather(1, picked[..., None].expand_as(part)) for part in (x, *now))
            now = _Answers(*parts)
            log_evidence = log_evidence + torch.where(few, log_weights.logsumexp(1) - math.log(count), 0.0)
            log_weights = torch.where(few[:, None], 0.0, log_weights)
        share = float(1 - (below / sigma) ** 2)
        spread = (share * float(below) ** 2 + share**2 * now.variance.clamp(min=0)).sqrt()  # (R, P, 1)
        z = _normal(count, x.shape[2], streams, x.dtype).to(x)
        push = share * now.shift / spread  # of the proposal's mean, in its standard deviations
        x, before = x + share * (now.denoised + now.shift - x) + spread * z, now.log_likelihood
        now = _ask(ask, x, below, streams, matched)
        change = (now.log_likelihood - before)[..., 0] - (push * z).sum(2) - push.square().sum(2) / 2
        log_weights = log_weights + change
        sizes.append(effective_sample_sizes(log_weights))
    log_evidence = log_evidence + log_weights.logsumexp(1) - math.log(count)
    return Posterior(now.denoised + now.shift, log_weights.log_softmax(1), log_evidence, torch.stack(sizes))


def _ask(ask: Ask, x: Tensor, sigma: Tensor, streams: list[torch.Generator], matched: bool) -> _Answers:
    """Return the answers for particles, each of shape `(R, P, D)` or `(R, P, 1)`."""
    probe = None
    if matched:
        coins = [torch.randint(2, x.shape[1:], generator=stream) for stream in streams]
        probe = 2 * torch.cat(coins).to(x) - 1
    denoised, shift, likelihood, variance = ask(x.flatten(0, 1), sigma.to(x), probe)
    if not bool(likelihood.isfinite().all() and shift.isfinite().all()):
        raise ValueError(f"the denoiser or its derivative is not finite at noise level {float(sigma):g}")
    variance = torch.zeros_like(likelihood) if variance is None else variance
    return _Answers(*(part.reshape(*x.shape[:2], -1) for part in (denoised, shift, likelihood, variance)))


def _picked(log_weights: Tensor, few: Tensor, streams: list[torch.Generator]) -> Tensor:
    """Return the particles that go on, shape `(R, P)`: all, or in rows where few carry the weight those drawn anew."""
    picked = torch.arange(log_weights.shape[1]).repeat(len(log_weights), 1)
    for row in few.nonzero().flatten().tolist():
        picked[row] = systematic_resample(log_weights[row], streams[row]).cpu()
    return picked.to(log_weights.device)


def _draw(x: Tensor, log_weights: Tensor, num_draws: int, stream: torch.Generator) -> Tensor:
    """Return draws from weighted particles, shapes `(P, D)` and `(P,)`, in random order, shape `(num_draws, D)`."""
    rounds = range(-(-num_draws // len(x)))
    picked = torch.cat([systematic_resample(log_weights, stream) for _ in rounds])
    return x[picked[torch.randperm(len(picked), generator=stream).to(picked.device)[:num_draws]]]


def _rows_at_once(num_particles: int, num_observed: int, n_dims: int) -> int:
    """Return how many rows walk together, so that memory does not grow with their number."""
    numbers = num_particles * max(num_observed, 1) * n_dims
    return max(1, min(NUMBERS // numbers, PARTICLES // num_particles))


def _seed(generator: torch.Generator) -> int:
    """Return the seed of the streams of all rows."""
    return int(torch.randint(2**62, (), generator=generator))


def _streams(rows: Iterable[int], seed: int) -> list[torch.Generator]:
    """Return a stream of noise for each of these rows, by its number; a stream takes 5 KiB."""
    return [generator_for(seed, row) for row in rows]


def _normal(num_particles: int, n_dims: int, streams: list[torch.Generator], dtype: torch.dtype) -> Tensor:
    """Return standard normal numbers, each row's from its own stream, shape `(R, P, D)`."""
    return torch.stack([torch.randn(num_particles, n_dims, generator=stream, dtype=dtype) for stream in streams])


def _check(sigmas: Tensor, num_particles: int, method: str, threshold: float) -> None:
    """Raise a ValueError unless the settings are in range."""
    check_sigmas(sigmas)
    if len(sigmas) < 3 or sigmas[-1] != 0:
        raise ValueError("sigmas must decrease to 0 in at least two steps, as the grid of a schedule does")
    if num_particles < 2:
        raise ValueError(f"num_particles must be at least 2, got {num_particles}")
    if method not in TWISTS:
        raise unknown_name("method", method, TWISTS)
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is a share of the particles, 0 to 1, got {threshold}")
