r"""Schedulers of diffusers, driven as its pipelines drive them: on their own time steps and in their own scale.

A scheduler holds :math:`x_t = \alpha_t x_0 + \sigma_t \epsilon` and asks a network for one of four quantities. Each is
a formula of the denoised point :math:`D(x_t / \alpha_t, \sigma_t / \alpha_t)`:

=================== ==========================================================================================
`prediction_type`   what the network returns
=================== ==========================================================================================
`sample`            :math:`D`
`epsilon`           :math:`\epsilon = (x_t - \alpha_t D) / \sigma_t`
`v_prediction`      :math:`(\alpha_t \epsilon - \sigma_t D) / \sqrt{\alpha_t^2 + \sigma_t^2}`
`flow_prediction`   :math:`\epsilon - D`
=================== ==========================================================================================

Three scales occur: variance preserving (:math:`\alpha^2 + \sigma^2 = 1`), variance exploding (:math:`\alpha = 1`) and
flow (:math:`\alpha + \sigma = 1`). A flow starts at :math:`\alpha = 0`, where the level is infinite; `HIGHEST` stands
in for it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

HIGHEST = 1e6
"""Highest noise level: the points of a flow at time 1 are pure noise; at this level the data are a millionth of it."""

FRACTIONS = (40, 20, 10, 5)
"""The training steps are divided by these, so that every spacing of time steps comes out even."""

_BY_TIME = (
    "DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler", "CogVideoXDDIMScheduler",
    "CogVideoXDPMScheduler", "PNDMScheduler", "UnCLIPScheduler",
)  # fmt: skip
"""Variance preserving, with levels by training step."""

_BY_SIGMA = (
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DEISMultistepScheduler", "SASolverScheduler",
    "UniPCMultistepScheduler",
)  # fmt: skip
"""Variance preserving, or flow with `use_flow_sigmas`, with a grid of noise levels."""

_EXPLODING = (
    "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler", "LMSDiscreteScheduler", "DPMSolverSDEScheduler", "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler", "CosineDPMSolverMultistepScheduler",
)  # fmt: skip

_FLOW = (
    "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMapEulerDiscreteScheduler",
    "LTXEulerAncestralRFScheduler", "MiniMaxH3Scheduler",
)  # fmt: skip

COVERED = (*_BY_TIME, *_BY_SIGMA, *_EXPLODING, *_FLOW, "IPNDMScheduler", "DDPMWuerstchenScheduler")
"""Schedulers that can be measured, by class; a subclass counts as its base."""

_TOKENS = "it steps through discrete tokens, not through points"
_CONSISTENCY = "it takes a network that maps to the end of the flow in one step, not a denoiser"
_INVERSE = "it goes from data to noise, and a certificate measures the opposite direction"
_STAGES = "it changes the size of images between its stages"

REFUSED = {
    "AmusedScheduler": _TOKENS,
    "BlockRefinementScheduler": _TOKENS,
    "DiscreteDDIMScheduler": _TOKENS,
    "EntropyBoundScheduler": _TOKENS,
    "VQDiffusionScheduler": _TOKENS,
    "CMStochasticIterativeScheduler": _CONSISTENCY,
    "ConsistencyDecoderScheduler": _CONSISTENCY,
    "FlowMatchLCMScheduler": _CONSISTENCY,
    "LCMScheduler": _CONSISTENCY,
    "SCMScheduler": _CONSISTENCY,
    "TCDScheduler": _CONSISTENCY,
    "PiflowScheduler": "it takes a network that returns a policy for many steps, not a denoiser",
    "DDIMInverseScheduler": _INVERSE,
    "DPMSolverMultistepInverseScheduler": _INVERSE,
    "HeliosScheduler": _STAGES,
    "HeliosDMDScheduler": _STAGES,
    "RePaintScheduler": "it fills masked parts of an image and needs that image and a mask",
    "RFD4ProteinaScheduler": "it samples at a lowered temperature, so its target is not the distribution of the data",
    "KarrasVeScheduler": "it has no `step` of one call of a network: it adds noise and corrects in calls of their own",
    "ScoreSdeVeScheduler": "it has no `step` of one call of a network: it predicts and corrects in calls of their own",
    "ScoreSdeVpScheduler": "it has no `step` of one call of a network",
}
"""Why the other schedulers of diffusers cannot be measured."""


class SchedulerSampler:
    """A scheduler of diffusers as a function of a denoiser and of points.

    Args:
        scheduler: The scheduler; each run uses a fresh one of the same configuration.

    Raises:
        ValueError: If it cannot be measured.
    """

    moment_points = 20_000
    """Fewer than for a function: the Brownian trees that some of them draw from are slow."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.name = scheduler, type(scheduler).__name__
        names = [base.__name__ for base in type(scheduler).__mro__]
        refused = next((REFUSED[name] for name in names if name in REFUSED), None)
        if refused:
            raise ValueError(f"{self.name} cannot be measured: {refused}")
        self.kind = next((name for name in names if name in COVERED), "")
        if not self.kind:
            raise ValueError(f"{self.name} cannot be measured: the scale of its points is unknown")
        config = scheduler.config
        for setting in ("clip_sample", "thresholding"):
            if config.get(setting):
                raise ValueError(
                    f"create the {self.name} with {setting}=False: it limits denoised points to [-1, 1], and the data "
                    "of a certificate exceed them"
                )
        if config.get("prediction_type") == "flow_prediction" and not config.get("use_flow_sigmas"):
            raise ValueError(
                f"create the {self.name} with use_flow_sigmas=True: prediction_type='flow_prediction' is defined "
                "on the noise levels of a flow only"
            )
        num_train = config.get("num_train_timesteps") or 1000
        if num_train < 5 * FRACTIONS[0]:
            raise ValueError(f"num_train_timesteps must be at least {5 * FRACTIONS[0]}, got {num_train}")
        self.steps = self.moment_steps = tuple(num_train // fraction for fraction in FRACTIONS)

    def grid(self, steps: int) -> Tensor:
        """Return the noise levels of its grid of `steps`, decreasing, from where it starts to where it ends."""
        scheduler = self._fresh(steps)
        levels = [_level(*self._scale(scheduler, index, t)) for index, t in enumerate(self._timesteps(scheduler))]
        start, end = levels[0], _level(*self._end(scheduler))
        inside = {level for level in levels if end < level < start}
        return torch.tensor([start, *sorted(inside, reverse=True), end], dtype=torch.float64)

    @torch.no_grad()
    def __call__(self, denoiser: Any, x: Tensor, steps: int) -> Tensor:
        """Return where points `x` of the first noise level end; noise comes from the global stream.

        Args:
            denoiser: Denoiser of points at a noise level.
            x: Points, shape `(B, D)`, data plus noise of the first level.
            steps: What `set_timesteps` is called with.

        Raises:
            ValueError: If the scheduler fails.
        """
        scheduler = self._fresh(steps)
        alpha, _ = self._scale(scheduler, 0, self._timesteps(scheduler)[0])
        try:
            x = self._run(scheduler, denoiser, alpha * x)
        except Exception as error:  # of the package, which raises many kinds
            raise ValueError(f"{self.name} fails on its own time steps: {type(error).__name__}: {error}") from error
        alpha, _ = self._end(scheduler)
        return x / alpha

    def _run(self, scheduler: Any, denoiser: Any, x: Tensor) -> Tensor:
        timesteps, previous = self._timesteps(scheduler), None
        for index, t in enumerate(timesteps):
            if hasattr(scheduler, "scale_model_input"):
                scheduler.scale_model_input(x, t)
            alpha, sigma = self._scale(scheduler, index, t)
            denoised = denoiser(x / alpha, torch.tensor(_level(alpha, sigma), dtype=x.dtype))
            output = self._output(scheduler, x, denoised, alpha, sigma)
            following = timesteps[index + 1] if index + 1 < len(timesteps) else None
            if self.kind == "CogVideoXDPMScheduler":
                back = timesteps[index - 1] if index else None
                x, previous = scheduler.step(output, previous, t, back, x)
            elif self.kind == "UnCLIPScheduler":
                x = scheduler.step(output, t, x, prev_timestep=following).prev_sample
            elif self.kind == "DDPMWuerstchenScheduler":
                x = scheduler.step(output, t.expand(len(x)), x).prev_sample
            else:
                x = scheduler.step(output, t, x).prev_sample
        return x

    def _fresh(self, steps: int) -> Any:
        scheduler = type(self.scheduler).from_config(self.scheduler.config)
        scheduler.set_timesteps(steps)
        return scheduler

    def _timesteps(self, scheduler: Any) -> Tensor:
        # Wuerstchen's pipeline leaves out the last time, which is where the last step ends.
        return scheduler.timesteps[:-1] if self.kind == "DDPMWuerstchenScheduler" else scheduler.timesteps

    def _scale(self, scheduler: Any, index: int, t: Tensor) -> tuple[float, float]:
        """Return the scale of the data and of the noise at call `index`, for time `t`."""
        if self.kind in _BY_TIME:
            return _preserving(scheduler.alphas_cumprod[int(t)])
        if self.kind == "DDPMWuerstchenScheduler":
            return _preserving(scheduler._alpha_cumprod(t, "cpu"))
        if self.kind == "IPNDMScheduler":
            return _finite(scheduler.alphas[index], scheduler.betas[index])
        if self.kind.startswith("KDPM2") and not scheduler.state_in_first_order:  # as its `scale_model_input` does
            return 1.0, float(scheduler.sigmas_interpol[index - ("Ancestral" in self.kind)])
        return self._scale_at(scheduler, scheduler.sigmas[index])

    def _scale_at(self, scheduler: Any, sigma: Tensor) -> tuple[float, float]:
        """Return both scales at an entry of its `sigmas`."""
        if self.kind in _EXPLODING:
            return 1.0, float(sigma)
        if self.kind in _FLOW:
            return _finite(1 - float(sigma), sigma)
        return _finite(*scheduler._sigma_to_alpha_sigma_t(sigma.double()))

    def _end(self, scheduler: Any) -> tuple[float, float]:
        """Return both scales where its last step arrives."""
        if self.kind in _BY_TIME:
            times = scheduler.timesteps
            previous = int(times[-1]) - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
            final = getattr(scheduler, "final_alpha_cumprod", torch.ones(()))
            return _preserving(scheduler.alphas_cumprod[previous] if previous >= 0 else final)
        if self.kind == "DDPMWuerstchenScheduler":
            return _preserving(scheduler._alpha_cumprod(scheduler.timesteps[-1], "cpu"))
        if self.kind == "IPNDMScheduler":
            return _finite(scheduler.alphas[-1], scheduler.betas[-1])
        return self._scale_at(scheduler, scheduler.sigmas[-1])

    def _output(self, scheduler: Any, x: Tensor, denoised: Tensor, alpha: float, sigma: float) -> Tensor:
        """Return what a network would answer that knows the denoised points."""
        noise = (x - alpha * denoised) / sigma
        if hasattr(scheduler, "precondition_outputs"):  # c_skip x + c_out output, with an output of its own
            level = torch.tensor(sigma, dtype=x.dtype)
            skipped = scheduler.precondition_outputs(x, torch.zeros_like(x), level)
            c_out = scheduler.precondition_outputs(torch.zeros_like(x), torch.ones_like(x), level)
            return (denoised - skipped) / c_out
        if self.kind == "MiniMaxH3Scheduler":  # its velocity points to the data
            return denoised - noise
        if self.kind in _FLOW:
            return noise - denoised
        fixed = {"IPNDMScheduler": "v_prediction", "DDPMWuerstchenScheduler": "epsilon"}
        prediction = fixed.get(self.kind) or scheduler.config.prediction_type
        if prediction == "sample":
            return denoised
        if prediction == "epsilon":
            return noise
        if prediction == "v_prediction":
            return (alpha * noise - sigma * denoised) / math.hypot(alpha, sigma)
        if prediction == "flow_prediction":
            return noise - denoised
        raise ValueError(f"prediction_type {prediction!r} is unknown")


def _level(alpha: float, sigma: float) -> float:
    return sigma / alpha


def _finite(alpha: Any, sigma: Any) -> tuple[float, float]:
    return max(float(alpha), float(sigma) / HIGHEST), float(sigma)


def _preserving(alpha_squared: Tensor) -> tuple[float, float]:
    value = float(alpha_squared)
    return _finite(math.sqrt(value), math.sqrt(1 - value))
