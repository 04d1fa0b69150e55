"""Old public names still work, warn at the user's own line, and name what replaces them."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import pointdiffusion as ptd
from pointdiffusion import _RENAMED
from pointdiffusion.diagnostics.explanation import Explanation, Neighbour
from pointdiffusion.metrics.results import Evaluation

RENAMED_ATTRIBUTES = [(Evaluation, "figures", "results"), (Explanation, "unusual", "anomalies")]


@pytest.mark.parametrize(("old", "new"), _RENAMED.items())
def test_an_old_name_is_the_new_one(old: str, new: str) -> None:
    """One warning, at the line that uses the name; the new name is public and the old one is not advertised."""
    with warnings.catch_warnings(record=True, action="always") as caught:
        value = getattr(ptd, old)
    (warning,) = caught
    assert warning.category is DeprecationWarning
    assert warning.filename == __file__
    assert f"pointdiffusion.{old} is deprecated" in str(warning.message)
    assert str(warning.message).endswith(f"use pointdiffusion.{new}")
    assert new in ptd.__all__
    assert old not in ptd.__all__
    assert value is getattr(ptd, new)


@pytest.mark.parametrize(
    "statement", ["from pointdiffusion import judge", "import pointdiffusion; pointdiffusion.judge"]
)
def test_a_user_sees_one_warning_about_a_line(statement: str, tmp_path: Path) -> None:
    """However the name is imported, and with the filters that a script runs under."""
    script = tmp_path / "script.py"
    script.write_text(f"{statement}\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.count("DeprecationWarning") == 1
    assert f"{script}:1: DeprecationWarning: pointdiffusion.judge is deprecated" in done.stderr


@pytest.mark.parametrize(("owner", "old", "new"), RENAMED_ATTRIBUTES)
def test_an_old_attribute_is_the_new_one(owner: type, old: str, new: str) -> None:
    """The same for attributes."""
    instance: Any = object.__new__(owner)
    instance.__dict__[new] = ["value"]
    with pytest.warns(DeprecationWarning, match=f"{owner.__name__}.{old} is deprecated.*use {owner.__name__}.{new}"):
        assert getattr(instance, old) == ["value"]


def test_the_place_of_a_neighbour_is_its_row() -> None:
    neighbour = Neighbour(3, 0.5, ptd.nearest_distances([[0.0]], [[1.0]]))
    with pytest.warns(DeprecationWarning, match="use Neighbour.row"):
        assert neighbour.place == neighbour.row == 3
