"""The judge of samplers is judged: it passes what is right, and names what is wrong."""

from __future__ import annotations

import itertools
import math
import sys
from typing import Any

import peers
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

import pointdiffusion as ptd
from pointdiffusion.evaluation.certify import certify, main


def broken_midway(denoiser: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    """Heun's method with the wrong sigma in its second stage."""
    for sigma, below in itertools.pairwise(sigmas):
        slope = (x - denoiser(x, sigma)) / sigma
        y = x + (below - sigma) * slope
        if below > 0:
            slope = (slope + (y - denoiser(y, sigma)) / sigma) / 2
        x = x + (below - sigma) * slope
    return x


def too_noisy(denoiser: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    """Ancestral sampling with a tenth too much noise."""
    for sigma, below in itertools.pairwise(sigmas):
        fresh = below * (1 - (below / sigma) ** 2).sqrt()
        old = (below**2 - fresh**2).sqrt()
        denoised = denoiser(x, sigma)
        x = denoised + old / sigma * (x - denoised) + 1.1 * fresh * torch.randn_like(x)
    return x


@pytest.mark.parametrize("name", ["heun", "unipc-3", "angular-3", "ddim", "sde-dpmpp-2m"])
def test_what_is_right_passes(name: str) -> None:
    certificate = certify(name)
    assert certificate.faults == []
    assert certificate.stochastic == bool(ptd.make_solver(name).noises)
    assert "as it should be" in str(certificate)


def test_orders_of_k_diffusion() -> None:
    """The published third-order sampler is of second order, and the certificate says so."""
    module = peers.k_diffusion_sampling()
    assert certify(module.sample_dpmpp_2m, order=2).faults == []

    def third(denoiser: Any, x: Tensor, sigmas: Tensor) -> Tensor:
        return module.sample_dpmpp_3m_sde(
            denoiser, x, sigmas, disable=True, eta=0.0, noise_sampler=lambda *_: torch.zeros_like(x)
        )

    certificate = certify(third, order=3)
    assert certificate.order == pytest.approx(2.0, abs=0.25)
    assert any("not the declared 3" in fault for fault in certificate.faults)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_a_scheduler_of_diffusers_that_breaks_at_zero() -> None:
    """UniPC with `bh1` divides by what is 0 at a final noise level of 0; the version is pinned with the finding."""
    import diffusers

    assert diffusers.__version__ == "0.42.1"
    scheduler = diffusers.UniPCMultistepScheduler(prediction_type="sample", solver_order=2, solver_type="bh1")
    certificate = certify(scheduler)
    assert math.isnan(certificate.error_at_zero)
    assert any("not finite" in fault for fault in certificate.faults)
    sound = certify(diffusers.DPMSolverMultistepScheduler(prediction_type="sample", solver_order=2), order=2)
    assert sound.order == pytest.approx(2.0, abs=0.15)


def test_a_wrong_stage_is_found() -> None:
    certificate = certify(broken_midway, order=2)
    assert certificate.order == pytest.approx(1.0, abs=0.15)
    assert len(certificate.faults) == 1


def test_too_much_noise_is_found() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        certificate = certify(too_noisy)
    assert certificate.stochastic
    assert any("covariance" in fault for fault in certificate.faults)


def test_evaluations_are_counted_and_drawn() -> None:
    certificate = certify("heun")
    assert certificate.nfe == {32: 64, 64: 128, 128: 256, 256: 512}
    ax = certificate.plot(Figure().add_subplot())
    assert list(ax.lines[0].get_xdata()) == [64, 128, 256, 512]


def test_the_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """0 where all is well, 1 where a fault is found, 2 and one sentence where there is no such sampler."""
    monkeypatch.setitem(sys.modules, "somebodys", sys.modules[__name__])
    assert main(["heun"]) == 0
    assert "order 2.0" in capsys.readouterr().out
    assert main(["somebodys:broken_midway", "--order", "2"]) == 1
    assert "not the declared 2" in capsys.readouterr().out
    for wrong in ("nothing", "no.such.module:f", "math:nothing"):
        assert main([wrong]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
    with pytest.raises(ValueError, match="a sampler is"):
        certify(3)
