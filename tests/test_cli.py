"""The command line, on tables that ship with scikit-learn."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from example_fixtures import Result, Running, Scripts
from sklearn.datasets import load_iris, load_wine

import pointdiffusion as ptd
from pointdiffusion.cli import runs, terminal
from pointdiffusion.cli.app import main
from pointdiffusion.cli.train import seconds
from pointdiffusion.training.module import LightningDiffusion

COMMANDS = ["datasets", "train", "sample", "score", "explain", "impute", "report", "export", "play"]
COMMANDS += ["diagnose", "certify", "info"]
QUICK = ["--steps", "20", "--no-report"]
LOGGED = {"selection.txt", "lightning_logs"}
IRIS = ["iris.csv", "--label", "species"]


def fresh(*arguments: object, cwd: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does, in a process that imports everything anew, which takes seconds."""
    command = [sys.executable, "-m", "pointdiffusion", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300, **settings)


def cli(scripts: Scripts, *arguments: object, cwd: Path, text: str | None = None) -> Result:
    """Run the command in a process of its own that has the libraries imported already."""
    return scripts.run(*arguments, module="pointdiffusion", cwd=cwd, text=text)


def iris_table() -> pd.DataFrame:
    """Return iris with short names, its species as texts, and a constant column."""
    data = load_iris(as_frame=True)
    frame = data.data.set_axis(["sepal_length", "sepal_width", "petal_length", "petal_width"], axis=1)
    frame.insert(2, "country", 7)
    frame.insert(1, "species", data.target_names[data.target])
    return frame


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, scripts: Scripts) -> Path:
    """Return a folder with iris.csv and a run on it."""
    folder = tmp_path_factory.mktemp("cli")
    iris_table().to_csv(folder / "iris.csv", index=False)
    done = cli(scripts, "train", "iris.csv", "-o", "run", "--label", "species", *QUICK, cwd=folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the same folder, and work in it."""
    monkeypatch.chdir(place)
    return place


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    """Run a command that must fail, and return its one sentence."""
    capsys.readouterr()
    assert main(list(map(str, arguments))) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    return err


# ---------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_shows_examples_and_imports_little(command: str, tmp_path: Path) -> None:
    """Help must answer at once, so nothing heavy may be on its path."""
    code = f"""
import sys
from pointdiffusion.cli.app import main
code = main({[*([command] if command else []), "--help"]})
heavy = {{"torch", "numpy", "pandas", "lightning", "sklearn", "scipy", "pyarrow", "matplotlib", "rich", "pydantic"}}
print(code, sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert "Examples:\n" in done.stdout
    assert f"  pointdiffusion {command}" in done.stdout


def test_every_command_and_option_has_its_place_in_the_page() -> None:
    """docs/cli.md has a section for each command, and the help of the whole names them all."""
    page = (Path(__file__).parent.parent / "docs" / "cli.md").read_text()
    assert re.findall(r"^## (\w+)$", page, flags=re.MULTILINE) == [*COMMANDS]


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Each line of docs/cli.md runs, with less training; reports have a test of their own.

    Commands of ours run in this process, since each would start for seconds; what they are is tested elsewhere.
    """
    page = (Path(__file__).parent.parent / "docs" / "cli.md").read_text()
    script = "\n".join(re.findall(r"```bash\n(.*?)```", page, flags=re.DOTALL))
    assert "--time-budget 60s" in script
    script = script.replace("--time-budget 60s", "--steps 20").replace(" train ", " train --no-report ")
    monkeypatch.chdir(tmp_path)
    for line in filter(None, script.splitlines()):
        name, *arguments = shlex.split(line)
        if name != "pointdiffusion":
            subprocess.run(["bash", "-euo", "pipefail", "-c", line], check=True)
        elif arguments[0] != "report":
            assert main(arguments) == 0, line
    assert "Traceback" not in capfd.readouterr().err


# --------------------------------------------------------------------------------------------------------------- train


def test_a_run_holds_what_it_should(here: Path) -> None:
    """The model knows the table, and the settings are whole."""
    assert {entry.name for entry in (here / "run").iterdir()} == {"model.pt", "config.yaml", "lightning_logs"}
    config = yaml.safe_load((here / "run" / "config.yaml").read_text())
    assert config["table"] == str(here / "iris.csv")
    assert config["label"] == "species"
    assert set(config["training"]) == set(ptd.TrainingConfig().to_mapping())
    assert set(config["inference"]) == set(ptd.InferenceConfig().to_mapping())
    model = ptd.load("run/model.pt")
    names = [column["name"] for column in model.metadata["table"]["columns"]]
    assert names == ["sepal_length", "sepal_width", "country", "petal_length", "petal_width"]
    assert model.columns == [name for name in names if name != "country"]
    assert json.dumps(model.metadata)  # plain values
    assert not list(here.glob(".*"))  # nothing hidden is left


def test_a_run_is_repeated_to_the_bit(here: Path) -> None:
    """The same seed gives the same files, and so does config.yaml; another seed does not."""
    for name, how in {
        "same": ["iris.csv", "--label", "species", *QUICK],
        "again": ["--config", "run/config.yaml", "--no-report"],
        "other": ["iris.csv", "--label", "species", "--seed", "1", *QUICK],
    }.items():
        assert main(["train", *how, "-o", name]) == 0
    for part in ("model.pt", "config.yaml"):
        first = Path("run", part).read_bytes()
        assert Path("same", part).read_bytes() == first
        assert Path("again", part).read_bytes() == first
        assert Path("other", part).read_bytes() != first


@pytest.mark.parametrize("suffix", ["csv.gz", "tsv", "tsv.gz", "parquet"])
def test_every_format_gives_the_same_run(here: Path, suffix: str, tmp_path: Path) -> None:
    """What is learned is the table, not its file."""
    table = tmp_path / f"iris.{suffix}"
    frame = iris_table()
    if suffix == "parquet":
        frame.to_parquet(table)
    else:
        frame.to_csv(table, index=False, sep="\t" if "tsv" in suffix else ",")
    out = tmp_path / "run"
    assert main(["train", str(table), "-o", str(out), "--label", "species", "--steps", "20", "--no-report"]) == 0
    assert (out / "model.pt").read_bytes() == Path("run/model.pt").read_bytes()


def test_arrays_and_chosen_columns_and_stdin(here: Path, tmp_path: Path, scripts: Scripts) -> None:
    """Arrays have columns without names; columns can be chosen; a pipe is a table too."""
    numbers = load_iris().data
    np.save(tmp_path / "iris.npy", numbers)
    assert main(["train", str(tmp_path / "iris.npy"), "-o", str(tmp_path / "a"), *QUICK]) == 0
    assert ptd.load(tmp_path / "a" / "model.pt").columns == ["x1", "x2", "x3", "x4"]
    text = Path("iris.csv").read_text()
    arguments = ["train", "-", "-o", tmp_path / "b", "--columns", "petal_width, sepal_length", *QUICK]
    done = cli(scripts, *arguments, cwd=here, text=text)
    assert done.code == 0, done.err
    assert sorted(ptd.load(tmp_path / "b" / "model.pt").columns) == ["petal_width", "sepal_length"]
    done = cli(scripts, "explain", tmp_path / "b", "--row", 3, cwd=here)
    assert done.code == 2
    assert "--table" in done.err


def test_missing_values_are_refused_dropped_or_learned(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of the three ways does what it says."""
    frame = iris_table()
    frame.loc[[4, 20], "petal_width"] = np.nan
    frame.to_csv("holes.csv", index=False)
    message = refused(capsys, "train", "holes.csv", "-o", "holes", "--label", "species", *QUICK)
    assert "petal_width" in message
    assert "5" in message
    assert "--drop-missing" in message
    assert "--mask" in message
    assert not Path("holes").exists()
    assert main(["train", "holes.csv", "-o", "dropped", "--label", "species", "--drop-missing", *QUICK]) == 0
    assert ptd.load("dropped/model.pt").conditions.masked is False
    assert (
        main(["score", "dropped", "holes.csv", "-o", "dropped.csv"]) == 0
    )  # as it was trained, without --drop-missing
    assert "148 of the 150 rows are scored; rows with missing values are left out, as in training" in (
        capsys.readouterr().err
    )
    assert pd.read_csv("dropped.csv").row[:6].tolist() == [1, 2, 3, 4, 6, 7]
    assert "--drop-missing" in refused(capsys, "score", "run", "holes.csv")  # this one was trained without gaps
    frame.loc[7, "species"] = None
    frame.to_csv("no-class.csv", index=False)
    message = refused(capsys, "impute", "dropped", "no-class.csv")
    assert "column 'species' in row 8 (line 9); fill in the classes, or leave that column out" in message
    assert main(["train", "holes.csv", "-o", "masked", "--label", "species", "--mask", *QUICK]) == 0
    assert "2 have gaps" in capsys.readouterr().err
    assert ptd.load("masked/model.pt").conditions.masked is True
    assert main(["impute", "masked", "holes.csv", "-o", "full.csv"]) == 0
    full = pd.read_csv("full.csv")
    assert full.imputed_by[[4, 5]].tolist() == ["a network trained with masks", "given"]


def test_what_is_chosen_by_folds_is_written_and_repeated(here: Path, tmp_path: Path) -> None:
    """The choice stands in config.yaml as names and numbers, which repeat it to the bit whatever the budget was."""
    (tmp_path / "few.yaml").write_text("fit: {num_members: 2, num_steps: 20, hidden_dim: 16}\n")
    arguments = ["train", *IRIS, "--config", str(tmp_path / "few.yaml"), "-o", "folds", "--time-budget", "5m"]
    assert main([*arguments, "--no-report"]) == 0
    assert {entry.name for entry in Path("folds").iterdir()} == {"model.pt", "config.yaml", *LOGGED}
    chosen = yaml.safe_load(Path("folds/config.yaml").read_text())["fit"]
    assert chosen["base"] in ("isotropic", "gaussian", "mixture")
    assert None not in chosen.values()
    assert f"chosen: base {chosen['base']}, 20 steps, 2 networks" in Path("folds/selection.txt").read_text()
    again = ["train", "--config", "folds/config.yaml", "-o", "folds-again", "--no-report", "--time-budget", "1s"]
    assert main(again) == 0
    for part in ("model.pt", "config.yaml"):
        assert Path("folds", part).read_bytes() == Path("folds-again", part).read_bytes()
    assert main(["sample", "folds", "-n", "20", "-o", "folds.csv"]) == 0
    assert list(pd.read_csv("folds.csv").columns) == list(iris_table().columns)
    assert main(["score", "folds", "iris.csv", "--anomalies", "2", "-o", "folds-odd.csv"]) == 0
    assert main(["explain", "folds", "--row", "3"]) == 0


def test_a_time_budget_chooses_the_steps_of_one_network(here: Path, tmp_path: Path) -> None:
    """As many as a trial says will fit; config.yaml repeats them without knowing of the budget."""
    (tmp_path / "one.yaml").write_text("training: {batch_size: 64}\n")
    arguments = ["train", *IRIS, "--config", str(tmp_path / "one.yaml"), "--time-budget", "3s", "-o", "timed"]
    assert main([*arguments, "--no-report"]) == 0
    training = yaml.safe_load(Path("timed/config.yaml").read_text())["training"]
    assert training["epochs"] * training["epoch_steps"] == steps_of(Path("timed"))
    assert main(["train", "--config", "timed/config.yaml", "-o", "timed-again", "--no-report"]) == 0
    assert Path("timed/model.pt").read_bytes() == Path("timed-again/model.pt").read_bytes()


def steps_of(run: Path) -> int:
    """Return how many steps a run was trained, by its log."""
    log = pd.read_csv(next(run.glob("lightning_logs/*/metrics.csv")))
    return int(log.step.max()) + 1


def test_as_many_steps_are_trained_as_are_asked_for(here: Path, tmp_path: Path) -> None:
    """Not whole passes over the table: of 2,000 rows one pass would be 13 steps, of ten million 62,500."""
    pd.DataFrame(ptd.DATASETS["moons"](2000, random_state=0), columns=["x", "y"]).to_csv("many.csv", index=False)
    for steps in (5, 14):
        out = tmp_path / str(steps)
        assert main(["train", "many.csv", "-o", str(out), "--steps", str(steps), "--no-report"]) == 0
        assert steps_of(out) == steps
    assert main(["train", "--config", str(out / "config.yaml"), "-o", str(tmp_path / "again"), "--no-report"]) == 0
    assert steps_of(tmp_path / "again") == 14
    assert (tmp_path / "again" / "model.pt").read_bytes() == (out / "model.pt").read_bytes()


def test_a_trial_of_the_time_does_not_outlast_it(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a budget that is spent at once, the trial takes one step and leaves one."""
    (tmp_path / "one.yaml").write_text("training: {batch_size: 64}\n")
    trained, original = [], LightningDiffusion.training_step

    def training_step(self: LightningDiffusion, *arguments: object) -> torch.Tensor:
        trained.append(self.global_step)
        return original(self, *arguments)

    monkeypatch.setattr(LightningDiffusion, "training_step", training_step)
    arguments = ["train", *IRIS, "--config", str(tmp_path / "one.yaml"), "--time-budget", "0.001s", "-o", "tried"]
    assert main([*arguments, "--no-report"]) == 0
    assert trained == [0, 0]


@pytest.mark.parametrize(("text", "value"), [("60s", 60), ("5m", 300), ("1h30m", 5400), ("90", 90), ("0.5s", 0.5)])
def test_times_are_read(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "0", "fast", "-3s", "1d", "5 minutes", "1e3"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--time-budget must be"):
        seconds(text)


# -------------------------------------------------------------------------------------------------------- run folders


def test_nothing_is_overwritten_without_force(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run stays; with --force it is replaced, and files of the user's own in its folder stay."""
    assert main(["train", *IRIS, "-o", "kept", *QUICK]) == 0
    Path("kept/notes.txt").write_text("mine")
    before = Path("kept/model.pt").read_bytes()
    assert "--force" in refused(capsys, "train", "iris.csv", "-o", "kept", "--seed", 5, *QUICK)
    assert Path("kept/model.pt").read_bytes() == before
    assert main(["train", *IRIS, "-o", "kept", "--seed", "5", "--force", *QUICK]) == 0
    assert Path("kept/model.pt").read_bytes() != before
    assert Path("kept/notes.txt").read_text() == "mine"
    assert not list(here.glob(".kept*"))


def test_folders_that_are_no_runs_are_never_replaced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even by force: a typing error must not cost a home folder."""
    Path("papers").mkdir()
    Path("papers/thesis.tex").write_text("years")
    for target in ("papers", ".", "/"):
        assert "other things than a run" in refused(capsys, "train", "iris.csv", "-o", target, "--force", *QUICK)
    assert "is a file" in refused(capsys, "train", "iris.csv", "-o", "iris.csv", "--force", *QUICK)
    assert Path("papers/thesis.tex").read_text() == "years"


def test_force_keeps_permissions_and_links_and_refuses_what_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any work is done, for every command that writes a file."""
    monkeypatch.chdir(tmp_path)
    Path("behind.csv").write_text("old")
    Path("behind.csv").chmod(0o640)
    Path("link.csv").symlink_to("behind.csv")
    os.mkfifo("pipe.csv")
    assert "exists already" in refused(capsys, "datasets", "moons", "-n", "5", "-o", "link.csv")
    assert main(["datasets", "moons", "-n", "5", "-o", "link.csv", "--force"]) == 0
    assert Path("link.csv").is_symlink()
    assert Path("behind.csv").read_text().count("\n") == 6
    assert Path("behind.csv").stat().st_mode & 0o777 == 0o640
    for arguments in (["datasets", "moons"], ["sample", "run"], ["export", "run"]):
        assert "device or a pipe" in refused(capsys, *arguments, "-o", "pipe.csv", "--force")
    assert Path("pipe.csv").is_fifo()


@pytest.mark.parametrize("exchange", [True, False])
def test_a_run_takes_its_name_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    """With and without the exchange of two folders that Linux knows."""
    if not exchange:
        monkeypatch.setattr(runs, "_exchange", lambda *_: False)
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("model.pt", "config.yaml", "mine.txt"):
        (folder / name).write_text("old")
    with runs.staged(folder, resume=False) as stage:
        (stage / "model.pt").write_text("new")
        assert (folder / "model.pt").read_text() == "old"
    assert (folder / "model.pt").read_text() == "new"
    assert (folder / "mine.txt").read_text() == "old"
    assert not (folder / "config.yaml").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_two_commands_do_not_build_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with (
        runs.staged(folder, resume=False) as stage,
        pytest.raises(ValueError, match="another command is writing"),
        runs.staged(folder, resume=False),
    ):
        pass
    assert stage.name == ".run.unfinished"


def _started(scripts: Scripts, here: Path, name: str, *more: str) -> Running:
    """Start a long training, and wait until it has its first checkpoint."""
    arguments = ["train", *IRIS, "-o", name, "--no-report", *more]
    process = scripts.start(*arguments, module="pointdiffusion", cwd=here)
    deadline = time.monotonic() + 120
    while not list((here / f".{name}.unfinished").rglob("*.ckpt")):
        assert process.poll() is None, process.wait()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_can_be_resumed(
    here: Path, kind: int, capsys: pytest.CaptureFixture[str], scripts: Scripts
) -> None:
    """Whatever ended it, nothing of it is seen, it goes on from its checkpoint, and ends as if nothing had been."""
    name = f"broken-{int(kind)}"
    whole = here / "whole"
    if not whole.exists():
        assert main(["train", *IRIS, "-o", "whole", "--steps", "400", "--no-report"]) == 0
    process = _started(scripts, here, name, "--steps", "400")
    process.send(kind)
    done = process.wait()
    if kind == signal.SIGINT:
        assert done.code == 130
        assert f"--resume -o {name}" in done.err
        assert "Traceback" not in done.err
    else:
        assert done.code == -kind
    assert not (here / name).exists()
    assert "unfinished" in refused(capsys, "train", "iris.csv", "-o", name, *QUICK)
    other = refused(capsys, "train", "iris.csv", "-o", name, "--resume", "--columns", "sepal_length,sepal_width")
    assert "columns none (now sepal_length,sepal_width)" in other
    iris_table()[1:].to_csv("fewer.csv", index=False)
    assert "other rows" in refused(capsys, "train", "fewer.csv", "-o", name, "--resume")
    assert main(["train", "--resume", "-o", name, "--no-report"]) == 0
    assert Path(name, "model.pt").read_bytes() == (whole / "model.pt").read_bytes()
    assert Path(name, "config.yaml").read_bytes() == (whole / "config.yaml").read_bytes()
    assert not list(here.glob(f".{name}*"))
    assert "nothing to go on with" in refused(capsys, "train", "--resume", "-o", name)


def test_a_broken_choice_by_folds_can_be_resumed(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, scripts: Scripts
) -> None:
    """Networks that are finished are kept, the one at work goes on, and the end is as if nothing had been."""
    config = tmp_path / "few.yaml"
    config.write_text("fit: {num_members: 2, num_steps: 400, hidden_dim: 16, base: gaussian}\n")
    assert main(["train", *IRIS, "--config", str(config), "-o", "unbroken", "--no-report"]) == 0
    process = _started(scripts, here, "folded", "--config", str(config))
    process.send(signal.SIGINT)
    done = process.wait()
    assert done.code == 130
    assert "--resume -o folded" in done.err
    for flags, said in ((["--seed", "7"], "seed 0 (now 7)"), (["--mask"], "missing refuse (now mask)"),
                        (["--label", "country"], "label species (now country)")):  # fmt: skip
        with monkeypatch.context() as patch:  # before any work, reading the table included
            patch.setattr("pointdiffusion.tabular.reading.read_table", None)
            assert said in refused(capsys, "train", "--resume", "-o", "folded", *flags)
    assert main(["train", *IRIS, "--seed", "0", "--resume", "-o", "folded", "--no-report"]) == 0
    for part in ("model.pt", "config.yaml"):
        assert Path("folded", part).read_bytes() == Path("unbroken", part).read_bytes()
    assert {entry.name for entry in Path("folded").iterdir()} == {"model.pt", "config.yaml", *LOGGED}


def test_a_killed_replacement_leaves_the_old_run(here: Path, scripts: Scripts) -> None:
    """With --force over an earlier run, that one is whole until the new one is."""
    assert main(["train", *IRIS, "-o", "old", *QUICK]) == 0
    before = Path("old/model.pt").read_bytes()
    process = _started(scripts, here, "old", "--steps", "100000", "--force")
    process.send(signal.SIGKILL)
    assert process.wait().code == -signal.SIGKILL
    assert Path("old/model.pt").read_bytes() == before
    assert main(["info", "old"]) == 0


# --------------------------------------------------------------------------------------------------- sample and score


def test_samples_are_rows_of_the_table(here: Path) -> None:
    """Columns, order, types, decimals, constants and classes are those of the table."""
    assert main(["sample", "run", "-n", "200", "-o", "new.parquet"]) == 0
    new, old = pd.read_parquet("new.parquet"), iris_table()
    assert list(new.columns) == list(old.columns)
    assert new.dtypes.map(str).tolist() == old.dtypes.map(str).tolist()
    assert set(new.country) == {7}
    assert set(new.species) == set(old.species)
    numbers = new.drop(columns=["species"]).to_numpy()
    assert np.allclose(numbers, numbers.round(1))  # iris is in millimetres


def test_samples_are_a_function_of_the_seed(here: Path, capsys: pytest.CaptureFixture[str], scripts: Scripts) -> None:
    """The same bytes in a file and on standard output; rows do not depend on how many are asked for."""
    assert main(["sample", "run/model.pt", "-n", "20", "--seed", "3", "-o", "three.csv"]) == 0
    assert main(["sample", "run", "-n", "20", "--seed", "3", "-o", "again.csv"]) == 0
    assert Path("three.csv").read_bytes() == Path("again.csv").read_bytes()
    done = cli(scripts, "sample", "run", "-n", 20, "--seed", 3, cwd=here)
    assert done.out == Path("three.csv").read_text()
    assert done.err == ""
    assert cli(scripts, "sample", "run", "-n", 20, "--seed", 4, cwd=here).out != done.out
    assert "exists already" in refused(capsys, "sample", "run", "-o", "three.csv")
    assert main(["sample", "run", "-n", "5", "-o", "three.csv", "--force"]) == 0
    assert len(pd.read_csv("three.csv")) == 5


def test_classes_guidance_and_budgets_reach_the_model(here: Path) -> None:
    """What the command draws is what the library draws."""
    how = ["--label", "setosa", "--guidance", "2", "--nfe", "12", "--seed", "1"]
    assert main(["sample", "run", "-n", "30", *how, "-o", "setosa.csv"]) == 0
    found = pd.read_csv("setosa.csv")
    model = ptd.load("run/model.pt")
    expected = model.sample(30, seed=1, labels="setosa", guidance=2.0, nfe=12)
    assert set(found.species) == {"setosa"}
    assert np.abs(found[model.columns].to_numpy() - expected).max() <= 0.05 + 1e-9  # rounded to one decimal
    assert main(["sample", "run", "-n", "300", "--within-bounds", "-o", "bounded.csv"]) == 0
    bounded, old = pd.read_csv("bounded.csv")[model.columns], iris_table()[model.columns]
    assert (bounded >= old.min()).all(axis=None)
    assert (bounded <= old.max()).all(axis=None)


def test_scores_are_log_likelihoods(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The column log_prob is what the library says, row by row, in the table's own order."""
    assert main(["score", "run", "iris.csv", "-o", "scores.csv"]) == 0
    assert "constant columns country" in capsys.readouterr().err
    scores, model = pd.read_csv("scores.csv"), ptd.load("run/model.pt")
    assert list(scores.columns) == ["row", "log_prob"]
    assert scores.row.tolist() == list(range(1, 151))
    expected = model.log_prob(iris_table()[model.columns].to_numpy())
    assert scores.log_prob.to_numpy() == pytest.approx(expected, abs=1e-6)
    assert main(["score", "run", "iris.csv", "--by-label", "-o", "within.csv"]) == 0
    labels = iris_table().species.tolist()
    expected = model.log_prob(iris_table()[model.columns].to_numpy(), labels=labels)
    assert pd.read_csv("within.csv").log_prob.to_numpy() == pytest.approx(expected, abs=1e-6)


def test_a_planted_outlier_is_found_and_explained(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A petal three times too wide is the least likely row, and its width is what is named first."""
    frame = iris_table()
    frame.loc[30, "petal_width"] = 6.0
    frame.loc[40, "country"] = 8
    frame.to_csv("odd.csv", index=False)
    capsys.readouterr()
    assert main(["score", "run", "odd.csv", "--anomalies", "3", "-o", "odd-scores.csv"]) == 0
    assert "does not see: rows 41\n" in capsys.readouterr().err
    found = pd.read_csv("odd-scores.csv")
    assert len(found) == 3
    assert found.row[0] == 31
    assert found.log_prob.is_monotonic_increasing
    assert found.unusual[0].startswith("petal_width = 6, expected ")


def test_integers_are_dequantised_and_that_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wine has two columns of whole numbers: their likelihood is that of the value plus noise, drawn by the seed."""
    load_wine(as_frame=True).data.iloc[:, -3:].to_csv("wine.csv", index=False)
    assert main(["train", "wine.csv", "-o", "wine", *QUICK]) == 0
    for seed, name in ((0, "w0.csv"), (0, "w1.csv"), (1, "w2.csv")):
        capsys.readouterr()
        assert main(["score", "wine", "wine.csv", "--seed", str(seed), "-o", name]) == 0
        assert "dequantised value in the integer columns proline" in capsys.readouterr().err
    assert Path("w0.csv").read_bytes() == Path("w1.csv").read_bytes() != Path("w2.csv").read_bytes()
    assert main(["sample", "wine", "-n", "50", "-o", "wine-new.csv"]) == 0
    assert (
        pd.read_csv("wine-new.csv").proline.dtype == np.int64 or pd.read_csv("wine-new.csv").proline.mod(1).eq(0).all()
    )


def test_one_row_is_explained(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A training row is its own nearest neighbour, and its likelihood is that of score."""
    main(["score", "run", "iris.csv", "-o", "for-explain.csv"])
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    from pointdiffusion.cli.settings import RunSettings
    from pointdiffusion.cli.tables import read_training_table, split_table

    settings = RunSettings.from_yaml(Path("run/config.yaml"))
    parts = split_table(read_training_table(settings), settings)
    row = int(parts.table.rows[parts.training][5]) + 1
    capsys.readouterr()
    assert main(["explain", "run", "--row", str(row), "--neighbours", "2"]) == 0
    out = capsys.readouterr().out
    log_prob = float(re.search(r"log_prob: (\S+) ±", out)[1])
    assert log_prob == pytest.approx(pd.read_csv("for-explain.csv").log_prob[row - 1], abs=2e-3)
    assert f"0.000  row {row}: " in out
    assert len(re.findall(r"^ +\d+\.\d+  row ", out, flags=re.MULTILINE)) == 2
    assert ", expected " in out
    assert config["sha256"]
    assert "no row 151" in refused(capsys, "explain", "run", "--row", 151)


def test_gaps_are_filled_and_the_rest_is_kept(here: Path) -> None:
    """What was there comes back to the last digit; each draw is another one; the method is named."""
    frame = iris_table().drop(columns=["species", "country"]).head(6)
    frame.loc[0, "sepal_length"] = 5.123456
    frame.loc[[1, 3], "petal_width"] = np.nan
    frame.loc[4] = np.nan
    frame.to_csv("gaps.csv", index=False)
    assert main(["impute", "run", "gaps.csv", "--draws", "3", "-o", "gaps-filled.csv"]) == 0
    filled = pd.read_csv("gaps-filled.csv")
    assert filled.row.tolist() == [row for row in range(1, 7) for _ in range(3)]
    assert filled.draw.tolist() == [1, 2, 3] * 6
    expected = ["given", "twisted diffusion", "given", "twisted diffusion", "unconditional", "given"]
    assert filled.imputed_by[filled.draw == 1].tolist() == expected
    for draw in (1, 2, 3):
        rows = filled[filled.draw == draw][frame.columns].reset_index(drop=True)
        assert rows.notna().all(axis=None)
        assert rows.where(frame.notna()).equals(frame)
    assert filled[filled.row == 5].sepal_length.std() > 0


# ------------------------------------------------------------------------------------------------- judges, info, sets


def test_a_run_is_diagnosed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict is printed and drawn; with too few kept rows it is refused in a sentence."""
    assert main(["datasets", "moons", "-n", "400", "-o", "moons.csv"]) == 0
    assert main(["train", "moons.csv", "-o", "moons", *QUICK]) == 0
    assert main(["diagnose", "moons", "--picture", "moons.png"]) == 0
    assert "squared energy distance" in capsys.readouterr().out
    assert Path("moons.png").read_bytes().startswith(b"\x89PNG")
    assert "48 rows" in refused(capsys, "diagnose", "run")


def test_a_run_has_its_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training writes one, and the command writes it again, or beside another run; all of it in one file."""
    assert main(["train", *IRIS, "-o", "paged", "--steps", "20"]) == 0
    first = Path("paged/report.html").read_text()
    assert "A diffusion model of iris.csv" in first
    assert "pointdiffusion train --config paged/config.yaml -o again" in first
    assert not re.search(r"""(src|href)=["']?(http|//|file)""", first)
    assert "--force" in refused(capsys, "report", "paged")
    assert main(["report", "paged", "--against", "run", "-o", "both.html"]) == 0
    assert capsys.readouterr().out == "both.html\n"
    assert "Two runs" in Path("both.html").read_text()
    assert main(["train", "iris.csv", "-o", "narrow", "--columns", "sepal_length,sepal_width", *QUICK]) == 0
    assert "cannot be compared" in refused(capsys, "report", "paged", "--against", "narrow", "-o", "never.html")


def test_samplers_are_certified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A function of the user's own is found in the folder of work; a fault is exit code 1, a crash is told."""
    (tmp_path / "my_samplers.py").write_text(
        "def euler(denoiser, x, sigmas):\n"
        "    for a, b in zip(sigmas[:-1], sigmas[1:]):\n"
        "        x = x + (b - a) * (x - denoiser(x, a)) / a\n"
        "    return x\n"
        "def broken(denoiser, x, sigmas):\n"
        "    return {}['x']\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main(["certify", "my_samplers:euler", "--order", "1"]) == 0
    out, err = capsys.readouterr()
    assert "verdict: as it should be" in out
    assert err == ""
    assert main(["certify", "my_samplers:euler", "--order", "2"]) == 1
    assert "not the declared 2" in capsys.readouterr().out
    assert "my_samplers:broken failed with KeyError: 'x'" in refused(capsys, "certify", "my_samplers:broken")
    refused(capsys, "certify", "nowhere:f")


def test_info_tells_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names, kinds, classes, settings and the hash that sha256sum gives."""
    assert main(["info", "run"]) == 0
    out = capsys.readouterr().out
    assert "species: str, 3 classes" in out
    assert "country: constant, int64, 7" in out
    assert "setosa, versicolor, virginica" in out
    assert subprocess.run(["sha256sum", "run/model.pt"], capture_output=True, text=True, check=True).stdout[:64] in out
    assert main(["info"]) == 0
    assert f"pointdiffusion  {ptd.__version__}\n" in capsys.readouterr().out


def test_info_does_not_trust_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Damage is said, and a file cannot write to the terminal through the names of its columns."""
    good = Path("run/model.pt").read_bytes()
    for name, payload in {
        "truncated.pt": good[: len(good) // 2],
        "flipped.pt": good[:1000] + bytes([good[1000] ^ 1]) + good[1001:],
        "foreign.pt": b"PK\x03\x04 something else",
        "empty.pt": b"",
    }.items():
        Path(name).write_bytes(payload)
        assert re.search("damaged|empty", refused(capsys, "info", name))
    model = ptd.load("run/model.pt")
    model.columns = ["\x1b[2J\x1b]0;owned\x07", "a\nb", "c", "d"]
    model.metadata = {"table": {"columns": "\x1b[31m"}}
    model.save("hostile.pt")
    assert main(["info", "hostile.pt"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"\x1b[2J" in out
    assert "not to be trusted" in out
    refused(capsys, "sample", "hostile.pt")


def test_data_sets_are_listed_and_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table is that of the library."""
    assert main(["datasets"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["name", *ptd.DATASETS]
    assert main(["datasets", "rings", "-n", "30", "--labels", "--seed", "2", "-o", "rings.csv"]) == 0
    found = pd.read_csv("rings.csv")
    points, labels = ptd.DATASETS["rings"].sample_with_labels(30, random_state=2)
    assert np.allclose(found[["x", "y"]].to_numpy(), points)
    assert found.label.tolist() == labels.tolist()


# ------------------------------------------------------------------------------------------------- errors and streams


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("trian", "Did you mean 'train'"),
        ("train", "no table"),
        ("train nowhere.csv", "nowhere.csv"),
        ("train iris.csv --columns sepal_length,petal", "petal"),
        ("train iris.csv", "species"),
        ("train iris.csv --label specie", "did you mean 'species'"),
        ("train iris.csv --drop-missing --mask", "one of the two"),
        ("train iris.csv --steps 5 --time-budget 5s", "one of the two"),
        ("train iris.csv --steps 0", "--steps"),
        ("train iris.csv --time-budget soon", "60s, 5m"),
        ("train --config nowhere.yaml", "nowhere.yaml"),
        ("train --config iris.csv", "YAML"),
        ("train iris.csv --resume", "no unfinished run"),
        ("train iris.csv --label species --device tpu", "tpu"),
        ("sample nowhere", "nowhere"),
        ("sample iris.csv", "not written by pointdiffusion"),
        ("sample run --label rose", "unknown class 'rose'"),
        ("sample run --solver hune", "hune"),
        ("sample run -n 0", "-n"),
        ("sample run --nfe 3 --num-steps 3", "one of the two"),
        ("sample run -o out.xlsx", "out.xlsx"),
        ("sample run -o run", "is a folder"),
        ("sample run -o iris.csv", "exists already"),
        ("sample run -o iris.csv/x.csv", "is a file"),
        ("score run nowhere.csv", "nowhere.csv"),
        ("score run", "TABLE"),
        ("explain run --row 0", "--row"),
        ("explain run --row 1 --table nowhere.csv", "nowhere.csv"),
        ("impute run iris.csv --draws 0", "--draws"),
        ("report nowhere", "nowhere"),
        ("diagnose iris.csv", "iris.csv"),
        ("certify nothing", "neither a solver"),
        ("datasets moon", "did you mean 'moons'"),
        ("datasets moons --noise -1", "--noise"),
    ],
)
def test_bad_requests_get_their_sentence(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    """One sentence, exit code 2, and nothing is left behind."""
    before = sorted(here.iterdir())
    where = ["-o", "fresh"] if arguments.startswith("train ") or arguments == "train" else []
    assert said in refused(capsys, *arguments.split(), *where)
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    "text",
    ["seeds: 3", "seed: -1", "seed: x", "training: {epoch: 3}", "training: 3", "columns: a", "- 1", "{",
     "validation: 1", "inference: {rho: .nan}", "fit: {base: cube}",
     "fit: {mask: 0.5}\ntraining: {epochs: 2}", "missing: maybe", "1: 2", "training: {1: 2}"],
)  # fmt: skip
def test_bad_settings_get_their_sentence(
    here: Path, capsys: pytest.CaptureFixture[str], text: str, tmp_path: Path
) -> None:
    """The file is named."""
    (tmp_path / "bad.yaml").write_text(text)
    assert "bad.yaml" in refused(capsys, "train", "iris.csv", "--config", tmp_path / "bad.yaml", "-o", "fresh")
    assert not Path("fresh").exists()


def test_part_of_the_settings_will_do(here: Path, tmp_path: Path) -> None:
    """And options win over the file."""
    (tmp_path / "part.yaml").write_text("training: {epochs: 2, batch_size: 64}\nlabel: country\nseed: 9\n")
    out = tmp_path / "run"
    arguments = ["train", "iris.csv", "--config", str(tmp_path / "part.yaml"), "--label", "species", "-o", str(out)]
    assert main([*arguments, "--no-report"]) == 0
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert (config["training"]["epochs"], config["training"]["batch_size"]) == (2, 64)
    assert (config["label"], config["seed"]) == ("species", 9)


def test_a_table_that_changed_is_not_taken_for_the_old_one(
    here: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Judging needs the rows of the run; another table with its settings is a new run, and that is said."""
    table = tmp_path / "t.csv"
    ptd_rows = iris_table().drop(columns=["species"])
    ptd_rows.to_csv(table, index=False)
    run = tmp_path / "run"
    assert main(["train", str(table), "-o", str(run), *QUICK]) == 0
    ptd_rows.iloc[::-1].to_csv(table, index=False)
    assert "other rows" in refused(capsys, "explain", run, "--row", 1)
    ptd_rows.to_csv(tmp_path / "moved.csv", index=False)
    table.unlink()
    assert "--table" in refused(capsys, "explain", run, "--row", 1)
    assert main(["explain", str(run), "--row", "1", "--table", str(tmp_path / "moved.csv")]) == 0
    again = ["train", str(tmp_path / "moved.csv"), "--config", str(run / "config.yaml"), "-o", str(tmp_path / "again")]
    assert main([*again, "--no-report"]) == 0
    assert (tmp_path / "again" / "model.pt").read_bytes() == (run / "model.pt").read_bytes()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "the disk is full"),
        (OSError(errno.EIO, "Input/output error"), 1, "the machine failed"),
        (MemoryError(), 1, "not enough memory"),
        (RuntimeError("CUDA out of memory"), 1, "not enough memory"),
        (PermissionError(errno.EACCES, "Permission denied", "x.csv"), 2, "x.csv"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exit_codes_of_the_machine(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int,
    said: str,
) -> None:  # fmt: skip
    """What is not the user's fault is told as such."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ptd.DiffusionModel, "sample", fail)
    assert main(["sample", "run", "-o", "never.csv"]) == code
    assert said in capsys.readouterr().err
    assert not Path("never.csv").exists()


def test_faults_of_ours_are_not_hidden(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come with their traceback, for a report."""
    monkeypatch.setattr(ptd.DiffusionModel, "sample", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["sample", "run"])


def test_a_reader_that_goes_away_is_no_error(here: Path) -> None:
    """As in `pointdiffusion sample run -n 50000 | head -1`."""
    command = f"{sys.executable} -m pointdiffusion sample run -n 20000 --num-steps 1 | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=here, capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
    assert done.stdout.splitlines()[1] == "0"


def test_tables_come_and_go_through_pipes(here: Path) -> None:
    """Talk does not stand among the results."""
    rows = fresh("sample", "run", "-n", 30, cwd=here).stdout
    done = fresh("score", "run", "-", cwd=here, input=rows)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "row,log_prob"
    assert len(lines) == 31
    assert "country" in done.stderr


def test_no_colours_where_none_are_wanted(here: Path) -> None:
    """Not in a pipe, nor on a terminal with NO_COLOR."""
    assert "\x1b" not in fresh("datasets", cwd=here).stdout
    code = (
        "import pty, sys\n"
        "pty.spawn([sys.executable, '-m', 'pointdiffusion', 'datasets'])\n"
    )  # fmt: skip
    shown = {}
    for name, setting in {"plain": {"NO_COLOR": "1"}, "colour": {}}.items():
        clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
        env = {**clean, "TERM": "xterm-256color", "COLUMNS": "100", **setting}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        shown[name] = done.stdout
    assert "moons" in shown["plain"]
    assert "\x1b[" in shown["colour"]
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown["plain"])


def test_written_files_are_as_readable_as_others(here: Path) -> None:
    """A run is for sharing: its folder has the rights that any folder of the user has."""
    assert stat.S_IMODE(Path("run").stat().st_mode) & 0o700 == 0o700
    assert stat.S_IMODE(Path("run/model.pt").stat().st_mode) & 0o600 == 0o600


@pytest.mark.parametrize("text", ["plain", "a\x1b[31mb", "tab\tx", "line\nx", "é 漢 😀", "\x9b31m", "\u202edlrow"])
def test_control_characters_are_written_out(text: str) -> None:
    """A terminal obeys nothing that comes from a file."""
    shown = terminal.plain(text)
    assert shown.isprintable()
    assert terminal.plain(text, lines=True).replace("\n", "").replace("\t", "").isprintable()


def test_a_run_is_exported_without_its_rows(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One page, the same bytes for the same seed; rows of the table only where they are asked for."""
    assert main(["export", "run", "-n", "50", "--nfe", "5", "-o", "one.html"]) == 0
    assert main(["export", "run", "-n", "50", "--nfe", "5", "-o", "two.html"]) == 0
    assert (here / "one.html").read_bytes() == (here / "two.html").read_bytes()
    assert main(["export", "run", "-n", "50", "--nfe", "5", "-o", "rows.html", "--embed-data"]) == 0
    assert (here / "rows.html").stat().st_size > (here / "one.html").stat().st_size + 500  # 120 rows of 4 numbers
    assert "exists already" in refused(capsys, "export", "run", "-o", "one.html")
    assert "-o" in refused(capsys, "export", "run", "-o", "-")


def test_warnings_about_results_reach_the_shell(capsys: pytest.CaptureFixture[str]) -> None:
    """What makes a figure unreliable is printed in a line; what packages say about themselves is not."""
    import warnings

    from pointdiffusion.cli import terminal

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        terminal.say_quality_warnings()
        warnings.warn("12 steps are few", ptd.QualityWarning, stacklevel=1)
        warnings.warn("a package is about to change", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: 12 steps are few\n"
