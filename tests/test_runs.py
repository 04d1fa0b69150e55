"""The folder of a run: replaced in one step, and nothing of the user's is lost whenever a command is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pointdiffusion.cli import runs

MINE = {
    "notes.txt": "mine",
    ".hidden": "mine",
    "papers/thesis.tex": "years",
    "lightning_logs/version_0/curve.png": "mine",
    "lightning_logs/mine/metrics.csv.gz": "mine",
    "checkpoints/mine.ckpt": "mine",
    "networks/base-100/0/model.pt": "mine",
}
"""Files that a user may put into a run, some of them where a run has its own while it is built."""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def parts(version: str) -> dict[str, str]:
    """Return the files of a finished run."""
    logs = ["metrics.csv", "hparams.yaml", "events.out.tfevents.1.host.2.0"]
    names = ["model.pt", "config.yaml", *(f"lightning_logs/version_0/{name}" for name in logs)]
    return dict.fromkeys(names, version)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def train(folder: Path, *, force: bool = True) -> None:
    """Do what `pointdiffusion train` does, but for the training."""
    place = runs.check_place(str(folder), force=force, resume=False)
    with runs.staged(place, resume=False) as stage:
        write(stage, {**parts("new"), "checkpoints/last.ckpt": "new", "networks/base-100/0/model.pt": "new"})


KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from pointdiffusion.cli import runs
import test_runs
steps = 0
def dies(function):
    def call(*arguments, **settings):
        global steps
        result = function(*arguments, **settings)
        steps += 1
        if steps == {step}:
            os._exit(9)  # nothing is tidied up, as after kill -9
        return result
    return call
for name in ("rename", "replace", "unlink", "rmdir"):
    setattr(os, name, dies(getattr(os, name)))
runs._exchange = dies(runs._exchange if {exchange} else lambda *_: False)
test_runs.train(Path({folder!r}))
"""


@pytest.mark.skipif(os.name == "nt", reason="locks and exchange of POSIX")
@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "steps"])
def test_killed_at_every_step_nothing_is_lost(tmp_path: Path, exchange: bool) -> None:
    """With and without the exchange of two folders that Linux knows; each change on the disk is the last one once."""
    step = 0
    while True:
        step += 1
        folder = tmp_path / str(step) / "run"
        write(folder, {**parts("old"), **MINE})
        program = KILLED.format(tests=str(Path(__file__).parent), step=step, exchange=exchange, folder=str(folder))
        code = subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode
        assert code in (0, 9)
        if exchange:  # a whole run is there at any time
            found = contents(folder)
            assert {found[name] for name in parts("")} in ({"old"}, {"new"})
        train(folder)
        assert contents(folder) == {**parts("new"), **MINE}
        assert [path.name for path in folder.parent.iterdir()] == ["run"]
        if code == 0:
            break
    assert step > 10


def test_a_killed_replacement_is_finished_by_whatever_comes_next(tmp_path: Path) -> None:
    """Also by a command that is refused; a file that is there again is kept beside the earlier one."""
    folder, aside = tmp_path / "run", tmp_path / ".run.replaced"
    write(folder, {**parts("new"), "notes.txt": "fresh notes"})
    write(aside, {**parts("old"), **MINE, "notes.txt.earlier": "other notes"})
    with pytest.raises(ValueError, match="holds a run already"):
        runs.check_place(str(folder), force=False, resume=False)
    kept = {**MINE, "notes.txt": "fresh notes", "notes.txt.earlier": "mine", "notes.txt.earlier.earlier": "other notes"}
    found = contents(folder)
    assert {name: found[name] for name in parts("")} == parts("new")
    assert sorted(set(found.values()) - {"new"}) == sorted(set(kept.values()))
    assert found["notes.txt"] == "fresh notes"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_files_that_an_earlier_version_left_hidden_come_back(tmp_path: Path) -> None:
    """It exchanged the folders under the name of the unfinished run, and --force then emptied it."""
    folder, stage = tmp_path / "run", tmp_path / ".run.unfinished"
    write(folder, parts("new"))
    write(stage, {**parts("old"), "notes.txt": "mine", "papers/thesis.tex": "years"})
    train(folder)
    assert contents(folder) == {**parts("new"), "notes.txt": "mine", "papers/thesis.tex": "years"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("error", [ValueError, RuntimeError, KeyboardInterrupt])
def test_a_failed_training_leaves_what_it_did_not_write(tmp_path: Path, error: type[BaseException]) -> None:
    folder, stage = tmp_path / "run", tmp_path / ".run.unfinished"

    def fail() -> None:
        with runs.staged(folder, resume=False):
            write(stage, {"config.yaml": "new", ".model.pt.ptd-01234567.tmp": "new", "mine.txt": "mine"})
            raise error

    with pytest.raises(error):
        fail()
    assert contents(tmp_path) == {".run.unfinished/mine.txt": "mine"}
    train(folder, force=False)
    assert contents(tmp_path) == {f"run/{name}": text for name, text in {**parts("new"), "mine.txt": "mine"}.items()}


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_run_that_is_replaced_keeps_permissions_and_links(tmp_path: Path) -> None:
    """Of its folder, already while it is built, and of its files; a link of the user's is moved aside."""
    folder, behind = tmp_path / "run", tmp_path / "behind"
    write(folder, {**parts("old"), "report.html": "old"})
    behind.write_text("behind")
    (folder / "report.html").unlink()
    (folder / "report.html").symlink_to(behind)
    folder.chmod(0o750)
    (folder / "model.pt").chmod(0o600)
    (tmp_path / "link").symlink_to("run")
    place = runs.check_place(str(tmp_path / "link"), force=True, resume=False)
    with runs.staged(place, resume=False) as stage:
        assert stage.stat().st_mode & 0o777 == 0o750
        write(stage, {**parts("new"), "report.html": "new"})
    assert folder.stat().st_mode & 0o777 == 0o750
    assert (folder / "model.pt").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "link").is_symlink()
    assert behind.read_text() == "behind"
    assert (folder / "report.html").read_text() == "new"
    assert (folder / "report.html.earlier").readlink() == behind


def test_a_run_that_is_being_built_is_left_alone(tmp_path: Path) -> None:
    """A second command takes nothing for left over while the first is at work, before the exchange and after it."""
    pytest.importorskip("fcntl")
    folder = tmp_path / "run"
    write(folder, {**parts("old"), "notes.txt": "mine"})
    for _ in range(2):  # the second time, there is something to be emptied first
        stage = runs.unfinished(folder)
        write(stage, {"config.yaml": "of a killed command"})
        with runs.staged(folder, resume=False):
            write(stage, {"config.yaml": "new"})
            runs.recover(folder)
            assert contents(stage) == {"config.yaml": "new"}
            with pytest.raises(ValueError, match="another command is writing"), runs.staged(folder, resume=False):
                pass
    with runs._locked(folder, folder):
        folder.rename(tmp_path / ".run.replaced")
        runs.recover(folder)
        assert not folder.exists()
