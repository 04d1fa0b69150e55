"""Sections of a report that show samples beside data: the most informative pairs and columns, and each class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pointdiffusion.metrics.marginals import correlations
from pointdiffusion.metrics.results import LEVEL, MIN_EVALUATION_ROWS, SAME, TOO_FEW
from pointdiffusion.metrics.two_sample import energy_test, holm
from pointdiffusion.reporting.measurements import Measurements, Tables
from pointdiffusion.reporting.plots import limits_of, plot_marginal, plot_pair, short
from pointdiffusion.reporting.rendering import Cell
from pointdiffusion.reporting.svg import DATA_COLOUR, OTHER_COLOUR, SAMPLES_COLOUR, inline_svg
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.tabular.labels import as_labels

MAX_COLUMNS, MAX_PAIRS, WORST_PAIRS, MAX_MARGINALS, MAX_DOTS, MAX_CLASSES = 6, 8, 3, 8, 2000, 12


class Pair(NamedTuple):
    """Plots of a pair of columns, a panel per set of rows, and the names of the columns where a plot shortens them."""

    panels: list[str]
    caption: str


def informative_pairs(measured: Measurements, tables: Tables) -> list[tuple[int, int]]:
    """Return the pairs of columns to draw: all of six columns or fewer, else the worst three and the most dependent."""
    n_dims = len(tables.columns)
    i, j = np.triu_indices(n_dims, 1)
    pairs = [(int(a), int(b)) for a, b in zip(i, j, strict=True)]
    if n_dims <= MAX_COLUMNS:
        return pairs
    by_name = {f"{tables.columns[a]}, {tables.columns[b]}": (a, b) for a, b in pairs}
    worst = [by_name[result.name] for result in measured.evaluation.pairs[:WORST_PAIRS]]
    strength = np.abs(correlations(tables.training))
    strongest = sorted(pairs, key=lambda pair: -strength[pair])
    return [*worst, *(pair for pair in strongest if pair not in worst)][:MAX_PAIRS]


def informative_columns(measured: Measurements, tables: Tables) -> list[int]:
    """Return the columns whose distribution to draw: all of eight or fewer, else the worst."""
    if len(tables.columns) <= MAX_MARGINALS or not measured.evaluation.columns:
        return list(range(len(tables.columns)))[:MAX_MARGINALS]
    return [tables.columns.index(result.name) for result in measured.evaluation.columns[:MAX_MARGINALS]]


def samples_section(measured: Measurements, tables: Tables, other: Measurements | None, seed: int) -> dict[str, Any]:
    """Return plots of pairs of columns and of single columns."""
    own = "samples" if other is None else measured.name
    rng = np.random.default_rng(seed)
    data = tables.training[rng.permutation(len(tables.training))[:MAX_DOTS]]
    sets = {"training rows": (data, DATA_COLOUR), own: (measured.samples[: len(data)], SAMPLES_COLOUR)}
    everything = {"training rows": (tables.training, DATA_COLOUR), own: (measured.samples, SAMPLES_COLOUR)}
    if other is not None:
        sets[other.name] = (other.samples[: len(data)], OTHER_COLOUR)
        everything[other.name] = (other.samples, OTHER_COLOUR)
    names = tables.columns
    return {
        "rows": len(data),
        "columns": len(names),
        "some_pairs": len(names) > MAX_COLUMNS,
        "pairs": [_pair(sets, data, pair, names) for pair in informative_pairs(measured, tables)],
        "marginals": [_marginal(everything, k, names[k]) for k in informative_columns(measured, tables)],
    }


def _pair(sets: Mapping[str, tuple[Array, str]], data: Array, pair: tuple[int, int], names: list[str]) -> Pair:
    columns = list(pair)
    limits = [limits_of(data[:, k]) for k in columns]
    own = (names[pair[0]], names[pair[1]])

    def panel(title: str, points: Array, colour: str) -> str:
        return inline_svg(
            lambda figure: plot_pair(figure.subplots(), points, limits, colour=colour, title=title, names=own),
            size=(2.6, 2.7), label=f"{own[0]} and {own[1]}: {title}",
        )  # fmt: skip

    panels = [panel(title, points[:, columns], colour) for title, (points, colour) in sets.items()]
    return Pair(panels, "" if all(short(name) == name for name in own) else f"{own[0]} and {own[1]}")


def _marginal(sets: Mapping[str, tuple[Array, str]], column: int, name: str) -> str:
    values = {label: (points[:, column], colour) for label, (points, colour) in sets.items()}
    return inline_svg(
        lambda figure: plot_marginal(figure.subplots(), values, name), size=(3.2, 2.1), label=f"Distribution of {name}"
    )


def classes_section(
    measured: Measurements, tables: Tables, labels: Any, held_out_labels: Any, seed: int, settings: Mapping[str, Any]
) -> dict[str, Any] | None:  # fmt: skip
    """Return plots and tests of each class, for a model that was trained with classes; None for another."""
    conditions = measured.model.conditions
    if labels is None or conditions is None or not conditions.classes:
        return None
    by_row = _checked("labels", labels, len(tables.training))
    fresh = None if held_out_labels is None else _checked("held_out_labels", held_out_labels, len(tables.held_out))
    first_pair, rows, pairs = informative_pairs(measured, tables)[:1], [], []
    p_values: list[float | None] = []
    for value in conditions.classes[:MAX_CLASSES]:
        own = tables.training[[label == value for label in by_row]]
        held_out = None if fresh is None else tables.held_out[[label == value for label in fresh]]
        count = max(200, 0 if held_out is None else min(len(held_out), 1000))
        drawn = measured.model.sample(count, seed=seed, **{**settings, "labels": value})
        if held_out is not None and len(held_out) >= MIN_EVALUATION_ROWS:
            p_values.append(_energy_p(measured, drawn, held_out[:1000], seed))
        else:
            p_values.append(None)
        rows.append([str(value), len(own), "" if held_out is None else len(held_out)])
        if first_pair and len(own):
            sets = {f"{value}: training rows": (own[:MAX_DOTS], DATA_COLOUR), "samples": (drawn, SAMPLES_COLOUR)}
            pairs.append(_pair(sets, own, first_pair[0], tables.columns))
    rows = [[*row, *cells] for row, cells in zip(rows, _class_verdicts(p_values), strict=True)]
    return {"rows": rows, "classes": len(conditions.classes), "pairs": pairs}


def _class_verdicts(p_values: list[float | None]) -> list[list[Any]]:
    """Return p, corrected for the number of classes that have one, and the verdict of each class."""
    corrected = iter(holm([p for p in p_values if p is not None]))
    cells: list[list[Any]] = []
    for p in p_values:
        one = None if p is None else float(next(corrected))
        verdict = (
            Cell(TOO_FEW, "dull") if one is None else Cell("different", "bad") if one < LEVEL else Cell(SAME, "good")
        )
        cells.append(["" if one is None else f"{one:.2g}", verdict])
    return cells


def _energy_p(measured: Measurements, drawn: Array, held_out: Array, seed: int) -> float:
    n, transform = min(len(drawn), len(held_out)), measured.model.standardiser.transform
    return energy_test(transform(drawn[:n]), transform(held_out[:n]), permutations=199, random_state=seed)


def _checked(name: str, labels: Any, rows: int) -> list[Any]:
    values = as_labels(labels)
    if len(values) != rows:
        raise ValueError(f"{name} must have one label for each of {rows} rows, got {len(values)}")
    return values
