"""Tables and files as nobody should write them: each is answered in one sentence that names row and column."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import pickle
import re
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from pointdiffusion import Table, read_table, table_of, write_table
from pointdiffusion.tabular import sources

TEXT = ("csv", "tsv", "csv.gz", "tsv.gz")
FILES = (*TEXT, "parquet", "npz", "npy")
IN_MEMORY = ("pandas", "polars", "array")
EVERYWHERE = (*FILES, *IN_MEMORY)


def plain_frame(n_rows: int = 6) -> pd.DataFrame:
    """Return a small frame of two columns."""
    rows = np.arange(float(n_rows))
    return pd.DataFrame({"x": rows + 0.5, "y": rows**2 / 4})


def read_as(form: str, frame: pd.DataFrame, folder: Path, **settings: Any) -> Table:
    """Write a frame by pandas and NumPy themselves in a form, and read it."""
    if form == "pandas":
        return table_of(frame, **settings)
    if form == "polars":
        return table_of(pl.DataFrame({name: frame[name].to_numpy() for name in frame}), **settings)
    if form == "array":
        return table_of(frame.to_numpy(), **settings)
    path = folder / f"table.{form}"
    if form in TEXT:
        frame.to_csv(path, index=False, sep="\t" if "tsv" in form else ",")
    elif form == "parquet":
        frame.to_parquet(path, index=False)
    elif form == "npy":
        np.save(path, frame.to_numpy())
    else:
        np.savez(path, **{name: unpickled(frame[name]) for name in frame})
    return read_table(path, **settings)


def unpickled(column: pd.Series[Any]) -> Any:
    """Return a column as an array that needs no pickling."""
    array = column.to_numpy()
    return array.astype("U") if array.dtype.kind == "O" else array


def row_name(form: str, row: int) -> str:
    """Return how messages call a row that is counted from 0 here."""
    if form in IN_MEMORY:
        return rf"row {row}\b(?! \(line)"
    return rf"row {row + 1} \(line {row + 2}\)" if form in TEXT else rf"row {row + 1}\b(?! \(line)"


def one_sentence(excinfo: pytest.ExceptionInfo[ValueError]) -> str:
    """Return a message, which is one line that a person can read."""
    text = str(excinfo.value)
    assert "\n" not in text
    assert "Traceback" not in text
    assert 20 < len(text) < 400
    return text


def refusal(action: Callable[[], Any]) -> str:
    """Return the sentence by which something is refused."""
    with pytest.raises(ValueError, match=r"\w") as excinfo:
        action()
    return one_sentence(excinfo)


def refusal_of(folder: Path, name: str, content: bytes, **settings: Any) -> str:
    """Return the sentence by which a file of these bytes is refused."""
    (folder / name).write_bytes(content)
    return refusal(lambda: read_table(folder / name, **settings))


# ------------------------------------------------------------------------------------------------- values, in each form


@pytest.mark.parametrize("form", EVERYWHERE)
def test_a_gap_is_named_and_the_cures_with_it(form: str, tmp_path: Path) -> None:
    frame = plain_frame()
    frame.loc[3, "y"] = frame.loc[5, "y"] = np.nan
    text = refusal(lambda: read_as(form, frame, tmp_path))
    assert re.search(rf"column 'y' in {row_name(form, 3)}.*, {row_name(form, 5)}", text), text
    assert "--drop-missing" in text
    assert "--mask" in text
    dropped = read_as(form, frame, tmp_path, missing="drop")
    assert dropped.rows.tolist() == [0, 1, 2, 4]
    assert dropped.total_rows == 6
    kept = read_as(form, frame, tmp_path, missing="keep")
    np.testing.assert_array_equal(kept.values, frame.to_numpy())


@pytest.mark.parametrize("form", EVERYWHERE)
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_are_refused_even_where_gaps_are_not(form: str, value: float, tmp_path: Path) -> None:
    frame = plain_frame()
    frame.loc[2, "y"] = value
    for missing in ("refuse", "drop", "keep"):
        text = refusal(lambda missing=missing: read_as(form, frame, tmp_path, missing=missing))
        assert re.search(rf"column 'y' holds an infinite value in {row_name(form, 2)}", text), text


@pytest.mark.parametrize("form", EVERYWHERE)
def test_a_table_without_rows_is_refused(form: str, tmp_path: Path) -> None:
    assert "no rows" in refusal(lambda: read_as(form, plain_frame(0), tmp_path))


@pytest.mark.parametrize("form", EVERYWHERE)
@pytest.mark.parametrize("missing", ["refuse", "drop", "keep"])
def test_a_column_of_gaps_is_refused(form: str, missing: Any, tmp_path: Path) -> None:
    text = refusal(lambda: read_as(form, plain_frame().assign(z=np.nan), tmp_path, missing=missing))
    assert "column 'z'" in text
    assert "is empty" in text


@pytest.mark.parametrize("form", EVERYWHERE)
def test_one_row_has_nothing_to_learn_from(form: str, tmp_path: Path) -> None:
    assert "one value only" in refusal(lambda: read_as(form, plain_frame(1), tmp_path))


@pytest.mark.parametrize("form", EVERYWHERE)
def test_one_column_is_a_table(form: str, tmp_path: Path) -> None:
    table = read_as(form, plain_frame()[["x"]], tmp_path)
    assert table.schema.names == ["x"]
    np.testing.assert_array_equal(table.values[:, 0], plain_frame()["x"])


def as_pandas(rows: Any) -> pd.DataFrame:
    """Return rows as a frame of pandas: those of a frame of polars come back as one."""
    return rows if isinstance(rows, pd.DataFrame) else rows.to_pandas()


@pytest.mark.parametrize("form", EVERYWHERE)
def test_a_constant_column_is_left_out_and_put_back(form: str, tmp_path: Path) -> None:
    frame = plain_frame().assign(z=2.5)
    table = read_as(form, frame, tmp_path)
    assert table.schema.names == ["x", "y"]
    assert table.values.shape == (6, 2)
    pd.testing.assert_frame_equal(as_pandas(table.schema.decode(table.values)), frame)


@pytest.mark.parametrize("form", EVERYWHERE)
def test_a_table_of_constants_is_refused(form: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.5, 1.5], "y": [2.0, 2.0]})
    assert "each of the 2 columns" in refusal(lambda: read_as(form, frame, tmp_path))


@pytest.mark.parametrize("form", EVERYWHERE)
def test_duplicate_rows_all_stay(form: str, tmp_path: Path) -> None:
    frame = pd.concat([plain_frame()] * 50, ignore_index=True)
    np.testing.assert_array_equal(read_as(form, frame, tmp_path).values, frame.to_numpy())


@pytest.mark.parametrize("form", EVERYWHERE)
def test_no_digit_is_lost_at_any_scale(form: str, tmp_path: Path) -> None:
    """Scales from 1e-30 to 1e30 side by side, and a spread of 1e-3 around 1e8."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({
        "x": draw.normal(size=100) * 1e-30, "y": draw.normal(size=100) * 1e30, "z": 1e8 + 1e-3 * draw.normal(size=100),
    })  # fmt: skip
    table = read_as(form, frame, tmp_path)
    np.testing.assert_array_equal(table.values, frame.to_numpy())
    pd.testing.assert_frame_equal(as_pandas(table.schema.decode(table.values)), frame, check_exact=True)
    assert [column.kind for column in table.schema.columns] == ["real"] * 3


@pytest.mark.parametrize("form", ["parquet", "csv", "npz", "npy", "pandas", "array", "polars"])
def test_integers_that_run_together_are_refused(form: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.array([1, 2**53 + 1, 5]), "y": np.array([1, 3, 4])})
    text = refusal(lambda: read_as(form, frame, tmp_path))
    assert re.search(rf"column 'x' holds 900719925474099\d in {row_name(form, 1)}.*2\^53", text), text


@pytest.mark.parametrize("form", [form for form in EVERYWHERE if form != "npy"])
def test_text_among_numbers_is_shown_where_it_stands(form: str, tmp_path: Path) -> None:
    frame = plain_frame().astype(object)
    frame.loc[4, "y"] = "4,5"
    if form in ("parquet", "polars"):  # a column of these has one type
        frame = frame.astype(str)
    text = refusal(lambda: read_as(form, frame, tmp_path))
    assert re.search(rf"column 'y' holds '4,5' in {row_name(form, 4)}, which is not a number", text), text


@pytest.mark.parametrize("form", [form for form in EVERYWHERE if form != "npy"])
def test_a_column_of_texts_is_refused_by_its_first_and_taken_as_label(form: str, tmp_path: Path) -> None:
    frame = plain_frame().assign(z=["", "b", "a", "b", "a", "b"])
    text = refusal(lambda: read_as(form, frame, tmp_path))
    assert re.search(rf"column 'z' holds 'b' in {row_name(form, 1)}, which is not a number.*label", text), text
    text = refusal(lambda: read_as(form, frame, tmp_path, label="z"))
    assert re.search(rf"column 'z' in {row_name(form, 0)}; leave these rows out with --drop-missing", text), text
    assert "--mask" not in text
    table = read_as(form, frame, tmp_path, label="z", missing="drop")
    assert table.labels is not None
    assert table.labels.tolist() == ["b", "a", "b", "a", "b"]
    assert table.schema.label is not None
    assert (table.schema.label.classes, table.schema.label.position) == (("a", "b"), 2)


@pytest.mark.parametrize("form", ["parquet", "pandas", "polars", "npz", "csv"])
def test_dates_are_refused_by_name(form: str, tmp_path: Path) -> None:
    frame = plain_frame().assign(day=pd.date_range("2020-01-01", periods=6))
    if form == "polars":
        text = refusal(lambda: table_of(pl.from_pandas(frame)))
    else:
        text = refusal(lambda: read_as(form, frame, tmp_path))
    assert "column 'day'" in text
    assert "leave the column out" in text
    assert read_as(form, frame, tmp_path, columns=["x", "y"]).values.shape == (6, 2)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("complex", np.array([1j, 2, 3])),
        ("nested", pd.Series([[1], [2], [3]])),
        ("bytes", np.array([b"a", b"b", b"c"], dtype=object)),
        ("durations", pd.to_timedelta([1, 2, 3])),
        ("objects", [object()] * 3),
    ],
)
def test_what_is_no_real_number_is_refused_by_name(name: str, values: Any) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 4.0], name: values})
    text = refusal(lambda: table_of(frame))
    assert f"column {name!r}" in text
    assert "leave the column out" in text


@pytest.mark.parametrize("form", ["pandas", "polars", "parquet"])
def test_lists_in_cells_are_refused_by_name(form: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"x": [1.0, 2.0], "deep": [[1, 2], [3]]})
    if form == "parquet":
        frame.write_parquet(tmp_path / "t.parquet")
        text = refusal(lambda: read_table(tmp_path / "t.parquet"))
    else:
        text = refusal(lambda: table_of(frame if form == "polars" else frame.to_pandas()))
    assert "column 'deep'" in text


@pytest.mark.parametrize("deep", [[{"u": 1}, {"u": 2}], pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2))])
def test_cells_of_several_numbers_are_refused_by_name(deep: Any) -> None:
    frame = pl.DataFrame({"x": [1.0, 2.0], "deep": deep})
    for table in (frame, frame.to_arrow()):
        assert "column 'deep' holds" in refusal(lambda table=table: table_of(table))


@pytest.mark.parametrize("form", ["csv", "parquet", "npz", "pandas"])
def test_a_fraction_is_no_class(form: str, tmp_path: Path) -> None:
    frame = plain_frame().assign(kind=[1.0, 2.0, 1.0, 2.5, 1.0, 2.0])
    if form == "csv":  # a text file has texts, and any text may name a class
        table = read_as(form, frame, tmp_path, label="kind")
        assert table.schema.label is not None
        assert table.schema.label.classes == ("1.0", "2.0", "2.5")
    else:
        text = refusal(lambda: read_as(form, frame, tmp_path, label="kind"))
        assert re.search(rf"label column 'kind' holds 2.5 in {row_name(form, 3)}", text), text


@pytest.mark.parametrize("form", ["csv", "parquet", "pandas"])
def test_a_name_is_no_class(form: str, tmp_path: Path) -> None:
    """A column in which every row is another is no label."""
    frame = pd.DataFrame({"x": np.arange(1500.0) / 7, "id": [f"row {i}" for i in range(1500)]})
    assert "more than 1000 classes" in refusal(lambda: read_as(form, frame, tmp_path, label="id"))


@pytest.mark.parametrize("form", EVERYWHERE)
def test_more_than_64_columns_are_refused(form: str, tmp_path: Path) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(5, 65)), columns=[f"x{i + 1}" for i in range(65)])
    text = refusal(lambda: read_as(form, frame, tmp_path))
    assert "65 columns" in text
    assert "64" in text
    assert read_as(form, frame, tmp_path, columns=[f"x{i + 1}" for i in range(64)]).values.shape == (5, 64)


@pytest.mark.parametrize("form", ["csv", "tsv.gz", "pandas"])
def test_duplicate_headers_are_refused(form: str, tmp_path: Path) -> None:
    frame = pd.DataFrame([[1.5, 2.0, 3.0], [4.0, 5.0, 6.0]], columns=["a", "b", "a"])
    if form == "pandas":
        assert "have the same name" in refusal(lambda: table_of(frame))
        return
    text = refusal(lambda: read_as(form, frame, tmp_path))
    assert "columns 1 and 3" in text
    assert "both called 'a'" in text
    assert read_as(form, frame, tmp_path, columns=["b"]).values.ravel().tolist() == [2.0, 5.0]


# ------------------------------------------------------------------------------------------------ many problems at once


def messy_frame() -> pd.DataFrame:
    """Return a table like that of the Palmer penguins, with one more problem of each kind."""
    frame = plain_frame(12).assign(species=["a", "b"] * 6, island=["c", "d"] * 6, far=[1.0, np.inf] * 6, none=np.nan)
    frame.loc[3, "x"] = frame.loc[7, "y"] = np.nan
    return frame


@pytest.mark.parametrize("form", ["csv", "parquet", "pandas", "polars"])
def test_all_problems_of_a_table_are_told_at_once(form: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\w") as excinfo:
        read_as(form, messy_frame(), tmp_path)
    text = str(excinfo.value)
    for part in ("'species' holds 'a'", "'island' holds 'c'", "'far' holds an infinite", "'none'", "'x' in", "'y' in"):
        assert part in text, text
    assert "\n" not in text
    assert "with --columns x,y (columns=), or name one of them as the label" in text
    assert read_as(form, messy_frame(), tmp_path, columns=["x", "y"], missing="drop").values.shape == (10, 2)


def test_names_of_many_bad_columns_are_told() -> None:
    frame = plain_frame().assign(**{f"t{k}": list("abcdef") for k in range(30)})
    with pytest.raises(ValueError, match=r"\w") as excinfo:
        table_of(frame)
    text = str(excinfo.value)
    assert all(f"'t{k}'" in text for k in range(20))
    assert len(text) < 800


def test_a_bad_table_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of a billion rows with a column of texts is refused after a part of them."""
    monkeypatch.setattr("pointdiffusion.tabular.collecting.SEARCHED_ROWS", 8)
    monkeypatch.setattr("pointdiffusion.tabular.memory.ROWS_AT_ONCE", 4)
    frame = plain_frame(40).assign(text=["a", "b"] * 20)
    frame.loc[5, "x"] = frame.loc[30, "y"] = np.nan
    with pytest.raises(ValueError, match=r"\w") as excinfo:
        table_of(frame)
    text = str(excinfo.value)
    assert "column 'x' in row 5" in text
    assert "'y'" not in text


def test_advice_is_what_can_be_done_there() -> None:
    """No second label, no option that a command does not have, no column left out that a model needs."""
    frame = plain_frame().assign(kind=["a", "b"] * 3, text=["c", "d"] * 3)
    text = refusal(lambda: table_of(frame, label="kind"))
    assert "which is not a number; leave the column out" in text
    assert "label" not in text
    schema = table_of(frame.drop(columns="text"), label="kind").schema
    gap = frame.assign(kind=["a", None, *"abab"])
    text = refusal(lambda: table_of(gap, schema=schema, missing="keep"))
    assert "column 'kind' in row 1; fill in the classes, or leave that column out" in text
    assert "fill in the classes, or leave these rows out" in refusal(
        lambda: table_of(gap[["x", "kind"]], label="kind", missing="keep")
    )
    bad = frame.assign(x=[0.5, None, 2.0, 3.0, 4.0, 5.0])
    text = refusal(lambda: table_of(bad, schema=schema))
    assert "--drop-missing" in text
    assert "or fill them with impute" in text
    assert "--mask" not in text
    assert "the model needs a number there" in refusal(lambda: table_of(frame.assign(x="u"), schema=schema))


# ----------------------------------------------------------------------------------------------------------- text files


WELL = b"a,b\n1.5,2\n-3,4\n"
VALUES = [[1.5, 2.0], [-3.0, 4.0]]


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.txt"])
@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + WELL,
        WELL.replace(b"\n", b"\r\n"),
        WELL.replace(b"\n", b"\r"),
        WELL.rstrip(),
        WELL.decode().encode("utf-16"),
        b"\xfe\xff" + WELL.decode().encode("utf-16-be"),
        WELL.decode().encode("utf-32"),
        WELL.replace(b",", b";"),
        WELL.replace(b",", b";").replace(b".", b","),
        WELL.replace(b",", b"\t"),
        WELL.replace(b",", b"|"),
        WELL.replace(b",", b", "),
        b"\n" + WELL.replace(b"\n", b"\n\n") + b"  \n",
        b'"a","b"\n"1.5","2"\n"-3",4\n',
        WELL.replace(b"-3", b"-.3e1"),
    ],
    ids=[
        "BOM", "CRLF", "CR", "no last newline", "UTF-16 LE", "UTF-16 BE", "UTF-32", "semicolons", "decimal commas",
        "tabs", "bars", "spaces", "empty lines", "quotes", "exponent",
    ],
)  # fmt: skip
def test_what_people_call_csv_is_read(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    table = read_table(tmp_path / name)
    assert table.schema.names == ["a", "b"]
    assert table.values.tolist() == VALUES


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "t.csv is empty"),
        (b"\n\n  \n", "t.csv is empty"),
        (b"a,b\n", "no rows"),
        (b"a,b\n1,2\n3\n", "line 3 of t.csv has 1 field, and line 1 2"),
        (b"a,b\n1,2\n3,4,5\n", "line 3 of t.csv has 3 fields, and line 1 2"),
        (b"a,b\n1,2\n\n3,\n", r"column 'b' in row 2 \(line 4\)"),
        (b"a,,b\n1,2,3\n4,5,6\n", "column 2 of t.csv has no name"),
        (b"a,b\n1,2\n3,\0\n", "line 3 of t.csv holds NUL bytes"),
        (WELL.decode().encode("utf-16-le"), "line 1 of t.csv holds NUL bytes"),
        (b"a,b\n1,2\n3,\xe94\n", "t.csv is not valid UTF-8 in line 3"),
        (b"\xff\xfea\0,\0b\0\n\0001", "t.csv is not valid UTF-16"),
        (b'a,b\n1,2\n"3,4\n' + b"5,6\n" * 50_000, "cannot be split.*quote open"),
        (b"a,b\n" + b"1" * 2**21, "line 2 of t.csv is longer than"),
        (b"a,b\n1,2\n1_000,4\n", r"column 'a' holds '1_000' in row 2 \(line 3\)"),
        ("a,b\n1,2\n\u0663,4\n".encode(), "column 'a' holds .* in row 2"),
        (b"a,b\n1,2\n1e999,4\n", "column 'a' holds an infinite value in row 2"),
        (b"a;b\n1,5;2\n1.000,5;4\n", "column 'a' holds '1.000,5' in row 2"),
        (b"a;b\n1,5;2\n1.000;4\n", "column 'a' holds '1.000' in row 2"),
        (b'a,b\n1,2\n"1,000",4\n', "column 'a' holds '1,000' in row 2"),
        (b"a,b\n1,2\n3,\x1b[2Jx\n", r"column 'b' holds '\\x1b\[2Jx' in row 2"),
        (b"a,b\n1,true\n3,0.5\n", "column 'b' holds 'true' in row 1"),
        (b"PAR1....PAR1", "t.csv is a Parquet file"),
        (b"\x93NUMPY\x01\0", "t.csv is a NumPy file"),
        (b"PK\x03\x04....", "t.csv is a zip archive or a workbook"),
        (b"a,b\n,1\n,2\n", "column 'a' of t.csv is empty"),
    ],
)
def test_a_bad_text_file_is_refused_with_line_and_column(content: bytes, expected: str, tmp_path: Path) -> None:
    text = refusal_of(tmp_path, "t.csv", content)
    assert re.search(expected, text), text
    packed = refusal_of(tmp_path, "t.csv.gz", gzip.compress(content))
    assert packed == text.replace("t.csv", "t.csv.gz")


def test_a_row_of_another_batch_is_still_called_by_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointdiffusion.tabular.text_files.ROWS_AT_ONCE", 4)
    monkeypatch.setattr("pointdiffusion.tabular.text_files._BLOCK", 7)
    lines = [f"{row},{row % 3}" for row in range(11)]
    lines[9] = "9,none of it"
    text = refusal_of(tmp_path, "t.csv", "\n".join(["a,b", *lines]).encode())
    assert "column 'b' holds 'none of it' in row 10 (line 11)" in text
    texts = "\n".join(["a,b", *[f"{row},{'u' if row < 7 else 'v'}" for row in range(11)]])
    assert "column 'b' holds 'u' in row 1 (line 2)" in refusal_of(tmp_path, "t.csv", texts.encode())
    broken = b"a,b,c\n" + b'1,"u\nu",2\r\n\r\n' * 5 + b"1,u,x\n"
    assert "column 'c' holds 'x' in row 6 (line 17)" in refusal_of(tmp_path, "t.csv", broken, label="b")
    assert "line 18 of t.csv has 2 fields, and line 1 3" in refusal_of(tmp_path, "t.csv", broken + b"1,2", label="b")


@pytest.mark.parametrize("cut", [5, 60, -8, -1])
def test_truncated_gzip_is_refused(cut: int, tmp_path: Path) -> None:
    content = gzip.compress(plain_frame(500).to_csv(index=False).encode())
    assert "damaged gzip file" in refusal_of(tmp_path, "t.csv.gz", content[:cut])


def test_flipped_bits_in_gzip_are_refused(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(plain_frame(500).to_csv(index=False).encode()))
    content[-6] ^= 1  # the checksum
    assert "damaged gzip file" in refusal_of(tmp_path, "t.csv.gz", bytes(content))


def test_gzip_bombs_are_given_up_early(tmp_path: Path) -> None:
    """A gigabyte from one megabyte would be refused after its first 16 MiB, as these 20 are; no text holds zeros."""
    bomb = gzip.compress(b"a,b\n" + (b"1." + b"0" * 2000 + b",2\n") * 10_000)
    assert len(bomb) < 100_000
    assert "more than 200 times its size" in refusal_of(tmp_path, "t.csv.gz", bomb)
    assert "NUL bytes" in refusal_of(tmp_path, "t.csv.gz", gzip.compress(bytes(2**24)))


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(WELL)))
    assert read_table("-").values.tolist() == VALUES
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(b"a,b\n1,x\n2,3\n"))))
    assert "column 'b' holds 'x' in row 1 (line 2)" in refusal(lambda: read_table("-"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert "standard input is empty" in refusal(lambda: read_table("-"))


# --------------------------------------------------------------------------------------------------------- binary files


@pytest.mark.parametrize("form", ["parquet", "npy", "npz"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files_are_refused(form: str, part: float, tmp_path: Path) -> None:
    read_as(form, plain_frame(400), tmp_path)
    path = tmp_path / f"table.{form}"
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    text = refusal(lambda: read_table(path))
    assert "damaged" in text
    assert path.name in text


@pytest.mark.parametrize("form", ["parquet", "npy", "npz"])
def test_flipped_bytes_never_end_in_anything_but_a_sentence(form: str, tmp_path: Path) -> None:
    """A damaged file may still be a table, of other numbers; otherwise it is refused in a sentence."""
    read_as(form, plain_frame(40), tmp_path)
    path = tmp_path / f"table.{form}"
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    for _ in range(150):
        content = bytearray(whole)
        for place in draw.integers(len(whole), size=3):
            content[place] ^= int(draw.integers(1, 256))
        path.write_bytes(bytes(content))
        with contextlib.suppress(ValueError):
            read_table(path)


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("form", ["npy", "npz"])
def test_pickles_are_never_opened(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    array = np.array([[Evil(), Evil()]], dtype=object)
    path = tmp_path / f"t.{form}"
    np.save(path, array) if form == "npy" else np.savez(path, a=array)
    assert "pickled objects" in refusal(lambda: read_table(path))
    assert "damaged" in refusal_of(tmp_path, "raw.npy", pickle.dumps(Evil()))
    assert not (tmp_path / "unpickled").exists()


def npy_bytes(shape: tuple[int, ...], content: bytes = bytes(64), dtype: str = "<f8") -> bytes:
    """Return a `.npy` file that says it has some shape."""
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def zip_bytes(**entries: bytes) -> bytes:
    """Return a `.npz` file of these entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name + ".npy", content)
    return buffer.getvalue()


def test_an_array_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    shapes: list[tuple[int, ...]] = [(2**40, 2), (2**62, 2**62), (5, 2)]
    for shape in shapes:
        assert "fewer numbers than its header states" in refusal_of(tmp_path, "t.npy", npy_bytes(shape))
        assert "fewer numbers than its header states" in refusal_of(tmp_path, "t.npz", zip_bytes(a=npy_bytes(shape)))
    for shape in ((-1, 2), (2,), (2, 2, 2)):
        refusal_of(tmp_path, "t.npy", npy_bytes(shape))


def test_zip_bombs_are_not_unpacked(tmp_path: Path) -> None:
    bomb = zip_bytes(a=npy_bytes((2**24, 2), bytes(2**28)))
    assert len(bomb) < 2**20
    assert "more than 200 times its size" in refusal_of(tmp_path, "t.npz", bomb)


def test_archives_that_are_no_table_are_refused(tmp_path: Path) -> None:
    two, three = npy_bytes((4, 2)), npy_bytes((2, 2, 2))
    assert "several tables ('a', 'b')" in refusal_of(tmp_path, "t.npz", zip_bytes(a=two, b=two))
    assert "column 'a' of t.npz has 3 dimensions" in refusal_of(
        tmp_path, "t.npz", zip_bytes(a=three, b=npy_bytes((8,)))
    )
    assert "differ in length" in refusal_of(tmp_path, "t.npz", zip_bytes(a=npy_bytes((8,)), b=npy_bytes((7,))))
    assert "no array" in refusal_of(tmp_path, "t.npz", zip_bytes())
    assert "damaged" in refusal_of(tmp_path, "t.npz", zip_bytes(readme=b"some text that is no array"))


def test_parquet_without_pyarrow_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain_frame().to_parquet(tmp_path / "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install" in refusal(lambda: read_table(tmp_path / "t.parquet"))
    assert "pip install" in refusal(lambda: write_table(plain_frame(), tmp_path / "u.parquet"))
    assert not (tmp_path / "u.parquet").exists()


# -------------------------------------------------------------------------------------------------------- what is there


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "/dev/stdin"])
def test_devices_are_refused_for_reading_and_writing(name: str, tmp_path: Path) -> None:
    link = tmp_path / "t.csv"
    link.symlink_to("/dev/zero" if name == "/dev/stdin" else name)
    for path in (name, link):
        assert re.search("device or a pipe|does not say", refusal(lambda path=path: read_table(path)))
    assert "device or a pipe" in refusal(lambda: write_table(plain_frame(), link, force=True))
    assert not Path("/dev/zero").is_file()


def test_pipes_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    assert "device or a pipe" in refusal(lambda: read_table(tmp_path / "t.csv"))


@pytest.mark.parametrize("scheme", ["http", "https", "s3", "file", "ftp"])
def test_addresses_are_never_asked(scheme: str) -> None:
    assert "is a URL" in refusal(lambda: read_table(f"{scheme}://example.org/table.csv"))


def test_what_is_not_there_or_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.csv").mkdir()
    assert "is a folder" in refusal(lambda: read_table(tmp_path / "d.csv"))
    assert "is a folder" in refusal(lambda: write_table(plain_frame(), tmp_path / "d.csv", force=True))
    assert "there is no file" in refusal(lambda: read_table(tmp_path / "none.csv"))
    assert "cannot be read" in refusal(lambda: read_table("a\0b.csv"))
    assert "cannot be read" in refusal(lambda: read_table("x" * 5000 + ".csv"))
    for name in ("t.xlsx", "t.json", "t", "t.csv.zip", "t.gz"):
        assert "has an unknown format" in refusal_of(tmp_path, name, WELL)
    assert "text files only" in refusal_of(tmp_path, "t.parquet.gz", WELL)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (5, "neither a data frame nor an array"),
        ("table.csv", "neither a data frame nor an array"),
        (None, "neither a data frame nor an array"),
        (pd.Series([1.0, 2.0]), "neither a data frame nor an array, but a Series"),
        (pl.Series([1.0, 2.0]), "neither a data frame nor an array, but a Series"),
        ([], "no rows"),
        ([1.0, 2.0], "1 dimension"),
        ([[1.0, 2.0], [3.0]], "different lengths"),
        (np.zeros((2, 2, 2)), "3 dimensions"),
        (np.zeros((0, 2)), "no rows"),
        (np.zeros((2, 0)), "no column"),
        (pl.DataFrame({"x": [1.0]}).lazy(), r"collect\(\)"),
        (np.array([[1j, 2]]), "complex numbers"),
    ],
)  # fmt: skip
def test_what_is_no_table_in_memory_is_refused(data: Any, expected: str) -> None:
    text = refusal(lambda: table_of(data))
    assert re.search(expected, text), text


def test_unpacking_has_a_bound_of_its_own() -> None:
    sources.check_unpacked("t", 2**30, 2**34)
    assert "do not trust it" in refusal(lambda: sources.check_unpacked("t", 2**34, 2**34 + 1))
