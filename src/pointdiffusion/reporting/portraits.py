"""Sections of a report that show samples beside data: the most telling pairs and columns, and each class by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pointdiffusion.metrics.evaluation import LEVEL, MIN_EVALUATION_ROWS, SAME, TOO_FEW
from pointdiffusion.metrics.marginals import correlations
from pointdiffusion.metrics.two_sample import energy_test, holm
from pointdiffusion.reporting.findings import Findings, Tables
from pointdiffusion.reporting.inline import DATA_COLOUR, OTHER_COLOUR, SAMPLES_COLOUR, inline_svg
from pointdiffusion.reporting.page import grid, paragraph, picture, table
from pointdiffusion.reporting.summary import limits_of, plot_marginal, plot_pair, short
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.tabular.labels import as_labels

MOST_COLUMNS, MOST_PAIRS, WORST_PAIRS, MOST_MARGINALS, MOST_DOTS, MOST_CLASSES = 6, 8, 3, 8, 2000, 12


def telling_pairs(found: Findings, tables: Tables) -> list[tuple[int, int]]:
    """Return the pairs of columns to draw: all of six columns or fewer, else the worst three and the most dependent."""
    n_dims = len(tables.columns)
    i, j = np.triu_indices(n_dims, 1)
    pairs = [(int(a), int(b)) for a, b in zip(i, j, strict=True)]
    if n_dims <= MOST_COLUMNS:
        return pairs
    place = {f"{tables.columns[a]}, {tables.columns[b]}": (a, b) for a, b in pairs}
    worst = [place[figure.name] for figure in found.judgement.pairs[:WORST_PAIRS]]
    strength = np.abs(correlations(tables.training))
    strongest = sorted(pairs, key=lambda pair: -strength[pair])
    return [*worst, *(pair for pair in strongest if pair not in worst)][:MOST_PAIRS]


def telling_columns(found: Findings, tables: Tables) -> list[int]:
    """Return the columns whose distribution to draw: all of eight or fewer, else the worst."""
    if len(tables.columns) <= MOST_MARGINALS or not found.judgement.columns:
        return list(range(len(tables.columns)))[:MOST_MARGINALS]
    return [tables.columns.index(figure.name) for figure in found.judgement.columns[:MOST_MARGINALS]]


def samples_section(found: Findings, tables: Tables, other: Findings | None, seed: int) -> str:
    """Return pictures of pairs and of columns."""
    own = "samples" if other is None else found.name
    rng = np.random.default_rng(seed)
    data = tables.training[rng.permutation(len(tables.training))[:MOST_DOTS]]
    sets = {"training rows": (data, DATA_COLOUR), own: (found.samples[: len(data)], SAMPLES_COLOUR)}
    if other is not None:
        sets[other.name] = (other.samples[: len(data)], OTHER_COLOUR)
    names, parts = tables.columns, []
    pairs = telling_pairs(found, tables)
    if pairs:
        shown = "" if len(names) <= MOST_COLUMNS else " The three worst pairs and those that hang together most."
        parts.append(paragraph(f"{len(data)} rows of each, in the same limits.{shown}"))
        parts.append(grid((_pair(sets, data, pair, names) for pair in pairs), "large"))
    parts.append("<h3>Column by column</h3>")
    columns = telling_columns(found, tables)
    if len(columns) < len(names):
        parts.append(paragraph(f"The {len(columns)} columns of {len(names)} that are farthest off.", "soft"))
    whole = {"training rows": (tables.training, DATA_COLOUR), own: (found.samples, SAMPLES_COLOUR)}
    if other is not None:
        whole[other.name] = (other.samples, OTHER_COLOUR)
    parts.append(grid((_marginal(whole, k, names[k]) for k in columns), "small"))
    return "\n".join(parts)


def _pair(sets: Mapping[str, tuple[Array, str]], data: Array, pair: tuple[int, int], names: list[str]) -> str:
    columns = list(pair)
    limits = [limits_of(data[:, k]) for k in columns]
    own = (names[pair[0]], names[pair[1]])

    def panel(title: str, points: Array, colour: str) -> str:
        return inline_svg(
            lambda figure: plot_pair(figure.subplots(), points, limits, colour=colour, title=title, names=own),
            size=(2.6, 2.7), label=f"{own[0]} and {own[1]}: {title}",
        )  # fmt: skip

    panels = (panel(title, points[:, columns], colour) for title, (points, colour) in sets.items())
    caption = "" if all(short(name) == name for name in own) else f"{own[0]} and {own[1]}"
    return picture(f'<div class="panels">{"".join(panels)}</div>', caption)


def _marginal(sets: Mapping[str, tuple[Array, str]], column: int, name: str) -> str:
    values = {label: (points[:, column], colour) for label, (points, colour) in sets.items()}
    svg = inline_svg(
        lambda figure: plot_marginal(figure.subplots(), values, name), size=(3.2, 2.1), label=f"Distribution of {name}"
    )
    return picture(svg)


def classes_section(
    found: Findings, tables: Tables, labels: Any, held_out_labels: Any, seed: int, settings: Mapping[str, Any]
) -> str:  # fmt: skip
    """Return pictures and tests of each class, for a model that knows classes; nothing for another."""
    conditions = found.model.conditions
    if labels is None or conditions is None or not conditions.classes:
        return ""
    seen = _checked("labels", labels, len(tables.training))
    fresh = None if held_out_labels is None else _checked("held_out_labels", held_out_labels, len(tables.held_out))
    pairs, rows, pictures, p_values = telling_pairs(found, tables)[:1], [], [], []
    for value in conditions.classes[:MOST_CLASSES]:
        own = tables.training[[label == value for label in seen]]
        held = None if fresh is None else tables.held_out[[label == value for label in fresh]]
        count = max(200, 0 if held is None else min(len(held), 1000))
        drawn = found.model.sample(count, seed=seed, **{**settings, "labels": value})
        enough = held is not None and len(held) >= MIN_EVALUATION_ROWS
        p_values.append(_energy_p(found, drawn, held[:1000], seed) if enough and held is not None else None)
        rows.append([str(value), len(own), "" if held is None else len(held)])
        if pairs and len(own):
            sets = {f"{value}: training rows": (own[:MOST_DOTS], DATA_COLOUR), "samples": (drawn, SAMPLES_COLOUR)}
            pictures.append(_pair(sets, own, pairs[0], tables.columns))
    for row, told in zip(rows, _class_verdicts(p_values), strict=True):
        row += told
    more = f" The first {MOST_CLASSES} of {len(conditions.classes)}." if len(conditions.classes) > MOST_CLASSES else ""
    words = (
        "Samples of each class beside rows of that class; p is that of the energy distance to held-out rows of the "
        f"class, with Holm's correction for the number of classes.{more}"
    )
    head = ["class", "training rows", "held-out rows", "p", "verdict"]
    return paragraph(words) + table(head, rows, numbers=(1, 2, 3)) + grid(pictures, "large")


def _class_verdicts(p_values: list[float | None]) -> list[list[Any]]:
    """Return p, corrected for the number of classes that have one, and the verdict of each class."""
    corrected = iter(holm([p for p in p_values if p is not None]))
    cells: list[list[Any]] = []
    for p in p_values:
        one = None if p is None else float(next(corrected))
        verdict = ("dull", TOO_FEW) if one is None else ("bad", "off") if one < LEVEL else ("good", SAME)
        cells.append(["" if one is None else f"{one:.2g}", verdict])
    return cells


def _energy_p(found: Findings, drawn: Array, held: Array, seed: int) -> float:
    n, transform = min(len(drawn), len(held)), found.model.standardiser.transform
    return energy_test(transform(drawn[:n]), transform(held[:n]), permutations=199, random_state=seed)


def _checked(name: str, labels: Any, rows: int) -> list[Any]:
    values = as_labels(labels)
    if len(values) != rows:
        raise ValueError(f"{name} must have one label for each of {rows} rows, got {len(values)}")
    return values
