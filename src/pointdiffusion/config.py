"""Settings of training and inference: frozen, checked when made, YAML in and out.

Noise levels are in units of the data's standard deviation, since points are standardised column by column before
anything else sees them. Names of registered parts are checked where the part is looked up, so this module needs no
torch and a command line can show its defaults at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import numbers
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

_LONGEST_NAME = 60
"""Length up to which an unknown name is repeated in full in a message and compared with the known ones."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """Return the error for a name that is not registered, with the nearest of the known ones.

    Args:
        kind: What is named, such as "solver".
        name: The unknown name.
        known: The registered names.

    Returns:
        The error, to be raised by the caller.

    Examples:
        >>> print(unknown_name("solver", "huen", ["euler", "heun"]))
        unknown solver 'huen'; did you mean 'heun'? (known: euler, heun)
    """
    names = sorted(known)
    long = isinstance(name, str) and len(name) > _LONGEST_NAME
    if long:
        name = f"{str(name)[:_LONGEST_NAME]}..."
    close = [] if long else difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return ValueError(f"unknown {kind} {name!r}{hint} (known: {', '.join(names)})")


class QualityWarning(UserWarning):
    """A result is less reliable than it looks: a network ignores its labels, a density is not settled.

    Commands print it to standard error; `warnings.filterwarnings` turns it off, or into an error.
    """


class DivergedError(ValueError):
    """Training ended with a model that is worse than one that has learned nothing.

    Args:
        message: What happened, and what to change.
        model: The `DiffusionModel` that training ended with; None where its weights are not finite.
    """

    def __init__(self, message: str, model: Any = None) -> None:
        super().__init__(message)
        self.model = model


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _typed(name: str, value: Any, annotation: Any) -> Any:
    """Return `value` as the annotated type; a float may be given as an integer or as a string that spells a number."""
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if value is None and type(None) in options:
        return value
    if isinstance(value, bool):
        fits = bool in options
    elif int in options and isinstance(value, numbers.Integral):
        return int(value)
    elif float in options and isinstance(value, (numbers.Real, str)):
        fits = False
        with contextlib.suppress(ValueError, OverflowError):  # YAML reads 1e-4, without a point, as a string
            return float(value)
    else:
        fits = any(isinstance(value, kind) for kind in options)
    if fits:
        return value
    wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in options)
    raise ValueError(f"{name} must be of type {wanted}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class _Config:
    """What all settings have in common: checked types, conversion from and to dicts and YAML."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = _typed(field.name, getattr(self, field.name), hints[field.name])
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field.name} must be finite, got {value}")
            object.__setattr__(self, field.name, value)
        self._check()

    def _check(self) -> None:
        """Raise a ValueError unless the values make sense."""

    def to_mapping(self) -> dict[str, Any]:
        """Return the settings as a dict of plain values, by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Self:
        """Make the settings from a dict; unknown names are refused with a suggestion.

        Args:
            settings: Values by name; what is missing has its default.

        Returns:
            The checked settings.

        Raises:
            ValueError: For an unknown name, a wrong type or a value out of range.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in settings:
            if name not in names:
                raise unknown_name(f"setting of {cls.__name__}", name, names)
        return cls(**settings)

    def to_yaml(self) -> str:
        """Return the settings as YAML."""
        import yaml

        return str(yaml.safe_dump(self.to_mapping(), sort_keys=False))

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Make the settings from YAML.

        Args:
            text: A YAML mapping of names to values.

        Returns:
            The checked settings.

        Raises:
            ValueError: If the text is no YAML mapping, or as for `from_mapping`.
        """
        import yaml

        try:
            settings = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"the settings are not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(settings, dict):
            raise ValueError(f"the settings must be a YAML mapping of names to values, got {settings!r}")
        return cls.from_mapping(settings)


def epochs_of(steps: int) -> tuple[int, int]:
    """Divide a number of training steps into epochs of about 200, or more where no number near 200 divides it.

    Losses are logged once an epoch, which takes as long as several steps, so that very short epochs would cost more
    than the training.

    Args:
        steps: Number of training steps.

    Returns:
        Number of epochs and steps of each; their product is `steps`.

    Examples:
        >>> epochs_of(2000), epochs_of(30), epochs_of(1234), epochs_of(4001)
        ((10, 200), (1, 30), (2, 617), (1, 4001))
    """
    small = [size for size in range(1, math.isqrt(steps) + 1) if steps % size == 0]
    sizes = sorted({*small, *(steps // size for size in small)})
    epoch = max(size for size in sizes if size <= 200)
    if epoch < min(steps, 50):
        epoch = min(size for size in sizes if size > 200)
    return steps // epoch, epoch


_HIGHEST_SIGMA = 1e6
"""Highest noise level allowed: above it, single precision has no digit left for standardised points."""


def _check_range(sigma_min: float | None, sigma_max: float | None) -> None:
    for name, sigma in (("sigma_min", sigma_min), ("sigma_max", sigma_max)):
        _require(sigma is None or sigma > 0, f"{name} must be positive, got {sigma}")
        _require(sigma is None or sigma <= _HIGHEST_SIGMA, f"{name} must be at most {_HIGHEST_SIGMA:,.0f}, got {sigma}")
    ordered = sigma_min is None or sigma_max is None or sigma_min < sigma_max
    _require(ordered, f"sigma_min must lie below sigma_max, got {sigma_min} and {sigma_max}; swap them?")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(_Config):
    """Settings of training.

    Args:
        epochs: Number of epochs; an epoch is `epoch_steps` steps, on rows drawn with replacement.
        epoch_steps: Steps of an epoch; 0 for the number of batches that cover the data.
        batch_size: Rows of each step.
        noise_draws: Noise levels and noises drawn for each row of a batch.
        learning_rate: Learning rate before the network's own multiplier: AdamW gets `learning_rate * rate_multiplier`,
            20 times it for the default network and once it for a network that names none; annealed along a cosine to 0
            over the whole run. `optimizer_lr` in the logs is what AdamW gets.
        weight_decay: Decoupled weight decay of AdamW.
        noise_sampler: How noise levels are drawn, a name of `NOISE_SAMPLERS`.
        sigma_min: Lowest noise level, in standard deviations of the data; None to choose it from the points, as
            `choose_noise_range` does.
        sigma_max: Highest noise level, likewise.
        loss: Which error is squared, a name of `LOSSES`.
        weighting: Weight over noise levels, a name of `WEIGHTINGS`.
        gamma: The constant of the min-SNR weightings (Hang et al. 2023, arXiv 2303.09556).
        reference_points: Rows over which the posterior mean is taken as the target of the loss (Xu et al. 2023, arXiv
            2302.00670); 0 takes the one clean point.
        tail_share: Share of rows whose noise is widened, up to twice, where the posterior mean is the target, so that
            the network is accurate in the far tails of the noise as well.
        condition_dropout: Share of rows that are trained without their label and context, so that the model also learns
            the unconditional distribution, which guidance needs.
        mask: Share of rows that are conditioned on some of their own coordinates, each observed with a probability
            drawn for the row, so that the model can fill gaps.
        ema_decay: Limit of the decay of the averaged weights; 0 is no averaging.
        ema_warmup: Step k averages with decay `min(ema_decay, (1 + k) / (ema_warmup + k))`.

    Raises:
        ValueError: If a value has the wrong type or is out of range.

    Examples:
        >>> config = TrainingConfig(epochs=10, batch_size=256)
        >>> TrainingConfig.from_yaml(config.to_yaml()) == config
        True
    """

    epochs: int = 50
    epoch_steps: int = 0
    batch_size: int = 128
    noise_draws: int = 2
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    noise_sampler: str = "log-uniform"
    sigma_min: float | None = None
    sigma_max: float | None = None
    loss: str = "karras"
    weighting: str = "uniform"
    gamma: float = 5.0
    reference_points: int = 512
    tail_share: float = 0.1
    condition_dropout: float = 0.1
    mask: float = 0.0
    ema_decay: float = 0.999
    ema_warmup: int = 10

    def _check(self) -> None:
        _require(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        _require(self.epoch_steps >= 0, f"epoch_steps must not be negative, got {self.epoch_steps}")
        _require(1 <= self.batch_size <= 2**24, f"batch_size must lie in 1..{2**24}, got {self.batch_size}")
        _require(1 <= self.noise_draws <= 4096, f"noise_draws must lie in 1..4096, got {self.noise_draws}")
        _require(0 < self.learning_rate <= 10, f"learning_rate must lie above 0, up to 10, got {self.learning_rate}")
        _require(self.weight_decay >= 0, f"weight_decay must not be negative, got {self.weight_decay}")
        _check_range(self.sigma_min, self.sigma_max)
        _require(self.gamma > 0, f"gamma must be positive, got {self.gamma}")
        _require(self.reference_points >= 0, f"reference_points must not be negative, got {self.reference_points}")
        _require(0 <= self.tail_share <= 1, f"tail_share must lie in [0, 1], got {self.tail_share}")
        _require(
            0 <= self.condition_dropout <= 1, f"condition_dropout must lie in [0, 1], got {self.condition_dropout}"
        )
        _require(0 <= self.mask <= 1, f"mask must lie in [0, 1], got {self.mask}")
        _require(0 <= self.ema_decay < 1, f"ema_decay must lie in [0, 1), got {self.ema_decay}")
        _require(self.ema_warmup >= 1, f"ema_warmup must be at least 1, got {self.ema_warmup}")


@dataclass(frozen=True, kw_only=True)
class InferenceConfig(_Config):
    """Settings of sampling.

    Args:
        solver: How the flow is integrated, a name of `SOLVERS`.
        num_steps: Number of steps, the intervals of the grid of noise levels.
        schedule: How noise levels are spaced, a name of `SCHEDULES`.
        sigma_min: Lowest noise level above 0, in standard deviations of the data.
        sigma_max: Noise level at which sampling starts, in standard deviations of the data.
        rho: Curvature of the grid `karras`.
        final_zero: Whether a final denoising step removes the noise that remains at `sigma_min`. Without it samples
            follow the density of `log_prob`, that of the data at the bandwidth `sigma_min`.

    Raises:
        ValueError: If a value has the wrong type or is out of range.

    Examples:
        >>> InferenceConfig(solver="heun", num_steps=20).to_mapping()["num_steps"]
        20
    """

    solver: str = "euler"
    num_steps: int = 50
    schedule: str = "karras"
    sigma_min: float = 0.01
    sigma_max: float = 10.0
    rho: float = 7.0
    final_zero: bool = True

    def _check(self) -> None:
        _require(1 <= self.num_steps <= 100_000, f"num_steps must lie in 1..100000, got {self.num_steps}")
        _check_range(self.sigma_min, self.sigma_max)
        _require(0.1 <= self.rho <= 100, f"rho must lie in 0.1..100, got {self.rho}")


BASES = ("auto", "isotropic", "gaussian", "mixture")
"""Bases of the denoiser of a table; `KarrasDenoiser` describes what a base is."""


@dataclass(frozen=True, kw_only=True)
class TableConfig(_Config):
    """Settings of `fit_table`; what is None or "auto" is chosen from the table, and set in the settings it returns.

    Args:
        base: One of `BASES`: the exact denoiser on the skip path.
        num_members: Number of networks, whose average the model is. Each is trained without one fold of the rows, on
            which choices are made; with 0 one network is trained on all rows, and nothing is chosen on held-out rows.
        num_steps: Training steps of each network, over which the learning rate is annealed.
        sigma_min: Bandwidth of the density, in standard deviations of the data.
        noise_min: Lowest noise level of training, in standard deviations of the data.
        sigma_max: Highest noise level, in standard deviations of the data.
        hidden_dim: Width of a network.
        num_layers: Number of residual blocks of a network.
        batch_size: Rows of each step.
        noise_draws: Noise levels and noises drawn for each row of a batch.
        learning_rate: Learning rate before the network's `rate_multiplier` of 20, as in `TrainingConfig`.
        companion: Whether the density is stacked with a Gaussian mixture and a broad Student t.
        mask: Share of rows that are conditioned on some of their own coordinates, as in `TrainingConfig`; there is then
            neither a stacked density nor a base.

    Raises:
        ValueError: If a value has the wrong type or is out of range.
    """

    base: str = "auto"
    num_members: int | None = None
    num_steps: int | None = None
    sigma_min: float | None = None
    noise_min: float | None = None
    sigma_max: float = 10.0
    hidden_dim: int | None = None
    num_layers: int = 2
    batch_size: int | None = None
    noise_draws: int = 2
    learning_rate: float = 1e-4
    companion: bool = True
    mask: float = 0.0

    def _check(self) -> None:
        if self.base not in BASES:
            raise unknown_name("base", self.base, BASES)
        members, steps, width = self.num_members, self.num_steps, self.hidden_dim
        _require(members is None or 0 <= members <= 50, f"num_members must lie in 0..50, got {members}")
        _require(steps is None or 1 <= steps <= 10**7, f"num_steps must lie in 1..10000000, got {steps}")
        _require(width is None or 1 <= width <= 4096, f"hidden_dim must lie in 1..4096, got {width}")
        _require(1 <= self.num_layers <= 64, f"num_layers must lie in 1..64, got {self.num_layers}")
        for name in ("sigma_min", "noise_min"):
            level = getattr(self, name)
            _require(
                level is None or 0 < level < self.sigma_max, f"{name} must lie above 0 and below sigma_max, got {level}"
            )
        _require(self.sigma_max >= 2, f"sigma_max must be at least 2 standard deviations, got {self.sigma_max}")
        TrainingConfig(
            batch_size=128 if self.batch_size is None else self.batch_size, noise_draws=self.noise_draws,
            learning_rate=self.learning_rate, mask=self.mask,
        )  # fmt: skip
