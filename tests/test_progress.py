"""Lines where there is no terminal: few, whatever the speed of the machine, and the end among them."""

from __future__ import annotations

import pytest

from pointdiffusion import show_progress
from pointdiffusion.runtime import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, as a list of one number that a test may change."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_quick_work_has_one_line(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    """A thousand units in a second: the end alone."""
    with show_progress("sampling", 1000) as show:
        for done in range(1, 1001):
            clock[0] += 0.001
            show(done, "")
    assert capsys.readouterr().out.splitlines() == ["sampling: 1000/1000 (1.0 s)"]


def test_slow_work_has_a_line_for_each_tenth_at_most(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    """A thousand units of a minute each: ten lines, with their remarks."""
    with show_progress("training", 1000) as show:
        for done in range(1, 1001):
            clock[0] += 60
            show(done, f"loss {done}")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[0] == "training: 100/1000 (6000.0 s) loss 100"
    assert lines[-1].startswith("training: 1000/1000")


def test_lines_are_seconds_apart(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    """Twelve seconds of work: after five, after ten, and the end."""
    with show_progress("training", 12) as show:
        for done in range(1, 13):
            clock[0] += 1
            show(done, "")
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["5/12", "10/12", "12/12"]


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("training", 3, quiet=True) as show:
        show(3, "")
    assert capsys.readouterr().out == ""
