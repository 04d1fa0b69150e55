"""Schedulers of diffusers, all of them: each is measured on its own grid, or refused with a reason.

Euler's method on the same noise levels is the independent truth: whatever a scheduler of first order does in its own
scale and on its own time steps must agree with it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import schedulers

from pointdiffusion.diagnostics.certification import Certificate, certify
from pointdiffusion.diagnostics.schedulers import COVERED, REFUSED, SchedulerSampler

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{what}")
    for what in (":DeprecationWarning", ":RuntimeWarning", ":FutureWarning", "Should have t[ab]:UserWarning")
]

EULER = {
    "DDIMScheduler": {"clip_sample": False},
    "DDIMParallelScheduler": {"clip_sample": False, "prediction_type": "sample"},
    "CogVideoXDDIMScheduler": {"clip_sample": False, "prediction_type": "v_prediction"},
    "EulerDiscreteScheduler": {"prediction_type": "sample"},
    "EDMEulerScheduler": {"prediction_type": "v_prediction"},
    "FlowMatchEulerDiscreteScheduler": {},
    "FlowMapEulerDiscreteScheduler": {},
    "MiniMaxH3Scheduler": {},
}
"""Euler's method in all three scales, with all four kinds of output."""

HIGHER = {
    "DPMSolverMultistepScheduler": ({"prediction_type": "v_prediction"}, 2.07),
    "DPMSolverSinglestepScheduler": ({"prediction_type": "sample"}, 1.32),
    "DEISMultistepScheduler": ({}, 1.68),
    "UniPCMultistepScheduler": ({"prediction_type": "sample"}, 1.77),
    "PNDMScheduler": ({}, 1.39),
    "HeunDiscreteScheduler": ({}, 0.94),
    "KDPM2DiscreteScheduler": ({"prediction_type": "v_prediction"}, 1.87),
    "LMSDiscreteScheduler": ({"prediction_type": "sample"}, 3.70),
    "EDMDPMSolverMultistepScheduler": ({}, 2.12),
    "FlowMatchHeunDiscreteScheduler": ({}, 2.10),
    "IPNDMScheduler": ({}, 0.97),
}
"""With the order that shows on the default grid: a last step to noise level 0 is of first order."""

STOCHASTIC = {
    "DDPMScheduler": {"clip_sample": False},
    "DDPMParallelScheduler": {"clip_sample": False, "prediction_type": "sample"},
    "DDPMWuerstchenScheduler": {},
    "UnCLIPScheduler": {"clip_sample": False, "prediction_type": "sample"},
    "CogVideoXDPMScheduler": {"clip_sample": False, "prediction_type": "v_prediction"},
    "SASolverScheduler": {"prediction_type": "sample"},
    "EulerAncestralDiscreteScheduler": {"prediction_type": "v_prediction"},
    "KDPM2AncestralDiscreteScheduler": {},
    "LTXEulerAncestralRFScheduler": {},
    "DPMSolverSDEScheduler": {},
    "CosineDPMSolverMultistepScheduler": {},
}

BROWNIAN = ("DPMSolverSDEScheduler", "CosineDPMSolverMultistepScheduler")


def made(name: str, **settings: Any) -> Certificate:
    """Return the certificate of a scheduler of the package."""
    return certify(getattr(schedulers, name)(**settings))


def test_every_scheduler_of_the_package_is_measured_or_refused() -> None:
    """The pinned version has these and no others; a new one must be looked at."""
    assert diffusers.__version__ == "0.42.1"
    names = {name for name in dir(schedulers) if name.endswith("Scheduler")}
    assert names == {*COVERED, *REFUSED}
    assert not set(COVERED) & set(REFUSED)
    assert set(COVERED) == {*EULER, *HIGHER, *STOCHASTIC}
    page = (Path(__file__).parents[1] / "docs" / "certificates.md").read_text(encoding="utf-8")
    assert [name for name in names if f"| {name} |" not in page] == []


@pytest.mark.parametrize("name", EULER)
def test_what_is_euler_agrees_with_euler(name: str) -> None:
    certificate = made(name, **EULER[name])
    assert certificate.faults == []
    for steps, error in certificate.errors.items():
        assert error == pytest.approx(certificate.reference[steps], rel=0.01)
    assert certificate.order == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("name", HIGHER)
def test_what_is_of_higher_order_is_more_exact_than_euler(name: str) -> None:
    settings, order = HIGHER[name]
    certificate = made(name, **settings)
    assert certificate.faults == []
    assert certificate.errors[200] < certificate.reference[200] / 3
    assert certificate.order == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_what_is_stochastic_has_the_right_moments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer points than `certify` takes by itself, so that all are quick: the errors fall by far more than chance."""
    monkeypatch.setattr(SchedulerSampler, "moment_points", 1_000 if name in BROWNIAN else 4_000)
    certificate = made(name, **STOCHASTIC[name])
    assert certificate.stochastic
    assert certificate.faults == []
    assert "as it should be" in str(certificate)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_measured_is_refused_in_our_words(name: str) -> None:
    """By class, before anything of the package runs: some need arguments or other packages to be made."""
    stand_in = type(name, (), {"set_timesteps": None})()
    with pytest.raises(ValueError, match=f"^{name} cannot be measured: it"):
        certify(stand_in)
    with pytest.raises(ValueError, match=r"^Own cannot be measured"):  # so is what derives from it
        certify(type("Own", (type(stand_in),), {})())


def test_the_outputs_of_a_network_are_one_denoiser() -> None:
    """Whatever it is asked for, the points end in the same places."""
    found = [
        made("DPMSolverMultistepScheduler", prediction_type=kind) for kind in ("sample", "epsilon", "v_prediction")
    ]
    for certificate in found:
        assert certificate.errors == pytest.approx(found[0].errors, rel=1e-2)


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"])
@pytest.mark.parametrize("kind", ["flow_prediction", "epsilon"])
def test_flow_noise_levels_have_the_scale_of_a_flow(name: str, kind: str) -> None:
    """With `use_flow_sigmas` a scheduler of the variance-preserving kind holds (1 - t) x_0 + t eps."""
    certificate = made(name, use_flow_sigmas=True, prediction_type=kind)
    assert certificate.levels[0] > 990
    assert certificate.faults == []
    assert certificate.errors[200] < certificate.reference[200] / 3


def test_the_exact_answer_is_taken_where_the_grid_ends() -> None:
    """Some end at noise level 0, some at the lowest of training; a wrong end would be an error of 1e-2 or so."""
    for final, level in (("zero", 0.0), ("sigma_min", 0.01)):
        certificate = made("DPMSolverMultistepScheduler", final_sigmas_type=final)
        assert certificate.levels == (pytest.approx(157.4, rel=1e-3), pytest.approx(level, abs=1e-4))
        assert certificate.faults == []
    clean, noisy = (made("DDIMScheduler", clip_sample=False, set_alpha_to_one=one).levels[1] for one in (True, False))
    assert (clean, noisy) == (0, pytest.approx(0.01, abs=1e-4))


def test_a_terminal_level_without_signal() -> None:
    """Zero terminal SNR: the first point is pure noise, and the level has no bound."""
    settings: dict[str, Any] = {"clip_sample": False, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    certificate = made("DDIMScheduler", prediction_type="v_prediction", **settings)
    assert certificate.levels[0] == 1e6
    assert certificate.faults == []


def test_settings_that_no_certificate_can_judge() -> None:
    for settings, sentence in (
        ({"clip_sample": True}, "create the DDIMScheduler with clip_sample=False: it limits denoised points"),
        ({"clip_sample": False, "thresholding": True}, "with thresholding=False"),
        ({"clip_sample": False, "num_train_timesteps": 100}, "num_train_timesteps must be at least 200, got 100"),
    ):
        with pytest.raises(ValueError, match=sentence):
            made("DDIMScheduler", **settings)
    with pytest.raises(ValueError, match="with use_flow_sigmas=True"):
        made("DPMSolverMultistepScheduler", prediction_type="flow_prediction")
    with pytest.raises(
        ValueError, match=r"PNDMScheduler fails on its own time steps: ValueError: .* as sample must be"
    ):
        made("PNDMScheduler", prediction_type="sample")
    with pytest.raises(ValueError, match="pass an instance of DDIMScheduler, not the class"):
        certify(schedulers.DDIMScheduler)
    with pytest.raises(ValueError, match="Unheard cannot be measured: the scale of its points is unknown"):
        certify(type("Unheard", (), {"set_timesteps": None})())


def test_a_grid_that_is_too_coarse_is_said_to_be() -> None:
    """A shift of 60 leaves one step for most of the way: nothing is wrong but the grid."""
    certificate = made("FlowMatchEulerDiscreteScheduler", shift=60.0)
    assert len(certificate.faults) == 1
    assert "the grid is too coarse" in certificate.faults[0]


def test_a_scheduler_that_is_wrong_is_found() -> None:
    """A tenth too little of the predicted noise at each step: hidden by a limit on the order alone."""

    class Wrong(schedulers.DDIMScheduler):
        def step(self, model_output: Any, *args: Any, **settings: Any) -> Any:
            return super().step(0.98 * model_output, *args, **settings)

    certificate = certify(Wrong(clip_sample=False))
    assert certificate.faults
    assert "where Euler's method has" in certificate.faults[0] or "not a solution" in certificate.faults[0]


def test_unipc_breaks_at_a_last_level_of_0() -> None:
    """With `bh1` it divides by what is 0 there; the version is pinned with the finding."""
    certificate = made("UniPCMultistepScheduler", solver_type="bh1")
    assert all(math.isnan(error) for error in certificate.errors.values())
    assert certificate.faults == ["the result is not finite on a grid that ends in 0"]
    assert made("UniPCMultistepScheduler", solver_type="bh1", final_sigmas_type="sigma_min").faults == []


def test_the_global_generator_is_left_alone() -> None:
    """Schedulers draw from it; a certificate is repeatable, and gives it back."""
    state = torch.get_rng_state()
    found = [certify(schedulers.EulerAncestralDiscreteScheduler(), seed=3).errors for _ in range(2)]
    assert found[0] == found[1]
    assert torch.equal(torch.get_rng_state(), state)
