"""One page about a model that a person can mail: what it learned, how good it is, where it is off.

The page holds its pictures and asks nobody for anything. Rows are shown as dots of pictures, never as numbers; of the
columns it tells means, deviations and the fifth and ninety-fifth percentile. For the same seed it is the same to the
byte, but for the block of times, which can be left out.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from pointdiffusion.diagnostics.diagnosis import MEANINGS
from pointdiffusion.metrics.comparison import Difference, compare
from pointdiffusion.metrics.evaluation import CLEAR, COPIES, FEW_ROWS, LIKELIHOOD, SAME, TOO_FEW, Figure, figure_cells
from pointdiffusion.model.diffusion_model import DiffusionModel
from pointdiffusion.reporting.findings import Findings, Tables, measure, peak_memory, tables_of
from pointdiffusion.reporting.inline import DATA_COLOUR, OTHER_COLOUR, SAMPLES_COLOUR, inline_svg
from pointdiffusion.reporting.page import grid, page, paragraph, picture, sigma_bar, table, text
from pointdiffusion.reporting.portraits import classes_section, samples_section
from pointdiffusion.reporting.summary import plot_distribution, plot_log
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.version import __version__

PACKAGES = ("torch", "lightning", "numpy", "scipy", "scikit-learn", "matplotlib")
COLOURS = {"held-out rows": DATA_COLOUR, "training rows": OTHER_COLOUR, "samples": SAMPLES_COLOUR}


def report(
    model: DiffusionModel, training: Any, held_out: Any, *, labels: Any = None, held_out_labels: Any = None,
    log_folder: str | os.PathLike[str] | None = None, against: DiffusionModel | None = None,
    against_log_folder: str | os.PathLike[str] | None = None, names: tuple[str, str] = ("this run", "the other run"),
    title: str = "A diffusion model of a table", kinds: Mapping[str, str] | None = None, commands: Sequence[str] = (),
    costs: Mapping[str, str] | None = None, num_samples: int | None = None, density_rows: int = 500,
    max_rows: int = 1000, diagnosis: bool = True, times: bool = True, seed: int = 0, **settings: Any,
) -> str:  # fmt: skip
    """Return one page of HTML about a trained model, to be written to a file by `write_atomic`.

    Args:
        model: The model.
        training: Rows that it was trained on, shape `(N, D)`: a frame or an array, in the user's own units.
        held_out: Rows of the same table that it was not trained on, shape `(M, D)`.
        labels: Class of each training row, for a model that was trained with classes: each is shown by itself.
        held_out_labels: Class of each held-out row: each class is then tested by itself.
        log_folder: Folder of the run, for the losses of training.
        against: Another model of the same table, set beside it with paired differences.
        against_log_folder: Folder of the other run.
        names: What the two are called.
        title: Headline.
        kinds: What kind of numbers each column holds, by name; found from the training rows where it is missing.
        commands: Shell commands that make the model and this page again.
        costs: More about time and memory, by name, such as of the training.
        num_samples: Rows to draw; by default as many as are judged, a thousand at least.
        density_rows: Most held-out rows, training rows and samples, of each, whose likelihood is taken.
        max_rows: Most rows of each set to judge, see `judge`.
        diagnosis: Whether to find where the error comes from, the costliest part.
        times: Whether to tell time and memory, which no two runs have in common.
        seed: Seed of all that is drawn.
        settings: Of sampling, as in `model.sample`, where they are not the model's own.

    Raises:
        ValueError: If the tables do not fit the model or each other, or the log cannot be read.
    """
    tables = tables_of(model, training, held_out)
    how: dict[str, Any] = {
        "num_samples": num_samples, "density_rows": density_rows, "max_rows": max_rows, "seed": seed,
        "settings": settings,
    }  # fmt: skip
    found = measure(model, tables, name=names[0], log_folder=log_folder, diagnosis=diagnosis, **how)
    other, differences = None, []
    if against is not None:
        tables_of(against, training, held_out)
        other = measure(against, tables, name=names[1], log_folder=against_log_folder, diagnosis=False, **how)
        differences = _differences(found, other, tables, seed, max_rows)
    sections = [
        ("What was trained", _trained(found, tables, kinds or {})),
        ("Samples against data", samples_section(found, tables, other, seed)),
        ("Class by class", classes_section(found, tables, labels, held_out_labels, seed, settings)),
        ("Quality", _quality(found)),
        ("Two runs", "" if other is None else _two_runs(found, other, differences)),
        ("Training", _training(found, other)),
        ("Likelihood", _likelihood(found)),
        ("Memorisation", _memorisation(found)),
        ("Where the error comes from", _causes(found, diagnosis)),
        ("How to reproduce", _reproduce(found, commands, seed, settings)),
        ("Time and memory", _costs(found, costs or {}) if times else ""),
    ]
    return page(title, _lead(found, other, differences), sections)


def _lead(found: Findings, other: Findings | None, differences: list[Difference]) -> str:
    """Return the verdict in a few sentences."""
    judgement, likelihood = found.judgement, found.judgement[LIKELIHOOD]
    kind = "bad" if judgement.failed else "good" if judgement.rows >= FEW_ROWS else ""
    error = found.densities["held-out rows"].std(ddof=1) / np.sqrt(len(found.densities["held-out rows"]))
    more = [judgement.remark] if judgement.remark else []
    more += [f"Held-out rows have a mean log-likelihood of {likelihood.value:.3f} ± {error:.3f} nats."]
    copied = judgement[COPIES]
    if copied.verdict not in (SAME, TOO_FEW):
        more.append(
            f"{copied.value:.1%} of the samples lie nearer to training rows than {copied.floor:.1%} of fresh rows do."
        )
    if found.diagnosis is not None and found.diagnosis.cause != "sound":
        more.append(found.diagnosis.advice)
    if other is not None:
        clear = [f"{d.name} {d.verdict}" for d in differences if abs(d.sigma) >= 3]
        more.append(
            f"Beside {other.name}, at three standard errors: " + (", ".join(clear) if clear else "no difference") + "."
        )
    return f'<div class="verdict {kind}">{paragraph(judgement.verdict)}{paragraph(" ".join(more), "soft")}</div>'


def kind_of(values: Array) -> str:
    """Return what kind of numbers a column holds, in words."""
    distinct = np.unique(values)
    if len(distinct) == 1:
        return "constant"
    if len(distinct) == 2:
        return "two values"
    if np.all(values == np.round(values)):
        return "whole numbers"
    return f"real numbers, {1 - len(distinct) / len(values):.0%} repeated" if len(distinct) < 0.9 * len(values) else (
        "real numbers"
    )  # fmt: skip


def _trained(found: Findings, tables: Tables, kinds: Mapping[str, str]) -> str:
    model, training = found.model, tables.training
    weights = sum(value.numel() for value in model.denoiser.backbone.parameters())
    words = (
        f"{len(training)} rows of {model.n_dims} columns were trained on, {len(tables.held_out)} held out. The "
        f"network, {type(model.denoiser.backbone).__name__}, has {weights:,} weights."
    )
    if model.conditions is not None and model.conditions.classes:
        words += f" It knows {len(model.conditions.classes)} classes."
    rows = []
    for name, own, drawn in zip(tables.columns, training.T, found.samples.T, strict=True):
        low, high = np.quantile(own, [0.05, 0.95])
        numbers = [f"{x:.4g}" for x in (own.mean(), own.std(), low, high, drawn.mean(), drawn.std())]
        rows.append([name, kinds.get(name, kind_of(own)), *numbers])
    head = ["column", "kind", "mean", "deviation", "5%", "95%", "samples: mean", "deviation"]
    return paragraph(words) + table(head, rows, numbers=range(2, 8))


def _rated(figure: Figure) -> tuple[str, str]:
    kind = {SAME: "good", TOO_FEW: "dull"}.get(figure.verdict, "bad")
    return kind, figure.verdict


def _quality(found: Findings) -> str:
    judgement = found.judgement

    def rows(figures: Sequence[Figure]) -> list[list[Any]]:
        cells = [(figure, figure_cells(figure)) for figure in figures]
        return [[c[0], _rated(f), sigma_bar(f.sigma, kind=_rated(f)[0]), *c[1:6]] for f, c in cells]

    few = (
        f" With fewer than {FEW_ROWS} held-out rows the luck of the split shows as well, so nothing is called worse "
        f"that is not also {CLEAR:g} standard errors off."
        if judgement.rows < FEW_ROWS
        else ""
    )
    head = ["figure", "verdict", "sigmas worse", "samples", "fresh rows", "±", "p", "rows"]
    parts = [
        paragraph(
            "Each figure of the samples stands beside what as many fresh rows get. Distances are in standard "
            "deviations of the columns. ± is one standard error; the shaded band is two of them. p is the "
            "probability of a value so bad if the samples were fresh rows. Each verdict stands alone: one in twenty is "
            f"wrong by chance, so the verdict at the top counts {judgement.tests} tests at once, by Holm's correction."
            + few
        ),
        table(head, rows(judgement.figures), numbers=range(3, 8)),
        "<details><summary>What each figure says, and what it is blind to</summary><dl>",
        *(f"<dt>{text(f.name)}</dt><dd>{text(f.explanation)}</dd>" for f in judgement.figures),
        "</dl></details>",
    ]
    for title, figures, what in (
        ("Columns, worst first", judgement.columns, "Largest difference of the distribution functions"),
        ("Pairs of columns, worst first", judgement.pairs, "Absolute error of the correlation"),
    ):
        if figures:
            more = f" The worst 10 of {len(figures)}." if len(figures) > 10 else ""
            parts += [
                f"<h3>{title}</h3>", paragraph(f"{what}; p-values hold for all of them at once.{more}", "soft"),
                table([title.split(",")[0].lower(), *head[1:]], rows(figures[:10]), numbers=range(3, 8)),
            ]  # fmt: skip
    return "\n".join(parts)


def _differences(
    found: Findings, other: Findings, tables: Tables, seed: int, max_rows: int
) -> list[Difference]:  # fmt: skip
    pairs = {"log_prob": found, "other_log_prob": other}
    densities = {name: one.densities["held-out rows"] for name, one in pairs.items()}
    if len(tables.held_out) < 20:
        return []
    order = np.random.default_rng(seed).permutation(len(tables.held_out))
    return compare(
        found.samples, other.samples, tables.held_out[order], training=tables.training, random_state=seed,
        max_rows=max_rows, **densities,
    )  # fmt: skip


def _two_runs(found: Findings, other: Findings, differences: list[Difference]) -> str:
    if not differences:
        return paragraph("Too few held-out rows to set two runs beside each other.")
    rows = []
    for d in differences:
        kind = "bad" if d.sigma <= -2 else "good" if d.sigma >= 2 else "dull"
        numbers = [f"{d.value:.4g}", f"{d.other:.4g}", f"{d.difference:.3g}", f"{d.error:.2g}"]
        rows.append([d.name, (kind, d.verdict), sigma_bar(-d.sigma, kind=kind), *numbers])
    head = ["figure", f"{found.name} is", "sigmas worse", found.name, other.name, "difference", "±"]
    return (
        paragraph(
            "Both draw from the same noise and are compared with the same held-out rows. The error of the difference "
            "is that of leaving out one of twenty blocks of rows after the other; of the likelihood, row by row. Each "
            "line stands alone, at two standard errors."
        )
        + table(head, rows, numbers=range(3, 7))
        + f"<h3>{text(found.name)}</h3>" + paragraph(_sentences(found))
        + f"<h3>{text(other.name)}</h3>" + paragraph(_sentences(other))
    )  # fmt: skip


def _sentences(found: Findings) -> str:
    return f"{found.judgement.verdict} {found.judgement.remark}".rstrip()


def _training(found: Findings, other: Findings | None) -> str:
    def drawn(one: Findings) -> str:
        svg = inline_svg(
            lambda figure: plot_log(figure.subplots(), one.log), size=(5.6, 3.0), label=f"Losses by epoch, {one.name}"
        )
        return picture(svg, "" if other is None else one.name, "one")

    pictures = [drawn(one) for one in (found, other) if one is not None and one.log]
    if not pictures:
        return paragraph("No log of the training was handed over.", "soft")
    words = (
        "Losses of the averaged weights on the same rows and noise at each epoch. Below the dotted line of a network "
        "that memorises no loss on training rows can fall."
    )
    return paragraph(words) + grid(pictures)


def _likelihood(found: Findings) -> str:
    rows = []
    for name, values in found.densities.items():
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        rows.append([name, f"{values.mean():.4f}", f"{error:.4f}", len(values)])
    svg = inline_svg(
        lambda figure: plot_distribution(
            figure.subplots(), {name: (values, COLOURS[name]) for name, values in found.densities.items()},
            label="log-density, nats",
        ),
        size=(5.6, 3.0), label="Log-densities of held-out rows, training rows and samples",
    )  # fmt: skip
    words = (
        f"Log-density in nats, in the units of the table, of the data blurred by {found.model.inference.sigma_min:g} "
        "standard deviations. Training rows far above held-out rows are a sign of memorising; samples above or below "
        "held-out rows show a model that is too narrow or too wide. The last half a "
        "percent on each side is drawn at the edge."
    )
    head = ["rows", "mean", "±", "number"]
    return paragraph(words) + table(head, rows, numbers=(1, 2, 3)) + picture(svg, kind="one")


def _memorisation(found: Findings) -> str:
    copied = found.judgement[COPIES]
    svg = inline_svg(
        lambda figure: plot_distribution(
            figure.subplots(), {name: (values, COLOURS[name]) for name, values in found.nearest.items()},
            label="distance to the nearest training row, standard deviations", log=True,
        ),
        size=(5.6, 3.0), label="Distances to the nearest training row, of held-out rows and of samples",
    )  # fmt: skip
    words = (
        f"{copied.value:.2%} of the samples lie nearer to a training row than {copied.floor:.2%} of fresh rows are "
        f"expected to (p = {copied.p_value:.2g}): {copied.verdict}. Copies show as a bump on the left."
    )
    return paragraph(words) + picture(svg, kind="one")


def _causes(found: Findings, asked: bool) -> str:
    diagnosis = found.diagnosis
    if diagnosis is None:
        why = "there are fewer than 48 held-out rows" if asked else "it was not asked for"
        return paragraph(f"The error was not split into parts: {why}.", "soft")
    from pointdiffusion.visuals.diagnosis import plot_losses, plot_parts

    parts = {"total": diagnosis.total, **diagnosis.parts}
    pictures = [
        inline_svg(lambda figure: plot_parts(figure.subplots(), parts), size=(4.6, 3.0), label="Parts of the error"),
        inline_svg(
            lambda figure: plot_losses(figure.subplots(), diagnosis.profile, known=False), size=(4.6, 3.0),
            label="Excess loss of the network by noise level",
        ),
    ]  # fmt: skip
    rows = [[name, f"{part.value:.5f}", f"{part.error:.5f}", MEANINGS[name]] for name, part in parts.items()]
    told = diagnosis.advice
    if diagnosis.cause == "sound":
        told = "By the energy distance, on which the split rests, the samples cannot be told from fresh data."
        if found.judgement.failed:
            told += " What other tests see besides is not split."
    words = (
        f"{told} Parts of the squared energy distance to {diagnosis.n_samples} held-out rows, without "
        "bias, so a part may come out below 0."
    )
    head = ["part", "value", "±", "what it is"]
    return paragraph(words) + grid(map(picture, pictures)) + table(head, rows, numbers=(1, 2))


def _reproduce(found: Findings, commands: Sequence[str], seed: int, settings: Mapping[str, Any]) -> str:
    model, parts = found.model, []
    if commands:
        parts += [paragraph("On the shell:"), f"<pre><code>{text(chr(10).join(commands))}</code></pre>"]
    told = "".join(f", {name}={value!r}" for name, value in settings.items())
    lines = [
        "import pointdiffusion as ptd", "", 'model = ptd.load("model.pt")',
        f"samples = model.sample({len(found.samples)}, seed={seed}{told})",
        f"page = ptd.report(model, training, held_out, seed={seed}{told})",
    ]  # fmt: skip
    parts += [paragraph("In Python:"), f"<pre><code>{text(chr(10).join(lines))}</code></pre>"]
    for name, config in (("training", model.training), ("sampling", model.inference)):
        if config is not None:
            yaml = text(config.to_yaml().rstrip())
            parts.append(f"<details><summary>Settings of {name}</summary><pre><code>{yaml}</code></pre></details>")
    versions = {"pointdiffusion": __version__, "Python": platform.python_version()}
    versions |= {name: version(name) for name in PACKAGES}
    if model.version != __version__:
        versions["pointdiffusion, of the training"] = model.version
    parts.append(table(["package", "version"], versions.items()))
    return "\n".join(parts)


def _costs(found: Findings, costs: Mapping[str, str]) -> str:
    rows = [[what, value] for what, value in costs.items()]
    rows += [[what, f"{seconds:.2f} s"] for what, seconds in found.seconds.items()]
    peak = peak_memory()
    if peak is not None:
        rows.append(["most memory held by this process", f"{peak:.0f} MiB"])
    rows.append(["device", str(next(found.model.denoiser.parameters()).device)])
    return table(["what", "how much"], rows)
