"""Print what certificates found in published packages, with their versions; each line is measured as it is printed.

python docs/gallery/defects.py

The packages are those of the benchmarks; `python tools/dev.py test` installs them.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="the first line only")
    args = parser.parse_args()
    for kind in (DeprecationWarning, RuntimeWarning, FutureWarning):  # of the packages
        warnings.filterwarnings("ignore", category=kind)
    import diffusers

    torch.manual_seed(0)  # the functions of k-diffusion draw from the global stream
    print("package | sampler | what was measured")
    print("--- | --- | ---")

    def line(package: str, sampler: str, measured: str) -> None:
        print(f"{package} {peers.version(package)} | {sampler} | {measured}", flush=True)

    found = []
    for kind in ("bh1", "bh2"):
        scheduler = diffusers.UniPCMultistepScheduler(prediction_type="sample", solver_type=kind)
        at_zero = ptd.certify(scheduler).error_at_zero
        found.append(f"`{kind}`: {'NaN' if math.isnan(at_zero) else f'error {at_zero:.1e}'}")
    line("diffusers", "UniPC, to a final noise level of 0", ", ".join(found))
    if args.toy:
        return
    scheduler = diffusers.DEISMultistepScheduler(use_karras_sigmas=True)
    scheduler.set_timesteps(10)
    low, last = scheduler.sigmas[-2:].tolist()
    line("diffusers", "DEIS with Karras' noise levels", f"last step from {low:.4f} to {last:.4f}, for nothing")
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
