"""Bad input and broken machines: one sentence, the right exit code, no traceback, nothing of an earlier run lost."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from example_fixtures import EXAMPLE, PLAYGROUND, RUN_EXAMPLE, TOY, Result, Scripts, hashes, leftovers, run_python

import pointdiffusion as ptd

OUTPUT = "swiss_roll_output"


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Return a function that calls the command line in this process; most faults need no other."""
    monkeypatch.syspath_prepend(str(PLAYGROUND))
    for name in ("data", "model", "command_line", "swiss_roll_example"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import swiss_roll_example

    def run(*arguments: str | Path) -> Result:
        capsys.readouterr()
        try:
            code = swiss_roll_example.main([str(argument) for argument in arguments])
        except SystemExit as end:  # of argparse
            code = int(end.code or 0)
        return Result(code, *capsys.readouterr(), 0.0)

    return run


@pytest.fixture
def earlier(trained: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with the results of an earlier run."""
    shutil.copytree(trained[0] / OUTPUT, tmp_path / OUTPUT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---------------------------------------------------------------------------------------------------------- the flags

BAD_FLAGS = [
    *[[flag, value] for flag in ("--epochs", "--batch-size", "--n-train", "--n-val", "--n-samples", "--n-steps",
                                 "--hidden-dim") for value in ("0", "-3", "many", "2.5", "1e99")],
    *[[flag, value] for flag in ("--lr", "--noise") for value in ("-1", "nan", "inf", "-inf", "fast", "1e99", "")],
    ["--lr", "0"],
    ["--num-layers", "-1"],
    ["--num-layers", "1000000000"],
    ["--n-train", "9"],
    ["--epochs", "9" * 5000],
    ["--hidden-dim", "1000000000"],
    ["--n-samples", "1000000000000"],
    ["--n-steps", "1000000000"],
    ["--seed", "-1"],
    ["--seed", "99999999999999999999999"],
    ["--seed", "lucky"],
    ["--dims", "1"],
    ["--dims", "4"],
    ["--dims", "two"],
    ["--device", "gpu"],
    ["--epochs"],
    ["--surprise"],
    ["surprise"],
    ["--train-only", "--inference-only"],
]  # fmt: skip


@pytest.mark.parametrize("flags", BAD_FLAGS, ids=lambda flags: " ".join(flags)[:30])
def test_a_bad_flag(flags: list[str], earlier: Path, run_main: Callable[..., Result]) -> None:
    before = hashes(earlier)
    result = run_main(*TOY, *flags)
    assert result.code == 2
    message = result.sentence()
    assert any(part in message for part in (flags[0], "surprise")), message
    assert len(message) < 400 or len(flags[-1]) > 100
    assert hashes(earlier) == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--solver", "huen"], ["'huen'", "'heun'", "euler"]),
        (["--solver", ""], ["euler", "heun"]),
        (["--inference-only", "--resume"], ["--resume", "--inference-only"]),
        (["--model-path", "model.pt"], ["--model-path", "--inference-only"]),
        (["--train-only", "--model-path", "model.pt"], ["--model-path", "--inference-only"]),
    ],
    ids=lambda value: " ".join(value)[:30],
)
def test_a_bad_combination(flags: list[str], words: list[str], earlier: Path, run_main: Callable[..., Result]) -> None:
    before = hashes(earlier)
    result = run_main(*TOY, *flags)
    assert result.code == 2
    message = result.sentence()
    assert all(word in message for word in words), message
    assert hashes(earlier) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize("more", [[], ["--inference-only"], ["--resume"]], ids=["training", "inference", "resume"])
def test_a_device_that_is_not_there(more: list[str], earlier: Path, run_main: Callable[..., Result]) -> None:
    before = hashes(earlier)
    result = run_main(*TOY, "--device", "cuda", *more)
    assert result.code == 2
    assert "cuda" in result.sentence()
    assert hashes(earlier) == before


def test_a_fresh_process_says_the_same(tmp_path: Path) -> None:
    """Two of the above as the user meets them, with the other script as well."""
    bad = run_python(EXAMPLE, "--epochs", "0", cwd=tmp_path)
    assert bad.code == 2
    assert "--epochs" in bad.sentence()
    assert bad.out == ""
    unknown = run_python(RUN_EXAMPLE, "--solver", "rk45", cwd=tmp_path)
    assert unknown.code == 2
    assert unknown.err.startswith("error: unknown solver 'rk45'")
    assert unknown.sentence()
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------- where to write

PLACES = [
    "a-file", "a-file/below", "a-file/far/below", "/dev/null", "/dev/null/below", "/proc/nothing", "/proc/1/below",
    "/sys/nothing", "x" * 300,
]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="root can write anywhere but here")
@pytest.mark.parametrize("place", PLACES, ids=lambda place: ascii(place[:20]))
@pytest.mark.parametrize("more", [[], ["--inference-only", "--model-path", "good.pt"]], ids=["training", "inference"])
def test_an_output_directory_that_cannot_be(
    place: str, more: list[str], earlier: Path, run_main: Callable[..., Result]
) -> None:
    (earlier / "a-file").write_text("precious")
    shutil.copy(earlier / OUTPUT / "model.pt", earlier / "good.pt")
    before = hashes(earlier)
    result = run_main(*TOY, "--output-dir", place, *more)
    assert result.code == 2, result
    assert "--output-dir" in result.sentence()
    assert hashes(earlier) == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_directory_without_permission(earlier: Path, run_main: Callable[..., Result]) -> None:
    (earlier / OUTPUT).chmod(0o500)
    before = hashes(earlier)
    try:
        result = run_main(*TOY)
        assert result.code == 2
        assert "--output-dir" in result.sentence()
        assert hashes(earlier) == before
    finally:
        (earlier / OUTPUT).chmod(0o700)


@pytest.mark.parametrize("name", ["model.pt", "samples.csv", "inference.gif", "checkpoints/last.ckpt", "checkpoints"])
def test_a_folder_or_file_in_the_place_of_an_output(name: str, earlier: Path, run_main: Callable[..., Result]) -> None:
    """A folder where a file belongs, and a file where a folder belongs."""
    place = earlier / OUTPUT / name
    if place.is_dir():
        shutil.rmtree(place)
        place.write_text("precious")
    else:
        place.unlink()
        place.mkdir()
        (place / "precious.txt").write_text("precious")
    result = run_main(*TOY)
    assert result.code == 2, result
    assert Path(name).name in result.sentence()
    assert leftovers(earlier) == []
    assert (place if place.is_file() else place / "precious.txt").read_text() == "precious"


# ------------------------------------------------------------------------------------------------------------- models

MODELS: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda _content: None,
    "empty": lambda _content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content[:5000] + bytes([content[5000] ^ 4]) + content[5001:],
    "foreign": lambda _content: b"not a model at all\n" * 500,
    "a pickle": lambda _content: pickle.dumps({"weights": [1.0] * 100}),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("named", [True, False], ids=["named", "default"])
def test_a_bad_model(kind: str, named: bool, earlier: Path, run_main: Callable[..., Result]) -> None:
    path = earlier / "theirs.pt" if named else earlier / OUTPUT / "model.pt"
    content = MODELS[kind]((earlier / OUTPUT / "model.pt").read_bytes())
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    before = hashes(earlier)
    result = run_main("--inference-only", *(["--model-path", path.name] if named else []))
    assert result.code == 2
    assert path.name in result.sentence()
    assert hashes(earlier) == before


def test_a_folder_in_the_place_of_a_model(earlier: Path, run_main: Callable[..., Result]) -> None:
    before = hashes(earlier)
    result = run_main("--inference-only", "--model-path", OUTPUT)
    assert result.code == 2
    assert "folder" in result.sentence()
    assert hashes(earlier) == before


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"example": 3},
        {"example": {}},
        {"example": {"n_samples": 10}, "data": {"name": "moons"}},
        {"example": dict.fromkeys(("n_samples", "n_train", "dims", "seed"), "many"), "data": {}, "network": {}},
    ],
    ids=["none", "a number", "empty", "parts", "texts"],
)
def test_a_model_that_the_example_did_not_write(
    metadata: dict[str, Any], earlier: Path, run_main: Callable[..., Result]
) -> None:
    """It is a good model, but its data cannot be drawn again."""
    short = ptd.TrainingConfig(epochs=1, batch_size=64)
    points = ptd.DATASETS["moons"](100, random_state=0)
    ptd.fit(points, short, metadata=metadata).save(earlier / "theirs.pt")
    before = hashes(earlier)
    result = run_main("--inference-only", "--model-path", "theirs.pt")
    assert result.code == 2, result
    assert "theirs.pt" in result.sentence()
    assert hashes(earlier) == before


def test_a_checkpoint_is_no_model(earlier: Path, run_main: Callable[..., Result]) -> None:
    before = hashes(earlier)
    result = run_main("--inference-only", "--model-path", f"{OUTPUT}/checkpoints/last.ckpt")
    assert result.code == 2
    assert "last.ckpt" in result.sentence()
    assert hashes(earlier) == before


# ------------------------------------------------------------------------------------------------- a machine that fails


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a disk of its own of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    mount = [shutil.which("mount") or "mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run([shutil.which("umount") or "umount", str(folder)], check=True)


def fill(disk: Path, room: int) -> Path:
    """Fill a disk but for so many bytes, and return the file that does."""
    status = os.statvfs(disk)
    with (disk / "ballast").open("wb") as file:
        file.write(b"\1" * max(0, status.f_bavail * status.f_frsize - room))
    return disk / "ballast"


@pytest.mark.parametrize("room", [0, 60_000], ids=["at once", "at the checkpoint"])
def test_a_full_disk(room: int, small_disk: Path, trained: tuple[Path, Result], scripts: Scripts) -> None:
    shutil.copytree(trained[0] / OUTPUT, small_disk / OUTPUT)
    ballast = fill(small_disk, room)
    before = hashes(small_disk)
    result = scripts.run(*TOY, "--seed", "3", cwd=small_disk)
    assert result.code == 1, result
    assert "disk is full" in result.sentence()
    after = hashes(small_disk)
    assert {name: after[name] for name in before} == before  # nothing but logs may have come
    assert leftovers(small_disk) == []
    ballast.unlink()  # with room again, the same command works
    assert scripts.run(*TOY, "--seed", "3", cwd=small_disk).code == 0


def test_a_disk_that_is_full_at_the_picture(
    small_disk: Path, trained: tuple[Path, Result], scripts: Scripts, tmp_path: Path
) -> None:
    """What was written before is whole."""
    sizes = {name: (trained[0] / OUTPUT / name).stat().st_size for name in ("checkpoints/last.ckpt", "model.pt")}
    fill(small_disk, sum(sizes.values()) + 45_000)  # the picture has 50,000 bytes and there are logs
    result = scripts.run(*TOY, "--epochs", "1", cwd=small_disk)
    assert result.code == 1, result
    assert "disk is full" in result.sentence()
    assert leftovers(small_disk) == []
    assert not (small_disk / OUTPUT / "results_comparison.png").exists()
    assert not (small_disk / OUTPUT / "summary.json").exists()
    model = ptd.load(small_disk / OUTPUT / "model.pt")
    table = pd.read_csv(small_disk / OUTPUT / "samples.csv")
    np.testing.assert_array_equal(table.to_numpy(), model.sample(50, seed=0))


LIMIT = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX has these limits")
@pytest.mark.parametrize("size", [0, 30_000, 150_000])
def test_a_limit_on_the_size_of_files(
    size: int, trained: tuple[Path, Result], scripts: Scripts, tmp_path: Path
) -> None:
    """Nothing can be written; no checkpoint; a model, but no checkpoint."""
    shutil.copytree(trained[0] / OUTPUT, tmp_path / OUTPUT)
    before = hashes(tmp_path)
    result = scripts.run(*TOY, "--seed", "3", cwd=tmp_path, prelude=LIMIT.format(size=size), out=Path(os.devnull))
    assert result.code == 1
    assert leftovers(tmp_path) == []
    after = hashes(tmp_path)
    assert {name: after[name] for name in before if "lightning_logs" not in name} == {
        name: before[name] for name in before if "lightning_logs" not in name
    }
    if size:  # the file for the standard error is limited, too
        result.sentence()


def test_too_little_memory(scripts: Scripts, tmp_path: Path) -> None:
    prelude = """
import torch
from pointdiffusion.training import losses, module as training
def greedy(*_):
    torch.empty(2**60)
training.denoising_loss = greedy
"""
    result = scripts.run(*TOY, cwd=tmp_path, prelude=prelude)
    assert result.code == 1, result
    assert "memory" in result.sentence()


@pytest.mark.parametrize("rate", ["1", "10"])
def test_training_that_diverges_ends_with_a_sentence(
    rate: str, earlier: Path, run_main: Callable[..., Result]
) -> None:  # fmt: skip
    """It says what to change, and no result of the earlier run is replaced."""
    before = hashes(earlier)
    result = run_main(*TOY, "--lr", rate, "--epochs", "8", "--batch-size", "64")
    assert result.code == 1
    assert f"lower the learning rate ({rate})" in result.sentence()
    after = hashes(earlier)
    results = [f"{OUTPUT}/{name}" for name in ("model.pt", "samples.csv", "summary.json")]
    assert [after[name] for name in results] == [before[name] for name in results]
    assert ("kept apart in" in result.sentence()) == ((earlier / OUTPUT / "diverged.pt").exists())


# --------------------------------------------------------------------------------------------------------------- data

GOOD = ptd.DATASETS["moons"](50, random_state=0)


def spoiled(value: Any) -> np.ndarray:
    points = GOOD.astype(object) if isinstance(value, str) or value is None else GOOD.copy()
    points[17, 1] = value
    return points


BAD_DATA: dict[str, tuple[Any, str]] = {
    "NaN": (spoiled(np.nan), "NaN.*row 17"),
    "infinite": (spoiled(np.inf), "infinite.*row 17"),
    "minus infinite": (spoiled(-np.inf), "infinite.*row 17"),
    "text": (spoiled("many"), "'many'.*row 17"),
    "nothing": (spoiled(None), "NaN.*row 17"),
    "a column of text": (pd.DataFrame({"x": GOOD[:, 0], "name": ["roll"] * 50}), "'name'"),
    "dates": (pd.DataFrame({"x": GOOD[:, 0], "day": pd.date_range("2020-01-01", periods=50)}), "'day'"),
    "complex": (GOOD + 1j, r"\S"),
    "constant": (np.column_stack([GOOD[:, 0], np.full(50, 3.0)]), "'y'.*constant"),
    "empty": (GOOD[:0], "row"),
    "no columns": (GOOD[:, :0], "column"),
    "no table": (GOOD[:, 0], "table"),
    "a number": (3.0, "table"),
    "three axes": (GOOD.reshape(5, 10, 2), "table"),
    "ragged": ([[1.0, 2.0], [3.0]] * 20, r"\S"),
    "too few": (GOOD[:9], "too few"),
    "one row": (GOOD[:1], "too few"),
    "too large": (GOOD * 1e200, "large"),
    "nothing at all": (None, "table"),
    "a word": ("points.csv", "table"),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data_is_refused_before_anything_is_written(kind: str, tmp_path: Path) -> None:
    data, match = BAD_DATA[kind]
    with pytest.raises(ValueError, match=match) as caught:
        ptd.fit(data, ptd.TrainingConfig(epochs=1), folder=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > 15
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["validation", "population"])
def test_bad_rows_for_the_losses_are_refused_too(name: str, tmp_path: Path) -> None:
    for data in (spoiled(np.nan), GOOD[:, :1], GOOD[:0]):
        with pytest.raises(ValueError, match=r"NaN|column|row"):
            ptd.fit(GOOD, ptd.TrainingConfig(epochs=1), folder=tmp_path / "run", **{name: data})
    assert list(tmp_path.iterdir()) == []


def test_bad_data_of_a_changed_data_file(scripts: Scripts, tmp_path: Path) -> None:
    """What a user's own data.py draws is checked like all data."""
    copy = tmp_path / "mine"
    shutil.copytree(PLAYGROUND, copy, ignore=shutil.ignore_patterns("__pycache__", OUTPUT))
    text = (copy / "data.py").read_text()
    assert text.count("    return pd.DataFrame(") == 1
    spoil = "    points[3, 1] = float('nan')\n    return pd.DataFrame("
    (copy / "data.py").write_text(text.replace("    return pd.DataFrame(", spoil))
    result = scripts.run(*TOY, cwd=tmp_path, script=copy / EXAMPLE.name)
    assert result.code == 2, result
    assert "'y' holds NaN in row 3" in result.sentence()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_data_at_the_edge_of_what_is_allowed() -> None:
    """Ten rows, one column, whole numbers, very large and very small units."""
    short = ptd.TrainingConfig(epochs=1, batch_size=16)
    tables = [GOOD[:10], GOOD[:, :1], np.arange(40).reshape(20, 2), GOOD * 1e-150, GOOD * 1e100 + 1e100]
    for points in tables:
        samples = ptd.fit(points, short).sample(5, num_steps=3)
        assert samples.shape == (5, points.shape[1])
        assert np.isfinite(samples).all()


@pytest.mark.parametrize(
    "settings",
    [{"n_samples": 0}, {"n_samples": -1}, {"num_steps": 0}, {"solver": "huen"}, {"sigma_max": -1.0}],
    ids=str,
)
def test_bad_settings_of_sampling(settings: dict[str, Any], trained: tuple[Path, Result]) -> None:
    model = ptd.load(trained[0] / OUTPUT / "model.pt")
    count = settings.pop("n_samples", 4)
    with pytest.raises(ValueError, match=r"\S{3}"):
        model.sample(count, **settings)


def test_an_unknown_setting_of_sampling_is_named(trained: tuple[Path, Result]) -> None:
    """Settings are named parameters, so that Python itself, and a type checker before it, refuses others."""
    model: Any = ptd.load(trained[0] / OUTPUT / "model.pt")
    with pytest.raises(TypeError, match="'steps'"):
        model.sample(4, steps=3)
