r"""The flow of a trained denoiser in standard units, under conditions, with the Gaussian at its far end.

Where the data are lost in noise, what is left of them is their mean and covariance: sampling starts there, densities
end there, and latent points are standard normal there. Under guidance mean and covariance are those of the guided flow
(`guidance.guided_gaussian`), which depend on its strength.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pointdiffusion.contract import DenoiserFunction
from pointdiffusion.denoisers.guidance import EVERYWHERE, Guided, bind, guided_gaussian
from pointdiffusion.denoisers.preconditioned import Denoiser
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.likelihood import density as likelihood
from pointdiffusion.likelihood.density import DensityOptions, End, FlowEnds
from pointdiffusion.model.conditions import Conditions, Known, rows_of
from pointdiffusion.runtime.randomness import LIKELIHOOD, generator_for
from pointdiffusion.sampling import loop as sampling

ROWS = 2048
"""Rows whose likelihood is taken at once."""


@dataclass(frozen=True)
class Companion:
    """A distribution in closed form that a flow is mixed with: density and samples are those of the sum.

    Args:
        mixture: The distribution, in standard units; where the model has classes, its labels are their places.
        share: Its weight, between 0 and 1.

    Raises:
        ValueError: If the share is out of range.
    """

    mixture: GaussianMixture
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"the share of a companion must lie between 0 and 1, got {self.share}")

    def start(
        self, x: Tensor, sigma: float, generator: torch.Generator, labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Choose the rows that are its own, and return where they start beside the others, and which they are."""
        own = torch.rand(len(x), generator=generator, dtype=torch.float64) < self.share
        drawn = self.mixture.sample_labels(torch.full((len(x),), -1) if labels is None else labels, generator, sigma)
        return torch.where(own[:, None], drawn, x), own

    def beside(self, denoiser: DenoiserFunction, own: Tensor, labels: Tensor | None) -> DenoiserFunction:
        """Return the denoiser that is the mixture's for rows of its own."""
        place = own[:, None]

        def both(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
            """Denoise each row by what drew it."""
            return torch.where(place.to(x.device), self.mixture.denoise(x, sigma, labels), denoiser(x, sigma))

        return both

    def added(self, log_prob: Tensor, x: Tensor, labels: Tensor | None) -> Tensor:
        """Return the log-density of the sum, from that of the flow."""
        own = self.mixture.log_prob(x, labels=labels) + math.log(self.share)
        return torch.logaddexp(log_prob + math.log1p(-self.share), own)


@dataclass(frozen=True)
class Guidance:
    """How a flow under conditions is moved away from the same flow without, or from a worse one.

    Args:
        strength: Strength w; 1 is none.
        interval: Noise levels at which it holds, as in `Guided`.
        guide: The worse flow; None for the same one without conditions.
    """

    strength: float = 1.0
    interval: tuple[float, float] = EVERYWHERE
    guide: Flow | None = None

    @property
    def unconditional(self) -> bool:
        """Whether nothing is left of the conditions: the flow without them, at every noise level."""
        return self.strength == 0 and self.guide is None and self.interval == EVERYWHERE


NO_GUIDANCE = Guidance()
DEFAULT_OPTIONS = DensityOptions()


class Flow:
    """A denoiser between two noise levels.

    Args:
        denoiser: Denoiser of standardised points.
        covariance: Covariance of the standardised data, shape `(D, D)`.
        conditions: What it was trained to be told, if anything.
        sigma_min: Lowest noise level.
        sigma_max: Highest noise level.
        companion: What the distribution is mixed with, if anything.
    """

    def __init__(
        self, denoiser: Denoiser, covariance: Tensor, conditions: Conditions | None, sigma_min: float,
        sigma_max: float, companion: Companion | None = None,
    ) -> None:  # fmt: skip
        self.denoiser, self.covariance, self.conditions = denoiser, covariance.double(), conditions
        self.sigma_min, self.sigma_max, self.companion = sigma_min, sigma_max, companion
        self.like = next(denoiser.parameters())

    def known(self, count: int, labels: Any = None, context: Any = None) -> Known:
        """Return conditions as tensors, one row a point; none where nothing is known.

        Raises:
            ValueError: If the denoiser was not trained for them, or they do not fit.
        """
        if labels is None and context is None:
            return {}
        if self.conditions is None:
            raise ValueError("this model was trained without conditions; train one with labels=... or context=...")
        return self.conditions.known(count, labels, context)

    def bound(self, known: Known) -> DenoiserFunction:
        """Return the denoiser under conditions."""
        return bind(self.denoiser, **self._there(known))

    def guided(self, known: Known, guidance: Guidance = NO_GUIDANCE) -> DenoiserFunction:
        """Return the denoiser under conditions and guidance.

        Raises:
            ValueError: If there is nothing to guide to, or a number is out of range.
        """
        if guidance.strength == 1:
            return self.bound(known)
        guide = guidance.guide
        if not known and guide is None:
            raise ValueError("guidance needs something to guide to: give labels, context, or a worse model as guide")
        base = self.denoiser if guide is None else guide.bound(guide.takes(known))
        return Guided(self.bound(known), base, guidance.strength, interval=guidance.interval)

    def takes(self, known: Known) -> Known:
        """Return the conditions if the denoiser was trained for any, else none."""
        return known if self.conditions else {}

    def _there(self, known: Known) -> Known:
        return {name: value.to(self.like.device) for name, value in known.items()}

    def moments(self, count: int = 1, known: Known | None = None) -> tuple[Tensor, Tensor]:
        """Return mean and covariance of the data, `(D,)` and `(D, D)`, or one a row under conditions; float64."""
        if known and self.conditions is not None:
            return self.conditions.moments(count, known)
        return torch.zeros(len(self.covariance), dtype=torch.float64), self.covariance

    def noisy_moments(
        self, sigma: float, count: int = 1, known: Known | None = None, guidance: Guidance = NO_GUIDANCE
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return mean and covariance of noisy points, one for all or one a row, float64."""
        known = known or {}
        own, guide = self.moments(count, known), guidance.guide
        if guidance.strength == 1:
            return own[0], own[1] + sigma**2 * torch.eye(len(self.covariance), dtype=torch.float64)
        base = self.moments() if guide is None else guide.moments(count, guide.takes(known))
        return guided_gaussian(*own, *base, guidance.strength, sigma, interval=guidance.interval)

    def far_end(
        self, sigma: float, count: int = 1, known: Known | None = None, guidance: Guidance = NO_GUIDANCE
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return the mean of noisy points and the Cholesky factor of their covariance, one for all or one a row.

        Raises:
            ValueError: If guidance is so strong that the covariance is singular in float64.
        """
        mean, covariance = self.noisy_moments(sigma, count, known, guidance)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if bool(failed.any()) or not bool(factor.isfinite().all()):
            raise ValueError(f"guidance {guidance.strength:g} is too strong for a start at noise {sigma:g}; lower it")
        return mean, factor

    def noise(
        self, count: int, generator: torch.Generator, sigma: float, known: Known | None = None,
        guidance: Guidance = NO_GUIDANCE,
    ) -> Tensor:  # fmt: skip
        """Return points where the data are lost, shape `(count, D)`, float64."""
        draw = torch.randn(count, len(self.covariance), generator=generator, dtype=torch.float64)
        mean, factor = self.far_end(sigma, count, known, guidance)
        return mean + (factor @ draw[..., None])[..., 0]

    def ends(self, count: int = 1, known: Known | None = None, sigma_min: float | None = None) -> FlowEnds:
        """Return the ends of the flow as `likelihood.log_prob` takes them."""
        mean, covariance = self.moments(count, known)
        return {
            "sigma_min": self.sigma_min if sigma_min is None else sigma_min,
            "sigma_max": self.sigma_max,
            "mean": mean,
            "covariance": covariance,
            "sigma_data": self.denoiser.sigma_data,
        }

    def guided_end(self, count: int, known: Known, guidance: Guidance) -> End | None:
        """Return the moments of noisy points by noise level under guidance; None without, where `ends` has them.

        Raises:
            ValueError: As `far_end`.
        """
        if guidance.strength == 1:
            return None
        self.far_end(self.sigma_max, count, known, guidance)  # refuses what has no density
        return lambda sigma: self.noisy_moments(sigma, count, known, guidance)

    def log_prob(
        self, x: Tensor, known: Known, *, seed: int, sigma_min: float | None,
        options: DensityOptions = DEFAULT_OPTIONS, guidance: Guidance = NO_GUIDANCE,
    ) -> Tensor:  # fmt: skip
        """Return log-densities of rows, shape `(N,)`."""
        parts = []
        for index, rows in enumerate(x.to(self.like).split(ROWS)):
            here = rows_of(known, slice(index * ROWS, (index + 1) * ROWS))
            generator = generator_for(seed, LIKELIHOOD, index)
            part = likelihood.log_prob(
                self.guided(here, guidance), rows, solver=options.solver, num_steps=options.num_steps,
                tolerance=options.tolerance, probes=options.probes, probe=options.probe, generator=generator,
                end=self.guided_end(len(rows), here, guidance), **self.ends(len(rows), here, sigma_min),
            ).cpu()  # fmt: skip
            if self.companion is not None and guidance.strength == 1:
                place = slice(index * ROWS, index * ROWS + len(rows))
                part = self.companion.added(part.double(), x[place].double().cpu(), here.get("labels"))
            parts.append(part)
        return torch.cat(parts)

    def latent(self, x: Tensor, known: Known, tolerance: float, guidance: Guidance = NO_GUIDANCE) -> Tensor:
        """Return where the flow takes rows, as standard normal numbers, shape `(N, D)`, float64."""
        z = self.carried(x, known, self.sigma_min, self.sigma_max, tolerance=tolerance, guidance=guidance)
        mean, factor = self.far_end(self.sigma_max, len(x), known, guidance)
        return torch.linalg.solve_triangular(factor, (z - mean)[..., None], upper=False)[..., 0]

    def from_latent(self, z: Tensor, known: Known, tolerance: float, guidance: Guidance = NO_GUIDANCE) -> Tensor:
        """Return the rows that `latent` takes to these numbers, shape `(N, D)`, float64."""
        mean, factor = self.far_end(self.sigma_max, len(z), known, guidance)
        x = mean + (factor @ z[..., None])[..., 0]
        return self.carried(x, known, self.sigma_max, self.sigma_min, tolerance=tolerance, guidance=guidance)

    def carried(
        self, x: Tensor, known: Known, sigma_from: float, sigma_to: float, *, tolerance: float,
        guidance: Guidance = NO_GUIDANCE,
    ) -> Tensor:  # fmt: skip
        """Return points at another noise level, by the exact flow of the network in float64.

        Args:
            x: Points at `sigma_from`, shape `(B, D)`.
            known: Conditions, one row a point.
            sigma_from: Noise level to start from, up or down.
            sigma_to: Noise level to end at.
            tolerance: Of a step of the adaptive method.
            guidance: How the flow is guided.

        Returns:
            Points, shape `(B, D)`, on the CPU.
        """
        flow = self._in_float64()
        guide = None if guidance.guide is None else guidance.guide._in_float64()
        denoiser = flow.guided(known, replace(guidance, guide=guide))
        found = sampling.exact_flow(
            denoiser, x.to(self.like.device), sigma_from, sigma_to, tolerance=tolerance,
            sigma_data=self.denoiser.sigma_data,
        )  # fmt: skip
        return found.x.cpu()

    def _in_float64(self) -> Flow:
        """Return the flow with a copy of the network in float64."""
        network = copy.deepcopy(self.denoiser).double().eval()
        return Flow(network, self.covariance, self.conditions, self.sigma_min, self.sigma_max, self.companion)
