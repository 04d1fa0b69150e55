"""Files that earlier builds wrote, opened by this one: `tests/earlier/make.py` made them and what they must give."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import pointdiffusion as ptd
from pointdiffusion.cli.app import app

FOLDERS = sorted(path.parent for path in (Path(__file__).parent / "earlier").glob("*/expected.json"))
NEAR = {"rtol": 2e-4, "atol": 2e-4}  # float32 networks: other kernels of other processors differ in the last digits


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def earlier(request: pytest.FixtureRequest) -> tuple[Path, dict[str, Any]]:
    folder = Path(request.param)
    return folder, json.loads((folder / "expected.json").read_text())


def test_there_are_earlier_files() -> None:
    """The tests below would pass on an empty list."""
    assert FOLDERS


def test_a_model_of_points_samples_and_scores_as_before(earlier: tuple[Path, dict[str, Any]]) -> None:
    folder, expected = earlier[0], earlier[1]["plain"]
    model = ptd.load(folder / "plain.pt")
    np.testing.assert_allclose(model.sample(5, seed=1), expected["sample"], **NEAR)
    np.testing.assert_allclose(model.sample(5, seed=1, solver="heun", num_steps=8), expected["heun"], **NEAR)
    points = ptd.DATASETS["moons"](256, random_state=0)[:5]
    np.testing.assert_allclose(model.log_prob(points), expected["log_prob"], rtol=0, atol=1e-2)  # steps may be replaced


def test_a_model_with_conditions_and_masks_samples_and_fills_as_before(earlier: tuple[Path, dict[str, Any]]) -> None:
    folder, expected = earlier[0], earlier[1]["conditional"]
    model = ptd.load(folder / "conditional.pt")
    np.testing.assert_allclose(model.sample(4, seed=1, labels="right", context=[0.5]), expected["sample"], **NEAR)
    gaps = np.array(expected["gaps"], dtype=float)
    filled = model.impute(gaps, seed=1, labels=expected["labels"], context=expected["context"])
    np.testing.assert_allclose(filled.draws, expected["filled"], **NEAR)


def test_a_run_samples_and_scores_as_before(earlier: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, expected = earlier[0], earlier[1]["table"]
    run = shutil.copytree(folder / "run", tmp_path / "run")
    shutil.copy(folder / "table.csv", tmp_path)
    drawn = CliRunner().invoke(app, ["sample", str(run), "-n", "6", "--seed", "1"], catch_exceptions=False)
    before, after = (pd.read_csv(io.StringIO(text)) for text in (expected["rows"], drawn.stdout))
    pd.testing.assert_frame_equal(after, before, rtol=1e-3)
    arguments = ["score", str(run), str(tmp_path / "table.csv")]
    scored = CliRunner().invoke(app, arguments, catch_exceptions=False)
    before, after = (
        pd.read_csv(io.StringIO("\n".join(lines))) for lines in (expected["scores"], scored.stdout.splitlines()[:6])
    )
    np.testing.assert_allclose(after["log_prob"], before["log_prob"], rtol=0, atol=1e-2)


def test_the_settings_of_an_earlier_run_are_read(earlier: tuple[Path, dict[str, Any]]) -> None:
    from pointdiffusion.cli.settings import RunSettings

    settings = RunSettings.from_yaml(earlier[0] / "run" / "config.yaml")
    assert settings.label == "kind"
    assert settings.fit["num_members"] == 2
