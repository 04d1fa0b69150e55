"""The example through its real scripts, at toy size: what it writes, what it prints, and what can be changed."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import select
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from example_fixtures import EXAMPLE, PLAYGROUND, RUN_EXAMPLE, TOY, Result, Scripts, hashes, leftovers, run_python
from PIL import Image

import pointdiffusion as ptd

OUTPUT = "swiss_roll_output"
RESULTS = ["samples.csv", "results_comparison.png", "inference.gif", "playground.html"]
ADVERTS = re.compile(
    r"(?i)warn|tip:|litlogger|💡|deprecat|\b[GT]PU\b|seed set|checkpoint director|tensorboard|max_epochs"
)


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / OUTPUT / "summary.json").read_text())


def blue_and_red(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return which pixels are rather blue and which rather red, shape (height, width)."""
    red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB")).astype(int), -1, 0)
    return (blue - red > 50) & (blue > green), (red - blue > 60) & (red - green > 60)


# ------------------------------------------------------------------------------------------------------- the outputs


def test_every_output_is_there_and_nothing_else(trained: tuple[Path, Result]) -> None:
    folder, _ = trained
    names = sorted(path.name for path in (folder / OUTPUT).iterdir())
    assert names == sorted([*RESULTS, "checkpoints", "lightning_logs", "model.pt", "summary.json"])
    assert [path.name for path in folder.iterdir()] == [OUTPUT]
    assert leftovers(folder) == []


def test_samples_are_a_table_in_the_units_of_the_data(trained: tuple[Path, Result]) -> None:
    folder, _ = trained
    table = pd.read_csv(folder / OUTPUT / "samples.csv")
    assert list(table.columns) == ["x", "y"]
    assert table.shape == (50, 2)
    assert np.isfinite(table.to_numpy()).all()
    model = ptd.load(folder / OUTPUT / "model.pt")
    expected = model.sample(50, seed=0)
    # Written out in full: what is read back is what was drawn.
    np.testing.assert_array_equal(table.to_numpy(), expected)
    # The units are pinned by `test_changed_data_takes_effect`, where they lie far from standard ones.


def test_the_picture_has_training_data_left_samples_in_the_middle_both_right(trained: tuple[Path, Result]) -> None:
    folder, _ = trained
    with Image.open(folder / OUTPUT / "results_comparison.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (1500, 540)
        blue, red = blue_and_red(picture)
    counts = [(int(blue[:, part].sum()), int(red[:, part].sum())) for part in np.split(np.arange(1500), 3)]
    (left_blue, left_red), (middle_blue, middle_red), (right_blue, right_red) = counts
    assert left_blue > 500
    assert left_red == 0
    assert middle_red > 200
    assert middle_blue == 0
    assert right_blue > 500
    assert right_red > 200


def test_the_animation_goes_from_noise_to_data_and_holds_the_last_frame(trained: tuple[Path, Result]) -> None:
    folder, _ = trained
    frames, durations = [], []
    with Image.open(folder / OUTPUT / "inference.gif") as gif:
        assert gif.format == "GIF"
        assert gif.info["loop"] == 0  # for ever
        assert gif.n_frames == 6  # the start and five steps
        assert min(gif.size) >= 300
        for index in range(gif.n_frames):
            gif.seek(index)
            durations.append(gif.info["duration"])
            frames.append(gif.convert("RGB"))
    assert durations[-1] >= 2000
    assert durations[-1] > 5 * max(durations[1:-1])
    pixels = [np.asarray(frame) for frame in frames]
    for before, after in itertools.pairwise(pixels):
        assert (before != after).any()
    masks = [blue_and_red(frame) for frame in frames]
    assert all(blue.sum() > 30 for blue, _ in masks), "training data behind"
    assert all(red.sum() > 30 for _, red in masks), "samples in front"
    # The axes follow the noise as it shrinks: the roll grows on the screen, and the noise fills the first frame.
    width = [np.ptp(np.nonzero(blue[80:].any(axis=0))[0]) for blue, _ in masks]
    assert width[0] < 0.5 * width[-1]
    first_red = np.nonzero(masks[0][1][80:].any(axis=0))[0]
    assert np.ptp(first_red) > 0.5 * frames[0].width


def test_the_summary_tells_settings_version_quality_and_times(trained: tuple[Path, Result]) -> None:
    summary = summary_of(trained[0])
    assert summary["versions"]["pointdiffusion"] == ptd.__version__
    assert summary["settings"]["epochs"] == 2
    assert summary["settings"]["batch_size"] == 128
    assert summary["settings"]["lr"] == 1e-4
    assert summary["settings"]["n_train"] == 256
    assert ptd.TrainingConfig.from_mapping(summary["training"]).epochs == 2
    assert ptd.InferenceConfig.from_mapping(summary["inference"]).num_steps == 5
    quality = summary["quality"]
    assert quality["w2_ratio"] == pytest.approx(quality["w2"] / quality["w2_fresh"])
    assert quality["off"] > quality["off_fresh"] > 0
    assert {"training", "sampling", "gif"} <= set(summary["times"])
    assert all(seconds >= 0 for seconds in summary["times"].values())


def test_the_closing_lines_tell_what_where_how_long_and_how_good(trained: tuple[Path, Result]) -> None:
    folder, result = trained
    for name in [*RESULTS, "model.pt", "summary.json", "lightning_logs", OUTPUT]:
        assert name in result.out
    for name in ("training: 2/2", "sampling: 5/5", "gif: 6/6"):  # plain lines, since this is no terminal
        assert name in result.out
    ratio = summary_of(folder)["quality"]["w2_ratio"]
    assert f"{ratio:.2f}" in result.out
    assert "Seconds" in result.out


def test_no_adverts_and_no_warnings(trained: tuple[Path, Result]) -> None:
    """As a user would see it: a fresh process, nothing on the standard error, nothing of others on the screen."""
    _, result = trained
    assert result.err == ""
    assert not ADVERTS.search(result.out), ADVERTS.findall(result.out)
    assert "\x1b" not in result.out
    assert "\r" not in result.out


def test_the_logs_are_csv_and_tensorboard(trained: tuple[Path, Result]) -> None:
    [version] = (trained[0] / OUTPUT / "lightning_logs").iterdir()
    assert (version / "metrics.csv").exists()
    assert len(list(version.glob("events.out.tfevents*"))) == 1


def test_the_same_seed_gives_the_same_files_and_another_gives_others(
    trained: tuple[Path, Result], scripts: Scripts, tmp_path: Path
) -> None:
    folder, _ = trained
    before = hashes(folder / OUTPUT)
    result = scripts.run(*TOY, "--quiet", "--output-dir", "again", cwd=tmp_path)
    assert (result.code, result.out, result.err) == (0, "", "")  # quiet: not a line
    after = hashes(tmp_path / "again")
    for name in [*RESULTS, "model.pt"]:
        assert after[name] == before[name], name
    first = summary_of(folder)
    second = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert first.pop("times").keys() == second.pop("times").keys()
    assert first == second

    assert scripts.run(*TOY, "--seed", "1", "--output-dir", "other", cwd=tmp_path).code == 0
    other = hashes(tmp_path / "other")
    assert all(other[name] != before[name] for name in [*RESULTS, "model.pt"])


# --------------------------------------------------------------------------------------------------- the other flags


def test_inference_only_needs_no_other_flag(trained: tuple[Path, Result], scripts: Scripts, tmp_path: Path) -> None:
    """Same samples, same picture, same animation, byte for byte, in another process; and a diagnosis, drawn and told.

    After two epochs on 256 points and in five steps of Euler's method there is enough to be said.
    """
    folder, _ = trained
    (tmp_path / OUTPUT).mkdir()
    shutil.copy(folder / OUTPUT / "model.pt", tmp_path / OUTPUT)
    result = scripts.run("--inference-only", cwd=tmp_path)
    assert result.code == 0, result
    assert result.err == ""
    assert not ADVERTS.search(result.out), ADVERTS.findall(result.out)
    assert "training:" not in result.out
    before, after = hashes(folder / OUTPUT), hashes(tmp_path / OUTPUT)
    assert sorted(after) == sorted([*RESULTS, "diagnosis.png", "model.pt", "summary.json"])
    for name in [*RESULTS, "model.pt"]:
        assert after[name] == before[name], name
    assert re.search("Take more steps|Train longer|More data|The network is to blame", result.out), result.out
    with Image.open(tmp_path / OUTPUT / "diagnosis.png") as picture:
        assert picture.width > 2 * picture.height
    first, second = summary_of(folder), summary_of(tmp_path)
    assert second["quality"] == first["quality"]
    assert second["settings"] == first["settings"]


def test_inference_only_from_elsewhere_with_the_path(
    trained: tuple[Path, Result], scripts: Scripts, tmp_path: Path
) -> None:
    """The other script has other defaults; the model's own settings win over them."""
    path = trained[0] / OUTPUT / "model.pt"
    result = scripts.run("--inference-only", "--no-diagnosis", "--model-path", path, cwd=tmp_path, script=RUN_EXAMPLE)
    assert result.code == 0, result
    before, after = hashes(trained[0] / OUTPUT), hashes(tmp_path / OUTPUT)
    assert sorted(after) == sorted([*RESULTS, "summary.json"])
    assert all(after[name] == before[name] for name in RESULTS)


def test_inference_settings_that_are_given_take_effect(
    trained: tuple[Path, Result], scripts: Scripts, tmp_path: Path
) -> None:
    path = trained[0] / OUTPUT / "model.pt"
    flags = ["--solver", "heun", "--n-steps", "3", "--n-samples", "7", "--seed", "4"]
    assert scripts.run("--inference-only", "--no-diagnosis", "--model-path", path, *flags, cwd=tmp_path).code == 0
    table = pd.read_csv(tmp_path / OUTPUT / "samples.csv").to_numpy()
    np.testing.assert_array_equal(table, ptd.load(path).sample(7, seed=4, solver="heun", num_steps=3))
    assert np.abs(table - ptd.load(path).sample(7, seed=4, solver="euler", num_steps=3)).max() > 1e-3
    assert summary_of(tmp_path)["inference"]["solver"] == "heun"
    with Image.open(tmp_path / OUTPUT / "inference.gif") as gif:
        assert gif.n_frames == 4


def test_another_seed_of_sampling_leaves_the_training_data_in_the_picture(
    trained: tuple[Path, Result], scripts: Scripts, tmp_path: Path
) -> None:
    """The data set is stored with the model as name, seed and settings, and drawn again from these."""
    path = trained[0] / OUTPUT / "model.pt"
    capture = """
import numpy, pointdiffusion
from pointdiffusion.visuals import plotting
original = plotting.plot_comparison
def keep(training, *others, **settings):
    numpy.save("training.npy", numpy.asarray(training))
    return original(training, *others, **settings)
plotting.plot_comparison = keep
"""
    for seed in ("0", "9"):
        (tmp_path / seed).mkdir()
        flags = ["--inference-only", "--no-diagnosis", "--model-path", path, "--seed", seed]
        assert scripts.run(*flags, cwd=tmp_path / seed, prelude=capture).code == 0
    shown = [np.load(tmp_path / seed / "training.npy") for seed in ("0", "9")]
    assert len(shown[0]) == 256
    np.testing.assert_array_equal(*shown)
    samples = [(tmp_path / seed / OUTPUT / "samples.csv").read_text() for seed in ("0", "9")]
    assert samples[0] != samples[1]


def test_flags_of_training_say_that_they_have_no_effect_on_inference(
    trained: tuple[Path, Result], scripts: Scripts, tmp_path: Path
) -> None:
    path = trained[0] / OUTPUT / "model.pt"
    flags = ["--inference-only", "--no-diagnosis", "--n-train", "99", "--lr", "1"]
    result = scripts.run(*flags, "--model-path", path, cwd=tmp_path)
    assert result.code == 0
    assert "--n-train" in result.out
    assert "--lr" in result.out
    assert hashes(tmp_path / OUTPUT)["results_comparison.png"] == hashes(trained[0] / OUTPUT)["results_comparison.png"]


def test_train_only(scripts: Scripts, tmp_path: Path) -> None:
    look = """
import numpy
from pointdiffusion.training import fitting
fit = fitting.fit
def keep(points, *others, **settings):
    numpy.savez("tables.npz", points=points, validation=settings["validation"], population=settings["population"])
    return fit(points, *others, **settings)
fitting.fit = keep
"""
    result = scripts.run(*TOY, "--train-only", cwd=tmp_path, prelude=look)
    assert result.code == 0, result
    tables = np.load(tmp_path / "tables.npz")
    assert len(tables["points"]) == 256
    assert len(tables["validation"]) == 64
    assert len(tables["population"]) >= 60_000  # stands for the whole population
    rows = [{tuple(row) for row in tables[name]} for name in tables]
    assert not rows[0] & rows[1]
    assert not rows[2] & (rows[0] | rows[1])
    names = sorted(path.name for path in (tmp_path / OUTPUT).iterdir())
    assert names == ["checkpoints", "lightning_logs", "model.pt", "summary.json"]
    assert "sampling" not in result.out


def test_three_dimensions_and_the_short_script(scripts: Scripts, tmp_path: Path) -> None:
    flags = [*TOY, "--dims", "3", "--noise", "0.5", "--solver", "heun", "--output-dir", "deep/below"]
    result = scripts.run(*flags, cwd=tmp_path, script=RUN_EXAMPLE)
    assert result.code == 0, result
    below = tmp_path / "deep" / "below"
    table = pd.read_csv(below / "samples.csv")
    assert list(table.columns) == ["x", "y", "z"]
    assert np.isfinite(table.to_numpy()).all()
    model = ptd.load(below / "model.pt")
    assert model.inference.solver == "heun"
    assert model.metadata["data"]["noise"] == 0.5
    np.testing.assert_array_equal(table.to_numpy(), model.sample(50, seed=0))
    with Image.open(below / "results_comparison.png") as picture:
        blue, red = blue_and_red(picture)
    assert blue[:, :500].sum() > 200
    assert red[:, 500:1000].sum() > 100
    with Image.open(below / "inference.gif") as gif:
        assert gif.n_frames == 6


def test_progress_bars_on_a_terminal(trained: tuple[Path, Result], scripts: Scripts, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    terminal = Path(os.ttyname(slave))
    running = scripts.start(*TOY, cwd=tmp_path, out=terminal, TERM="xterm-256color", COLUMNS="120")
    shown, ended = b"", False
    while not ended:
        ended = running.poll() is not None  # asked before the last look, so that nothing is missed
        while select.select([master], [], [], 0.05)[0]:
            shown += os.read(master, 65536)
    result = running.wait()
    os.close(master)
    os.close(slave)
    text = shown.decode()
    assert result.code == 0, result
    assert result.err == ""
    assert not ADVERTS.search(text), ADVERTS.findall(text)
    assert "━" in text  # a bar
    for name, total in (("training", 2), ("sampling", 5), ("gif", 6)):
        assert re.search(rf"{name}.*{total}/{total}", text), name


# ---------------------------------------------------------------------------------------------------------- the help


@pytest.mark.parametrize("script", [EXAMPLE, RUN_EXAMPLE], ids=lambda path: path.name)
def test_help_waits_for_nothing_heavy_and_tells_every_flag_with_its_default(script: Path, tmp_path: Path) -> None:
    """None of what takes seconds to load is loaded; how long that takes is a figure of `benchmarks/playground.py`."""
    run = run_python(script, "--help", cwd=tmp_path)
    text = " ".join(run.out.split())
    assert run.code == 0
    assert run.err == ""
    loaded = run_python("-X", "importtime", script, "--help", cwd=tmp_path).err
    assert "pointdiffusion" in loaded
    assert not re.search(r"\| +(torch|lightning|pandas|sklearn|matplotlib|scipy)$", loaded, flags=re.MULTILINE)
    defaults = {
        "--epochs": 30 if script == RUN_EXAMPLE else 50, "--batch-size": 128, "--lr": 0.0001, "--n-train": 4096,
        "--n-val": 512, "--hidden-dim": 256, "--num-layers": 2, "--seed": 0, "--output-dir": OUTPUT,
        "--n-samples": 1000, "--n-steps": 50, "--solver": "euler", "--device": "auto", "--noise": 0.0, "--dims": 2,
        "--model-path": "model.pt in the output directory",
    }  # fmt: skip
    body = text.split("options:", 1)[1]
    for flag, default in defaults.items():
        assert re.search(rf"{flag} [^-].*?\(default: {re.escape(str(default))}\b", body), (flag, default)
    for flag in ("--inference-only", "--train-only", "--resume", "--quiet"):
        assert re.search(rf"{flag} \w+", body), flag
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    result = run_python(EXAMPLE, "--help", cwd=tmp_path, options=["-X", "importtime"])
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in result.err.splitlines()}
    assert "argparse" in imported
    assert not imported & {"torch", "lightning", "numpy", "pandas", "sklearn", "scipy", "matplotlib", "PIL", "rich"}


# ----------------------------------------------------------------------------------------------------- changed copies


@pytest.fixture
def playground(tmp_path: Path) -> Path:
    """Return a copy of the playground, for the user to change."""
    copy = tmp_path / "my_points"
    shutil.copytree(PLAYGROUND, copy, ignore=shutil.ignore_patterns("__pycache__", OUTPUT))
    return copy


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, (path.name, old)
    path.write_text(text.replace(old, new))


def test_changed_data_takes_effect(playground: Path, scripts: Scripts, tmp_path: Path) -> None:
    """A circle of radius 3 around (100, -50), with columns of other names."""
    change(
        playground / "data.py",
        '    roll = ptd.DATASETS["swiss-roll"]\n',
        "    import numpy as np\n\n"
        "    angle = np.random.default_rng(random_state).uniform(0, 2 * np.pi, n_samples)\n"
        "    circle = np.stack([100 + 3 * np.cos(angle), 3 * np.sin(angle) - 50], axis=1)\n"
        '    return pd.DataFrame(circle, columns=["east", "north"])\n'
        '    roll = ptd.DATASETS["swiss-roll"]\n',
    )
    script = playground / EXAMPLE.name
    result = scripts.run(*TOY, "--epochs", "20", cwd=tmp_path, script=script)
    assert result.code == 0, result
    table = pd.read_csv(tmp_path / OUTPUT / "samples.csv")
    assert list(table.columns) == ["east", "north"]
    np.testing.assert_allclose(table.mean(), [100, -50], atol=2)
    distance = np.hypot(table["east"] - 100, table["north"] + 50)
    assert abs(distance.mean() - 3) < 1.5
    model = ptd.load(tmp_path / OUTPUT / "model.pt")
    np.testing.assert_allclose(model.standardiser.mean, [100, -50], atol=0.5)
    np.testing.assert_allclose(model.standardiser.scale, 3 / np.sqrt(2), atol=0.2)
    before = hashes(tmp_path / OUTPUT)
    assert scripts.run("--inference-only", "--no-diagnosis", cwd=tmp_path, script=script).code == 0
    after = hashes(tmp_path / OUTPUT)
    assert all(after[name] == before[name] for name in RESULTS)


@pytest.mark.parametrize("language", ["README.md", "README.zh-CN.md"])
def test_the_two_moons_and_the_midpoint_rule_of_the_document_are_called_so(
    language: str, playground: Path, scripts: Scripts, tmp_path: Path
) -> None:
    """Both edits as the document prints them: titles, log and summary tell what was run, the flags notwithstanding."""
    blocks = re.findall(r"```python\n(.*?)```", (playground / language).read_text(encoding="utf-8"), flags=re.DOTALL)
    (moons,) = (block for block in blocks if "two moons" in block)
    (midpoint,) = (block for block in blocks if "class MidpointODE" in block)
    text = (playground / "data.py").read_text()
    start, end = text.index("NAME ="), text.index("class SwissRollDataset")
    (playground / "data.py").write_text(f"{text[:start]}{moons}\n\n{text[end:]}")
    (playground / "midpoint.py").write_text(midpoint)
    script = playground / EXAMPLE.name
    change(script, '            solver=self.settings["solver"],\n', '            solver="midpoint",\n')
    change(
        script,
        "        return ptd.InferenceConfig(\n",
        "        import midpoint\n\n        return ptd.InferenceConfig(\n",
    )
    result = scripts.run(*TOY, "--solver", "heun", cwd=tmp_path, script=script)
    assert result.code == 0, result
    assert "roll" not in result.out.replace(OUTPUT, "").lower()
    assert "Off the data, two moons (rms" in result.out
    page = (tmp_path / OUTPUT / "playground.html").read_text(encoding="utf-8")
    assert "noise becomes two moons" in page
    summary = summary_of(tmp_path)
    assert summary["settings"]["solver"] == summary["inference"]["solver"] == "midpoint"
    assert ptd.load(tmp_path / OUTPUT / "model.pt").metadata["data"]["name"] == "two-moons"


OWN_NETWORK = '''
class MyOwnNetwork(nn.Module):
    """Two layers."""

    def __init__(self, n_dims: int, hidden_dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(n_dims + 1, hidden_dim)
        self.second = nn.Linear(hidden_dim, n_dims)

    def forward(self, x, c):
        import torch

        return self.second(torch.tanh(self.first(torch.cat([x, c[:, None]], dim=1))))


def make_network('''


def test_a_changed_network_takes_effect_and_is_read_back(playground: Path, scripts: Scripts, tmp_path: Path) -> None:
    change(playground / "model.py", "def make_network(", OWN_NETWORK.lstrip("\n"))
    change(
        playground / "model.py", "    points = ptd.", "    return MyOwnNetwork(n_dims, hidden_dim)\n    points = ptd."
    )
    script = playground / EXAMPLE.name
    result = scripts.run(*TOY, cwd=tmp_path, script=script)
    assert result.code == 0, result
    before = hashes(tmp_path / OUTPUT)
    result = scripts.run("--inference-only", "--no-diagnosis", cwd=tmp_path, script=script)
    assert result.code == 0, result
    after = hashes(tmp_path / OUTPUT)
    assert all(after[name] == before[name] for name in RESULTS)

    path = tmp_path / OUTPUT / "model.pt"
    with pytest.raises(ValueError, match=r"model\.MyOwnNetwork"):  # the class that is missing
        ptd.load(path)
    # The scripts of others have another network: one sentence, and what lies there stays.
    result = scripts.run("--inference-only", "--no-diagnosis", "--model-path", path, cwd=tmp_path)
    assert result.code == 2
    assert "model.MyOwnNetwork" in result.sentence()
    assert hashes(tmp_path / OUTPUT) == after


def test_changed_training_settings_take_effect(
    playground: Path, scripts: Scripts, trained: tuple[Path, Result], tmp_path: Path
) -> None:
    script = playground / EXAMPLE.name
    change(script, 'weighting="uniform",', 'weighting="soft-min-snr", reference_points=0,')
    change(script, 'epochs=self.settings["epochs"],', "epochs=3,")
    result = scripts.run(*TOY, "--train-only", cwd=tmp_path, script=script)
    assert result.code == 0, result
    assert "training: 3/3" in result.out
    model = ptd.load(tmp_path / OUTPUT / "model.pt")
    assert model.training is not None
    assert (model.training.weighting, model.training.epochs, model.training.reference_points) == ("soft-min-snr", 3, 0)
    assert summary_of(tmp_path)["training"]["weighting"] == "soft-min-snr"
    [metrics] = (tmp_path / OUTPUT / "lightning_logs").glob("*/metrics.csv")
    [usual] = (trained[0] / OUTPUT / "lightning_logs").glob("*/metrics.csv")
    assert len(pd.read_csv(metrics)) == 3
    # Another weighting is another loss, of the same network at the same draws.
    assert abs(pd.read_csv(metrics)["optimal_val_loss"][0] / pd.read_csv(usual)["optimal_val_loss"][0] - 1) > 0.1


def test_changed_inference_settings_take_effect(
    playground: Path, scripts: Scripts, trained: tuple[Path, Result], tmp_path: Path
) -> None:
    script = playground / EXAMPLE.name
    text = script.read_text()
    head, tail = text.split("def setup_inference_config", 1)
    tail = tail.replace("sigma_max=10.0", "sigma_max=40.0", 1).replace("rho=7.0", "rho=3.0", 1)
    script.write_text(head + "def setup_inference_config" + tail)
    path = trained[0] / OUTPUT / "model.pt"
    assert (
        scripts.run("--inference-only", "--no-diagnosis", "--model-path", path, cwd=tmp_path, script=script).code == 0
    )
    assert summary_of(tmp_path)["inference"]["sigma_max"] == 40
    table = pd.read_csv(tmp_path / OUTPUT / "samples.csv").to_numpy()
    np.testing.assert_array_equal(table, ptd.load(path).sample(50, seed=0, sigma_max=40.0, rho=3.0))
    assert hashes(tmp_path / OUTPUT)["samples.csv"] != hashes(trained[0] / OUTPUT)["samples.csv"]


def test_the_changed_short_script_takes_effect(playground: Path, scripts: Scripts, tmp_path: Path) -> None:
    script = playground / RUN_EXAMPLE.name
    change(
        script, "epochs=30, n_samples=1000", "epochs=1, n_samples=33, n_train=128, n_val=32, hidden_dim=8, n_steps=4"
    )
    result = scripts.run("--seed", "2", "--no-diagnosis", cwd=tmp_path, script=script)
    assert result.code == 0, result
    assert len(pd.read_csv(tmp_path / OUTPUT / "samples.csv")) == 33
    settings = summary_of(tmp_path)["settings"]
    assert (settings["epochs"], settings["n_train"], settings["n_steps"], settings["seed"]) == (1, 128, 4, 2)


def test_the_dataset_class_and_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLAYGROUND))
    monkeypatch.delitem(sys.modules, "data", raising=False)
    import data

    frame = data.make_swiss_roll_dataframe(100, n_dims=3, noise=0.1, scaling_factor=5.0, random_state=3)
    assert list(frame.columns) == ["x", "y", "z"]
    assert frame.shape == (100, 3)
    from sklearn.datasets import make_swiss_roll

    expected, _ = make_swiss_roll(100, noise=0.1, random_state=3)
    np.testing.assert_allclose(frame.to_numpy(), expected / 5, rtol=1e-12)
    flat = data.make_swiss_roll_dataframe(100, noise=0.1, random_state=3)
    assert list(flat.columns) == ["x", "y"]
    np.testing.assert_allclose(flat.to_numpy(), expected[:, [0, 2]] / 10, rtol=1e-12)
    rows = data.SwissRollDataset(100, noise=0.1, random_state=3)
    assert len(rows) == 100
    np.testing.assert_allclose(rows[7].numpy(), flat.iloc[7], rtol=1e-6)
    again = data.SwissRollDataset(**rows.settings)
    pd.testing.assert_frame_equal(again.frame, rows.frame)
