"""The version, alone in a file, so that the build can read it without importing anything."""

__version__ = "0.2.0.dev0"


def is_newer(version: str) -> bool:
    """Return whether `version`, as a file states it, is a later release than this one; False if it is no version.

    Examples:
        >>> is_newer("999.0"), is_newer(__version__), is_newer("nightly")
        (True, False, False)
    """
    theirs, ours = (_release(text) for text in (version, __version__))
    return theirs > ours


def _release(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version without trailing zeros: `1.2.0rc1` and `1.2` are both (1, 2)."""
    numbers = []
    for part in version[:40].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
