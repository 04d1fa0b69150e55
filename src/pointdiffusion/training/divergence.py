r"""Whether training has diverged: its loss beside that of a network that predicts the mean.

The network inside a preconditioned denoiser is trained towards :math:`(x_0 - c_{skip} x) / c_{out}`. One that has
learned nothing but the mean of that, and so does not look at its input, makes the denoiser

.. math:: D(x; \sigma) = c_{skip} x + (1 - c_{skip}) \mu , \quad c_{skip} = \sigma_d^2 / (\sigma_d^2 + \sigma^2) ,

which is exact for :math:`N(\mu, \sigma_d^2 I)`. On data of covariance :math:`\Sigma` its loss is

.. math:: E_\sigma\; \lambda(\sigma) \bigl((1 - c_{skip})^2\, \mathrm{tr}\, \Sigma / D + c_{skip}^2 \sigma^2\bigr) ,

1 for standardised data and the loss `karras`. (A denoiser that predicts the mean of the *data* at every noise level is
far worse at low levels, 725 on levels from 0.01 to 10: many a ruined network would pass beside it.)
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pointdiffusion.contract import DenoiserFunction

DIVERGED = 2.0
"""Training has diverged where its final loss is this many times that of a network that predicts the mean.

Networks of the library start as one that predicts zero, since their last layer is zero. On moons, Student t and
Gaussian rows, with and without classes, runs of 1 to 400 steps ended at 0.62 to 1.2 times that loss with rates up to
1e-3, and often at 2 to 1e27 times it with rates from 0.002. Both losses are taken on the same draws, so chance hardly
enters.
"""

WRECKED = 100.0
"""It has also diverged where the loss was this many times as high, and the network has learned nothing at the end.

Such a network no longer depends on its input: at a rate of 1 the loss rose to 3e27 and ended at 1.000 times that of the
mean. With rates up to 1e-3 it rose to at most 21 times that.
"""

LEARNED = 0.98
"""A network has learned something where its loss is this share of that of a network that predicts the mean, or less."""


def mean_denoiser(mean: Tensor, sigma_data: float) -> DenoiserFunction:
    """Return the denoiser of a network that predicts the mean of its target, whatever its input.

    Args:
        mean: Mean of the data, shape `(D,)`.
        sigma_data: Standard deviation of the data that the preconditioning assumes.

    Returns:
        A denoiser of points `(B, D)` at noise levels `(B,)`.
    """

    def denoise(x: Tensor, sigma: Tensor, **_condition: Any) -> Tensor:
        c_skip = (sigma_data**2 / (sigma_data**2 + sigma**2))[:, None]
        return c_skip * x + (1 - c_skip) * mean

    return denoise


def divergence(loss: float, *, mean_loss: float, start_loss: float, highest_loss: float) -> str | None:
    """Return a description of how training has diverged; None where it has not.

    A custom network may start at a high loss, and is then compared with its start.

    Args:
        loss: Loss at the end.
        mean_loss: Loss of a network that predicts the mean.
        start_loss: Loss before training.
        highest_loss: Highest loss that was seen in between.

    Returns:
        A clause for an error message, or None.

    Examples:
        >>> divergence(0.7, mean_loss=1.0, start_loss=1.0, highest_loss=1.1)
        >>> divergence(50.0, mean_loss=1.0, start_loss=1.0, highest_loss=60.0)
        'its loss ended at 50, and a network that predicts nothing but the mean has 1'
    """
    least, highest = max(mean_loss, start_loss), max(loss, highest_loss)
    if loss <= DIVERGED * least and (highest <= WRECKED * least or loss <= LEARNED * mean_loss):
        return None
    rose = f"its loss rose to {highest:.4g} and" if highest > DIVERGED * loss else "its loss"
    return f"{rose} ended at {loss:.4g}, and a network that predicts nothing but the mean has {mean_loss:.4g}"
