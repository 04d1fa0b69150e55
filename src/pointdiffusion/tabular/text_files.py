"""Text files of tables: encoding, separator, header and decimal commas are detected, gzip is unpacked while reading.

They are detected from the first lines: the separator is the one that splits all of them into equally many fields; the
first line is a row, not a header, if all its fields are numbers, or one is a number with a fraction, which is no name
of a column. Decimal commas are read where semicolons separate.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import itertools
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from pointdiffusion.tabular.batches import ROWS_AT_ONCE, Batch, Source
from pointdiffusion.tabular.cells import MISSING, Raw, is_number, unguard_formula
from pointdiffusion.tabular.sources import check_unpacked

LONGEST_LINE = 2**20
_SNIFFED_LINES = 100
_BLOCK = 2**18
_CELLS_AT_ONCE = 2**20
_BREAK = re.compile(r"\r\n|\r|\n")
_SEPARATORS = "\t;|,"  # a comma is rarer as a separator than inside the fields of the others
_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_FOREIGN = {b"PAR1": "a Parquet file", b"\x93NUMPY": "a NumPy file", b"PK\x03\x04": "a zip archive or a workbook"}


class _Unpacked(io.RawIOBase):
    """The content of a gzip file, refused where it unpacks to too much."""

    def __init__(self, packed: IO[bytes], title: str) -> None:
        self._packed, self._title = packed, title
        self._taken = self._given = 0
        self._file = gzip.GzipFile(fileobj=self, mode="rb")

    def read(self, size: int = -1) -> bytes:  # what gzip calls
        piece = self._packed.read(size)
        self._taken += len(piece)
        return piece

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            piece = self._file.read(len(buffer))
        except (EOFError, OSError, zlib.error) as error:
            reason = "it ends too early" if isinstance(error, EOFError) else str(error)
            raise ValueError(f"{self._title} is a damaged gzip file ({reason}); restore it from a copy") from error
        self._given += len(piece)
        check_unpacked(self._title, self._taken, self._given)
        buffer[: len(piece)] = piece
        return len(piece)


def text_source(path: Path | None) -> Source:
    """Return the source of a text file.

    Args:
        path: The file; None for standard input.

    Returns:
        The source.

    Raises:
        ValueError: If it is not text, or has no row.
    """
    title = path.name if path else "standard input"
    binary = _open(path)
    close = binary.close if path else lambda: None
    try:
        blocks = _blocks(binary, title)
        start = next(blocks, [])
        sample = start[:_SNIFFED_LINES]
        separator = _separator(sample)
        lines = itertools.chain(start, itertools.chain.from_iterable(blocks))
        rows = _Rows(lines, separator, title)
        header = rows.first()
    except BaseException:
        close()
        raise
    names: list[str] | None = [unguard_formula(field.strip()) for field in header]
    if _is_row([field.replace(",", ".") if separator == ";" else field for field in header]):
        names = None
    comma = separator == ";" and any(re.search(r"(^|[;\"])\s*[+-]?\d*,\d", text) for text in sample)

    def read(places: Sequence[int]) -> Iterator[Batch]:
        return _batches(rows.pieces(with_first=names is None), places, comma)

    return Source(title, names, len(header), read, is_text=True, close=close)


def _open(path: Path | None) -> Any:
    """Return a file, or standard input, as bytes with a `peek` method."""
    stream = sys.stdin.buffer if path is None else path.open("rb")
    return stream if hasattr(stream, "peek") else io.BufferedReader(stream)


def _batches(
    pieces: Iterator[tuple[list[list[str]], list[int]]], places: Sequence[int], comma: bool
) -> Iterator[Batch]:
    """Yield the rows in batches."""
    start = 0
    for rows, lines in pieces:
        cells = list(zip(*rows, strict=True))
        yield Batch(start, [Raw(_unguarded(cells[place]), comma=comma) for place in places], lines)
        start += len(rows)


def _unguarded(cells: Sequence[str]) -> list[str]:
    """Return cells without the apostrophes that `guard_formula` put there."""
    return [unguard_formula(cell) for cell in cells] if "'" in "".join(cells) else list(cells)


def _blocks(binary: Any, title: str) -> Iterator[list[str]]:
    """Yield the lines of a text, some at a time, in the encoding that its first bytes indicate."""
    if binary.peek(2)[:2] == b"\x1f\x8b":
        binary = io.BufferedReader(_Unpacked(binary, title), 2**16)
    start = binary.peek(8)[:8]
    for mark, kind in _FOREIGN.items():
        if start.startswith(mark):
            raise ValueError(f"{title} is {kind}, not text; give it the ending of its format, or save it as CSV")
    encoding = next((encoding for mark, encoding in _MARKS.items() if start.startswith(mark)), "utf-8-sig")
    decoder = codecs.getincrementaldecoder(encoding)()
    number, rest, more = 1, "", True
    while more:
        raw = binary.read(_BLOCK)
        more = bool(raw)
        try:
            text = rest + decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            at = number + rest.count("\n") + error.object[: error.start].count(b"\n")
            name = encoding.removesuffix("-sig").upper()
            raise ValueError(f"{title} is not valid {name} in line {at}; save it as UTF-8") from error
        lines = io.StringIO(text, newline="").readlines()  # splits where csv does, unlike str.splitlines
        rest = lines.pop() if more and lines else ""  # the last line may go on
        _check_lines([*lines, rest] if "\0" in text or len(rest) > LONGEST_LINE else [], number, title)
        number += len(lines)
        if lines:
            yield lines


def _check_lines(lines: list[str], number: int, title: str) -> None:
    """Raise a ValueError for the first line that holds NUL or is too long; `number` is that of the first line."""
    for at, line in enumerate(lines, start=number):
        if "\0" in line:
            raise ValueError(f"line {at} of {title} holds NUL bytes, so it is not text; save it as UTF-8 text")
        if len(line) > LONGEST_LINE:
            raise ValueError(
                f"line {at} of {title} is longer than {LONGEST_LINE} characters; give a table with shorter rows"
            )


def _separator(sample: list[str]) -> str:
    """Return the separator that splits all or most of the first lines into equally many fields."""
    best, most = ",", 0.0
    for candidate in _SEPARATORS:
        with contextlib.suppress(csv.Error):
            widths = [len(fields) for fields in csv.reader(sample, delimiter=candidate) if fields]
            alike = widths.count(widths[0]) / len(widths) if widths and widths[0] > 1 else 0
            if alike > most:
                best, most = candidate, alike
    return best


class _Rows:
    """The rows of a text, split into fields.

    Args:
        lines: The lines.
        separator: Separator of the fields.
        title: Name of the file in messages.
    """

    def __init__(self, lines: Iterator[str], separator: str, title: str) -> None:
        self._reader = csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t")
        self._title, self._first, self._first_line = title, list[str](), 0

    def first(self) -> list[str]:
        """Return the fields of the first row, header or not.

        Returns:
            The fields.

        Raises:
            ValueError: If there is no row.
        """
        while not self._first_line:
            rows = self._next(1)
            if not rows:
                raise ValueError(f"{self._title} is empty; give a table with some rows")
            if any(field.strip() for field in rows[0]) or len(rows[0]) > 1:
                self._first, self._first_line = rows[0], self._reader.line_num
        return self._first

    def pieces(self, *, with_first: bool) -> Iterator[tuple[list[list[str]], list[int]]]:
        """Yield the other rows, some at a time, with the line number on which each ends.

        Args:
            with_first: Yield the first row before them.

        Yields:
            Rows as lists of fields, and their line numbers.

        Raises:
            ValueError: If a row has more or fewer fields than the first.
        """
        if with_first:
            yield [self._first], [self._first_line]
        width, line = len(self._first), self._reader.line_num
        while rows := self._next(max(1, min(ROWS_AT_ONCE, _CELLS_AT_ONCE // width))):
            lines = list(range(line + 1, self._reader.line_num + 1))
            if len(lines) != len(rows):  # fields with line breaks in them
                lengths = (1 + sum(len(_BREAK.findall(field)) for field in fields) for fields in rows)
                lines = list(itertools.accumulate(lengths, initial=line))[1:]
            line = self._reader.line_num
            if set(map(len, rows)) != {width}:
                rows, lines = self._filled(rows, lines)
            if rows:
                yield rows, lines

    def _next(self, number: int) -> list[list[str]]:
        """Return the next `number` rows, or as many as remain."""
        try:
            return list(itertools.islice(self._reader, number))
        except csv.Error as error:
            line = self._reader.line_num
            raise ValueError(f"line {line} of {self._title} cannot be split ({error}); is a quote open?") from error

    def _filled(self, rows: list[list[str]], lines: list[int]) -> tuple[list[list[str]], list[int]]:
        """Return the rows without empty lines."""
        width = len(self._first)
        kept = [(fields, line) for fields, line in zip(rows, lines, strict=True) if not _is_blank(fields, width)]
        for fields, line in kept:
            if len(fields) != width:
                raise ValueError(
                    f"line {line} of {self._title} has {_counted(len(fields))}, and line {self._first_line} {width}; "
                    "correct it"
                )
        return [fields for fields, _ in kept], [line for _, line in kept]


def _is_blank(fields: list[str], width: int) -> bool:
    """Return whether a line is empty; in a table of one column, an empty field in quotes is a missing value."""
    return not fields or (len(fields) == 1 and width != 1 and not fields[0].strip())


def _counted(n_fields: int) -> str:
    return "1 field" if n_fields == 1 else f"{n_fields} fields"


def _is_row(fields: list[str]) -> bool:
    """Return whether the first line of a file is a row of numbers."""
    found = [field.strip() for field in fields if field.strip().lower() not in MISSING]
    numbers = [field for field in found if is_number(field)]
    fractions = [field for field in numbers if not field.lstrip("+-").isdigit()]
    return bool(fractions) or (bool(numbers) and len(numbers) == len(found))
