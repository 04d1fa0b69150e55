"""No file grows beyond 300 lines, but for those that are listed with the lines they have, which may only shrink.

The list is `tests/long_files.txt`; `python tests/test_limits.py` writes it anew. Statements and branches of a function
are counted by ruff (PLR0915 and C901 in pyproject.toml).
"""

from __future__ import annotations

from pathlib import Path

from conftest import BROWSER, LONG, PROCESSES, SLOW

ROOT = Path(__file__).resolve().parent.parent
MOST = 300
LIST = ROOT / "tests" / "long_files.txt"
WRITTEN = [
    *("src/pointdiffusion/**/*.py", "tests/*.py", "tests/earlier/*.py", "tools/*.py", "benchmarks/*.py"),
    *("playground/**/*.py", "docs/**/*.py", "web/src/**/*.ts", "web/src/**/*.css"),
]
"""What people write; what is built is left out."""


def count_lines() -> dict[str, int]:
    """Return the number of lines of every file, by its path."""
    paths = sorted(path for pattern in WRITTEN for path in ROOT.glob(pattern))
    return {path.relative_to(ROOT).as_posix(): path.read_bytes().count(b"\n") for path in paths}


def long_files() -> dict[str, int]:
    """Return the files with more lines than there should be."""
    return {name: count for name, count in count_lines().items() if count > MOST}


def listed() -> dict[str, int]:
    """Return the files that may be longer, with their lines."""
    rows = (line.split(maxsplit=1) for line in LIST.read_text().splitlines())
    return {name: int(count) for count, name in rows}


def test_files_are_counted() -> None:
    """The tests below would pass on an empty list."""
    counts = count_lines()
    assert len(counts) > 200
    assert {Path(name).parts[0] for name in counts} == {
        "src", "tests", "tools", "benchmarks", "playground", "docs", "web",
    }  # fmt: skip


def test_no_file_grows_beyond_the_limit() -> None:
    """A long file is split; one that is listed does not grow."""
    allowed = listed()
    grown = {name: count for name, count in long_files().items() if count > allowed.get(name, MOST)}
    assert not grown, f"split {grown}: at most {MOST} lines, or what {LIST.name} says"


def test_the_list_of_long_files_shrinks() -> None:
    """Who makes a file shorter takes its lines off the list, so that it cannot grow again."""
    counts = count_lines()
    stale = {name: count for name, count in listed().items() if counts.get(name, 0) < count}
    assert not stale, f"{stale} are shorter now or gone: run `python tests/test_limits.py`"


def test_what_conftest_names_is_there() -> None:
    """A file or a test that is renamed must not lose its marker unseen."""
    tests = ROOT / "tests"
    assert [name for name in (*BROWSER, *PROCESSES, *LONG, *SLOW) if not (tests / f"{name}.py").is_file()] == []
    for file, names in SLOW.items():
        text = (tests / f"{file}.py").read_text(encoding="utf-8")
        assert [name for name in names if f"def {name}(" not in text] == [], file


if __name__ == "__main__":
    LIST.write_text("".join(f"{count} {name}\n" for name, count in long_files().items()))
