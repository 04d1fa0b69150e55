"""`pointdiffusion report`, `diagnose` and `certify`: the library's own judges."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pointdiffusion.cli import options, runs, terminal

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
    raise ValueError("reports are not there yet")


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
    from pointdiffusion.evaluation.diagnose import diagnose as find_cause

    model, _, parts = tables.open_run(run, table)
    held_out = parts.values[parts.validation]
    if len(held_out) == 0:
        raise ValueError("no rows were kept from training, so nothing can be compared; train with a validation part")
    diagnosis = find_cause(model, parts.values[parts.training], held_out=held_out, seed=seed)
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
    from pointdiffusion.evaluation.certify import certify as measure
    from pointdiffusion.evaluation.certify import find

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
