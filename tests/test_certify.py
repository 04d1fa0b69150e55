"""The judge of samplers is judged: it passes what is right, and names what is wrong."""

from __future__ import annotations

import dataclasses
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
from pointdiffusion.diagnostics.certification import certify, main


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


def test_a_wrong_stage_is_found() -> None:
    certificate = certify(broken_midway, order=2)
    assert certificate.order == pytest.approx(1.0, abs=0.15)
    assert len(certificate.faults) == 1


def test_too_much_noise_is_found() -> None:
    certificate = certify(too_noisy)
    assert certificate.stochastic
    assert any("covariance" in fault for fault in certificate.faults)


def test_an_error_that_falls_may_still_be_large() -> None:
    """Of order 0.53 and at 0.28 in 256 steps: not a solution of the flow that is worth its name."""

    def slow(denoiser: Any, x: Tensor, sigmas: Tensor) -> Tensor:
        return ptd.sample(denoiser, x, sigmas, solver="heun") + 0.84 * (32 / (len(sigmas) - 1)) ** 0.53

    certificate = certify(slow)
    assert certificate.order == pytest.approx(0.53, abs=0.02)
    assert certificate.faults == ["the error is 0.28 in 256 steps: this is not a solution of the flow"]


def test_determinism_is_judged_on_the_finest_grid() -> None:
    """Noise that is added below a time, or on fine grids alone, must be seen where the error is."""

    def late(denoiser: Any, x: Tensor, sigmas: Tensor) -> Tensor:
        y = ptd.sample(denoiser, x, sigmas, solver="heun")
        return y + 1e-3 * torch.randn_like(y) if len(sigmas) > 200 else y

    assert certify(late).stochastic
    assert not certify("heun").stochastic


def test_a_sampler_may_write_into_its_points() -> None:
    """The points of one run must not reach the next."""

    def in_place(denoiser: Any, x: Tensor, sigmas: Tensor) -> Tensor:
        return x.copy_(ptd.sample(denoiser, x.clone(), sigmas, solver="heun"))

    assert certify(in_place).errors == certify("heun").errors


def test_moments_that_are_not_finite_are_a_fault() -> None:
    sound = certify("heun")
    broken = dataclasses.replace(
        sound, stochastic=True, mean_deviation=math.nan, covariance_errors={8: math.nan}, covariance_floor=0.01
    )
    assert len(broken.faults) == 2
    assert dataclasses.replace(sound, error_float32=math.nan).faults == ["in float32 the error is nan"]


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

    def exhausted(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("pointdiffusion.diagnostics.certification.certify", exhausted)  # as of every command of ours
    assert main(["heun"]) == 1
    assert "not enough memory" in capsys.readouterr().err
    with pytest.raises(ValueError, match="sampler must be"):
        certify(3)
