"""A model of a table by folds: what is chosen, that it is chosen on rows left out, and that it can be repeated."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris

import pointdiffusion as ptd
from pointdiffusion.exact.fits import fit_gaussian
from pointdiffusion.table_model import folds as members
from pointdiffusion.table_model import search as selection
from pointdiffusion.table_model import workers

RNG = np.random.default_rng(2)
CORRELATED = RNG.normal(size=(80, 4)) @ RNG.normal(size=(4, 4)) + [0, 10, -1000, 0]
QUICK = ptd.TableConfig(num_steps=30, num_members=2, base="gaussian", hidden_dim=16)


def fitted(data: Any = CORRELATED, config: ptd.TableConfig = QUICK, **settings: Any) -> ptd.TableModel:
    return ptd.fit_table(data, config=config, seed=3, **settings)


@pytest.fixture(scope="module")
def quick() -> ptd.TableModel:
    return fitted()


def test_everything_open_is_filled_in(quick: ptd.TableModel) -> None:
    """So the settings repeat the fit, to the bit, whatever time it is given."""
    assert all(value is not None for value in quick.config.to_mapping().values())
    again = fitted(config=quick.config, max_time=1e-3)
    assert again.config == quick.config
    assert again.weights == quick.weights
    np.testing.assert_array_equal(again.points.sample(20, num_steps=5), quick.points.sample(20, num_steps=5))


def test_another_seed_is_another_fit(quick: ptd.TableModel) -> None:
    other = ptd.fit_table(CORRELATED, config=QUICK, seed=4)
    assert np.abs(other.points.sample(20, num_steps=5) - quick.points.sample(20, num_steps=5)).max() > 1e-3


def test_the_density_is_of_the_users_units(quick: ptd.TableModel) -> None:
    """A column in other units moves the density by the logarithm of the factor."""
    other = fitted(CORRELATED * [1.0, 1e6, 1.0, 1e-3])
    moved = quick.points.log_prob(CORRELATED[:5]) - np.log(1e6 * 1e-3)
    np.testing.assert_allclose(other.points.log_prob(CORRELATED[:5] * [1.0, 1e6, 1.0, 1e-3]), moved, atol=1e-3)


def test_a_table_that_is_a_gaussian_is_left_to_the_closed_form() -> None:
    """With a network that has learned nothing, the mixture gets nearly all, and the user is told in as many words."""
    rows = RNG.normal(size=(300, 2))
    found = fitted(rows, replace(QUICK, num_steps=1, base="isotropic", sigma_min=2.0))
    assert found.weights["mixture"] > 0.9
    assert "a mixture suffices here" in str(found)
    assert sum(found.weights.values()) == pytest.approx(1)
    blurred = replace(found.points, companion=None).log_prob(rows).mean()
    assert found.points.log_prob(rows).mean() > blurred


def test_a_few_outlying_rows_are_left_to_the_student_t() -> None:
    """Rows a hundred widths out are worth more than a thousand nats less under anything without tails."""
    rows = RNG.normal(size=(200, 2))
    rows[::20] *= 20
    found = fitted(rows)
    assert found.weights["student-t"] > 0.01
    far = np.array([[60.0, -60.0]])
    assert found.points.log_prob(far)[0] > replace(found.points, companion=None).log_prob(far)[0] + 5


def test_the_blur_is_chosen_on_rows_left_out() -> None:
    """Few rows ask for more of it than many."""
    few, many = (
        fitted(CORRELATED[:, :2].repeat(k, axis=0)[: 60 * k], replace(QUICK, base="isotropic")) for k in (1, 4)
    )
    assert few.config.sigma_min is not None
    assert many.config.sigma_min is not None
    assert many.config.sigma_min <= few.config.sigma_min  # each row stands four times in the second table


def test_a_mixture_wins_where_there_is_one() -> None:
    """Two clusters far apart, too few steps for a network to find them."""
    rows = np.concatenate([RNG.normal(size=(60, 2)), RNG.normal(size=(60, 2)) + 30])
    found = fitted(rows, replace(QUICK, base="auto", num_steps=10))
    assert found.config.base == "mixture"
    assert {name.split(",")[0] for name in found.scores} >= {"base mixture", "base gaussian", "base isotropic"}


def test_too_few_rows_for_folds_are_fitted_by_rule() -> None:
    """A network on all of them, a bandwidth by Scott's rule, nothing weighed; and it says so."""
    found = fitted(CORRELATED[:20], ptd.TableConfig(num_steps=10))
    assert found.config.num_members == 0
    assert found.points.companion is None
    assert "too few rows" in str(found)


def test_classes_have_densities_of_their_own() -> None:
    """Network and companion both know them, in the order of the classes."""
    labels = np.repeat(["b", "a"], 40)
    rows = CORRELATED[:, :2] + 8 * (labels == "a")[:, None]
    found = fitted(rows, labels=labels.tolist())
    assert found.points.conditions is not None
    assert found.points.conditions.classes == ["a", "b"]
    own, other = (found.points.log_prob(rows, labels=each) for each in (labels.tolist(), np.roll(labels, 40).tolist()))
    assert (own - other).mean() > 2
    drawn = found.points.sample(300, labels="a", nfe=20, seed=1)
    assert np.linalg.norm(drawn.mean(axis=0) - rows[labels == "a"].mean(axis=0)) < 2


def test_a_folder_keeps_what_is_finished(tmp_path: Path, quick: ptd.TableModel) -> None:
    """A fit that goes on reads finished networks; the result is that of a fit in one go."""
    found = fitted(folder=tmp_path)
    assert found.folder is not None
    assert (found.folder / "model.pt").exists()
    assert list(found.folder.glob("lightning_logs/*/metrics.csv"))
    stamp = (found.folder / "model.pt").stat().st_mtime_ns
    again = fitted(folder=tmp_path, resume=True)
    assert (found.folder / "model.pt").stat().st_mtime_ns == stamp
    for other in (found, again):
        np.testing.assert_array_equal(other.points.sample(5, num_steps=4), quick.points.sample(5, num_steps=4))


OTHER_TABLE = np.random.default_rng(7).normal(size=(80, 4))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the networks of a finished fit."""
    folder = tmp_path_factory.mktemp("networks")
    fitted(folder=folder)
    return folder


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": OTHER_TABLE}, "the rows"),
        ({"data": CORRELATED[::-1]}, "the rows"),  # the folds are of places
        ({"labels": ["a", "b"] * 40}, "the rows"),
        ({"seed": 4}, r"seed 3 \(now 4\)"),
        ({"config": replace(QUICK, learning_rate=1e-3)}, r"learning_rate 0.0001 \(now 0.001\)"),
        ({"config": replace(QUICK, num_members=3)}, r"num_members 2 \(now 3\)"),
        ({"config": replace(QUICK, hidden_dim=24)}, r"hidden_dim 16 \(now 24\)"),
    ],
    ids=["rows", "order", "labels", "seed", "rate", "members", "width"],
)
def test_a_fit_is_not_resumed_with_the_networks_of_another(changes: Any, sentence: str, kept: Path) -> None:
    """It is refused with what differs, and nothing in the folder is touched."""
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    arguments: dict[str, Any] = {"data": CORRELATED, "config": QUICK, "seed": 3, **changes}
    with pytest.raises(ValueError, match=f"differs in (the rows, )?{sentence}[:,]"):
        ptd.fit_table(folder=kept, resume=True, **arguments)
    assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == before


def test_a_fit_is_not_resumed_by_another_version(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its networks would not be those of an uninterrupted fit."""
    monkeypatch.setattr(members, "__version__", "99.0")
    with pytest.raises(ValueError, match=r"pointdiffusion .* \(now 99.0\)"):
        fitted(folder=kept, resume=True)


def test_a_fit_is_resumed_with_what_its_networks_do_not_depend_on(kept: Path, quick: ptd.TableModel) -> None:
    """With what was chosen, for one, as a run is that was stopped between its choice and its end."""
    stamps = {path: path.stat().st_mtime_ns for path in kept.rglob("model.pt")}
    again = fitted(folder=kept, resume=True, config=replace(quick.config, companion=False), metadata={"note": "new"})
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("model.pt")} == stamps
    assert len(stamps) == 2
    assert again.points.metadata["note"] == "new"


def test_networks_of_an_earlier_fit_are_not_taken_for_those_of_the_next(kept: Path, tmp_path: Path) -> None:
    """A fit that starts afresh in a used folder is broken off; what it did not reach is not read when it goes on."""
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    stale = (tmp_path / "gaussian-30" / "1" / "model.pt").read_bytes()
    table = members.Members(OTHER_TABLE, None, 3, {}, tmp_path)
    table.open_folder(selection._sized(QUICK, table))  # and stopped here
    found = fitted(OTHER_TABLE, folder=tmp_path, resume=True)
    fresh = fitted(OTHER_TABLE)
    np.testing.assert_array_equal(found.points.sample(5, num_steps=4), fresh.points.sample(5, num_steps=4))
    assert (tmp_path / "gaussian-30" / "1" / "model.pt").read_bytes() != stale


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_a_folder_that_does_not_say_what_it_holds_is_not_resumed(content: bytes, kept: Path, tmp_path: Path) -> None:
    """Damaged, or of before such a file was written."""
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    (tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged.*start afresh"):
        fitted(folder=tmp_path, resume=True)
    (tmp_path / "settings.json").unlink()
    with pytest.raises(ValueError, match=r"no settings\.json.*start afresh"):
        fitted(folder=tmp_path, resume=True)


def test_a_trial_of_the_time_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found done when a fit goes on, it would tell that a step costs nothing."""
    monkeypatch.setattr(selection, "SMALL", 50)
    found = fitted(config=replace(QUICK, num_steps=None), folder=tmp_path, max_time=1.0)
    assert found.config.num_steps is not None
    assert {each.name for each in tmp_path.iterdir()} == {f"gaussian-{found.config.num_steps}", "settings.json"}


@pytest.mark.parametrize(
    ("config", "said"), [({"companion": False}, "not weighed"), ({"num_members": 0}, "too few rows")]
)
def test_what_was_not_weighed_is_not_said_to_be(config: dict[str, Any], said: str) -> None:
    """The reason is the right one."""
    assert said in fitted(config=replace(QUICK, num_steps=5, **config)).verdict


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_time": 0.0}, "max_time must be"),
        ({"resume": True}, "folder="),
        ({"data": CORRELATED[:5]}, "too few rows"),
        ({"data": np.full((50, 2), np.nan)}, "NaN"),
        ({"data": CORRELATED * 0}, "one value only"),
        ({"labels": ["a"] * 79}, "one row for each"),
    ],
)
def test_what_cannot_be_fitted_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        fitted(**settings)


def test_members_trained_at_once_are_those_trained_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes of their own or here: the same weights and densities bit for bit, in the same order."""
    table = members.Members(load_iris().data, None, 0, {})
    settled = selection._sized(ptd.TableConfig(base="gaussian", num_steps=20), table)
    jobs = [members.Job(settled, place, fold) for place, fold in enumerate(table.folds(2))]
    levels = np.array([0.1, 0.3])
    here = list(table.several(jobs, levels))
    monkeypatch.setattr(workers, "WORTH", 0)
    monkeypatch.setattr(workers, "workers", lambda _count: 2)
    there = list(table.several(jobs, levels))
    for one, other in zip(here, there, strict=True):
        assert np.array_equal(one.values, other.values)
        pairs = zip(one.model.denoiser.parameters(), other.model.denoiser.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert not np.array_equal(here[0].values, here[1].values)


def test_the_processes_of_members_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """Killed without a word, as by the system when memory runs out, it leaves nothing running."""
    script = """
import os, signal, threading, time
import numpy as np
from pointdiffusion import TableConfig
from pointdiffusion.table_model import folds as members, search as selection, workers
workers.WORTH, workers.workers = 0, lambda count: 2
table = members.Members(np.random.default_rng(0).normal(size=(200, 2)), None, 0, {})
config = selection._sized(TableConfig(base="gaussian", num_steps=100_000), table)
jobs = [members.Job(config, place, fold) for place, fold in enumerate(table.folds(2))]

def kill():
    def busy():
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and b"popen_loky" in open(f"/proc/{entry}/cmdline", "rb").read():
                    if int(open(f"/proc/{entry}/stat").read().rpartition(")")[2].split()[1]) == os.getpid():
                        yield entry
            except OSError:
                pass
    while len(found := list(busy())) < 2:
        time.sleep(0.1)
    time.sleep(1)
    print(*found, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=kill, daemon=True).start()
list(table.several(jobs, np.array([0.1])))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    started = list(map(int, done.stdout.split()))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(started) == 2
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{process}/cmdline").exists() and Path(f"/proc/{process}/cmdline").read_bytes()
              for process in started):  # fmt: skip
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("rows", [150, 2000])
def test_the_companion_does_not_stray(rows: int) -> None:
    """No part of the broad Student t is wider than twice what the farthest row asks for, or four."""
    x = np.random.default_rng(0).standard_t(3, size=(rows, 2))
    table = members.Members(x, None, 0, {})
    student = table.closed_forms(np.arange(rows))[1]
    whole = fit_gaussian(table.x)
    widest = (student.covariances[:, 0, 0] / whole.covariances[0, 0, 0]).sqrt().max()
    whitened = np.linalg.solve(np.linalg.cholesky(whole.covariances[0].numpy()), (table.x - whole.means[0].numpy()).T)
    farthest = np.sqrt((whitened**2).mean(axis=0)).max()
    assert widest == pytest.approx(max(4.0, 2 * farthest))


@pytest.mark.parametrize(("rare", "fine"), [(1, False), (3, False), (4, True)])
def test_a_rare_class_is_refused_where_a_row_of_it_is_left_out(rare: int, fine: bool) -> None:
    """With as many rows as the sentence asks for it is fitted, and no warning is written."""
    rows, labels = CORRELATED[:60], ["a"] * (60 - rare) + ["rare"] * rare
    if fine:
        assert fitted(rows, labels=labels).points.conditions is not None
        return
    with pytest.raises(ValueError, match=f"the class 'rare' has {rare} rows, and 4 are needed"):
        fitted(rows, labels=labels)
