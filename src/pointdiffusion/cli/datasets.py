"""`pointdiffusion datasets`: the named point sets."""

from __future__ import annotations

from typing import Annotated

import typer

from pointdiffusion.cli import options, terminal

EXAMPLES = """\b
Examples:
  pointdiffusion datasets
  pointdiffusion datasets moons -n 4096 -o moons.csv
  pointdiffusion datasets eight-gaussians -n 2000 --labels --noise 0.2 | head
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("datasets", short_help="List the built-in point sets, or write one.", epilog=EXAMPLES)(datasets)


def datasets(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which set to write; none to list them.")] = None,
    count: Annotated[int, typer.Option("-n", "--rows", min=1, max=10**8, metavar="N", help="Rows to draw.")] = 1000,
    output: options.Rows = terminal.STREAM,
    noise: Annotated[
        float | None, typer.Option("--noise", min=0, metavar="STD", help="Noise in place of the set's own.")
    ] = None,
    labels: Annotated[bool, typer.Option("--labels", help="Write the class of each row as well.")] = False,
    seed: options.Seed = 0,
    force: options.Force = False,
) -> None:
    """List the built-in point sets, or write one as a table."""
    from pointdiffusion.config import unknown_name
    from pointdiffusion.data.datasets import DATASETS

    if name is None:
        rows = [(key, kind.with_settings().n_dims, kind.n_classes, f"{kind.noise:g}") for key, kind in DATASETS.items()]
        terminal.show_table(["name", "columns", "classes", "noise"], rows)
        return
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    terminal.check_table_target(output, force=force)
    import pandas as pd

    from pointdiffusion.tabular.points import column_names
    from pointdiffusion.tabular.writing import write_table

    settings = {} if noise is None else {"noise": noise}
    points, classes = DATASETS[name].sample_with_labels(count, random_state=seed, **settings)
    frame = pd.DataFrame(points, columns=column_names(points, points.shape[1]))
    if labels:
        frame["label"] = classes
    write_table(frame, output, force=force)
