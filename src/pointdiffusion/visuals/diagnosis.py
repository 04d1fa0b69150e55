"""Figures of a diagnosis and of a noise range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pointdiffusion.visuals.plotting import GENERATED_COLOUR, TRAINING_COLOUR


def plot_parts(ax: Any, parts: Mapping[str, tuple[float, float]]) -> Any:
    """Draw the parts of a distance as bars with one standard error, the first on top, and return the axes."""
    values, errors = np.array(list(parts.values())).T
    places = np.arange(len(parts))[::-1]
    colours = ["0.35"] + [TRAINING_COLOUR] * (len(parts) - 1)
    ax.barh(places, values, xerr=errors, color=colours, height=0.65, error_kw={"ecolor": "0.1", "capsize": 2.5})
    ax.set_yticks(places, list(parts))
    ax.axvline(0, color="0.2", linewidth=0.8)
    ax.set(xlabel="squared energy distance", title="where the distance comes from")
    ax.locator_params(axis="x", nbins=4)
    return _tidy(ax, "x")


def plot_losses(ax: Any, profile: Any, *, known: bool) -> Any:
    """Draw the excess loss on seen and on fresh rows, as it moves points, by noise level, and return the axes."""
    weight = 1 / (1 + profile.sigmas**2)
    for curve, colour, label in (
        (profile.train_excess, TRAINING_COLOUR, "rows that it has seen"),
        (profile.fresh_excess, GENERATED_COLOUR, "fresh rows"),
    ):
        mean, error = weight * curve.mean, weight * curve.error
        ax.plot(profile.sigmas, mean, "o-", color=colour, markersize=3, label=label)
        ax.fill_between(profile.sigmas, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
    ax.axhline(0, color="0.2", linewidth=0.8)
    optimum = "a perfect network" if known else "a kernel density"
    ax.set(xscale="log", xlabel="noise level", ylabel=f"excess loss over {optimum}", title="how good the network is")
    ax.legend(frameon=False, fontsize="small")
    return _tidy(ax, "y")


def plot_distances(ax: Any, profile: Any, *, known: bool) -> Any:
    """Draw the rms distance to both optima on training rows, by noise level, and return the axes."""
    for curve, colour, label in (
        (profile.to_population, TRAINING_COLOUR, "to a perfect one" if known else "to a kernel density"),
        (profile.to_memory, GENERATED_COLOUR, "to one that only memorises"),
    ):
        distance = np.sqrt(np.maximum(curve.mean, 0))
        shown = distance > 0
        ax.plot(profile.sigmas[shown], distance[shown], "o-", color=colour, markersize=3, label=label)
    ax.set(xscale="log", yscale="log", xlabel="noise level", ylabel="rms distance of denoised points")
    ax.set_title("the network's distance")
    ax.legend(frameon=False, fontsize="small")
    return _tidy(ax, "both")


def plot_noise_range(ax: Any, chosen: Any) -> Any:
    """Draw the losses that a noise range was chosen from, and the range, and return the axes."""
    sigmas, loss, error = chosen.sigmas, chosen.left_out_loss, chosen.left_out_error
    ax.axvspan(chosen.sigma_min, chosen.sigma_max, color="0.9", label="chosen range")
    ax.plot(sigmas, loss, color=TRAINING_COLOUR, label="rows left out")
    ax.fill_between(sigmas, loss - error, loss + error, color=TRAINING_COLOUR, alpha=0.2, linewidth=0)
    ax.plot(sigmas, chosen.memorised_loss, color=GENERATED_COLOUR, label="rows within (memorising)")
    ax.axhline(1, color="0.2", linewidth=0.8, linestyle="--", label="straight line")
    ax.set(xscale="log", xlabel="noise level", ylabel="weighted loss of the optimum", ylim=(0, 1.6))
    ax.set_title("what can be learned at each noise level")
    ax.legend(framealpha=1, fontsize="small", loc="lower right")
    return _tidy(ax, "y")


def _tidy(ax: Any, axis: str) -> Any:
    ax.grid(color="0.92", linewidth=0.8, axis=axis)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
