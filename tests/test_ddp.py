"""Two processes end where one does: each takes its slice of the same global batch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from example_fixtures import Scripts

TRAIN = '''
"""Train a few small models in as many processes as asked for, and keep their weights."""

import sys
import warnings

import torch
from lightning.pytorch import Trainer

import pointdiffusion as ptd

warnings.simplefilter("ignore")
devices, folder = int(sys.argv[1]), sys.argv[2]
points = ptd.DATASETS["moons"](150, random_state=0) * [3.0, 0.5] + [7.0, -2.0]
noise = {"strategy": "ddp"} if devices > 1 else {}

for name, dtype, batch_size, noise_draws, max_steps in CASES:
    config = ptd.TrainingConfig(
        epochs=4, batch_size=batch_size, noise_draws=noise_draws, learning_rate=1e-4, reference_points=100
    )
    torch.manual_seed(0)
    embedding = ptd.NoiseEmbedding(16)
    network = ptd.ResidualMLP(
        points=ptd.FourierFeatures(2, 8), noise=embedding, blocks=[ptd.ResidualBlock(16, 16)], n_dims=2, hidden_dim=16
    )
    denoiser = ptd.KarrasDenoiser(network).to(getattr(torch, dtype))
    module = ptd.LightningDiffusion(denoiser, config, points=points, validation=points[:40], seed=1)
    trainer = Trainer(
        max_epochs=4, max_steps=max_steps, accelerator="cpu", devices=devices, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **noise,
    )
    trainer.fit(module)
    assert trainer.world_size == devices
    if trainer.global_rank == 0:
        loss = trainer.callback_metrics["val_loss"]
        state = {"weights": module.state_dict(), "steps": trainer.global_step, "val_loss": loss}
        torch.save(state, f"{folder}/{name}.pt")
'''
CASES = [
    # name, type of the weights, batch size, noise draws a row, most steps
    ("double", "float64", 32, 2, -1),  # the whole run
    ("odd", "float64", 25, 1, -1),  # 13 rows for the one process, 12 for the other
    ("single", "float32", 32, 2, 10),  # rounding grows with the steps, so ten of them
    ("single_odd", "float32", 25, 1, 10),
]
TOLERANCES = {"float64": 1e-9, "float32": 1e-5}


@pytest.fixture(scope="module")
def runs(scripts: Scripts, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Return the folders with what one process and what two processes end in, by their number."""
    script = tmp_path_factory.mktemp("ddp") / "train.py"
    script.write_text(TRAIN.replace("CASES", repr(CASES)))
    folders = {}
    for devices in (1, 2):
        folders[devices] = script.parent / str(devices)
        folders[devices].mkdir()
        result = scripts.run(str(devices), folders[devices], script=script, cwd=script.parent)
        assert result.code == 0, result.err
    return folders


@pytest.mark.skipif(sys.platform == "win32", reason="gloo needs a POSIX system")
@pytest.mark.parametrize(("name", "dtype"), [(case[0], case[1]) for case in CASES], ids=lambda value: value)
def test_two_processes_end_in_the_weights_of_one(name: str, dtype: str, runs: dict[int, Path]) -> None:
    one, two = (torch.load(runs[devices] / f"{name}.pt", weights_only=True) for devices in (1, 2))
    assert one["steps"] == two["steps"] == (10 if dtype == "float32" else {"double": 20, "odd": 24}[name])
    assert one["weights"].keys() == two["weights"].keys()
    assert any(name.startswith("averaged.") for name in one["weights"])
    for key, value in one["weights"].items():
        torch.testing.assert_close(two["weights"][key], value, rtol=0, atol=TOLERANCES[dtype], msg=key)
    assert float(two["val_loss"]) == pytest.approx(float(one["val_loss"]), rel=10 * TOLERANCES[dtype])


def test_the_comparison_would_notice(runs: dict[int, Path]) -> None:
    """The weights moved by far more than the tolerance, so an error in them would, too."""
    weights = [torch.load(runs[1] / f"{name}.pt", weights_only=True)["weights"] for name in ("double", "odd")]
    moved = max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])
    assert moved > 1e-3
