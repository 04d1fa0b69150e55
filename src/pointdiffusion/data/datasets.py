"""The named point sets.

Curves under noise, areas, and mixtures of Gaussians. Each is an instance of its class with its own default settings;
other settings are arguments of the call.

Examples:
    >>> points = DATASETS["moons"](1000, noise=0.1, random_state=0)
    >>> points.shape
    (1000, 2)
    >>> sorted(DATASETS)[:3]
    ['checkerboard', 'circles', 'eight-gaussians']
    >>> round(DATASETS["checkerboard"].entropy(), 4)  # uniform on an area of 8
    2.0794
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pointdiffusion.data.base import Dataset, Labels, unlabelled
from pointdiffusion.data.curves import Circles, Moons, SCurve, Spirals, SwissRoll
from pointdiffusion.data.densities import TAIL, by_rows, log_sum_exp, log_uniform
from pointdiffusion.runtime.arrays import Array

if TYPE_CHECKING:
    from pointdiffusion.exact.mixtures import GaussianMixture


@dataclass(frozen=True, kw_only=True)
class Checkerboard(Dataset):
    """Uniform on the eight dark squares of side 1 of a 4 x 4 board around the origin.

    Args:
        noise: Standard deviation of the Gaussian noise.
    """

    def _draw(self, n_samples: int, random_state: int | None) -> tuple[Array, Labels]:
        rng = np.random.default_rng(random_state)
        column, pair = rng.integers(4, size=n_samples), rng.integers(2, size=n_samples)
        corner = np.stack([column, 2 * pair + column % 2], axis=1) - 2.0
        points = corner + rng.uniform(size=(n_samples, 2)) + self.noise * rng.normal(size=(n_samples, 2))
        return unlabelled(points)

    def _log_density(self, points: Array) -> Array:
        def rows(some: Array) -> Array:
            corners = [(column - 2.0, 2 * pair + column % 2 - 2.0) for column in range(4) for pair in range(2)]
            x, y = some.T
            each = [log_uniform(x, a, a + 1, self.noise) + log_uniform(y, b, b + 1, self.noise) for a, b in corners]
            return log_sum_exp(np.stack(each, axis=1)) - math.log(len(corners))

        return by_rows(rows, points, 8)

    def _entropy(self) -> float:
        return math.log(8.0) if self.noise == 0 else self._grid_entropy(-2.0, 2.0)


@dataclass(frozen=True, kw_only=True)
class Pinwheel(Dataset):
    """Five arms of a pinwheel; the class is the arm. Without noise its density is in closed form.

    A Gaussian around (2, 0), 0.6 long and 0.2 wide, is turned by the angle of its arm and, the further out the
    more, by :math:`e^{r/2} / 4`. A rotation by an angle that depends on the radius r alone preserves areas, so the
    density is that of the Gaussian at the point rotated back.

    Args:
        noise: Standard deviation of the Gaussian noise; the density requires 0.
    """

    n_classes = 5

    @staticmethod
    def _turned(points: Array, angle: Array) -> Array:
        cos, sin = np.cos(angle), np.sin(angle)
        x, y = points.T
        return np.stack([cos * x - sin * y, sin * x + cos * y], axis=1)

    @staticmethod
    def _twist(points: Array) -> Array:
        return np.exp(np.linalg.norm(points, axis=1) / 2) / 4

    def _draw(self, n_samples: int, random_state: int | None) -> tuple[Array, Labels]:
        rng = np.random.default_rng(random_state)
        straight = np.array([2.0, 0.0]) + np.array([0.6, 0.2]) * rng.normal(size=(n_samples, 2))
        arm = rng.integers(5, size=n_samples)
        points = self._turned(straight, 2 * np.pi * arm / 5 + self._twist(straight))
        return points + self.noise * rng.normal(size=(n_samples, 2)), arm

    def _log_density(self, points: Array) -> Array:
        if self.noise > 0:
            raise ValueError("the pinwheel has a density in closed form only without noise; pass noise=0")
        twist = self._twist(points)
        back = np.stack([self._turned(points, -2 * np.pi * arm / 5 - twist) for arm in range(5)], axis=1)
        squares = (((back - [2.0, 0.0]) / [0.6, 0.2]) ** 2).sum(axis=2)  # (B, 5)
        return log_sum_exp(-squares / 2) - math.log(5 * 2 * math.pi * 0.6 * 0.2)

    def _entropy(self) -> float:
        # The arms thin out with the radius as the twist grows, 0.2 wide where they are thick.
        return self._grid_entropy(-7.5, 7.5, width=0.05)


@dataclass(frozen=True, kw_only=True)
class _Gaussians(Dataset):
    """A mixture of Gaussians; the class is the component."""

    @abstractmethod
    def _clean(self) -> GaussianMixture:
        """Return the mixture without noise."""

    def mixture(self, **settings: object) -> GaussianMixture:
        """Return the set as a Gaussian mixture, exact at every noise level.

        Args:
            settings: Settings of the set, by name.

        Returns:
            The mixture, its classes those of the set.

        Raises:
            ValueError: If a setting is out of range.
            TypeError: If the set has no such setting.
        """
        import torch

        from pointdiffusion.exact.mixtures import GaussianMixture

        chosen = self.with_settings(**settings)
        clean = chosen._clean()
        noise = chosen.noise**2 * torch.eye(clean.n_dims, dtype=torch.float64)
        return GaussianMixture(clean.weights, clean.means, clean.covariances + noise)

    def _log_density(self, points: Array) -> Array:
        import torch

        return np.asarray(self.mixture().log_prob(torch.from_numpy(points)).numpy())


@dataclass(frozen=True, kw_only=True)
class Dots(_Gaussians):
    """Equal round Gaussians of standard deviation `noise`; the class is the Gaussian.

    Args:
        noise: Their standard deviation.
        centres: Their centres, pairs of numbers.
    """

    centres: tuple[tuple[float, float], ...]

    @property
    def n_classes(self) -> int:
        """Number of Gaussians."""
        return len(self.centres)

    def _clean(self) -> GaussianMixture:
        from pointdiffusion.exact.mixtures import GaussianMixture

        count = len(self.centres)
        return GaussianMixture(np.full(count, 1 / count), np.array(self.centres), np.zeros((count, 2, 2)))

    def _draw(self, n_samples: int, random_state: int | None) -> tuple[Array, Labels]:
        rng = np.random.default_rng(random_state)
        dot = rng.integers(len(self.centres), size=n_samples)
        return np.array(self.centres)[dot] + self.noise * rng.normal(size=(n_samples, 2)), dot

    def _entropy(self) -> float:
        centres = np.array(self.centres)
        return self._grid_entropy(centres.min(axis=0), centres.max(axis=0))


@dataclass(frozen=True, kw_only=True)
class RandomMixture(_Gaussians):
    """A mixture of Gaussians in any number of dimensions: standard normal means, covariances in random directions.

    Args:
        noise: Standard deviation of additional noise.
        n_dims: Number of dimensions.
        n_components: Number of Gaussians; the class is the Gaussian.
        smallest_std: Least standard deviation along an axis of a Gaussian.
        largest_std: Largest; standard deviations are log-uniform between the two.
        mixture_seed: Seed of the mixture's parameters, as `random_state` is the seed of the points.

    Raises:
        ValueError: If a setting is out of range.
    """

    n_dims: int = 8
    n_components: int = 10
    smallest_std: float = 0.05
    largest_std: float = 0.7
    mixture_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_dims < 1 or self.n_components < 1:
            raise ValueError(f"n_dims and n_components must be at least 1, got {self.n_dims}, {self.n_components}")
        if not 0 < self.smallest_std <= self.largest_std < np.inf:
            raise ValueError(
                f"smallest_std must be positive and at most largest_std, got {self.smallest_std}, {self.largest_std}"
            )

    @property
    def n_classes(self) -> int:
        """Number of Gaussians."""
        return self.n_components

    def _clean(self) -> GaussianMixture:
        from pointdiffusion.exact.mixtures import GaussianMixture

        rng = np.random.default_rng(self.mixture_seed)
        weights = rng.dirichlet(np.full(self.n_components, 5.0))
        means = rng.normal(size=(self.n_components, self.n_dims))
        low, high = math.log(self.smallest_std), math.log(self.largest_std)
        stds = np.exp(rng.uniform(low, high, size=(self.n_components, self.n_dims)))
        axes, _ = np.linalg.qr(rng.normal(size=(self.n_components, self.n_dims, self.n_dims)))
        return GaussianMixture(weights, means, np.einsum("kij,kj,klj->kil", axes, stds**2, axes))

    def _draw(self, n_samples: int, random_state: int | None) -> tuple[Array, Labels]:
        rng = np.random.default_rng(random_state)
        clean = self._clean()
        component = rng.choice(self.n_components, size=n_samples, p=clean.weights.numpy())
        factors = np.linalg.cholesky(clean.covariances.numpy())
        points = clean.means.numpy()[component]
        points = points + np.einsum("bij,bj->bi", factors[component], rng.normal(size=points.shape))
        return points + self.noise * rng.normal(size=points.shape), component

    def _entropy(self) -> float:
        means, reach = self._clean().means.numpy(), TAIL * self.largest_std
        return self._grid_entropy(means.min(axis=0) - reach, means.max(axis=0) + reach, width=self.smallest_std)


_RING = tuple((2 * math.cos(math.pi * i / 4), 2 * math.sin(math.pi * i / 4)) for i in range(8))
_GRID = tuple((float(x), float(y)) for x in range(-4, 5, 2) for y in range(-4, 5, 2))

swiss_roll = SwissRoll()
moons = Moons()
checkerboard = Checkerboard()
eight_gaussians = Dots(centres=_RING, noise=0.15)

DATASETS: dict[str, Dataset] = {
    "swiss-roll": swiss_roll,
    "moons": moons,
    "checkerboard": checkerboard,
    "eight-gaussians": eight_gaussians,
    "circles": Circles(),
    "rings": Circles(radii=(0.75, 1.5, 2.25, 3.0), noise=0.08),
    "spirals": Spirals(),
    "pinwheel": Pinwheel(),
    "twenty-five-gaussians": Dots(centres=_GRID, noise=0.1),
    "swiss-roll-3d": SwissRoll(n_dims=3),
    "s-curve": SCurve(),
    "random-mixture": RandomMixture(),
}
"""Point sets by name."""
