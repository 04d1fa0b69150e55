"""`model.pt`: nothing is lost on the way, every damage is noticed, and a hostile file gets nothing done."""

from __future__ import annotations

import errno
import functools
import io
import os
import pickle
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from example_fixtures import Scripts
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import Tensor, nn

import pointdiffusion as ptd
from pointdiffusion.cli.settings import RunSettings
from pointdiffusion.model.file import FORMAT
from pointdiffusion.runtime import files
from pointdiffusion.runtime.files import seal
from pointdiffusion.version import is_newer

LATER = ["grids", "grid_solvers", "conditions", "bases", "companion", "companion_share"]
"""Parts that older files do not have."""

KEYS = [
    "format", "version", "architecture", "backbone", "sigma_data", "weights", "raw_weights", "mean", "scale",
    "covariance", "columns", "inference", "training", "metadata", "grids", "grid_solvers",
    "conditions", "bases", "companion", "companion_share",
]  # fmt: skip


def network(n_dims: int = 2) -> nn.Module:
    noise = ptd.NoiseEmbedding(8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = ptd.ResidualMLP(
            points=ptd.FourierFeatures(n_dims, 4, 1.5), noise=noise, n_dims=n_dims, hidden_dim=12,
            blocks=[ptd.ResidualBlock(12, noise.out_features), ptd.PlainBlock(12, noise.out_features)],
        )  # fmt: skip
        for weight in made.parameters():  # none of them zero, so that each of them shows in the samples
            nn.init.normal_(weight, std=0.2)
    return made


class Own(nn.Module):
    """A network of a user."""

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.linear = nn.Linear(3, width)
        self.last = nn.Linear(width, 2)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.last(torch.tanh(self.linear(torch.cat([x, c[:, None]], dim=1))))


def model(backbone: nn.Module | None = None, **changes: Any) -> ptd.DiffusionModel:
    backbone = backbone or network()
    settings = {
        "denoiser": ptd.KarrasDenoiser(backbone, sigma_data=0.75),
        "standardiser": ptd.Standardiser(np.array([3.0, -1.0]), np.array([2.0, 0.25])),
        "covariance": torch.tensor([[1.0, 0.3], [0.3, 1.0]], dtype=torch.float64),
        "columns": ["width", "height"],
        "inference": ptd.InferenceConfig(solver="heun", num_steps=4, sigma_max=5.0),
        "training": ptd.TrainingConfig(epochs=7, weighting="min-snr"),
        "raw_weights": {name: value + 1 for name, value in backbone.state_dict().items()},
        "metadata": {"data": {"name": "moons", "random_state": 4}, "sizes": [1, 2.5, None, "três"]},
        "version": "0.0.9",
    }
    return ptd.DiffusionModel(**{**settings, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a good file."""
    made = tmp_path / "model.pt"
    model().save(made)
    return made


# --------------------------------------------------------------------------------------------------------- round trip


def test_everything_comes_back(path: Path) -> None:
    before, after = model(), ptd.load(path)
    assert type(after.denoiser.backbone) is ptd.ResidualMLP
    assert after.denoiser.backbone.specification() == before.denoiser.backbone.specification()
    for name, value in before.denoiser.state_dict().items():
        assert torch.equal(after.denoiser.state_dict()[name], value), name
    assert after.raw_weights.keys() == before.raw_weights.keys()
    assert all(torch.equal(after.raw_weights[name], value) for name, value in before.raw_weights.items())
    assert after.denoiser.sigma_data == 0.75
    np.testing.assert_array_equal(after.standardiser.mean, before.standardiser.mean)
    np.testing.assert_array_equal(after.standardiser.scale, before.standardiser.scale)
    assert torch.equal(after.covariance, before.covariance)
    for name in ("columns", "inference", "training", "metadata", "grids", "version"):
        assert getattr(after, name) == getattr(before, name), name
    assert not any(weight.requires_grad for weight in after.denoiser.parameters())
    assert not after.denoiser.training


def test_bases_and_companion_come_back(tmp_path: Path) -> None:
    """An ensemble with a base for each member, mixed with a distribution of its own."""
    bases = [ptd.GaussianMixture([1.0], torch.full((1, 2), 0.1 * k), torch.eye(2)[None]) for k in range(2)]
    companion = ptd.Companion(ptd.GaussianMixture([0.5, 0.5], torch.eye(2), torch.eye(2).repeat(2, 1, 1)), 0.3)
    average = ptd.KarrasDenoiser(ptd.Average([network(), network()]), 1.0, bases)
    before = model(denoiser=average, companion=companion, raw_weights={})
    before.save(tmp_path / "model.pt")
    after = ptd.load(tmp_path / "model.pt")
    np.testing.assert_array_equal(after.sample(30, seed=2), before.sample(30, seed=2))
    x = before.sample(5, seed=1)
    np.testing.assert_array_equal(after.log_prob(x, num_steps=8), before.log_prob(x, num_steps=8))
    assert after.companion is not None
    assert after.companion.share == 0.3
    assert len(after.denoiser.bases) == 2


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_mixtures_of_any_kind_are_kept(kind: str, tmp_path: Path) -> None:
    """Of a common covariance there is one in memory, seen as many; a file that claims more than it has is refused."""
    rows = np.random.default_rng(0).normal(size=(60, 2))
    mixture = ptd.GaussianMixture.from_sklearn(SklearnMixture(3, covariance_type=kind, random_state=0).fit(rows))
    before = model(denoiser=ptd.KarrasDenoiser(network(), 1.0, [mixture]), companion=ptd.Companion(mixture, 0.3))
    before.save(tmp_path / "model.pt")
    np.testing.assert_array_equal(ptd.load(tmp_path / "model.pt").sample(5), before.sample(5))


def test_a_file_without_the_later_parts_is_read(path: Path) -> None:
    """Files of before there were bases and companions."""
    old = {name: value for name, value in payload_of(path).items() if name not in ("bases", "companion")}
    path.write_bytes(seal(archive(old)))
    np.testing.assert_array_equal(ptd.load(path).sample(4), model().sample(4))


def test_samples_are_the_same_to_the_last_bit(path: Path) -> None:
    before, after = model(), ptd.load(path)
    np.testing.assert_array_equal(after.sample(30, seed=2), before.sample(30, seed=2))
    assert np.isfinite(after.sample(30, seed=2)).all()
    assert np.abs(after.sample(30, seed=2) - after.sample(30, seed=3)).max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_types_of_weights_come_back(dtype: torch.dtype, tmp_path: Path) -> None:
    before = model(network().to(dtype))
    before.save(tmp_path / "model.pt")
    after = ptd.load(tmp_path / "model.pt")
    assert {weight.dtype for weight in after.denoiser.parameters()} == {dtype}
    np.testing.assert_array_equal(after.sample(5), before.sample(5))


def test_a_model_without_the_optional_parts_comes_back(tmp_path: Path) -> None:
    before = model(training=None, raw_weights={}, metadata={}, inference=ptd.InferenceConfig(num_steps=3))
    before.save(tmp_path / "model.pt")
    after = ptd.load(str(tmp_path / "model.pt"))
    assert after.training is None
    assert after.raw_weights == {}
    assert after.metadata == {}


def test_the_same_model_is_the_same_file(path: Path, tmp_path: Path) -> None:
    ptd.load(path).save(tmp_path / "deep" / "copy.pt")
    assert (tmp_path / "deep" / "copy.pt").read_bytes() == path.read_bytes()
    model().save(tmp_path / "again.pt")
    assert (tmp_path / "again.pt").read_bytes() == path.read_bytes()


def test_the_file_is_an_archive_that_others_can_open(path: Path) -> None:
    """The seal is the archive's comment; torch itself and zip tools read the file."""
    assert set(torch.load(path, weights_only=True)) == set(KEYS)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"pointdiffusion-sha256:")


# ---------------------------------------------------------------------------------------------------- own networks


def test_a_network_of_ones_own_is_asked_for_by_name_and_handed_over(tmp_path: Path) -> None:
    before = model(Own(), metadata={"width": 5})
    path = tmp_path / "model.pt"
    before.save(path)
    with pytest.raises(ValueError, match=r"test_model_file\.Own\b.*backbone="):
        ptd.load(path)
    for backbone in (Own(), lambda metadata: Own(metadata["width"])):
        after = ptd.load(path, backbone=backbone)
        assert type(after.denoiser.backbone) is Own
        np.testing.assert_array_equal(after.sample(9), before.sample(9))
        assert all(torch.equal(after.raw_weights[name], value) for name, value in before.raw_weights.items())


@pytest.mark.parametrize(
    ("backbone", "match"),
    [(Own(6), "fit"), (nn.Linear(3, 2), "fit"), (lambda _: 3, "backbone must be"), (3, "backbone")],
    ids=["wider", "another", "no network", "a number"],
)
def test_a_backbone_that_does_not_fit_is_refused(backbone: Any, match: str, tmp_path: Path) -> None:
    model(Own()).save(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=match) as caught:
        ptd.load(tmp_path / "model.pt", backbone=backbone)
    assert "test_model_file.Own" in str(caught.value) or match.startswith("backbone")


def test_a_part_of_ones_own_inside_a_network_of_ours_counts_as_ones_own(tmp_path: Path) -> None:
    class Block(ptd.ResidualBlock):
        pass

    noise = ptd.NoiseEmbedding(8)
    made = ptd.ResidualMLP(
        points=ptd.FourierFeatures(2, 4), noise=noise, n_dims=2, hidden_dim=12, blocks=[Block(12, 8)]
    )
    model(made).save(tmp_path / "model.pt")
    with pytest.raises(ValueError, match="ResidualMLP"):
        ptd.load(tmp_path / "model.pt")


class Registered(nn.Module):
    """A class of one's own that is made without arguments, and holds a number besides its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(3, 6), nn.SiLU(), nn.Linear(6, 2))
        self.register_buffer("sign", torch.tensor(-1.0), persistent=False)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.sign * self.layer(torch.cat([x, c[:, None]], dim=1))


class RegisteredPart(ptd.Part):
    """A class of one's own with arguments, which it hands to `Part`."""

    def __init__(self, width: int) -> None:
        super().__init__(width=width)
        self.layer = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.layer(torch.cat([x, c[:, None]], dim=1))


@pytest.mark.parametrize("make", [Registered, lambda: RegisteredPart(7)], ids=["without arguments", "a part"])
def test_a_class_put_into_networks_is_found_by_load(
    make: Callable[[], nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the class registered nothing is handed over; without, the sentence says how, and `backbone` will do."""
    path = tmp_path / "model.pt"
    with monkeypatch.context() as patch:
        patch.setitem(ptd.NETWORKS, "mine", type(make()))
        before = model(make())
        before.save(path)
        state = torch.get_rng_state()
        after = ptd.load(path)
        assert torch.equal(torch.get_rng_state(), state)
        assert type(after.denoiser.backbone) is type(make())
        np.testing.assert_array_equal(after.sample(9), before.sample(9))
    with pytest.raises(ValueError, match=r"part 'mine', which is not in pointdiffusion\.NETWORKS.*backbone="):
        ptd.load(path)
    np.testing.assert_array_equal(ptd.load(path, backbone=make()).sample(9), before.sample(9))


# --------------------------------------------------------------------------------------------------------------- damage


def refused(path: Path, **settings: Any) -> str:
    """Check that the file is refused with one sentence that names it, and return the sentence."""
    with pytest.raises(ValueError, match=re.escape(path.name)) as caught:
        ptd.load(path, **settings)
    assert type(caught.value) is ValueError
    message = str(caught.value)
    assert "\n" not in message
    assert 20 < len(message) < 600, message
    return message


def test_a_missing_file_a_folder_and_an_empty_file(tmp_path: Path) -> None:
    assert "no file" in refused(tmp_path / "missing.pt")
    (tmp_path / "folder.pt").mkdir()
    assert "folder" in refused(tmp_path / "folder.pt")
    (tmp_path / "empty.pt").touch()
    assert "empty" in refused(tmp_path / "empty.pt")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(share: float, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged" in refused(path)


def test_a_flipped_bit_anywhere(path: Path) -> None:
    """A sample of all positions, in weights, settings, names and the hash itself; `test_files` does them all."""
    content = path.read_bytes()
    positions = [*range(0, len(content), 149), *range(len(content) - 100, len(content), 7)]
    for position in positions:
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="damaged"):
            ptd.load(path)
    path.write_bytes(content)
    ptd.load(path)


def test_bytes_behind_the_end(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    assert "damaged" in refused(path)


# -------------------------------------------------------------------------------------------- foreign and hostile files


def archive(value: Any, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **settings)
    return buffer.getvalue()


def payload_of(path: Path) -> dict[str, Any]:
    return dict(torch.load(path, weights_only=True))


class Bomb:
    """A pickle of it, if it were executed, would write a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.canary, "executed")


class ShellBomb(Bomb):
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


class StateBomb:
    """Goes off when its state is set."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (Path.touch, self.canary), (Path.touch, (self.canary,), {}, None)


HOSTILE: dict[str, Callable[[Path, dict[str, Any]], bytes]] = {
    "instead of the model": lambda canary, _: seal(archive(Bomb(canary))),
    "a shell": lambda canary, _: seal(archive(ShellBomb(canary))),
    "in the metadata": lambda canary, good: seal(archive({**good, "metadata": {"data": [Bomb(canary)]}})),
    "in the weights": lambda canary, good: seal(archive({**good, "weights": {"first.weight": Bomb(canary)}})),
    "in the architecture": lambda canary, good: seal(archive({**good, "architecture": Bomb(canary)})),
    "as a key": lambda canary, good: seal(archive({**good, Bomb(canary): 1})),
    "as a state": lambda canary, good: seal(archive({**good, "metadata": StateBomb(canary)})),
    "as a plain pickle": lambda canary, _: pickle.dumps(Bomb(canary)),
    "as torch wrote files once": lambda canary, _: archive(Bomb(canary), _use_new_zipfile_serialization=False),
    "unsealed": lambda canary, good: archive({**good, "metadata": Bomb(canary)}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_in_a_file_is_executed(kind: str, path: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path.write_bytes(HOSTILE[kind](canary, payload_of(path)))
    refused(path)
    refused(path, backbone=Own())
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path: Path) -> None:
    """The hostile pickles above do work on a reader that executes them."""
    for number, kind in enumerate((Bomb, ShellBomb)):
        canary = tmp_path / f"canary{number}"
        pickle.loads(pickle.dumps(kind(canary)))
        assert canary.exists()


FOREIGN: dict[str, Callable[[], bytes]] = {
    "text": lambda: b"epochs: 50\n" * 30,
    "zeros": lambda: b"\0" * 5000,
    "a pickle": lambda: pickle.dumps({"weights": [1, 2, 3]}),
    "a state_dict": lambda: archive(network().state_dict()),
    "a sealed state_dict": lambda: seal(archive(network().state_dict())),
    "a sealed list": lambda: seal(archive([1, 2, 3])),
    "a sealed tensor": lambda: seal(archive(torch.zeros(3))),
    "a sealed number": lambda: seal(archive(1)),
    "a sealed nothing": lambda: seal(archive(None)),
    "a sealed zip of no torch": lambda: seal(zipped({"notes.txt": b"hello"})),
    "a sealed empty zip": lambda: seal(zipped({})),
    "a sealed TorchScript": lambda: seal(zipped({"archive/constants.pkl": b"", "archive/data.pkl": b"\x80\x02N."})),
    "a sealed pickle without an end": lambda: seal(
        zipped({"archive/data.pkl": b"\x80\x02]q\0", "archive/version": b"3"})
    ),
    "a sealed zip bomb": lambda: seal(zipped({"archive/data.pkl": b"\0" * 10**7}, zipfile.ZIP_DEFLATED)),
}


def zipped(entries: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as made:
        for name, content in entries.items():
            made.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(FOREIGN[kind]())
    refused(path)


def newer(payload: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return what a version to come may write."""
    payload = {**payload, "version": "999.1.0"}
    if kind == "format":
        return {**payload, "format": FORMAT + 1, "weights": "elsewhere"}
    if kind == "a setting":
        return {**payload, "inference": {**payload["inference"], "curvature": 2.0}}
    if kind == "a solver":
        return {**payload, "grids": {3: [2.0, 1.0, 0.5, 0.0]}, "grid_solvers": {3: "of-the-future"}}
    return {**payload, "architecture": {**payload["architecture"], "part": "of-the-future"}}


@pytest.mark.parametrize("kind", ["format", "a setting", "a solver", "a part"])
def test_a_file_of_a_newer_version_is_called_newer(kind: str, path: Path) -> None:
    """Not untrustworthy: the sentence names both versions and the way out. Of our own version it is what it was."""
    payload = newer(payload_of(path), kind)
    path.write_bytes(seal(archive(payload)))
    message = refused(path)
    assert "trust" not in message
    assert "999.1.0" in message
    assert "update pointdiffusion" in message
    if kind != "format":
        path.write_bytes(seal(archive({**payload, "version": ptd.__version__})))
        assert "update" not in refused(path)


@pytest.mark.parametrize("line", ["colour: red", "fit: {colour: red}"])
def test_settings_of_a_newer_version_are_called_newer(line: str, tmp_path: Path) -> None:
    """A config.yaml that this version cannot read says so if a later one wrote it, and names the setting if not."""
    path = tmp_path / "config.yaml"
    path.write_text(f"pointdiffusion: 999.1.0\n{line}\n")
    with pytest.raises(ValueError, match=r"newer version, pointdiffusion 999\.1\.0.*update pointdiffusion"):
        RunSettings.from_yaml(path)
    path.write_text(f"pointdiffusion: {ptd.__version__}\n{line}\n")
    with pytest.raises(ValueError, match="colour"):
        RunSettings.from_yaml(path)


@pytest.mark.parametrize("version", ["9.9", "0.2.1", "1", "0.3rc1", "0.2.0.1"])
def test_later_versions_are_newer(version: str) -> None:
    assert is_newer(version)


@pytest.mark.parametrize("version", [ptd.__version__, "0.2", "0.1.0", "0.0.9", "", "nightly", "-1", "0.2.0+local"])
def test_other_versions_are_not_newer(version: str) -> None:
    assert not is_newer(version)


@pytest.mark.parametrize("key", [key for key in KEYS if key not in LATER])
def test_a_missing_part_is_noticed(key: str, path: Path) -> None:
    payload = payload_of(path)
    assert sorted(payload) == sorted(KEYS)
    del payload[key]
    path.write_bytes(seal(archive(payload)))
    refused(path)


def test_a_file_of_before_there_were_grids_and_conditions_is_read(path: Path) -> None:
    payload = payload_of(path)
    del payload["grids"], payload["grid_solvers"], payload["conditions"]
    payload["training"]["noise_range"] = "fixed"
    path.write_bytes(seal(archive(payload)))
    model = ptd.load(path)
    assert model.grids == {}
    assert model.conditions is None


CONDITIONS: dict[str, Any] = {  # of a model with masks, which the one in the file is not
    "means": torch.zeros(1, 2), "covariances": torch.eye(2)[None], "classes": [], "shares": [], "context_names": [],
    "context_mean": None, "context_scale": None, "masked": True,
}  # fmt: skip
PLAIN = {
    "weights": torch.ones(1),
    "means": torch.zeros(1, 2),
    "covariances": torch.eye(2)[None],
    "labels": torch.zeros(1).long(),
}
"""A mixture as a file holds it; as a companion it needs a share between 0 and 1 beside it, which the file lacks."""

WRONG: dict[str, list[Any]] = {
    "format": [None, 0, 2, "1", torch.ones(2)],
    "version": [None, 7, ["0.1"]],
    "architecture": [
        5, [], {}, {"part": "residual-mlp"}, {"part": "transformer"}, {"part": ["residual-mlp"]}, {"part": None},
        {"part": "fourier-features", "n_dims": 2}, {"part": "noise-embedding", "num_features": 2**40},
        {"part": "noise-embedding", "num_features": True}, {"part": "noise-embedding", "surprise": 1},
        {"part": "fourier-features", "n_dims": 2, "std": "large"},
    ],
    "sigma_data": [None, 0.0, -1.0, float("nan"), float("inf"), "1", [1.0], torch.ones(2)],
    "weights": [None, [], {}, 3, "weights", {"first.weight": 3}, {3: torch.ones(1)}],
    "raw_weights": [None, 3, "weights", [1], {"first.weight": "heavy"}, {3: torch.ones(1)}],
    "mean": [None, 1.0, [0.0, 0.0], torch.zeros(3), torch.zeros(2, 2), torch.tensor([0.0, float("nan")])],
    "scale": [None, [1.0, 1.0], torch.ones(3), torch.tensor([1.0, 0.0]), torch.tensor([1.0, -1.0])],
    "covariance": [
        None, 1.0, [[1.0, 0.0], [0.0, 1.0]], torch.eye(3), torch.ones(2), torch.ones(2, 3), torch.tensor(1.0),
        torch.full((2, 2), float("nan")), -1e6 * torch.eye(2), torch.tensor([[1.0, 5.0], [-5.0, 1.0]]),
    ],
    "columns": [None, 2, "xy", ["x"], ["x", "y", "z"], [["x"], ["y"]], [1, 2]],
    "inference": [None, [], {"sigma_min": -1.0}, {"num_steps": "many"}, {"surprise": 1}, {1: 2}],
    "training": [3, [1], {"epochs": 0}, {"surprise": 1}, {"epochs": "many"}, "karras"],
    "metadata": [None, 3, [1], "data"],
    "grids": [
        None, [1.0], {"2": [10.0, 1.0, 0.0]}, {2: [10.0, 0.0]}, {2: [10.0, 11.0, 0.0]}, {2: [10.0, 1.0, 0.5]},
        {2: [10.0, float("nan"), 0.0]}, {2: [float("inf"), 1.0, 0.0]}, {2: "abc"}, {2: [10, 1, 0]},
    ],
    "grid_solvers": [None, ["heun"], {2: "angular-3"}, {"2": "angular-3"}],
    "conditions": [
        3, [], {}, {"means": torch.zeros(1, 2)}, CONDITIONS,
        {**CONDITIONS, "masked": False, "means": torch.zeros(1, 3)},
    ],
    "bases": [
        None, 3, [3], [None], [{}], [{"weights": torch.ones(1)}], [{**PLAIN, "means": torch.zeros(1, 3)}],
        [{**PLAIN, "weights": [1.0]}], [{**PLAIN, "surprise": torch.ones(1)}], [PLAIN, PLAIN],
        [{**PLAIN, "covariances": torch.zeros(1, 2, 2)}],
    ],
    "companion": [
        3, [], {}, {"weights": torch.ones(1)}, {**PLAIN, "means": [[0.0, 0.0]]}, PLAIN,
        {**PLAIN, "weights": torch.full((1,), float("nan"))},
    ],
    "companion_share": [None, 1, "0.5", torch.ones(1)],
}  # fmt: skip


def test_a_solver_of_a_grid_that_is_none_is_answered_with_the_known_ones(path: Path) -> None:
    payload = payload_of(path)
    payload["grids"], payload["grid_solvers"] = {2: [10.0, 1.0, 0.0]}, {2: "heun"}
    path.write_bytes(seal(archive(payload)))
    with pytest.raises(ValueError, match=r"unknown solver of a grid 'heun'.*angular-3"):
        ptd.load(path)


@pytest.mark.parametrize("key", WRONG)
def test_a_part_of_the_wrong_kind_is_noticed(key: str, path: Path) -> None:
    """When the file is read, not in the middle of sampling."""
    good = payload_of(path)
    accepted = []
    for value in WRONG[key]:
        path.write_bytes(seal(archive({**good, key: value})))
        try:
            refused(path)
        except pytest.fail.Exception:
            accepted.append(value)
    assert accepted == []


def changed_weight(change: Callable[[Tensor], Any], name: str = "blocks.0.first.weight") -> Callable[[dict], dict]:
    def apply(payload: dict[str, Any]) -> dict[str, Any]:
        return {**payload, "weights": {**payload["weights"], name: change(payload["weights"][name])}}

    return apply


def without_weight(payload: dict[str, Any]) -> dict[str, Any]:
    return {**payload, "weights": {name: value for name, value in payload["weights"].items() if name != "last.bias"}}


def of_three_dimensions(payload: dict[str, Any]) -> dict[str, Any]:
    other = network(3)
    return {**payload, "architecture": other.specification(), "weights": dict(other.state_dict())}


WRONG_WEIGHTS: dict[str, Callable[[dict], dict]] = {
    "wider": changed_weight(lambda value: torch.cat([value, value])),
    "transposed and cut": changed_weight(lambda value: value[:, :3]),
    "flat": changed_weight(torch.flatten),
    "whole numbers": changed_weight(lambda value: value.long()),
    "complex": changed_weight(lambda value: value.to(torch.complex64)),
    "of another type than the others": changed_weight(lambda value: value.double()),
    "sparse": changed_weight(lambda value: value.to_sparse()),
    "on no device": changed_weight(lambda value: value.to("meta")),
    "one number that poses as many": changed_weight(lambda value: value[:1, :1].expand(value.shape)),
    "one too few": without_weight,
    "one too many": lambda payload: {**payload, "weights": {**payload["weights"], "more": torch.ones(1)}},
    "for other dimensions": of_three_dimensions,
}


@pytest.mark.parametrize("kind", WRONG_WEIGHTS)
@pytest.mark.filterwarnings("ignore:::torch")
def test_weights_that_do_not_fit_are_noticed(kind: str, path: Path) -> None:
    path.write_bytes(seal(archive(WRONG_WEIGHTS[kind](payload_of(path)))))
    refused(path)


# ------------------------------------------------------------------------------------------ files that ask for too much


def wide(payload: dict[str, Any]) -> dict[str, Any]:
    """Claim a network of 65,536 columns: 80 GB of weights."""
    architecture = {**payload["architecture"], "hidden_dim": 2**16}
    architecture["blocks"] = [{"part": "residual-block", "hidden_dim": 2**16, "embedding_dim": 2**16}] * 3
    return {**payload, "architecture": architecture}


def wider(payload: dict[str, Any]) -> dict[str, Any]:
    return {**payload, "architecture": {**payload["architecture"], "hidden_dim": 2**40}}


def wide_and_expanded(payload: dict[str, Any]) -> dict[str, Any]:
    """Claim the same, and bring weights of that shape that are one number over and over."""
    architecture = {**payload["architecture"], "hidden_dim": 2**16, "blocks": []}
    with torch.device("meta"):
        shapes = ptd.ResidualMLP(
            points=ptd.FourierFeatures(2, 4), noise=ptd.NoiseEmbedding(8), blocks=[], n_dims=2, hidden_dim=2**16
        ).state_dict()
    weights = {name: torch.ones(1).expand(value.shape) for name, value in shapes.items()}
    return {**payload, "architecture": architecture, "weights": weights}


def many(payload: dict[str, Any]) -> dict[str, Any]:
    """Claim 60,000 blocks; in the file they are one and the same."""
    return {
        **payload,
        "architecture": {**payload["architecture"], "blocks": payload["architecture"]["blocks"] * 30_000},
    }


def nested(payload: dict[str, Any]) -> dict[str, Any]:
    """Claim a network of two networks of two networks ...: two to the fortieth in a file of a few kilobytes."""
    architecture = {**payload["architecture"], "blocks": []}
    for _ in range(40):
        architecture = {**payload["architecture"], "blocks": [architecture, architecture]}
    return {**payload, "architecture": architecture}


def endless(payload: dict[str, Any]) -> dict[str, Any]:
    """A network that is a block of itself."""
    architecture = dict(payload["architecture"])
    architecture["blocks"] = [architecture]
    return {**payload, "architecture": architecture}


def many_columns(payload: dict[str, Any]) -> dict[str, Any]:
    """The shapes agree with each other and cost nothing in the file."""
    n = 2**17
    one = torch.ones(1, dtype=torch.float64)
    vectors = {"mean": one.expand(n), "scale": one.expand(n), "covariance": one.expand(n, n), "columns": ["x"] * n}
    return {**payload, **vectors}


READER = """
import resource, sys
import pointdiffusion as ptd
ptd.load(sys.argv[1])
# What a file that is believed would take is not there to be had, and time ends.
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
before = peak()
try:
    ptd.load(sys.argv[2])
    answer = "accepted"
except Exception as error:
    answer = type(error).__name__ + " " + str(error)
print(peak() - before, answer)
"""
CLAIMS = [wide, wider, wide_and_expanded, many, nested, endless, many_columns]


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit the memory of a process")
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_a_file_that_asks_for_too_much_gets_neither_memory_nor_time(
    claim: Callable[[dict], dict], path: Path, scripts: Scripts
) -> None:
    """In a process of its own, which can be ended where it does not end, and with four gigabytes to be had."""
    reader, greedy = path.parent / "reader.py", path.parent / "greedy.pt"
    reader.write_text(READER)
    greedy.write_bytes(seal(archive(claim(payload_of(path)))))
    assert greedy.stat().st_size < 3 * 2**20
    result = scripts.run(path, greedy, cwd=path.parent, script=reader)
    assert result.code == 0, "it took all the time or the memory that it could get"
    mebibytes, answer = result.out.split(" ", 1)
    assert answer.startswith("ValueError"), answer
    assert "greedy.pt" in answer
    assert float(mebibytes) < 200


# -------------------------------------------------------------------------------------------------------------- saving


def test_a_file_that_cannot_be_written_leaves_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, name, full)
            with pytest.raises(OSError, match="No space"):
                model(columns=["a", "b"]).save(path)
        assert path.read_bytes() == before
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("place", ["model.pt/below.pt", "/proc/nothing/model.pt", "/dev/null/model.pt", "folder"])
def test_a_place_where_no_file_can_be(place: str, path: Path) -> None:
    (path.parent / "folder").mkdir()
    before = path.read_bytes()
    with pytest.raises(OSError, match=r"\S"):
        model().save(path.parent / place)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["folder", "model.pt"]


def test_metadata_that_is_not_plain_is_refused_when_saved(path: Path) -> None:
    before = path.read_bytes()
    for value in (object(), torch.ones(2), np.float64, {"a": {1, 2}}):
        with pytest.raises(ValueError, match="metadata"):
            model(metadata={"mine": value}).save(path)
    assert path.read_bytes() == before


def test_an_older_file_with_another_name_is_read(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "my results äöü.bin")
    np.testing.assert_array_equal(ptd.load(tmp_path / "my results äöü.bin").sample(3), model().sample(3))
