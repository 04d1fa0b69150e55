"""The two commands: what they set up, that they do so once, and that the gate calls them."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`tools/dev.py` for an empty environment, that notes programs instead of running them."""
    spec = importlib.util.spec_from_file_location("dev_under_test", ROOT / "tools" / "dev.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.commands = []
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "works", lambda python: python.exists())

    class Builder:
        def __init__(self, **_options: object) -> None: ...

        def create(self, folder: Path) -> None:
            python = folder / module.python_of_venv().relative_to(folder)
            python.parent.mkdir(parents=True)
            python.touch()
            module.commands.append(["make venv"])

    monkeypatch.setattr(module.venv, "EnvBuilder", Builder)

    def note(*command: object, **_options: object) -> int:
        module.commands.append([str(part) for part in command])
        return 0

    monkeypatch.setattr(module, "status_of", note)
    monkeypatch.setattr(module, "captured", lambda *command: (note(*command), ""))
    return module


def test_dev_needs_the_standard_library_alone() -> None:
    """It runs before anything is installed."""
    tree = ast.parse((ROOT / "tools" / "dev.py").read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {str(name).split(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.parametrize("command", ["swiss-roll", "test"])
def test_a_second_call_sets_nothing_up(dev: ModuleType, command: str) -> None:
    """The first call makes the environment and installs; the second goes straight to the work."""
    dev.main([command])
    first, dev.commands[:] = list(dev.commands), []
    assert first[0] == ["make venv"]
    installs = [line for line in first if "pip" in line]
    assert any("requirements.txt" in line for line in installs)
    assert any("--group" in line for line in installs) == (command == "test")
    assert any("tools/peers.txt" in line for line in installs) == (command == "test")
    dev.main([command])
    assert dev.commands
    assert not [line for line in dev.commands if "pip" in line or line == ["make venv"]]


def test_changed_pins_are_installed(dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment of other pins is brought up to date."""
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "tools").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "requirements.txt", "tools/peers.txt"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(dev, "ROOT", copy)
    dev.main(["setup"])
    (copy / "constraints.txt").write_text("torch==2.13.1\n")
    dev.commands.clear()
    dev.main(["setup"])
    assert [line for line in dev.commands if "requirements.txt" in line]


def test_what_the_tests_need_suffices_for_the_example(dev: ModuleType) -> None:
    """After `test` there is nothing left to set up for `swiss-roll`."""
    dev.main(["test"])
    dev.commands.clear()
    dev.main(["swiss-roll"])
    assert len(dev.commands) == 1


def test_pip_settings_pass_and_active_environments_do_not(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU index reaches pip; an active environment does not leak in."""
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://example.org/simple")
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere/else")
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    environment = dev.environment()
    assert environment["PIP_EXTRA_INDEX_URL"] == "https://example.org/simple"
    assert {"VIRTUAL_ENV", "PYTHONPATH"}.isdisjoint(environment)
    assert environment["PATH"] == os.environ["PATH"]


def test_the_cpu_index_is_told_where_there_is_no_gpu(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A machine without a GPU can be spared gigabytes, and its user learns how."""
    monkeypatch.setattr(dev.sys, "platform", "linux")
    monkeypatch.setattr(dev.shutil, "which", lambda _name: None)
    dev.set_up(for_tests=False)
    assert "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu" in capsys.readouterr().out


def test_an_unsupported_python_is_refused(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too old a Python gets one sentence and status 2."""
    monkeypatch.setattr(dev.sys, "version_info", (3, 10, 0))
    monkeypatch.setattr(dev.shutil, "which", lambda _name: None)
    with pytest.raises(SystemExit) as end:
        dev.find_python()
    assert end.value.code == 2
    assert "3.11, 3.12 or 3.13" in capsys.readouterr().out


def test_the_page_is_built_with_what_python_tells_it(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """`web` installs the modules once, writes the registry, then builds; without npm it says what to install."""
    monkeypatch.setattr(dev.shutil, "which", lambda name: f"/bin/{name}")
    dev.main(["web"])
    calls = [line for line in dev.commands if "make venv" not in line and "pip" not in line]
    assert [line[1] for line in calls] == ["ci", "-m", "run"]
    assert calls[1][2] == "pointdiffusion.web.registry"
    monkeypatch.setattr(dev.shutil, "which", lambda _name: None)
    with pytest.raises(SystemExit) as end:
        dev.main(["web"])
    assert end.value.code == 2


def test_make_and_the_gate_call_dev() -> None:
    """Both commands are one line that calls `tools/dev.py`; the gate is `make test`."""
    makefile = (ROOT / "Makefile").read_text()
    for target in ("swiss-roll", "test", "fast", "lint", "types", "docs", "web", "clean"):
        assert f"{target}:\n\t@$(PYTHON) tools/dev.py {target} $(ARGS)\n" in makefile
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize(("broken", "status"), [("pytest", 3), ("mypy", 3), ("ruff", 3), ("nothing", 0)])
def test_whatever_fails_fails_the_tests(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: str, status: int
) -> None:
    """Linter and type checker run beside the tests; what they print is shown, and their status counts."""
    run = lambda *command, **_: 3 if broken in map(str, command) else 0  # noqa: E731
    monkeypatch.setattr(dev, "status_of", run)
    monkeypatch.setattr(dev, "captured", lambda *command: (run(*command), f"{command[2]} says so\n"))
    monkeypatch.setattr(dev, "set_up", lambda **_: None)
    monkeypatch.setattr(dev, "web_modules", lambda: True)
    if status:
        with pytest.raises(SystemExit) as end:
            dev.main(["test"])
        assert end.value.code == status
    else:
        dev.main(["test"])
    printed = capsys.readouterr().out
    assert "mypy says so" in printed
    assert printed.count("ruff says so") == 2


def test_clean_leaves_the_environment(dev: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Caches go; `.venv` and results stay."""
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    for name in (".venv", "swiss_roll_output", ".mypy_cache", "dist", "src/pointdiffusion/__pycache__"):
        (tmp_path / name).mkdir(parents=True)
    dev.main(["clean"])
    assert {path.name for path in tmp_path.iterdir()} == {".venv", "swiss_roll_output", "src"}
    assert not (tmp_path / "src" / "pointdiffusion" / "__pycache__").exists()


def test_pins_fit_the_requirements() -> None:
    """Every dependency is pinned, torch to the version that is tested, and Lightning outside its bad releases."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    pins = {name.lower(): version for name, version in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        assert requirement.split(">=")[0].lower() in pins
    assert pins["torch"] == "2.13.0"
    assert pins["lightning"] == "2.6.6"
