"""What the library computes, written to JSON for the tests of the page's TypeScript.

python tests/web_fixtures.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import pointdiffusion as ptd
from pointdiffusion.networks import Part
from pointdiffusion.sampling.plans import default_plan
from pointdiffusion.web.export import base_of
from pointdiffusion.web.registry import registry

N_POINTS = 1000
STEPS = 12


def mix(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        x = ((x ^ (x >> np.uint32(shift))) * np.uint32(factor)).astype(np.uint32)
    return x


def page_normals(seed: int, stream: int, count: int) -> NDArray[np.float64]:
    """The page's own normal numbers, written a second time."""
    one = np.array([seed + 0x9E3779B9 & 0xFFFFFFFF], dtype=np.uint32)
    key = mix(mix(one) + np.uint32((stream + 1) * 0x85EBCA6B & 0xFFFFFFFF))
    index = np.arange(count + count % 2, dtype=np.uint32)
    u = (mix(mix(index * np.uint32(0x9E3779B9) + key) ^ key) + 0.5) / 2**32
    radius, angle = np.sqrt(-2 * np.log(u[::2])), 2 * np.pi * u[1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[:count]


def flat(values: Any) -> list[float]:
    return np.asarray(values, dtype=np.float64).ravel().tolist()


def solvers(truth: Any, x: Tensor) -> dict[str, Any]:
    sigmas = ptd.KarrasSchedule(0.02, 10.0).sigmas(STEPS)

    def noise(step: int, draws: int) -> Tensor:
        return torch.from_numpy(page_normals(7, 1000 + step, draws * x.numel())).reshape(draws, *x.shape)

    found = {}
    for name in registry()["solvers"]:
        for step in ptd.trajectory(truth, x, sigmas, solver=name, noise=noise):
            last = step
        found[name] = {"x": flat(last.x), "nfe": last.nfe}
    return {"sigmas": sigmas.tolist(), "start": flat(x), "seed": 7, "found": found}


def auto(truth: Any, x: Tensor) -> list[dict[str, Any]]:
    cases = []
    for nfe, sigma_max, low in [(1, 10.0, 0.0), (4, 10.0, 0.0), (10, 20.0, 0.0), (11, 5.0, 0.01), (16, 10.0, 0.03),
                                (20, 10.0, 0.0), (40, 10.0, 0.0), (40, 10.0, 0.01)]:  # fmt: skip
        _, solver, sigmas = default_plan(nfe, sigma_max, 1.0, low)
        end = ptd.sample(truth, x, sigmas, solver=solver)
        cases.append({"nfe": nfe, "sigma_max": sigma_max, "low": low, "sigmas": sigmas.tolist(), "x": flat(end)})
    return cases


def networks() -> list[dict[str, Any]]:
    cases = []
    for name, network in make_networks().items():
        bases = BASES[name.partition(" beside ")[2]]
        denoiser = ptd.KarrasDenoiser(network, 0.7 if name == "plain" else 1.0, bases).eval()
        x = torch.from_numpy(page_normals(3, 5, N_POINTS * 2)).reshape(-1, 2).float() * 2
        levels = torch.logspace(-2, 1, N_POINTS)
        labels = {"labels": torch.full((N_POINTS,), 2)} if "classes" in name else {}
        with torch.no_grad():
            each, scalar = denoiser(x, levels, **labels), denoiser(x, torch.tensor(0.3), **labels)
        cases.append({
            "name": name, "spec": network.specification(), "sigma_data": denoiser.sigma_data,
            "label": 2 if labels else -1, "sigmas": flat(levels), "each": flat(each), "scalar": flat(scalar),
            "x": flat(x), "bases": [base_of(base) for base in bases],
            "weights": {
                key: {"shape": list(value.shape), "values": flat(value)} for key, value in network.state_dict().items()
            },
        })  # fmt: skip
    return cases


SKEWED = ptd.GaussianMixture([1.0], [[0.1, -0.2]], [[[1.0, 0.6], [0.6, 0.5]]])
LUMPS = ptd.GaussianMixture(
    [0.3, 0.7], [[1.2, 0.0], [-0.5, 0.4]], [[[0.2, 0.1], [0.1, 0.3]], [[0.5, -0.2], [-0.2, 0.4]]]
)
BASES = {"": [], "a gaussian": [SKEWED], "a mixture": [LUMPS], "two": [SKEWED, LUMPS]}
"""What networks add to, by what stands in their names."""


def make_networks() -> dict[str, Part]:
    """Every part that an export can hold; all weights random, so that none is left out unseen."""
    with torch.random.fork_rng():
        torch.manual_seed(0)

        def network(blocks: list[Part], **more: Any) -> Part:
            made = ptd.ResidualMLP(
                points=ptd.FourierFeatures(2, 8), noise=ptd.NoiseEmbedding(16), blocks=blocks, n_dims=2, hidden_dim=24,
                **more,
            )  # fmt: skip
            for parameter in made.parameters():
                parameter.data += 0.2 * torch.randn_like(parameter)
            return made

        return {
            "residual": network([ptd.ResidualBlock(24, 16), ptd.ResidualBlock(24, 16)]),
            "plain": network([ptd.PlainBlock(24, 16)]),
            "mixed": network([ptd.PlainBlock(24, 16), ptd.ResidualBlock(24, 16)]),
            "no blocks": network([]),
            "average": ptd.Average([network([]), network([ptd.ResidualBlock(24, 16)])]),
            "residual beside a gaussian": network([ptd.ResidualBlock(24, 16)]),
            "classes beside a mixture": network([], condition=ptd.ConditionEmbedding(16, 3, 1, 20)),
            "average beside two": ptd.Average([network([]), network([])]),
            "classes": network([ptd.ResidualBlock(24, 16)], condition=ptd.ConditionEmbedding(16, 3, 1, 20)),
        }


def guided_starts() -> list[dict[str, Any]]:
    """Moments of the guided flow in two and in five dimensions, weak and strong guidance, low and high noise."""
    cases = []
    for dims in (2, 5):
        roots = page_normals(6, dims, 2 * dims * dims).reshape(2, dims, dims) / dims**0.5
        covariances, means = roots @ roots.transpose(0, 2, 1), page_normals(7, dims, 2 * dims).reshape(2, dims)
        for scale, sigma in ((-1.0, 2.0), (0.5, 3.0), (2.0, 2.0), (8.0, 2.0), (8.0, 40.0)):
            mean, covariance = ptd.guided_gaussian(means[0], covariances[0], means[1], covariances[1], scale, sigma)
            cases.append({
                "means": [flat(m) for m in means], "covariances": [flat(c) for c in covariances], "scale": scale,
                "sigma": sigma, "mean": flat(mean), "covariance": flat(covariance),
            })  # fmt: skip
    return cases


def fixtures() -> dict[str, Any]:
    points = torch.from_numpy(ptd.DATASETS["moons"](120, random_state=0))
    truth = ptd.EmpiricalDenoiser(points)
    z = torch.from_numpy(page_normals(5, 2, 2 * N_POINTS)).reshape(-1, 2)
    factor = torch.linalg.cholesky(torch.cov(points.T) + 100.0 * torch.eye(2))
    x = points.mean(dim=0) + z @ factor.T
    levels = torch.logspace(-2, 1, N_POINTS, dtype=torch.float64)
    noisy = points[torch.arange(N_POINTS) % 120] + levels[:, None] * z
    a, b = page_normals(1, 3, 300).reshape(-1, 2), page_normals(2, 3, 300).reshape(-1, 2) * 1.3 + 0.2
    wide = torch.from_numpy(page_normals(4, 4, 600)).reshape(-1, 3)
    wide_denoised = ptd.EmpiricalDenoiser(wide)(wide * 1.5, torch.tensor(0.4, dtype=wide.dtype))
    return {
        "normals": flat(page_normals(11, 4, 1001)),
        "points": flat(points),
        "start": {"z": flat(z), "x": flat(x)},
        "guided_starts": guided_starts(),
        "denoised": {"x": flat(noisy), "sigmas": flat(levels), "found": flat(truth(noisy, levels))},
        "wide": {"points": flat(wide), "found": flat(wide_denoised)},
        "schedules": {
            name: {str(n): kind(0.01, 20.0).sigmas(n).tolist() for n in (1, 2, 37, N_POINTS)}
            for name, kind in ptd.SCHEDULES.items()
        },
        "solvers": solvers(truth, x),
        "flow": {"x": flat(x[:50]), "found": flat(ptd.exact_flow(truth, x[:50], 10.0, 0.0).x)},
        "auto": auto(truth, x[:100]),
        "networks": networks(),
        "distances": {"a": flat(a), "b": flat(b), "w2": ptd.wasserstein2(a, b),
                      "nearest": flat(ptd.nearest_distances(a, b))},
        "registry": registry(),
    }  # fmt: skip


if __name__ == "__main__":
    Path(sys.argv[1], "fixtures.json").write_text(json.dumps(fixtures()))
