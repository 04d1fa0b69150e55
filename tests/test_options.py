"""Settings of sampling and density are named parameters: the same ones wherever they are taken."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

import pointdiffusion as ptd
from pointdiffusion.config import InferenceConfig
from pointdiffusion.likelihood.density import DensityOptions
from pointdiffusion.model.diffusion_model import SamplingSettings
from pointdiffusion.model.options import SamplingOptions, SolverSettings

POINTS = ptd.DATASETS["moons"](96, random_state=0)


@pytest.fixture(scope="module")
def model() -> ptd.DiffusionModel:
    return ptd.fit(POINTS, ptd.TrainingConfig(epochs=1, reference_points=0), seed=0)


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the keyword parameters of a function with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def test_all_ways_to_sample_take_the_same_settings() -> None:
    options = {field.name: field.default for field in fields(SamplingOptions)}
    assert (
        set(options)
        == {field.name for field in fields(InferenceConfig)} | {"nfe"}
        == set(get_type_hints(SolverSettings))
    )
    sample, trajectory, impute = (
        defaults(getattr(ptd.DiffusionModel, name)) for name in ("sample", "trajectory", "impute")
    )
    assert sample == trajectory
    assert sample.items() <= impute.items()
    assert options.items() <= sample.items()
    # The page's own labels are those of rows of data, so these are not passed on.
    assert set(get_type_hints(SamplingSettings)) == set(sample) - {"seed", "labels"}
    assert defaults(ptd.sample) == defaults(ptd.trajectory)


def test_all_ways_to_a_density_take_the_same_settings() -> None:
    of_all = defaults(ptd.log_prob)
    assert defaults(ptd.log_prob_with_errors) == of_all
    assert defaults(ptd.choose_sigma_min) == {name: value for name, value in of_all.items() if name != "sigma_min"}
    options = {field.name: field.default for field in fields(DensityOptions)}
    assert options.items() <= of_all.items()
    assert options.items() <= defaults(ptd.DiffusionModel.log_prob).items()


@pytest.mark.parametrize(
    "function",
    [
        *(getattr(ptd.DiffusionModel, name) for name in (
            "sample", "trajectory", "impute", "log_prob", "variational_bound", "latent", "from_latent",
        )),
        *(getattr(ptd, name) for name in (
            "sample", "trajectory", "log_prob", "log_prob_with_errors", "choose_sigma_min", "variational_bound",
            "diagnose", "export_page",
        )),
    ],
)  # fmt: skip
def test_no_setting_travels_without_a_type(function: Callable[..., Any]) -> None:
    """An editor sees every setting: none hides in `**settings: Any`."""
    for parameter in inspect.signature(function).parameters.values():
        assert parameter.kind is not parameter.VAR_KEYWORD or "Unpack[" in parameter.annotation


def test_none_is_the_models_own(model: ptd.DiffusionModel) -> None:
    nothing = dict.fromkeys(field.name for field in fields(SamplingOptions))
    np.testing.assert_array_equal(model.sample(5, **nothing), model.sample(5))
    own = model.inference
    assert SamplingOptions().config(own) == own
    assert SamplingOptions(num_steps=7, nfe=3, solver="heun").config(own).num_steps == 7
    assert SamplingOptions(solver="heun").config(own).solver == own.solver


@pytest.mark.parametrize("settings", [{"num_steps": 4, "solver": "heun"}, {"nfe": 6}, {"nfe": 5, "final_zero": False}])
def test_a_plan_is_what_sample_draws_by(model: ptd.DiffusionModel, settings: dict[str, Any]) -> None:
    """The public way to solver and grid: followed by hand from the same noise, it ends where `sample` does."""
    plan = model.sampling_plan(SamplingOptions(**settings))
    first, *_, last = model.trajectory(6, **settings)
    x = next(model.denoiser.parameters()).new_tensor(model.standardiser.transform(first.x))
    end = ptd.sample(model.denoiser, x, plan.sigmas, solver=plan.solver)
    np.testing.assert_allclose(model.standardiser.inverse(end), last.x, rtol=0, atol=1e-4)
    assert float(plan.sigmas[0]) == pytest.approx(model.inference.sigma_max)


@pytest.mark.parametrize("name", ["sample", "trajectory", "impute", "log_prob", "variational_bound"])
def test_a_misspelt_setting_is_refused_at_the_call(model: ptd.DiffusionModel, name: str) -> None:
    with pytest.raises(TypeError, match="num_stpes"):
        getattr(model, name)(5 if name in ("sample", "trajectory") else POINTS, num_stpes=3)


def test_settings_that_are_passed_on_are_refused_as_well(model: ptd.DiffusionModel, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="num_stpes"):
        ptd.export_page(model, tmp_path / "page.html", num_stpes=3)  # type: ignore[call-arg]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TypeError, match="labels"):  # it compares with the whole population
        ptd.diagnose(model, POINTS, held_out=POINTS, labels=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "num_steps must lie in"),
        ({"num_steps": "many"}, "num_steps must be of type int"),
        ({"schedule": "karas"}, "unknown schedule 'karas'; did you mean 'karras'"),
        ({"solver": "huen"}, "did you mean 'heun'"),
        ({"solver": "auto"}, "give nfe and sigma_max instead"),
        ({"nfe": 0}, "nfe must be at least 1, got 0"),
        ({"nfe": 5, "solver": "heun"}, "nfe is for solver='auto'"),
        ({"sigma_min": 20.0}, "sigma_min must lie below sigma_max"),
        ({"guidance": 2.0}, "guidance needs something to guide to"),
        ({"labels": 1}, "trained without conditions"),
    ],
)
def test_a_setting_out_of_range_is_refused_with_a_sentence(
    model: ptd.DiffusionModel, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model.sample(5, **settings)


@pytest.mark.parametrize("settings", [{"labels": 1}, {"context": [1.0]}, {"guidance": 2.0}])
def test_gaps_are_not_filled_under_conditions_without_masks(
    model: ptd.DiffusionModel, settings: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="train with masks"):
        model.impute([[np.nan, 0.0]], **settings)
