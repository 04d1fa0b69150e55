"""Make the files of this folder: models, runs and settings as the build that runs this writes them.

    python tests/earlier/make.py FOLDER

They are kept as `tests/earlier/VERSION/`, so that `tests/test_earlier_files.py` can tell that what was written once is
read for good. Networks are tiny and hardly trained: what matters is that a later build makes the same of the files,
which `expected.json` holds (samples, densities, conditional samples, filled gaps, decoded rows).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import pointdiffusion as ptd


def network(n_dims: int, **conditions: int) -> ptd.ResidualMLP:
    """Return a network small enough to keep."""
    torch.manual_seed(0)
    return ptd.default_network(n_dims, 8, 1, **conditions)


def plain(folder: Path) -> dict[str, Any]:
    """Write a model of points on a plane, with a learned grid."""
    points = ptd.DATASETS["moons"](256, random_state=0)
    config = ptd.TrainingConfig(epochs=2, sigma_min=0.02, sigma_max=8.0)
    model = ptd.fit(points, config, backbone=network(2), seed=0)
    model.save(folder / "plain.pt")
    return {
        "sample": model.sample(5, seed=1).tolist(),
        "heun": model.sample(5, seed=1, solver="heun", num_steps=8).tolist(),
        "log_prob": model.log_prob(points[:5]).tolist(),
    }


def conditional(folder: Path) -> dict[str, Any]:
    """Write a model with classes, context and masks."""
    rng = np.random.default_rng(0)
    labels = ["left", "right"] * 100
    context = rng.normal(size=(200, 1))
    points = rng.normal(size=(200, 3)) + np.where(np.arange(200) % 2, 2.0, -2.0)[:, None] + context
    small = network(3, num_classes=2, num_context=1 + 3)  # the value, and the coordinates that are shown
    config = ptd.TrainingConfig(epochs=2, mask=0.5)
    model = ptd.fit(points, config, labels=labels, context=context, backbone=small, seed=0)
    model.save(folder / "conditional.pt")
    gaps = points[:3].copy()
    gaps[:, 1] = np.nan
    return {
        "sample": model.sample(4, seed=1, labels="right", context=[0.5]).tolist(),
        "filled": model.impute(gaps, seed=1, labels=labels[:3], context=context[:3]).draws.tolist(),
        "gaps": [[None if np.isnan(value) else value for value in row] for row in gaps.tolist()],
        "labels": labels[:3],
        "context": context[:3].tolist(),
    }


def table(folder: Path) -> dict[str, Any]:
    """Write a table, and the run of the command line about it."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "height": rng.normal(1.7, 0.1, 120).round(2),
            "visits": rng.poisson(3.0, 120),
            "unit": 1,
            "kind": np.where(rng.random(120) < 0.5, "a", "b"),
        }
    )
    frame.to_csv(folder / "table.csv", index=False)
    config = "label: kind\nfit:\n  base: mixture\n  num_members: 2\n  num_steps: 20\n  hidden_dim: 8\n  num_layers: 1\n"
    (folder / "settings.yaml").write_text(config)
    # Within the folder, so that config.yaml can be made to name the table without a path of this machine.
    command = [sys.executable, "-m", "pointdiffusion", "train", "table.csv", "-o", "run", "--config", "settings.yaml"]
    subprocess.run([*command, "--no-report"], cwd=folder, check=True)
    for name in ("networks", "lightning_logs"):
        subprocess.run(["rm", "-rf", str(folder / "run" / name)], check=True)
    settings = folder / "run" / "config.yaml"
    settings.write_text(settings.read_text().replace(str(folder.resolve()) + "/", ""))
    drawn = [sys.executable, "-m", "pointdiffusion", "sample", "run", "-n", "6", "--seed", "1"]
    rows = subprocess.run(drawn, cwd=folder, check=True, capture_output=True, text=True).stdout
    scored = [sys.executable, "-m", "pointdiffusion", "score", "run", "table.csv"]
    scores = subprocess.run(scored, cwd=folder, check=True, capture_output=True, text=True).stdout
    return {"rows": rows, "scores": scores.splitlines()[:6]}


def main(target: str) -> None:
    """Make all of it."""
    folder = Path(target)
    folder.mkdir(parents=True)
    expected = {"plain": plain(folder), "conditional": conditional(folder), "table": table(folder)}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
