"""What the commands say, and to whom.

Results go to standard output or to a file, talk goes to standard error, so that a command can stand in a pipe. What
comes out of a file that may be hostile is shown without its control characters, which could rewrite a terminal.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from pointdiffusion.config import QualityWarning
from pointdiffusion.runtime import exit_codes
from pointdiffusion.runtime.files import regular_target, write_atomic

STREAM = "-"
"""Stands for standard input where a table is read, and for standard output where one is written."""


def say(text: str) -> None:
    """Print a line of talk to standard error."""
    print(plain(text, lines=True), file=sys.stderr, flush=True)


def say_quality_warnings() -> None:
    """Print warnings about the quality of results, a line each, to standard error; others stay as they are filtered."""

    def print_line(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        say(f"warning: {message}" if issubclass(category, QualityWarning) else f"{category.__name__}: {message}")

    warnings.filterwarnings("always", category=QualityWarning)
    warnings.showwarning = print_line


def show(text: str) -> None:
    """Print a result to standard output."""
    print(plain(text, lines=True), flush=True)


def plain(text: object, *, lines: bool = False) -> str:
    r"""Return a text with what a terminal would obey written out, as in `\x1b`; line ends are kept with `lines`."""
    kept = "\n\t" if lines else ""
    return "".join(
        letter if letter.isprintable() or letter in kept else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


def show_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table to standard output: framed on a terminal, in aligned columns elsewhere."""
    cells = [[plain(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*headers, box=box.SIMPLE_HEAD)
        for row in cells:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    for row in [list(headers), *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def check_target(target: str, *, force: bool) -> None:
    """Refuse a file that is there already, or cannot be, before any work is done.

    Raises:
        ValueError: If it exists and `force` is not given, if it is a folder, a pipe or a device, or if its folder
            cannot hold it.
    """
    if target == STREAM:
        return
    if Path(target).is_dir():
        raise ValueError(f"{target} is a folder; give the name of a file in it")
    path = regular_target(target)
    if path.exists() and not force:
        raise ValueError(f"{target} exists already; give another name with -o, or --force to replace it")
    nearest = path.parent
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise ValueError(f"{target} cannot be written, since {nearest} is a file; give another name with -o")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{target} cannot be written, since {nearest} is write-protected; give another name with -o")


def check_table_target(target: str, *, force: bool) -> None:
    """Refuse a table to be written as `check_target` does, and a name that does not say a format."""
    from pointdiffusion.tabular.writing import check_target as check_format

    check_target(target, force=force)
    check_format(target, force=force)


def write_file(target: str, payload: bytes) -> None:
    """Write a result to a file, whole or not at all, or to standard output."""
    if target == STREAM:
        sys.stdout.buffer.write(payload)
        sys.stdout.buffer.flush()
    else:
        write_atomic(target, payload)


def outcome(error: BaseException) -> tuple[int, str] | None:
    """Return the exit code and the one sentence of an error, as `exit_codes.outcome`; 2 for what cannot be parsed."""
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        command = "pointdiffusion" if context is None else context.command_path
        return 2, f"{error.format_message().rstrip('.')}; see {command} --help"
    return exit_codes.outcome(error)
