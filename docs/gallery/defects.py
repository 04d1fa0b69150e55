"""Print what certificates found in published packages, with their versions; each line is measured as it is printed.

python docs/gallery/defects.py
python docs/gallery/defects.py --schedulers    all schedulers of diffusers, measured or refused

The packages are those of the benchmarks; `python tools/dev.py test` installs them.
"""

from __future__ import annotations

import argparse
import inspect
import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pointdiffusion as ptd

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import peers
import work_precision


def third_order_stock(denoiser: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    """Run k-diffusion's DPM-Solver++(3M) without noise."""
    sampler = peers.k_diffusion_sampling().sample_dpmpp_3m_sde
    return sampler(denoiser, x, sigmas, disable=True, eta=0.0, noise_sampler=lambda *_: torch.zeros_like(x))


def two_stages_with_independent_noise(denoiser: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    """Run k-diffusion's two-stage stochastic sampler with fresh noise at every call, as its siblings allow."""
    sampler = peers.k_diffusion_sampling().sample_dpmpp_sde
    return sampler(denoiser, x, sigmas, disable=True, noise_sampler=lambda *_: torch.randn_like(x))


def two_stages_with_its_own_noise(denoiser: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    """Run the same with increments of one Brownian path in each step: what it was derived for."""
    sampler, first = peers.k_diffusion_sampling().sample_dpmpp_sde, {}

    def increments(high: Tensor, low: Tensor) -> Tensor:
        # Time of the path in its tree is the noise level itself; the second call covers the interval of the first.
        if "draw" not in first:
            first.update(draw=torch.randn_like(x), high=high, low=low)
            return first["draw"]
        width, total = first["high"] - first["low"], high - low
        rest = torch.randn_like(x) * (total - width).sqrt()
        whole = (first["draw"] * width.sqrt() + rest) / total.sqrt()
        first.clear()
        return whole

    return sampler(denoiser, x, sigmas, disable=True, noise_sampler=increments)


Lines = Iterator[tuple[str, str]]


def in_steps(certificate: ptd.Certificate) -> str:
    """Return the error in the most steps."""
    steps = max(certificate.errors)
    error = certificate.errors[steps]
    return "NaN" if math.isnan(error) else f"error {error:.1e} in {steps} steps"


def unipc_lines(diffusers: Any) -> Lines:
    """Measure UniPC on its default grid, which ends in 0."""
    found = []
    for settings in ({"solver_type": "bh1"}, {"predict_x0": False}, {"lower_order_final": False}, {}):
        name = ", ".join(f"{key}={value!r}" for key, value in settings.items()) or "by default"
        found.append(f"`{name}`: {in_steps(ptd.certify(diffusers.UniPCMultistepScheduler(**settings)))}")
    yield "UniPC, to a final noise level of 0", ", ".join(found).replace("`by default`", "by default")


def deis_lines(diffusers: Any) -> Lines:
    """Read the last levels of DEIS."""
    scheduler = diffusers.DEISMultistepScheduler(use_karras_sigmas=True)
    scheduler.set_timesteps(10)
    low, last = scheduler.sigmas[-2:].tolist()
    yield "DEIS with Karras' noise levels", f"last step from {low:.4f} to {last:.4f}, for nothing"


def multistep_lines(diffusers: Any) -> Lines:
    """Measure the linear multistep methods of fourth order."""
    for prediction in ("epsilon", "v_prediction"):
        certificate = ptd.certify(diffusers.PNDMScheduler(prediction_type=prediction))
        yield f"PNDM, `{prediction}`", f"order {certificate.order:.2f}, {in_steps(certificate)}"
    certificate = ptd.certify(diffusers.IPNDMScheduler())
    yield "IPNDM", f"order {certificate.order:.2f}, {in_steps(certificate)}"


def flow_lines(diffusers: Any) -> Lines:
    """Measure the stochastic steps of a flow."""
    for name, scheduler in (
        (
            "FlowMatchEuler, `stochastic_sampling=True`",
            diffusers.FlowMatchEulerDiscreteScheduler(stochastic_sampling=True),
        ),
        ("LTXEulerAncestralRF", diffusers.LTXEulerAncestralRFScheduler()),
    ):
        errors = ptd.certify(scheduler).covariance_errors or {}
        wrong = ", ".join(f"{error:.1%}" for error in errors.values())
        yield name, f"covariance wrong by {wrong} in {', '.join(map(str, errors))} steps"


def index_lines(diffusers: Any) -> Lines:
    """Try Karras' noise levels on a cosine schedule, and compare where grids start."""
    settings = {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"}
    for name in ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "KDPM2DiscreteScheduler"):
        scheduler = getattr(diffusers, name)(**settings)
        scheduler.set_timesteps(25)
        same = int((scheduler.timesteps == scheduler.timesteps[0]).sum())
        try:
            measured = in_steps(ptd.certify(scheduler))
        except ValueError as error:
            measured = type(error.__cause__).__name__
        measured += f"; {same} of 25 time steps are {float(scheduler.timesteps[0]):g}"
        yield f"{name}, Karras' noise levels of a cosine schedule", measured
    leading = {"timestep_spacing": "leading"}
    both = diffusers.DDIMScheduler(clip_sample=False, **leading), diffusers.DPMSolverMultistepScheduler(**leading)
    starts = [f"{type(scheduler).__name__} {ptd.certify(scheduler).levels[0]:.1f}" for scheduler in both]
    yield '`timestep_spacing="leading"` in 200 steps', f"first noise level: {', '.join(starts)}"


def print_schedulers(diffusers: Any) -> None:
    """Print what a certificate says of every scheduler of the package by default, but for clipping."""
    from pointdiffusion.diagnostics.schedulers import COVERED, REFUSED

    print("scheduler | noise levels | measured in 200 steps | verdict")
    print("--- | --- | --- | ---")
    for name in COVERED:
        kind = getattr(diffusers.schedulers, name)
        settings = {"clip_sample": False} if "clip_sample" in inspect.signature(kind).parameters else {}
        certificate = ptd.certify(kind(**settings))
        measured = f"error {certificate.errors[200]:.1e}, Euler {certificate.reference[200]:.1e}"
        if certificate.stochastic:
            measured = f"stochastic, covariance wrong by {certificate.covariance_error:.1%}"
        high, low = certificate.levels
        verdict = "; ".join(certificate.faults) or "as it should be"
        print(f"{name} | {high:.4g} to {low:.2g} | {measured} | {verdict}", flush=True)
    for name in sorted(REFUSED):
        print(f"{name} | | | refused: {REFUSED[name]}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="the first line only")
    parser.add_argument("--schedulers", action="store_true", help="the table of all schedulers of diffusers instead")
    args = parser.parse_args()
    for kind in (DeprecationWarning, RuntimeWarning, FutureWarning, UserWarning):  # of the packages
        warnings.filterwarnings("ignore", category=kind)
    import diffusers

    if args.schedulers:
        print_schedulers(diffusers)
        return
    print("package | sampler | what was measured")
    print("--- | --- | ---")

    def line(package: str, sampler: str, measured: str) -> None:
        print(f"{package} {peers.version(package)} | {sampler} | {measured}", flush=True)

    for line_of in (unipc_lines, *(() if args.toy else (deis_lines, multistep_lines, flow_lines, index_lines))):
        for sampler, measured in line_of(diffusers):
            line("diffusers", sampler, measured)
    if args.toy:
        return
    for order in (2, 3):
        made = ptd.certify(work_precision.azula("REABSampler", order=order), order=order)
        line("azula", f"REAB, order {order}", f"order {made.order:.2f}")
    stock, whole = ptd.certify(third_order_stock, order=3), ptd.certify("dpmpp-3m")
    line("k-diffusion", "DPM-Solver++(3M), no noise", f"order {stock.order:.2f}; with the whole term {whole.order:.2f}")
    for name, walk in (
        ("fresh noise at each call", two_stages_with_independent_noise),
        ("increments of one path", two_stages_with_its_own_noise),
    ):
        made = ptd.certify(walk)
        wrong = ", ".join(f"{error:.1%}" for error in (made.covariance_errors or {}).values())
        line("k-diffusion", f"`dpmpp_sde`, {name}", f"covariance wrong by {wrong} in 8, 16, 32, 64 steps")


if __name__ == "__main__":
    main()
