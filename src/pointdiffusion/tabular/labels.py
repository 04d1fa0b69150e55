"""Class labels: plain numbers and strings, and the order in which models number them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pointdiffusion.tabular.cells import is_missing


def in_order(labels: Iterable[Any]) -> list[Any]:
    """Return the distinct classes in the order in which models number them: integers, then strings.

    Args:
        labels: Labels, possibly repeated.

    Returns:
        The classes, sorted.

    Examples:
        >>> in_order(["b", 3, "a", 1, "b"])
        [1, 3, 'a', 'b']
    """
    return sorted(set(labels), key=lambda value: (str(type(value)), value))


def as_labels(labels: Any) -> list[Any]:
    """Return labels as plain integers and strings.

    Args:
        labels: A list, array, tensor, series or Arrow column of integers or strings.

    Returns:
        A list; floats that are integers become such.

    Raises:
        ValueError: If an entry is neither an integer nor a string, or is missing.
    """
    plain = next((getattr(labels, name) for name in ("to_pylist", "tolist") if hasattr(labels, name)), None)
    values = list(labels) if plain is None else plain()
    values = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    gap = next((row for row, value in enumerate(values) if is_missing(value)), None)
    if gap is not None:
        raise ValueError(f"the label of row {gap} is missing; drop such rows, or give them their own class")
    wrong = [value for value in values if not isinstance(value, (str, int))]
    if wrong:
        raise ValueError(f"labels must be a list of integers or strings, got {wrong[0]!r}; convert them")
    return values
