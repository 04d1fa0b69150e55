"""`pointdiffusion score`: how likely rows are, and which are the least likely ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pointdiffusion.cli import options, terminal

if TYPE_CHECKING:
    from pointdiffusion.tabular.schema import Schema

EXAMPLES = """\b
Examples:
  pointdiffusion score run/model.pt new.csv -o scores.csv
  pointdiffusion score run/ iris.csv --anomalies 10
  pointdiffusion score run/ iris.csv --by-label -o scores.parquet
  cat new.csv | pointdiffusion score run/ - | sort -t, -k2 -g | head
"""

NAMED = 3
"""Columns at most that are named of an unlikely row."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("score", short_help="Say how likely rows are.", epilog=EXAMPLES)(score)


def score(
    model: options.Model,
    table: options.TableFile,
    output: options.Rows = terminal.STREAM,
    anomalies: Annotated[
        int | None, typer.Option("--anomalies", min=1, max=1000, metavar="N", help="The N least likely rows alone.")
    ] = None,
    by_label: Annotated[
        bool, typer.Option("--by-label", help="Density of each row within its class, by the table's column of classes.")
    ] = False,
    drop_missing: options.DropMissing = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    force: options.Force = False,
) -> None:
    """Write the log-likelihood of each row, in nats, as the columns row and log_prob.

    With --anomalies, the least likely rows alone, and what is unusual about them: each column against what the others
    say of it. The likelihood of integer columns is that of the value plus uniform noise from -1/2 to 1/2, drawn by the
    seed; constant columns are left out of it. Rows with missing values are left out with --drop-missing, and where the
    run was trained with --drop-missing or --mask.
    """
    terminal.check_table_target(output, force=force)
    import pandas as pd

    from pointdiffusion.cli import tables
    from pointdiffusion.tabular.reading import read_table
    from pointdiffusion.tabular.writing import write_table

    found = tables.open_model(model, device)
    if by_label and found.schema.label is None:
        raise ValueError("--by-label needs a model with classes; train one with --label COLUMN")
    label = found.schema.label.name if by_label and found.schema.label else None
    drop = drop_missing or tables.trained_with_gaps(model)
    read = read_table(table, schema=found.schema, label=label, missing="drop" if drop else "refuse", seed=seed)
    if len(read.rows) < read.total_rows:
        reason = "" if drop_missing else ", as in training"
        left_out = f"; rows with missing values are left out{reason}" if drop else ""
        terminal.say(f"{len(read.rows)} of the {read.total_rows} rows are scored{left_out}")
    tell_what_it_is(found.schema)
    if read.departs is not None and read.departs.any():
        odd = (read.rows[read.departs] + 1).tolist()
        shown = ", ".join(map(str, odd[:5])) + (", ..." if len(odd) > 5 else "")
        terminal.say(f"other values than ever before in constant columns, which log_prob does not see: rows {shown}")
    if anomalies is None:
        frame = pd.DataFrame({"row": read.rows + 1, "log_prob": found.score(read, seed=seed, by_label=by_label)})
    else:
        least = found.anomalies(read, anomalies, seed=seed, by_label=by_label)
        frame = pd.DataFrame(
            {
                "row": [each.row + 1 for each in least],
                "log_prob": [each.log_prob for each in least],
                "unusual": ["; ".join(map(str, each.anomalies[:NAMED])) for each in least],
            }
        )
    write_table(frame, output, force=force)


def tell_what_it_is(schema: Schema) -> None:
    """Say on standard error what a likelihood is about, where that is not all columns as they are."""
    discrete = [column.name for column in schema.modelled if column.kind != "real"]
    if discrete:
        terminal.say(f"log_prob is that of the dequantised value in the integer columns {', '.join(discrete)}")
    constant = [column.name for column in schema.columns if column.kind == "constant"]
    if constant:
        terminal.say(f"log_prob leaves out the constant columns {', '.join(constant)}")
