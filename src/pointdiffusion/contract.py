r"""The one contract: :math:`D(x; \sigma) = E[x_0 \mid x_0 + \sigma \epsilon = x]`, and what follows from it.

A denoiser is any callable `denoiser(x, sigma, **condition) -> denoised` with `x` of shape `(B, D)` (any `(B, *shape)`
works) and `sigma` of shape `(B,)` or a scalar tensor. Tweedie's formula turns it into everything else:

.. math:: \nabla \log p(x; \sigma) = (D - x) / \sigma^2, \qquad \hat\epsilon = (x - D) / \sigma = dx / d\sigma .
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


def sigma_rows(sigma: Tensor | float, x: Tensor) -> Tensor:
    """Return `sigma` as a column that broadcasts against `x`, shape `(B, 1, ...)`.

    Raises:
        ValueError: If it is neither a scalar nor one number for each row.
    """
    sigma = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    if sigma.ndim == 0:
        sigma = sigma.expand(len(x))
    if sigma.shape != (len(x),):
        raise ValueError(
            f"sigma must be a scalar or hold one noise level for each of {len(x)} rows, got {tuple(sigma.shape)}"
        )
    return sigma.reshape(-1, *(1,) * (x.ndim - 1))


def check_sigmas(sigmas: Tensor) -> None:
    """Check that a solver can follow noise levels.

    Args:
        sigmas: Noise levels, shape `(num_steps + 1,)`.

    Raises:
        ValueError: Unless they are at least two, finite and strictly decreasing, and none lies below 0.
    """
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise ValueError(f"sigmas must be a list of at least two noise levels, got shape {tuple(sigmas.shape)}")
    if not bool(sigmas.isfinite().all()):
        raise ValueError("sigmas must be finite, but some are NaN or infinite")
    if not bool((sigmas[1:] < sigmas[:-1]).all()) or sigmas[-1] < 0:
        raise ValueError("sigmas must decrease strictly and stay at or above 0; sort them, highest first")


class DenoiserFunction(Protocol):
    """What solvers, losses and samplers ask of a denoiser."""

    def __call__(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        """Return the expected clean points, of the shape of `x`."""
        ...


def call_denoiser(denoiser: DenoiserFunction, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
    """Return the denoised points.

    Raises:
        ValueError: If the weights of the denoiser are of another type than the points.
    """
    try:
        return denoiser(x, sigma, **condition)
    except RuntimeError as error:
        if "dtype" not in str(error):
            raise
        raise ValueError(
            f"the denoiser does not compute in the type of the points, {x.dtype} ({error}); convert either: "
            "x.float() and denoiser.float() for float32, x.double() and denoiser.double() for float64"
        ) from error


def noise_prediction(denoiser: DenoiserFunction, x: Tensor, sigma: Tensor) -> Tensor:
    r"""Return :math:`\hat\epsilon = (x - D) / \sigma`, which is also the slope of the probability flow in sigma."""
    return (x - denoiser(x, sigma)) / sigma_rows(sigma, x)
