#!/usr/bin/env bash
# A gap in a dictionary column becomes the value of another row in pyarrow's ChunkedArray.to_numpy (and so in narwhals),
# whereas the same column as an Array has None, and to_pandas and polars keep the gap.
#
# Seen with pyarrow 26.0.1, narwhals 2.29.0, polars 2.1.0, pandas 3.1.1:
#
#   Array.to_numpy(zero_copy_only=False)   ['a' 'b' None 'a']
#   ChunkedArray.to_numpy()                ['a' 'b' 'b' 'a']
#   ... of numbers, [5, 7, null, 5]        [5 7 7 5]
#   numpy.asarray(Table) of x and numbers  third row: [3. 7.]
#   narwhals Series.to_numpy()             ['a' 'b' 'b' 'a']
#   ChunkedArray.to_pandas()               the gap is missing
#   polars.from_arrow(...).to_list()       ['a', 'b', None, 'a']
#   ChunkedArray.to_numpy() of gaps alone  IndexError: cannot do a non-empty take from an empty axes.
#
# A pandas frame with a categorical column that is written to Parquet and read with pyarrow has such a column. What helps:
# decode each chunk (Array.dictionary_decode) before to_numpy.
#
# Exits with 0 while this is so, with 1 once it has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet "pyarrow==26.0.1" "narwhals==2.29.0" "polars==2.1.0" "pandas==3.1.1" numpy
cat > gaps.py <<'PYTHON'
import sys

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "k": pd.Categorical(["a", "b", None, "a"])})
frame.to_parquet("p.parquet")
column = pq.read_table("p.parquet")["k"]
numbers = pa.table({"x": [1.0, 2.0, 3.0, 4.0], "n": pa.array([5, 7, None, 5]).dictionary_encode()})
nothing = pa.chunked_array([pa.array([None, None], pa.string()).dictionary_encode()])
try:
    alone = str(nothing.to_numpy())
except IndexError as error:
    alone = f"IndexError: {error}"
seen = {
    "Array.to_numpy": column.chunk(0).to_numpy(zero_copy_only=False).tolist(),
    "ChunkedArray.to_numpy": column.to_numpy().tolist(),
    "of numbers": numbers["n"].to_numpy().tolist(),
    "numpy.asarray(Table)": np.asarray(numbers)[2].tolist(),
    "narwhals": nw.from_native(pq.read_table("p.parquet"))["k"].to_numpy().tolist(),
    "to_pandas": column.to_pandas().isna().tolist(),
    "polars": pl.from_arrow(pq.read_table("p.parquet"))["k"].to_list(),
    "of gaps alone": alone,
}
for name, value in seen.items():
    print(f"{name:24}{value}")
expected = {
    "Array.to_numpy": ["a", "b", None, "a"],
    "ChunkedArray.to_numpy": ["a", "b", "b", "a"],
    "of numbers": [5, 7, 7, 5],
    "numpy.asarray(Table)": [3.0, 7.0],
    "narwhals": ["a", "b", "b", "a"],
    "to_pandas": [False, False, True, False],
    "polars": ["a", "b", None, "a"],
    "of gaps alone": "IndexError: cannot do a non-empty take from an empty axes.",
}
changed = [name for name in expected if seen[name] != expected[name]]
print("changed: " + ", ".join(changed) if changed else "as it was")
sys.exit(bool(changed))
PYTHON
venv/bin/python gaps.py
