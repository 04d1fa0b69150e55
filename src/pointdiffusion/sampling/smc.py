r"""Sequential Monte Carlo: particles that carry weights down the noise levels.

Weights are kept as logarithms, shape `(B,)`. Where they have become uneven, particles are drawn anew in proportion to
them, by one uniform number for all (systematic resampling), which keeps the number of copies of each within one of what
is due.

**Guidance that draws what it says.** Between the densities of a class and of everything, blurred to variance
:math:`u = \sigma^2`, lies the path :math:`Q = p_c^w \, p_0^{1 - w}`, which at noise level 0 is the tilted distribution
:math:`p(x | c) p(c | x)^{w - 1}` up to a factor. Blurred densities obey the heat equation
:math:`\partial_u p = \Delta p / 2`. So in the reversed time :math:`\tau = -u`, with scores :math:`s_c, s_0` and
:math:`s = w s_c + (1 - w) s_0 = \nabla \log Q`,

.. math:: \partial_\tau \log Q = -\tfrac12 \bigl(\nabla \cdot s + w |s_c|^2 + (1 - w) |s_0|^2\bigr) .

Guided particles :math:`dx = s \, d\tau + dW` lose :math:`\frac12 (\nabla \cdot s + |s|^2)` of :math:`\log Q` instead.
The divergences cancel, and a weight makes up for the rest:

.. math:: d \log W = \tfrac12 \bigl(|s|^2 - w |s_c|^2 - (1 - w) |s_0|^2\bigr) d\tau
    = \tfrac12 w (w - 1) |s_c - s_0|^2 d\tau .

Langevin moves :math:`\frac12 (\eta^2 - 1) s \, d\tau + \sqrt{\eta^2 - 1} \, dW'` on top leave Q as it is, and the
weights with it: :math:`dx = \frac12 (1 + \eta^2) s \, d\tau + \eta \, dW`. They stir the particles, so that weights
even out along the way and vary less, at the price of finer steps.

Steps are those of a Gaussian of width s: with the guided denoiser :math:`D_w` and :math:`h = s^2 + \sigma^2`, the score
is :math:`(M - x) / h` with :math:`M = D_w + (s / \sigma)^2 (D_w - x)`, which for that Gaussian is its mean, and nothing
is singular at noise level 0. With M constant a step is :math:`x' = r x + (1 - r) M + \xi`, where
:math:`r = (h' / h)^{(1 + \eta^2) / 2}` and :math:`\xi` has variance :math:`h' (1 - (h' / h)^{\eta^2})`.

Particles without the weight, which is what guidance is, leave the path for every w but 0 and 1, less the more they
are stirred.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pointdiffusion.contract import DenoiserFunction, check_sigmas


def effective_sample_size(log_weights: Tensor) -> float:
    r"""Return :math:`(\sum w)^2 / \sum w^2`, between 1 and the number of particles (Kong 1992)."""
    return float(effective_sample_sizes(log_weights))


def effective_sample_sizes(log_weights: Tensor) -> Tensor:
    """Return the same for each row of log weights `(..., P)`, shape `(...)`."""
    return (2 * log_weights.logsumexp(-1) - (2 * log_weights).logsumexp(-1)).exp()


def systematic_resample(log_weights: Tensor, generator: torch.Generator) -> Tensor:
    """Return the indices of the particles that go on, shape `(B,)`, each as often as its weight says, give or take one.

    References:
        Douc and Cappe (2005), Comparison of resampling schemes for particle filtering, https://arxiv.org/abs/cs/0507025
    """
    edges = log_weights.double().softmax(0).cumsum(0).cpu()
    edges = edges / edges[-1]  # rounding must not leave room for a last particle without weight
    start = torch.rand((), generator=generator, dtype=torch.float64)
    places = (start + torch.arange(len(edges), dtype=torch.float64)) / len(edges)
    return torch.searchsorted(edges, places, right=True).clamp(max=len(edges) - 1).to(log_weights.device)


class Particles(NamedTuple):
    """Weighted points, and how the weights fared.

    Args:
        x: Points, shape `(B, D)`.
        log_weights: Logarithm of their weights, which sum to one, shape `(B,)`.
        log_normaliser: Estimate of the log of the integral of the last density of the path; its exponential has no
            bias but that of the steps.
        effective_sizes: Effective number of particles at each noise level, before they are drawn anew, shape
            `(num_steps + 1,)`.
        nfe: Calls of a denoiser.
    """

    x: Tensor
    log_weights: Tensor
    log_normaliser: float
    effective_sizes: Tensor
    nfe: int

    def mean(self) -> Tensor:
        """Return the weighted mean, shape `(D,)`."""
        return torch.tensordot(self.log_weights.exp().to(self.x), self.x, dims=1)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return as many points of equal weight, shape `(B, D)`, in random order; heavy ones come more than once."""
        kept = systematic_resample(self.log_weights, generator).cpu()
        return self.x[kept[torch.randperm(len(kept), generator=generator)].to(self.x.device)]


def tilted_gaussian(
    mean: Any, covariance: Any, base_mean: Any, base_covariance: Any, scale: float
) -> tuple[Tensor, Tensor, float]:  # fmt: skip
    r"""Return mean, covariance and log integral of :math:`N_c^w N_0^{1 - w}`, a Gaussian up to a factor.

    Of the blurred moments of a class and of everything, it is where `feynman_kac` starts: at high noise all data are
    one Gaussian, up to the cube of their width over the noise level.

    Args:
        mean: Of the class, shape `(D,)`.
        covariance: Of the class, with sigma squared on its diagonal, shape `(D, D)`.
        base_mean: Of everything, shape `(D,)`.
        base_covariance: Of everything, with the same, shape `(D, D)`.
        scale: Strength w.

    Raises:
        ValueError: If the product has no integral, or a covariance is none.
    """
    precision, shift, log_integral = torch.zeros(()), torch.zeros(()), 0.0
    for share, moments in ((scale, (mean, covariance)), (1 - scale, (base_mean, base_covariance))):
        m, c = (torch.as_tensor(value, dtype=torch.float64) for value in moments)
        factor, failed = torch.linalg.cholesky_ex(c)
        if bool(failed.any()):
            raise ValueError("a covariance is not positive definite; add the square of the noise level to its diagonal")
        inverse = torch.cholesky_inverse(factor)
        precision, shift = precision + share * inverse, shift + share * inverse @ m
        log_integral -= share * float(0.5 * m @ inverse @ m + factor.diag().log().sum())
    factor, failed = torch.linalg.cholesky_ex(precision)
    if bool(failed.any()):
        raise ValueError(f"at strength {scale:g} the product has no integral; start at a higher noise level")
    found, spread = torch.cholesky_solve(shift[:, None], factor)[:, 0], torch.cholesky_inverse(factor)
    # The powers of 2 pi, w + (1 - w) = 1 of them, are those of the result.
    log_integral += float(0.5 * shift @ found - factor.diag().log().sum())
    return found, spread, log_integral


def _check(
    x: Tensor, sigmas: Tensor, scale: float, log_weights: Tensor | None, width: float, eta: float, threshold: float
) -> None:  # fmt: skip
    """Raise a ValueError unless these can be walked."""
    if len(x) < 2:
        raise ValueError(f"at least two particles are needed, got {len(x)}; hundreds or more are useful")
    check_sigmas(sigmas)
    if not math.isfinite(scale):
        raise ValueError(f"scale must be a finite number, got {scale}; 1 is no guidance")
    if log_weights is not None and (log_weights.shape != (len(x),) or bool(log_weights.isnan().any())):
        raise ValueError(f"log_weights must be one number for each of {len(x)} particles, none of them NaN")
    if not 0 <= threshold <= 1:
        raise ValueError(f"ess_threshold is a share of the particles, 0 (never) to 1 (always), got {threshold}")
    if not 0 <= width < math.inf:
        raise ValueError(f"width is a standard deviation, 0 or above, got {width}")
    if not 0 <= eta < math.inf:
        raise ValueError(f"eta must be 0 or above, got {eta}; 1 is the reverse equation")


class _Path:
    """Guided particles: the denoisers, the strength, and the variables of the steps."""

    def __init__(
        self, conditional: DenoiserFunction, unconditional: DenoiserFunction, scale: float, width: float, eta: float,
        generator: torch.Generator,
    ) -> None:  # fmt: skip
        self.conditional, self.unconditional, self.scale = conditional, unconditional, scale
        self.width, self.eta, self.generator, self.nfe = width, eta, generator, 0

    def slopes(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """Return where the score points, M, shape `(B, D)`, and the rate of the log weights in tau, shape `(B,)`."""
        level = torch.tensor(sigma, dtype=x.dtype, device=x.device)
        base = self.unconditional(x, level)
        gap = self.conditional(x, level) - base
        self.nfe += sum(int(getattr(one, "cost", 1)) for one in (self.conditional, self.unconditional))
        guided = base + self.scale * gap
        rate = 0.5 * self.scale * (self.scale - 1) * gap.flatten(1).square().sum(dim=1).double() / sigma**4
        return guided + (self.width / sigma) ** 2 * (guided - x), rate

    def step(self, x: Tensor, sigma: float, below: float) -> tuple[Tensor, Tensor]:
        """Return the points at the next noise level, and what their log weights gained."""
        drift, rate = self.slopes(x, sigma)
        high, low = self.width**2 + sigma**2, self.width**2 + below**2
        kept, variance = (low / high) ** ((1 + self.eta**2) / 2), low * (1 - (low / high) ** self.eta**2)
        # On the CPU, so that a seed means the same on every device.
        noise = torch.randn(x.shape, generator=self.generator, dtype=x.dtype).to(x) * math.sqrt(variance)
        ahead = kept * x + (1 - kept) * drift + noise
        if below == 0:
            return ahead, rate * sigma**2
        drift_ahead, rate_ahead = self.slopes(ahead, below)
        gained = (rate * high**2 + rate_ahead * low**2) / 2 * (1 / low - 1 / high)  # rates in 1 / h vary least
        return kept * x + (1 - kept) * (drift + drift_ahead) / 2 + noise, gained


@torch.no_grad()
def feynman_kac(
    conditional: DenoiserFunction, unconditional: DenoiserFunction, x: Tensor, sigmas: Tensor, scale: float, *,
    generator: torch.Generator, log_weights: Tensor | None = None, width: float = 0.0, eta: float = 2.0,
    ess_threshold: float = 0.5,
) -> Particles:  # fmt: skip
    r"""Draw from :math:`p(x | c)\, p(c | x)^{w - 1}` by weighted particles.

    Each step is Heun's method for points and log weights, so means and the normaliser are off by the square of the
    step; a last step to 0 is Euler's, off by the fourth power of the last noise level where the densities are smooth on
    its scale. What is random falls like one over the root of the number of particles. The larger w, the more of both it
    takes: a low effective size says so.

    On exact denoisers the limit is exact. Those of a network are the scores of no heat equation, and then nothing is
    promised; at strength 1 weights stay even.

    Args:
        conditional: Denoiser of the class, `bind(denoiser, labels=3)`.
        unconditional: Denoiser of everything.
        x: Points at the noise level `sigmas[0]`, shape `(B, D)`, drawn from :math:`p_c^w p_0^{1 - w}` there; see
            `tilted_gaussian`.
        sigmas: Strictly decreasing noise levels, the last may be 0, shape `(num_steps + 1,)`.
        scale: Strength w; 1 is the class itself.
        generator: Where the noise and the resampling come from.
        log_weights: Log weights of `x`, shape `(B,)`: the log of :math:`p_c^w p_0^{1 - w}` over the density that `x`
            was drawn from, which is the log integral if that is what it was drawn from. By default 0.
        width: Standard deviation s of the narrowest parts of the data, for which steps are most exact; with 0, right
            for curves and finite sets, the last step ends at the denoised point.
        eta: Strength of the noise; 1 is the reverse equation, more makes weights vary less and asks for more steps.
        ess_threshold: Draw anew where the effective number falls below this share of the particles.

    Raises:
        ValueError: If the grid does not decrease, shapes do not fit, a setting is out of range, or a weight is NaN.

    References:
        Feynman-Kac Correctors in Diffusion (Skreta et al., 2025), https://arxiv.org/abs/2503.02819; the
        stirring and the steps are ours.
    """
    grid = sigmas.detach().double().cpu()
    _check(x, grid, scale, log_weights, width, eta, ess_threshold)
    weights = (torch.zeros(len(x)) if log_weights is None else log_weights).to(x.device, torch.float64)
    path, log_normaliser = _Path(conditional, unconditional, float(scale), float(width), float(eta), generator), 0.0
    sizes = [effective_sample_size(weights)]
    for sigma, below in itertools.pairwise(grid.tolist()):
        if sizes[-1] < ess_threshold * len(x):
            log_normaliser += float(weights.logsumexp(0)) - math.log(len(x))
            x, weights = x[systematic_resample(weights, generator)], torch.zeros_like(weights)
        x, gained = path.step(x, sigma, below)
        weights = weights + gained
        if bool(weights.isnan().any()):
            raise ValueError(f"a weight is NaN at noise level {below:g}; the denoisers must return finite numbers")
        sizes.append(effective_sample_size(weights))
    log_normaliser += float(weights.logsumexp(0)) - math.log(len(x))
    return Particles(x, weights.log_softmax(0), log_normaliser, torch.tensor(sizes, dtype=torch.float64), path.nfe)
