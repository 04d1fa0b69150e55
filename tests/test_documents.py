"""What the documents show runs, what they link to is there, and no flag is left out."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from example_fixtures import Scripts
from test_rooms import ROOMS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("playground/**/*.md")]
    if ".venv" not in path.parts
)


def code_blocks(path: Path) -> list[str]:
    """Return the Python blocks of a document."""
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("block", range(4), ids=["opening", "learner", "researcher", "table"])
def test_the_blocks_of_the_readme_run(block: int, tmp_path: Path) -> None:
    """A newcomer pastes the opening or one of the tours, each by itself, and sees no error and no warning."""
    blocks = code_blocks(ROOT / "README.md")
    assert len(blocks) == 4
    command = [sys.executable, "-W", "error", "-c", blocks[block]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_lists_the_rooms_in_their_order(name: str) -> None:
    """The table of rooms is that of the house, from the ground up."""
    text = (ROOT / name).read_text(encoding="utf-8")
    table = text[text.index("docs/rooms.svg") :]
    firsts = re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)[: len(ROOMS)]
    listed = re.findall(r"`(\w+)`", " ".join(firsts))
    assert listed == [room for room in ROOMS if room != "__main__"]


def test_the_picture_of_the_rooms_is_up_to_date() -> None:
    """Whoever moves an import draws the picture again: `python tools/rooms.py`."""
    tool = runpy.run_path(str(ROOT / "tools" / "rooms.py"))
    drawn = tool["svg"](tool["arrows_between_rooms"]())
    assert drawn == (ROOT / "docs" / "rooms.svg").read_text(encoding="utf-8")


def test_arrows_that_follow_from_others_are_left_out() -> None:
    """Of a -> b -> c and a -> c the last is not drawn, and each room stands below those that import from it."""
    tool = runpy.run_path(str(ROOT / "tools" / "rooms.py"))
    arrows = {"a": {"b", "c", "d"}, "b": {"c"}, "c": set(), "d": set()}
    assert tool["reduced"](arrows) == {"a": {"b", "d"}, "b": {"c"}, "c": set(), "d": set()}
    assert tool["floors_of"](arrows) == {"a": 2, "b": 1, "c": 0, "d": 1}


@pytest.mark.parametrize("name", sorted(path.stem for path in ROOT.glob("docs/*.md") if code_blocks(path)))
def test_the_pages_run(name: str, tmp_path: Path, scripts: Scripts) -> None:
    """What a page shows in Python runs as it stands, block after block."""
    script = tmp_path / "page.py"
    script.write_text("\n".join(code_blocks(ROOT / "docs" / f"{name}.md")))
    done = scripts.run(script=script, cwd=tmp_path, timeout=300)
    assert done.code == 0, done.err


@pytest.mark.parametrize("folder", [ROOT, ROOT / "playground" / "points_2d"], ids=["root", "example"])
def test_both_languages_show_the_same_code(folder: Path) -> None:
    """The Chinese documents must not fall behind: what they run is what the English ones run."""

    def statements(path: Path) -> list[list[str]]:
        blocks = [re.sub(r"#.*", "", block) for block in code_blocks(path)]
        return [[line.rstrip() for line in block.splitlines() if line.strip()] for block in blocks]

    assert statements(folder / "README.md") == statements(folder / "README.zh-CN.md")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Every link that stays in the repository has a target."""
    prose = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)", prose)
    for target in targets:
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_every_flag_is_documented(name: str) -> None:
    """The example's documents name each flag of its help."""
    folder = ROOT / "playground" / "points_2d"
    command = [sys.executable, "swiss_roll_example.py", "--help"]
    text = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert len(flags) > 15
    document = (folder / name).read_text(encoding="utf-8")
    missing = [flag for flag in flags if f"`{flag}" not in document and f"`{flag} " not in document]
    assert not missing


def test_no_placeholder_is_left() -> None:
    """Documents are whole."""
    for path in DOCUMENTS:
        assert not re.search(r"<!-- \w+ -->|TODO|TBD", path.read_text(encoding="utf-8")), path.name
