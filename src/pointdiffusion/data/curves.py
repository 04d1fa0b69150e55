"""Point sets on curves in the plane, and on sheets above them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pointdiffusion.data.base import Dataset, Labels, unlabelled
from pointdiffusion.data.densities import (
    TAIL,
    Arc,
    grid_entropy,
    log_arcs,
    log_circles,
    log_uniform,
    require_noise,
    uniform_entropy,
)
from pointdiffusion.runtime.arrays import Array


@dataclass(frozen=True, kw_only=True)
class _Sheet(Dataset):
    """A curve in the plane of the first and last column; in three dimensions a sheet with a height between them."""

    n_dims: int = 2
    scaling_factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_dims not in (2, 3):
            raise ValueError(f"the {self._title} has 2 or 3 dimensions, not {self.n_dims}")
        if not 0 < self.scaling_factor < np.inf:
            raise ValueError(f"scaling_factor must be positive, got {self.scaling_factor}")

    @property
    @abstractmethod
    def _title(self) -> str:
        """What messages call it."""

    @property
    @abstractmethod
    def _height(self) -> float:
        """Height of the sheet."""

    @property
    @abstractmethod
    def _arcs(self) -> Sequence[Arc]:
        """Return the parts of the curve, before scaling."""

    @property
    @abstractmethod
    def _corners(self) -> tuple[Array, Array]:
        """Return corners of a box around the curve, before scaling and without noise."""

    def _log_density(self, points: Array) -> Array:
        table = points * self.scaling_factor
        log_p = log_arcs(table[:, [0, -1]], self._arcs, self.noise)
        if self.n_dims == 3:
            log_p = log_p + log_uniform(table[:, 1], 0.0, self._height, self.noise)
        return log_p + self.n_dims * math.log(self.scaling_factor)

    def _entropy(self) -> float:
        require_noise(self.noise)
        low, high = self._corners
        margin = TAIL * self.noise
        curve = grid_entropy(lambda x: log_arcs(x, self._arcs, self.noise), low - margin, high + margin, self.noise)
        height = uniform_entropy(self._height, self.noise) if self.n_dims == 3 else 0.0
        return curve + height - self.n_dims * math.log(self.scaling_factor)


@dataclass(frozen=True, kw_only=True)
class SwissRoll(_Sheet):
    r"""Scikit-learn's Swiss roll; in two dimensions the spiral that one sees from its side.

    The spiral is :math:`t (\cos t, \sin t)` with t uniform from :math:`1.5 \pi` to :math:`4.5 \pi`.

    Args:
        n_dims: 2 for the spiral, 3 for the roll, whose second column is the height, uniform from 0 to 21.
        noise: Standard deviation of the noise, in units before scaling (the roll is about 25 wide).
        scaling_factor: What coordinates are divided by.
    """

    scaling_factor: float = 10.0

    _title = "Swiss roll"
    _height = 21.0

    def _draw(self, n_samples: int, random_state: int | None) -> tuple[Array, Labels]:
        from sklearn.datasets import make_swiss_roll

        points, _ = make_swiss_roll(n_samples, noise=self.noise, random_state=random_state)
        return unlabelled(np.asarray(points[:, [0, 2]] if self.n_dims == 2 else points) / self.scaling_factor)

    @property
    def _arcs(self) -> Sequence[Arc]:
        low, high = 1.5 * math.pi, 4.5 * math.pi

        def position(t: Array) -> Array:
            return t[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1)

        return [Arc(low, high, position, math.hypot(high, 1.0), 1 / (high - low))]

    @property
    def _corners(self) -> tuple[Array, Array]:
        return np.full(2, -4.5 * math.pi), np.full(2, 4.5 * math.pi)


@dataclass(frozen=True, kw_only=True)
class SCurve(_Sheet):
    r"""Scikit-learn's S-curve, in three dimensions; in two the letter that one sees from its side.

    The letter is :math:`(\sin t, \pm(\cos t - 1))` with t uniform from :math:`-1.5 \pi` to :math:`1.5 \pi` and
    the sign of t; the second of three columns is the height, uniform from 0 to 2.

    Args:
        n_dims: 3 for the sheet, 2 for the letter.
        noise: Standard deviation of the noise, in units before scaling.
        scaling_factor: What coordinates are divided by.
    """

    n_dims: int = 3

    _title = "S-curve"
    _height = 2.0

    def _draw(self, n_samples: int, random_state: int | None) -> tuple[Array, Labels]:
        from sklearn.datasets import make_s_curve

        points, _ = make_s_curve(n_samples, noise=self.noise, random_state=random_state)
        return unlabelled(np.asarray(points[:, [0, 2]] if self.n_dims == 2 else points) / self.scaling_factor)

    @property
    def _arcs(self) -> Sequence[Arc]:
        def position(t: Array) -> Array:
            return np.stack([np.sin(t), np.sign(t) * (np.cos(t) - 1)], axis=1)

        end = 1.5 * math.pi
        # The curvature jumps at 0: two smooth arcs.
        return [Arc(-end, 0.0, position, 1.0, 0.5 / end), Arc(0.0, end, position, 1.0, 0.5 / end)]

    @property
    def _corners(self) -> tuple[Array, Array]:
        return np.array([-1.0, -2.0]), np.array([1.0, 2.0])


@dataclass(frozen=True, kw_only=True)
class Moons(Dataset):
    """Two interleaving half circles of radius 1; the class is the half circle.

    Args:
        noise: Standard deviation of the noise.
    """

    noise: float = 0.05

    n_classes = 2

    def _draw(self, n_samples: int, random_state: int | None) -> tuple[Array, Labels]:
        rng = np.random.default_rng(random_state)
        angle = rng.uniform(0, np.pi, n_samples)
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        lower = rng.integers(2, size=(n_samples, 1))
        points = np.where(lower, [1.0, 0.5] - circle, circle) + self.noise * rng.normal(size=(n_samples, 2))
        return points, lower[:, 0]

    def _log_density(self, points: Array) -> Array:
        def upper(t: Array) -> Array:
            return np.stack([np.cos(t), np.sin(t)], axis=1)

        def lower(t: Array) -> Array:
            return np.array([1.0, 0.5]) - upper(t)

        return log_arcs(points, [Arc(0.0, np.pi, each, 1.0, 0.5 / np.pi) for each in (upper, lower)], self.noise)

    def _entropy(self) -> float:
        return self._grid_entropy([-1.0, -0.5], [2.0, 1.0])


@dataclass(frozen=True, kw_only=True)
class Spirals(Dataset):
    r"""Two spirals from the origin, each the other one turned by half a turn; the class is the arm.

    The arms are :math:`\pm t (\cos t, \sin t) / 3` with t up to :math:`3 \pi`, evenly spread over the disk.

    Args:
        noise: Standard deviation of the noise.
    """

    noise: float = 0.1

    n_classes = 2

    def _draw(self, n_samples: int, random_state: int | None) -> tuple[Array, Labels]:
        rng = np.random.default_rng(random_state)
        t = 3 * np.pi * np.sqrt(rng.uniform(size=n_samples))
        arm = rng.integers(2, size=n_samples)
        points = self._position(t) * (1 - 2 * arm[:, None])
        return points + self.noise * rng.normal(size=(n_samples, 2)), arm

    @staticmethod
    def _position(t: Array) -> Array:
        return t[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1) / 3

    def _log_density(self, points: Array) -> Array:
        end = 3 * np.pi
        speed = math.hypot(end, 1.0) / 3
        arms = (self._position, lambda t: -self._position(t))
        return log_arcs(points, [Arc(0.0, end, arm, speed, lambda t: t / end**2) for arm in arms], self.noise)

    def _entropy(self) -> float:
        return self._grid_entropy(-np.pi, np.pi)


@dataclass(frozen=True, kw_only=True)
class Circles(Dataset):
    """Circles around the origin, all equally likely; the class is the circle.

    Args:
        radii: Their radii.
        noise: Standard deviation of the noise.

    Raises:
        ValueError: If there is no radius, or one is not positive.
    """

    noise: float = 0.05
    radii: tuple[float, ...] = (1.0, 0.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.radii or not all(0 < radius < np.inf for radius in self.radii):
            raise ValueError(f"radii must be positive numbers, at least one, got {self.radii}")

    @property
    def n_classes(self) -> int:
        """Number of circles."""
        return len(self.radii)

    def _draw(self, n_samples: int, random_state: int | None) -> tuple[Array, Labels]:
        rng = np.random.default_rng(random_state)
        angle = rng.uniform(0, 2 * np.pi, n_samples)
        circle = rng.integers(len(self.radii), size=n_samples)
        points = np.array(self.radii)[circle, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return points + self.noise * rng.normal(size=(n_samples, 2)), circle

    def _log_density(self, points: Array) -> Array:
        return log_circles(points, np.array(self.radii), self.noise)

    def _entropy(self) -> float:
        return self._grid_entropy(-max(self.radii), max(self.radii))
