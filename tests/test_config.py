"""Settings: in and out as YAML, strict about names, types and ranges; and an import that costs nothing."""

from __future__ import annotations

import ast
import dataclasses
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pointdiffusion as ptd
from pointdiffusion.config import InferenceConfig, TableConfig, TrainingConfig, unknown_name

CONFIGS = [TrainingConfig, InferenceConfig, TableConfig]

# For each setting: a valid value that is not the default, and values that are out of range.
SETTINGS: dict[type, dict[str, tuple[Any, list[Any]]]] = {
    TrainingConfig: {
        "epochs": (3, [0, -1]),
        "epoch_steps": (7, [-1]),
        "batch_size": (64, [0, -5, 2**24 + 1]),
        "noise_draws": (1, [0, -1, 4097]),
        "learning_rate": (1e-3, [0.0, -1e-4, 11.0]),
        "weight_decay": (0.0, [-0.1]),
        "noise_sampler": ("log-normal", []),
        "sigma_min": (0.02, [0.0, -1.0]),
        "sigma_max": (20.0, [0.0, -1.0]),
        "loss": ("noise-prediction", []),
        "weighting": ("min-snr", []),
        "gamma": (1.0, [0.0, -5.0]),
        "reference_points": (0, [-1]),
        "tail_share": (0.0, [-0.1, 1.1]),
        "condition_dropout": (0.3, [-0.1, 1.1]),
        "mask": (0.5, [-0.1, 1.1]),
        "ema_decay": (0.0, [1.0, -0.1, 1.5]),
        "ema_warmup": (1, [0, -1]),
    },
    InferenceConfig: {
        "solver": ("heun", []),
        "num_steps": (18, [0, -1, 100_001]),
        "schedule": ("karras", []),
        "sigma_min": (0.002, [0.0, -1.0, 10.0, 11.0]),
        "sigma_max": (80.0, [0.01, 0.001, -1.0]),
        "rho": (3.0, [0.0, -7.0]),
        "final_zero": (False, []),
    },
    TableConfig: {
        "base": ("mixture", ["sphere"]),
        "num_members": (3, [-1, 51]),
        "num_steps": (300, [0, -1, 10**8]),
        "sigma_min": (0.1, [0.0, -1.0, 10.0]),
        "noise_min": (0.1, [0.0, -1.0, 10.0]),
        "sigma_max": (20.0, [1.0, -1.0]),
        "hidden_dim": (64, [0, 5000]),
        "num_layers": (1, [0, 65]),
        "batch_size": (32, [0, -5]),
        "noise_draws": (1, [0, -1]),
        "learning_rate": (1e-3, [0.0, 11.0]),
        "companion": (False, []),
        "mask": (0.5, [-0.1, 1.1]),
    },
}
BY_NAME = [(kind, name) for kind, settings in SETTINGS.items() for name in settings]
OUT_OF_RANGE = [(kind, name, value) for kind, name in BY_NAME for value in SETTINGS[kind][name][1]]


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_setting_is_tested_here(kind: type) -> None:
    """A setting that is added is tested: give values above."""
    assert set(SETTINGS[kind]) == {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("kind", CONFIGS)
def test_defaults_go_through_yaml_and_back(kind: Any) -> None:
    """YAML of the defaults gives the defaults."""
    assert kind.from_yaml(kind().to_yaml()) == kind()
    assert kind.from_mapping(kind().to_mapping()) == kind()


@pytest.mark.parametrize(("kind", "name"), BY_NAME)
def test_every_setting_goes_through_yaml_and_back(kind: Any, name: str) -> None:
    """Each setting keeps its value and its type, and the others keep theirs."""
    config = kind(**{name: SETTINGS[kind][name][0]})
    again = kind.from_yaml(config.to_yaml())
    assert again == config
    assert type(getattr(again, name)) is type(getattr(config, name))


@pytest.mark.parametrize("value", [1e-4, 1e-5, 1.5e-30, 3.0, 1 / 3])
def test_floats_keep_every_digit_in_yaml(value: float) -> None:
    """Numbers that YAML writes in its own ways come back bit for bit."""
    config = TrainingConfig(weight_decay=value)
    assert TrainingConfig.from_yaml(config.to_yaml()).weight_decay == value


def test_a_setting_left_out_has_its_default() -> None:
    """YAML need name only what differs."""
    assert TrainingConfig.from_yaml("epochs: 7") == TrainingConfig(epochs=7)


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("1.0e-3", 1e-3), ("0.001", 1e-3), ("1", 1.0)])
def test_numbers_may_be_written_as_people_write_them(text: str, value: float) -> None:
    """A rate in a settings file may be written 1e-3 (which YAML 1.1 takes for text) as well as 0.001."""
    config = TrainingConfig.from_yaml(f"learning_rate: {text}")
    assert config.learning_rate == value
    assert type(config.learning_rate) is float


def test_numbers_of_numpy_are_numbers() -> None:
    """A float out of an array is stored as a plain float: it can be written as YAML and read in a model file."""
    config = TrainingConfig(learning_rate=np.float64(0.5), sigma_max=np.float64(5))
    assert TrainingConfig.from_yaml(config.to_yaml()) == config
    assert type(config.to_mapping()["learning_rate"]) is float


@pytest.mark.parametrize(("kind", "name", "value"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_by_name(kind: Any, name: str, value: Any) -> None:
    """Each limit is checked when the settings are made, and the message names the setting and the value."""
    with pytest.raises(ValueError, match=rf"{name}\b.*{re.escape(str(value))}"):
        kind(**{name: value})


@pytest.mark.parametrize(("kind", "name", "value"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_in_yaml(kind: Any, name: str, value: Any) -> None:
    """What a file says is checked as what a caller says."""
    with pytest.raises(ValueError, match=name):
        kind.from_yaml(f"{name}: {value}")


@pytest.mark.parametrize(("kind", "name"), BY_NAME)
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, True, None, "abc", "nan", [1], {}, pytest.param(10**400, id="huge"), 1j]
)
def test_a_value_that_makes_no_sense_is_refused_by_name(kind: Any, name: str, value: Any) -> None:
    """NaN, infinity, a wrong type or an absurd number: each is a ValueError that names the setting.

    Exceptions: names of parts are looked up later, so any text will do; counts without a limit are unlimited; True is
    a value of a switch, and None one of a setting that is open.
    """
    valid = SETTINGS[kind][name][0]
    if isinstance(valid, str) and isinstance(value, str):
        return
    if isinstance(valid, bool) and value is True:
        return
    if value is None and getattr(kind(), name) is None:
        return
    if value == 10**400 and name in ("epochs", "epoch_steps", "reference_points", "ema_warmup"):
        return
    with pytest.raises(ValueError, match=name):
        kind(**{name: value})


@pytest.mark.parametrize("kind", [TrainingConfig, InferenceConfig])
@pytest.mark.parametrize(("low", "high"), [(10.0, 10.0), (11.0, 10.0), (0.01, 0.001)])
def test_levels_in_the_wrong_order_are_refused(kind: Any, low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"sigma_min must lie below sigma_max, got .*; swap them\?"):
        kind(sigma_min=low, sigma_max=high)


def test_limits_themselves_are_in_range() -> None:
    """The ends of closed ranges are allowed."""
    TrainingConfig(batch_size=2**24, noise_draws=4096, learning_rate=10, weight_decay=0, ema_decay=0, ema_warmup=1)
    InferenceConfig(num_steps=100_000)
    InferenceConfig(num_steps=1)


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_integer_where_a_float_belongs_becomes_one(kind: Any) -> None:
    """`sigma_max=80` is the same setting as `sigma_max=80.0`, also when compared and written."""
    assert kind(sigma_max=80) == kind(sigma_max=80.0)
    assert kind(sigma_max=80).to_yaml() == kind(sigma_max=80.0).to_yaml()


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize(
    ("unknown", "suggestion"), [("sigma_mx", "sigma_max"), ("sigmamin", "sigma_min"), ("zzzzzz", None), (3, None)]
)
def test_an_unknown_setting_is_refused_with_a_suggestion(kind: Any, unknown: Any, suggestion: str | None) -> None:
    """A misspelt setting is never ignored; the nearest known name is offered, and all are listed."""
    with pytest.raises(ValueError, match=f"{kind.__name__} {unknown!r}") as caught:
        kind.from_mapping({unknown: 1.0})
    message = str(caught.value)
    assert (f"did you mean {suggestion!r}?" in message) == (suggestion is not None)
    assert all(field.name in message for field in dataclasses.fields(kind))
    with pytest.raises(ValueError, match=f"{kind.__name__} {unknown!r}"):
        kind.from_yaml(f"{unknown}: 1.0")


@pytest.mark.parametrize(
    "text", ["", "5", "- 1\n- 2", "epochs: [", "a: b: c", "\t", "!!python/object/apply:os.getcwd []"]
)
@pytest.mark.parametrize("kind", CONFIGS)
def test_what_is_no_yaml_mapping_is_refused(kind: Any, text: str) -> None:
    """Broken YAML, other values, and tags that would run code are refused in one sentence."""
    with pytest.raises(ValueError, match="YAML") as caught:
        kind.from_yaml(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", CONFIGS)
def test_yaml_runs_no_code(kind: Any, tmp_path: Path) -> None:
    """A tag that asks for a call is refused, and nothing is called."""
    canary = tmp_path / "canary"
    with pytest.raises(ValueError, match="YAML"):
        kind.from_yaml(f"sigma_max: !!python/object/apply:os.mkdir ['{canary.as_posix()}']")
    assert not canary.exists()


@pytest.mark.parametrize("kind", CONFIGS)
def test_settings_are_frozen(kind: Any) -> None:
    """Settings cannot change under a run, and are compared by value."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind().sigma_max = 3.0
    assert kind() == kind()
    assert kind(sigma_max=3.0) != kind()
    assert hash(kind()) == hash(kind())


@pytest.mark.parametrize("kind", CONFIGS)
def test_settings_are_given_by_name(kind: Any) -> None:
    """No setting is positional: what a number means is always read beside it."""
    with pytest.raises(TypeError):
        kind(5)


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_setting_is_explained(kind: type) -> None:
    """The docstring explains each setting under its name."""
    assert kind.__doc__ is not None
    for field in dataclasses.fields(kind):
        assert f"        {field.name}: " in kind.__doc__


def test_an_unknown_name_without_a_near_one_lists_the_known_ones() -> None:
    """Where nothing is near, nothing is guessed."""
    assert str(unknown_name("thing", "qqq", ["b", "a"])) == "unknown thing 'qqq' (known: a, b)"
    assert str(unknown_name("thing", "ab", ["abc", "x"])) == "unknown thing 'ab'; did you mean 'abc'? (known: abc, x)"


def test_named_parts_of_the_defaults_exist() -> None:
    """The defaults name parts that are registered."""
    assert TrainingConfig().noise_sampler in ptd.NOISE_SAMPLERS
    assert TrainingConfig().loss in ptd.LOSSES
    assert TrainingConfig().weighting in ptd.WEIGHTINGS
    assert InferenceConfig().solver in ptd.SOLVERS
    assert InferenceConfig().schedule in ptd.SCHEDULES


# ----------------------------------------------------------------------------------------------------------- the import


@pytest.mark.parametrize("statement", ["import pointdiffusion", "from pointdiffusion.config import TrainingConfig"])
def test_importing_is_light(statement: str) -> None:
    """Neither the package nor its settings load torch, Lightning or any other heavy dependency."""
    heavy = ["torch", "lightning", "numpy", "scipy", "sklearn", "pandas", "matplotlib", "PIL", "yaml", "rich", "ot"]
    program = f"{statement}; import sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ptd.__all__)
def test_every_public_name_resolves(name: str) -> None:
    """Each name in `__all__` can be imported from the package, and is listed by `dir`."""
    assert getattr(ptd, name) is not None
    assert name in dir(ptd)


def test_public_names_are_unique_and_others_are_refused() -> None:
    """No name is listed twice; an unknown one is an AttributeError, as of any module."""
    assert len(ptd.__all__) == len(set(ptd.__all__))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ptd.no_such_name


def test_type_checkers_read_the_same_names() -> None:
    """The stub beside the package names what the package loads, from the same modules, and what it has renamed."""
    stub = Path(ptd.__file__).with_suffix(".pyi")
    declared = {
        alias.asname or alias.name: node.module
        for node in ast.walk(ast.parse(stub.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(declared) - {"annotations"} == set(ptd.__all__)
    renamed = {
        ast.unparse(node.targets[0]): ast.unparse(node.value)
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.Assign)
    }
    assert renamed == ptd._RENAMED
    for name in set(ptd.__all__) - {"__version__"}:
        module = __import__(str(declared[name]), fromlist=[name])
        assert getattr(module, name) is getattr(ptd, name)
