"""Everything that is wrong with a table in one message, with how to mend it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pointdiffusion.tabular.cells import OR_LABEL, ColumnError, Place

_SHOWN_ROWS = 3
_SHOWN_COLUMNS = 3
_MOST_NAMES = 20


class Problems:
    """Problems of the columns of a table, collected while its rows are read.

    Args:
        title: Name of the table in messages.
        label: Name of the label column, if any.
        missing: Treatment of rows that lack a value.
        for_model: Whether the table is read for a model, which needs each of its columns.
    """

    def __init__(self, title: str, label: str | None, missing: str, *, for_model: bool) -> None:
        self._title, self._label, self._missing, self._for_model = title, label, missing, for_model
        self._errors: dict[str, ColumnError] = {}
        self._gaps: dict[str, tuple[int, list[str]]] = {}

    def __bool__(self) -> bool:
        return bool(self._errors or self._gaps)

    @property
    def columns(self) -> set[str]:
        """Names of the columns that cannot be read, apart from missing values."""
        return set(self._errors)

    def note(self, name: str, error: ColumnError) -> None:
        """Record what is wrong with a column; only the first problem of each counts."""
        self._errors.setdefault(name, error)

    def note_gaps(self, name: str, lacking: NDArray[np.bool_], place: Place) -> None:
        """Record in which rows of a batch a column lacks a value."""
        rows = np.flatnonzero(lacking)
        if len(rows):
            number, some = self._gaps.get(name, (0, []))
            self._gaps[name] = number + len(rows), some + [place(int(at)) for at in rows[: _SHOWN_ROWS - len(some)]]

    def error(self, modelled: Sequence[str]) -> ValueError:
        """Return the error that names all problems, given the names of the modelled columns."""
        groups: dict[tuple[str, bool], list[str]] = {}
        for name, error in self._errors.items():
            groups.setdefault((error.cure, error.is_text), []).append(name)
        parts = [self._about(names, *cure, modelled) for cure, names in groups.items()]
        if self._gaps:
            parts.append(self._about_gaps())
        if len(parts) == 1:
            return ValueError(parts[0])
        return ValueError(
            f"{self._title} has several problems: " + "; ".join(f"({k}) {p}" for k, p in enumerate(parts, 1))
        )

    def _about(self, names: list[str], cure: str, is_text: bool, modelled: Sequence[str]) -> str:
        """Return what is wrong with columns of one cure, and the cure."""
        some = "; ".join(self._errors[name].problem for name in names[:_SHOWN_COLUMNS])
        rest = names[_SHOWN_COLUMNS:]
        if rest:
            more = f" and {len(rest) - _MOST_NAMES} more" if len(rest) > _MOST_NAMES else ""
            some += f"; and so do {', '.join(map(repr, rest[:_MOST_NAMES]))}{more}"
        if self._for_model and "leave the column out" in cure:
            return f"{some}; the model needs a number there"
        one = len(names) == 1
        if not one:
            cure = cure.replace("the column", "these columns")
            if "leave these columns out" in cure:
                cure = cure.replace("out", f"out{self._with_the_others(modelled)}", 1)
        if is_text and self._label is None:
            cure += OR_LABEL if one else OR_LABEL.replace("it", "one of them")
        return f"{some}; {cure}"

    def _with_the_others(self, modelled: Sequence[str]) -> str:
        """Return the option that leaves all bad columns out, where it is short."""
        good = [name for name in modelled if name not in self._errors]
        if not good or len(good) > _MOST_NAMES or any("," in name for name in good):
            return ""
        return f" with --columns {','.join(good)} (columns=)"

    def _about_gaps(self) -> str:
        """Return where values are missing, and how to mend that."""
        parts = [
            f"column {name!r} in {', '.join(rows)}{f' and {number - len(rows)} more' if number > len(rows) else ''}"
            for name, (number, rows) in list(self._gaps.items())[:_SHOWN_COLUMNS]
        ]
        rest = list(self._gaps)[_SHOWN_COLUMNS:]
        if rest:
            more = f" and {len(rest) - _MOST_NAMES} more" if len(rest) > _MOST_NAMES else ""
            parts.append(f"and {', '.join(map(repr, rest[:_MOST_NAMES]))}{more}")
        return f"values are missing in {self._title}: {'; '.join(parts)}; {self._cure_of_gaps()}"

    def _cure_of_gaps(self) -> str:
        drop = "leave these rows out with --drop-missing (missing='drop')"
        if self._missing == "keep":  # so the label alone
            return "fill in the classes, or leave " + ("that column out" if self._for_model else "these rows out")
        if self._label in self._gaps:
            return drop
        return drop + (
            ", or fill them with impute" if self._for_model else ", or train with the gaps with --mask (missing='keep')"
        )
