"""A model of a table from Python: types that go in come out, and its figures are those of the command line."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal as assert_polars_equal
from typer.testing import CliRunner

import pointdiffusion as ptd
from pointdiffusion.cli.app import app
from pointdiffusion.tabular.encoding import ENCODINGS, encoding_of

QUICK = ptd.TableConfig(num_steps=5, num_members=0, hidden_dim=16, base="gaussian")
N = 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=N)
COUNTS = RNG.integers(0, 9, N)
KINDS = np.array(["b", "a"])[RNG.integers(0, 2, N)]
MONEY = [Decimal(f"{value:.2f}") for value in X]

PANDAS = pd.DataFrame({
    "float": X, "float32": X.astype("float32"), "Float64": pd.array(X, dtype="Float64"), "flag": X > 0,
    "Int64": pd.array(COUNTS, dtype="Int64"), "boolean": pd.array(X > 0, dtype="boolean"),
    "arrow": pd.array(COUNTS, dtype="int64[pyarrow]"), "decimal": MONEY,
    "arrow decimal": pd.array(MONEY, dtype=pd.ArrowDtype(pa.decimal128(7, 2))),
    "object": pd.Series(COUNTS.tolist(), dtype=object), "ordered": pd.Categorical(COUNTS, ordered=True),
    "constant": pd.Series(["u"] * N, dtype="string"), "int8": COUNTS.astype("int8"),
    "kind": pd.Categorical(KINDS, categories=["b", "a", "unused"], ordered=True),
})  # fmt: skip
POLARS = pl.DataFrame({
    "float": X, "float32": X.astype("float32"), "int8": pl.Series(COUNTS, dtype=pl.Int8), "flag": X > 0,
    "decimal": pl.Series(MONEY, dtype=pl.Decimal(7, 2)), "constant": ["u"] * N,
    "wide": pl.Series(COUNTS, dtype=pl.Int128), "kind": pl.Series(KINDS, dtype=pl.Enum(["b", "a"])),
})  # fmt: skip
ARROW = pa.table({
    "float": pa.array(X, pa.float32()), "int": pa.array(COUNTS, pa.uint8()), "flag": pa.array(X > 0),
    "decimal": pa.array(MONEY, pa.decimal128(7, 2)), "constant": pa.array(["u"] * N, pa.large_string()),
    "kind": pa.array(KINDS).dictionary_encode(),
})  # fmt: skip
TABLES = {"pandas": PANDAS, "polars": POLARS, "pyarrow": ARROW}


def fitted(data: Any, **settings: Any) -> ptd.TableModel:
    return ptd.fit_table(data, **{"config": QUICK, "seed": 3, **settings})


def assert_same(rows: Any, expected: Any) -> None:
    """Raise unless two frames of one library are the same, values and types."""
    assert type(rows) is type(expected)
    if isinstance(rows, pd.DataFrame):
        pd.testing.assert_frame_equal(rows, expected)
    elif isinstance(rows, pl.DataFrame):
        assert_polars_equal(rows, expected)
    else:
        assert rows.schema == expected.schema
        assert rows.to_pylist() == expected.to_pylist()


# ------------------------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize("library", TABLES)
def test_encoding_and_decoding_give_the_same_frame(library: str) -> None:
    """Each value and each type, through the plain values of a file, too."""
    table = ptd.table_of(TABLES[library], label="kind")
    schema = ptd.Schema.from_mapping(json.loads(json.dumps(table.schema.to_mapping())))
    assert schema == table.schema
    assert_same(schema.decode(schema.dequantise(table.values, 0), table.labels), TABLES[library])


@pytest.mark.parametrize("library", TABLES)
def test_rows_that_are_drawn_have_the_types_of_the_table(library: str, tmp_path: Path) -> None:
    """From the model as it was fitted, and as it is read again."""
    model = fitted(TABLES[library], label="kind")
    model.save(tmp_path / "model.pt")
    again = ptd.load_run(tmp_path / "model.pt")
    assert again.selection is None
    drawn = model.sample(7, seed=1, nfe=4)
    assert_same(again.sample(7, seed=1, nfe=4), drawn)
    whole = TABLES[library]
    if isinstance(whole, pd.DataFrame):
        assert (drawn.dtypes == whole.dtypes).all()
    else:
        assert drawn.schema == whole.schema
    assert len(drawn) == 7


def test_gaps_stay_gaps_in_each_type() -> None:
    """A missing value is what the type has for one."""
    holes = PANDAS.drop(columns=["flag", "int8"]).astype({"constant": "string"})
    for name in ("Int64", "boolean", "arrow", "arrow decimal", "ordered", "Float64"):
        holes[name] = holes[name].where(np.arange(N) != 3)
    money: Any = [None if row == 3 else value for row, value in enumerate(MONEY)]
    holes["decimal"] = money
    table = ptd.table_of(holes, label="kind", missing="keep")
    rows = table.schema.decode(table.values, table.labels)
    pd.testing.assert_frame_equal(rows, holes)


def test_what_a_type_cannot_hold_is_moved_into_it() -> None:
    """A Decimal beyond its digits, a number between categories."""
    table = ptd.table_of(pd.DataFrame({
        "d": pd.array(MONEY, dtype=pd.ArrowDtype(pa.decimal128(4, 2))), "c": pd.Categorical(COUNTS * 10),
    }))  # fmt: skip
    rows = table.schema.decode([[12345.678, 14.0], [-1e9, 16.0]])
    assert rows["d"].tolist() == [Decimal("99.99"), Decimal("-99.99")]
    assert rows["c"].tolist() == [10, 20]


@pytest.mark.parametrize(
    "native",
    [
        {"name": "__import__('os')", "categories": None, "ordered": False},
        {"name": "category", "categories": None, "ordered": False},
        {"name": "category", "categories": [[1], [2]], "ordered": False},
        {"name": "category", "categories": ["a", "a"], "ordered": False},
        {"name": "decimal128(99, 2)", "categories": None, "ordered": False},
        {"name": "Enum", "categories": ["a"], "ordered": False},  # of polars, in a frame of pandas
        {"name": "Int64"}, "Int64", {"name": 5, "categories": None, "ordered": False},
    ],
)  # fmt: skip
def test_a_hostile_type_is_refused(native: Any) -> None:
    mapping = ptd.table_of(PANDAS[["float", "Int64"]]).schema.to_mapping()
    mapping["columns"][1]["native"] = native
    with pytest.raises(ValueError, match=r"type|categories"):
        ptd.Schema.from_mapping(mapping)


@pytest.mark.parametrize(
    ("container", "name"), [("pandas", "arrow:string"), ("polars", "String"), ("pyarrow", "string")]
)
def test_a_type_that_does_not_fit_the_values_is_told(container: str, name: str) -> None:
    """Only a file that contradicts itself has such; there is no traceback of another library."""
    mapping = ptd.table_of(PANDAS[["float"]]).schema.to_mapping()
    mapping["columns"][0]["native"] = {"name": name, "categories": None, "ordered": False}
    schema = ptd.Schema.from_mapping({**mapping, "container": container})
    with pytest.raises(ValueError, match=f"column 'float' cannot be of the type '{name}'"):
        schema.decode([[0.3]])


@pytest.mark.parametrize("container", ["numpy", "", None, 5, ["pandas"]])
def test_a_hostile_container_is_refused(container: Any) -> None:
    mapping = ptd.table_of(PANDAS[["float"]]).schema.to_mapping()
    with pytest.raises(ValueError, match="container must be one of"):
        ptd.Schema.from_mapping({**mapping, "container": container})


def test_plain_tables_are_written_as_before() -> None:
    """A schema of plain types holds nothing new, so that earlier versions read it."""
    mapping = ptd.table_of(pd.DataFrame({"x": X, "n": COUNTS})).schema.to_mapping()
    assert set(mapping) == {"columns", "label"}
    assert set(mapping["columns"][0]) == {"name", "kind", "dtype", "low", "high", "decimals", "value"}


@pytest.mark.parametrize("kind", ENCODINGS)
def test_an_encoding_gives_back_what_it_was_given(kind: str) -> None:
    """Whatever is registered must be invertible on the values of its column, with coordinates of its width."""
    values = {"real": X, "integer": COUNTS, "boolean": X > 0, "constant": np.full(N, 2.5)}[kind]
    column = ptd.table_of(pd.DataFrame({"c": values, "x": X})).schema.columns[0]
    assert column.kind == kind
    encoding = encoding_of(column)
    points = encoding.encode(values.astype(float), np.random.default_rng(0))
    assert points.shape == (N, encoding.width)
    np.testing.assert_array_equal(encoding.decode(points), values)


# -------------------------------------------------------------------------------------------------------------- fits


def test_records_are_read_as_a_table() -> None:
    records = [{"x": float(x), "n": int(n), "kind": str(k)} for x, n, k in zip(X, COUNTS, KINDS, strict=True)]
    drawn = fitted(records, label="kind").sample(5, nfe=4)
    assert drawn.columns.tolist() == ["x", "n", "kind"]
    assert drawn["n"].dtype == np.int64
    assert set(drawn["kind"]) <= {"a", "b"}


def test_arrays_go_in_as_before() -> None:
    """Columns of floats are real, integers by their type; a constant column is put back; names are x, y, z."""
    rows = np.column_stack([X, np.round(X), np.full(N, 2.5)])
    model = fitted(rows, labels=KINDS.tolist())
    assert [column.kind for column in model.schema.columns] == ["real", "real", "constant"]
    drawn = model.sample(4, nfe=4)
    assert drawn.columns.tolist() == ["x", "y", "z", "label"]
    assert (drawn["z"] == 2.5).all()
    assert [column.kind for column in fitted(np.column_stack([COUNTS, COUNTS[::-1]])).schema.columns] == ["integer"] * 2
    plain = ptd.fit_table(rows[:, :2], config=QUICK, seed=3).points.sample(4, nfe=4)
    np.testing.assert_array_equal(fitted(pd.DataFrame(rows[:, :2] + 0.0, columns=["x", "y"])).points.n_dims, 2)
    assert plain.shape == (4, 2)


def test_labels_beside_the_table_are_those_of_a_column() -> None:
    """The same classes, whether the table holds them or they are given beside it."""
    frame = pd.DataFrame({"x": X, "y": RNG.normal(size=N)})
    beside = fitted(frame, labels=pd.Series(KINDS, name="kind"))
    inside = fitted(frame.assign(kind=KINDS), label="kind")
    assert_same(beside.sample(9, nfe=4), inside.sample(9, nfe=4))


def test_what_was_returned_before_still_is() -> None:
    """The attributes of a `Selection`, `model` with a word about its new name; the argument `points`, too."""
    rows = np.column_stack([X, X[::-1]])
    model = fitted(rows)
    with pytest.warns(DeprecationWarning, match=r"TableModel\.model is deprecated.*use TableModel\.points"):
        assert model.model is model.points
    selection = model.selection
    assert selection is not None
    assert (model.config, model.scores, model.weights) == (selection.config, selection.scores, selection.weights)
    assert (model.members, model.verdict, model.folder) == (selection.members, selection.verdict, None)
    assert model.seconds > 0
    assert str(model) == str(selection)
    with pytest.warns(DeprecationWarning, match=r"points=\.\.\..*data="):
        other = ptd.fit_table(points=rows, config=QUICK, seed=3)
    np.testing.assert_array_equal(other.points.sample(3, nfe=4), model.points.sample(3, nfe=4))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"data": None}, "no table"), ({"missing": "keep"}, "unknown missing"),
        ({"label": "flag", "labels": KINDS.tolist()}, "one of the two"), ({"label": "nothing"}, "unknown column"),
        ({"labels": ["a"]}, "one row for each of 60"),
        ({"data": PANDAS.assign(float=np.where(X > 0, X, np.nan))}, "missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        fitted(**{"data": PANDAS.drop(columns="kind"), **settings})


# --------------------------------------------------------------------------------- the same figures as the shell's


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run of the shell, beside the table that it is about."""
    folder = tmp_path_factory.mktemp("table-model")
    frame = pd.DataFrame({"x": X, "count": COUNTS, "place": "here", "kind": KINDS})
    frame.to_csv(folder / "table.csv", index=False)
    frame.drop(columns="kind").assign(x=frame["x"].where(X < 1)).to_csv(folder / "holes.csv", index=False)
    (folder / "quick.yaml").write_text(f"fit: {json.dumps(QUICK.to_mapping())}\n")
    shell(
        "train", folder / "table.csv", "-o", folder / "run", "--label", "kind", "--config", folder / "quick.yaml",
        "--seed", 3, "--no-report",
    )  # fmt: skip
    return folder / "run"


def shell(*arguments: Any) -> None:
    done = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_python_draws_the_rows_of_the_shell(run: Path, tmp_path: Path) -> None:
    model = ptd.load_run(run)
    shell("sample", run, "-n", 20, "--seed", 5, "--nfe", 6, "-o", tmp_path / "new.csv")
    pd.testing.assert_frame_equal(model.sample(20, seed=5, nfe=6), pd.read_csv(tmp_path / "new.csv"))
    shell("sample", run, "-n", 9, "--label", "a", "--guidance", 2, "--within-bounds", "-o", tmp_path / "a.csv")
    own = model.sample(9, labels="a", guidance=2.0, within_bounds=True)
    pd.testing.assert_frame_equal(own, pd.read_csv(tmp_path / "a.csv"))
    assert own["x"].between(X.min(), X.max()).all()


def test_python_scores_like_the_shell(run: Path, tmp_path: Path) -> None:
    model, frame = ptd.load_run(run), pd.read_csv(run.parent / "table.csv")
    shell("score", run, run.parent / "table.csv", "--seed", 2, "-o", tmp_path / "s.csv")
    scores = pd.read_csv(tmp_path / "s.csv", dtype=str)["log_prob"].astype(float)
    np.testing.assert_array_equal(model.score(frame, seed=2), scores)
    shell("score", run, run.parent / "table.csv", "--by-label", "-o", tmp_path / "s.csv", "--force")
    by_label = model.score(frame, by_label=True)
    np.testing.assert_array_equal(by_label, pd.read_csv(tmp_path / "s.csv", dtype=str)["log_prob"].astype(float))
    np.testing.assert_array_equal(model.score(frame.sample(frac=1, axis=1, random_state=0), by_label=True), by_label)


def test_a_score_is_the_density_of_the_points(run: Path) -> None:
    """By the model of points itself, on integers with the same noise; a row with a gap has none."""
    model, holes = ptd.load_run(run), pd.read_csv(run.parent / "holes.csv")
    scores = model.score(holes, seed=4, missing="drop")
    there = holes["x"].notna().to_numpy()
    assert np.isnan(scores).tolist() == (~there).tolist()
    counts = holes["count"][there] + np.random.default_rng(4).uniform(-0.5, 0.5, there.sum())
    expected = model.points.log_prob(np.column_stack([holes["x"][there], counts]))
    np.testing.assert_allclose(scores[there], expected, atol=1e-9)
    with pytest.raises(ValueError, match="missing"):
        model.score(holes)


def test_python_fills_gaps_like_the_shell(run: Path, tmp_path: Path) -> None:
    model, holes = ptd.load_run(run), pd.read_csv(run.parent / "holes.csv").head(12)
    holes.loc[0, "x"] = np.nan
    holes.to_csv(tmp_path / "holes.csv", index=False)
    shell("impute", run, tmp_path / "holes.csv", "--draws", 2, "--seed", 2, "-o", tmp_path / "filled.csv")
    filled = model.impute(holes, num_draws=2, seed=2, details=True)
    pd.testing.assert_frame_equal(filled.assign(row=filled["row"] + 1), pd.read_csv(tmp_path / "filled.csv"))
    once = model.impute(holes, seed=2)
    assert once.columns.tolist() == ["x", "count", "place"]
    there = holes["x"].notna()
    np.testing.assert_array_equal(once["x"][there], holes["x"][there])
    assert once["x"].notna().all()


def test_a_table_with_gaps_is_learned_from_python() -> None:
    """Gaps are filled by a network with masks, whole rows come back as they are, in their own types."""
    frame = pd.DataFrame({"x": pd.array(X, dtype="Float64"), "n": pd.array(COUNTS, dtype="Int64")})
    frame.loc[::7, "n"] = pd.NA
    model = fitted(frame, missing="mask", config=ptd.TableConfig(num_steps=5, num_members=0, hidden_dim=16))
    assert model.points.conditions is not None
    assert model.points.conditions.masked
    filled = model.impute(frame)
    assert (filled.dtypes == frame.dtypes).all()
    assert filled.notna().all(axis=None)
    pd.testing.assert_series_equal(filled["n"][frame["n"].notna()], frame["n"].dropna())
    dropped = fitted(frame, missing="drop")
    assert dropped.points.conditions is None
    with pytest.raises(ValueError, match="missing"):
        fitted(frame)


def test_rows_are_explained_as_they_stand_in_the_table(run: Path) -> None:
    """Without the noise of integers; a training row is its own nearest neighbour."""
    model, frame = ptd.load_run(run), pd.read_csv(run.parent / "table.csv")
    explanation = model.explain(frame, 11, training=frame, num_neighbours=2)
    np.testing.assert_array_equal(explanation.values, [X[11], COUNTS[11]])
    assert explanation.neighbours[0].row == 11
    np.testing.assert_array_equal(explanation.neighbours[0].values, [X[11], COUNTS[11]])
    assert {each.column: each.value for each in explanation.anomalies} == {"x": X[11], "count": COUNTS[11]}
    rows = model.anomalies(frame, 3)
    scores = model.score(frame)
    assert [each.row for each in rows] == np.argsort(scores)[:3].tolist()
    assert rows[0].log_prob == scores.min()
    with pytest.raises(ValueError, match="there is no row 60"):
        model.explain(frame, 60)


def test_a_folder_without_a_model_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no model\.pt"):
        ptd.load_run(tmp_path)


def test_a_model_of_points_is_one_of_real_columns(tmp_path: Path) -> None:
    """What `fit` saves opens as a table of floats."""
    config = ptd.TrainingConfig(epochs=1, epoch_steps=2)
    ptd.fit(pd.DataFrame({"u": X, "v": X[::-1]}), config, seed=0).save(tmp_path / "points.pt")
    model = ptd.load_run(tmp_path / "points.pt")
    drawn = model.sample(6, seed=1, nfe=4)
    np.testing.assert_array_equal(drawn.to_numpy(), model.points.sample(6, seed=1, nfe=4))
    assert drawn.columns.tolist() == ["u", "v"]
