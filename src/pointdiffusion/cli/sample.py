"""`pointdiffusion sample`: new rows."""

from __future__ import annotations

from typing import Annotated

import typer

from pointdiffusion.cli import options, terminal

EXAMPLES = """\b
Examples:
  pointdiffusion sample run/model.pt -n 1000 -o new.parquet
  pointdiffusion sample run/ -n 50 --label setosa --guidance 2 --seed 1
  pointdiffusion sample run/ -n 100000 --nfe 20 --within-bounds -o new.csv.gz
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sample", short_help="Draw new rows.", epilog=EXAMPLES)(sample)


def sample(
    model: options.Model,
    count: Annotated[int, typer.Option("-n", "--rows", min=1, max=10**8, metavar="N", help="Rows to draw.")] = 1000,
    output: options.Rows = terminal.STREAM,
    label: Annotated[
        str | None, typer.Option("--label", metavar="CLASS", help="Class of all rows; without it, as in the table.")
    ] = None,
    guidance: Annotated[
        float, typer.Option("--guidance", metavar="W", help="Strength of classifier-free guidance; 1 is none.")
    ] = 1.0,
    nfe: Annotated[
        int | None, typer.Option("--nfe", min=1, max=10**6, metavar="N", help="Calls of the network for a row.")
    ] = None,
    solver: Annotated[
        str | None, typer.Option("--solver", metavar="NAME", help="How the flow is integrated, see docs/solvers.md.")
    ] = None,
    num_steps: Annotated[
        int | None, typer.Option("--num-steps", min=1, max=10**5, metavar="N", help="Steps of the solver.")
    ] = None,
    within_bounds: options.WithinBounds = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    force: options.Force = False,
) -> None:
    """Draw new rows, with the columns, the order, the units and the types of the table.

    Integers are rounded, constant columns are put back. Where the table has a column of classes, rows of all classes
    are drawn in the shares of the training rows, unless --label asks for one.
    """
    if nfe is not None and num_steps is not None:
        raise ValueError("--nfe and --num-steps both say how long to take; give one of the two")
    terminal.check_table_target(output, force=force)
    from pointdiffusion.cli import tables
    from pointdiffusion.sampling.loop import make_solver
    from pointdiffusion.tabular.writing import write_table

    found = tables.open_model(model, device)
    if solver is not None:
        make_solver(solver)  # a wrong name is told before anything is drawn
    labels = None if label is None else tables.class_of(found, label)
    frame = found.sample(
        count, seed=seed, labels=labels, guidance=guidance, nfe=nfe, solver=solver, num_steps=num_steps,
        within_bounds=within_bounds,
    )  # fmt: skip
    write_table(frame, output, force=force)
