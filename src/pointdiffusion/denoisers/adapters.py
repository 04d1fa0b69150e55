r"""Models of other families as denoisers, and denoisers as models of other families.

A model of another family sees scaled points :math:`x_t = \alpha x = \alpha x_0 + \sigma_t \epsilon` with
:math:`\sigma_t = \alpha \sigma` and its own time, and predicts one of

============ ============================================= ==========================================
prediction   what it is                                    the denoised point
============ ============================================= ==========================================
`eps`        the noise                                     x - sigma eps
`x0`         the clean point                               x0
`score`      the gradient of log p(x_t)                    x + alpha sigma^2 score
`v`          alpha eps - sigma_t x_0                       (alpha x_t - sigma_t v) / (alpha^2 + sigma_t^2)
`velocity`   dx_t / dt = eps - x_0 of rectified flow       x_t - t velocity
============ ============================================= ==========================================

(Ho et al. 2020, arXiv 2006.11239; Song et al. 2021, 2011.13456; Salimans and Ho 2022, 2202.00512, appendix D; Liu et
al. 2023, 2209.03003). The change of variables :math:`x = x_t / \alpha`, :math:`\sigma = \sigma_t / \alpha` is exact.
`from_eps(model, schedule)` is `AdaptedDenoiser(model, schedule, "eps")`, and `to_eps(denoiser, schedule)` is
`to_model(denoiser, schedule, "eps")`; likewise for the other predictions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from pointdiffusion.config import unknown_name
from pointdiffusion.contract import DenoiserFunction, sigma_rows
from pointdiffusion.denoisers.preconditioned import Denoiser
from pointdiffusion.noise import FamilySchedule, NoiseSchedule, RectifiedFlowSchedule

Model = Callable[..., Tensor]
"""A model of another family: `model(x_t, t, **condition)` with `t` of shape `(B,)`."""

PREDICTIONS = ("eps", "x0", "score", "v", "velocity")
"""What a model of another family may predict, see the table above."""


def _check(prediction: str, schedule: NoiseSchedule, time_scale: float) -> None:
    if prediction not in PREDICTIONS:
        raise unknown_name("prediction", prediction, PREDICTIONS)
    if prediction == "velocity" and not isinstance(schedule, RectifiedFlowSchedule):
        raise ValueError(
            "prediction 'velocity' requires a RectifiedFlowSchedule: a velocity is the derivative in its time"
        )
    if not time_scale > 0:
        raise ValueError(f"time_scale must be positive, got {time_scale}")


class _Function(nn.Module):
    """A plain function as a module."""

    def __init__(self, function: Model) -> None:
        super().__init__()
        self.function = function

    def forward(self, x_t: Tensor, t: Tensor, **condition: Any) -> Tensor:
        """Call it."""
        return self.function(x_t, t, **condition)


class AdaptedDenoiser(Denoiser):
    """A model of another family as a denoiser.

    Args:
        model: Called as `model(x_t, t, **condition)`, with `t` of shape `(B,)`.
        schedule: The model's noise schedule. Its time is the family's own (0..999 for `LinearBetaSchedule`, 0..1 for
            the cosine and rectified flow) or, for one without a family, the time in [0, 1] between `sigma_min` and
            `sigma_max`.
        prediction: What the model predicts, one of `PREDICTIONS`.
        time_scale: Factor of that time before the model sees it; 1000 for a model of rectified flow whose time runs to
            1000.
        sigma_data: Standard deviation of the data, for loss weights alone.

    Raises:
        ValueError: If the prediction is unknown, a velocity comes without rectified flow, or the time scale is not
            positive.

    Examples:
        >>> import torch
        >>> from pointdiffusion import CosineSchedule, from_eps
        >>> denoiser = from_eps(lambda x_t, t: 0 * x_t, CosineSchedule())  # a model that predicts no noise
        >>> denoiser(torch.tensor([[1.0, 2.0]]), torch.tensor(0.5))
        tensor([[1., 2.]])
    """

    def __init__(
        self, model: Model, schedule: NoiseSchedule, prediction: str, *, time_scale: float = 1.0,
        sigma_data: float = 1.0,
    ) -> None:  # fmt: skip
        _check(prediction, schedule, time_scale)
        super().__init__(model if isinstance(model, nn.Module) else _Function(model), sigma_data)
        self.schedule, self.prediction, self.time_scale = schedule, prediction, float(time_scale)

    def forward(self, x: Tensor, sigma: Tensor, **condition: Any) -> Tensor:
        """Return the denoised points.

        Args:
            x: Noisy points, shape `(B, D)` or `(B, *shape)`.
            sigma: Noise level, a scalar or shape `(B,)`, in units of the data.
            condition: Conditions of the model, by name.

        Returns:
            Denoised points, of the shape of `x`.
        """
        sigma = sigma_rows(sigma, x)
        alpha = self.schedule.alpha(sigma)
        time = _time(self.schedule, sigma)
        out = self.backbone(alpha * x, time.flatten() * self.time_scale, **condition)
        if self.prediction == "eps":
            return x - sigma * out
        if self.prediction == "x0":
            return out
        if self.prediction == "score":
            return x + alpha * sigma**2 * out
        if self.prediction == "v":
            return (x - sigma / alpha * out) / (1 + sigma**2)
        return alpha * x - time * out


def _time(schedule: NoiseSchedule, sigma: Tensor) -> Tensor:
    return schedule.native_time(sigma) if isinstance(schedule, FamilySchedule) else schedule.time(sigma)


def to_model(denoiser: DenoiserFunction, schedule: NoiseSchedule, prediction: str, *, time_scale: float = 1.0) -> Model:
    """Return a denoiser as a model of another family, `model(x_t, t, **condition)`; the inverse of `AdaptedDenoiser`.

    Args:
        denoiser: Any denoiser.
        schedule: The family's noise schedule.
        prediction: What the model predicts, one of `PREDICTIONS`.
        time_scale: Factor of the schedule's time that gives the model's.

    Returns:
        A function of scaled points `x_t`, shape `(B, D)`, their times `t`, shape `(B,)`, and conditions by name, to the
        prediction, shape `(B, D)`.

    Raises:
        ValueError: If the prediction is unknown, a velocity is requested without rectified flow, or the time scale is
            not positive.

    Examples:
        >>> import torch
        >>> from pointdiffusion import GaussianMixture, RectifiedFlowSchedule, to_eps
        >>> model = to_eps(GaussianMixture([1.0], [[0.0]], [[[1.0]]]).denoise, RectifiedFlowSchedule())
        >>> model(torch.tensor([[1.0]]), torch.tensor([0.5]))  # x = 2, sigma = 1: half of x is noise
        tensor([[1.]])
    """
    _check(prediction, schedule, time_scale)

    def model(x_t: Tensor, t: Tensor, **condition: Any) -> Tensor:
        time = sigma_rows(t, x_t) / time_scale
        family = isinstance(schedule, FamilySchedule)
        sigma = schedule.native_sigma(time) if family else schedule.sigma(time)  # type: ignore[attr-defined]
        alpha = schedule.alpha(sigma)
        x = x_t / alpha
        denoised = denoiser(x, sigma.flatten(), **condition)
        if prediction == "x0":
            return denoised
        if prediction == "v":
            return alpha * ((x - denoised) / sigma - sigma * denoised)
        eps = (x - denoised) / sigma
        return {"eps": eps, "score": -eps / (alpha * sigma), "velocity": eps - denoised}[prediction]

    return model


from_eps = partial(AdaptedDenoiser, prediction="eps")
from_x0 = partial(AdaptedDenoiser, prediction="x0")
from_score = partial(AdaptedDenoiser, prediction="score")
from_v = partial(AdaptedDenoiser, prediction="v")
from_velocity = partial(AdaptedDenoiser, prediction="velocity")

to_eps = partial(to_model, prediction="eps")
to_x0 = partial(to_model, prediction="x0")
to_score = partial(to_model, prediction="score")
to_v = partial(to_model, prediction="v")
to_velocity = partial(to_model, prediction="velocity")
