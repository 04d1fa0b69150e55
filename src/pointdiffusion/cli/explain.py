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
    from pointdiffusion.cli import tables
    from pointdiffusion.cli.score import tell_what_it_is
    from pointdiffusion.tabular.reading import read_table

    found, settings, parts = tables.open_run(model, table)
    read = parts.table
    if of is not None:
        read = read_table(of, schema=found.schema, missing="keep", seed=settings.seed)
    explanation = found.explain(read, row, training=parts, num_neighbours=neighbours, seed=settings.seed, first=1)
    tell_what_it_is(found.schema)
    terminal.show(str(explanation))
