"""What a person may ask of the server: settings of training with their ranges, and how much of everything."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from pointdiffusion.config import TrainingConfig, epochs_of, unknown_name
from pointdiffusion.training.losses import LOSSES, WEIGHTINGS
from pointdiffusion.training.noise_levels import NOISE_SAMPLERS

LIMITS: dict[str, int] = {
    "upload_bytes": 20 * 2**20, "unpacked_bytes": 100 * 2**20, "uploads_bytes": 320 * 2**20,
    "message_bytes": 20 * 2**20, "command_bytes": 2**16, "rows": 200_000, "columns": 64, "preview_rows": 5000,
    "live_points": 5000, "walk_levels": 1001, "walk_numbers": 5_000_000,
    "sessions": 8, "connections": 32, "messages_a_second": 30,
}  # fmt: skip
"""Sizes and numbers that are refused beyond, each with a sentence.

`upload_bytes` is the size of one upload, `unpacked_bytes` what it may unpack to, `uploads_bytes` the size of all that
are received or read at one time. A message is at most `command_bytes` long unless it brings points.
"""

SIGMA_RANGE = (1e-6, 1e6)
"""Noise levels above 0 of a walk, in standard units: beyond them single precision has no digits left."""

NETWORK = {
    "steps": "Steps of training; the learning rate falls to 0 over all of them.",
    "hidden_dim": "Width of the network.",
    "num_layers": "Residual blocks of the network.",
}
_OWN = {"steps": 2000, "hidden_dim": 128, "num_layers": 2, "sigma_min": 0.01, "sigma_max": 10.0}

_RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, 100_000), "batch_size": (8, 4096), "learning_rate": (1e-6, 0.1), "hidden_dim": (8, 512),
    "num_layers": (0, 8), "ema_decay": (0, 0.99999), "noise_draws": (1, 16), "weight_decay": (0, 1),
    "gamma": (0.1, 100), "reference_points": (0, 4096), "tail_share": (0, 1), "condition_dropout": (0, 1),
    "ema_warmup": (1, 10_000), "sigma_min": (1e-4, 1), "sigma_max": (1, 1000),
}  # fmt: skip
_CHOICES: dict[str, list[str]] = {
    "noise_sampler": list(NOISE_SAMPLERS), "loss": list(LOSSES), "weighting": list(WEIGHTINGS),
}  # fmt: skip
_MAIN = (
    "steps", "noise_sampler", "weighting", "hidden_dim", "num_layers", "learning_rate", "batch_size", "ema_decay",
)  # fmt: skip
_FOLDED = (
    "loss", "noise_draws", "weight_decay", "gamma", "reference_points", "tail_share", "condition_dropout", "ema_warmup",
)  # fmt: skip
_LOGARITHMIC = ("steps", "hidden_dim", "learning_rate", "batch_size", "gamma")


def training_settings() -> dict[str, dict[str, Any]]:
    """Return the settings of training that the page shows, in their order: kind, default, range or choices, help."""
    helps, defaults = _helps(), TrainingConfig().to_mapping() | _OWN
    found = {}
    for name in (*_MAIN, *_FOLDED):
        entry: dict[str, Any] = {"value": defaults[name], "help": helps.get(name, "")}
        if name in _CHOICES:
            entry |= {"kind": "choice", "choices": _CHOICES[name]}
        else:
            low, high = _RANGES[name]
            entry |= {"kind": "whole" if isinstance(defaults[name], int) else "number", "low": low, "high": high}
        if name in _LOGARITHMIC:
            entry["log"] = True
        if name in _MAIN:
            entry["main"] = True
        found[name] = entry
    return found


def _helps() -> dict[str, str]:
    """Return the sentences that the settings are documented with, up to the first full stop."""
    text = TrainingConfig.__doc__ or ""
    entries = re.findall(r"^ {8}(\w+): (.*?)(?=^ {8}\w|^\s*$)", text, flags=re.MULTILINE | re.DOTALL)
    words = {name: " ".join(words.split()).replace("`", "") for name, words in entries}
    return {name: words.split(";")[0].rstrip(".") + "." for name, words in words.items()} | NETWORK


@dataclasses.dataclass(frozen=True)
class Training:
    """What is trained: settings of training, and the size of the network."""

    config: TrainingConfig
    hidden_dim: int
    num_layers: int

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.config.epochs * self.config.epoch_steps


def checked_training(settings: Mapping[str, Any]) -> Training:
    """Return the settings of a training, defaults filled in.

    Raises:
        ValueError: If a name is unknown, a value has the wrong type or is out of range.
    """
    defaults = TrainingConfig().to_mapping() | _OWN
    known = [*_MAIN, *_FOLDED, "sigma_min", "sigma_max"]
    chosen = {name: defaults[name] for name in known}
    for name, value in settings.items():
        if name not in known:
            raise unknown_name("setting of training", name, known)
        chosen[name] = _checked(name, value, isinstance(defaults[name], int))
    steps, hidden_dim, num_layers = (chosen.pop(name) for name in NETWORK)
    epochs, epoch_steps = epochs_of(steps)
    config = TrainingConfig(epochs=epochs, epoch_steps=epoch_steps, **chosen)
    return Training(config, hidden_dim, num_layers)


def is_number(value: Any) -> bool:
    """Return whether a value that came as JSON is a finite number of a size that means something."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300


def _checked(name: str, value: Any, whole: bool) -> Any:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise unknown_name(name, str(value)[:60], _CHOICES[name])
        return value
    low, high = _RANGES[name]
    if not is_number(value) or not low <= value <= high or (whole and value != int(value)):
        raise ValueError(f"{name} must be a {'whole ' if whole else ''}number from {low:g} to {high:g}")
    return int(value) if whole else float(value)
