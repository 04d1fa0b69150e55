"""A run that was stopped, at whatever moment and however, ends where an uninterrupted one does, bit for bit."""

from __future__ import annotations

import copy
import functools
import io
import itertools
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from example_fixtures import EXAMPLE, PLAYGROUND, TOY, Result, Running, Scripts, hashes, leftovers
from lightning.pytorch import Callback, Trainer

import pointdiffusion as ptd
from pointdiffusion.runtime.files import seal
from pointdiffusion.training import fitting
from pointdiffusion.training import module as training
from pointdiffusion.training.checkpoints import check_state
from pointdiffusion.training.module import LightningDiffusion

RESULTS = ["model.pt", "samples.csv", "results_comparison.png", "inference.gif"]
OUTPUT = "swiss_roll_output"
POINTS = np.random.default_rng(0).normal(size=(250, 2)) * [3, 0.5] + [5, -1]
TRAINING = ptd.TrainingConfig(epochs=4, batch_size=64, learning_rate=1e-3)  # 4 steps an epoch, the last one not full


def same_models(a: ptd.DiffusionModel, b: ptd.DiffusionModel) -> None:
    """Check that averaged weights, raw weights and samples are the same to the last bit."""
    averaged = [model.denoiser.state_dict() for model in (a, b)]
    for first, second in (averaged, [a.raw_weights, b.raw_weights]):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    np.testing.assert_array_equal(a.sample(20, num_steps=5), b.sample(20, num_steps=5))


# --------------------------------------------------------------------------------------------------------- in process


def small_network(_metadata: Any) -> torch.nn.Module:
    from pointdiffusion.networks import default_network

    return default_network(2, hidden_dim=16)


def fit(folder: Path | None, **changes: Any) -> ptd.DiffusionModel:
    return ptd.fit(POINTS, TRAINING, validation=POINTS[:50], backbone=small_network, seed=3, folder=folder, **changes)


@pytest.fixture(scope="module")
def uninterrupted() -> ptd.DiffusionModel:
    return fit(None)


class Stopped(Exception):  # noqa: N818
    """What stops a run in these tests."""


def stop_at_step(monkeypatch: pytest.MonkeyPatch, step: int, error: type[BaseException]) -> None:
    """Let training raise at the beginning of a step, counted from 0 over the whole run."""
    original = LightningDiffusion.training_step

    def training_step(self: LightningDiffusion, *arguments: Any) -> torch.Tensor:
        if self.global_step == step:
            raise error
        return original(self, *arguments)

    monkeypatch.setattr(LightningDiffusion, "training_step", training_step)


def stop_after_save(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Let training raise right after the checkpoint of an epoch was written."""
    original = fitting.SaveCheckpoint.on_train_epoch_end

    def on_train_epoch_end(self: Any, trainer: Trainer, module: Any) -> None:
        original(self, trainer, module)
        if trainer.current_epoch == epoch:
            raise Stopped

    monkeypatch.setattr(fitting.SaveCheckpoint, "on_train_epoch_end", on_train_epoch_end)


@pytest.mark.parametrize(
    ("stops", "error"),
    [([4], Stopped), ([7], KeyboardInterrupt), ([9], Stopped), ([15], KeyboardInterrupt), ([5, 6, 13], Stopped)],
    ids=lambda value: getattr(value, "__name__", None) or "-".join(map(str, value)),
)
def test_resumed_within_an_epoch(
    stops: list[int], error: type[BaseException], uninterrupted: ptd.DiffusionModel,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for resume, step in enumerate(stops):
        with monkeypatch.context() as patch:
            stop_at_step(patch, step, error)
            with pytest.raises(error):
                fit(tmp_path, resume=bool(resume))
    same_models(fit(tmp_path, resume=True), uninterrupted)


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_resumed_between_epochs(
    epoch: int, uninterrupted: ptd.DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after_save(patch, epoch)
        with pytest.raises(Stopped):
            fit(tmp_path)
    same_models(fit(tmp_path, resume=True), uninterrupted)


@pytest.mark.parametrize("stops", [[2], [6, 7, 15]], ids=str)
def test_resumed_from_a_checkpoint_within_an_epoch(
    stops: list[int], uninterrupted: ptd.DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch on many rows takes long, so there are checkpoints by time as well; no step is trained twice."""
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", 0.0)
    trained: list[int] = []
    original = LightningDiffusion.training_step

    def training_step(self: LightningDiffusion, *arguments: Any) -> torch.Tensor:
        trained.append(self.global_step)
        return original(self, *arguments)

    monkeypatch.setattr(LightningDiffusion, "training_step", training_step)
    for resume, step in enumerate(stops):
        with monkeypatch.context() as patch:
            stop_at_step(patch, step, Stopped)
            with pytest.raises(Stopped):
                fit(tmp_path, resume=bool(resume))
    same_models(fit(tmp_path, resume=True), uninterrupted)
    assert trained == list(range(16))


@pytest.mark.parametrize("step", [1, 4, 15, 16])
def test_killed_right_after_a_checkpoint_within_an_epoch(
    step: int, uninterrupted: ptd.DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after that of the last step of an epoch, and of the run: the end of the epoch is still to come."""
    monkeypatch.setattr(fitting, "CHECKPOINT_SECONDS", 0.0)
    original = fitting.SaveCheckpoint.on_train_batch_end

    def on_train_batch_end(self: Any, trainer: Trainer, *arguments: Any) -> None:
        original(self, trainer, *arguments)
        if trainer.global_step == step:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(fitting.SaveCheckpoint, "on_train_batch_end", on_train_batch_end)
        with pytest.raises(Stopped):
            fit(tmp_path)
    same_models(fit(tmp_path, resume=True), uninterrupted)


def test_a_finished_run_resumed_is_the_same_model(uninterrupted: ptd.DiffusionModel, tmp_path: Path) -> None:
    same_models(fit(tmp_path), uninterrupted)
    same_models(fit(tmp_path, resume=True), uninterrupted)


def test_resuming_from_nothing_is_refused_in_python(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no checkpoint"):
        fit(tmp_path, resume=True)
    with pytest.raises(ValueError, match="no checkpoint"):
        fit(None, resume=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:::lightning")
def test_resumed_by_a_users_own_trainer_from_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """The draws belong to the number of the step, so a checkpoint of the third step of four serves as well."""

    class StopAt(Callback):
        def __init__(self, step: int) -> None:
            self.step = step

        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == self.step:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")
                raise Stopped

    def train(*callbacks: Callback, path: Path | None = None) -> LightningDiffusion:
        torch.manual_seed(0)
        with torch.random.fork_rng(devices=[]):
            network = small_network(None)
        module = LightningDiffusion(ptd.KarrasDenoiser(network), TRAINING, points=POINTS, seed=3)
        trainer = Trainer(
            max_epochs=4, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
            plugins=[ptd.AtomicCheckpointIO()],
        )  # fmt: skip
        trainer.fit(module, ckpt_path=path)
        return module

    whole = train()
    with pytest.raises(Stopped):
        train(StopAt(7))
    resumed = train(path=tmp_path / "middle.ckpt")
    assert resumed.global_step == whole.global_step
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


# ------------------------------------------------------------------------------------------------- the script, killed

LONG = [*TOY, "--epochs", "6", "--batch-size", "64"]
QUICK = """
from pointdiffusion.training import module as training
training.FIXED_DRAWS = 64
"""
"""Takes the logged losses on fewer draws, which costs most of the time of a run this small, and the weights nothing."""
SLOW = f"""{QUICK}
import time
from pointdiffusion.training.module import LightningDiffusion as module
step = module.training_step
def slowly(*arguments):
    time.sleep(0.03)
    return step(*arguments)
module.training_step = slowly
"""
"""Leaves time to be interrupted, and changes nothing else."""


@pytest.fixture(scope="module")
def whole(scripts: Scripts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the hashes of the results of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    result = scripts.run(*LONG, cwd=folder, prelude=QUICK)
    assert result.code == 0, result
    found = hashes(folder / OUTPUT)
    return {name: found[name] for name in RESULTS}


def wait_for(condition: Callable[[], bool], running: Running) -> None:
    deadline = time.perf_counter() + 60
    while not condition():
        assert running.poll() is None, running.wait()
        assert time.perf_counter() < deadline
        time.sleep(0.002)


def changed(path: Path, times: int) -> Callable[[], bool]:
    """Return whether a file that is always replaced has been written so many times (at least, as far as was seen)."""
    seen: set[int] = set()

    def ask() -> bool:
        if path.exists():
            seen.add(path.stat().st_mtime_ns)
        return len(seen) >= times

    return ask


def finish(scripts: Scripts, folder: Path, whole: dict[str, str]) -> Result:
    """Resume, and check that the run ends like an uninterrupted one and cleans up."""
    result = scripts.run(*LONG, "--resume", cwd=folder, prelude=QUICK)
    assert result.code == 0, result
    assert result.err == ""
    after = hashes(folder / OUTPUT)
    assert {name: after[name] for name in RESULTS} == whole
    assert leftovers(folder) == []
    return result


def test_ctrl_c_keeps_the_checkpoint_and_says_how_to_go_on(
    scripts: Scripts, whole: dict[str, str], tmp_path: Path
) -> None:
    running = scripts.start(*LONG, cwd=tmp_path, prelude=SLOW)
    checkpoint = tmp_path / OUTPUT / "checkpoints" / "last.ckpt"
    wait_for(changed(checkpoint, 2), running)
    running.send(signal.SIGINT)
    result = running.wait()
    assert result.code == 130, result
    assert "--resume" in result.err
    assert "interrupted" in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert "Traceback" not in result.out + result.err
    assert checkpoint.exists()
    assert not (tmp_path / OUTPUT / "model.pt").exists()
    assert leftovers(tmp_path) == []
    done = finish(scripts, tmp_path, whole)
    assert "afresh" not in done.out
    assert "training: 1/6" not in done.out  # it did not begin at the beginning


def test_ctrl_c_before_anything_is_saved(scripts: Scripts, tmp_path: Path) -> None:
    prelude = """
import pathlib, time
from pointdiffusion.data import datasets
def slow(*arguments, **settings):
    pathlib.Path("started").touch()
    time.sleep(60)
datasets.DATASETS["swiss-roll"] = slow
"""
    running = scripts.start(*LONG, cwd=tmp_path, prelude=prelude)
    wait_for((tmp_path / "started").exists, running)
    running.send(signal.SIGINT)
    result = running.wait(20)
    assert result.code == 130
    assert result.err.strip() == "interrupted"  # there is nothing to resume, so nothing is said of it
    assert [path.name for path in tmp_path.iterdir()] == ["started"]


def test_ctrl_c_while_sampling(scripts: Scripts, whole: dict[str, str], tmp_path: Path) -> None:
    prelude = f"""{QUICK}
import pathlib, time
from pointdiffusion.sampling import loop as sampling
original = sampling.trajectory
def slow(*arguments, **settings):
    for step in original(*arguments, **settings):
        pathlib.Path("started").touch()
        time.sleep(20)
        yield step
sampling.trajectory = slow
"""
    running = scripts.start(*LONG, cwd=tmp_path, prelude=prelude)
    wait_for((tmp_path / "started").exists, running)
    running.send(signal.SIGINT)
    result = running.wait(30)
    assert result.code == 130
    assert "Traceback" not in result.err
    assert leftovers(tmp_path) == []
    finish(scripts, tmp_path, whole)


@pytest.mark.parametrize("epochs", [1, 4])
def test_killed_while_training(epochs: int, scripts: Scripts, whole: dict[str, str], tmp_path: Path) -> None:
    running = scripts.start(*LONG, cwd=tmp_path, prelude=SLOW)
    wait_for(changed(tmp_path / OUTPUT / "checkpoints" / "last.ckpt", epochs), running)
    running.send(signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL
    finish(scripts, tmp_path, whole)


KILLER = """
import os, signal
from pathlib import Path
count = 0
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def half_written(handle):
    # Power fails while the bytes are on their way.
    global count
    name = os.readlink(f"/proc/self/fd/{handle}")
    count += Path(name).name.startswith(f".{TARGET}.")
    if count == NUMBER:
        os.ftruncate(handle, os.fstat(handle).st_size // 2)
        die()
    return sync(handle)
def not_yet_named(source, target, **settings):
    # The new file is whole, and has not taken the name of the old one.
    global count
    count += Path(target).name == TARGET
    if count == NUMBER:
        die()
    return replace(source, target, **settings)
sync, replace = os.fsync, os.replace
if HOOK == "fsync":
    os.fsync = half_written
else:
    os.replace = not_yet_named
"""


@pytest.mark.skipif(sys.platform != "linux", reason="finds the file being written in /proc")
@pytest.mark.parametrize(
    ("target", "number", "hook"),
    [("last.ckpt", 1, "fsync"), ("last.ckpt", 3, "replace"), ("model.pt", 1, "replace"), ("samples.csv", 1, "fsync")],
)
def test_killed_while_a_file_is_written(
    target: str, number: int, hook: str, scripts: Scripts, whole: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / OUTPUT
    folder.mkdir()
    earlier = {name: f"{name} of an earlier run".encode() for name in (*RESULTS, "summary.json")}
    for name, content in earlier.items():
        (folder / name).write_bytes(content)
    prelude = f"{QUICK}TARGET, NUMBER, HOOK = {target!r}, {number}, {hook!r}\n{KILLER}"
    result = scripts.run(*LONG, cwd=tmp_path, prelude=prelude)
    assert result.code == -signal.SIGKILL, result
    assert leftovers(tmp_path), "killed too early or too late"
    order = [name for name in RESULTS if name != "results_comparison.png"]
    for name in order[order.index(target) if target in order else 0 :]:
        assert (folder / name).read_bytes() == earlier[name]  # what was there is whole
    done = finish(scripts, tmp_path, whole)
    assert ("afresh" in done.out) == (target == "last.ckpt" and number == 1)


# --------------------------------------------------------------------------------------------------- refused, or fine


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Return a function that calls the command line in this process."""
    monkeypatch.syspath_prepend(str(PLAYGROUND))
    for name in ("data", "model", "command_line", "swiss_roll_example"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import swiss_roll_example

    def run(*arguments: str | Path) -> Result:
        capsys.readouterr()
        code = swiss_roll_example.main([str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr(), 0.0)

    return run


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--epochs", "3"], ["epochs", "2", "3"]),
        (["--batch-size", "64"], ["batch_size", "128", "64"]),
        (["--lr", "0.5"], ["learning_rate", "0.0001", "0.5"]),
        (["--seed", "7"], ["seed", "0", "7"]),
        (["--n-train", "300"], ["n_samples", "256", "300"]),
        (["--noise", "0.25"], ["noise", "0.0", "0.25"]),
        (["--dims", "3"], ["n_dims", "2", "3"]),
        (["--hidden-dim", "24"], ["hidden_dim", "16", "24"]),
        (["--num-layers", "1"], ["num_layers", "2", "1"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") else "",
)
def test_other_settings_are_refused_by_name_and_both_values(
    flags: list[str], names: list[str], trained: tuple[Path, Result], run_main: Callable[..., Result], tmp_path: Path
) -> None:
    shutil.copytree(trained[0] / OUTPUT, tmp_path / OUTPUT)
    before = hashes(tmp_path)
    result = run_main(*TOY, "--resume", "--output-dir", tmp_path / OUTPUT, *flags)
    assert result.code == 2
    message = result.sentence()
    words = message.replace("(", " ").replace(")", " ").replace(",", " ").replace(":", " ").replace(";", " ").split()
    assert all(any(word.endswith(name) for word in words) for name in names), message
    assert hashes(tmp_path) == before


def test_settings_of_sampling_may_change(
    trained: tuple[Path, Result], run_main: Callable[..., Result], tmp_path: Path
) -> None:
    """They do not touch the weights."""
    shutil.copytree(trained[0] / OUTPUT, tmp_path / OUTPUT)
    flags = ["--n-samples", "20", "--n-steps", "3", "--solver", "heun"]
    result = run_main(*TOY, "--resume", "--output-dir", tmp_path / OUTPUT, *flags)
    assert result.code == 0, result
    assert len((tmp_path / OUTPUT / "samples.csv").read_text().splitlines()) == 21


def test_a_finished_run_is_resumed_to_the_same_files(
    trained: tuple[Path, Result], scripts: Scripts, tmp_path: Path
) -> None:
    shutil.copytree(trained[0] / OUTPUT, tmp_path / OUTPUT)
    before = hashes(tmp_path / OUTPUT)
    result = scripts.run(*TOY, "--resume", cwd=tmp_path)
    assert result.code == 0, result
    after = hashes(tmp_path / OUTPUT)
    assert {name: after[name] for name in RESULTS} == {name: before[name] for name in RESULTS}


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def sealed(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return seal(buffer.getvalue())


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "flipped": flipped,
    "foreign": lambda _content: b"These are my notes.\n" * 100,
    "a list": lambda _content: sealed([1, 2, 3]),
    "an empty dictionary": lambda _content: sealed({}),
    "a dictionary of others": lambda _content: sealed({"state_dict": {}, "pytorch-lightning_version": "2.6.6"}),
}


def resealed(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    """Return what changes a checkpoint and computes its hash again."""

    def changed(content: bytes) -> bytes:
        checkpoint = torch.load(io.BytesIO(content), weights_only=True)
        change(checkpoint)
        return sealed(checkpoint)

    return changed


DAMAGES |= {
    **{f"no {name}": resealed(lambda checkpoint, name=name: checkpoint.pop(name)) for name in (
        "epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "optimizer_states",
        "lr_schedulers", "settings",
    )},
    "no weights": resealed(lambda checkpoint: checkpoint["state_dict"].clear()),
    "other shapes": resealed(
        lambda checkpoint: checkpoint.update(state_dict={n: t[None] for n, t in checkpoint["state_dict"].items()})
    ),
    "weights of NaN": resealed(lambda checkpoint: [t.fill_(torch.nan) for t in checkpoint["state_dict"].values()
                                                   if t.is_floating_point()]),
    "no moments": resealed(lambda checkpoint: checkpoint["optimizer_states"][0]["state"].clear()),
    "another rate": resealed(lambda checkpoint: checkpoint["optimizer_states"][0]["param_groups"][0].update(lr=1.0)),
    "steps not taken": resealed(lambda checkpoint: checkpoint.update(global_step=10**6)),
    "a version of nonsense": resealed(lambda checkpoint: checkpoint.update({"pytorch-lightning_version": "new"})),
    "a tensor in the settings": resealed(lambda checkpoint: checkpoint["settings"].update(seed=torch.zeros(3))),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint(
    kind: str, trained: tuple[Path, Result], run_main: Callable[..., Result], tmp_path: Path
) -> None:
    shutil.copytree(trained[0] / OUTPUT, tmp_path / OUTPUT)
    path = tmp_path / OUTPUT / "checkpoints" / "last.ckpt"
    path.write_bytes(DAMAGES[kind](path.read_bytes()))
    before = hashes(tmp_path)
    result = run_main(*TOY, "--resume", "--output-dir", tmp_path / OUTPUT)
    assert result.code == 2
    assert "last.ckpt" in result.sentence() or "differs" in result.sentence()
    assert hashes(tmp_path) == before


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all parts of nested dicts and lists."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [each for key, part in parts for each in [(*path, key), *paths_of(part, (*path, key))]]


NONSENSE: list[Any] = [None, "nonsense", -1, 10**9, 0.5, float("nan"), True, [], {}, [{}], torch.zeros(2, 3)]
UNUSED = ("validate_loop", "test_loop", "predict_loop", "epoch_loop.val_loop", "epoch_loop.manual_optimization")
"""What training does not go on from."""


def test_each_part_that_is_gone_or_nonsense_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part of a checkpoint, one after the other: refused in a sentence, or no matter for what follows."""
    with monkeypatch.context() as patch:
        stop_after_save(patch, 1)
        with pytest.raises(Stopped):
            fit(tmp_path)
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(training, "check_state", lambda *arguments: calls.append(arguments))
    fit(tmp_path, resume=True)
    (good, *expected), accepted = calls[0], []
    check_state(good, *expected)
    random = np.random.default_rng(0)
    checked_elsewhere = ("settings", "callbacks", "highest_loss")  # as they are loaded
    parts = [path for path in paths_of(good) if path[0] not in checked_elsewhere]
    for path in parts:
        for gone in (True, False):
            changed = copy.deepcopy(good)
            place = functools.reduce(lambda part, key: part[key], path[:-1], changed)
            value, what = place.pop(path[-1]), None
            if not gone:
                what = NONSENSE[random.integers(len(NONSENSE))]
                place.update({path[-1]: what}) if isinstance(place, dict) else place.insert(path[-1], what)
            try:
                check_state(changed, *expected)
            except ValueError as error:
                assert "last.ckpt cannot be resumed" in str(error)  # noqa: PT017
            else:
                same = not gone and type(what) is type(value) and what == value
                if not same and not any(str(key).startswith(UNUSED) for key in path):
                    accepted.append((path, "gone" if gone else what))
    assert accepted == []
    assert len(parts) > 150


def test_a_model_in_the_place_of_the_checkpoint(
    trained: tuple[Path, Result], run_main: Callable[..., Result], tmp_path: Path
) -> None:
    shutil.copytree(trained[0] / OUTPUT, tmp_path / OUTPUT)
    shutil.copy(tmp_path / OUTPUT / "model.pt", tmp_path / OUTPUT / "checkpoints" / "last.ckpt")
    before = hashes(tmp_path)
    result = run_main(*TOY, "--resume", "--output-dir", tmp_path / OUTPUT)
    assert result.code == 2
    assert "last.ckpt" in result.sentence()
    assert hashes(tmp_path) == before


def test_other_rows_of_the_same_shape_are_refused(tmp_path: Path) -> None:
    """The rows themselves are not in the checkpoint; their hash is."""
    short = ptd.TrainingConfig(epochs=1, batch_size=64)
    ptd.fit(POINTS, short, backbone=small_network, folder=tmp_path)
    other = POINTS.copy()
    other[17, 1] += 1e-3
    with pytest.raises(ValueError, match="rows"):
        ptd.fit(other, short, backbone=small_network, folder=tmp_path, resume=True)


def test_another_base_is_refused(tmp_path: Path) -> None:
    """The network was trained to add to the first one."""
    short = ptd.TrainingConfig(epochs=1, batch_size=64)
    x = ptd.Standardiser.fit(POINTS).transform(POINTS)
    base, other = ptd.fit_gaussian(x), ptd.fit_gaussian(x[:100])
    first = ptd.fit(POINTS, short, backbone=small_network, base=base, folder=tmp_path)
    same_models(ptd.fit(POINTS, short, backbone=small_network, base=base, folder=tmp_path, resume=True), first)
    for changed in (other, None):
        with pytest.raises(ValueError, match="differs in the base"):
            ptd.fit(POINTS, short, backbone=small_network, base=changed, folder=tmp_path, resume=True)


def test_the_scripts_of_these_tests_are_those_of_the_playground() -> None:
    assert EXAMPLE.parent == PLAYGROUND
    assert all(
        path.exists() for path in itertools.chain([EXAMPLE], (PLAYGROUND / f"{n}.py" for n in ("data", "model")))
    )
