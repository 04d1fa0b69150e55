"""`pointdiffusion export`: a run as a page that moves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pointdiffusion.cli import options, terminal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXAMPLES = """\b
Examples:
  pointdiffusion export run/ -o roll.html
  pointdiffusion export run/ -o roll.html -n 500 --nfe 50 --embed-data
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export", short_help="Write a run into one page that moves.", epilog=EXAMPLES)(export)


def export(
    model: options.Model,
    output: Annotated[str, typer.Option("-o", "--output", metavar="FILE", help="HTML file to write.")],
    count: Annotated[int, typer.Option("-n", "--rows", min=1, max=5000, metavar="N", help="Points to draw.")] = 2000,
    nfe: Annotated[
        int | None, typer.Option("--nfe", min=1, max=1000, metavar="N", help="Calls of the network for a point.")
    ] = None,
    embed_data: Annotated[
        bool, typer.Option("--embed-data", help="Put rows of the table into the file: whoever gets it can read them.")
    ] = False,
    table: options.OtherTable = None,
    seed: options.Seed = 0,
    force: options.Force = False,
) -> None:
    """Write one HTML file with the run inside it: it opens from disk and asks no other machine for anything.

    Points travel from noise to samples under a slider of the noise level. No row of the table is inside, unless
    --embed-data asks for it.
    """
    if output == terminal.STREAM:
        raise ValueError("a page is a file; give its name with -o")
    terminal.check_target(output, force=force)
    from pointdiffusion.cli import tables
    from pointdiffusion.web.export import export_page

    data: NDArray[np.float64] | None = None
    labels: list[Any] | None = None
    if embed_data:
        found, _, parts = tables.open_run(model, table)
        data, labels = parts.values[parts.training], parts.labels(parts.training)
    else:
        found = tables.open_model(model, "cpu")
    settings: dict[str, Any] = {} if nfe is None else {"nfe": nfe}
    points = found.points
    title = f"A diffusion model of {', '.join(points.columns)}"
    export_page(
        points, Path(output), data=data, labels=labels, embed_data=embed_data, num_points=count, seed=seed, title=title,
        **settings,
    )  # fmt: skip
    terminal.show(output)
