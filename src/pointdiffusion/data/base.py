r"""What a named point set is: a distribution with settings, to sample from and to compare with.

Each set is a clean distribution, on a curve, an area or a few dots, plus Gaussian noise. So the density of a set
at the noise :math:`\sqrt{s^2 + \sigma^2}` is that of the set at noise :math:`s` after the forward diffusion to the
level :math:`\sigma`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pointdiffusion.data.densities import TAIL, grid_entropy, require_noise
from pointdiffusion.runtime.arrays import Array

Labels = NDArray[np.int64]


def unlabelled(points: Array) -> tuple[Array, Labels]:
    """Return points together with the class of each, where there is a single class.

    Args:
        points: Points, shape `(N, D)`.

    Returns:
        The points, and zeros of shape `(N,)`.
    """
    return points, np.zeros(len(points), dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """A point set: a distribution to call for points, with its density.

    Rows are independent draws in random order, so any subset is a sample of the same distribution. Each method takes
    settings by name, which replace those of the set for that call.

    Args:
        noise: Standard deviation of the Gaussian noise, in units of the points.

    Raises:
        ValueError: If a setting is out of range.

    Examples:
        >>> from pointdiffusion import DATASETS
        >>> moons = DATASETS["moons"]
        >>> points, labels = moons.sample_with_labels(1000, noise=0.1, random_state=0)
        >>> points.shape, labels.shape, moons.n_classes
        ((1000, 2), (1000,), 2)
        >>> bool(abs(moons.entropy(noise=0.1) + moons.log_prob(points, noise=0.1).mean()) < 0.1)
        True
    """

    noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise < np.inf:
            raise ValueError(f"noise must be finite and not negative, got {self.noise}")

    @property
    def n_dims(self) -> int:
        """Number of columns."""
        return 2

    @property
    def n_classes(self) -> int:
        """Number of classes; 1 if there are none, and then all labels are 0."""
        return 1

    def __call__(self, n_samples: int, *, random_state: int | None = None, **settings: Any) -> Array:
        """Draw points.

        Args:
            n_samples: Number of points.
            random_state: Seed; None draws different points each time.
            settings: Settings of the set, by name.

        Returns:
            Points, shape `(n_samples, n_dims)`, float64.

        Raises:
            ValueError: If an argument is out of range.
            TypeError: If the set has no such setting.
        """
        return self.sample_with_labels(n_samples, random_state=random_state, **settings)[0]

    def sample_with_labels(
        self, n_samples: int, *, random_state: int | None = None, **settings: Any
    ) -> tuple[Array, Labels]:
        """Draw the same points as a call of the set, together with the class of each.

        Args:
            n_samples: Number of points.
            random_state: Seed; None draws different points each time.
            settings: Settings of the set, by name.

        Returns:
            Points, shape `(n_samples, n_dims)`, and classes, integers from 0, shape `(n_samples,)`.

        Raises:
            ValueError: If an argument is out of range.
            TypeError: If the set has no such setting.
        """
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, got {n_samples}")
        return self.with_settings(**settings)._draw(n_samples, random_state)

    def log_prob(self, points: ArrayLike, **settings: Any) -> Array:
        """Return the log-density of points.

        Args:
            points: Points, shape `(B, n_dims)`.
            settings: Settings of the set, by name.

        Returns:
            Log-densities in nats, shape `(B,)`.

        Raises:
            ValueError: If the points do not fit or are not finite, or if the set has no density without noise.
            TypeError: If the set has no such setting.
        """
        chosen = self.with_settings(**settings)
        table = np.asarray(points, dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != chosen.n_dims:
            raise ValueError(f"points must have shape (B, {chosen.n_dims}), got {table.shape}")
        if not np.isfinite(table).all():
            raise ValueError("points must be finite, got NaN or an infinite value")
        return chosen._log_density(table)

    def entropy(self, **settings: Any) -> float:
        """Return the differential entropy, in closed form or by quadrature.

        Args:
            settings: Settings of the set, by name.

        Returns:
            Entropy in nats; its error is below 1e-6.

        Raises:
            ValueError: If there is no density, or the grid of the quadrature would be too large.
            TypeError: If the set has no such setting.
        """
        return self.with_settings(**settings)._entropy()

    def with_settings(self, **settings: Any) -> Self:
        """Return the set with other settings.

        Args:
            settings: Settings of the set, by name.

        Returns:
            A set of the same class.

        Raises:
            ValueError: If a setting is out of range.
            TypeError: If the set has no such setting.
        """
        names = [field.name for field in fields(self)]
        for name in settings:
            if name not in names:
                raise TypeError(f"{type(self).__name__} has no setting {name!r} (it has {', '.join(names)})")
        return replace(self, **settings)

    @abstractmethod
    def _draw(self, n_samples: int, random_state: int | None) -> tuple[Array, Labels]:
        """Return points `(n_samples, n_dims)` and labels `(n_samples,)`."""

    @abstractmethod
    def _log_density(self, points: Array) -> Array:
        """Return the log-density of finite points `(B, n_dims)`, shape `(B,)`."""

    @abstractmethod
    def _entropy(self) -> float:
        """Return the entropy in nats."""

    def _grid_entropy(self, low: ArrayLike, high: ArrayLike, width: float | None = None) -> float:
        """Return the entropy by quadrature.

        Args:
            low: Lower corner of a box that holds the set without noise, shape `(n_dims,)` or one number.
            high: Its upper corner.
            width: Standard deviation of the narrowest Gaussian in the density; by default the noise.
        """
        if width is None:
            require_noise(self.noise)
        corners = [np.broadcast_to(np.asarray(corner, dtype=np.float64), self.n_dims) for corner in (low, high)]
        margin = TAIL * self.noise
        return grid_entropy(self._log_density, corners[0] - margin, corners[1] + margin, width or self.noise)
