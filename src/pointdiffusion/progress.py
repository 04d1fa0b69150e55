"""Progress of long work: a bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def show_progress(what: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int, str], None]]:
    """Show how far some work has come.

    Args:
        what: One word for the work.
        total: Number of units.
        quiet: Show nothing.

    Yields:
        A function of the units done so far and a short remark.
    """
    if quiet:
        yield lambda _done, _remark: None
    elif sys.stdout.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        columns = (
            TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("elapsed"), TimeLeft(), TextColumn("left"), TextColumn("{task.fields[remark]}"),
        )  # fmt: skip
        with Progress(*columns) as bar:
            task = bar.add_task(what, total=total, remark="")
            yield lambda done, remark: bar.update(task, completed=done, remark=remark)
    else:
        start, shown = time.perf_counter(), 0

        def show(done: int, remark: str) -> None:
            nonlocal shown
            tenth = 10 * done // max(total, 1)
            if tenth > shown:
                shown = tenth
                seconds = time.perf_counter() - start
                print(f"{what}: {done}/{total} ({seconds:.1f} s) {remark}".rstrip(), flush=True)

        yield show
