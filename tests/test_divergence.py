"""Training that diverged says so: its loss is set beside that of a network that predicts the mean."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from test_cli import iris_table
from torch import nn

import pointdiffusion as ptd
from pointdiffusion.cli.app import main
from pointdiffusion.networks import default_network
from pointdiffusion.training.divergence import divergence

MOONS = ptd.DATASETS["moons"](1024, random_state=0)
LABELS = (np.arange(1024) % 2).tolist()
LEVELS = {"sigma_min": 0.05, "sigma_max": 5.0}


def small(_metadata: Any) -> nn.Module:
    return default_network(2, hidden_dim=32)


def training(steps: int, rate: float = 1e-4, epoch: int = 25, **settings: Any) -> ptd.TrainingConfig:
    epoch = min(steps, epoch)
    return ptd.TrainingConfig(epochs=steps // epoch, epoch_steps=epoch, learning_rate=rate, **{**LEVELS, **settings})


WEIGHTS = {
    "karras": lambda s: (1 + s**2) / s**2,
    "noise-prediction": lambda s: 1 / s**2,
    "x0": lambda s: s**0,
    "v": lambda s: (1 + s**2) / s**2,
    "velocity": lambda s: ((1 + s) / s) ** 2,
}


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("loss", WEIGHTS)
def test_the_loss_of_a_network_that_predicts_the_mean_is_its_closed_form(loss: str, scale: float) -> None:
    """By quadrature over the noise levels, for data of variance 1 and of variance 4; draws err by a few percent."""
    rows = np.random.default_rng(0).normal(size=(1024, 4)) + 3.0
    standardiser = ptd.Standardiser(rows.mean(axis=0), np.full(4, scale))
    module = ptd.LightningDiffusion(
        ptd.KarrasDenoiser(default_network(4, hidden_dim=8)), training(1, loss=loss), points=rows,
        standardiser=standardiser,
    )  # fmt: skip
    module.setup("fit")
    variance = float(rows.var(axis=0).mean()) / scale**2

    def value(log_sigma: float) -> float:
        sigma = math.exp(log_sigma)
        c_skip = 1 / (1 + sigma**2)
        return float(WEIGHTS[loss](sigma) * ((1 - c_skip) ** 2 * variance + c_skip**2 * sigma**2))

    low, high = math.log(0.05), math.log(5.0)
    assert module.mean_loss() == pytest.approx(quad(value, low, high)[0] / (high - low), rel=0.05)


@pytest.mark.parametrize(
    ("steps", "epoch", "rate"), [(1, 1, 1.0), (100, 25, 0.1), (300, 25, 1.0), (300, 150, 1.0), (100, 25, 10.0)]
)
def test_too_high_a_rate_is_a_sentence(steps: int, epoch: int, rate: float) -> None:
    """Also where the network no longer depends on its input at the end, and its loss is that of the mean again."""
    with pytest.raises(ptd.DivergedError, match=rf"training diverged.*lower the learning rate \({rate:g}\)") as caught:
        ptd.fit(MOONS, training(steps, rate, epoch), seed=0)
    assert str(caught.value).endswith(f"; AdamW got rate_multiplier = 20 times that, {20 * rate:g}")
    model = caught.value.model
    assert (model is None) == ("finite" in str(caught.value))
    if model is not None:
        assert model.sample(3, num_steps=2).shape == (3, 2)
        again = pickle.loads(pickle.dumps(caught.value))  # as it comes from the process of a member
        assert (str(again), again.model.columns) == (str(caught.value), model.columns)


class Loud(nn.Module):
    """A network of a user's own whose output is far too large before it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        nn.init.normal_(self.layer.weight, std=10.0)

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.cat([x, c_noise[:, None]], dim=1))


SHORT: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "one step": (MOONS, {}, {}),
    "a higher rate": (MOONS, {"learning_rate": 1e-3}, {}),
    "normal rows": (np.random.default_rng(1).normal(size=(500, 3)), {}, {}),
    "tails": (np.random.default_rng(2).standard_t(2, size=(3000, 3)), {}, {}),
    "an outlier": (np.concatenate([np.random.default_rng(3).normal(size=(1999, 1)), [[1e4]]]), {}, {}),
    "a network of one's own": (MOONS, {}, {"backbone": lambda _metadata: Loud()}),
    "classes": (MOONS, {}, {"labels": LABELS}),
    "classes at a higher rate": (MOONS, {"learning_rate": 1e-3}, {"labels": LABELS}),
    "classes alone": (MOONS, {"condition_dropout": 0.0}, {"labels": LABELS}),
    "context": (MOONS, {"condition_dropout": 0.0}, {"context": MOONS[:, :1] ** 2}),
    "gaps": (MOONS, {"mask": 0.5}, {}),
    "other levels": (MOONS, {"sigma_min": 1e-3, "sigma_max": 80.0, "noise_sampler": "log-normal"}, {}),
    "other weights": (MOONS, {"loss": "noise-prediction", "weighting": "min-snr"}, {}),
    "a base": (MOONS, {}, {"base": ptd.fit_gaussian(ptd.Standardiser.fit(MOONS).transform(MOONS))}),
}


@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize("steps", [1, 20])
def test_ordinary_short_runs_are_not_said_to_diverge(kind: str, steps: int) -> None:
    rows, settings, more = SHORT[kind]
    rate = settings.get("learning_rate", 1e-4)
    ptd.fit(rows, training(steps, rate, **{k: v for k, v in settings.items() if k != "learning_rate"}), seed=1, **more)


@pytest.mark.parametrize(
    ("losses", "diverged"),
    [
        ((0.8, 1.0, 1.0, 0.9), False),
        ((1.9, 1.0, 1.0, 1.9), False),
        ((2.1, 1.0, 1.0, 2.1), True),
        ((0.999, 1.0, 1.0, 1e5), True),  # it no longer depends on its input
        ((0.8, 1.0, 1.0, 1e5), False),  # it recovered
        ((1.003, 1.0, 1.0, 19.0), False),  # it goes on from there
        ((30.0, 1.0, 40.0, 50.0), False),  # it started there
        ((90.0, 1.0, 40.0, 90.0), True),
    ],
)
def test_what_counts_as_divergence(losses: tuple[float, float, float, float], diverged: bool) -> None:
    loss, mean, start, highest = losses
    said = divergence(loss, mean_loss=mean, start_loss=start, highest_loss=highest)
    assert (said is not None) == diverged


def test_the_start_is_taken_where_the_weights_still_are() -> None:
    """Lightning names the device before it moves the weights there."""
    module = ptd.LightningDiffusion(ptd.KarrasDenoiser(small(None)), training(1), points=MOONS)
    module._device = torch.device("meta")
    module.setup("fit")
    assert module._start_loss == pytest.approx(1.0, rel=0.1)
    rows = module._rows["points"]
    assert rows is not None
    assert rows.device.type == "meta"


def test_a_diverged_run_that_is_resumed_says_the_same(tmp_path: Path) -> None:
    """What the loss was in the meantime stands in the checkpoint; nonsense in its place is refused."""
    said = []
    for resume in (False, True):
        with pytest.raises(ptd.DivergedError) as caught:
            ptd.fit(MOONS, training(300, 1.0), seed=0, folder=tmp_path, resume=resume)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "rose to" in said[0]
    io, path = ptd.AtomicCheckpointIO(), tmp_path / "checkpoints" / "last.ckpt"
    io.save_checkpoint({**io.load_checkpoint(path), "highest_loss": "high"}, path)
    with pytest.raises(ValueError, match="highest loss"):
        ptd.fit(MOONS, training(300, 1.0), seed=0, folder=tmp_path, resume=True)


def test_networks_of_a_table_say_so_too() -> None:
    """Each of them is judged, alone or in a process of its own."""
    config = ptd.TableConfig(num_steps=30, num_members=2, base="gaussian", hidden_dim=16, learning_rate=1.0)
    with pytest.raises(ptd.DivergedError, match="training diverged"):
        ptd.fit_table(MOONS[:100], config=config)


ALONE = "training: {learning_rate: 1.0, epochs: 1, epoch_steps: 1}"
FOLDS = "fit: {learning_rate: 0.1, num_steps: 20, num_members: 2, hidden_dim: 16}"


@pytest.mark.parametrize("part", [ALONE, FOLDS], ids=["alone", "folds"])
def test_the_command_keeps_the_model_apart(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, one sentence, no run; an earlier run stays, and so does the model of an earlier try."""
    monkeypatch.chdir(tmp_path)
    iris_table().drop(columns="country").to_csv("iris.csv", index=False)
    Path("high.yaml").write_text(part)
    arguments = ["train", "iris.csv", "--label", "species", "-o", "run", "--no-report"]
    assert main([*arguments, "--config", "high.yaml"]) == 1
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert sentence.startswith("error: training diverged")
    assert sentence.endswith("the model is kept apart in run.diverged.pt")
    assert {path.name for path in tmp_path.iterdir()} == {"iris.csv", "high.yaml", "run.diverged.pt"}
    assert ptd.load("run.diverged.pt").metadata["table"]
    assert main([*arguments, "--steps", "20"]) == 0
    before, apart = Path("run/model.pt").read_bytes(), Path("run.diverged.pt").read_bytes()
    assert "run.diverged2.pt" in last_line(capsys, [*arguments, "--config", "high.yaml", "--force"], code=1)
    assert (Path("run/model.pt").read_bytes(), Path("run.diverged.pt").read_bytes()) == (before, apart)


def last_line(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int) -> str:
    """Return the last line that a command prints."""
    capsys.readouterr()
    assert main(arguments) == code
    return capsys.readouterr().err.splitlines()[-1]
