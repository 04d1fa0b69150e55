"""What a file of a model may hold, and how much: looked at before anything is made of it, whatever its hash says."""

from __future__ import annotations

import collections
import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pointdiffusion as ptd
from pointdiffusion.runtime.files import seal


def model(**changes: Any) -> ptd.DiffusionModel:
    noise = ptd.NoiseEmbedding(8)
    backbone = ptd.ResidualMLP(
        points=ptd.FourierFeatures(2, 4), noise=noise, n_dims=2, hidden_dim=12, blocks=[ptd.PlainBlock(12, 8)]
    )
    settings = {
        "denoiser": ptd.KarrasDenoiser(backbone),
        "standardiser": ptd.Standardiser(np.zeros(2), np.ones(2)),
        "covariance": torch.eye(2, dtype=torch.float64),
        "columns": ["x", "y"],
        "inference": ptd.InferenceConfig(num_steps=3),
    }
    return ptd.DiffusionModel(**{**settings, **changes})


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a good file with some parts replaced, sealed anew."""
    path = tmp_path / "model.pt"
    model().save(path)
    good = dict(torch.load(path, weights_only=True))

    def replaced(**parts: Any) -> Path:
        buffer = io.BytesIO()
        torch.save({**good, **parts}, buffer)
        path.write_bytes(seal(buffer.getvalue()))
        return path

    return replaced


class Call:
    """What a pickle calls when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


CALLS = {
    "bytes": Call(bytearray, 50_000_000),
    "a tensor": Call(torch.FloatTensor, 5000, 5000),
    "a storage": Call(torch.UntypedStorage, 50_000_000),
    "a meta tensor": torch.empty(10**6, 10**6, device="meta"),
    "a sparse tensor": torch.eye(2).to_sparse(),
    "a set": {1, 2},
    "a counter": collections.Counter("ab"),
    "a complex number": 1j,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("part", ["metadata", "weights", "inference"])
@pytest.mark.filterwarnings("ignore:::torch")
def test_what_no_file_of_ours_calls_is_not_called(name: str, part: str, write: Callable[..., Path]) -> None:
    """A file of some kilobytes that would make fifty megabytes makes none."""
    path = write(**{part: {"x": CALLS[name]}})
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"model\.pt is not a whole model.* as no file of ours does"):
            ptd.load(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_checkpoint_calls_no_more(tmp_path: Path) -> None:
    """But for plain values that a module of somebody's own may keep."""
    keeper, path = ptd.AtomicCheckpointIO(), tmp_path / "last.ckpt"
    kept = {"settings": {}, "own": [{1, 2}, 1j, b"bytes", torch.Size([2]), torch.float32, collections.Counter("ab")]}
    keeper.save_checkpoint(kept, path)
    assert keeper.load_checkpoint(path) == kept
    for call in (Call(bytearray, 50_000_000), Call(torch.FloatTensor, 5000, 5000)):
        keeper.save_checkpoint({"settings": {}, "own": call}, path)
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match=r"last\.ckpt is not a checkpoint of pointdiffusion"):
                keeper.load_checkpoint(path)
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()


def doubled(value: Any, times: int) -> Any:
    """Return lists of twice the same list: two to the power of `times` values, in a file of some lines."""
    for _ in range(times):
        value = [value, value]
    return value


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"x": value}
    return value


ENDLESS: dict[str, Any] = {}
ENDLESS["x"] = ENDLESS

TOO_MUCH = {
    "values": doubled(1, 40),
    "characters": doubled("z" * 10_000, 20),
    "depth": nested(150),
    "no end": ENDLESS,
}


@pytest.mark.parametrize("name", TOO_MUCH)
@pytest.mark.parametrize("part", ["metadata", "inference", "training", "architecture", "grids", "conditions"])
def test_values_are_counted_wherever_they_stand(name: str, part: str, write: Callable[..., Path]) -> None:
    """What is one value in the file many times over would be as many in a message."""
    path = write(**{part: {"x": TOO_MUCH[name]}})
    with pytest.raises(ValueError, match=r"holds more values than any model needs|is nested too deeply") as caught:
        ptd.load(path)
    assert len(str(caught.value)) < 600


def test_metadata_holds_no_tensor(write: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="metadata holds a Tensor, which is no plain value"):
        ptd.load(write(metadata={"x": torch.ones(2)}))


def test_metadata_of_many_values_come_back(tmp_path: Path) -> None:
    mine = {"ids": list(range(100_000)), "a": collections.OrderedDict(b=(1, 2.5, None, True)), "text": "z" * 10**6}
    model(metadata=mine).save(tmp_path / "model.pt")
    assert ptd.load(tmp_path / "model.pt").metadata == mine


@pytest.mark.parametrize("value", [np.float64(1), doubled(1, 30), nested(150)], ids=["numpy", "many", "deep"])
def test_what_could_not_be_read_is_not_written(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metadata must be numbers, texts, lists and dictionaries"):
        model(metadata={"x": value}).save(tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"inference": {"sigma_max": 1e308}}, "sigma_max must be at most 1,000,000"),
        ({"training": {"sigma_max": 1e300}}, "sigma_max must be at most 1,000,000"),
        ({"sigma_data": 1e200}, "sigma_data must lie between 1e-06 and 1e+06"),
        ({"sigma_data": 1e-200}, "sigma_data must lie between 1e-06 and 1e+06"),
        ({"grids": {2: [1e308, 1.0, 0.0]}}, "levels of a grid must lie between 1e-06 and 1e+06"),
        ({"grids": {2: [1.0, 1e-300, 0.0]}}, "levels of a grid must lie between 1e-06 and 1e+06"),
    ],
)  # fmt: skip
def test_noise_levels_whose_square_overflows_are_refused(
    parts: dict[str, Any], sentence: str, write: Callable[..., Path]
) -> None:
    """When the file is read, not in the middle of sampling."""
    with pytest.raises(ValueError, match=sentence.replace("+", r"\+")):
        ptd.load(write(**parts))
