"""Tables that are handed in to the playground: what cannot be shown is refused, by its headers where it has some."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from pointdiffusion.web.guard import Served
from pointdiffusion.web.server import make_app
from pointdiffusion.web.uploads import TooLargeError, preview_bytes


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(make_app(Served(frozenset({"testserver"}))), raise_server_exceptions=False)


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


@pytest.mark.parametrize("cell", ["1e999", "-1e999", "inf", "-Infinity", "9" * 5000, "." + "1" * 400 + "e400"])
@pytest.mark.parametrize("comma", [False, True])
def test_a_number_that_no_double_holds_is_refused(client: TestClient, cell: str, comma: bool) -> None:
    body = f"a;b\n1,5;2\n3;{cell.replace('.', ',')}\n" if comma else f"a,b\n1.5,2\n3,{cell}\n"
    answer = client.post("/api/table?kind=csv", content=body)
    assert answer.status_code == 422
    assert answer.json()["detail"] == "column 'b' holds an infinite value in row 2 (line 3); remove or replace it"


def test_an_infinite_number_of_an_array_is_no_gap(client: TestClient) -> None:
    answer = client.post("/api/table?kind=npy", content=npy(np.array([[1.0, np.nan], [2, np.inf]])))
    assert (answer.status_code, answer.json()["detail"]) == (
        422, "column 'x2' holds an infinite value in row 2; remove or replace it",
    )  # fmt: skip


def test_half_letters_are_shown_as_question_marks(client: TestClient) -> None:
    """A name or a text that UTF-8 cannot hold is still answered."""
    records = np.array([(1.0, "x\ud800")], dtype=[("n\udfff", "<f8"), ("t", "<U2")])
    answer = client.post("/api/table?kind=npy", content=npy(records))
    assert answer.status_code == 200
    assert json.loads(answer.content) == {"columns": ["n?", "t"], "rows": 1, "values": [[1.0, "x?"]]}


def packed_array(shape: tuple[int, ...], dtype: str, kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a `.npz` of zeros, which weighs next to nothing unless it is stored as it is."""
    buffer = io.BytesIO()
    left = int(np.prod(shape)) * np.dtype(dtype).itemsize
    archive = zipfile.ZipFile(buffer, "w", kind, compresslevel=1)
    with archive, archive.open("a.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
        for start in range(0, left, 2**20):
            file.write(bytes(min(2**20, left - start)))
    return buffer.getvalue()


def parquet(rows: int, columns: int) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({f"c{k}": np.zeros(rows) for k in range(columns)}), buffer)
    return buffer.getvalue()


LARGE = {
    "npz, rows": ("npz", packed_array((200_001, 1), "<f8"), "more than 200,000 rows"),
    "npz, columns": ("npz", packed_array((1, 70_000), "<f8"), "70000 columns"),
    "npz, bytes": ("npz", packed_array((1000, 64), "<U512"), "unpacks to more than 100 MB"),
    "npy, rows": ("npy", npy(np.zeros((200_001, 1), dtype="i1")), "more than 200,000 rows"),
    "parquet, rows": ("parquet", parquet(200_001, 1), "more than 200,000 rows"),
    "parquet, columns": ("parquet", parquet(2, 65), "65 columns"),
    "gzip, bytes": ("csv", gzip.compress(b"1,2\n" * 27_000_000, 1), "unpacks to more than 100 MB"),
}


@pytest.mark.parametrize("name", LARGE)
def test_what_is_too_large_is_refused_before_it_is_unpacked(name: str) -> None:
    """Memory grows by a few pieces, not by the table."""
    kind, body, sentence = LARGE[name]
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError, match=sentence):
            preview_bytes(body, kind)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_the_largest_table_is_still_read() -> None:
    found = preview_bytes(packed_array((200_000, 64), "<f8", zipfile.ZIP_STORED), "npz")
    assert found["rows"] == 200_000
    assert len(found["columns"]) == 64


def test_whatever_a_reader_makes_of_a_file_is_answered(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("pointdiffusion.web.uploads.source_of_file", fail)
    answer = client.post("/api/table?kind=csv", content=b"a\n1\n")
    assert answer.status_code == 422
    assert "table.csv cannot be read (ZeroDivisionError)" in answer.json()["detail"]
