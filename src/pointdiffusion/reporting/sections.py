"""Values of the report's sections, for the templates of the same names; None leaves a section out."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from pointdiffusion.diagnostics.parts import MEANINGS
from pointdiffusion.metrics.comparison import Difference
from pointdiffusion.metrics.results import (
    CLEAR,
    COPIES,
    FEW_ROWS,
    LIKELIHOOD,
    SAME,
    TOO_FEW,
    MetricResult,
    result_cells,
)
from pointdiffusion.reporting.measurements import Measurements, Tables, peak_memory
from pointdiffusion.reporting.plots import plot_distribution, plot_log
from pointdiffusion.reporting.rendering import Cell, SigmaBar
from pointdiffusion.reporting.svg import DATA_COLOUR, OTHER_COLOUR, SAMPLES_COLOUR, inline_svg
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.version import __version__

PACKAGES = ("torch", "lightning", "numpy", "scipy", "scikit-learn", "matplotlib")
COLOURS = {"held-out rows": DATA_COLOUR, "training rows": OTHER_COLOUR, "samples": SAMPLES_COLOUR}

Context = dict[str, Any]


def lead(measured: Measurements, other: Measurements | None, differences: Sequence[Difference]) -> Context:
    """Return the verdict, and what qualifies it."""
    evaluation, densities = measured.evaluation, measured.densities["held-out rows"]
    copies, diagnosis = evaluation[COPIES], measured.diagnosis
    return {
        "kind": "bad" if evaluation.failed else "good" if evaluation.rows >= FEW_ROWS else "",
        "evaluation": evaluation,
        "log_prob": evaluation[LIKELIHOOD].value,
        "error": densities.std(ddof=1) / np.sqrt(len(densities)),
        "copies": None if copies.verdict in (SAME, TOO_FEW) else copies,
        "advice": None if diagnosis is None or diagnosis.cause == "sound" else diagnosis.advice,
        "other": None if other is None else other.name,
        "differences": [f"{each.name} {each.verdict}" for each in differences if abs(each.sigma) >= 3],
    }


def kind_of(values: Array) -> str:
    """Return what kind of numbers a column holds, in words."""
    distinct = np.unique(values)
    if len(distinct) == 1:
        return "constant"
    if len(distinct) == 2:
        return "two values"
    if np.all(values == np.round(values)):
        return "integers"
    if len(distinct) < 0.9 * len(values):
        return f"real numbers, {1 - len(distinct) / len(values):.0%} repeated"
    return "real numbers"


def trained(measured: Measurements, tables: Tables, kinds: Mapping[str, str]) -> Context:
    """Return sizes of table and network, and a row per column: its kind, moments and quantiles."""
    model, rows = measured.model, []
    for name, own, drawn in zip(tables.columns, tables.training.T, measured.samples.T, strict=True):
        low, high = np.quantile(own, [0.05, 0.95])
        numbers = [f"{x:.4g}" for x in (own.mean(), own.std(), low, high, drawn.mean(), drawn.std())]
        rows.append([name, kinds.get(name, kind_of(own)), *numbers])
    return {
        "training_rows": len(tables.training),
        "held_out_rows": len(tables.held_out),
        "columns": model.n_dims,
        "network": type(model.denoiser.backbone).__name__,
        "weights": sum(value.numel() for value in model.denoiser.backbone.parameters()),
        "classes": 0 if model.conditions is None else len(model.conditions.classes),
        "rows": rows,
    }


def quality(measured: Measurements) -> Context:
    """Return a row per metric, column and pair of columns."""
    evaluation = measured.evaluation
    return {
        "tests": evaluation.tests,
        "few": evaluation.rows < FEW_ROWS,
        "few_rows": FEW_ROWS,
        "clear": CLEAR,
        "results": evaluation.results,
        "rows": [_result_row(result) for result in evaluation.results],
        "columns": [_result_row(result) for result in evaluation.columns],
        "pairs": [_result_row(result) for result in evaluation.pairs],
    }


def _result_row(result: MetricResult) -> list[Any]:
    kind = {SAME: "good", TOO_FEW: "dull"}.get(result.verdict, "bad")
    name, *numbers, _ = result_cells(result)
    return [name, Cell(result.verdict, kind), SigmaBar(result.sigma, kind), *numbers]


def two_runs(measured: Measurements, other: Measurements | None, differences: Sequence[Difference]) -> Context | None:
    """Return a row per metric with the difference of two runs."""
    if other is None:
        return None
    rows = []
    for each in differences:
        kind = "bad" if each.sigma <= -2 else "good" if each.sigma >= 2 else "dull"
        numbers = [f"{each.value:.4g}", f"{each.other:.4g}", f"{each.difference:.3g}", f"{each.error:.2g}"]
        rows.append([each.name, Cell(each.verdict, kind), SigmaBar(-each.sigma, kind), *numbers])
    return {"rows": rows, "runs": [measured, other]}


def training(measured: Measurements, other: Measurements | None) -> Context:
    """Return a plot of the losses of each run that has a log."""

    def plotted(one: Measurements) -> tuple[str, str]:
        label = f"Losses by epoch, {one.name}"
        svg = inline_svg(lambda figure: plot_log(figure.subplots(), one.log), size=(5.6, 3.0), label=label)
        return svg, "" if other is None else one.name

    return {"plots": [plotted(one) for one in (measured, other) if one is not None and one.log]}


def likelihood(measured: Measurements) -> Context:
    """Return mean log-densities, and a plot of their distributions."""
    rows = []
    for name, values in measured.densities.items():
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        rows.append([name, f"{values.mean():.4f}", f"{error:.4f}", len(values)])
    svg = _distribution(
        measured.densities, "log-density, nats", "Log-densities of held-out rows, training rows and samples"
    )
    return {"sigma_min": measured.model.inference.sigma_min, "rows": rows, "svg": svg}


def memorisation(measured: Measurements) -> Context:
    """Return the test of copies, and a plot of distances to training rows."""
    svg = _distribution(
        measured.nearest, "distance to the nearest training row, standard deviations",
        "Distances to the nearest training row, of held-out rows and of samples", log=True,
    )  # fmt: skip
    return {"copies": measured.evaluation[COPIES], "svg": svg}


def _distribution(sets: Mapping[str, Array], axis: str, label: str, *, log: bool = False) -> str:
    coloured = {name: (values, COLOURS[name]) for name, values in sets.items()}
    return inline_svg(
        lambda figure: plot_distribution(figure.subplots(), coloured, label=axis, log=log), size=(5.6, 3.0), label=label
    )


def causes(measured: Measurements, requested: bool) -> Context:
    """Return the parts of the error as rows and as plots."""
    diagnosis = measured.diagnosis
    if diagnosis is None:
        return {"diagnosis": None, "requested": requested}
    from pointdiffusion.visuals.diagnosis import plot_losses, plot_parts

    parts = {"total": diagnosis.total, **diagnosis.parts}
    plots = [
        inline_svg(lambda figure: plot_parts(figure.subplots(), parts), size=(4.6, 3.0), label="Parts of the error"),
        inline_svg(
            lambda figure: plot_losses(figure.subplots(), diagnosis.profile, exact=False), size=(4.6, 3.0),
            label="Excess loss of the network by noise level",
        ),
    ]  # fmt: skip
    rows = [[name, f"{part.value:.5f}", f"{part.error:.5f}", MEANINGS[name]] for name, part in parts.items()]
    return {"diagnosis": diagnosis, "failed": bool(measured.evaluation.failed), "plots": plots, "rows": rows}


def reproduce(measured: Measurements, commands: Sequence[str], seed: int, settings: Mapping[str, Any]) -> Context:
    """Return commands, settings and versions that make samples and report again."""
    model = measured.model
    configs = {"training": model.training, "sampling": model.inference}
    versions = {"pointdiffusion": __version__, "Python": platform.python_version()}
    versions |= {name: version(name) for name in PACKAGES}
    if model.version != __version__:
        versions["pointdiffusion, of the training"] = model.version
    return {
        "commands": commands,
        "num_samples": len(measured.samples),
        "arguments": f"{seed}" + "".join(f", {name}={value!r}" for name, value in settings.items()),
        "configs": [(name, config.to_yaml().rstrip()) for name, config in configs.items() if config is not None],
        "versions": list(versions.items()),
    }


def costs(measured: Measurements, given: Mapping[str, str]) -> Context:
    """Return time and memory; no two runs have them in common."""
    rows = [*given.items(), *((what, f"{seconds:.2f} s") for what, seconds in measured.seconds.items())]
    peak = peak_memory()
    if peak is not None:
        rows.append(("peak memory of this process", f"{peak:.0f} MiB"))
    rows.append(("device", str(next(measured.model.denoiser.parameters()).device)))
    return {"rows": rows}
