"""Plots of a report: samples beside data, losses by epoch, log-densities, distances to training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pointdiffusion.reporting.svg import DATA_COLOUR, SAMPLES_COLOUR
from pointdiffusion.runtime.arrays import Array

ABOVE: dict[str, Any] = {
    "frameon": False, "fontsize": "small", "loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 2,
    "borderaxespad": 0, "columnspacing": 1.2, "handlelength": 1.4,
}  # fmt: skip
"""A legend above the axes, which covers no data."""


def short(name: str, length: int = 22) -> str:
    """Return a name that fits beside an axis."""
    return name if len(name) <= length else name[: length - 1] + "…"


def limits_of(values: Array) -> tuple[float, float]:
    """Return the range of all values but the farthest outliers, one in five hundred on each side, with a margin."""
    low, high = np.quantile(values, [0.002, 0.998])
    margin = 0.06 * (high - low) or max(abs(float(low)), 1.0) * 1e-3
    return float(low - margin), float(high + margin)


def plot_pair(
    ax: Any, points: Array, limits: Sequence[tuple[float, float]], *, colour: str, title: str,
    names: tuple[str, str],
) -> Any:  # fmt: skip
    """Draw two columns as rasterised dots within limits, and return the axes.

    Args:
        ax: Axes of matplotlib.
        points: Two columns, shape `(N, 2)`.
        limits: Limits of both axes.
        colour: Colour of the dots.
        title: Title of the axes.
        names: Names of the columns.
    """
    size = float(np.clip(90 / np.sqrt(max(len(points), 1)), 1.6, 5.0))
    alpha = 0.8 if len(points) < 500 else 0.6
    ax.plot(*points.T, ".", color=colour, alpha=alpha, markersize=size, markeredgewidth=0, rasterized=True)
    ax.set(xlim=limits[0], ylim=limits[1], title=title)
    ax.set_box_aspect(1)
    ax.locator_params(nbins=4)
    ax.set(xlabel=short(names[0]), ylabel=short(names[1]))
    return _plain(ax)


def plot_marginal(ax: Any, sets: Mapping[str, tuple[Array, str]], name: str) -> Any:
    """Draw histograms of one column, the first filled and the others as lines, and return the axes."""
    first, _ = next(iter(sets.values()))
    low, high = limits_of(first)
    width = int(np.clip(2 * np.cbrt(len(first)), 8, 40))
    integers = bool(np.all(first == np.round(first)))
    if integers and high - low <= 40:
        edges = np.arange(np.floor(low) - 0.5, np.ceil(high) + 1)
    else:
        edges = np.linspace(low, high, width + 1)
    for index, (label, (values, colour)) in enumerate(sets.items()):
        heights = np.histogram(values, edges)[0] / max(len(values), 1) / np.diff(edges)
        ax.stairs(heights, edges, fill=index == 0, color=colour, alpha=0.35 if index == 0 else 1.0, label=label)
    ax.set(xlabel=short(name, 40), yticks=[])
    ax.locator_params(axis="x", nbins=5)
    ax.legend(**ABOVE)
    _plain(ax)
    ax.spines["left"].set_visible(False)
    return ax


def plot_log(ax: Any, log: Mapping[str, tuple[Array, Array]]) -> Any:
    """Draw losses by epoch, those of optimal denoisers as horizontal lines, and return the axes."""
    looks = {
        "train_loss": ("training rows", DATA_COLOUR, "-"), "val_loss": ("validation rows", SAMPLES_COLOUR, "-"),
        "optimal_train_loss": ("a network that memorises", DATA_COLOUR, ":"),
        "optimal_val_loss": ("the optimal denoiser", SAMPLES_COLOUR, ":"),
    }  # fmt: skip
    for name, (epochs, values) in log.items():
        label, colour, line = looks.get(name, (name.replace("_", " "), "0.5", "-"))
        ax.plot(epochs + 1, values, line, color=colour, linewidth=1.3, label=label)
    ax.set(xlabel="epoch", ylabel="loss")
    ax.locator_params(axis="x", integer=True)
    ax.grid(color="0.92", linewidth=0.6, axis="y")
    ax.legend(**ABOVE)
    return _plain(ax)


def plot_distribution(ax: Any, sets: Mapping[str, tuple[Array, str]], *, label: str, log: bool = False) -> Any:
    """Draw histograms of values over the range of most of them, and return the axes."""
    pooled = np.concatenate([values for values, _ in sets.values()])
    pooled = pooled[pooled > 0] if log else pooled
    if not len(pooled):
        pooled = np.ones(1)
    low, high = np.quantile(pooled, [0.005, 0.995])
    edges = np.geomspace(low, high * 1.001, 41) if log else np.linspace(low, high + 1e-9 * (abs(high) + 1), 41)
    for index, (name, (values, colour)) in enumerate(sets.items()):
        heights = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / max(len(values), 1)
        ax.stairs(heights, edges, fill=index == 0, color=colour, alpha=0.35 if index == 0 else 1.0, label=name)
    ax.set(xlabel=label, ylabel="share of rows")
    if log:
        ax.set_xscale("log")
    ax.legend(**ABOVE)
    return _plain(ax)


def _plain(ax: Any) -> Any:
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
