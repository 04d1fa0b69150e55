r"""Gaussian mixtures: density, score and optimal denoiser in closed form at every noise level.

Noise of level :math:`\sigma` turns the mixture :math:`\sum_k w_k N(\mu_k, C_k)` into
:math:`\sum_k w_k N(\mu_k, C_k + \sigma^2 I)`. With the responsibilities :math:`r_k(x; \sigma)` of that mixture

.. math:: D(x; \sigma) = \sum_k r_k \bigl(\mu_k + C_k (C_k + \sigma^2 I)^{-1} (x - \mu_k)\bigr) .

Each covariance is diagonalised once, :math:`C_k = Q_k \Lambda_k Q_k^T`, so a noise level only changes the eigenvalues:
nothing is factorised again, each row may have its own noise level, and responsibilities are computed from logarithms,
which stays finite far from all data.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pointdiffusion.contract import sigma_rows


class GaussianMixture:
    """A mixture of Gaussians with full covariances, exact at every noise level.

    Its bound method `denoise` is a denoiser: `sample(mixture.denoise, x, sigmas)`.

    Args:
        weights: Weights of the components, shape `(K,)`; positive, they sum to one.
        means: Means, shape `(K, D)`.
        covariances: Covariances, shape `(K, D, D)`; symmetric positive semi-definite. A variance of 0 is allowed, but
            then there is no density at noise level 0.
        labels: Class of each component, shape `(K,)`, integers from 0; by default each component is its own class.

    Raises:
        ValueError: If shapes do not fit, weights do not sum to one, or a matrix is no covariance.

    Examples:
        >>> mixture = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[[0.0]], [[0.0]]])
        >>> mixture.denoise(torch.tensor([[0.5]]), torch.tensor(1.0))  # tanh(0.5)
        tensor([[0.4621]])
        >>> mixture.log_prob(torch.tensor([[0.0]]), sigma=1.0)  # log N(1; 0, 1)
        tensor([-1.4189])
        >>> mixture.sample(3, torch.Generator().manual_seed(0)).shape
        torch.Size([3, 1])
    """

    def __init__(self, weights: Any, means: Any, covariances: Any, labels: Any = None) -> None:
        self.weights, self.means, self.covariances = (
            torch.as_tensor(value, dtype=torch.float64).detach().cpu() for value in (weights, means, covariances)
        )
        self.labels = torch.arange(len(self.weights)) if labels is None else torch.as_tensor(labels).cpu()
        _check(self.weights, self.means, self.covariances, self.labels)
        variances, self._axes = torch.linalg.eigh(self.covariances)  # (K, D), (K, D, D)
        self._variances = variances.clamp(min=0)  # rounding may leave -1e-17
        self._casts: dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    @property
    def n_dims(self) -> int:
        """Number of dimensions D."""
        return self.means.shape[1]

    @property
    def mean(self) -> Tensor:
        """Mean of the mixture, shape `(D,)`."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Tensor:
        """Covariance of the mixture, shape `(D, D)`."""
        offsets = self.means - self.mean
        return torch.einsum("k,kij->ij", self.weights, self.covariances) + (offsets.T * self.weights) @ offsets

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return log weights, means, variances and axes in the type and on the device of `x`."""
        if x.ndim != 2 or x.shape[1] != self.n_dims:
            raise ValueError(f"points must have shape (B, {self.n_dims}), got {tuple(x.shape)}")
        key = (x.dtype, x.device)
        if key not in self._casts:
            parts = (self.weights.log(), self.means, self._variances, self._axes)
            self._casts[key] = tuple(part.to(x) for part in parts)
        return self._casts[key]

    def _components(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """Return log weight plus log density `(B, K)`, coordinates along the axes and variances there, `(B, K, D)`."""
        log_weights, means, variances, axes = self._parts(x)
        total = variances + sigma_rows(sigma, x)[..., None] ** 2  # (B, K, D)
        along = torch.einsum("bki,kij->bkj", x[:, None] - means, axes)  # (B, K, D)
        log_joint = log_weights - 0.5 * (along**2 / total + (2 * math.pi * total).log()).sum(dim=2)
        return log_joint, along, total

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0, labels: Tensor | None = None) -> Tensor:
        """Return the log-density of the mixture convolved with Gaussian noise of level `sigma`.

        Args:
            x: Points, shape `(B, D)`.
            sigma: Noise level, a scalar or shape `(B,)`, in units of the points.
            labels: Class of each row, shape `(B,)`, to return the density given that class; -1 for unknown.

        Returns:
            Log-densities in nats, shape `(B,)`.

        Raises:
            ValueError: If shapes do not fit, a covariance is singular and `sigma` is 0, or a label has no component.
        """
        if bool((self._variances.min() == 0) & (torch.as_tensor(sigma) == 0).any()):
            raise ValueError("a covariance is singular, so there is no density at sigma 0; pass sigma > 0")
        log_joint = self._components(x, sigma)[0]
        if labels is None:
            return log_joint.logsumexp(dim=1)
        other = self._others(labels, x)
        log_prior = self._parts(x)[0].expand_as(other).masked_fill(other, -torch.inf).logsumexp(dim=1)
        return log_joint.masked_fill(other, -torch.inf).logsumexp(dim=1) - log_prior

    def _others(self, labels: Tensor, x: Tensor) -> Tensor:
        """Return which components are of another class than a row, shape `(B, K)`.

        Raises:
            ValueError: If a label has no component.
        """
        if not bool(torch.isin(labels.cpu(), torch.cat([self.labels, self.labels.new_tensor([-1])])).all()):
            classes = sorted(set(self.labels.tolist()))
            raise ValueError(f"labels must be -1 or one of the classes {classes}, got {labels.unique().tolist()}")
        labels = labels.to(x.device)
        return (labels[:, None] >= 0) & (labels[:, None] != self.labels.to(x.device))

    def label_posterior(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """Return the probability of each class given noisy points.

        Args:
            x: Points, shape `(B, D)`.
            sigma: Noise level, a scalar or shape `(B,)`, in units of the points.

        Returns:
            Probabilities, shape `(B, C)` with C one more than the largest class; rows sum to one.

        Raises:
            ValueError: If shapes do not fit.
        """
        responsibilities = self._components(x, sigma)[0].softmax(dim=1)
        classes = int(self.labels.max()) + 1
        return responsibilities.new_zeros(len(x), classes).index_add(1, self.labels.to(x.device), responsibilities)

    def denoise(
        self, x: Tensor, sigma: Tensor | float, labels: Tensor | None = None, **condition: Any
    ) -> Tensor:  # fmt: skip
        r"""Return the posterior mean :math:`E[x_0 | x; \sigma]`, the formula of the module.

        Args:
            x: Noisy points, shape `(B, D)`.
            sigma: Noise level, a scalar or shape `(B,)`, in units of the points.
            labels: Class of each row, shape `(B,)`; -1 for unknown.
            condition: Refused; here because the contract of denoisers has it.

        Returns:
            Denoised points, shape `(B, D)`, in the type and on the device of `x`.

        Raises:
            ValueError: If shapes do not fit, a label has no component, or there is another condition.
        """
        if condition:
            raise ValueError(f"a mixture supports no condition but labels, got {', '.join(condition)}")
        log_joint, along, total = self._components(x, sigma)
        if labels is not None:
            log_joint = log_joint.masked_fill(self._others(labels, x), -torch.inf)
        _, means, variances, axes = self._parts(x)
        responsibilities = log_joint.softmax(dim=1)  # (B, K)
        # At sigma 0 a singular direction is 0 / 0: nothing is noise there, nothing moves either.
        shrinkage = torch.where(total > 0, variances / total.clamp(min=torch.finfo(x.dtype).tiny), 1.0)
        moved = torch.einsum("bk,bkj,kij->bi", responsibilities, shrinkage * along, axes)
        return responsibilities @ means + moved

    def score(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        r"""Return :math:`\nabla_x \log p(x; \sigma)`; at sigma 0 as well, where there is a density.

        Args:
            x: Points, shape `(B, D)`.
            sigma: Noise level, a scalar or shape `(B,)`, in units of the points.

        Returns:
            Scores, shape `(B, D)`, in one over units of the points.

        Raises:
            ValueError: If shapes do not fit.
        """
        log_joint, along, total = self._components(x, sigma)
        return -torch.einsum("bk,bkj,kij->bi", log_joint.softmax(dim=1), along / total, self._parts(x)[3])

    def sample(self, num_samples: int, generator: torch.Generator, sigma: float = 0.0) -> Tensor:
        """Draw points of the mixture plus Gaussian noise of level `sigma`.

        Args:
            num_samples: Number of points.
            generator: Source of randomness, on the CPU.
            sigma: Noise level, in units of the points.

        Returns:
            Points, shape `(num_samples, D)`, float64.

        Raises:
            ValueError: If `num_samples` is below 1.
        """
        return self.sample_with_labels(num_samples, generator, sigma)[0]

    def sample_with_labels(
        self, num_samples: int, generator: torch.Generator, sigma: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Draw the points of `sample` together with the class of each.

        Args:
            num_samples: Number of points.
            generator: Source of randomness, on the CPU.
            sigma: Noise level, in units of the points.

        Returns:
            Points, shape `(num_samples, D)`, float64, and classes, shape `(num_samples,)`, integers.

        Raises:
            ValueError: If `num_samples` is below 1.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        chosen = torch.multinomial(self.weights, num_samples, replacement=True, generator=generator)
        noise = torch.randn(num_samples, self.n_dims, generator=generator, dtype=torch.float64)
        return self._placed(noise, chosen, sigma), self.labels[chosen]

    def sample_labels(self, labels: Tensor, generator: torch.Generator, sigma: float = 0.0) -> Tensor:
        """Draw one point for each of some classes, plus Gaussian noise of level `sigma`.

        Args:
            labels: Classes, shape `(B,)`; -1 draws from the whole mixture.
            generator: Source of randomness, on the CPU.
            sigma: Noise level, in units of the points.

        Returns:
            Points, shape `(B, D)`, float64.

        Raises:
            ValueError: If a label has no component.
        """
        noise = torch.randn(len(labels), self.n_dims, generator=generator, dtype=torch.float64)
        weights = self.weights.expand(len(labels), -1).masked_fill(self._others(labels, noise), 0.0)
        chosen = torch.multinomial(weights, 1, generator=generator)[:, 0]
        return self._placed(noise, chosen, sigma)

    def _placed(self, noise: Tensor, chosen: Tensor, sigma: float) -> Tensor:
        """Return standard normal numbers as points of the chosen components, shape `(B, D)`."""
        scaled = noise * (self._variances + sigma**2).sqrt()[chosen]
        return self.means[chosen] + torch.einsum("bj,bij->bi", scaled, self._axes[chosen])

    def to_plain(self) -> dict[str, Tensor]:
        """Return the parameters as tensors, for a file: `GaussianMixture(**mixture.to_plain())` equals the mixture.

        Returns:
            Weights `(K,)`, means `(K, D)`, covariances `(K, D, D)` and labels `(K,)`, by name.
        """
        parts = {
            "weights": self.weights, "means": self.means, "covariances": self.covariances, "labels": self.labels
        }  # fmt: skip
        return {name: part.contiguous() for name, part in parts.items()}  # a common covariance is one, seen many times

    def condition(self, label: int) -> GaussianMixture:
        """Return the distribution of one class.

        Args:
            label: The class.

        Returns:
            The components of that class, their weights divided by their sum.

        Raises:
            ValueError: If no component has that label.
        """
        inside = self.labels == label
        if not bool(inside.any()):
            raise ValueError(f"there is no class {label}; the classes are {sorted(set(self.labels.tolist()))}")
        weights = self.weights[inside]
        return GaussianMixture(
            weights / weights.sum(), self.means[inside], self.covariances[inside], self.labels[inside]
        )

    def posterior(self, matrix: Any, y: Any, noise: float = 0.0) -> GaussianMixture:
        r"""Return the distribution of x given one observation :math:`y = A x + s \epsilon`, a mixture again.

        Component k becomes :math:`N(\mu_k + G (y - A \mu_k), (I - G A) C_k)` with
        :math:`G = C_k A^T (A C_k A^T + s^2 I)^{-1}`, and its weight is multiplied by the density of y under it.

        Args:
            matrix: A, shape `(M, D)`.
            y: The observation, shape `(M,)`.
            noise: Standard deviation s of the noise, in units of y; 0 is an exact observation.

        Returns:
            The posterior, a mixture of at most as many components.

        Raises:
            ValueError: If shapes do not fit, the noise is negative, or the observation has no density.
        """
        a, y = (torch.as_tensor(value, dtype=torch.float64).detach().cpu() for value in (matrix, y))
        check_observation(a, y, self.n_dims, noise, rows=False)
        spread = a @ self.covariances @ a.T + noise**2 * torch.eye(len(y), dtype=torch.float64)  # (K, M, M)
        factor, failed = torch.linalg.cholesky_ex(spread)
        pivots, sizes = factor.diagonal(dim1=1, dim2=2), spread.diagonal(dim1=1, dim2=2)
        if bool(failed.any() | (pivots**2 < 1e-13 * sizes).any()):  # rounding may leave a singular matrix its factor
            raise ValueError(
                "the observation has no density: its rows depend on each other, or a covariance is singular along "
                "them; give it noise"
            )
        gain = torch.cholesky_solve(a @ self.covariances, factor).mT  # (K, D, M)
        off = y - self.means @ a.T
        density = torch.distributions.MultivariateNormal(self.means @ a.T, scale_tril=factor).log_prob(y)
        log_weights = (self.weights.log() + density).log_softmax(dim=0)
        rest = torch.eye(self.n_dims, dtype=torch.float64) - gain @ a
        covariances = rest @ self.covariances @ rest.mT + noise**2 * gain @ gain.mT  # a sum of squares: never negative
        positive = log_weights > -700  # exp() of less is 0
        weights, means = log_weights[positive].exp(), self.means + torch.einsum("kdm,km->kd", gain, off)
        size = self.covariances[positive].diagonal(dim1=1, dim2=2).amax(dim=1)[:, None]
        result = GaussianMixture(
            weights / weights.sum(), means[positive], _cleaned(covariances[positive], size), self.labels[positive]
        )
        # What was observed exactly has no variance, and no density; rounding must not give it one.
        result._variances = torch.where(result._variances > 1e-14 * size, result._variances, 0.0)
        return result

    def sample_tilted(self, num_samples: int, label: int, scale: float, generator: torch.Generator) -> Tensor:
        r"""Draw from :math:`p(x | c)\, p(c | x)^{w - 1}`, normalised, exactly, by rejection.

        Guidance of strength w is often said to draw from this distribution. Points of the class are accepted with
        probability :math:`p(c | x)^{w - 1}`; below w = 1, points of the whole mixture with probability
        :math:`p(c | x)^w`.

        Args:
            num_samples: Number of points.
            label: The class c.
            scale: The strength w, at least 0; 1 is the class itself, 0 the whole mixture.
            generator: Source of randomness, on the CPU.

        Returns:
            Points, shape `(num_samples, D)`, float64.

        Raises:
            ValueError: If there is no such class, the strength is negative or so high that hardly a point is accepted,
                or a covariance is singular.
        """
        if not 0 <= scale < math.inf:
            raise ValueError(f"scale must be 0 or above, got {scale}")
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        proposal, power = (self.condition(label), scale - 1) if scale >= 1 else (self, scale)
        self.log_prob(self.means[:1])  # refuses a covariance that is singular
        accepted: list[Tensor] = []
        missing, seen = num_samples, 0
        while missing > 0:
            x = proposal.sample(min(max(1024, 2 * missing), 2**18), generator)
            chance = torch.rand(len(x), generator=generator, dtype=torch.float64)
            accepted.append(x[chance < self.label_posterior(x)[:, label] ** power][:missing])
            missing, seen = missing - len(accepted[-1]), seen + len(x)
            if seen > 1e5 * (num_samples - missing + 10):
                raise ValueError(f"at strength {scale:g} fewer than 1 point in 100,000 is accepted; take a lower one")
        return torch.cat(accepted)

    @classmethod
    def from_sklearn(cls, mixture: Any) -> GaussianMixture:
        """Make the mixture from a fitted `sklearn.mixture.GaussianMixture` of any covariance type.

        Args:
            mixture: The fitted estimator.

        Returns:
            The same distribution, each component its own class.

        Raises:
            ValueError: If the estimator is not fitted.
        """
        if not hasattr(mixture, "covariances_"):
            raise ValueError("the scikit-learn mixture is not fitted; call its fit first")
        count, n_dims = mixture.means_.shape
        stored = torch.as_tensor(mixture.covariances_, dtype=torch.float64)
        eye = torch.eye(n_dims, dtype=torch.float64)
        full = {
            "full": lambda: stored,
            "tied": lambda: stored.expand(count, n_dims, n_dims),
            "diag": lambda: torch.diag_embed(stored),
            "spherical": lambda: stored[:, None, None] * eye,
        }[mixture.covariance_type]()
        weights = torch.as_tensor(mixture.weights_, dtype=torch.float64)
        return cls(weights / weights.sum(), mixture.means_, full)

    def to_sklearn(self) -> Any:
        """Return the mixture as a `sklearn.mixture.GaussianMixture` that scores and samples.

        Returns:
            The fitted estimator, with full covariances.

        Raises:
            ValueError: If a covariance is singular.
        """
        from sklearn.mixture import GaussianMixture as SklearnMixture

        if float(self._variances.min()) <= 0:
            raise ValueError("a covariance is singular, which scikit-learn does not allow; add a small variance to it")
        mixture = SklearnMixture(len(self.weights), covariance_type="full")
        mixture.weights_, mixture.means_ = self.weights.numpy().copy(), self.means.numpy().copy()
        mixture.covariances_ = self.covariances.numpy().copy()
        factors = torch.linalg.cholesky(self.covariances)
        eye = torch.eye(self.n_dims, dtype=torch.float64).expand_as(factors)
        # scikit-learn's factor of a precision is the inverse transposed of that of the covariance
        mixture.precisions_cholesky_ = torch.linalg.solve_triangular(factors, eye, upper=False).mT.numpy().copy()
        mixture.precisions_ = torch.linalg.inv(self.covariances).numpy().copy()
        mixture.n_features_in_, mixture.converged_ = self.n_dims, True
        return mixture


def _check(weights: Tensor, means: Tensor, covariances: Tensor, labels: Tensor) -> None:
    """Raise a ValueError unless the parameters are those of a mixture."""
    count = len(weights) if weights.ndim == 1 else 0
    if count == 0 or means.ndim != 2 or len(means) != count or means.shape[1] == 0:
        raise ValueError(
            f"weights (K,) and means (K, D) do not fit: got shapes {tuple(weights.shape)} and {tuple(means.shape)}"
        )
    n_dims = means.shape[1]
    if covariances.shape != (count, n_dims, n_dims):
        raise ValueError(f"covariances must have shape {(count, n_dims, n_dims)}, got {tuple(covariances.shape)}")
    if not all(bool(part.isfinite().all()) for part in (weights, means, covariances)):
        raise ValueError("weights, means and covariances must be finite numbers")
    if bool((weights <= 0).any()) or abs(float(weights.sum()) - 1) > 1e-6:
        raise ValueError(
            f"weights must be positive and sum to one, got a sum of {float(weights.sum()):.6g}; divide by it"
        )
    size = covariances.abs().amax(dim=(1, 2))
    if bool(((covariances - covariances.mT).abs().amax(dim=(1, 2)) > 1e-6 * size).any()):
        raise ValueError("covariances must be symmetric")
    if bool((torch.linalg.eigvalsh(covariances).amin(dim=1) < -1e-6 * size).any()):
        raise ValueError("a covariance has a negative variance; it must be positive semi-definite")
    if labels.shape != (count,) or labels.is_floating_point() or bool((labels < 0).any()):
        raise ValueError(f"labels must be one class number, 0 or above, for each of {count} components")


def _cleaned(covariances: Tensor, size: Tensor) -> Tensor:
    """Return covariances `(K, D, D)` without the variances that are only rounding of numbers of `size`, `(K, 1)`."""
    variances, axes = torch.linalg.eigh((covariances + covariances.mT) / 2)
    return (axes * torch.where(variances > 1e-14 * size, variances, 0.0)[:, None]) @ axes.mT


def check_observation(matrix: Tensor, y: Tensor, n_dims: int, noise: float, *, rows: bool = True) -> None:
    """Raise a ValueError unless `y` can be `matrix @ x` plus noise.

    Args:
        matrix: Shape `(M, D)`, or with `rows` `(B, M, D)`.
        y: Shape `(M,)`, or with `rows` `(B, M)`.
        n_dims: Number of dimensions D.
        noise: Standard deviation of the noise.
        rows: Whether each row of a table may have its own observation.

    Raises:
        ValueError: If a shape does not fit, a number is not finite, or the noise is negative.
    """
    if matrix.ndim not in ((2, 3) if rows else (2,)) or matrix.shape[-1] != n_dims or 0 in matrix.shape:
        raise ValueError(f"the matrix of an observation must have shape (M, {n_dims}), got {tuple(matrix.shape)}")
    if y.ndim not in ((1, 2) if rows else (1,)) or y.shape[-1] != matrix.shape[-2]:
        raise ValueError(
            f"an observation by a matrix of {matrix.shape[-2]} rows must have that many values, got shape "
            f"{tuple(y.shape)}; give " + ("one row of them for each point" if rows else "one observation at a time")
        )
    if rows and y.ndim == 2 and matrix.ndim == 3 and len(y) != len(matrix):
        raise ValueError(f"got matrices for {len(matrix)} points and observations for {len(y)}; give equal numbers")
    if not bool(y.isfinite().all() and matrix.isfinite().all()):
        raise ValueError("the observation must be finite numbers; leave out the rows that were not observed")
    if not 0 <= noise < math.inf:
        raise ValueError(f"the noise of an observation must be a standard deviation, 0 or above, got {noise}")
