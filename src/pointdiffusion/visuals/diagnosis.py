"""Plots of a diagnosis and of a noise range.

Each panel has a sentence above it that states what it shows. Sets differ in colour, marker and line style, so that they
are distinguishable without colour, and bars and bands are two standard errors.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from pointdiffusion.visuals.plotting import GENERATED_COLOUR, TRAINING_COLOUR

_FIRST: dict[str, Any] = {"color": TRAINING_COLOUR, "linestyle": "-", "marker": "o", "markersize": 4}
_SECOND: dict[str, Any] = {"color": GENERATED_COLOUR, "linestyle": "--", "marker": "s", "markersize": 4}


def plot_parts(
    ax: Any, parts: Mapping[str, tuple[float, float]], meanings: Mapping[str, str] | None = None, *,
    title: str = "where the distance comes from",
) -> Any:  # fmt: skip
    """Draw the parts of a distance as points with two standard errors, the first on top.

    The estimate is unbiased, so a part that is zero may be on either side of 0. Filled points are more than two
    standard errors above it.

    Args:
        ax: Axes of matplotlib.
        parts: Value and standard error by name.
        meanings: A sentence for each name, written beside it.
        title: Title of the axes.

    Returns:
        The axes.
    """
    least = 0.01 * max(abs(value) for value, _ in parts.values())  # parts below it are invisible beside the largest
    rows = range(len(parts) - 1, -1, -1)
    for row, (value, error) in zip(rows, parts.values(), strict=True):
        above = value > max(2 * error, least)
        colour = GENERATED_COLOUR if above else "0.35"
        ax.errorbar(
            value, row, xerr=2 * error, fmt="o", color=colour, markersize=7, markeredgewidth=1.4, elinewidth=1.6,
            markerfacecolor=colour if above else "white", capsize=3,
        )  # fmt: skip
    ax.axvline(0, color="0.2", linewidth=1)
    ax.axhline(len(parts) - 1.5, color="0.8", linewidth=0.8)
    ax.set_yticks(list(rows), list(parts), fontweight="bold", verticalalignment="bottom" if meanings else "center")
    for row, name in zip(rows, parts if meanings else {}, strict=False):
        ax.annotate(
            textwrap.fill((meanings or {})[name], 34), (0, row), (-7, -1),
            xycoords=("axes fraction", "data"), textcoords="offset points", fontsize="small", color="0.35",
            horizontalalignment="right", verticalalignment="top",
        )  # fmt: skip
    ax.set(xlabel="excess squared energy distance", ylim=(-0.6, len(parts) - 0.4))
    ax.locator_params(axis="x", nbins=4)
    _head(
        ax, title,
        "At 0 the samples are as close as fresh data. Bars are two standard errors: a filled point is above 0 by more "
        "than that, an open one is not.",
    )  # fmt: skip
    return _tidy(ax, "x")


def plot_losses(ax: Any, profile: Any, *, exact: bool) -> Any:
    """Draw the excess loss on training rows and on fresh rows by noise level, weighted by its effect on samples.

    Args:
        ax: Axes of matplotlib.
        profile: `Diagnosis.profile`.
        exact: Whether the optimal denoiser is the population's, and not a kernel density's.

    Returns:
        The axes.
    """
    weight = 1 / (1 + profile.sigmas**2)
    for curve, look, label in (
        (profile.train_excess, _FIRST, "training rows"),
        (profile.fresh_excess, _SECOND, "fresh rows"),
    ):
        mean, error = weight * curve.mean, 2 * weight * curve.error
        ax.plot(profile.sigmas, mean, **look, label=label)
        ax.fill_between(profile.sigmas, mean - error, mean + error, color=look["color"], alpha=0.2, linewidth=0)
    ax.axhline(0, color="0.2", linewidth=1)
    optimum = "the optimal denoiser" if exact else "a kernel density"
    ax.set(xscale="log", xlabel="noise level", ylabel="excess loss")
    below = "memorises rows" if exact else "is better than that, or memorises rows"
    _head(
        ax, "what the network misses",
        f"Its loss minus that of {optimum}. Higher is worse; below 0 on its training rows it {below}.",
    )  # fmt: skip
    ax.legend(frameon=False, fontsize="small")
    return _tidy(ax, "y")


def plot_distances(ax: Any, profile: Any, *, exact: bool) -> Any:
    """Draw the rms distance to both optimal denoisers on training rows by noise level.

    Args:
        ax: Axes of matplotlib.
        profile: `Diagnosis.profile`.
        exact: Whether the optimal denoiser is the population's, and not a kernel density's.

    Returns:
        The axes.
    """
    other = "the optimal denoiser" if exact else "a kernel density"
    for curve, look, label in (
        (profile.to_population, _FIRST, f"from {other}"),
        (profile.to_memory, _SECOND, "from one that memorises"),
    ):
        distance = np.sqrt(np.maximum(curve.mean, 0))
        shown = distance > 0
        ax.plot(profile.sigmas[shown], distance[shown], **look, label=label)
    ax.set(xscale="log", yscale="log", xlabel="noise level", ylabel="rms distance of denoised points")
    _head(
        ax, "what the network resembles",
        f"Distance of its denoised training rows from those of {other}, and of one that memorises its training rows; "
        "it resembles the lower line.",
    )  # fmt: skip
    ax.legend(frameon=False, fontsize="small")
    return _tidy(ax, "both")


def plot_noise_range(ax: Any, chosen: Any) -> Any:
    """Draw the losses that a noise range was chosen by, and the range.

    Args:
        ax: Axes of matplotlib.
        chosen: A `NoiseRange`.

    Returns:
        The axes.
    """
    sigmas, loss, error = chosen.sigmas, chosen.left_out_loss, 2 * chosen.left_out_error
    ax.axvspan(chosen.sigma_min, chosen.sigma_max, color="0.9", label="chosen range")
    plain = {"marker": "", "linewidth": 1.6}
    ax.plot(sigmas, loss, **{**_FIRST, **plain}, label="row held out")
    ax.fill_between(sigmas, loss - error, loss + error, color=TRAINING_COLOUR, alpha=0.2, linewidth=0)
    ax.plot(sigmas, chosen.memorised_loss, **{**_SECOND, **plain}, label="row included (memorising)")
    ax.axhline(1, color="0.2", linewidth=0.8, linestyle=":", label="linear fit")
    ax.set(xscale="log", xlabel="noise level", ylabel="weighted loss of the optimal denoiser", ylim=(0, 1.6))
    _head(
        ax, "what can be learned at each noise level",
        "Loss of denoising a row by the other rows, and with the row itself included. Where the solid line is above "
        "the dotted one, a linear fit, only the rows themselves are left to learn.",
    )  # fmt: skip
    ax.legend(framealpha=1, fontsize="small", loc="lower right")
    return _tidy(ax, "y")


def _head(ax: Any, title: str, sentence: str) -> None:
    """Write a title and, between it and the axes, a sentence in small letters, on three lines or more."""
    inches = ax.get_figure().get_figwidth() * ax.get_position().width  # before labels take their part
    lines = textwrap.wrap(sentence, max(24, int(14.5 * inches)))
    ax.set_title(title, loc="left", fontweight="bold", pad=8 + 11.5 * max(3, len(lines)))
    ax.annotate(
        "\n".join(lines), (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize="small",
        color="0.35", verticalalignment="bottom",
    )  # fmt: skip


def _tidy(ax: Any, axis: str) -> Any:
    ax.grid(color="0.92", linewidth=0.8, axis=axis)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
