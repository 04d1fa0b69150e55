r"""Denoising losses and their weights over noise levels.

Every loss here is a weighted squared error of the denoised points,

.. math:: L = E_{\sigma, x_0, \epsilon}\; \lambda(\sigma)\, |D(x_0 + \sigma \epsilon; \sigma) - x_0|^2 / D ,

and differs only in :math:`\lambda`. Two choices make it:

- the *loss* names the quantity whose squared error is the loss by default: the output of the preconditioned network
  (Karras et al. 2022: :math:`\lambda = 1 / c_{out}^2`) or the noise (Ho et al. 2020: :math:`1 / \sigma^2`);
- the *weighting* `uniform` leaves that unchanged; the others replace it by a function of the signal-to-noise ratio
  :math:`\mathrm{SNR} = 1 / \sigma^2`, stated for the clean point as Hang et al. (2023) do, and so mean the same under
  either loss.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pointdiffusion.config import unknown_name


def karras_loss(sigma: Tensor, sigma_data: float) -> Tensor:
    r"""Return :math:`(\sigma^2 + \sigma_d^2) / (\sigma \sigma_d)^2` (Karras et al. 2022, table 1)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def noise_prediction_loss(sigma: Tensor, sigma_data: float) -> Tensor:  # noqa: ARG001
    r"""Return :math:`1 / \sigma^2`, the weight of L_simple (Ho et al. 2020, equation 14, arXiv 2006.11239)."""
    return 1 / sigma**2


def clean_point_loss(sigma: Tensor, sigma_data: float) -> Tensor:  # noqa: ARG001
    """Return 1, the weight of a network that predicts the clean point, of the shape of `sigma`."""
    return torch.ones_like(sigma)


def v_loss(sigma: Tensor, sigma_data: float) -> Tensor:  # noqa: ARG001
    r"""Return :math:`1 + 1 / \sigma^2`, the weight of v (Salimans and Ho 2022, appendix D, arXiv 2202.00512)."""
    return (1 + sigma**2) / sigma**2


def velocity_loss(sigma: Tensor, sigma_data: float) -> Tensor:  # noqa: ARG001
    r"""Return :math:`(1 + 1 / \sigma)^2`, the weight of the velocity :math:`\epsilon - x_0` of rectified flow."""
    return ((1 + sigma) / sigma) ** 2


def snr_weighting(sigma: Tensor, gamma: float) -> Tensor:  # noqa: ARG001
    """Return SNR (Salimans and Ho 2022, arXiv 2202.00512)."""
    return 1 / sigma**2


def min_snr_weighting(sigma: Tensor, gamma: float) -> Tensor:
    """Return min(SNR, gamma) (Hang et al. 2023, equation 10, arXiv 2303.09556)."""
    return (1 / sigma**2).clamp(max=gamma)


def soft_min_snr_weighting(sigma: Tensor, gamma: float) -> Tensor:
    """Return gamma SNR / (gamma + SNR), a smooth min (Crowson et al. 2024, section 3.4, arXiv 2401.11605)."""
    return gamma / (1 + gamma * sigma**2)


LOSSES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "karras": karras_loss,
    "noise-prediction": noise_prediction_loss,
    "x0": clean_point_loss,
    "v": v_loss,
    "velocity": velocity_loss,
}
"""Weights of the losses by name: functions of the noise level and the standard deviation of the data."""

WEIGHTINGS: dict[str, Callable[[Tensor, float], Tensor] | None] = {
    "uniform": None,
    "snr": snr_weighting,
    "min-snr": min_snr_weighting,
    "soft-min-snr": soft_min_snr_weighting,
}
"""Weightings by name: functions of the noise level and gamma; None leaves the weight of the loss."""


def loss_weight(
    sigma: Tensor, *, loss: str = "karras", weighting: str = "uniform", sigma_data: float = 1.0, gamma: float = 5.0
) -> Tensor:
    r"""Return the weight :math:`\lambda(\sigma)` of the squared error of the denoised points.

    Args:
        sigma: Noise levels, any shape.
        loss: A name of `LOSSES`.
        weighting: A name of `WEIGHTINGS`.
        sigma_data: Standard deviation of the data.
        gamma: The constant of the min-SNR weightings.

    Returns:
        Weights, of the shape of `sigma`.

    Raises:
        ValueError: If a name is unknown.

    Examples:
        >>> loss_weight(torch.tensor([0.5, 1.0, 2.0]))  # (1 + sigma^2) / sigma^2
        tensor([5.0000, 2.0000, 1.2500])
        >>> loss_weight(torch.tensor([0.1, 1.0]), weighting="min-snr", gamma=5.0)
        tensor([5., 1.])
    """
    if loss not in LOSSES:
        raise unknown_name("loss", loss, LOSSES)
    if weighting not in WEIGHTINGS:
        raise unknown_name("weighting", weighting, WEIGHTINGS)
    weight = WEIGHTINGS[weighting]
    return LOSSES[loss](sigma, sigma_data) if weight is None else weight(sigma, gamma)


def denoising_loss(denoised: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted squared error of each row, averaged over its dimensions.

    Args:
        denoised: Denoised points, shape `(B, D)` or `(B, *shape)`.
        target: Their targets, of the same shape.
        weight: Weight of each row, shape `(B,)`.

    Returns:
        Losses, shape `(B,)`.
    """
    return weight * (denoised - target).square().flatten(1).mean(dim=1)
