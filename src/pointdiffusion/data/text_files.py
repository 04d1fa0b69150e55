"""Text files of tables: encoding, separator, header and decimal commas are found out, gzip is unpacked on the way.

What a file is, is told from its first lines: the separator is the one that splits all of them alike; the first line is
a row, not a header, if all its fields are numbers, or one is a number with a fraction, which names no column. Decimal
commas are read where semicolons separate.
"""

from __future__ import annotations

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

from pointdiffusion.data.cells import MISSING, Raw, is_number, unguard_formula
from pointdiffusion.data.sources import ROWS_AT_ONCE, Batch, Source, check_unpacked

LONGEST_LINE = 2**20
_SNIFFED_LINES = 100
_SEPARATORS = "\t;|,"  # a comma is rarer as a separator than inside the fields of the others
_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_FOREIGN = {b"PAR1": "a Parquet file", b"\x93NUMPY": "a NumPy file", b"PK\x03\x04": "a zip archive or a workbook"}


class _Unpacked(io.RawIOBase):
    """The contents of a gzip file, as far as they are no bomb."""

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
    """Return the source of a text file, of standard input for None.

    Raises:
        ValueError: If it is no text, or holds no row.
    """
    title = path.name if path else "standard input"
    binary = _open(path)
    close = binary.close if path else lambda: None
    try:
        lines = _lines(binary, title)
        sample = list(itertools.islice(lines, _SNIFFED_LINES))
        separator = _separator(sample)
        rows = _rows(itertools.chain(sample, lines), separator, title)
        line, header = next(rows, (0, []))
        if not header:
            raise ValueError(f"{title} is empty; give a table with some rows")
    except BaseException:
        close()
        raise
    names: list[str] | None = [unguard_formula(field.strip()) for field in header]
    if _is_row([field.replace(",", ".") if separator == ";" else field for field in header]):
        names, rows = None, itertools.chain([(line, header)], rows)
    comma = separator == ";" and any(re.search(r"(^|[;\"])\s*[+-]?\d*,\d", text) for text in sample)

    def read(places: Sequence[int]) -> Iterator[Batch]:
        return _batches(rows, places, comma)

    return Source(title, names, len(header), read, is_text=True, close=close)


def _open(path: Path | None) -> Any:
    """Return a file, or standard input, as bytes that can be looked at before they are read."""
    stream = sys.stdin.buffer if path is None else path.open("rb")
    return stream if hasattr(stream, "peek") else io.BufferedReader(stream)


def _batches(rows: Iterator[tuple[int, list[str]]], places: Sequence[int], comma: bool) -> Iterator[Batch]:
    """Yield the rows in batches."""
    start = 0
    while piece := list(itertools.islice(rows, ROWS_AT_ONCE)):
        cells = list(zip(*(fields for _, fields in piece), strict=True))
        columns = [Raw(_unguarded(cells[place]), comma=comma) for place in places]
        yield Batch(start, columns, [line for line, _ in piece])
        start += len(piece)


def _unguarded(cells: Sequence[str]) -> list[str]:
    """Return cells without the apostrophes that kept spreadsheets from running them."""
    return [unguard_formula(cell) for cell in cells] if "'" in "".join(cells) else list(cells)


def _lines(binary: Any, title: str) -> Iterator[str]:
    """Yield the lines of a text in any of the encodings that it may have."""
    if binary.peek(2)[:2] == b"\x1f\x8b":
        binary = io.BufferedReader(_Unpacked(binary, title), 2**16)
    start = binary.peek(8)[:8]
    for mark, kind in _FOREIGN.items():
        if start.startswith(mark):
            raise ValueError(f"{title} is {kind}, not text; name it as what it is, or save it as CSV")
    encoding = next((encoding for mark, encoding in _MARKS.items() if start.startswith(mark)), "utf-8-sig")
    text = io.TextIOWrapper(binary, encoding=encoding, newline="")
    number = 1
    try:
        while line := text.readline(LONGEST_LINE):
            if "\0" in line:
                raise ValueError(f"line {number} of {title} holds NUL bytes, as no text does; save it as UTF-8 text")
            if len(line) == LONGEST_LINE:
                raise ValueError(f"line {number} of {title} is longer than {LONGEST_LINE} characters, as no row is")
            yield line
            number += 1
    except UnicodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise ValueError(f"{title} is no {name} text, from about line {number} on; save it as UTF-8") from error
    finally:
        with contextlib.suppress(ValueError):  # closed already
            text.detach()  # whoever opened the file closes it


def _separator(sample: list[str]) -> str:
    """Return what separates the fields: what splits all of the first lines alike, or at least most of them."""
    best, most = ",", 0.0
    for candidate in _SEPARATORS:
        with contextlib.suppress(csv.Error):
            widths = [len(fields) for fields in csv.reader(sample, delimiter=candidate) if fields]
            alike = widths.count(widths[0]) / len(widths) if widths and widths[0] > 1 else 0
            if alike > most:
                best, most = candidate, alike
    return best


def _rows(lines: Iterator[str], separator: str, title: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the last line of each row, and its fields.

    Raises:
        ValueError: If a row has more or fewer fields than the first.
    """
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t")
    width = first = 0
    try:
        for fields in reader:
            if not fields or (len(fields) == 1 and width != 1 and not fields[0].strip()):
                continue  # an empty line
            if not width:
                width, first = len(fields), reader.line_num
            if len(fields) != width:
                raise ValueError(
                    f"line {reader.line_num} of {title} has {_counted(len(fields))}, and line {first} {width}; mend it"
                )
            yield reader.line_num, fields
    except csv.Error as error:
        raise ValueError(
            f"line {reader.line_num} of {title} cannot be split ({error}); is a quote left open?"
        ) from error


def _counted(n_fields: int) -> str:
    return "1 field" if n_fields == 1 else f"{n_fields} fields"


def _is_row(fields: list[str]) -> bool:
    """Return whether the first line of a file is a row of numbers."""
    found = [field.strip() for field in fields if field.strip().lower() not in MISSING]
    numbers = [field for field in found if is_number(field)]
    fractions = [field for field in numbers if not field.lstrip("+-").isdigit()]
    return bool(fractions) or (bool(numbers) and len(numbers) == len(found))
