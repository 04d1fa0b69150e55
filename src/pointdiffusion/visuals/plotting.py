"""Plots of point sets."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAINING_COLOUR, GENERATED_COLOUR = "#1f6fb4", "#d62728"
"""Blue and red that are distinguishable with the common kinds of colour blindness."""

TRAINING_TINT = "#a9cdea"
"""Light blue of training data behind generated points, which stand out on it in greyscale as well."""

_AZIMUTH, _ELEVATION = np.deg2rad(-70.0), np.deg2rad(12.0)


def planar(points: ArrayLike) -> NDArray[np.float64]:
    """Return points projected to the plane for a plot.

    Two dimensions stay as they are, three are projected orthographically from above at an angle, of more the first two
    are taken, and a single one is drawn along a line.

    Args:
        points: Points, shape `(N, D)`.

    Returns:
        Coordinates, shape `(N, 2)`.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.shape[1] == 1:
        return np.column_stack([points, np.zeros(len(points))])
    if points.shape[1] == 3:
        right = np.array([-np.sin(_AZIMUTH), np.cos(_AZIMUTH), 0.0])
        up = np.array(
            [
                -np.sin(_ELEVATION) * np.cos(_AZIMUTH),
                -np.sin(_ELEVATION) * np.sin(_AZIMUTH),
                np.cos(_ELEVATION),
            ]
        )
        return points @ np.stack([right, up], axis=1)
    return points[:, :2]


def square_limits(*sets: NDArray[np.float64], margin: float = 0.08) -> tuple[NDArray[np.float64], float]:
    """Return centre and half width of the square that holds all planar points, with a margin."""
    everything = np.concatenate(sets)
    low, high = everything.min(axis=0), everything.max(axis=0)
    return (low + high) / 2, float(max((high - low).max() / 2 * (1 + 2 * margin), 1e-12))


def _bounds(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Drop the farthest outliers, one in a thousand, so that they do not set the limits of the axes."""
    distance = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    return points[distance <= np.quantile(distance, 0.999)]


def plot_points(ax: Any, points: ArrayLike, *, colour: str, label: str, alpha: float = 0.55, size: float = 3.0) -> Any:
    """Draw points as dots.

    Args:
        ax: Axes of matplotlib.
        points: Points, shape `(N, D)`; see `planar` for D other than 2.
        colour: Colour of the dots.
        label: Label in the legend.
        alpha: Opacity, between 0 and 1.
        size: Size of a dot in points.

    Returns:
        The artist, a `Line2D`.

    Examples:
        >>> from matplotlib.figure import Figure
        >>> dots = plot_points(Figure().subplots(), [[0.0, 1.0], [2.0, 3.0]], colour="C0", label="data")
        >>> dots.get_xydata().tolist()
        [[0.0, 1.0], [2.0, 3.0]]
    """
    flat = planar(points)
    (dots,) = ax.plot(
        flat[:, 0], flat[:, 1], ".", color=colour, alpha=alpha, markersize=size, markeredgewidth=0, label=label
    )
    return dots


def plot_behind(ax: Any, training: ArrayLike, *, size: float = 3.0) -> Any:
    """Draw training data as wide, light dots behind generated points.

    Args:
        ax: Axes of matplotlib.
        training: Points, shape `(N, D)`.
        size: Size of a dot in points, to which 5 is added.

    Returns:
        The artist, a `Line2D`.
    """
    return plot_points(ax, training, colour=TRAINING_TINT, label="training data", alpha=1.0, size=size + 5)


def plot_comparison(
    training: ArrayLike, generated: ArrayLike, *, columns: list[str] | None = None, title: str = ""
) -> Figure:
    """Draw training data (blue), generated points (red) and both, with equal axes and the same limits.

    In the third panel training data are wide and light and the generated points small and dark on them, so that both
    are visible where they overlap.

    Args:
        training: Points, shape `(N, D)`.
        generated: Points, shape `(M, D)`.
        columns: Names of the axes, in two dimensions.
        title: Title above the panels.

    Returns:
        A figure that is attached to no window, with three axes.

    Raises:
        ValueError: If the dimensions differ.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> figure = plot_comparison(rng.normal(size=(100, 2)), rng.normal(size=(50, 2)))
        >>> [ax.get_title() for ax in figure.axes]
        ['training data (100)', 'generated (50)', 'both']
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    training, generated = np.asarray(training), np.asarray(generated)
    if training.shape[1] != generated.shape[1]:
        raise ValueError(f"training data have {training.shape[1]} columns, generated points {generated.shape[1]}")
    figure = Figure(figsize=(15, 5.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    centre, half = square_limits(_bounds(planar(training)), _bounds(planar(generated)))
    titles = [f"training data ({len(training)})", f"generated ({len(generated)})", "both"]
    axes = figure.subplots(1, 3)
    # The fewer points, the larger the dots, within what still shows the shape.
    sizes = [float(np.clip(180 / np.sqrt(len(points)), 1.5, 7.0)) for points in (training, generated)]
    plot_points(axes[0], training, colour=TRAINING_COLOUR, label="training data", size=sizes[0])
    plot_points(axes[1], generated, colour=GENERATED_COLOUR, label="generated", size=sizes[1], alpha=0.7)
    plot_behind(axes[2], training, size=sizes[0])
    plot_points(axes[2], generated, colour=GENERATED_COLOUR, label="generated", size=0.5 * sizes[1] + 1.2, alpha=0.9)
    for ax, title_of_panel in zip(axes, titles, strict=True):
        ax.set(
            xlim=centre[0] + half * np.array([-1, 1]), ylim=centre[1] + half * np.array([-1, 1]), title=title_of_panel
        )
        ax.set_aspect("equal")
        ax.grid(color="0.92", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        if training.shape[1] == 2:
            names = columns or ["x", "y"]
            ax.set(xlabel=names[0], ylabel=names[1])
        elif training.shape[1] == 3:
            ax.set(xticklabels=[], yticklabels=[])
    axes[2].legend(loc="upper right", markerscale=1.5, frameon=True, framealpha=0.85)
    if title:
        figure.suptitle(title)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as PNG, the same bytes for the same figure.

    Args:
        figure: A figure of matplotlib.

    Returns:
        The file's content.

    Examples:
        >>> from matplotlib.figure import Figure
        >>> png_bytes(Figure())[1:4]
        b'PNG'
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
