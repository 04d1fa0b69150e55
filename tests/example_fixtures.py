"""Runs the real scripts of the playground: as fresh processes, and as forks of a warm one (see `warm_runner`)."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PLAYGROUND = REPOSITORY / "playground" / "points_2d"
EXAMPLE = PLAYGROUND / "swiss_roll_example.py"
RUN_EXAMPLE = PLAYGROUND / "run_swiss_roll_example.py"
RUNNER = Path(__file__).with_name("warm_runner.py")
TOY = [
    *("--epochs", "2", "--n-train", "256", "--n-val", "64", "--hidden-dim", "16"),
    *("--n-samples", "50", "--n-steps", "5", "--no-diagnosis"),
]
"""Flags of a run that takes a second."""
TIMEOUT = 120.0
FORKS = sys.platform == "linux"
"""macOS has frameworks that do not survive a fork; every run is a fresh process there, which takes its time."""


@dataclass(frozen=True)
class Result:
    """What a process left: its exit code (minus the signal that killed it) and what it printed."""

    code: int
    out: str
    err: str
    seconds: float

    def sentence(self) -> str:
        """Return what the error line says, after checking that there is exactly one and no traceback."""
        everything = self.out + self.err
        assert "Traceback" not in everything, everything
        errors = [line for line in self.err.splitlines() if "error:" in line]
        assert len(errors) == 1, everything
        lines = self.err.strip().splitlines()
        assert lines[-1] == errors[0], self.err
        assert len(lines) == 1 or lines[0].startswith("usage:"), self.err  # argparse prints the usage first
        message = errors[0].split("error: ", 1)[1]
        assert len(message) > 15, message
        return message


def clean_environment(**changes: str) -> dict[str, str]:
    """Return the environment of a user's shell, with one thread a process."""
    kept = {name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "PYTHONWARNINGS")}
    kept = {name: value for name, value in kept.items() if not name.startswith(("PYTEST", "COV_"))}
    return {**kept, "OMP_NUM_THREADS": "1", **changes}


def run_python(
    *arguments: str | Path, cwd: Path, timeout: float = TIMEOUT, options: list[str] | None = None, **environment: str
) -> Result:
    """Run `python options arguments` as a fresh process, from the start to the end."""
    start = time.perf_counter()
    command = [sys.executable, *(options or []), *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, env=clean_environment(**environment), capture_output=True, text=True, timeout=timeout,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return Result(done.returncode, done.stdout, done.stderr, time.perf_counter() - start)


@dataclass
class Running:
    """A script that runs in a fork of the warm process."""

    ask: Callable[[], int | None]
    pid: int
    out: Path
    err: Path
    start: float
    code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self.code is None:
            self.code = self.ask()
        return self.code

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float = TIMEOUT) -> Result:
        """Wait for the end."""
        while self.poll() is None:
            if time.perf_counter() - self.start > timeout:
                os.kill(self.pid, signal.SIGKILL)
                pytest.fail(f"still running after {timeout} s: {self.out.read_text()} {self.err.read_text()}")
            time.sleep(0.01)
        assert self.code is not None
        out, err = (path.read_text() if path.is_file() else "" for path in (self.out, self.err))
        return Result(self.code, out, err, time.perf_counter() - self.start)


class Scripts:
    """The warm process, and what it is asked to run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.server: subprocess.Popen[str] | None = None

    def _ask(self, **request: Any) -> Any:
        if self.server is None:
            self.server = subprocess.Popen(
                [sys.executable, str(RUNNER)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment(),
                start_new_session=True,
            )  # fmt: skip
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def start(
        self, *arguments: object, cwd: Path, script: Path = EXAMPLE, module: str = "", prelude: str = "",
        text: str | None = None, out: Path | None = None, **environment: str,
    ) -> Running:  # fmt: skip
        """Start a script, or a module as `python -m` does; `prelude` is Python code that its process runs first.

        `text` is what it reads from the standard input.
        """
        self.count += 1
        out, err = out or self.folder / f"{self.count}.out", self.folder / f"{self.count}.err"
        given = Path(os.devnull)
        if text is not None:
            given = self.folder / f"{self.count}.in"
            given.write_text(text)
        start = time.perf_counter()
        request = {
            "do": "run", "script": str(script), "module": module, "arguments": [str(part) for part in arguments],
            "cwd": str(cwd), "prelude": prelude, "input": str(given), "out": str(out), "err": str(err),
            "env": environment,
        }  # fmt: skip
        if FORKS:
            pid = self._ask(**request)
            return Running(lambda: self._ask(do="poll", pid=pid), pid, out, err, start)
        fresh = subprocess.Popen([sys.executable, str(RUNNER), json.dumps(request)], env=clean_environment())
        return Running(fresh.poll, fresh.pid, out, err, start)

    def run(self, *arguments: object, timeout: float = TIMEOUT, **settings: Any) -> Result:
        """Run a script from the start to the end."""
        return self.start(*arguments, **settings).wait(timeout)

    def close(self) -> None:
        """End the warm process."""
        if self.server is not None:
            assert self.server.stdin is not None
            self.server.stdin.close()
            self.server.wait(timeout=20)
            assert self.server.stdout is not None
            self.server.stdout.close()


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripts]:
    """Return what runs the scripts of the playground."""
    runner = Scripts(tmp_path_factory.mktemp("scripts"))
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Return the folder where the example ran at toy size as a fresh process, and what it printed.

    Made once for all worker processes of pytest-xdist; nobody may change it.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / "trained-example"
    note = base / "trained-example.json"
    with (base / "trained-example.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not note.exists():
            folder.mkdir()
            result = run_python(EXAMPLE, *TOY, cwd=folder)
            note.write_text(json.dumps([result.code, result.out, result.err, result.seconds]))
    result = Result(*json.loads(note.read_text()))
    assert result.code == 0, result
    return folder, result


def hashes(folder: Path) -> dict[str, str]:
    """Return the hash of every file below `folder`, by relative path; hidden files included."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def leftovers(folder: Path) -> list[str]:
    """Return the temporary files below `folder`."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if ".tmp" in path.name]
