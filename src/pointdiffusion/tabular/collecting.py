"""Collects rows batch by batch: chooses columns, notes missing values, numbers classes, keeps a bounded number of rows.

Where a table holds more numbers than the limit, each row draws a random key, and the rows with the least keys stay:
every subset of that size is equally likely, and memory is bounded however long the table is. The schema (types, bounds,
decimals, classes) is that of all rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointdiffusion.config import unknown_name
from pointdiffusion.runtime.arrays import Array
from pointdiffusion.tabular.batches import Batch, Source
from pointdiffusion.tabular.cells import ColumnError, Place, Profile, Raw, no_number, shown, to_numbers, to_texts
from pointdiffusion.tabular.classes import Classes
from pointdiffusion.tabular.columns import MOST_COLUMNS, Column, default_names
from pointdiffusion.tabular.problems import Problems
from pointdiffusion.tabular.schema import Schema

MISSING_RULES = ("refuse", "drop", "keep")
SEARCHED_ROWS = 2**20
"""Number of rows that are searched for further problems, once there is one."""


@dataclass(frozen=True)
class Table:
    """A table as points, as `read_table` and `table_of` return it.

    Args:
        values: The modelled columns, shape `(N, D)`, float64: without constant columns; integers are not dequantised;
            NaN where a value is missing, with `missing="keep"`.
        labels: Class of each row, strings or integers, shape `(N,)`; None without a label column.
        schema: Names, types and bounds of the columns.
        rows: Index of each row in the table, from 0, increasing, shape `(N,)`.
        total_rows: Number of rows of the table, before any was dropped or subsampled.
        departs: Whether a row differs from a given schema in a column that is constant there, shape `(N,)`; None
            without a given schema.
    """

    values: Array
    labels: NDArray[Any] | None
    schema: Schema
    rows: NDArray[np.int64]
    total_rows: int
    departs: NDArray[np.bool_] | None = None


@dataclass
class _Subset:
    """A random subset of rows, all equally likely, of those that were added.

    Args:
        most: How many rows it may hold.
        seed: Of the choice.
    """

    most: int
    seed: int
    parts: list[list[NDArray[Any]]] = field(default_factory=list)
    held: int = 0
    threshold: float = np.inf

    def __post_init__(self) -> None:
        self.draw = np.random.default_rng(self.seed)

    def add(self, *part: NDArray[Any]) -> None:
        """Add rows: arrays of one length."""
        keys = self.draw.random(len(part[0]))
        chosen = keys < self.threshold
        self.parts.append([array[chosen] for array in (keys, *part)])
        self.held += int(chosen.sum())
        if self.held > self.most + self.most // 4 + 1024:
            self._thin()

    def _thin(self) -> None:
        """Drop the rows with the largest keys, part by part, so that no row is held twice."""
        if self.held <= self.most:
            return
        keys = np.concatenate([part[0] for part in self.parts])
        self.threshold = float(np.partition(keys, self.most)[self.most])
        for part in self.parts:
            stays = part[0] < self.threshold
            part[:] = [array[stays] for array in part]
        self.held = sum(len(part[0]) for part in self.parts)

    def take(self) -> tuple[NDArray[Any], ...]:
        """Return the rows that are left, in the order in which they were added, and forget them."""
        self._thin()
        parts = [part[1:] for part in self.parts]
        self.parts.clear()
        taken = []
        while parts[0]:
            taken.append(np.concatenate([part.pop(0) for part in parts]))
        return tuple(taken)


# ------------------------------------------------------------------------------------------------------- which columns


@dataclass(frozen=True)
class Choice:
    """The columns of a source that are to be read.

    Args:
        every: Names of all columns of the source.
        modelled: Names of those that become points, in order.
        label: Name of the label column.
        schema: The schema that they must fit.
        constants: Columns of the schema that are constant and that the source has.
    """

    every: list[str]
    modelled: list[str]
    label: str | None = None
    schema: Schema | None = None
    constants: tuple[Column, ...] = ()

    @property
    def wanted(self) -> list[str]:
        """Names of all columns that are read."""
        constants = [column.name for column in self.constants]
        return [*self.modelled, *constants, *([self.label] if self.label is not None else [])]


def choose_columns(
    source: Source, columns: Sequence[str] | None, label: str | None, schema: Schema | None,
    max_columns: int = MOST_COLUMNS,
) -> Choice:  # fmt: skip
    """Return which columns of a source are to be read.

    Args:
        source: The table.
        columns: Names of the columns to model; all but the label if None.
        label: Name of the label column, if any.
        schema: Schema of an earlier table that this one must fit, if any.
        max_columns: Largest number of columns to model.

    Returns:
        The columns to read.

    Raises:
        ValueError: If a column does not exist, has no name or a repeated one, or there are too many or none.
    """
    every = _all_names(source, schema)
    for name in [*(columns or []), *([label] if label is not None else [])]:
        if name not in every:
            raise unknown_name("column", name, every)
    if schema is not None:
        choice = _fitting(source, every, label, schema)
    else:
        asked = set(every if columns is None else columns)
        choice = Choice(every, [name for name in every if name in asked and name != label], label)
        if not choice.modelled:
            raise ValueError(f"no column of {source.title} is left to model besides the label; choose some")
        if len(choice.modelled) > max_columns:
            raise ValueError(
                f"{source.title} has {len(choice.modelled)} columns to model, and at most {max_columns} can be; "
                "choose some with --columns (columns=)"
            )
    _check_names(source, every, set(choice.wanted))
    return choice


def _all_names(source: Source, schema: Schema | None) -> list[str]:
    """Return the names of all columns; where there are none, those of the schema by position."""
    if source.names is not None:
        return source.names
    if schema is None:
        return default_names(source.n_columns)
    without_label = [column.name for column in schema.columns]
    with_label = list(without_label)
    if schema.label is not None:
        with_label.insert(schema.label.position, schema.label.name)
    for names in (with_label, without_label, schema.names):
        if len(names) == source.n_columns:
            return names
    raise ValueError(
        f"{source.title} has {source.n_columns} columns without names, and the model has {len(schema.names)} "
        f"({', '.join(schema.names)}); give these in this order"
    )


def _fitting(source: Source, every: list[str], label: str | None, schema: Schema) -> Choice:
    """Return the columns of a schema, which the source must have but for constants and the label."""
    absent = [name for name in schema.names if name not in every]
    if absent:
        raise ValueError(
            f"{source.title} lacks the {'column' if len(absent) == 1 else 'columns'} {', '.join(map(repr, absent))} "
            f"that the model was trained on; it has {', '.join(map(repr, every[:MOST_COLUMNS]))}"
        )
    if label is None and schema.label is not None and schema.label.name in every:
        label = schema.label.name
    constants = tuple(column for column in schema.columns if column.kind == "constant" and column.name in every)
    return Choice(every, schema.names, label, schema, constants)


def _check_names(source: Source, every: list[str], wanted: set[str]) -> None:
    """Raise a ValueError if one of the wanted columns has no name, or that of another."""
    for place, name in enumerate(every):
        if name in wanted and not name:
            raise ValueError(
                f"column {place + 1} of {source.title} has no name; name it, or choose others with --columns (columns=)"
            )
        if name in wanted and every.index(name) != place:
            raise ValueError(
                f"columns {every.index(name) + 1} and {place + 1} of {source.title} are both called {shown(name)}; "
                "rename one of them"
            )


# ---------------------------------------------------------------------------------------------------------- row by row


class Collector:
    """Reads the rows of a source into a `Table`.

    Args:
        source: The table.
        choice: The columns to read.
        missing: Treatment of rows that lack a value, one of `MISSING_RULES`.
        max_values: Largest number of values that are kept.
        seed: Seed of the random subset, where there are more.

    Raises:
        ValueError: If a setting is unknown or out of range.
    """

    def __init__(self, source: Source, choice: Choice, missing: str, max_values: int, seed: int) -> None:
        if missing not in MISSING_RULES:
            raise unknown_name("missing", missing, MISSING_RULES)
        if max_values < 1:
            raise ValueError(f"max_values must be at least 1, got {max_values}")
        self._source, self._choice, self._missing = source, choice, missing
        self._profiles = [Profile(name) for name in choice.modelled]
        self._subset = _Subset(max(1, max_values // len(choice.modelled)), seed)
        self._problems = Problems(source.title, choice.label, missing, for_model=choice.schema is not None)
        known = choice.schema.label if choice.schema is not None else None
        self._classes = Classes(choice.label, known, is_text=source.is_text) if choice.label is not None else None

    def table(self) -> Table:
        """Read all rows.

        Returns:
            The table.

        Raises:
            ValueError: If it is not a table of numbers.
        """
        total, title, choice = 0, self._source.title, self._choice
        for batch in self._source.read([choice.every.index(name) for name in choice.wanted]):
            self._take(batch)
            total += len(batch)
            if self._problems.columns and total >= SEARCHED_ROWS:
                break  # the table is refused anyway
        if not total:
            raise ValueError(f"{title} has no rows; give a table with some")
        for profile in self._profiles:
            if choice.schema is None and not profile.seen and profile.name not in self._problems.columns:
                self._problems.note(
                    profile.name,
                    ColumnError(f"column {profile.name!r} of {title} is empty", "leave the column out"),
                )
        if self._problems:
            raise self._problems.error(choice.modelled)
        if not self._subset.held:
            raise ValueError(f"every row of {title} lacks a value, so none remains when these are dropped")
        values, codes, rows, departs = self._subset.take()
        if choice.schema is not None:
            return Table(values, self._labels(codes), choice.schema, rows, total, departs)
        schema = self._schema()
        places = [place for place, column in enumerate(schema.columns) if column.kind != "constant"]
        if len(places) < values.shape[1]:
            values = values[:, places]
        return Table(values, self._labels(codes), schema, rows, total)

    def _take(self, batch: Batch) -> None:
        """Take the rows of a batch."""
        place = self._source.place(batch)
        cells = dict(zip(self._choice.wanted, batch.columns, strict=True))
        values = np.zeros((len(batch), len(self._choice.modelled)))  # (N, D)
        for index, name in enumerate(self._choice.modelled):
            with self._noting(name):
                values[:, index] = self._numbers(index, cells[name], place)
        codes = np.zeros(len(batch), dtype=np.int64)
        departs = np.zeros(len(batch), dtype=bool)
        if self._classes is not None:
            with self._noting(self._choice.wanted[-1]):
                codes = self._classes.codes(cells[self._choice.wanted[-1]], place)
        for column in self._choice.constants:
            with self._noting(column.name):
                departs |= _departing(column, cells[column.name], place)
        rows = np.arange(batch.start, batch.start + len(batch))
        gaps = np.isnan(values) if self._missing != "keep" else np.zeros(values.shape, dtype=bool)
        if self._missing == "drop":
            whole = ~gaps.any(axis=1) & (codes >= 0)
            values, codes, rows, departs = values[whole], codes[whole], rows[whole], departs[whole]
        else:
            self._note_gaps(gaps, codes, place)
        if self._problems:  # the table is refused, once all of its problems are known
            return
        if self._choice.schema is None:
            for profile, numbers in zip(self._profiles, values.T, strict=True):
                profile.add(numbers)
        self._subset.add(values, codes, rows, departs)

    @contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        """Note the problem of a column instead of raising it."""
        try:
            yield
        except ColumnError as error:
            self._problems.note(name, error)

    def _numbers(self, index: int, raw: Raw, place: Place) -> Array:
        """Return the cells of a modelled column as numbers, zeros where it cannot be read anyway."""
        profile = self._profiles[index]
        if profile.name in self._problems.columns:
            return np.zeros(len(raw.values))
        numbers = profile.numbers(raw, place)
        if self._choice.schema is not None and profile.dtype == "str":
            raise no_number(profile.name, profile.text, profile.text_place)
        return numbers

    def _note_gaps(self, gaps: NDArray[np.bool_], codes: NDArray[np.int64], place: Place) -> None:
        """Remember in which rows which columns lack a value."""
        for name, column in zip(self._choice.modelled, gaps.T, strict=True):
            self._problems.note_gaps(name, column, place)
        if self._choice.label is not None:
            self._problems.note_gaps(self._choice.label, codes < 0, place)

    def _schema(self) -> Schema:
        """Return what the columns turned out to be."""
        natives, container = self._source.natives, self._source.container
        columns = tuple(replace(each.column(), native=natives.get(each.name)) for each in self._profiles)
        if all(column.kind == "constant" for column in columns):
            what = f"column {columns[0].name!r}" if len(columns) == 1 else f"each of the {len(columns)} columns"
            raise ValueError(f"{what} of {self._source.title} holds one value only, so there is nothing to learn")
        if self._classes is None:
            return Schema(columns, None, container)
        name = self._choice.wanted[-1]
        place = [each for each in self._choice.every if each in self._choice.wanted].index(name)
        return Schema(columns, replace(self._classes.column(place), native=natives.get(name)), container)

    def _labels(self, codes: NDArray[np.int64]) -> NDArray[Any] | None:
        return None if self._classes is None else self._classes.labels(codes)


def _departing(column: Column, raw: Raw, place: Place) -> NDArray[np.bool_]:
    """Return in which rows a column that was constant holds another value."""
    if column.dtype == "str":
        return np.array([text not in ("", column.value) for text in to_texts(column.name, raw, place)], dtype=bool)
    values = to_numbers(column.name, raw, place).values
    return ~np.isnan(values) & (values != column.value)
