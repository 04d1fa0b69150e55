"""GIF of a trajectory, from noise to data.

Artists are made once. The axes follow the noise as it shrinks, so early frames are drawn in full; once the axes stand
still, the image of the axes and the training data is cached and only the moving points are drawn over it. All frames
share one palette, so that encoding is a table look-up.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageColor

from pointdiffusion.visuals.plotting import (
    GENERATED_COLOUR,
    TRAINING_TINT,
    planar,
    plot_behind,
    plot_points,
    square_limits,
)

FRAME_MS, FIRST_MS, LAST_MS = 70, 500, 2500
"""Duration of frames in milliseconds: most, the first, the last."""


def _axes_widths(frames: Sequence[NDArray[np.float64]], centre: NDArray[np.float64], half: float) -> list[float]:
    """Return half the width of the axes for each frame: nearly all points fit, it never grows, `half` is the least."""
    widths = [max(half, 1.05 * float(np.quantile(np.abs(frame - centre).max(axis=1), 0.99))) for frame in frames]
    # In steps of a fifteenth: each new width costs a whole drawing of the axes.
    steps = np.ceil(np.log(np.minimum.accumulate(widths) / half) * 15)
    return (half * np.exp(steps / 15)).tolist()


def _palette(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return the palette that serves all pictures, from the first, a middle and the last one side by side."""
    chosen = [pictures[0], pictures[len(pictures) // 2], pictures[-1]]
    width, height = chosen[0].size
    strip = Image.new("RGB", (3 * width, height))
    for k, picture in enumerate(chosen):
        strip.paste(picture, (k * width, 0))
    palette = strip.quantize(62, method=Image.Quantize.MEDIANCUT)
    # Median cut averages the paper with faint dots, and a few dots with others; paper is white, dots keep their colour.
    colours = np.array(palette.getpalette()).reshape(-1, 3)[:62]
    colours[colours.min(axis=1) >= 248] = 255
    colours = np.concatenate([colours, [ImageColor.getrgb(each) for each in (TRAINING_TINT, GENERATED_COLOUR)]])
    palette.putpalette(colours.astype(np.uint8).tobytes())
    return palette


def animate_samples(
    frames: Sequence[ArrayLike], sigmas: Sequence[float], training: ArrayLike, *,
    steps: Sequence[int] | None = None, title: str = "",
    advance: Callable[[int, str], None] | None = None,
) -> bytes:  # fmt: skip
    """Return a GIF of a trajectory from noise to data, over the training data.

    Args:
        frames: Points at each noise level, each of shape `(N, D)`.
        sigmas: The noise levels, shown on the frames, shape `(F,)`.
        training: Training data, shape `(M, D)`, drawn in blue behind.
        steps: Step numbers of the solver, shown on the frames; by default 0 to F - 1.
        title: First line above the axes.
        advance: Called with the number of frames done and an empty string, for a progress bar.

    Returns:
        The file's content.

    Raises:
        ValueError: If there are no frames, or not one noise level per frame.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not len(frames) or len(frames) != len(sigmas):
        raise ValueError(f"sigmas must have one noise level per frame, got {len(frames)} frames, {len(sigmas)} levels")
    steps = range(len(frames)) if steps is None else steps
    flat, background = [planar(frame) for frame in frames], planar(training)
    centre, half = square_limits(background, margin=0.12)
    widths = _axes_widths(flat, centre, half)

    figure = Figure(figsize=(4.8, 5.1), dpi=100)
    canvas = FigureCanvasAgg(figure)
    ax: Any = figure.add_axes((0.1, 0.06, 0.87, 0.82))
    ax.set_aspect("equal")
    ax.tick_params(labelsize=8, color="0.6", labelcolor="0.35")
    ax.spines[["top", "right"]].set_visible(False)
    plot_behind(ax, training, size=2.5)
    dots = plot_points(ax, frames[0], colour=GENERATED_COLOUR, label="generated", size=3.6, alpha=0.9)
    caption = figure.text(0.535, 0.905, "", ha="center", fontsize=10, family="monospace")
    figure.text(0.535, 0.95, title, ha="center", fontsize=11)
    dots.set_animated(True)
    caption.set_animated(True)

    pictures, shown, background_image = [], None, None
    for k, points in enumerate(flat):
        if widths[k] != shown:
            shown = widths[k]
            ax.set(xlim=centre[0] + shown * np.array([-1, 1]), ylim=centre[1] + shown * np.array([-1, 1]))
            canvas.draw()
            background_image = canvas.copy_from_bbox(figure.bbox)
        canvas.restore_region(background_image)
        dots.set_data(points[:, 0], points[:, 1])
        caption.set_text(f"step {steps[k]:>3}/{steps[-1]}   noise level {sigmas[k]:8.3f}")
        ax.draw_artist(dots)
        figure.draw_artist(caption)
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
        if advance is not None:
            advance(k + 1, "")
    palette = _palette(pictures)
    encoded = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    durations = [FIRST_MS] + [FRAME_MS] * (len(encoded) - 2) + [LAST_MS]
    buffer = io.BytesIO()
    encoded[0].save(
        buffer, "GIF", save_all=True, append_images=encoded[1:], duration=durations[-len(encoded) :], loop=0, disposal=1
    )
    return buffer.getvalue()
