"""Walks that the served page asks for are those that the library makes: the same plan, the same points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pointdiffusion as ptd
from pointdiffusion.sampling.plans import default_plan
from pointdiffusion.web.walks import HEAD, WalkRequest, walk

POINTS = ptd.DATASETS["moons"](300, random_state=0)
LABELS = (POINTS[:, 1] > POINTS[:, 1].mean()).astype(int)


def trained(**known: Any) -> ptd.DiffusionModel:
    network = ptd.default_network(2, 32, num_classes=2 if known else 0)
    return ptd.fit(POINTS, ptd.TrainingConfig(epochs=2), backbone=network, **known)


@pytest.fixture(scope="module")
def plain() -> ptd.DiffusionModel:
    """A model with a plan of its own at 8 evaluations, and one that is tried at 12."""
    model = trained()
    model.grids[8] = [model.inference.sigma_max, *np.geomspace(2.0, 0.5, 7).tolist(), 0.0]
    model.grid_solvers[8] = "velocity-4 corrected"
    return model


def walked(model: ptd.DiffusionModel, x: Any, nfe: int, label: int = -1, guidance: float = 1.0) -> tuple[Any, int]:
    """Return the end of a walk as the page asks for it, in the user's units, and its evaluations."""
    points = model.standardiser.transform(x).astype("<f4")
    steps = nfe // 2 if guidance not in (0.0, 1.0) else nfe
    sigmas = np.linspace(model.inference.sigma_max, 0, steps + 1)
    request = WalkRequest(1, 0, True, points, "auto", sigmas, label, guidance, 0)
    frame = walk(model, request, lambda denoiser: denoiser)
    assert frame is not None
    _, _, dims, _, count, levels, calls, _ = HEAD.unpack_from(frame)
    end = np.frombuffer(frame, "<f4", levels * count * dims, HEAD.size + 4 * levels).reshape(levels, count, dims)[-1]
    return model.standardiser.inverse(torch.from_numpy(end.copy())), calls


@pytest.mark.parametrize("nfe", [8, 12])
def test_auto_is_the_plan_of_the_model(plain: ptd.DiffusionModel, nfe: int) -> None:
    """That which was optimised for it, or is tried on it, as in `sample`; the usual one would end elsewhere."""
    first, *_, last = plain.trajectory(30, nfe=nfe)
    found, calls = walked(plain, first.x, nfe)
    np.testing.assert_allclose(found, last.x, rtol=0, atol=1e-4)
    assert calls == last.nfe == nfe
    if nfe == 8:
        low, high = plain.inference.sigma_min, plain.inference.sigma_max
        _, solver, sigmas = default_plan(nfe, high, plain.denoiser.sigma_data, low)
        x = torch.from_numpy(plain.standardiser.transform(first.x)).float()
        usual = plain.standardiser.inverse(ptd.sample(plain.denoiser, x, sigmas, solver=solver))
        assert np.abs(usual - last.x).max() > 1e-2


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_auto_of_a_class_is_the_plan_of_the_model(guidance: float) -> None:
    """Guidance calls the network twice a step, so a budget is half as many steps; at strength 0 it is none."""
    model = trained(labels=LABELS)
    first, *_, last = model.trajectory(30, nfe=8, labels=1, guidance=guidance)
    found, calls = walked(model, first.x, 8, label=1, guidance=guidance)
    np.testing.assert_allclose(found, last.x, rtol=0, atol=1e-4)
    assert calls == last.nfe == 8


def test_plans_for_other_starts_and_under_guidance_are_the_usual_ones(plain: ptd.DiffusionModel) -> None:
    low, sigma_data = plain.inference.sigma_min, plain.denoiser.sigma_data
    for plan, steps, high in (
        (plain.plan(8, sigma_max=9.0), 8, 9.0), (plain.plan(8, guided=True), 4, plain.inference.sigma_max),
    ):  # fmt: skip
        _, solver, sigmas = default_plan(steps, high, sigma_data, low)
        assert torch.equal(plan.sigmas, sigmas)
        assert vars(plan.solver) == vars(solver)
    with pytest.raises(ValueError, match="nfe must be at least 2, got 1: guidance calls the network twice a step"):
        plain.plan(1, guided=True)
