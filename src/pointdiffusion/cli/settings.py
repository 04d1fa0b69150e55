"""`config.yaml`: all that a run depends on, so that `train --config` repeats it.

What is chosen from a table is written with its outcome: numbers, not the rule that found them. A file may also hold a
part of it, as in `fit: {base: mixture}`; the rest is then chosen as ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pointdiffusion.config import InferenceConfig, TableConfig, TrainingConfig, unknown_name
from pointdiffusion.version import __version__, is_newer

MISSING = ("refuse", "drop", "mask")
"""What is done with missing values: nothing can be, rows are left out, or a network is trained that fills gaps."""

LARGEST = 2**20
"""No file of settings is larger, in bytes."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """All that a run depends on.

    Args:
        table: Path of the table; "-" for standard input.
        sha256: Hash of what was read from it, see `tables.content_hash`.
        columns: Columns to learn; None for all.
        label: Column of classes.
        missing: One of `MISSING`.
        seed: Seed of the split, of initialisation and of training.
        validation: Share of rows kept from training.
        fit: Settings of `fit_table` by name, which chooses by folds those that are not there.
        training: In place of that, settings of the training of one network by name; those that are not there are
            taken from the size of the table.
        inference: Settings of sampling of that one network by name.
    """

    table: str | None = None
    sha256: str | None = None
    columns: list[str] | None = None
    label: str | None = None
    missing: str = "refuse"
    seed: int = 0
    validation: float = 0.2
    fit: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    inference: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kinds, wanted in _KINDS:
            value = getattr(self, name)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise ValueError(f"{name} must be {wanted}, got {value!r}")
        if self.columns is not None and not all(isinstance(column, str) for column in self.columns):
            raise ValueError(f"columns must be a list of names, got {self.columns!r}")
        if self.missing not in MISSING:
            raise unknown_name("way with missing values", self.missing, MISSING)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie in 0..{2**32 - 1}, got {self.seed}")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation must be a share in [0, 1), got {self.validation}")
        if self.fit and (self.training or self.inference):
            raise ValueError(
                "fit chooses networks by folds, training and inference are for one network: give one of them"
            )
        TableConfig.from_mapping(self.fit)
        TrainingConfig.from_mapping(self.training)
        InferenceConfig.from_mapping(self.inference)

    def to_yaml(self) -> str:
        """Return the settings as YAML."""
        import yaml

        return str(yaml.safe_dump({"pointdiffusion": __version__, **vars(self)}, sort_keys=False, allow_unicode=True))

    def check_same(self, given: dict[str, Any]) -> None:
        """Raise a ValueError that names what was given otherwise than an unfinished run has it.

        The table may lie elsewhere: that its rows are the same is seen once it is read.

        Args:
            given: Settings by name.
        """
        differing = [name for name in given if name != "table" and given[name] != getattr(self, name)]
        if differing:
            changes = ", ".join(
                f"{name} {_shown(getattr(self, name))} (now {_shown(given[name])})" for name in differing
            )
            raise ValueError(
                f"--resume goes on with the settings of the unfinished run, which has {changes}; leave that out, "
                "or start the run afresh with --force"
            )

    @classmethod
    def from_yaml(cls, path: Path) -> RunSettings:
        """Read settings from a file.

        Raises:
            ValueError: If there is none, it is no YAML mapping, or a name or a value in it is none of ours.
        """
        import yaml

        try:
            if path.stat().st_size > LARGEST or not path.is_file():
                raise ValueError(f"{path} is no file of settings")
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ValueError(f"there is no file {path}; a run has its settings in {CONFIG_HINT}") from error
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(found, dict):
            raise ValueError(f"{path} must be a YAML mapping of names to values")
        version = str(found.pop("pointdiffusion", ""))
        known = [each.name for each in fields(cls)]
        for name in found:
            if name not in known:
                raise _newer(path, version) or unknown_name(f"setting in {path}", name, known)
        try:
            return cls(**found)
        except ValueError as error:
            raise _newer(path, version) or ValueError(f"{path}: {error}") from error


def _newer(path: Path, version: str) -> ValueError | None:
    """Return the error of a file that a later version wrote, which may hold settings that this one cannot know."""
    if not is_newer(version):
        return None
    return ValueError(
        f"{path} was written by a newer version, pointdiffusion {version[:40]}, and this is {__version__}: update "
        "pointdiffusion to read it"
    )


def _shown(value: Any) -> str:
    """Return a setting as one would say it."""
    return ",".join(value) if isinstance(value, list) else "none" if value is None else str(value)


CONFIG_HINT = "its config.yaml"
NOTHING = type(None)
_KINDS: tuple[tuple[str, tuple[type, ...], str], ...] = (
    ("table", (str, NOTHING), "a path"),
    ("sha256", (str, NOTHING), "a text"),
    ("columns", (list, NOTHING), "a list of names"),
    ("label", (str, NOTHING), "the name of a column"),
    ("missing", (str,), "a text"),
    ("seed", (int,), "a whole number"),
    ("validation", (int, float), "a number"),
    ("fit", (dict,), "a mapping"),
    ("training", (dict,), "a mapping"),
    ("inference", (dict,), "a mapping"),
)
