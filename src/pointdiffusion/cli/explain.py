"""`pointdiffusion explain`: one row in the eyes of a model."""

from __future__ import annotations

from typing import Annotated

import typer

from pointdiffusion.cli import options, terminal

EXAMPLES = """\b
Examples:
  pointdiffusion explain run/ --row 17
  pointdiffusion explain run/model.pt --row 3 --of new.csv --neighbours 10
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("explain", short_help="Explain one row.", epilog=EXAMPLES)(explain)


def explain(
    model: options.Model,
    row: Annotated[int, typer.Option("--row", min=1, metavar="N", help="Number of the row in the table, from 1.")],
    of: Annotated[
        str | None, typer.Option("--of", metavar="TABLE", help="Table of the row, where it is not the run's own.")
    ] = None,
    neighbours: Annotated[
        int, typer.Option("--neighbours", min=0, max=1000, metavar="N", help="Training rows to name.")
    ] = 5,
    table: options.OtherTable = None,
) -> None:
    """Say how likely a row is, which training rows are like it, where it comes from, and what is unusual about it."""
    import numpy as np

    from pointdiffusion.cli import tables
    from pointdiffusion.cli.score import tell_what_it_is
    from pointdiffusion.diagnostics.explanation import explain as explain_row
    from pointdiffusion.tabular.reading import read_table

    found, settings, parts = tables.open_run(model, table)
    schema = tables.schema_of(found)
    read, values = parts.table, parts.values
    if of is not None:
        read = read_table(of, schema=schema, missing="keep", seed=settings.seed)
        values = schema.dequantise(read.values, settings.seed)
    places = np.flatnonzero(read.rows == row - 1)
    if len(places) == 0:
        raise ValueError(f"there is no row {row} in the table, which has {read.total_rows}; or it was left out")
    if not np.isfinite(values[places[0]]).all():
        raise ValueError(f"row {row} has missing values; fill them first, as with pointdiffusion impute")
    training = parts.values[parts.training]
    explanation = explain_row(found, values[places[0]], training=training, num_neighbours=neighbours)
    numbers = parts.table.rows[parts.training] + 1
    moved = [each._replace(row=int(numbers[each.row])) for each in explanation.neighbours]
    tell_what_it_is(schema)
    from dataclasses import replace

    terminal.show(str(replace(explanation, neighbours=moved)))
