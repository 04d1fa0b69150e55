"""What a source of rows is: it knows its columns at once and gives its rows batch by batch, in bounded memory.

Rows of a file are counted from 1 in messages, the header aside, as people count; those of arrays and frames from 0, as
Python does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pointdiffusion.tabular.cells import Raw
from pointdiffusion.tabular.native import PANDAS, NativeType

ROWS_AT_ONCE = 2**16


@dataclass(frozen=True)
class Batch:
    """Some consecutive rows.

    Args:
        start: Number of the first of them, from 0.
        columns: The cells of the columns that were asked for, in that order.
        lines: Line of each row in a text file.
    """

    start: int
    columns: list[Raw]
    lines: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.columns[0].values)


@dataclass(frozen=True)
class Source:
    """A table that is about to be read.

    Args:
        title: What to call it in messages.
        names: Names of its columns, None where it has none.
        n_columns: Their number.
        read: Returns the batches of the columns at some places; may be called once.
        first: What the first row is called: 1 in files, 0 in Python.
        is_text: Whether the cells are texts, whatever they mean.
        close: Closes the file.
        container: The library whose frame it is, see `native`.
        natives: Types that columns have in that library, by name, where NumPy's do not say everything.
    """

    title: str
    names: list[str] | None
    n_columns: int
    read: Callable[[Sequence[int]], Iterator[Batch]]
    first: int = 1
    is_text: bool = False
    close: Callable[[], None] = lambda: None
    container: str = PANDAS
    natives: Mapping[str, NativeType] = field(default_factory=dict)

    def place(self, batch: Batch) -> Callable[[int], str]:
        """Return the function that says how a row of a batch is called."""

        def name(at: int) -> str:
            line = f" (line {batch.lines[at]})" if batch.lines else ""
            return f"row {batch.start + at + self.first}{line}"

        return name
