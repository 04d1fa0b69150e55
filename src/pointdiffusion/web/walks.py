"""Walks of a trained model that the page asks for: from its noise to samples, by the library.

The answer is a frame: u8 kind (3), u8 version (1), u16 columns, u32 number of the walk, u32 count, u32 noise levels,
u32 evaluations, u32 0, then the noise levels and the points at each of them, float32, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointdiffusion.config import unknown_name
from pointdiffusion.contract import DenoiserFunction, check_sigmas
from pointdiffusion.denoisers.guidance import Guided, bind
from pointdiffusion.model.diffusion_model import DiffusionModel
from pointdiffusion.sampling.loop import trajectory
from pointdiffusion.solvers import SOLVERS
from pointdiffusion.web.limits import LIMITS, SIGMA_RANGE, is_number
from pointdiffusion.web.protocol import VERSION, numbers_of, points_of, whole_of

WALK = 3
HEAD = struct.Struct("<BBHIIIII")
NETWORKS = ("trained", "given")


@dataclass(frozen=True)
class WalkRequest:
    """A walk that the page asks for.

    Args:
        number: What the page calls it.
        panel: The panel that it is for; its latest walk is the one that is wanted.
        trained: Whether it is of the network that was trained on this connection, or of the one that the server began
            with.
        x: Points at the first noise level, in standard units, shape `(B, D)`.
        solver: A name of `SOLVERS`, or "auto".
        sigmas: Decreasing noise levels, the last may be 0; of "auto" their number and the first of them alone count:
            solver and levels are then those of `DiffusionModel.plan` for as many steps.
        label: Place of a class; -1 for none.
        guidance: Strength of guidance towards it.
        seed: Seed of the noise of stochastic solvers, the page's own.
    """

    number: int
    panel: int
    trained: bool
    x: NDArray[np.float32]
    solver: str
    sigmas: NDArray[np.float64]
    label: int
    guidance: float
    seed: int


def walk_of(message: Mapping[str, Any]) -> WalkRequest:
    """Return what a message of type `walk` asks for.

    Raises:
        ValueError: If something in it is missing, of the wrong type or out of range.
    """
    n_dims = whole_of(message, "dims", 1, LIMITS["columns"])
    x = points_of(message.get("x"), n_dims, least=1)
    levels = message.get("sigmas")
    count = len(levels) if isinstance(levels, list) else 0
    if not 2 <= count <= LIMITS["walk_levels"] or len(x) * count * n_dims > LIMITS["walk_numbers"]:
        raise ValueError(f"a walk has from 2 to {LIMITS['walk_levels']} noise levels and not too many points")
    sigmas = numbers_of(message, "sigmas", count, 0.0)
    check_sigmas(torch.from_numpy(sigmas))
    low, high = SIGMA_RANGE
    if sigmas[0] > high or sigmas[sigmas > 0].min() < low:
        raise ValueError(f"noise levels must lie between {low:g} and {high:g}; the last may be 0")
    solver, guidance = message.get("solver"), message.get("guidance", 1.0)
    if solver != "auto" and (not isinstance(solver, str) or solver not in SOLVERS):
        raise unknown_name("solver", str(solver)[:60], ["auto", *SOLVERS])
    if not is_number(guidance) or abs(guidance) > 100:
        raise ValueError("guidance must be a number of a size below 100")
    network = message.get("network")
    if network not in NETWORKS:
        raise ValueError(f"network must be one of {', '.join(NETWORKS)}")
    return WalkRequest(
        whole_of(message, "id", 0, 2**32 - 1), whole_of(message, "panel", 0, 1), network == "trained", x,
        str(solver), sigmas, whole_of(message, "label", -1, 99, -1),
        float(guidance), whole_of(message, "seed", 0, 2**31, 0),
    )  # fmt: skip


def walk(
    model: DiffusionModel, request: WalkRequest, wrap: Callable[[DenoiserFunction], DenoiserFunction]
) -> bytes:  # fmt: skip
    """Return the frame of a walk of a model.

    Args:
        model: The model.
        request: What is asked for.
        wrap: Returns the denoiser as it is to be asked, in portions for example.

    Raises:
        ValueError: If the model has other columns, or the solver cannot be taken.
    """
    if request.x.shape[1] != model.n_dims:
        raise ValueError(f"the model has {model.n_dims} columns, and the points have {request.x.shape[1]}")
    sigmas = torch.from_numpy(request.sigmas)
    solver: Any = request.solver
    denoiser = _denoiser(model, request)
    if request.solver == "auto":
        guided = isinstance(denoiser, Guided)
        chosen = model.plan((len(sigmas) - 1) * (2 if guided else 1), sigma_max=float(sigmas[0]), guided=guided)
        solver, sigmas = chosen.solver, chosen.sigmas
    shape = request.x.shape
    levels: list[float] = []
    points: list[bytes] = []
    nfe = 0
    for step in trajectory(
        wrap(denoiser), torch.from_numpy(request.x), sigmas, solver=solver,
        noise=lambda k, draws: page_normals(request.seed, 1000 + k, draws * request.x.size).reshape(draws, *shape),
    ):  # fmt: skip
        levels.append(step.sigma)
        points.append(step.x.numpy().astype("<f4").tobytes())
        nfe = step.nfe
    head = HEAD.pack(WALK, VERSION, shape[1], request.number, shape[0], len(levels), nfe, 0)
    return b"".join([head, np.array(levels, dtype="<f4").tobytes(), *points])


def _denoiser(model: DiffusionModel, request: WalkRequest) -> DenoiserFunction:
    classes = 0 if model.conditions is None else len(model.conditions.classes)
    if not 0 <= request.label < classes or request.guidance == 0:
        return model.denoiser
    own = bind(model.denoiser, labels=request.label)
    return own if request.guidance == 1 else Guided(own, model.denoiser, request.guidance)


def page_normals(seed: int, stream: int, count: int) -> Tensor:
    """Return the page's own normal numbers: a function of seed, stream and place, by pairs (Box and Muller)."""

    def mix(x: Any) -> Any:
        x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
        x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
        return x ^ (x >> 16)

    one = np.array([(seed + 0x9E3779B9) % 2**32], dtype=np.uint32)
    key = mix(mix(one) + np.uint32((stream + 1) * 0x85EBCA6B % 2**32))
    index = np.arange(count + count % 2, dtype=np.uint32)
    u = (mix(mix(index * np.uint32(0x9E3779B9) + key) ^ key) + 0.5) / 2**32
    radius, angle = np.sqrt(-2 * np.log(u[::2])), 2 * np.pi * u[1::2]
    drawn = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[:count]
    return torch.from_numpy(drawn.astype(np.float32))
