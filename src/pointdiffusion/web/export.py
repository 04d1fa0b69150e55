"""One file that holds the playground and a run: trajectories, the network, figures, and the data where asked for.

The page is `playground.html` as it ships; the run is written into a block of it as JSON. Points are in standard units,
16 bits a coordinate between the lowest and the highest value of each noise level; weights in half precision unless
single is asked for.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pointdiffusion.config import unknown_name
from pointdiffusion.contract import check_sigmas
from pointdiffusion.exact.mixtures import GaussianMixture
from pointdiffusion.model.diffusion_model import DiffusionModel, SamplingSettings
from pointdiffusion.networks import has_own_parts_only, specification_of
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.runtime.files import write_atomic
from pointdiffusion.sampling.loop import Step
from pointdiffusion.tabular.labels import as_labels
from pointdiffusion.tabular.points import as_points, column_names
from pointdiffusion.tabular.standardiser import Standardiser
from pointdiffusion.version import __version__
from pointdiffusion.web.registry import as_json, registry

PRECISIONS = ("float16", "float32")
MOST_FRAMES = 101
"""Noise levels of a trajectory that are kept, the first and the last among them."""
MOST_ROWS = 2000
"""Rows of data that are embedded; of more, evenly chosen ones."""


def page() -> str:
    """Return the playground with nothing behind it, as the text of one HTML file."""
    return (resources.files("pointdiffusion.web") / "playground.html").read_text(encoding="utf-8")


def export_page(
    source: DiffusionModel | Iterable[Step[Any]] | ArrayLike, path: str | os.PathLike[str], *,
    sigmas: ArrayLike | None = None, data: Any = None, labels: Any = None, embed_data: bool = False,
    num_points: int = 2000, seed: int = 0, precision: str = "float16", title: str = "A run of pointdiffusion",
    figures: Mapping[str, float | str] | None = None, **settings: Unpack[SamplingSettings],
) -> None:  # fmt: skip
    """Write a page that shows a run, opens from disk, and asks no other machine for anything.

    Args:
        source: A model, of which points are drawn; the steps of a trajectory (what `trajectory` yields); or points at
            all noise levels, shape `(num_steps + 1, B, D)`, with their `sigmas`. Points are in your own units.
        path: The HTML file.
        sigmas: Noise levels of an array of points, in standard deviations of the data, shape `(num_steps + 1,)`.
        data: The training rows, shape `(N, D)`. They are counted, and put into the file with `embed_data` alone.
        labels: Class of each row of `data`, shape `(N,)`.
        embed_data: Put up to 2,000 of the rows into the file, so that the page can set the exact optimum on them beside
            the samples. Whoever gets the file can then read these rows.
        num_points: Points to draw of a model.
        seed: Seed of these.
        precision: Of the network's weights, `"float16"` or `"float32"`.
        title: What the page is called.
        figures: Numbers and texts to show beside the picture, by name.
        settings: Of the trajectory of a model, see `DiffusionModel.trajectory`.

    Raises:
        ValueError: If something does not fit, there are fewer than two columns, or rows are to be embedded and there
            are none.
        OSError: If the file cannot be written; an earlier one is then untouched.
    """
    run = run_of(
        source, sigmas=sigmas, data=data, labels=labels, embed_data=embed_data, num_points=num_points, seed=seed,
        precision=precision, title=title, figures=figures, **settings,
    )  # fmt: skip
    write_atomic(path, filled_page({"run": {"run": run, "state": None}, "registry": registry()}).encode())


def run_of(
    source: DiffusionModel | Iterable[Step[Any]] | ArrayLike, *, sigmas: ArrayLike | None = None, data: Any = None,
    labels: Any = None, embed_data: bool = False, num_points: int = 2000, seed: int = 0, precision: str = "float16",
    title: str = "A run of pointdiffusion", figures: Mapping[str, float | str] | None = None,
    **settings: Unpack[SamplingSettings],
) -> dict[str, Any]:  # fmt: skip
    """Return a run as plain values, as the page holds it; everything is as `export_page` takes it."""
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    if embed_data and data is None:
        raise ValueError("embed_data=True puts rows into the file, and there are none: give data=...")
    table = None if data is None else as_points(data)
    if isinstance(source, DiffusionModel):
        _refuse(source.n_dims)
        steps = _thinned(source.trajectory(num_points, seed=seed, **settings))
        standardiser, about = source.standardiser, _about_model(source, precision)
        nfe: int | None = steps[-1].nfe
        name = _name(source, settings)
    else:
        if settings:
            raise ValueError(f"{', '.join(settings)}: settings are for a model; a trajectory is shown as it is")
        steps, nfe, name = *_steps(source, sigmas), "trajectory"
        _refuse(np.shape(steps[0].x)[-1])
        standardiser, about = _standardiser(table, steps), {}
    run = {
        "title": title, "version": __version__, "network": None, "classes": [], "sigma_data": 1.0,
        "covariance": [], "columns": column_names(data, len(standardiser.mean)), **about,
        "mean": standardiser.mean.tolist(), "scale": standardiser.scale.tolist(),
        "recorded": _recorded(steps, standardiser, nfe, name), "rows": None if table is None else len(table),
        "data": _data(table, labels, standardiser, about.get("classes", [])) if embed_data else None,
        "figures": _checked(figures or {}),
    }  # fmt: skip
    levels = run["recorded"]["sigmas"]
    run = {"sigma_min": min(level for level in levels if level > 0), "sigma_max": levels[0], **run}
    if not run["covariance"]:
        last = standardiser.transform(np.asarray(steps[-1].x))
        run["covariance"] = np.cov(last.T, ddof=0).ravel().tolist()
    return run


def network_run(
    model: DiffusionModel, *, title: str, rows: int | None = None, precision: str = "float32"
) -> dict[str, Any]:
    """Return a run that holds a network alone, as plain values: what the page needs to ask it itself.

    Args:
        model: A model of at least two columns.
        title: What the run is called.
        rows: Number of rows that it was trained on.
        precision: Of the weights, `"float16"` or `"float32"`.

    Raises:
        ValueError: If the model has one column, or its weights do not fit.
    """
    _refuse(model.n_dims)
    return {
        "title": title, "version": __version__, **_about_model(model, precision),
        "mean": model.standardiser.mean.tolist(), "scale": model.standardiser.scale.tolist(),
        "sigma_max": model.inference.sigma_max, "recorded": None, "rows": rows, "data": None, "figures": {},
    }  # fmt: skip


def _refuse(n_dims: int) -> None:
    if n_dims < 2:
        raise ValueError("the page draws two columns, and these points have one; plot them with plot_points")


def filled_page(blocks: Mapping[str, Any]) -> str:
    """Return the page with blocks of it replaced."""
    text = page()
    for name, value in blocks.items():
        start = f'<script type="application/json" id="{name}">'
        head, found, rest = text.partition(start)
        if not found:
            raise ValueError(f"the page has no block {name}; build it again with `python tools/dev.py web`")
        text = head + start + as_json(value) + rest[re.search("</script>", rest).start() :]  # type: ignore[union-attr]
    return text


def _steps(source: Any, sigmas: ArrayLike | None) -> tuple[list[Step[Any]], int | None]:
    """Return the steps of a trajectory, and its evaluations where known."""
    if sigmas is None:
        steps = _thinned(step for step in source if isinstance(step, Step))
        if len(steps) < 2:
            raise ValueError("a model, the steps of a trajectory, or an array of points with sigmas=... is needed")
        return steps, steps[-1].nfe
    points, levels = np.asarray(source, dtype=np.float64), np.asarray(sigmas, dtype=np.float64)
    if points.ndim != 3 or levels.shape != points.shape[:1]:
        raise ValueError(
            f"points of shape (num_steps + 1, B, D) and as many decreasing sigmas are needed, got {points.shape} and "
            f"{levels.shape}"
        )
    check_sigmas(torch.from_numpy(levels))
    return [Step(x, float(sigma), None, 0) for x, sigma in zip(points, levels, strict=True)], None


def _thinned(steps: Iterable[Step[Any]]) -> list[Step[Any]]:
    """Return evenly chosen steps, the first and the last among them, and twice as many as are kept at most.

    Walks may be long: what is not kept is let go while they are made.
    """
    kept: list[Step[Any]] = []
    stride, last = 1, None
    for k, step in enumerate(steps):
        last = Step(np.asarray(step.x), step.sigma, None, step.nfe)
        if k % stride == 0:
            kept.append(last)
            if len(kept) > 2 * MOST_FRAMES:
                kept, stride = kept[::2], 2 * stride
    return kept if last is None or kept[-1] is last else [*kept, last]


def _standardiser(table: Array | None, steps: list[Step[Any]]) -> Standardiser:
    if table is not None:
        return Standardiser.fit(table)
    end = as_points(steps[-1].x)
    spread = end.std(axis=0)
    return Standardiser(end.mean(axis=0), np.where(spread > 0, spread, 1.0))


def _name(model: DiffusionModel, settings: SamplingSettings) -> str:
    solver = settings.get("solver")
    if solver is None:
        solver = model.inference.solver if settings.get("nfe") is None else "auto"
    return solver if isinstance(solver, str) else type(solver).__name__


def _about_model(model: DiffusionModel, precision: str) -> dict[str, Any]:
    """Return what the page needs to ask the network itself."""
    network = model.denoiser.backbone
    specification = specification_of(network) if has_own_parts_only(network) else None  # the page computes with these
    found: dict[str, Any] | None = None
    if specification is not None:  # a network of the user's own is shown as it was recorded
        kind: Any = {"float16": np.float16, "float32": np.float32}[precision]
        weights = {name: value.detach().cpu().float().numpy() for name, value in network.state_dict().items()}
        if any(np.abs(value).max(initial=0) > np.finfo(kind).max for value in weights.values()):
            raise ValueError(f"the weights do not fit into {precision}; give precision='float32'")
        packed = {
            name: {"shape": list(value.shape), "values": _packed(value.astype(kind))} for name, value in weights.items()
        }
        found = {"spec": specification, "dtype": precision, "weights": packed}
        if model.denoiser.bases:
            found["bases"] = [base_of(base) for base in model.denoiser.bases]
    known, n_dims = model.conditions, model.n_dims
    classes = [] if known is None else [str(value) for value in known.classes]
    moments = [
        {"mean": mean[:n_dims].tolist(), "covariance": covariance[:n_dims, :n_dims].flatten().tolist()}
        for mean, covariance in (zip(known.means[1:], known.covariances[1:], strict=True) if known is not None else ())
    ]
    return {
        "network": found, "classes": classes, "class_moments": moments, "columns": list(model.columns),
        "sigma_data": model.denoiser.sigma_data,
        "covariance": model.covariance.double().flatten().tolist(), "sigma_min": model.inference.sigma_min,
    }  # fmt: skip


def base_of(base: GaussianMixture) -> dict[str, Any]:
    """Return a base as the page computes with it: axes of covariances in columns, by rows, and variances along them."""
    variances, axes = torch.linalg.eigh(base.covariance)
    spreads, frames = torch.linalg.eigh(base.covariances)
    return {
        "mean": base.mean.tolist(), "variances": variances.tolist(), "axes": axes.flatten().tolist(),
        "weights": base.weights.tolist(), "means": base.means.tolist(), "spreads": spreads.tolist(),
        "frames": frames.flatten(1).tolist(),
    }  # fmt: skip


def _packed(values: NDArray[Any]) -> str:
    """Return numbers as base64 of little-endian bytes."""
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """Return up to `most` of the numbers from 0 to `count` - 1, evenly chosen, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def quantised(points: Array) -> tuple[list[float], list[float], NDArray[np.uint16]]:
    """Return lowest and highest value of each column, and where between them each number lies, in 65535 steps."""
    low, high = points.min(axis=0), points.max(axis=0)
    width = np.where(high > low, high - low, 1.0)
    return low.tolist(), high.tolist(), np.round((points - low) / width * 65535).astype(np.uint16)


def _recorded(steps: list[Step[Any]], standardiser: Standardiser, nfe: int | None, name: str) -> dict[str, Any]:
    kept = evenly(len(steps), MOST_FRAMES)
    frames = [quantised(standardiser.transform(np.asarray(steps[k].x))) for k in kept]
    values = np.stack([frame[2] for frame in frames])
    return {
        "name": name, "shape": list(values.shape), "sigmas": [float(steps[k].sigma) for k in kept], "nfe": nfe,
        "low": [frame[0] for frame in frames], "high": [frame[1] for frame in frames], "values": _packed(values),
    }  # fmt: skip


def _data(table: Array | None, labels: Any, standardiser: Standardiser, classes: list[str]) -> dict[str, Any]:
    """Return the embedded rows, with the class of each as a place in the list of the model's classes, or their own."""
    assert table is not None  # noqa: S101 (checked by the caller)
    places = None
    if labels is not None:
        found = [str(label) for label in as_labels(labels)]
        if len(found) != len(table):
            raise ValueError(f"labels must have one class for each of {len(table)} rows, got {len(found)}")
        known = classes or sorted(set(found))
        unknown = sorted(set(found) - set(known))
        if unknown:
            raise unknown_name("class", unknown[0], known)
        places = np.array([known.index(label) for label in found])
    kept = evenly(len(table), MOST_ROWS)
    low, high, values = quantised(standardiser.transform(table[kept]))
    return {
        "shape": list(values.shape), "low": low, "high": high, "values": _packed(values),
        "labels": None if places is None else places[kept].tolist(),
    }  # fmt: skip


def _checked(figures: Mapping[str, float | str]) -> dict[str, float | str]:
    """Return figures as plain numbers and texts."""
    plain = {str(name): value if isinstance(value, str) else float(value) for name, value in figures.items()}
    wrong = [name for name, value in plain.items() if isinstance(value, float) and not np.isfinite(value)]
    if wrong:
        raise ValueError(f"the figure {wrong[0]!r} is not finite; leave it out")
    return plain
