"""Progress of long work: a bar on a terminal, a few plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_SECONDS = 5.0
"""Least time between two lines of one task, where there is no terminal; its end is always printed."""


@contextmanager
def show_progress(what: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int, str], None]]:
    """Show the progress of a task: a bar on a terminal, a few plain lines elsewhere.

    Args:
        what: One word for the task.
        total: Number of units of work.
        quiet: Show nothing.

    Yields:
        A function of the number of units done so far and a short remark.
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
        start = last = time.perf_counter()
        shown = 0

        def show(done: int, remark: str) -> None:
            nonlocal shown, last
            tenth, now = 10 * done // max(total, 1), time.perf_counter()
            if tenth > shown and (done >= total or now - last >= LINE_SECONDS):
                shown, last = tenth, now
                seconds = now - start
                print(f"{what}: {done}/{total} ({seconds:.1f} s) {remark}".rstrip(), flush=True)

        yield show
