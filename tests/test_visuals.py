"""Figures and animations, opened and looked at: size, frames, and colours where they should be."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pointdiffusion import animate_samples, plot_comparison, png_bytes
from pointdiffusion.visuals.plotting import planar

Pixels = NDArray[np.int64]


def _points(n: int = 300, n_dims: int = 2, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, n_dims))


def _pixels(picture: Image.Image) -> Pixels:
    return np.asarray(picture.convert("RGB")).astype(np.int64)


def _blue(pixels: Pixels) -> NDArray[np.bool_]:
    return (pixels[..., 2] - pixels[..., 0] > 40) & (pixels[..., 2] - pixels[..., 1] > 15)


def _red(pixels: Pixels) -> NDArray[np.bool_]:
    return (pixels[..., 0] - pixels[..., 2] > 40) & (pixels[..., 0] - pixels[..., 1] > 40)


def _extent(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Return width and height of the part of the picture where `mask` is true, without the outermost percent."""
    rows, columns = np.nonzero(mask)
    return int(np.ptp(np.quantile(columns, [0.01, 0.99]))), int(np.ptp(np.quantile(rows, [0.01, 0.99])))


# ----------------------------------------------------------------------------------------------------------- comparison


def _panels(figure: Any) -> list[Pixels]:
    """Return the inside of each of the axes, without the upper quarter, where the legend shows both colours."""
    picture = _pixels(Image.open(io.BytesIO(png_bytes(figure))))
    boxes = [ax.get_window_extent() for ax in figure.axes]
    height = picture.shape[0]
    return [
        picture[
            round(height - box.y1 + box.height / 4) : round(height - box.y0) - 2, round(box.x0) + 2 : round(box.x1) - 2
        ]
        for box in boxes
    ]


@pytest.mark.parametrize("n_dims", [1, 2, 3, 5])
def test_comparison_has_three_panels_with_equal_axes_and_limits(n_dims: int) -> None:
    """Three panels of the same limits and of equal scale in both directions, so that shapes can be compared."""
    figure = plot_comparison(_points(n_dims=n_dims), 0.5 + 2 * _points(200, n_dims, seed=1))
    figure.canvas.draw()
    assert len(figure.axes) == 3
    assert len({ax.get_xlim() for ax in figure.axes}) == 1
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    for ax in figure.axes:
        assert ax.get_aspect() == 1
        box = ax.get_window_extent()
        assert np.diff(ax.get_xlim())[0] / box.width == pytest.approx(np.diff(ax.get_ylim())[0] / box.height, rel=1e-6)


@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_training_is_blue_and_generated_is_red(n_dims: int) -> None:
    """Blue only in the first and third panel, red only in the second and third, and plenty of each."""
    figure = plot_comparison(_points(n_dims=n_dims), _points(n_dims=n_dims, seed=1) + 0.5)
    panels = _panels(figure)
    for panel, (blue, red) in zip(panels, [(True, False), (False, True), (True, True)], strict=True):
        assert (_blue(panel).sum() > 50) == blue
        assert (_red(panel).sum() > 50) == red
        if not blue:
            assert not _blue(panel).any()
        if not red:
            assert not _red(panel).any()


def _grey(pixels: Pixels) -> Pixels:
    """Return how light pixels are on grey paper, from 0 to 255."""
    return pixels @ np.array([299, 587, 114]) // 1000


@pytest.mark.parametrize(("count", "generated"), [(4096, 1000), (300, 300), (500, 5000)])
def test_both_sets_can_be_seen_where_one_lies_on_the_other(count: int, generated: int) -> None:
    """In the third panel, of points on one curve: much of each, and apart in grey as well."""
    curve = [np.column_stack([np.cos(t), np.sin(t)]) for t in (np.linspace(0, 6, n) for n in (count, generated))]
    panel = _panels(plot_comparison(*curve))[2]
    blue, red = _blue(panel), _red(panel)
    assert min(blue.sum(), red.sum()) > 0.15 * max(blue.sum(), red.sum())
    assert np.median(_grey(panel[blue])) - np.median(_grey(panel[red])) > 80


def test_data_can_be_seen_below_the_points_in_the_last_frame() -> None:
    """Where all points have arrived at data of their own."""
    curve = np.column_stack([np.cos(np.linspace(0, 6, 1000)), np.sin(np.linspace(0, 6, 1000))])
    frame = _frames(animate_samples([curve + 1, curve], [1.0, 0.0], curve))[0][-1][60:]
    assert _blue(frame).sum() > 0.25 * _red(frame).sum() > 100


def test_panels_show_the_points_where_they_are() -> None:
    """Training data on the left and generated points on the right of a common scale appear there, in every panel."""
    figure = plot_comparison(_points() * 0.1 + [-5, 0], _points() * 0.1 + [5, 0])
    panels = _panels(figure)
    middle = panels[0].shape[1] // 2
    for panel in (panels[0], panels[2]):
        assert _blue(panel)[:, :middle].sum() > 50
    for panel in (panels[1], panels[2]):
        assert _red(panel)[:, middle:].sum() > 50
    assert not _blue(panels[0])[:, middle:].any()
    assert not _red(panels[1])[:, :middle].any()


def test_limits_hold_all_points_but_a_few_strays() -> None:
    """Nearly all points of both sets are inside; one stray in thousands does not shrink everything else to a dot."""
    training, generated = _points(3000), 2 * _points(3000, seed=1)
    generated[0] = [1e4, 0]
    limits = np.array([plot_comparison(training, generated).axes[0].get_xlim()])
    assert np.ptp(limits) < 30
    inside = (np.abs(generated - limits.mean()) < np.ptp(limits) / 2).all(axis=1)
    assert inside.mean() > 0.998


def test_png_bytes_are_the_same_for_the_same_points() -> None:
    """The same points give the same file, byte for byte; other points another one."""
    first, again = (png_bytes(plot_comparison(_points(), _points(seed=1), title="roll")) for _ in range(2))
    assert first == again
    assert first != png_bytes(plot_comparison(_points(), _points(seed=2), title="roll"))
    with Image.open(io.BytesIO(first)) as picture:
        assert picture.format == "PNG"
        assert picture.size == (1500, 540)


def test_axes_carry_the_names_of_the_columns() -> None:
    """In two dimensions axes are labelled with the columns' names, and the title stands above."""
    figure = plot_comparison(_points(), _points(seed=1), columns=["width", "height"], title="a title")
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in figure.axes] == [("width", "height")] * 3
    assert figure.get_suptitle() == "a title"
    unnamed = plot_comparison(_points(), _points(seed=1))
    assert [(ax.get_xlabel(), ax.get_ylabel()) for ax in unnamed.axes] == [("x", "y")] * 3


def test_panels_tell_how_many_points_they_show() -> None:
    """Each panel's title says what it shows, and of how many points."""
    figure = plot_comparison(_points(123), _points(45, seed=1))
    titles = [ax.get_title() for ax in figure.axes]
    assert "123" in titles[0]
    assert "45" in titles[1]


def test_no_window_is_opened_and_no_global_figure_made() -> None:
    """A figure belongs to the caller alone: pyplot knows nothing of it, so nothing piles up."""
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    plot_comparison(_points(), _points(seed=1))
    animate_samples([_points(), _points()], [1.0, 0.0], _points())
    assert plt.get_fignums() == before


@pytest.mark.parametrize("point", [[[0.0, 0.0]], [[3.0, 3.0]] * 5])
def test_points_that_are_all_alike_still_make_a_picture(point: list[list[float]]) -> None:
    """A single point, or one many times, has no extent; the picture shows it all the same."""
    panels = _panels(plot_comparison(point, point))
    assert _blue(panels[0]).any()
    assert _red(panels[1]).any()


def test_comparison_of_different_dimensions_is_refused() -> None:
    """Both sets have the same columns; the message tells both numbers."""
    with pytest.raises(ValueError, match=r"2 columns.* 3"):
        plot_comparison(_points(), _points(n_dims=3))


def test_planar_view_keeps_two_dimensions_and_turns_three() -> None:
    """Two dimensions stay as they are; three are projected along one direction, so that lengths only shrink."""
    points = _points()
    np.testing.assert_array_equal(planar(points), points)
    np.testing.assert_array_equal(planar(_points(n_dims=1)), np.column_stack([_points(n_dims=1), np.zeros(300)]))
    np.testing.assert_array_equal(planar(_points(n_dims=5)), _points(n_dims=5)[:, :2])
    projection = planar(np.eye(3))  # (3, 2)
    np.testing.assert_allclose(
        projection.T @ projection, np.eye(2), atol=1e-14
    )  # an orthogonal view, not a distorted one
    np.testing.assert_allclose(planar(_points(n_dims=3)), _points(n_dims=3) @ projection, atol=1e-13)


# ------------------------------------------------------------------------------------------------------------ animation

SIGMAS = [10.0, 3.0, 1.0, 0.3, 0.1, 0.01, 0.0]


def _square(n: int = 500, n_dims: int = 2, *, seed: int = 0) -> np.ndarray:
    """Return data that fill a square of side 2, so that their picture has a known extent."""
    return np.random.default_rng(seed).uniform(-1, 1, size=(n, n_dims))


def _walk(sigmas: Sequence[float] = SIGMAS, n_dims: int = 2, n: int = 300) -> list[np.ndarray]:
    """Return points on their way from noise of standard deviation 10 to data in a square, in straight lines."""
    data, eps = _square(n, n_dims, seed=1), _points(n, n_dims, seed=2)
    return [data + sigma * eps for sigma in sigmas]


def _frames(gif: bytes) -> tuple[list[Pixels], list[int]]:
    picture = Image.open(io.BytesIO(gif))
    assert picture.format == "GIF"
    frames, durations = [], []
    for k in range(getattr(picture, "n_frames", 1)):
        picture.seek(k)
        frames.append(_pixels(picture))
        durations.append(picture.info["duration"])
    return frames, durations


@pytest.fixture(scope="module")
def gif() -> bytes:
    return animate_samples(_walk(), SIGMAS, _square(), title="a walk")


def test_there_is_one_frame_for_each_level(gif: bytes) -> None:
    """As many frames as noise levels, all of one size, for ever in a loop."""
    frames, _ = _frames(gif)
    assert len(frames) == len(SIGMAS)
    ((height, width, channels),) = {frame.shape for frame in frames}
    assert (width, channels) == (480, 3)
    assert height == 510
    assert Image.open(io.BytesIO(gif)).info["loop"] == 0


def test_frames_that_look_alike_are_all_kept() -> None:
    """Points that stand still still have one frame for each level, since the caption counts the steps."""
    frames, _ = _frames(animate_samples([_points()] * 12, [1.0] * 12, _points()))
    assert len(frames) == 12


def test_the_last_frame_is_held(gif: bytes) -> None:
    """The result stays for seconds, the start for a moment, and the frames between pass quickly."""
    _, durations = _frames(gif)
    assert durations[-1] >= 2000
    assert 300 <= durations[0] <= 1000
    assert all(20 <= duration <= 100 for duration in durations[1:-1])


def test_blue_and_red_are_in_every_frame(gif: bytes) -> None:
    """Each frame shows the training data in blue and the samples in red."""
    for frame in _frames(gif)[0]:
        assert _blue(frame).sum() > 30
        assert _red(frame).sum() > 100


@pytest.mark.parametrize("n_dims", [2, 3])
def test_the_first_frame_shows_the_noise_whole(n_dims: int) -> None:
    """Points of ten times the data's spread fill the first picture: neither clipped at its edge nor a dot in it."""
    frames, _ = _frames(animate_samples(_walk(n_dims=n_dims), SIGMAS, _square(500, n_dims)))
    width, height = _extent(_red(frames[0]))
    assert width > 0.5 * 480
    assert height > 0.5 * 510
    # Of 300 dots, each of some 10 pixels, most are inside and apart: of a clipped cloud only a few percent were.
    assert _red(frames[0]).sum() > 300 * 4


def test_the_axes_follow_the_noise_down_to_the_data(gif: bytes) -> None:
    """The training data, small among the noise at first, fill the last picture, and so do the samples."""
    frames, _ = _frames(gif)
    first, last = _extent(_blue(frames[0])), _extent(_blue(frames[-1]))
    assert max(first) < 0.2 * 480  # a square of side 2 in a picture about 50 wide
    assert min(last) > 0.5 * 480
    assert min(_extent(_red(frames[-1]))) > 0.5 * 480
    widths = [_extent(_blue(frame))[0] for frame in frames]
    assert all(after >= before - 10 for before, after in itertools.pairwise(widths))


def test_noise_level_and_step_stand_on_each_frame(gif: bytes) -> None:
    """The caption above the picture differs from frame to frame, also where nothing moves."""
    frames, _ = _frames(gif)
    still, _ = _frames(animate_samples([_points()] * 3, [2.0, 1.0, 0.0], _points()))
    for several in (frames, still):
        captions = [frame[30:55] for frame in several]  # the line below the title
        for before, after in itertools.pairwise(captions):
            assert (before != after).any()
            assert (after.min(axis=-1) < 128).sum() > 100  # dark letters on white


def test_samples_are_drawn_where_they_are() -> None:
    """Samples to the left and then to the right of the data appear there, at the scale of the data."""
    training = _points(500)
    left, right = np.full((200, 2), [-2.0, 0.0]), np.full((200, 2), [2.0, 0.0])
    frames, _ = _frames(animate_samples([left, right], [1.0, 0.0], training))
    columns = [np.nonzero(_red(frame))[1].mean() for frame in frames]
    assert columns[0] < 240 < columns[1]
    assert not _red(frames[1])[:, :240].any()  # nothing of an earlier frame stays


def test_paper_is_white(gif: bytes) -> None:
    """The shared palette keeps the paper white, in every frame."""
    for frame in _frames(gif)[0]:
        assert (frame == 255).all(axis=-1).mean() > 0.5


def test_gif_bytes_are_the_same_for_the_same_points(gif: bytes) -> None:
    """The same walk gives the same file, byte for byte."""
    assert animate_samples(_walk(), SIGMAS, _square(), title="a walk") == gif


@pytest.mark.parametrize("n_dims", [1, 3, 4])
def test_other_dimensions_are_animated(n_dims: int) -> None:
    """Points on a line, in space and beyond are shown, with both colours in the last frame."""
    walk = [points + 3 for points in _walk(SIGMAS[-3:], n_dims)]  # on a line, samples would cover the data
    frames, _ = _frames(animate_samples(walk, SIGMAS[-3:], 3 * _square(200, n_dims)))
    assert len(frames) == 3
    assert _blue(frames[-1]).sum() > 20
    assert _red(frames[-1]).sum() > 20


@pytest.mark.parametrize("count", [1, 2])
def test_the_shortest_animations_work(count: int) -> None:
    """One frame or two are an animation, too, and the last is held."""
    frames, durations = _frames(animate_samples(_walk()[-count:], SIGMAS[-count:], _points()))
    assert len(frames) == count
    assert durations[-1] >= 2000


def test_progress_is_told_once_a_frame() -> None:
    """A caller's progress bar hears of every frame, counted from 1."""
    done: list[int] = []
    animate_samples(_walk(), SIGMAS, _points(), advance=lambda count, _: done.append(count))
    assert done == list(range(1, len(SIGMAS) + 1))


@pytest.mark.parametrize(("frames", "levels"), [(0, 0), (3, 2), (2, 3), (0, 1)])
def test_frames_without_their_levels_are_refused(frames: int, levels: int) -> None:
    """There is at least one frame, and a noise level for each; the message tells both numbers."""
    with pytest.raises(ValueError, match=f"{frames} frames, {levels} levels"):
        animate_samples(_walk()[:frames], SIGMAS[:levels], _points())
