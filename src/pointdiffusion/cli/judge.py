"""`pointdiffusion report`, `diagnose` and `certify`: the library's own judges."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pointdiffusion.cli import options, runs, terminal

if TYPE_CHECKING:
    from pointdiffusion.cli.settings import RunSettings
    from pointdiffusion.table_model.parts import Parts
    from pointdiffusion.table_model.table_model import TableModel

REPORT_EXAMPLES = """\b
Examples:
  pointdiffusion report run/ --force
  pointdiffusion report run/ --against other/ -o comparison.html
"""

DIAGNOSE_EXAMPLES = """\b
Examples:
  pointdiffusion diagnose run/
  pointdiffusion diagnose run/ --picture diagnosis.png
"""

CERTIFY_EXAMPLES = """\b
Examples:
  pointdiffusion certify my_samplers:euler --order 1
  pointdiffusion certify k_diffusion.sampling:sample_dpmpp_2m --order 2
  pointdiffusion certify heun
"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("report", short_help="Write one page about a run.", epilog=REPORT_EXAMPLES)(report)
    app.command("diagnose", short_help="Say where the error of a run comes from.", epilog=DIAGNOSE_EXAMPLES)(diagnose)
    app.command("certify", short_help="Measure a sampler against the exact answer.", epilog=CERTIFY_EXAMPLES)(certify)


def report(
    run: options.Run,
    against: Annotated[
        str | None, typer.Option("--against", metavar="RUN", help="Another run to compare with.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Page to write; report.html in the run.")
    ] = None,
    table: options.OtherTable = None,
    seed: options.Seed = 0,
    force: options.Force = False,
) -> None:
    """Write one HTML page about a run: what it learned, how far to trust it, how to repeat it."""
    name = runs.REPORT if against is None else f"report-against-{Path(against).resolve().name}.html"
    target = str(Path(run) / name) if output is None else output
    terminal.check_target(target, force=force)
    from pointdiffusion.cli import tables

    opened, other = tables.open_run(run, table), None
    if against is not None:
        other = tables.open_run(against, table)
    again = f"pointdiffusion report {run}" + ("" if against is None else f" --against {against}") + f" --seed {seed}"
    page = page_of(*opened, folder=runs.folder_of(run), shown=run, other=other, against=against, again=again, seed=seed)
    terminal.write_file(target, page.encode())
    if target != terminal.STREAM:
        terminal.show(target)


def page_of(
    model: TableModel, settings: RunSettings, parts: Parts, *, folder: Path, shown: str, again: str,
    other: tuple[TableModel, RunSettings, Parts] | None = None, against: str | None = None, seed: int = 0,
    costs: dict[str, str] | None = None,
) -> str:  # fmt: skip
    """Return the page about a run.

    Args:
        model: Its model.
        settings: Its settings.
        parts: Its table.
        folder: Where its logs are.
        shown: What the user calls the run.
        again: The command that makes the page again.
        other: Another run to set beside it.
        against: What the user calls that one.
        seed: Seed of all that is drawn.
        costs: More about time, by name.

    Raises:
        ValueError: If too few rows were kept from training, or the other run is of another table.
    """
    import numpy as np

    from pointdiffusion.reporting.report import report as write_page

    kept = parts.validation
    if other is not None:
        if not np.array_equal(parts.table.values, other[2].table.values, equal_nan=True):
            raise ValueError(f"{shown} and {against} are runs on other rows or columns, so they cannot be compared")
        kept = np.intersect1d(kept, other[2].validation)  # rows that neither was trained on
    kinds = {column.name: column.kind for column in parts.table.schema.modelled}
    return write_page(
        model.points, parts.rows(parts.training), parts.rows(kept), labels=parts.labels(parts.training),
        held_out_labels=parts.labels(kept), log_folder=runs.logs_of(folder),
        against=None if other is None else other[0].points,
        against_log_folder=None if against is None else runs.logs_of(runs.folder_of(against)),
        names=(shown, against or "the other run"), title=f"A diffusion model of {Path(settings.table or '').name}",
        kinds=kinds, commands=[f"pointdiffusion train --config {shown}/{runs.CONFIG} -o again", again],
        costs=costs, seed=seed,
    )  # fmt: skip


def diagnose(
    run: options.Run,
    table: options.OtherTable = None,
    picture: Annotated[
        str | None, typer.Option("--picture", metavar="FILE", help="Draw the parts of the error into a PNG file.")
    ] = None,
    seed: options.Seed = 0,
    force: options.Force = False,
) -> None:
    """Say where the distance between generated and true rows comes from, and what to do next."""
    if picture is not None:
        terminal.check_target(picture, force=force)
    from pointdiffusion.cli import tables
    from pointdiffusion.diagnostics.diagnosis import diagnose as find_cause

    model, _, parts = tables.open_run(run, table)
    held_out = parts.values[parts.validation]
    if len(held_out) == 0:
        raise ValueError("no rows were kept from training, so nothing can be compared; train with a validation part")
    diagnosis = find_cause(model.points, parts.values[parts.training], held_out=held_out, seed=seed)
    if picture is not None:
        from pointdiffusion.visuals.plotting import png_bytes

        terminal.write_file(picture, png_bytes(diagnosis.plot()))
    terminal.show(str(diagnosis))


def certify(
    sampler: Annotated[
        str, typer.Argument(metavar="MODULE:FUNCTION", help="Called as function(denoiser, x, sigmas); or a solver.")
    ],
    order: Annotated[float | None, typer.Option("--order", metavar="ORDER", help="Its declared order.")] = None,
    seed: options.Seed = 0,
) -> None:
    """Measure a sampler where the exact answer is known. Exit code 1 if it is not as it should be."""
    from pointdiffusion.diagnostics.certification import certify as measure
    from pointdiffusion.diagnostics.certification import find

    sys.path.insert(0, os.getcwd())  # noqa: PTH109  (as `python -m` does; the sampler is the user's own code)
    try:
        certificate = measure(find(sampler), order=order, name=sampler, seed=seed)
    except (ValueError, OSError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"the sampler {sampler} failed with {type(error).__name__}: {error}") from error
    terminal.show(str(certificate))
    if certificate.faults:
        raise typer.Exit(1)
