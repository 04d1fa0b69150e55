r"""A network between two optima, at each noise level.

Of all denoisers the least loss on the population has :math:`D^*`, and on the training rows alone
:math:`\hat D`, which only memorising reaches. For noisy points of the population

.. math:: L(D) - L(D^*) = E\, |D(x; \sigma) - D^*(x; \sigma)|^2 ,

so zero is perfect. On noisy training rows the same difference of losses is :math:`|D - D^*|^2` less twice the part of
the rows' own noise that :math:`D` has learned: below zero where a network fits its rows better than a perfect one does.
What is missing on rows that the network has seen is *fit* (more training, a larger network); what is missing on fresh
rows beyond that is *data*.

:math:`D^*` is known for a mixture. A large sample is split in halves, whose optima :math:`D_1, D_2` err
independently, so that :math:`E \langle D - D_1, D - D_2 \rangle` does not count their errors. Where there is neither,
the smoothest guess stands in that the training rows allow: the denoiser of their kernel density with the bandwidth that
is most likely on held-out rows, and on a training row always without that row. It lies above :math:`D^*`, so an
excess over it is an excess.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointdiffusion.contract import DenoiserFunction, sigma_rows
from pointdiffusion.exact.empirical import EmpiricalDenoiser

Reference = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""From noisy points, noise levels and the training row that each came from, if any, to two estimates of the optimum."""


class Estimate(NamedTuple):
    """A number with its standard error."""

    value: float
    error: float

    def p_above(self, null: float = 0.0) -> float:
        """Return the one-sided p-value of the hypothesis that the true value is `null`, by the normal distribution.

        Args:
            null: The hypothetical value.

        Returns:
            Probability of an estimate this high or higher, in [0, 1].
        """
        if self.error <= 0:
            return float(self.value <= null)
        return 0.5 * math.erfc((self.value - null) / self.error / math.sqrt(2))

    def __str__(self) -> str:
        return f"{self.value:.5f} ± {self.error:.5f}"


class Curve(NamedTuple):
    """A number at each noise level with its standard error, each of shape `(L,)`."""

    mean: NDArray[np.float64]
    error: NDArray[np.float64]


def known_optimum(denoise: DenoiserFunction) -> Reference:
    """Return the reference of a population whose denoiser is known.

    Args:
        denoise: The exact denoiser of the population, such as `GaussianMixture.denoise`, in standardised units.

    Returns:
        A reference for `OptimumProbe` and `diagnose`: from noisy points `(B, D)`, a noise level and optional indices of
        training rows `(B,)` to two estimates of the optimal denoised points, here twice the exact ones, `(B, D)`.

    Examples:
        >>> from pointdiffusion import GaussianMixture
        >>> reference = known_optimum(GaussianMixture([1.0], [[0.0]], [[[1.0]]]).denoise)
        >>> reference(torch.tensor([[1.0]]), torch.tensor(1.0), None)  # half of the noisy point
        (tensor([[0.5000]]), tensor([[0.5000]]))
    """

    def reference(x: Tensor, sigma: Tensor, owner: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        denoised = denoise(x, sigma)
        return denoised, denoised

    return reference


def sampled_optimum(points: Tensor) -> Reference:
    """Return the reference estimated from a large sample: the optimal denoisers of its two halves.

    Args:
        points: Fresh rows of the population in random order, shape `(N, D)`, standardised.

    Returns:
        A reference as `known_optimum` returns it, of two independent estimates.

    Examples:
        >>> reference = sampled_optimum(torch.tensor([[-1.0], [1.0]]))
        >>> reference(torch.tensor([[0.5]]), torch.tensor(1.0), None)  # each half is one point
        (tensor([[-1.]]), tensor([[1.]]))
    """
    halves = [EmpiricalDenoiser(part) for part in points.chunk(2)]

    def reference(x: Tensor, sigma: Tensor, owner: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        return halves[0](x, sigma), halves[1](x, sigma)

    return reference


def left_out_mean(x: Tensor, points: Tensor, width: Tensor, owner: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the posterior mean and the log mass of Gaussian kernels around all points but each row's own.

    Args:
        x: Points, shape `(B, D)`.
        points: Centres of the kernels, shape `(N, D)`.
        width: Standard deviation of the kernels for each row, shape `(B, 1)`.
        owner: Index of the centre that each row leaves out, shape `(B,)`; none from N on, and none if None.

    Returns:
        Means, shape `(B, D)`, and logarithms of the sums of the kernels without their constant, shape `(B,)`.
    """
    means, masses = [], []
    for part in torch.arange(len(x)).split(max(1, 2**21 // len(points))):
        logits = torch.cdist(x[part], points, compute_mode="donot_use_mm_for_euclid_dist").square_()
        logits *= -0.5 / width[part] ** 2
        if owner is not None:
            there = torch.nonzero(owner[part] < len(points))[:, 0]
            logits[there, owner[part][there]] = -torch.inf
        means.append(logits.softmax(dim=1) @ points)
        masses.append(logits.logsumexp(dim=1))
    return torch.cat(means), torch.cat(masses)


def kernel_bandwidth(points: Tensor) -> float:
    """Return the bandwidth with the highest leave-one-out likelihood of a Gaussian kernel density.

    Args:
        points: Rows, shape `(N, D)`, N at least 2.

    Returns:
        The bandwidth, in units of the points: the best of 25 from 0.005 to 2 standard deviations.
    """
    rows = torch.arange(min(len(points), 512))
    candidates = np.geomspace(0.005, 2.0, 25) * float(points.std(dim=0).square().mean().sqrt())

    def likelihood(width: float) -> float:
        widths = torch.full((len(rows), 1), width, dtype=points.dtype)
        mass = left_out_mean(points[rows], points, widths, rows)[1]
        return float(mass.mean()) - points.shape[1] * math.log(width)

    return float(max(candidates, key=likelihood))


def kernel_optimum(points: Tensor) -> Reference:
    r"""Return the reference of the kernel density of training rows, each row without itself.

    Noise of level sigma widens kernels of bandwidth h to :math:`s^2 = h^2 + \sigma^2`, and the expected clean point is
    :math:`x + \sigma^2 / s^2 (m - x)` with m the weighted mean of the rows.

    Args:
        points: Training rows, shape `(N, D)`, N at least 2, standardised.

    Returns:
        A reference as `known_optimum` returns it, of two equal estimates.
    """
    bandwidth = kernel_bandwidth(points)

    def reference(x: Tensor, sigma: Tensor, owner: Tensor | None = None) -> tuple[Tensor, Tensor]:
        sigma = sigma_rows(sigma, x)
        width = (sigma**2 + bandwidth**2).sqrt()
        denoised = x + (sigma / width) ** 2 * (left_out_mean(x, points, width, owner)[0] - x)
        return denoised, denoised

    return reference


@dataclass(frozen=True)
class Profile:
    """A denoiser between the optima, by noise level; errors in squared standard deviations, mean over coordinates.

    Args:
        sigmas: Noise levels, shape `(L,)`.
        train_loss: Loss on noisy training rows.
        memorised_loss: Loss there of the optimum of the training rows, which only memorising reaches.
        fresh_loss: Loss on noisy fresh rows.
        optimal_loss: Loss there of the population's optimum, or of what stands in for it.
        train_excess: Loss over the population's optimum on training rows; below 0 is fitted noise.
        fresh_excess: The same on fresh rows, where 0 is perfect.
        to_population: Mean squared distance to the population's optimum on noisy training rows.
        to_memory: The same to the optimum of the training rows.
        fit: Excess on training rows, summed over noise levels as it moves the points of the flow.
        gap: Excess on fresh rows over that on training rows, summed alike.
        position: Where the network stands between the population's optimum, 0, and that of the training rows, 1.
    """

    sigmas: NDArray[np.float64]
    train_loss: Curve
    memorised_loss: Curve
    fresh_loss: Curve
    optimal_loss: Curve
    train_excess: Curve
    fresh_excess: Curve
    to_population: Curve
    to_memory: Curve
    fit: Estimate
    gap: Estimate
    position: Estimate


class OptimumProbe:
    """Measures denoisers against both optima on draws that stay the same; what is exact is computed once.

    Made before training and called with the network as training goes on, it shows when memorising sets in.

    Args:
        training: Training rows, standardised, shape `(N, D)`, float64.
        fresh: Rows that are neither trained on nor part of the reference, shape `(M, D)`, float64.
        reference: The population's optimum, see `known_optimum`, `sampled_optimum` and `kernel_optimum`.
        sigmas: Noise levels, shape `(L,)`, in standard deviations of the data.
        generator: Source of randomness, on the CPU.
        exact: Whether the reference is the population's; otherwise only losses are compared on fresh rows.
        num_points: Number of noisy points at each level, of the training rows and of the fresh ones.

    Raises:
        ValueError: If there are fewer than two rows or noise levels.

    Examples:
        >>> from pointdiffusion import GaussianMixture
        >>> mixture, generator = GaussianMixture([1.0], [[0.0]], [[[1.0]]]), torch.Generator().manual_seed(0)
        >>> rows, sigmas = mixture.sample(200, generator), torch.tensor([0.1, 1.0, 10.0])
        >>> probe = OptimumProbe(
        ...     rows[:100], rows[100:], known_optimum(mixture.denoise), sigmas, generator=generator
        ... )
        >>> profile = probe(mixture.denoise)  # a perfect denoiser has no excess on fresh rows
        >>> profile.fresh_excess.mean
        array([0., 0., 0.])
    """

    def __init__(
        self, training: Tensor, fresh: Tensor, reference: Reference, sigmas: Tensor, *, generator: torch.Generator,
        exact: bool = True, num_points: int = 768,
    ) -> None:  # fmt: skip
        if min(len(training), len(fresh), len(sigmas)) < 2:
            raise ValueError("at least two training rows, two fresh rows and two noise levels are needed; give more")
        self.sigmas, self.exact, self.reference = sigmas.double(), exact, reference
        log = self.sigmas.log()
        widths = torch.zeros_like(log)
        widths[1:] += log.diff().abs() / 2
        widths[:-1] += log.diff().abs() / 2
        # A displacement at sigma shrinks by 1 / sqrt(1 + sigma^2) on its way down to the data.
        self.weights, self._widths = widths / (1 + self.sigmas**2), widths
        self._draws = [self._draw(rows, num_points, generator) for rows in (training, fresh)]
        memory = EmpiricalDenoiser(training)
        (_, x, _), _ = self._draws
        self._memory = torch.stack([memory(part, sigma) for part, sigma in zip(x, self.sigmas, strict=True)])
        self._optima = [self._optimum(draw, owned) for draw, owned in zip(self._draws, (True, False), strict=True)]

    def _draw(self, rows: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return clean points `(B, D)`, noisy ones `(L, B, D)` and the row of each `(B,)`; every row as often."""
        order = torch.randperm(len(rows), generator=generator)[:count]
        owner = order.repeat(-(-count // len(order)))
        noise = torch.randn(len(self.sigmas), len(owner), rows.shape[1], generator=generator, dtype=torch.float64)
        return rows[owner], rows[owner] + self.sigmas[:, None, None] * noise, owner

    def _optimum(self, draw: tuple[Tensor, Tensor, Tensor], owned: bool) -> tuple[Tensor, Tensor]:
        _, x, owner = draw
        pairs = [
            self.reference(part, sigma, owner if owned else None) for part, sigma in zip(x, self.sigmas, strict=True)
        ]
        return torch.stack([first for first, _ in pairs]), torch.stack([second for _, second in pairs])

    @torch.no_grad()
    def __call__(self, denoiser: DenoiserFunction, like: Tensor | None = None) -> Profile:
        """Evaluate a denoiser on the fixed draws.

        Args:
            denoiser: Any denoiser of standardised points.
            like: A tensor of the type and on the device that the denoiser computes in; float64 on the CPU if None.

        Returns:
            Losses, distances and summaries by noise level.
        """
        denoised = []
        for _, x, _ in self._draws:
            sigma = self.sigmas.repeat_interleave(x.shape[1])
            flat = x.flatten(0, 1)
            if like is not None:
                flat, sigma = flat.to(like), sigma.to(like)
            denoised.append(denoiser(flat, sigma).double().cpu().reshape(x.shape))
        (seen, _, owner), (clean, _, fresh_owner) = self._draws
        train, fresh = denoised
        (a, b), (c, d) = self._optima
        train_loss, fresh_loss = _product(train - seen, train - seen), _product(fresh - clean, fresh - clean)
        best = _product(c - clean, d - clean)
        # Given the noisy point, a training row is its memorised mean plus noise that no function of the point can know:
        # with the mean in place of the row the difference of losses is the same, and far less noisy.
        target = self._memory if self.exact else seen
        train_excess = _product(train - target, train - target) - _product(a - target, b - target)
        fresh_excess = _product(fresh - c, fresh - d) if self.exact else fresh_loss - best
        along = (_product(train - a, self._memory - b) + _product(train - b, self._memory - a)) / 2
        apart = _product(self._memory - a, self._memory - b)
        fit, both = self._total(train_excess, owner), self._total(fresh_excess, fresh_owner)
        on_memory = train - self._memory
        curves = {
            "train_loss": (train_loss, owner),
            "memorised_loss": (_product(self._memory - seen, self._memory - seen), owner),
            "fresh_loss": (fresh_loss, fresh_owner),
            "optimal_loss": (best, fresh_owner),
            "train_excess": (train_excess, owner),
            "fresh_excess": (fresh_excess, fresh_owner),
            "to_population": (_product(train - a, train - b), owner),
            "to_memory": (_product(on_memory, on_memory), owner),
        }
        gap = Estimate(both.value - fit.value, math.hypot(both.error, fit.error))
        # By 1 / sigma^2, as the divergence counts them: far up, both optima differ by the mean of the rows alone.
        nearness = self._widths / self.sigmas**2
        position = _ratio(*(_by_row(nearness @ part, owner) for part in (along, apart)))
        measured = {name: _curve(values, rows) for name, (values, rows) in curves.items()}
        return Profile(sigmas=self.sigmas.numpy(), **measured, fit=fit, gap=gap, position=position)

    def _total(self, values: Tensor, owner: Tensor) -> Estimate:
        rows = _by_row(self.weights @ values, owner)
        return Estimate(float(rows.mean()), float(rows.std()) / math.sqrt(len(rows)))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean over coordinates of the product, shape `(L, B)`."""
    return (a * b).mean(dim=-1)


def _by_row(values: Tensor, owner: Tensor) -> Tensor:
    """Return the mean of the last axis over the draws of each row: noise of one row is no independent row."""
    _, index, counts = owner.unique(return_inverse=True, return_counts=True)
    return values.new_zeros(*values.shape[:-1], len(counts)).index_add_(-1, index, values) / counts


def _curve(values: Tensor, owner: Tensor) -> Curve:
    rows = _by_row(values, owner)
    return Curve(rows.mean(dim=1).numpy(), (rows.std(dim=1) / math.sqrt(rows.shape[1])).numpy())


def _ratio(above: Tensor, below: Tensor) -> Estimate:
    """Return the ratio of two means over the same rows, with the error of its linearisation."""
    value = float(above.mean() / below.mean())
    error = float((above - value * below).std() / math.sqrt(len(above)) / below.mean().abs())
    return Estimate(value, error)
