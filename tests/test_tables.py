"""Tables come in as points and go out as rows, in every format, with nothing lost on the way."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import datasets

from pointdiffusion import Column, LabelColumn, Schema, check_target, read_table, table_of, write_table
from pointdiffusion.tabular.cells import guard_formula, is_number, unguard_formula
from pointdiffusion.tabular.native import NativeType
from pointdiffusion.tabular.standardiser import Standardiser
from pointdiffusion.tabular.writing import FORMATS

NAMED = [form for form in FORMATS if form != ".npy"]


def real_table(name: str) -> pd.DataFrame:
    """Return a table that ships with scikit-learn, with texts for its classes where it has any."""
    found = getattr(datasets, f"load_{name}")(as_frame=True)
    frame = found.frame.copy()
    if hasattr(found, "target_names") and name in ("iris", "wine", "breast_cancer"):
        frame["target"] = np.asarray(found.target_names)[frame["target"]]
    return frame


def labelled(frame: pd.DataFrame) -> str | None:
    """Return the name of the label column of a table, if its target is one."""
    return "target" if not pd.api.types.is_float_dtype(frame["target"]) else None


TABLES = {name: real_table(name) for name in ("iris", "wine", "breast_cancer", "diabetes", "digits")}

MIXED = pd.DataFrame({
    "whole": np.array([3, -7, 12, 5, 5], dtype=np.int16),
    "small": np.array([0.5, 1.25, -2.5, 1e-3, 7.0], dtype=np.float32),
    "fixed": np.full(5, 9, dtype=np.uint8),
    "kind": ["b", "a", "b", "c", "a"],
    "yes": [True, False, True, True, False],
    "site": ["north"] * 5,
    "price": [1.25, 19.99, 3.10, 0.05, 100.00],
})  # fmt: skip


# ------------------------------------------------------------------------------------------------- there and back again


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("form", FORMATS)
def test_real_tables_come_back_equal(name: str, form: str, tmp_path: Path) -> None:
    """What pandas holds is what comes back, in numbers, names, order and, where a format has types, types."""
    frame, path = TABLES[name], tmp_path / f"table{form}"
    label = labelled(frame)
    if form == ".npy" and label and name != "digits":
        frame = frame.drop(columns="target")
        label = None
    write_table(frame, path)
    table = read_table(path, label="x65" if form == ".npy" and label else label)
    rows = table.schema.decode(table.values, table.labels)
    if form == ".npy":
        np.testing.assert_array_equal(rows.to_numpy(), frame.to_numpy())
        return
    pd.testing.assert_frame_equal(rows, frame, check_exact=True, check_dtype=form in (".parquet", ".npz"))
    assert table.rows.tolist() == list(range(len(frame)))


@pytest.mark.parametrize("form", NAMED)
def test_what_is_decoded_is_written_and_read_again(form: str, tmp_path: Path) -> None:
    """Integers, float32, booleans, constants and strings, through each format and a model file's JSON."""
    write_table(MIXED, tmp_path / f"a{form}")
    table = read_table(tmp_path / f"a{form}", label="kind")
    schema = Schema.from_mapping(json.loads(json.dumps(table.schema.to_mapping())))
    assert schema == table.schema
    assert schema.names == ["whole", "small", "yes", "price"]
    rows = schema.decode(schema.dequantise(table.values, 0), table.labels)
    typed = form in (".parquet", ".npz")
    pd.testing.assert_frame_equal(rows if typed else rows.astype(MIXED.dtypes), MIXED, check_exact=True)
    write_table(rows, tmp_path / f"b{form}")
    assert (tmp_path / f"a{form}").read_bytes() == (tmp_path / f"b{form}").read_bytes()


def test_kinds_types_and_decimals_are_found() -> None:
    columns = {column.name: column for column in table_of(MIXED, label="kind").schema.columns}
    found = {name: (column.kind, column.dtype, column.decimals) for name, column in columns.items()}
    assert found == {
        "whole": ("integer", "int16", None),
        "small": ("real", "float32", 3),
        "fixed": ("constant", "uint8", None),
        "yes": ("boolean", "bool", None),
        "site": ("constant", "str", None),
        "price": ("real", "float64", 2),
    }
    assert (columns["fixed"].value, columns["site"].value) == (9, "north")
    assert (columns["whole"].low, columns["whole"].high) == (-7.0, 12.0)


def test_floats_that_are_whole_are_integers_and_stay_floats() -> None:
    table = table_of(pd.DataFrame({"n": [1.0, 5.0, np.nan, 7.0]}), missing="keep")
    assert (table.schema.columns[0].kind, table.schema.columns[0].dtype) == ("integer", "float64")
    rows = table.schema.decode([[4.6], [np.nan]])
    pd.testing.assert_frame_equal(rows, pd.DataFrame({"n": [5.0, np.nan]}))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_full_precision_is_no_rounding(dtype: str) -> None:
    """Numbers with all the digits of their type have no decimals; large floats are whole, yet no integers."""
    draw = np.random.default_rng(0)
    columns = {"u": draw.random(500), "big": draw.normal(size=500) * 1e18, "tiny": draw.random(500) * 1e-12}
    frame = pd.DataFrame({name: column.astype(dtype) for name, column in columns.items()})
    schema = table_of(frame).schema
    assert [(column.kind, column.decimals) for column in schema.columns] == [("real", None)] * 3


@pytest.mark.parametrize("scale", [0, 1, 2, 5])
def test_decimals_are_those_of_the_texts(scale: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(scale)
    texts = [f"{value:.{scale}f}" for value in draw.normal(size=300) * 100]
    (tmp_path / "t.csv").write_text("\n".join(["v", *texts]))
    column = read_table(tmp_path / "t.csv").schema.columns[0]
    assert column.decimals == (scale or None)
    assert column.kind == ("real" if scale else "integer")


# ---------------------------------------------------------------------------------------------------- frames and arrays


@pytest.mark.parametrize(
    "convert",
    [
        pl.from_pandas,
        lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
        lambda frame: frame.convert_dtypes(),
        lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
        lambda frame: frame.astype({"kind": "category"}),
        lambda frame: frame.set_index(np.arange(5)[::-1]),
        lambda frame: frame.to_records(index=False),
    ],
    ids=["polars", "pyarrow", "nullable", "pandas on pyarrow", "categories", "index", "records"],
)
def test_every_kind_of_frame_is_the_same_table(convert: Callable[[pd.DataFrame], Any]) -> None:
    expected, found = table_of(MIXED, label="kind"), table_of(convert(MIXED), label="kind")
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.labels is not None
    assert expected.labels is not None
    assert found.labels.tolist() == expected.labels.tolist()
    assert [column.kind for column in found.schema.columns] == [column.kind for column in expected.schema.columns]


@pytest.mark.parametrize(
    "convert",
    [
        np.asfortranarray,
        lambda array: array[::-1][::-1],
        lambda array: np.repeat(array, 2, axis=1)[:, ::2],
        lambda array: array.astype(">f8"),
        lambda array: array.astype(np.float32),
        lambda array: array.astype(np.longdouble),
        lambda array: array.astype(object),
        lambda array: array.astype(str),
        lambda array: array.tolist(),
        lambda array: torch.from_numpy(array),
        lambda array: torch.from_numpy(array).bfloat16(),
        lambda array: np.ma.masked_invalid(array),
        lambda array: pd.DataFrame(array),
    ],
)
def test_neither_type_nor_memory_layout_matters(convert: Callable[[Any], Any]) -> None:
    """Quarters up to 30 are exact in all of these types."""
    array = np.random.default_rng(0).integers(-120, 120, size=(40, 3)) / 4.0
    np.testing.assert_array_equal(table_of(convert(array)).values, array)


def test_masked_cells_are_missing() -> None:
    array = np.ma.masked_equal(np.array([[1, 2], [3, 4], [5, 7]]), 4)
    with pytest.raises(ValueError, match=r"column 'y' in row 1;"):
        table_of(array)
    kept = table_of(array, missing="keep")
    np.testing.assert_array_equal(kept.values, [[1, 2], [3, np.nan], [5, 7]])
    assert kept.schema.columns[1].dtype == "int64"


def test_integers_with_gaps_stay_integers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": pd.array([1, None, 3, 8], dtype="Int32"), "v": [0.5, 1.5, 2.5, 3.5]})
    for form in (".parquet", ".csv", ".npz"):
        write_table(frame, tmp_path / f"t{form}")
        table = read_table(tmp_path / f"t{form}", missing="keep")
        assert table.schema.columns[0].kind == "integer"
        rows = table.schema.decode(table.values)
        if form == ".parquet":
            pd.testing.assert_frame_equal(rows, frame)
    assert table_of(frame, missing="drop").rows.tolist() == [0, 2, 3]


def test_names_are_given_to_columns_that_have_none(tmp_path: Path) -> None:
    assert table_of(np.eye(3)).schema.names == ["x", "y", "z"]
    assert table_of(np.eye(4)).schema.names == ["x1", "x2", "x3", "x4"]
    for content in ("1,2.5\n3,4\n", "1;2,5\n3;4\n"):
        (tmp_path / "t.csv").write_text(content)
        table = read_table(tmp_path / "t.csv")
        assert table.schema.names == ["x", "y"]
        assert table.values.tolist() == [[1, 2.5], [3, 4]]
    (tmp_path / "t.csv").write_text("5.1,3.5,setosa\n4.9,3,virginica\n")  # a number with a fraction names no column
    table = read_table(tmp_path / "t.csv", label="z")
    assert table.values.tolist() == [[5.1, 3.5], [4.9, 3]]
    (tmp_path / "t.csv").write_text("x,2019\n1,2\n3,4\n")  # a year may
    assert read_table(tmp_path / "t.csv").schema.names == ["x", "2019"]


def test_an_archive_of_a_table_and_its_classes_is_one_table(tmp_path: Path) -> None:
    array, classes = np.random.default_rng(0).normal(size=(6, 2)), np.array([0, 1, 2, 0, 1, 2])
    np.savez(tmp_path / "t.npz", points=array, kind=classes)
    table = read_table(tmp_path / "t.npz", label="kind")
    np.testing.assert_array_equal(table.values, array)
    assert table.labels is not None
    assert table.labels.tolist() == classes.tolist()


# --------------------------------------------------------------------------------------------------- choices of columns


def test_columns_are_chosen_by_name_and_keep_the_order_of_the_table(tmp_path: Path) -> None:
    for form in NAMED:
        write_table(MIXED, tmp_path / f"t{form}")
        table = read_table(tmp_path / f"t{form}", columns=["price", "whole", "kind"], label="kind")
        assert table.schema.names == ["whole", "price"]
        assert table.schema.label is not None
        assert table.schema.label.position == 1
    with pytest.raises(ValueError, match="unknown column 'prize'; did you mean 'price'"):
        table_of(MIXED, columns=["prize"])
    with pytest.raises(ValueError, match="unknown column 'sort'"):
        table_of(MIXED, label="sort")
    with pytest.raises(ValueError, match="no column of the table is left"):
        table_of(MIXED, columns=["kind"], label="kind")


@pytest.mark.parametrize(
    ("classes", "dtype", "expected"),
    [
        ([3, 1, 3, 2], "int64", (1, 2, 3)),
        ([3.0, 1.0, 3.0, 2.0], "float64", (1, 2, 3)),
        ([True, False, True, False], "bool", (0, 1)),
        (["u", "v", "u", "v"], "str", ("u", "v")),
        (["1", "01", "1", "2"], "str", ("01", "1", "2")),
        (["10", "9", "9", "-1"], "str", ("-1", "10", "9")),
    ],
)
def test_classes_keep_their_type(classes: list[Any], dtype: str, expected: tuple[Any, ...]) -> None:
    frame = pd.DataFrame({"v": [0.5, 1.0, 2.0, 4.0], "c": classes})
    table = table_of(frame, label="c")
    native = NativeType("object") if frame["c"].dtype == object else None  # texts before pandas 3
    assert table.schema.label == LabelColumn("c", 1, dtype, expected, native)
    pd.testing.assert_frame_equal(table.schema.decode(table.values, table.labels), frame)


def test_classes_of_text_files_are_numbers_only_where_they_are_written_so(tmp_path: Path) -> None:
    for texts, expected in ((["3", "1", "-2"], (-2, 1, 3)), (["3", "01", "2"], ("01", "2", "3"))):
        (tmp_path / "t.csv").write_text("v,c\n" + "".join(f"{row}.5,{text}\n" for row, text in enumerate(texts)))
        label = read_table(tmp_path / "t.csv", label="c").schema.label
        assert label is not None
        assert label.classes == expected


# ----------------------------------------------------------------------------------------------------- against a schema


def test_a_table_is_read_as_the_model_knows_it(tmp_path: Path) -> None:
    """Any order, more columns, absent constants and label; and by position where there are no names."""
    schema = table_of(MIXED, label="kind").schema
    wanted = table_of(MIXED, label="kind").values
    frames = [
        MIXED[MIXED.columns[::-1]].assign(note="n/a", more=[1, 2, 3, 4, 5]),
        MIXED[["price", "yes", "small", "whole"]],
    ]
    for frame in frames:
        write_table(frame, tmp_path / "t.csv", force=True)
        for table in (table_of(frame, schema=schema), read_table(tmp_path / "t.csv", schema=schema)):
            np.testing.assert_allclose(table.values, wanted, rtol=1e-7)  # float32 texts are shorter
            assert table.schema == schema
            assert table.departs is not None
            assert not table.departs.any()
    labels = table_of(frames[0], schema=schema).labels
    assert labels is not None
    assert labels.tolist() == MIXED["kind"].tolist()
    assert table_of(frames[1], schema=schema).labels is None
    np.testing.assert_array_equal(table_of(wanted, schema=schema).values, wanted)
    np.testing.assert_array_equal(table_of(MIXED.to_numpy(dtype=object), schema=schema).values, wanted)
    assert len(table_of(MIXED[:1], schema=schema).values) == 1  # one row will do for a model


def test_what_does_not_fit_a_schema_is_named() -> None:
    schema = table_of(MIXED, label="kind").schema
    with pytest.raises(ValueError, match="lacks the columns 'whole', 'price' that the model"):
        table_of(MIXED[["yes", "small"]], schema=schema)
    with pytest.raises(ValueError, match="3 columns without names, and the model has 4"):
        table_of(np.ones((2, 3)), schema=schema)
    with pytest.raises(
        ValueError, match=r"label column 'kind' holds 'd' in row 4, which is not a class.*'a', 'b', 'c'"
    ):
        table_of(MIXED.assign(kind=["a", "b", "c", "a", "d"]), schema=schema)
    with pytest.raises(ValueError, match="column 'whole' holds 'x' in row 0, which is not a number"):
        table_of(MIXED.assign(whole="x"), schema=schema)
    with pytest.raises(ValueError, match="column 'whole' in row 2"):
        table_of(MIXED.assign(whole=[1, 2, None, 4, 5]), schema=schema)


def test_rows_that_leave_a_constant_are_marked() -> None:
    schema = table_of(MIXED, label="kind").schema
    frame = MIXED.assign(fixed=[9, 9, 8, 9, 9], site=["north", "south", "north", None, "north"])
    departs = table_of(frame, schema=schema).departs
    assert departs is not None
    assert departs.tolist() == [False, True, True, False, False]


# -------------------------------------------------------------------------------------------- large tables, few of them


def test_a_subset_is_random_and_chosen_by_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is as likely as any other, whatever the batches; what the schema says is of all rows."""
    for module in ("sources", "memory"):
        monkeypatch.setattr(f"pointdiffusion.tabular.{module}.ROWS_AT_ONCE", 1000)
    frame = pd.DataFrame({"a": np.arange(20_000.0), "b": np.arange(20_000.0) / 3, "c": np.arange(20_000) % 7})
    path = tmp_path / "t.parquet"
    frame.to_parquet(path, row_group_size=3000)
    table = read_table(path, label="c", max_values=4000, seed=1)
    assert table.values.shape == (2000, 2)
    assert table.total_rows == 20_000
    assert (np.diff(table.rows) > 0).all()
    np.testing.assert_array_equal(table.values, frame[["a", "b"]].to_numpy()[table.rows])
    assert table.labels is not None
    np.testing.assert_array_equal(table.labels, frame["c"].to_numpy()[table.rows])
    assert table.schema.columns[0].high == 19_999
    assert stats.kstest(table.rows / 20_000, "uniform").pvalue > 0.01
    again = read_table(path, label="c", max_values=4000, seed=1)
    np.testing.assert_array_equal(again.rows, table.rows)
    for module in ("sources", "memory"):
        monkeypatch.setattr(f"pointdiffusion.tabular.{module}.ROWS_AT_ONCE", 333)
    np.testing.assert_array_equal(table_of(frame, label="c", max_values=4000, seed=1).rows, table.rows)
    assert len(set(read_table(path, label="c", max_values=4000, seed=2).rows) & set(table.rows)) < 400  # 200 expected


def test_memory_is_bounded_by_what_is_kept(tmp_path: Path) -> None:
    """Two million rows of eight columns are 122 MiB; a subset of them is read in much less."""
    path = tmp_path / "t.parquet"
    draw = np.random.default_rng(0)
    columns = [f"x{i + 1}" for i in range(8)]
    with pq.ParquetWriter(path, pa.schema([(name, pa.float64()) for name in columns])) as writer:
        for _ in range(10):
            writer.write_table(pa.table(dict(zip(columns, draw.normal(size=(8, 200_000)), strict=True))))
    code = """
import resource, sys
import numpy as np
from pointdiffusion import read_table
read_table(sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
table = read_table(sys.argv[1], max_values=80_000)
assert table.values.shape == (10_000, 8) and table.total_rows == 2_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    write_table(pd.DataFrame(draw.normal(size=(100, 8)), columns=columns), tmp_path / "small.parquet")
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "small.parquet")]
    kib = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert kib < 60 * 1024


def test_no_row_is_held_more_than_twice() -> None:
    """Of the rows that are kept one copy is in parts and one is whole, beside their numbers, keys and classes."""
    array = np.random.default_rng(0).normal(size=(400_000, 8))
    tracemalloc.start()
    try:
        values = table_of(array, max_values=array.size // 5).values
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(values) == 80_000
    assert peak < 2.9 * values.nbytes + 12 * 2**20  # and a batch


def test_standardising_copies_a_table_once() -> None:
    array = np.random.default_rng(0).normal(size=(400_000, 8))
    standardiser = Standardiser.fit(array[:1000])
    tracemalloc.start()
    try:
        standardiser.transform(array)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * array.nbytes


def test_reading_needs_neither_torch_nor_pandas(tmp_path: Path) -> None:
    """The shell answers quickly."""
    write_table(TABLES["iris"], tmp_path / "t.csv")
    code = "import sys; from pointdiffusion import read_table; read_table('t.csv', label='target'); print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not {"torch", "pandas", "sklearn", "pyarrow", "scipy"} & set(done.stdout.split())


# ------------------------------------------------------------------------------------------------------------ out again


def test_integers_stay_in_their_type_and_bounds_where_asked() -> None:
    schema = table_of(MIXED, label="kind").schema
    points = [[1e9, 1e300, 7.0, -3.0], [-1e9, -1e300, -7.0, 1e5], [2.5, 0.12345, 0.5, 1.005]]
    rows = schema.decode(points)
    assert rows["whole"].tolist() == [32767, -32768, 3]
    assert rows["yes"].tolist() == [True, False, True]
    assert rows["price"].tolist() == [-3.0, 1e5, 1.0]
    assert np.isfinite(rows["small"]).all()
    assert rows.dtypes.astype(str).to_dict()["small"] == "float32"
    assert "kind" not in rows
    bounded = schema.decode(points, within_bounds=True)
    assert bounded["whole"].tolist() == [12, -7, 3]
    assert bounded["price"].tolist() == [0.05, 100.0, 1.0]
    raw = schema.decode(points, rounding=False)
    assert raw["whole"].tolist() == [1e9, -1e9, 2.5]
    with pytest.raises(ValueError, match="finite"):
        schema.decode([[np.inf] * 4])
    with pytest.raises(ValueError, match="4 columns"):
        schema.decode([[1.0] * 3])
    with pytest.raises(ValueError, match="'d' is not a class"):
        schema.decode(points, ["a", "b", "d"])
    with pytest.raises(ValueError, match="each of 3 points"):
        schema.decode(points, ["a", "b"])


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("precious")
    for action in (lambda: write_table(MIXED, path), lambda: check_target(path)):
        with pytest.raises(ValueError, match="already exists; overwrite it with --force"):
            action()
    assert path.read_text() == "precious"
    write_table(MIXED, path, force=True)
    assert path.read_text().startswith("whole,small")
    with pytest.raises(ValueError, match="frame must be a data frame"):
        write_table([[1, 2]], tmp_path / "u.csv")
    with pytest.raises(ValueError, match="two columns have the same name"):
        write_table(pd.DataFrame([[1, 2]], columns=["a", "a"]), tmp_path / "u.csv")
    with pytest.raises(ValueError, match="has an unknown format"):
        write_table(MIXED, tmp_path / "t.xlsx")
    with pytest.raises(ValueError, match=r"column 'kind' holds strings, and \.npy"):
        write_table(MIXED, tmp_path / "t.npy")
    assert os.listdir(tmp_path) == ["t.csv"]  # noqa: PTH208


@pytest.mark.parametrize("form", NAMED)
def test_the_same_rows_give_the_same_bytes(form: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(pl.from_pandas(MIXED) if name == "b" and form == ".csv" else MIXED, tmp_path / (name + form))
    assert (tmp_path / f"a{form}").read_bytes() == (tmp_path / f"b{form}").read_bytes()


def test_standard_output_takes_csv(capsys: pytest.CaptureFixture[str]) -> None:
    write_table(TABLES["iris"], "-")
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(capsys.readouterr().out)), TABLES["iris"])


FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "a,=1+1", "x;@y", "＝1", "'=quoted", "''", "-"]


@pytest.mark.parametrize("form", [".csv", ".tsv", ".csv.gz"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_no_formula_runs_and_every_text_comes_back(form: str, formula: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"v": [-1.5, 2.0, -3e-5], "c": [formula, "b", formula], "-1": [-4, 5, -6]})
    frame = frame.rename(columns={"v": formula})
    path = tmp_path / f"t{form}"
    write_table(frame, path)
    text = (gzip.decompress(path.read_bytes()) if form.endswith("gz") else path.read_bytes()).decode()
    for separator in ",;\t|":
        for line in text.splitlines():
            for cell in line.split(separator):
                assert not cell.lstrip('"').startswith(tuple("=+-@＝")) or is_number(cell.split(",")[0].split("\t")[0])
    table = read_table(path, label="c")
    assert table.schema.names == [formula, "-1"]
    assert table.labels is not None
    assert table.labels.tolist() == [formula, "b", formula]
    assert table.values.tolist() == [[-1.5, -4], [2.0, 5], [-3e-5, -6]]


# ----------------------------------------------------------------------------------------------------------- properties

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8).filter(
    lambda text: text.strip() != ""
)


@given(st.lists(st.tuples(FINITE, FINITE), min_size=2, max_size=30), st.sampled_from(FORMATS))
@SLOW
def test_any_numbers_are_read_as_they_were_written(rows: list[tuple[float, float]], form: str) -> None:
    array = np.array(rows) + 0.0  # no negative zeros, which compare equal
    if (array == array[0]).all(axis=0).any():
        array[0] = array[1] + 1
        if (array == array[0]).all(axis=0).any():
            return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_table(pd.DataFrame(array, columns=["x", "y"]), folder / f"t{form}")
        table = read_table(folder / f"t{form}")
    np.testing.assert_array_equal(table.values, array)
    np.testing.assert_array_equal(table.schema.decode(table.values).to_numpy(), array)


@given(st.lists(TEXTS, min_size=2, max_size=12), TEXTS, st.sampled_from(NAMED))
@SLOW
def test_any_texts_are_read_as_they_were_written(classes: list[str], name: str, form: str) -> None:
    name = name.strip() + "!"  # not that of the other column
    frame = pd.DataFrame({"v": np.arange(len(classes)) + 0.5, name: classes})
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_table(frame, folder / f"t{form}")
        table = read_table(folder / f"t{form}", label=name)
    assert table.schema.label is not None
    assert table.labels is not None
    assert [str(each) for each in table.labels] == classes


@given(TEXTS)
def test_guarded_texts_come_back(text: str) -> None:
    guarded = guard_formula(text)
    assert unguard_formula(guarded) == text
    assert is_number(guarded) or not guarded.startswith(tuple("=+-@＝＋－＠\t\r"))


@given(st.lists(st.integers(-(2**50), 2**50), min_size=2, max_size=50), st.integers(0, 2**32))
@settings(deadline=None)
def test_dequantised_integers_are_rounded_back(values: list[int], seed: int) -> None:
    schema = Schema((Column("n", "integer", "int64", -(2.0**50), 2.0**50),))
    array = np.array(values, dtype=np.float64)[:, None]
    noisy = schema.dequantise(array, seed)
    assert (np.abs(noisy - array) <= 0.5).all()
    assert schema.decode(noisy)["n"].tolist() == values


def test_the_noise_of_dequantisation_is_uniform() -> None:
    schema = table_of(MIXED, label="kind").schema
    values = np.tile(table_of(MIXED, label="kind").values, (4000, 1))
    noise = schema.dequantise(values, 0) - values
    assert schema.discrete == [0, 2]
    assert (noise[:, [1, 3]] == 0).all()
    for column in noise[:, [0, 2]].T:
        assert stats.kstest(column + 0.5, "uniform").pvalue > 0.01
    np.testing.assert_array_equal(schema.dequantise(values, 3), schema.dequantise(values, np.random.default_rng(3)))
    assert abs(np.corrcoef(noise[:, 0], noise[:, 2])[0, 1]) < 0.03  # 4 standard errors of 20,000 rows


@given(st.permutations(range(12)))
@settings(deadline=None, max_examples=30)
def test_the_order_of_rows_does_not_matter_to_the_schema(order: list[int]) -> None:
    frame = pd.concat([MIXED, MIXED.assign(whole=1, price=2.345)], ignore_index=True).loc[[i % 10 for i in order]]
    assert table_of(frame, label="kind").schema == table_of(frame[::-1], label="kind").schema


# -------------------------------------------------------------------------------------------------- hostile model files


def mappings() -> list[tuple[str, Any]]:
    """Return what a model file may hold in place of a schema."""
    good = table_of(MIXED, label="kind").schema.to_mapping()

    def changed(place: int, **parts: Any) -> dict[str, Any]:
        columns = [dict(column) for column in good["columns"]]
        columns[place] |= parts
        return {**good, "columns": columns}

    plain = {"decimals": None, "value": None, "low": 0.0, "high": 1.0, "kind": "real", "dtype": "float64"}
    return [
        ("nothing", None),
        ("a list", []),
        ("no columns", {**good, "columns": []}),
        ("columns of a text", {**good, "columns": "abc"}),
        ("a column of a text", {**good, "columns": ["abc"]}),
        ("no label", {"columns": good["columns"]}),
        ("more parts", {**good, "more": 1}),
        ("many columns", {"columns": [{**plain, "name": f"c{i}"} for i in range(1025)], "label": None}),
        ("constants alone", {"columns": good["columns"][2:3], "label": None}),
        ("a name twice", changed(0, name="small")),
        ("the label's name twice", changed(0, name="kind")),
        ("a number for a name", changed(0, name=5)),
        ("a name with a NUL", changed(0, name="a\0b")),
        ("a name that is no text", changed(0, name="\ud800")),
        ("an unknown kind", changed(0, kind="magic")),
        ("a list for a kind", changed(0, kind=["real"])),
        ("an unknown type", changed(0, dtype="object")),
        ("a list for a type", changed(0, dtype=["int64"])),
        ("the type of another kind", changed(1, dtype="int64")),
        ("an infinite bound", changed(0, low=float("-inf"))),
        ("NaN for a bound", changed(0, high=float("nan"))),
        ("a text for a bound", changed(0, low="0")),
        ("bounds the wrong way", changed(0, low=10.0, high=2.0)),
        ("negative decimals", changed(1, decimals=-1)),
        ("many decimals", changed(1, decimals=10**9)),
        ("true for decimals", changed(1, decimals=True)),
        ("a value in a column that varies", changed(0, value=3)),
        ("a constant of another type", changed(2, value="9")),
        ("a constant beyond its type", changed(2, value=256)),
        ("a huge constant", changed(2, value=10**400)),
        ("a list for a constant", changed(2, value=[1])),
        ("a label that is a text", {**good, "label": "kind"}),
        ("a label far off", {**good, "label": {**good["label"], "position": 99}}),
        ("a label before the first", {**good, "label": {**good["label"], "position": -1}}),
        ("a label of another type", {**good, "label": {**good["label"], "dtype": "object"}}),
        ("no classes", {**good, "label": {**good["label"], "classes": []}}),
        ("a class twice", {**good, "label": {**good["label"], "classes": ["a", "a"]}}),
        ("numbers for texts", {**good, "label": {**good["label"], "classes": [1, 2]}}),
        ("nested classes", {**good, "label": {**good["label"], "classes": [["a"]]}}),
        ("many classes", {**good, "label": {**good["label"], "classes": [str(i) for i in range(1001)]}}),
        ("classes beyond their type", {**good, "label": {**good["label"], "dtype": "int8", "classes": [1000]}}),
    ]


@pytest.mark.parametrize(("name", "mapping"), mappings(), ids=[name for name, _ in mappings()])
def test_a_hostile_schema_is_refused(name: str, mapping: Any) -> None:
    with pytest.raises(ValueError, match=r"\w") as excinfo:
        Schema.from_mapping(mapping)
    assert "\n" not in str(excinfo.value)


def test_what_is_rounded_to_nothing_has_no_sign() -> None:
    """A column of lengths with the value -0.0 looks broken."""
    schema = table_of(pd.DataFrame({"a": [0.1, 0.2, 0.3] * 4, "b": [0.5, 1.5, 2.5] * 4})).schema
    assert schema.decode(np.array([[-0.01, 0.5]])).to_csv(index=False) == "a,b\n0.0,0.5\n"
