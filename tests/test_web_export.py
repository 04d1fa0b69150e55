"""Runs written into a page; that the page reads them back is checked in a browser where there is one."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pointdiffusion as ptd
from pointdiffusion.model.conditions import Conditions
from pointdiffusion.networks import Part, default_network
from pointdiffusion.sampling.loop import Step
from pointdiffusion.web.export import export_page, page
from pointdiffusion.web.registry import as_json, registry

ROOT = Path(__file__).resolve().parent.parent
POINTS = ptd.DATASETS["moons"](300, random_state=0) * [1.0, 30.0] + [5.0, 100.0]


def make_model(network: Part | None = None, points: Any = POINTS) -> ptd.DiffusionModel:
    """A model that was never trained: what it draws does not matter here."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = network or default_network(points.shape[1], 32, 1)
        for parameter in made.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    standardiser = ptd.Standardiser.fit(points)
    covariance = torch.from_numpy(np.cov(standardiser.transform(points).T))
    columns = ["x", "y", "z"][: points.shape[1]]
    return ptd.DiffusionModel(ptd.KarrasDenoiser(made), standardiser, covariance, columns)


def block_of(text: str, name: str) -> Any:
    """Read a block out of a page, as a browser does: JSON, or deflated JSON in base64."""
    found = re.search(f'<script type="application/json" id="{name}">(.*?)</script>', text)
    assert found is not None
    plain = found[1] if found[1][0] in "{n" else zlib.decompress(base64.b64decode(found[1])).decode()
    return json.loads(plain)


def run_of(path: Path) -> dict[str, Any]:
    return dict(block_of(path.read_text(encoding="utf-8"), "run")["run"])


def unpacked(text: str, kind: str, shape: list[int]) -> Any:
    return np.frombuffer(base64.b64decode(text), dtype=kind).reshape(shape)


def recorded(run: dict[str, Any]) -> Any:
    """Return the recorded points in the user's units."""
    found = run["recorded"]
    low, high = np.array(found["low"])[:, None], np.array(found["high"])[:, None]
    points = low + (high - low) * unpacked(found["values"], "<u2", found["shape"]) / 65535
    return points * run["scale"] + run["mean"]


def test_the_trajectory_is_that_of_the_model(tmp_path: Path) -> None:
    model = make_model()
    export_page(model, tmp_path / "run.html", num_points=50, seed=3, num_steps=9, solver="heun", title="mine")
    run, steps = run_of(tmp_path / "run.html"), list(model.trajectory(50, seed=3, num_steps=9, solver="heun"))
    assert run["title"] == "mine"
    assert run["recorded"]["name"] == "heun"
    assert run["recorded"]["nfe"] == steps[-1].nfe
    np.testing.assert_allclose(run["recorded"]["sigmas"], [step.sigma for step in steps])
    for found, step in zip(recorded(run), steps, strict=True):
        np.testing.assert_allclose(found, step.x, atol=np.ptp(step.x, axis=0).max() / 65535)


@pytest.mark.parametrize(("precision", "kind"), [("float16", "<f2"), ("float32", "<f4")])
def test_the_weights_are_those_of_the_model(tmp_path: Path, precision: str, kind: str) -> None:
    model = make_model()
    export_page(model, tmp_path / "run.html", num_points=5, num_steps=2, precision=precision)
    found = run_of(tmp_path / "run.html")["network"]
    for name, value in model.denoiser.backbone.state_dict().items():
        weights = unpacked(found["weights"][name]["values"], kind, found["weights"][name]["shape"])
        np.testing.assert_array_equal(weights, value.numpy().astype(kind))
    assert found["spec"] == model.denoiser.backbone.specification()  # type: ignore[operator]


def test_rows_are_inside_only_when_asked_for(tmp_path: Path) -> None:
    model = make_model()
    export_page(model, tmp_path / "without.html", num_points=5, num_steps=2, data=POINTS)
    run = run_of(tmp_path / "without.html")
    assert run["data"] is None
    assert run["rows"] == 300
    export_page(model, tmp_path / "with.html", num_points=5, num_steps=2, data=POINTS, embed_data=True)
    found = run_of(tmp_path / "with.html")["data"]
    low, high = np.array(found["low"]), np.array(found["high"])
    rows = model.standardiser.inverse(low + (high - low) * unpacked(found["values"], "<u2", found["shape"]) / 65535)
    np.testing.assert_allclose(rows, POINTS, atol=np.ptp(POINTS, axis=0).max() / 65535)
    with pytest.raises(ValueError, match="there are none: give data"):
        export_page(model, tmp_path / "x.html", embed_data=True)


def test_of_many_rows_some_are_inside(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(5000, 2))
    labels = (points[:, 0] > 0).astype(int)
    model = make_model(points=points)
    export_page(model, tmp_path / "a.html", num_points=5, num_steps=2, data=points, labels=labels, embed_data=True)
    found = run_of(tmp_path / "a.html")["data"]
    assert found["shape"] == [2000, 2]
    x = np.array(found["low"])[0] + (np.array(found["high"]) - found["low"])[0] * (
        unpacked(found["values"], "<u2", found["shape"])[:, 0] / 65535
    )
    np.testing.assert_array_equal(found["labels"], (x * model.standardiser.scale[0] + model.standardiser.mean[0] > 0))


def test_a_trajectory_needs_no_model(tmp_path: Path) -> None:
    mixture = ptd.GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [[[0.1, 0.0], [0.0, 0.1]]] * 2)
    x = 10 * torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigmas = ptd.KarrasSchedule(0.01, 10.0).sigmas(200)
    steps = list(ptd.trajectory(mixture.denoise, x, sigmas))
    export_page(iter(steps), tmp_path / "steps.html")
    run = run_of(tmp_path / "steps.html")
    assert run["network"] is None
    assert run["recorded"]["nfe"] == 200
    assert run["recorded"]["shape"] == [101, 40, 2]  # of 201 every second
    np.testing.assert_allclose(recorded(run)[-1], steps[-1].x, atol=1e-3)
    export_page(torch.stack([step.x for step in steps]), tmp_path / "array.html", sigmas=sigmas)
    assert run_of(tmp_path / "array.html")["recorded"]["values"] == run["recorded"]["values"]


def test_a_long_walk_is_thinned_evenly_and_keeps_its_ends(tmp_path: Path) -> None:
    sigmas, ends = np.linspace(10, 0, 5001), np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 1.0]])
    steps = (Step(ends + sigma, float(sigma), None, 0) for sigma in sigmas)
    export_page(steps, tmp_path / "long.html")
    kept = run_of(tmp_path / "long.html")["recorded"]["sigmas"]
    assert len(kept) == 101
    assert [kept[0], kept[-1]] == [10, 0]
    assert -np.diff(kept).min() < 2.2 * -np.diff(kept).mean()


def test_a_network_of_ones_own_is_left_out(tmp_path: Path) -> None:
    class Mine(Part):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 2)

        def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.layer(torch.cat([x, c[:, None]], dim=1)))

    export_page(make_model(Mine()), tmp_path / "mine.html", num_points=5, num_steps=2)
    run = run_of(tmp_path / "mine.html")
    assert run["network"] is None
    assert run["recorded"]["shape"] == [3, 5, 2]


def test_names_with_markup_stay_texts(tmp_path: Path) -> None:
    model, evil = make_model(), "</script><script>alert(1)</script><!--"
    model.columns = [evil, "y"]
    export_page(model, tmp_path / "a.html", num_points=5, num_steps=2, title=evil, figures={evil: evil, "W2": 1})
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert text.count("<script") == page().count("<script")
    run = run_of(tmp_path / "a.html")
    assert run["title"] == evil
    assert run["columns"] == [evil, "y"]
    assert run["figures"] == {evil: evil, "W2": 1.0}


def test_classes_come_along(tmp_path: Path) -> None:
    network = default_network(2, 16, 1, num_classes=2)
    model = make_model(network)
    labels = ["no", "yes"] * 150
    model.conditions = Conditions.fit(torch.from_numpy(model.standardiser.transform(POINTS)), labels)
    export_page(model, tmp_path / "a.html", num_points=6, num_steps=2, data=POINTS, labels=labels, embed_data=True)
    run = run_of(tmp_path / "a.html")
    assert run["classes"] == ["no", "yes"]
    assert run["data"]["labels"] == [0, 1] * 150
    with pytest.raises(ValueError, match="unknown class 'maybe'"):
        export_page(
            model, tmp_path / "b.html", data=POINTS, labels=["maybe"] * 300, embed_data=True, num_points=6, num_steps=2
        )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"precision": "float8"}, "unknown precision 'float8'"),
        ({"figures": {"a": float("nan")}}, "is not finite"),
        ({"solver": "nonsense"}, "unknown solver"),
        ({"data": POINTS, "labels": [0, 1], "embed_data": True}, "one class for each of 300 rows"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        export_page(make_model(), tmp_path / "a.html", **{"num_points": 5, "num_steps": 2, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_one_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="these points have one"):
        export_page(make_model(points=POINTS[:, :1]), tmp_path / "a.html")
    with pytest.raises(ValueError, match="as many decreasing sigmas"):
        export_page(np.zeros((3, 4, 2)), tmp_path / "a.html", sigmas=[1.0, 0.5])
    with pytest.raises(ValueError, match="settings are for a model"):
        export_page(np.zeros((2, 4, 2)), tmp_path / "a.html", sigmas=[1.0, 0.5], num_steps=3)


def test_the_size_of_the_examples_run(tmp_path: Path) -> None:
    """2,000 points over 100 steps and the network of the example: at most 3 MB."""
    export_page(make_model(default_network(2)), tmp_path / "a.html", num_steps=100, data=POINTS, embed_data=True)
    assert run_of(tmp_path / "a.html")["recorded"]["shape"] == [101, 2000, 2]
    assert (tmp_path / "a.html").stat().st_size <= 3_000_000


def test_the_page_knows_what_the_library_knows() -> None:
    """A solver, a schedule or a point set that is added or changed: run `python tools/dev.py web`."""
    written = (ROOT / "web" / "registry.json").read_text(encoding="utf-8")
    assert json.loads(written) == json.loads(as_json(registry()))
    assert block_of(page(), "registry") == json.loads(written)
    assert block_of(page(), "server") is None
    assert set(json.loads(written)["solvers"]) == set(ptd.SOLVERS)
    assert set(json.loads(written)["schedules"]) == set(ptd.SCHEDULES)
