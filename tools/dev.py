"""Set up the environment of this repository and run things in it; needs nothing but Python.

    python tools/dev.py swiss-roll [flags of the example]    set up, then run the whole example
    python tools/dev.py test [arguments of pytest]           set up, then lint, type check and run the tests
    python tools/dev.py fast [arguments of pytest]           the quick tests: no browsers, no processes
    python tools/dev.py lint                                 linter and formatter, which changes nothing
    python tools/dev.py types                                the type checker
    python tools/dev.py docs                                 run the examples of the documents and the gallery
    python tools/dev.py web                                  build the page in the browser again, from web/
    python tools/dev.py clean                                remove caches and what was built; .venv stays
    python tools/dev.py setup                                set up only

The page needs Node 20.19 or later, and only for those who change it: what is built is in the repository. The
environment is `.venv` beside this folder; an active environment is never touched, and what is set up already is
not set up again. pip's own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, pip.conf, ...) are passed through.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
SUPPORTED = ((3, 11), (3, 12), (3, 13))
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PIP = "pip>=25.1"  # the first that knows dependency groups


def say(line: str) -> None:
    """Print a line at once, so that it stands before what the next program prints."""
    print(f"[dev] {line}", flush=True)


def environment() -> dict[str, str]:
    """Return the environment for programs in `.venv`: the user's, without what would lead out of it."""
    leaks = {
        "VIRTUAL_ENV",
        "PYTHONHOME",
        "PYTHONPATH",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_USER",
        "PIP_REQUIRE_VIRTUALENV",
    }
    return {name: value for name, value in os.environ.items() if name not in leaks}


def python_of_venv() -> Path:
    """Return the interpreter of `.venv`."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def find_python() -> str:
    """Return an interpreter of a supported version: this one, or one on the path.

    Raises:
        SystemExit: With status 2, if there is none.
    """
    if sys.version_info[:2] in SUPPORTED:
        return sys.executable
    for major, minor in reversed(SUPPORTED):
        found = shutil.which(f"python{major}.{minor}")
        if found:
            return found
    say(f"Python 3.11, 3.12 or 3.13 is needed, this is {platform.python_version()}; install one and try again")
    raise SystemExit(2)


def status_of(*command: str | Path, cwd: Path = ROOT) -> int:
    """Run a program in `.venv` and return its status."""
    try:
        return subprocess.run([str(part) for part in command], cwd=cwd, env=environment(), check=False).returncode
    except KeyboardInterrupt:
        return 130  # the program got the signal as well, and has said what there is to say


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a program in `.venv`; where it fails, end with its status."""
    status = status_of(*command, cwd=cwd)
    if status:
        raise SystemExit(status)


def captured(*command: str | Path) -> tuple[int, str]:
    """Run a program in `.venv` out of sight; return its status and what it printed."""
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment(), check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout


def works(python: Path) -> bool:
    """Return whether `.venv` holds an interpreter of a supported version that starts."""
    code = "import sys; print(*sys.version_info[:2])"
    try:
        answer = subprocess.run(
            [str(python), "-c", code], env=environment(), capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    return tuple(map(int, answer.stdout.split())) in SUPPORTED


def set_up(*, for_tests: bool) -> None:
    """Make `.venv` and install what is missing; a second call does nothing."""
    python = python_of_venv()
    if not works(python):
        interpreter = find_python()
        say(f"making the environment {VENV} with {interpreter}")
        if interpreter == sys.executable:
            venv.EnvBuilder(clear=True, with_pip=True, symlinks=os.name != "nt").create(VENV)
        else:
            run(interpreter, "-m", "venv", "--clear", VENV)
    wanted = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt", "requirements.txt", "tools/peers.txt"):
        wanted.update((ROOT / name).read_bytes())
    stamps = {name: VENV / f"pointdiffusion-{name}.stamp" for name in ("run", "test")}
    needed = stamps["test" if for_tests else "run"]

    def current(stamp: Path) -> bool:
        return stamp.exists() and stamp.read_text() == wanted.hexdigest()

    if current(needed) or current(stamps["test"]):
        return
    say("installing the versions of constraints.txt (PyTorch, Lightning and what they need) from your package index")
    if sys.platform == "linux" and not shutil.which("nvidia-smi"):
        say("no NVIDIA GPU found: to be spared gigabytes of CUDA packages, stop and set")
        say(f"    PIP_EXTRA_INDEX_URL={CPU_INDEX}")
        say("(unless pip is set up already to find a CPU build of PyTorch)")
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "--upgrade", PIP)
    run(*pip, "-r", "requirements.txt", *(["-c", "constraints.txt", "--group", "dev"] if for_tests else []))
    if for_tests:
        run(*pip, "--no-deps", "-r", "tools/peers.txt")
    needed.write_text(wanted.hexdigest())
    say("the environment is ready")


def swiss_roll(arguments: list[str]) -> None:
    """Run the whole example, and tell where the results lie."""
    run(python_of_venv(), "playground/points_2d/run_swiss_roll_example.py", *arguments)
    if not {"-h", "--help", "--output-dir"} & set(arguments):
        say(f"the results lie in {ROOT / 'swiss_roll_output'}")


LINT = (("ruff", "check", "."), ("ruff", "format", "--check", "."))
TYPES = (("mypy",),)
WORKERS = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")  # tests/conftest.py orders the files
FAST = ("-m", "not browser and not processes and not slow")


def check(*modules: tuple[str, ...]) -> None:
    """Run Python modules one after the other, all of them, and fail if one did."""
    failed = [status for module in modules if (status := status_of(python_of_venv(), "-m", *module))]
    if failed:
        raise SystemExit(failed[0])


def lint(_arguments: list[str]) -> None:
    """Run the linter, and the formatter without letting it change anything."""
    check(*LINT)


def types(_arguments: list[str]) -> None:
    """Run the type checker."""
    check(*TYPES)


def test(arguments: list[str]) -> None:
    """Run linter, type checker and tests; with arguments, pytest alone."""
    python = python_of_venv()
    if arguments:
        run(python, "-m", "pytest", *arguments)
        return
    # The checks take one core for less than a minute, at a time when workers import and collect.
    with ThreadPoolExecutor(1) as pool:
        checks = [pool.submit(captured, python, "-m", *module) for module in (*LINT, *TYPES)]
        status = status_of(python, "-m", "pytest", *WORKERS, "--durations", "25")
        for done in checks:
            found, text = done.result()
            print(text, end="", flush=True)
            status = status or found
    if status:
        raise SystemExit(status)


def fast(arguments: list[str]) -> None:
    """Run the tests that start neither a browser nor a process and are quick, for the inner loop."""
    run(python_of_venv(), "-m", "pytest", *WORKERS, *FAST, "-q", *arguments)


def docs(arguments: list[str]) -> None:
    """Run every example of the documents and the scripts of the gallery."""
    run(python_of_venv(), "-m", "pytest", *WORKERS, "tests/test_documents.py", "tests/test_gallery.py", *arguments)


def clean(_arguments: list[str]) -> None:
    """Remove caches and what was built; the environment and the results of the example stay."""
    for name in ("build", "dist", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", "web/build"):
        shutil.rmtree(ROOT / name, ignore_errors=True)
    for folder in ("src", "tests", "tools", "benchmarks", "playground", "docs"):
        for cache in (ROOT / folder).rglob("__pycache__"):
            shutil.rmtree(cache, ignore_errors=True)


def web_modules() -> bool:
    """Install what the page is built with, unless that is done; return whether it is there."""
    npm, folder, stamp = shutil.which("npm"), ROOT / "web", VENV / "pointdiffusion-web.stamp"
    if npm is None or not (folder / "package-lock.json").exists():
        return False
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted and (folder / "node_modules").exists():
        return True
    say("installing what the page in the browser is built with, from your npm registry")
    try:
        run(npm, "ci", "--no-audit", "--no-fund", "--silent", cwd=folder)
    except SystemExit as end:
        if end.code == 130:
            raise
        say("that failed, so the page can neither be built nor its TypeScript be tested")
        return False
    stamp.write_text(wanted)
    return True


def web(_arguments: list[str]) -> None:
    """Write the page in the browser anew: what Python tells it, then its bundle."""
    if not web_modules():
        say("npm and its registry are needed to build the page: install Node 20.19 or later and try again")
        raise SystemExit(2)
    run(python_of_venv(), "-m", "pointdiffusion.web.registry", ROOT / "web" / "registry.json")
    run(str(shutil.which("npm")), "run", "--silent", "build", cwd=ROOT / "web")


COMMANDS = {
    "swiss-roll": swiss_roll, "test": test, "fast": fast, "lint": lint, "types": types, "docs": docs, "web": web,
    "clean": clean, "setup": lambda _arguments: None,
}  # fmt: skip
WITHOUT_TESTS = ("swiss-roll", "setup", "web")
"""Commands that what the example needs will do for."""


def main(argv: list[str]) -> None:
    """Set up and run what the first argument names."""
    if not argv or argv[0] not in COMMANDS:
        print(__doc__)
        raise SystemExit(0 if argv and argv[0] in ("-h", "--help") else 2)
    if argv[0] != "clean":
        set_up(for_tests=argv[0] not in WITHOUT_TESTS)
    if argv[0] in ("test", "fast"):
        web_modules()
    COMMANDS[argv[0]](argv[1:])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        raise SystemExit(130) from None
