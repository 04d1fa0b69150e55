"""Class labels: plain numbers and strings, and the order in which models number them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pointdiffusion.tabular.cells import is_missing


def in_order(labels: Iterable[Any]) -> list[Any]:
    """Return the classes among labels in the order in which models number them: whole numbers, then texts."""
    return sorted(set(labels), key=lambda value: (str(type(value)), value))


def as_labels(labels: Any) -> list[Any]:
    """Return classes as plain numbers and texts.

    Raises:
        ValueError: If they are no list of numbers or texts, or some are missing.
    """
    plain = next((getattr(labels, name) for name in ("to_pylist", "tolist") if hasattr(labels, name)), None)
    values = list(labels) if plain is None else plain()
    values = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    gap = next((row for row, value in enumerate(values) if is_missing(value)), None)
    if gap is not None:
        raise ValueError(f"the label of row {gap} is missing; leave such rows out, or give them a class of their own")
    wrong = [value for value in values if not isinstance(value, (str, int))]
    if wrong:
        raise ValueError(f"labels must be a list of whole numbers or texts, got {wrong[0]!r}; name the classes so")
    return values
