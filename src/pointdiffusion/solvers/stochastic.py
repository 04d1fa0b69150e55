r"""Stochastic solvers: they follow an equation with noise that has the marginals of the flow.

.. math:: dx = (1 + \eta^2) \frac{x - D}{\sigma} \, d\sigma + \eta \sqrt{2 \sigma} \, dw

(Karras et al. 2022, equation 6 with :math:`\beta = \eta^2 / \sigma`). Noise forgets the errors of earlier steps, so
samples of a poor network often gain; for the same reason a sample is no longer a function of its start alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pointdiffusion.contract import DenoiserFunction
from pointdiffusion.solvers.base import Solver, noises_of
from pointdiffusion.solvers.runge_kutta import TABLEAUS, runge_kutta


def _check_eta(eta: float) -> float:
    if not 0 <= eta < math.inf:
        raise ValueError(f"eta must not be negative, got {eta}")
    return float(eta)


class DDIM(Solver):
    r"""DDIM with `eta`: 0 is Euler's method, 1 ancestral sampling (DDPM).

    The step keeps the denoised point, and splits the noise at `sigma_next` into old and fresh noise of variance
    :math:`\eta^2 \sigma'^2 (1 - \sigma'^2 / \sigma^2)` (Song et al. 2021, arXiv 2010.02502, equations 12 and 16, in
    variance-exploding form).

    Args:
        eta: Share of fresh noise, 0 to 1.
        final: How a step to noise level 0 ends, one of `FINALS`.

    Raises:
        ValueError: If eta is not in [0, 1].
    """

    noises = 1

    def __init__(self, eta: float = 1.0, *, final: str = "denoise") -> None:
        super().__init__(final=final)
        self.eta = _check_eta(eta)
        if eta > 1:
            raise ValueError(f"eta of DDIM must lie in [0, 1], got {eta}")

    @property
    def order(self) -> float:
        """Weak order."""
        return 1

    def step(
        self, denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, sigma_next: Tensor,
        state: Any = None, noise: Tensor | None = None,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Return the points at `sigma_next` and the state."""
        denoised = denoiser(x, sigma)
        if sigma_next == 0:
            return self.land(x, denoised), state
        fresh = self.eta * sigma_next * (1 - (sigma_next / sigma) ** 2).sqrt()
        old = (sigma_next**2 - fresh**2).sqrt()
        return denoised + (old / sigma) * (x - denoised) + fresh * noises_of(noise, 1)[0], state


class ItoSDE(Solver):
    r"""The stochastic equation with the slope frozen over the step and the noise exact: variance
    :math:`\eta^2 (\sigma^2 - \sigma'^2)`.

    In scaled variables this is the exponential integrator of the variance-preserving equation: what is linear there is
    the scaling itself.

    Args:
        eta: Strength of the noise; 0 is Euler's method, 1 the reverse equation of Song et al. (2021, arXiv 2011.13456).
        exact_noise: Take the exact variance of the noise; otherwise that of Euler-Maruyama,
            :math:`2 \eta^2 \sigma (\sigma - \sigma')`.
        final: How a step to noise level 0 ends, one of `FINALS`.

    Raises:
        ValueError: If eta is negative.
    """  # noqa: D205

    noises = 1

    def __init__(self, eta: float = 1.0, *, exact_noise: bool = True, final: str = "denoise") -> None:
        super().__init__(final=final)
        self.eta, self.exact_noise = _check_eta(eta), exact_noise

    @property
    def order(self) -> float:
        """Weak order."""
        return 1

    def step(
        self, denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, sigma_next: Tensor,
        state: Any = None, noise: Tensor | None = None,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Return the points at `sigma_next` and the state."""
        denoised = denoiser(x, sigma)
        if sigma_next == 0:
            return self.land(x, denoised), state
        variance = sigma**2 - sigma_next**2 if self.exact_noise else 2 * sigma * (sigma - sigma_next)
        drift = (1 + self.eta**2) * (sigma_next - sigma) / sigma
        return x + drift * (x - denoised) + self.eta * variance.sqrt() * noises_of(noise, 1)[0], state


class ChurnSDE(Solver):
    """Heun's method with churn: some noise is added before each step, and removed by it.

    Args:
        s_churn: Noise added over the whole walk; a step raises its level by the factor
            1 + min(s_churn / num_steps, sqrt(2) - 1).
        s_min: Noise is added only at levels of at least this.
        s_max: Noise is added only at levels of at most this.
        s_noise: Standard deviation of the added noise; 1 keeps the marginals.
        final: How a step to noise level 0 ends, one of `FINALS`.

    Raises:
        ValueError: If a setting is negative.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), algorithm 2,
        https://arxiv.org/abs/2206.00364
    """

    noises = 1

    def __init__(
        self, s_churn: float = 10.0, *, s_min: float = 0.0, s_max: float = math.inf, s_noise: float = 1.0,
        final: str = "denoise",
    ) -> None:  # fmt: skip
        super().__init__(final=final)
        if min(s_churn, s_min, s_max, s_noise) < 0:
            raise ValueError("s_churn, s_min, s_max and s_noise must not be negative")
        self.s_churn, self.s_min, self.s_max, self.s_noise = s_churn, s_min, s_max, s_noise

    @property
    def order(self) -> float:
        """Weak order: the churn of a step shrinks with the step."""
        return 2

    def initial_state(self, sigmas: list[float]) -> int:
        """Return the number of steps, among which the churn is shared."""
        return len(sigmas) - 1

    def step(
        self, denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, sigma_next: Tensor,
        state: Any = None, noise: Tensor | None = None,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Return the points at `sigma_next` and the number of steps."""
        share = min(self.s_churn / (state or 1), math.sqrt(2) - 1) if self.s_min <= sigma <= self.s_max else 0.0
        raised = sigma * (1 + share)
        if share:
            x = x + (raised**2 - sigma**2).sqrt() * self.s_noise * noises_of(noise, 1)[0]
        denoised = denoiser(x, raised)
        if sigma_next == 0:
            return self.land(x, denoised), state
        return runge_kutta(TABLEAUS["heun"], denoiser, x, raised, sigma_next, (x - denoised) / raised), state


@dataclass(frozen=True)
class _Inner:
    state: Any


class LangevinCorrector(Solver):
    r"""Any solver, each of its steps followed by Langevin steps at the level reached.

    :math:`x \leftarrow x + \delta s + \sqrt{2 \delta}\, z` with :math:`\delta = 2 (r \sigma)^2`: the step size of Song
    et al. (2021, arXiv 2011.13456, algorithm 4) with the norms of noise and score replaced by what they are on average,
    so that a row does not depend on its batch.

    Args:
        predictor: The solver that walks; one without noise and without memory.
        num_corrections: Langevin steps a level, one evaluation each.
        snr: The ratio r.

    Raises:
        ValueError: If the predictor is stochastic, or a number out of range.
    """

    def __init__(self, predictor: Solver, *, num_corrections: int = 1, snr: float = 0.1) -> None:
        super().__init__(final=predictor.final)
        if predictor.noises or num_corrections < 1 or not 0 < snr < 1:
            raise ValueError("the predictor must draw no noise, num_corrections be at least 1 and snr lie in (0, 1)")
        self.predictor, self.snr = predictor, float(snr)
        self.noises = num_corrections

    @property
    def order(self) -> float:
        """Weak order: the bias of a Langevin step does not shrink with the steps of the walk."""
        return 0

    def initial_state(self, sigmas: list[float]) -> _Inner:
        """Return the state of the predictor."""
        return _Inner(self.predictor.initial_state(sigmas))

    def step(
        self, denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, sigma_next: Tensor,
        state: Any = None, noise: Tensor | None = None,
    ) -> tuple[Tensor, Any]:  # fmt: skip
        """Return the points at `sigma_next` and the state."""
        x, inner = self.predictor.step(denoiser, x, sigma, sigma_next, None if state is None else state.state)
        if sigma_next > 0:
            size = 2 * self.snr**2  # over sigma squared
            for draw in noises_of(noise, self.noises):
                x = x + size * (denoiser(x, sigma_next) - x) + math.sqrt(2 * size) * sigma_next * draw
        return x, _Inner(inner)
