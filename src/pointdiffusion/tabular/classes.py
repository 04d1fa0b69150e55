"""The label column: strings or integers that name the class of each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointdiffusion.tabular.cells import ColumnError, Place, Raw, plain_cells, shown
from pointdiffusion.tabular.columns import LARGEST_INTEGER, MOST_CLASSES, LabelColumn


class Classes:
    """The classes in a label column so far, or those of an earlier table.

    Args:
        name: Name of the column.
        known: The label column of an earlier table, whose classes are the only ones allowed.
        is_text: Whether the cells are those of a text file: classes are integers there if all of them are.
    """

    def __init__(self, name: str, known: LabelColumn | None = None, *, is_text: bool = False) -> None:
        self._name, self._known, self._is_text = name, known, is_text
        self._dtype = ""
        self._codes: dict[Any, int] = {}
        if known is not None:
            for code, value in enumerate(known.classes):
                self._codes |= {value: code, str(value): code}  # a number is a string where the other file is text
                if known.dtype == "bool":
                    self._codes |= {str(bool(value)): code}

    def codes(self, raw: Raw, place: Place) -> NDArray[np.int64]:
        """Return the index of the class of each cell, -1 where it is missing.

        Args:
            raw: The cells.
            place: Names a row in messages.

        Returns:
            Indices, shape `(N,)`.

        Raises:
            ColumnError: If a cell is neither a string nor an integer, is not a known class, or there are too many.
        """
        found, dtype = to_classes(self._name, raw, place)
        if self._known is not None:
            self._check_known(found, place, self._known.classes)
        elif self._dtype not in ("", dtype):
            raise ColumnError(f"label column {self._name!r} mixes strings and numbers", "use one of them")
        self._dtype = dtype
        codes = [-1 if value is None else self._codes.setdefault(value, len(self._codes)) for value in found]
        if self._known is None and len(self._codes) > MOST_CLASSES:
            raise ColumnError(
                f"label column {self._name!r} holds more than {MOST_CLASSES} classes",
                "name a column with fewer, or none",
            )
        return np.array(codes, dtype=np.int64)

    def _check_known(self, found: list[Any], place: Place, classes: Sequence[Any]) -> None:
        for at, value in enumerate(found):
            if value is not None and value not in self._codes:
                some = ", ".join(map(repr, classes[:10])) + (", ..." if len(classes) > 10 else "")
                cell = f"{shown(value)} in {place(at)}"
                raise ColumnError(
                    f"label column {self._name!r} holds {cell}, which is not a class of the model",
                    f"its classes are {some}",
                )

    def column(self, position: int) -> LabelColumn:
        """Return the label column at an index among all columns."""
        classes, dtype = list(self._codes), self._dtype
        if self._is_text and all(_is_plain_integer(text) for text in classes):
            classes, dtype = [int(text) for text in classes], "int64"
        return LabelColumn(self._name, position, dtype, tuple(sorted(classes)))

    def labels(self, codes: NDArray[np.int64]) -> NDArray[Any]:
        """Return the class of each row, strings or integers, shape `(N,)`, from its index, shape `(N,)`."""
        if self._known is not None:
            return np.array(self._known.classes)[codes]
        integers = self.column(0).dtype != "str"
        return np.array([int(value) if integers else value for value in self._codes])[codes]


def to_classes(name: str, raw: Raw, place: Place) -> tuple[list[Any], str]:
    """Return some cells of a label column as classes, and their type in the table.

    Args:
        name: Name of the column.
        raw: The cells.
        place: Names a row in messages.

    Returns:
        Strings or integers, None where one is missing; and `"str"`, `"bool"` or the type of the numbers.

    Raises:
        ValueError: If a cell is neither a string nor an integer.
    """
    cells = plain_cells(name, raw, place)
    if isinstance(cells, list):
        return [text if text.strip() else None for text in cells], "str"
    values = cells.astype(np.float64)
    with np.errstate(invalid="ignore"):
        wrong = ~(np.isnan(values) | ((values == np.floor(values)) & (np.abs(values) < LARGEST_INTEGER)))
    if wrong.any():
        at = int(wrong.argmax())
        raise ColumnError(
            f"label column {name!r} holds {cells[at]} in {place(at)}", "a class must be a string or an integer"
        )
    return [None if value != value else int(value) for value in values.tolist()], raw.dtype or cells.dtype.name


def _is_plain_integer(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 16 and str(int(text)) == text
