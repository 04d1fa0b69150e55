"""Our solvers against the published packages, in their own code, on the same grid.

Where we deviate on purpose, the version is pinned and both errors are taken against the exact flow: ours is smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import peers
import pytest
import torch
from torch import Tensor

import pointdiffusion as ptd
from pointdiffusion.solvers import Multistep

MIXTURE = ptd.GaussianMixture(
    [0.3, 0.7], [[-1.0, 0.0], [1.0, 0.3]], [[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.3]]]
)
SIGMAS = ptd.KarrasSchedule(0.05, 10.0).sigmas(12)


def start(dtype: torch.dtype = torch.float64) -> Tensor:
    return MIXTURE.sample(40, torch.Generator().manual_seed(0), 10.0).to(dtype)


def lms_4() -> Multistep:
    return Multistep(4, quantity="eps", variable="sigma")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("name", "ours", "options"),
    [
        ("sample_euler", ptd.EulerODE, {}),
        ("sample_heun", ptd.HeunODE, {}),
        ("sample_dpmpp_2m", lambda: ptd.make_solver("dpmpp-2m"), {}),
        ("sample_lms", lms_4, {}),
        ("sample_dpmpp_2s_ancestral", lambda: ptd.make_solver("dpmpp-2s"), {"eta": 0.0}),
        ("sample_dpmpp_2m_sde", lambda: ptd.make_solver("dpmpp-2m"), {"eta": 0.0}),
        ("sample_dpmpp_3m_sde", lambda: ptd.make_solver("dpmpp-3m-stock"), {"eta": 0.0}),
    ],
)
def test_deterministic_samplers_of_k_diffusion(
    name: str, ours: Callable[[], ptd.Solver], options: dict[str, Any], dtype: torch.dtype
) -> None:
    """Their samplers accept our denoisers unchanged, and give our numbers."""
    sampler = getattr(peers.k_diffusion_sampling(), name)
    if "sde" in name:
        options = {**options, "noise_sampler": lambda *_: torch.zeros(40, 2, dtype=dtype)}
    # Their LMS goes on to 0 by its polynomial, where ours lands on the denoised point.
    grid = SIGMAS[:-1] if name == "sample_lms" else SIGMAS
    theirs = sampler(MIXTURE.denoise, start(dtype), grid.to(dtype), disable=True, **options)
    mine = ptd.sample(MIXTURE.denoise, start(dtype), grid, solver=ours())
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize(
    ("name", "ours", "options"),
    [
        ("sample_euler_ancestral", lambda: ptd.DDIM(1.0), {}),
        ("sample_heun", lambda: ptd.ChurnSDE(4.0, s_min=0.1, s_max=5.0, s_noise=1.01),
         {"s_churn": 4.0, "s_tmin": 0.1, "s_tmax": 5.0, "s_noise": 1.01}),
        ("sample_dpmpp_2m_sde", lambda: ptd.make_solver("sde-dpmpp-2m"), {"eta": 1.0}),
        ("sample_dpmpp_3m_sde", lambda: ptd.make_solver("sde-dpmpp-3m-stock"), {"eta": 1.0}),
    ],
)  # fmt: skip
def test_stochastic_samplers_of_k_diffusion(
    name: str, ours: Callable[[], ptd.Solver], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same noise, the same numbers."""
    module = peers.k_diffusion_sampling()
    draws = torch.randn(12, 40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    step = {"now": 0}

    levels = SIGMAS.tolist()

    def noise_sampler(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return draws[min(range(12), key=lambda k: abs(levels[k] - float(sigma)))]

    if name == "sample_heun":
        churned = [k for k in range(12) if 0.1 <= levels[k] <= 5.0]

        def randn_like(x: Tensor) -> Tensor:  # their Heun draws in every step, and uses it where it churns
            k = step["now"]
            step["now"] += 1
            return draws[k].to(x)

        monkeypatch.setattr(module.torch, "randn_like", randn_like)
        assert churned
    else:
        options = {**options, "noise_sampler": noise_sampler}
    theirs = getattr(module, name)(MIXTURE.denoise, start(), SIGMAS, disable=True, **options)
    monkeypatch.undo()
    drawn = draws
    if name == "sample_heun" and step["now"] < 12:  # they draw only where they churn
        drawn = torch.zeros_like(draws)
        for place, k in enumerate(churned):
            drawn[k] = draws[place]
    mine = ptd.sample(MIXTURE.denoise, start(), SIGMAS, solver=ours(), noise=lambda k, _: drawn[k][None])
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def diffusers_walk(scheduler: Any, sigmas: Tensor, x: Tensor, denoiser: Any) -> Tensor:
    """Walk with a diffusers scheduler of the variance-preserving kind down a grid of our noise levels.

    Its `sigmas` are the ratios of noise to signal, as ours are; its points are ours times alpha.
    """
    num_steps = len(sigmas) - 1
    scheduler.set_timesteps(num_steps)
    scheduler.sigmas = sigmas.clone()
    scheduler.timesteps = torch.arange(num_steps, 0, -1) * 10  # mere labels once the sigmas are set
    x = x / (1 + sigmas[0] ** 2).sqrt()
    for k, t in enumerate(scheduler.timesteps):
        denoised = denoiser(x * (1 + sigmas[k] ** 2).sqrt(), sigmas[k])
        x = scheduler.step(denoised, t, x).prev_sample
    return x * (1 + sigmas[-1] ** 2).sqrt()


def make_diffusers(name: str, **options: Any) -> Any:
    import diffusers

    return getattr(diffusers, name)(prediction_type="sample", **options)


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # theirs, about NumPy 2
@pytest.mark.parametrize(
    ("name", "options", "ours"),
    [
        ("DPMSolverMultistepScheduler", {"solver_order": 1}, {"order": 1}),
        (
            "DPMSolverMultistepScheduler",
            {"solver_order": 2, "final_sigmas_type": "sigma_min"},
            {"order": 2, "rule": "midpoint"},
        ),
        ("DEISMultistepScheduler", {"solver_order": 2}, {"order": 2, "quantity": "eps"}),
        ("DEISMultistepScheduler", {"solver_order": 3}, {"order": 3, "quantity": "eps"}),
        ("UniPCMultistepScheduler", {"solver_order": 1}, {"order": 1, "corrector": True, "rule": "midpoint"}),
        ("UniPCMultistepScheduler", {"solver_order": 2}, {"order": 2, "corrector": True, "rule": "midpoint"}),
        ("UniPCMultistepScheduler", {"solver_order": 3}, {"order": 3, "corrector": True, "rule": "midpoint"}),
    ],
)
def test_multistep_schedulers_of_diffusers(name: str, options: dict[str, Any], ours: dict[str, Any]) -> None:
    """The published methods are rows of our family: same grid, same numbers."""
    grid = SIGMAS[:-1]
    scheduler = make_diffusers(name, lower_order_final=False, **options)
    theirs = diffusers_walk(scheduler, grid, start(), MIXTURE.denoise)
    mine = ptd.sample(MIXTURE.denoise, start(), grid, solver=Multistep(**ours))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("package", "version", "name", "ours", "options"),
    [("k-diffusion", "0.1.1.post1", "sample_dpmpp_3m_sde", "dpmpp-3m", {"eta": 0.0})],
)
def test_where_we_deviate_we_are_nearer_to_the_truth(
    package: str, version: str, name: str, ours: str, options: dict[str, Any]
) -> None:
    """The third-order term of the published DPM-Solver++(3M) is half of what it should be."""
    assert peers.version(package) == version
    sigmas = ptd.KarrasSchedule(0.1, 2.0).sigmas(40, final_zero=False)
    x = MIXTURE.sample(40, torch.Generator().manual_seed(0), 2.0)
    exact = ptd.exact_flow(MIXTURE.denoise, x, 2.0, 0.1).x
    zero = lambda *_: torch.zeros_like(x)  # noqa: E731
    theirs = getattr(peers.k_diffusion_sampling(), name)(
        MIXTURE.denoise, x, sigmas, disable=True, noise_sampler=zero, **options
    )
    mine = ptd.sample(MIXTURE.denoise, x, sigmas, solver=ours)
    errors = [float((y - exact).square().mean().sqrt()) for y in (mine, theirs)]
    assert math.isfinite(errors[1])
    assert errors[0] < 0.7 * errors[1]
