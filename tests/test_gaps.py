"""A gap is missing in each library's columns: never the value of another row, nor what lies under a mask."""

from __future__ import annotations

import io
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pointdiffusion import TrainingConfig, fit, read_table, table_of, write_table
from pointdiffusion.tabular.labels import as_labels
from pointdiffusion.tabular.points import as_points, column_names

X = [1.5, 2.0, 3.0, 4.0]
TEXTS, NUMBERS, TRUTHS = ["a", "b", None, "a"], [5, 7, None, 5], [True, False, None, True]
NAN = np.nan


def in_pieces(array: pa.Array) -> pa.ChunkedArray:
    """Return a column in two chunks, each with a dictionary of its own where it has one."""
    first, last = array.slice(0, 1), array.slice(1)
    if pa.types.is_dictionary(array.type):
        first, last = (part.dictionary_decode().dictionary_encode() for part in (first, last))
    return pa.chunked_array([first, last])


def arrow(values: Any, kind: Any = None) -> pa.Table:
    return pa.table({"x": X, "k": pa.array(values, kind)})


def encoded(values: Any) -> pa.Table:
    return pa.table({"x": X, "k": pa.array(values).dictionary_encode()})


LABELS: dict[str, Any] = {
    "Arrow dictionary": encoded(TEXTS),
    "Arrow dictionary in pieces": pa.table({"x": X, "k": in_pieces(pa.array(TEXTS).dictionary_encode())}),
    "Arrow dictionary that holds null": pa.table({
        "x": X,
        "k": pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 0]), pa.array(["a", "b", None])),
    }),
    "Arrow batch": pa.RecordBatch.from_pydict({"x": X, "k": pa.array(TEXTS).dictionary_encode()}),
    "Arrow text": arrow(TEXTS),
    "Arrow text view": arrow(TEXTS, pa.string_view()),
    "pandas categories": pd.DataFrame({"x": X, "k": pd.Categorical(TEXTS)}),
    "pandas objects": pd.DataFrame({"x": X, "k": ["a", "b", pd.NaT, "a"]}),
    "pandas on an Arrow dictionary": pd.DataFrame({
        "x": X,
        "k": pd.arrays.ArrowExtensionArray(pa.array(TEXTS).dictionary_encode()),
    }),
    "polars categories": pl.DataFrame({"x": X, "k": pl.Series(TEXTS, dtype=pl.Categorical)}),
    "polars enum": pl.DataFrame({"x": X, "k": pl.Series(TEXTS, dtype=pl.Enum(["a", "b"]))}),
    "records": [{"x": x, "k": k} for x, k in zip(X, TEXTS, strict=True)],
    "records without the key": [{"x": x} | ({"k": k} if k else {}) for x, k in zip(X, TEXTS, strict=True)],
    "masked records": np.ma.array(
        list(zip(X, ["a", "b", "b", "a"], strict=True)),
        dtype=[("x", float), ("k", "U1")],
        mask=[(0, 0), (0, 0), (0, 1), (0, 0)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LABELS)
def test_a_gap_is_no_class(name: str) -> None:
    with pytest.raises(ValueError, match=r"missing in the table: column 'k' in row 2;"):
        table_of(LABELS[name], label="k")
    dropped = table_of(LABELS[name], label="k", missing="drop")
    assert dropped.labels is not None
    assert (dropped.labels.tolist(), dropped.rows.tolist()) == (["a", "b", "a"], [0, 1, 3])


@pytest.mark.parametrize("write", ["pandas", "pyarrow", "polars"])
def test_a_gap_in_a_parquet_file_is_no_class(write: str, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    if write == "pyarrow":
        pq.write_table(LABELS["Arrow dictionary in pieces"], path)
    elif write == "polars":
        LABELS["polars categories"].write_parquet(path)
    else:
        LABELS["pandas categories"].to_parquet(path)
    with pytest.raises(ValueError, match=r"column 'k' in row 3;"):
        read_table(path, label="k")
    labels = read_table(path, label="k", missing="drop").labels
    assert labels is not None
    assert labels.tolist() == ["a", "b", "a"]


@pytest.mark.parametrize("labels", [None, "k"])
def test_a_dictionary_of_gaps_alone_is_missing(labels: str | None) -> None:
    frame = pa.table({"x": X, "k": pa.array([None] * 4, pa.string()).dictionary_encode()})
    with pytest.raises(ValueError, match=r"column 'k' in row 0, row 1, row 2 and 1 more|column 'k' of the table holds"):
        table_of(frame, label=labels)


MASKED = np.ma.array([[1.5, 5], [2, 7], [3, -99], [4, 5]], mask=[[0, 0], [0, 0], [0, 1], [0, 0]])
VALUES: dict[str, Any] = {
    "Arrow": arrow(NUMBERS),
    "Arrow dictionary": encoded(NUMBERS),
    "Arrow dictionary in pieces": pa.table({"x": X, "k": in_pieces(pa.array(NUMBERS).dictionary_encode())}),
    "Arrow dictionary of floats": encoded([5.0, 7.0, None, 5.0]),
    "Arrow decimals": arrow([Decimal(5), Decimal(7), None, Decimal(5)], pa.decimal128(5, 1)),
    "Arrow batch": pa.RecordBatch.from_pydict({"x": X, "k": pa.array(NUMBERS)}),
    "pandas categories": pd.DataFrame({"x": X, "k": pd.Categorical(NUMBERS)}),
    "pandas Int64": pd.DataFrame({"x": X, "k": pd.array(NUMBERS, dtype="Int64")}),
    "pandas objects": pd.DataFrame({"x": X, "k": pd.Series(NUMBERS, dtype=object)}),
    "polars Int128": pl.DataFrame({"x": X, "k": pl.Series(NUMBERS, dtype=pl.Int128)}),
    "records": [{"x": x, "k": k} for x, k in zip(X, NUMBERS, strict=True)],
    "masked records": np.ma.array(
        list(zip(X, [5, 7, -99, 5], strict=True)),
        dtype=[("x", float), ("k", int)],
        mask=[(0, 0), (0, 0), (0, 1), (0, 0)],
    ),
    "masked array": MASKED,
    "masked rows": list(MASKED),
    "text with gaps": np.genfromtxt(
        io.StringIO("x,k\n1.5,5\n2,7\n3,\n4,5\n"), delimiter=",", names=True, dtype=None, usemask=True, encoding="utf-8"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_a_gap_is_no_number(name: str) -> None:
    expected = np.array([X, [5, 7, NAN, 5]]).T
    with pytest.raises(ValueError, match=r"column '[ky]' in row 2;"):
        table_of(VALUES[name])
    kept = table_of(VALUES[name], missing="keep")
    np.testing.assert_array_equal(kept.values, expected)
    assert kept.schema.columns[1].kind == "integer"
    np.testing.assert_array_equal(as_points(VALUES[name], missing=True), expected)
    with pytest.raises(ValueError, match=r"column '[ky]' holds NaN in row 2"):
        as_points(VALUES[name])
    assert column_names(VALUES[name], 2) == (["x", "y"] if name in ("masked array", "masked rows") else ["x", "k"])


def test_what_lies_under_a_mask_is_not_trained_on() -> None:
    points = np.ma.array(np.random.default_rng(0).normal(size=(20, 2)))
    points[3, 1] = -99
    points[3, 1] = np.ma.masked
    for data in (points, list(points)):
        with pytest.raises(ValueError, match=r"column 'y' holds NaN in row 3"):
            fit(data, TrainingConfig(epochs=1))


@pytest.mark.parametrize(
    "frame",
    [
        arrow(TRUTHS),
        encoded(TRUTHS),
        pa.table({"x": X, "k": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None, 1], pa.int8()))}),
        pd.DataFrame({"x": X, "k": pd.array(TRUTHS, dtype="boolean")}),
        pl.DataFrame({"x": X, "k": TRUTHS}),
        np.ma.array(
            list(zip(X, [True, False, True, True], strict=True)),
            dtype=[("x", float), ("k", bool)],
            mask=[(0, 0), (0, 0), (0, 1), (0, 0)],
        ),
        [{"x": x, "k": k} for x, k in zip(X, TRUTHS, strict=True)],
    ],
    ids=["Arrow", "Arrow dictionary", "Arrow bool8", "pandas", "polars", "masked", "records"],
)  # fmt: skip
def test_truth_values_with_a_gap_stay_truth_values(frame: Any) -> None:
    table = table_of(frame, missing="keep")
    assert (table.schema.columns[1].kind, table.schema.columns[1].dtype) == ("boolean", "bool")
    np.testing.assert_array_equal(table.values[:, 1], [1, 0, NAN, 1])


def test_decimals_of_negative_scale_are_read() -> None:
    frame = arrow([Decimal("1E2"), None, Decimal("3E2"), Decimal("4E2")], pa.decimal128(5, -2))
    np.testing.assert_array_equal(table_of(frame, missing="keep").values[:, 1], [100, NAN, 300, 400])


@pytest.mark.parametrize("dtype", ["Int128", "UInt128"])
def test_long_integers_are_read_below_two_to_the_53(dtype: str) -> None:
    if not hasattr(pl, dtype):
        pytest.skip(f"this polars has no {dtype}")
    values = pl.Series([1, 2, 2**53 - 1, 4], dtype=getattr(pl, dtype))
    frame = pl.DataFrame({"x": X, "k": values})
    assert table_of(frame).values[2, 1] == 2**53 - 1
    label = table_of(frame, label="k").schema.label
    assert label is not None
    assert label.classes == (1, 2, 4, 2**53 - 1)
    with pytest.raises(ValueError, match=r"column 'k' holds 36893488147419103232 in row 3, and integers from 2\^53"):
        table_of(pl.DataFrame({"x": X, "k": pl.Series([1, 2, 3, 2**65], dtype=getattr(pl, dtype))}))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "float16", "int8", "uint16"])
def test_short_types_of_tensors_are_read(dtype: str) -> None:
    expected = np.arange(8.0).reshape(4, 2)
    tensor = torch.arange(8).reshape(4, 2).to(getattr(torch, dtype))
    np.testing.assert_array_equal(table_of(tensor).values, expected)
    np.testing.assert_array_equal(as_points(tensor), expected)


@pytest.mark.parametrize("read", [table_of, as_points])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (torch.eye(4).to_sparse(), r"is a sparse tensor; call its to_dense\(\) first"),
        (torch.empty(4, 2, device="meta"), "NumPy cannot hold"),
        ([{"x": 1.0, "k": [1, 2]}, {"x": 2.0, "k": 3}], "column 'k' holds"),
        ([], r"no rows|1 dimension"),
    ],
)
def test_what_has_no_plain_numbers_is_refused(read: Callable[[Any], Any], data: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as excinfo:
        read(data)
    assert "\n" not in str(excinfo.value)


@pytest.mark.parametrize("method", ["compute", "to_pandas"])
def test_a_frame_that_is_not_in_memory_is_told_how_to_get_there(method: str) -> None:
    """As Dask's frames and Astropy's tables are."""
    kind = type("DataFrame", (), {"columns": ["x"], method: None, "__module__": "dask.dataframe.core"})
    with pytest.raises(ValueError, match=rf"a DataFrame of dask, which is not read; call its {method}\(\) first"):
        table_of(kind())
    with pytest.raises(ValueError, match=r"is a dict; make a data frame of it first"):
        table_of({"x": X})


def test_records_are_a_table_with_types() -> None:
    rows = [{"n": 1, "v": 0.5, "k": "a"}, {"v": 1.5, "n": 4, "k": "b"}, {"n": 7, "v": 2.5, "k": "b", "more": 2}]
    table = table_of(rows, label="k", columns=["n", "v"])
    np.testing.assert_array_equal(table.values, [[1, 0.5], [4, 1.5], [7, 2.5]])
    assert [(column.name, column.dtype) for column in table.schema.columns] == [("n", "int64"), ("v", "float64")]
    assert table.labels is not None
    assert table.labels.tolist() == ["a", "b", "b"]
    with pytest.raises(ValueError, match=r"column 'more' in row 0, row 1;"):
        table_of(rows, label="k")


@pytest.mark.parametrize(
    "labels",
    [
        ["a", None, "b"],
        np.array([0, NAN, 1]),
        np.ma.array([0, -99, 1], mask=[0, 1, 0]),
        pd.Series(pd.Categorical(["a", None, "b"])),
        pd.array([1, None, 2]),
        pl.Series(["a", None, "b"], dtype=pl.Categorical),
        pa.chunked_array([pa.array(["a", None, "b"]).dictionary_encode()]),
    ],
    ids=["list", "NaN", "masked", "pandas", "Int64", "polars", "Arrow"],
)
def test_a_gap_among_labels_is_named(labels: Any) -> None:
    with pytest.raises(ValueError, match="the label of row 1 is missing"):
        as_labels(labels)


def test_arrow_labels_are_labels() -> None:
    assert as_labels(pa.chunked_array([["a"], ["b"]]).dictionary_encode()) == ["a", "b"]


@pytest.mark.parametrize("make", [pl.DataFrame, pa.table], ids=["polars", "Arrow"])
def test_gaps_and_digits_are_written_as_they_are(make: Callable[[Any], Any], tmp_path: Path) -> None:
    write_table(make({"n": [2**60 + 1, None, 3], "v": [0.1, None, 2.0], "k": ["a", None, "b"]}), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == f"n,v,k\n{2**60 + 1},0.1,a\n,,\n3,2.0,b\n"
