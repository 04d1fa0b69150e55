"""Cells of a table, column by column, turned into numbers or classes; whatever is neither is refused by name."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointdiffusion.runtime.arrays import Array
from pointdiffusion.tabular.columns import FLOATS, LARGEST_INTEGER, Column
from pointdiffusion.tabular.encoding import Statistics, fit_column

MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "-nan", "null", "none", "<na>", "?"})
"""Strings that mean a missing number, in lower case; a missing class is the empty string only."""

_UNREADABLE = {"M": "dates", "m": "durations", "c": "complex numbers", "S": "bytes", "V": "records"}
_SPREADSHEET = r"'*[=+\-@＝＋－＠\t\r]"
_GUARD = re.compile(rf"(^|[,;|\t\r\n])(?={_SPREADSHEET})")
_GUARDED = re.compile(rf"(^|[,;|\t\r\n])'(?={_SPREADSHEET})")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)

Place = Callable[[int], str]
"""Names a row of a batch in messages: from its index in the batch to "row 3 (line 4)"."""


@dataclass(frozen=True)
class Raw:
    """Some cells of one column as they were read.

    Args:
        values: An array of any type, or the strings of a text file.
        dtype: Type of the column where the array has another one: integers with missing values arrive as floats.
        comma: Whether the strings have decimal commas.
    """

    values: NDArray[Any] | list[str]
    dtype: str = ""
    comma: bool = False


class ColumnError(ValueError):
    """A column that cannot be read.

    Args:
        problem: What is wrong with the column.
        cure: How to mend it.
        is_text: Whether it holds strings, so that it may be meant as the label.
    """

    def __init__(self, problem: str, cure: str, *, is_text: bool = False) -> None:
        super().__init__(f"{problem}; {cure}{OR_LABEL if is_text else ''}")
        self.problem, self.cure, self.is_text = problem, cure, is_text


OR_LABEL = ", or name it as the label"


@dataclass(frozen=True)
class Numbers:
    """Some cells of one column as numbers.

    Args:
        values: The numbers, NaN where one is missing, shape `(N,)`.
        dtype: Their type in the table; empty where all are missing, `"str"` where all are the same string.
        text: That string; its cells count as 0.
    """

    values: Array
    dtype: str
    text: str = ""


def shown(value: Any) -> str:
    """Return a cell as messages show it: in quotes, at most 40 characters, control characters escaped."""
    text = str(value)
    return repr(text if len(text) <= 40 else text[:40] + "...")


def is_number(text: str) -> bool:
    """Return whether a string spells a finite number, with a decimal point if any."""
    return _NUMBER.fullmatch(text.strip()) is not None


def guard_formula(text: str) -> str:
    """Put an apostrophe before anything in a string that a spreadsheet could take for a formula.

    A formula begins with =, +, -, @, a tab or a carriage return, at the start or after a character that another program
    may take for a separator. Strings that are plain numbers stay as they are.

    Args:
        text: Any string.

    Returns:
        The safe string; `unguard_formula` undoes it.

    Examples:
        >>> guard_formula("=1+1"), guard_formula("-2.5"), guard_formula("plain")
        ("'=1+1", '-2.5', 'plain')
    """
    return text if is_number(text) else _GUARD.sub(r"\1'", text)


def unguard_formula(text: str) -> str:
    """Return the string that `guard_formula` was given."""
    return _GUARDED.sub(r"\1", text)


def to_numbers(name: str, raw: Raw, place: Place) -> Numbers:
    """Return some cells of a column as numbers.

    Args:
        name: Name of the column.
        raw: The cells.
        place: Names a row in messages.

    Returns:
        The numbers, with their type in the table.

    Raises:
        ColumnError: If a cell is neither a number nor missing, is infinite, or an integer that float64 cannot hold.
    """
    cells = plain_cells(name, raw, place)
    if isinstance(cells, list):
        found = _parse_all(name, cells, raw.comma, place)
    else:
        with np.errstate(over="ignore"):  # beyond float64 is infinite, and refused below
            values = np.asarray(cells, dtype=np.float64)
        dtype = raw.dtype or cells.dtype.name
        found = Numbers(values, "float64" if dtype.startswith("longdouble") or dtype == "float128" else dtype)
    infinite = np.isinf(found.values)
    if infinite.any():
        at = int(infinite.argmax())
        raise ColumnError(f"column {name!r} holds an infinite value in {place(at)}", "remove or replace it")
    if "int" in found.dtype and (np.abs(found.values) >= LARGEST_INTEGER).any():
        at = int((np.abs(found.values) >= LARGEST_INTEGER).argmax())
        raise ColumnError(
            f"column {name!r} holds {found.values[at]:.0f} in {place(at)}, and integers from 2^53 on are not distinct "
            "in float64",
            "leave the column out, or subtract a constant from it",
        )
    return found


def to_texts(name: str, raw: Raw, place: Place) -> list[str]:
    """Return some cells of a column as strings, missing ones empty.

    Args:
        name: Name of the column.
        raw: The cells.
        place: Names a row in messages.

    Returns:
        The strings.

    Raises:
        ValueError: If a cell is neither a string nor a number.
    """
    cells = plain_cells(name, raw, place)
    return cells if isinstance(cells, list) else ["" if value != value else str(value) for value in cells.tolist()]


def plain_cells(name: str, raw: Raw, place: Place) -> NDArray[Any] | list[str]:
    """Return numbers as an array and all else as strings, missing ones empty.

    Args:
        name: Name of the column.
        raw: The cells.
        place: Names a row in messages.

    Returns:
        An array of booleans, integers or floats, or a list of strings.

    Raises:
        ColumnError: If a cell is neither a string nor a number.
    """
    values = raw.values
    if isinstance(values, list):
        return values
    if values.ndim != 1:
        raise ColumnError(f"column {name!r} holds several numbers in one cell", "leave the column out, or split it")
    if values.dtype.kind in "biuf":
        return values
    if values.dtype.kind in _UNREADABLE:
        kind = _UNREADABLE[values.dtype.kind]
        raise ColumnError(f"column {name!r} holds {kind}, which are not real numbers", "leave the column out")
    texts = []
    for at, value in enumerate(values.tolist()):
        if is_missing(value):
            texts.append("")
        elif isinstance(value, (str, bool, np.bool_, numbers.Real, Decimal)):
            texts.append(str(value))
        else:
            kind = type(value).__name__
            raise ColumnError(
                f"column {name!r} holds a value of the type {kind} in {place(at)}, which is not a number",
                "leave the column out",
            )
    return texts


def is_missing(value: Any) -> bool:
    """Return whether a Python value stands for a missing one: None, NaN, and those of pandas and NumPy's masks."""
    if value is None or type(value).__name__ in ("NAType", "NaTType", "MaskedConstant"):
        return True
    return isinstance(value, (float, Decimal)) and value != value


def _parse(texts: list[str], comma: bool) -> tuple[Array, bool]:
    """Return strings as numbers, and whether all are written as integers.

    Raises:
        ValueError: If one of them is not a number.
    """
    joined = "\n".join(texts)
    # float() takes the digits of every script, and underscores between them.
    if "_" in joined or not joined.isascii() or (comma and "." in joined):
        raise ValueError
    if comma:
        texts = [text.replace(",", ".") for text in texts]
    return np.array(list(map(float, texts)), dtype=np.float64), not any(sign in joined for sign in ".,eEnN")


def _parse_all(name: str, texts: list[str], comma: bool, place: Place) -> Numbers:
    """Return strings as numbers, or as the one string that all of them are."""
    try:
        values, whole = _parse(texts, comma)
        return Numbers(values, "int64" if whole else "float64")
    except ValueError:
        pass  # missing values, booleans or other strings
    values = np.full(len(texts), np.nan)
    present = [at for at, text in enumerate(texts) if text.strip().lower() not in MISSING]
    found = [texts[at].strip() for at in present]
    if not found:
        return Numbers(values, "")
    if {text.lower() for text in found} <= {"true", "false"}:
        values[present] = [text.lower() == "true" for text in found]
        return Numbers(values, "bool")
    try:
        values[present], whole = _parse(found, comma)
        return Numbers(values, "int64" if whole else "float64")
    except ValueError:
        if len(set(found)) == 1:
            values[present] = 0
            return Numbers(values, "str", found[0])
    for at, text in zip(present, found, strict=True):
        try:
            _parse([text], comma)
        except ValueError as error:
            raise no_number(name, text, place(at)) from error
    raise AssertionError("strings that are numbers one by one are numbers together")


def no_number(name: str, text: str, where: str) -> ColumnError:
    """Return the error for a string where a number should be."""
    problem = f"column {name!r} holds {shown(text)} in {where}, which is not a number"
    return ColumnError(problem, "leave the column out", is_text=True)


@dataclass
class Profile:
    """Running summary of a column while its rows are read.

    Args:
        name: Name of the column.
        dtype: Type of the values so far; empty before the first.
        text: The string of a column that holds one string only.
        text_place: Name of the row where that string was first seen.
        low: Least value so far.
        high: Largest value so far.
        decimals: Decimals that the values so far need.
        seen: Whether any value was not missing.
        integers: Whether floats that are all integers count as integers.
    """

    name: str
    integers: bool = True
    dtype: str = ""
    text: str = ""
    text_place: str = ""
    low: float = math.inf
    high: float = -math.inf
    decimals: int = 0
    seen: bool = False

    def numbers(self, raw: Raw, place: Place) -> Array:
        """Return the next cells of the column as numbers.

        Args:
            raw: The cells.
            place: Names a row in messages.

        Returns:
            The numbers, NaN where one is missing, shape `(N,)`.

        Raises:
            ValueError: If they are not numbers, or mix with strings or booleans before them.
        """
        try:
            cells = to_numbers(self.name, raw, place)
        except ValueError as error:
            if self.dtype == "str":  # the first of the texts stood in an earlier batch
                raise no_number(self.name, self.text, self.text_place) from error
            raise
        self._check(cells, place)
        return cells.values

    def _check(self, cells: Numbers, place: Place) -> None:
        present = ~np.isnan(cells.values)
        if not present.any():
            return
        at = int(present.argmax())
        if self.seen and (cells.dtype, cells.text) != (self.dtype, self.text):
            if "str" in (self.dtype, cells.dtype):
                first = self.dtype == "str"
                raise no_number(self.name, self.text if first else cells.text, self.text_place if first else place(at))
            if "bool" in (self.dtype, cells.dtype):
                raise ColumnError(
                    f"column {self.name!r} mixes booleans and numbers, as in {place(at)}", "use one of them"
                )
        if cells.dtype == "str" and not self.seen:
            self.text, self.text_place = cells.text, place(at)
        self.seen = True
        self.dtype = cells.dtype if self.dtype in ("", cells.dtype) else "float64"

    def add(self, values: Array) -> None:
        """Update the summary by the numbers of some rows, NaN where one is missing."""
        values = values[~np.isnan(values)]
        if len(values):
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        narrow = np.dtype(self.dtype if self.dtype in FLOATS else "float64")
        with np.errstate(over="ignore", invalid="ignore"):
            while self.decimals <= 15 and not np.array_equal(np.round(values, self.decimals).astype(narrow), values):
                self.decimals += 1

    def column(self) -> Column:
        """Return the kind, type, bounds and decimals of the column."""
        return fit_column(
            Statistics(self.name, self.dtype, self.low, self.high, self.decimals, self.text, self.integers)
        )
