"""The scripts that draw the pictures of the documents run, and draw."""

from __future__ import annotations

from pathlib import Path

import pytest
from example_fixtures import Scripts
from PIL import Image

GALLERY = Path(__file__).parent.parent / "docs" / "gallery"


def run(scripts: Scripts, name: str, cwd: Path, *arguments: str) -> str:
    done = scripts.run("--toy", *arguments, script=GALLERY / f"{name}.py", cwd=cwd)
    assert done.code == 0, done.err
    return done.out


@pytest.mark.parametrize("name", sorted(path.stem for path in GALLERY.glob("*.py") if path.stem != "defects"))
def test_script_prints_and_draws(name: str, tmp_path: Path, scripts: Scripts) -> None:
    printed = run(scripts, name, tmp_path, "-o", str(tmp_path / "picture.png"))
    assert len(printed.splitlines()) > 2
    with Image.open(tmp_path / "picture.png") as picture:
        low, high = picture.convert("L").getextrema()
    assert (low, high) != (255, 255)  # something is drawn


@pytest.mark.parametrize("name", sorted(path.stem for path in GALLERY.glob("*.png")))
def test_picture_in_the_documents_is_drawn_by_a_script_and_small(name: str) -> None:
    assert (GALLERY / f"{name}.py").is_file()
    assert (GALLERY / f"{name}.png").stat().st_size < 200_000


def test_defects_are_measured(tmp_path: Path, scripts: Scripts) -> None:
    """The first finding: UniPC breaks with one of its two options, and not with the other."""
    line = run(scripts, "defects", tmp_path).splitlines()[-1]
    assert "`solver_type='bh1'`: NaN" in line
    assert "by default: error" in line
