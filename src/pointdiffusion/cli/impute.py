"""`pointdiffusion impute`: missing cells, filled."""

from __future__ import annotations

from typing import Annotated

import typer

from pointdiffusion.cli import options, terminal

EXAMPLES = """\b
Examples:
  pointdiffusion impute run/model.pt holes.csv -o filled.csv
  pointdiffusion impute run/ holes.parquet --draws 5 --seed 1 -o filled.parquet
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("impute", short_help="Fill missing cells.", epilog=EXAMPLES)(impute)


def impute(
    model: options.Model,
    table: options.TableFile,
    output: options.Rows = terminal.STREAM,
    draws: Annotated[int, typer.Option("--draws", min=1, max=1000, metavar="N", help="Fillings of each row.")] = 1,
    within_bounds: options.WithinBounds = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    force: options.Force = False,
) -> None:
    """Fill missing cells by draws from what the cells of the row that are there leave open.

    The columns row, draw and imputed_by are put behind those of the table. What is there is kept as it is. A model that
    was trained with --mask is asked directly; any other is made to fit by twisted diffusion, which is approximate.
    """
    terminal.check_table_target(output, force=force)
    from pointdiffusion.cli import tables
    from pointdiffusion.tabular.reading import read_table
    from pointdiffusion.tabular.writing import write_table

    found = tables.open_model(model, device)
    read = read_table(table, schema=found.schema, missing="keep", seed=seed)
    if len(read.rows) < read.total_rows:
        terminal.say(f"the table is large: {len(read.rows)} of its {read.total_rows} rows are filled")
    frame = found.impute(read, num_draws=draws, seed=seed, within_bounds=within_bounds, details=True)
    write_table(frame.assign(row=frame["row"] + 1), output, force=force)
