"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(metavar="MODEL", help="Model file, or the folder of a run.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run.")]
TableFile = Annotated[
    str, typer.Argument(metavar="TABLE", help="CSV, TSV, Parquet, .npy, .npz, .csv.gz or .tsv.gz; - for CSV on stdin.")
]
OtherTable = Annotated[
    str | None, typer.Option("--table", metavar="TABLE", help="The run's table, where it is no longer in its place.")
]
Rows = Annotated[
    str, typer.Option("-o", "--output", metavar="FILE", help="Table to write, by its suffix; - for CSV on stdout.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, metavar="N", help="Seed of all that is random.")]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or mps.")]
DropMissing = Annotated[bool, typer.Option("--drop-missing", help="Leave out rows with missing values.")]
WithinBounds = Annotated[
    bool, typer.Option("--within-bounds", help="Move values beyond those of the table to its least and greatest.")
]
