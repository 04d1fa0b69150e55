"""Old names of attributes; those of the package's public names are a table in its `__init__`."""

from __future__ import annotations

import warnings
from typing import Any

REMOVED_IN = "0.3"
"""Release that drops what is deprecated now."""


def warn_of_attribute(owner: str, old: str, new: str) -> None:
    """Warn, at the line that reads a property, that the property has a new name.

    Args:
        owner: Name of the class.
        old: The old name.
        new: The new name.
    """
    message = f"{owner}.{old} is deprecated and will be removed in version {REMOVED_IN}; use {owner}.{new}"
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def renamed_attribute(old: str, new: str) -> property:
    """Return a read-only property for a class: the attribute `new` under its old name, with a DeprecationWarning.

    Args:
        old: The old name, which the property is assigned to.
        new: The name of the attribute that it stands for.

    Returns:
        The property.

    Examples:
        >>> class Point:
        ...     row = 3
        ...     place = renamed_attribute("place", "row")
        >>> with warnings.catch_warnings(record=True, action="always") as caught:
        ...     Point().place
        3
        >>> print(caught[0].message)
        Point.place is deprecated and will be removed in version 0.3; use Point.row
    """

    def get(self: Any) -> Any:
        warn_of_attribute(type(self).__name__, old, new)
        return getattr(self, new)

    return property(get, doc=f"Deprecated: use `{new}`.")
