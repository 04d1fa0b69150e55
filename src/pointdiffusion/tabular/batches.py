"""Sources of rows: columns are known at once, rows are read batch by batch, in bounded memory.

Messages count the rows of a file from 1, without the header, and those of arrays and data frames from 0, as Python
does.
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
        start: Index of the first row, from 0.
        columns: Cells of the requested columns, in that order.
        lines: Line number of each row in a text file.
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
        title: Name of the table in messages.
        names: Names of the columns, None where it has none.
        n_columns: Number of columns.
        read: From indices of columns to the batches of their cells; may be called once.
        first: Number of the first row in messages: 1 in files, 0 in Python.
        is_text: Whether all cells are strings, whatever they mean.
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
        """Return the function that names a row of a batch in messages.

        Args:
            batch: The batch.

        Returns:
            From the index of a row in the batch to its name, such as "row 3 (line 4)".
        """

        def name(at: int) -> str:
            line = f" (line {batch.lines[at]})" if batch.lines else ""
            return f"row {batch.start + at + self.first}{line}"

        return name
