"""`pointdiffusion train`: from a table to the folder of a run."""

from __future__ import annotations

import itertools
import re
import shutil
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pointdiffusion.cli import options, runs, terminal
from pointdiffusion.cli.judge import page_of
from pointdiffusion.cli.settings import RunSettings

if TYPE_CHECKING:
    from pointdiffusion.table_model.parts import Parts
    from pointdiffusion.table_model.table_model import TableModel

EXAMPLES = """\b
Examples:
  pointdiffusion train iris.csv -o run/ --label species
  pointdiffusion train big.parquet -o run/ --columns x,y,z --time-budget 5m
  cat iris.csv | pointdiffusion train - -o run/ --columns sepal_length,sepal_width
  pointdiffusion train --config run/config.yaml -o again/
  pointdiffusion train --resume -o run/
"""

DEFAULT_BUDGET = 120.0
"""Seconds after which nothing further is tried, where no time is given."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train", short_help="Learn a table.", epilog=EXAMPLES)(train)


def seconds(text: str) -> float:
    """Return a time such as 90, 60s, 5m or 1h30m in seconds.

    Raises:
        ValueError: If it is none.
    """
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    hours, minutes, rest = found.groups(default="0") if found else ("0", "0", "0")
    total = 3600 * float(hours) + 60 * float(minutes) + float(rest)
    if not 0 < total < 1e7:
        raise ValueError(f"--time-budget must be a time such as 60s, 5m or 1h30m, got {text!r}")
    return total


def train(
    table: Annotated[
        str | None, typer.Argument(metavar="TABLE", help="CSV, TSV, Parquet, .npy or .npz; - for CSV on stdin.")
    ] = None,
    output: Annotated[str, typer.Option("-o", "--output", metavar="RUN", help="Folder to make.")] = "run",
    columns: Annotated[str | None, typer.Option("--columns", metavar="A,B,C", help="Columns to learn.")] = None,
    label: Annotated[str | None, typer.Option("--label", metavar="COLUMN", help="Column of classes.")] = None,
    config: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="Settings; the config.yaml of a run repeats it.")
    ] = None,
    time_budget: Annotated[
        str | None, typer.Option("--time-budget", metavar="TIME", help="How long training may take: 60s, 5m, 1h30m.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=1, max=10**8, metavar="N", help="Train one network so long; nothing is chosen by folds."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=2**32 - 1, metavar="N", help="Seed of all that is random.")
    ] = None,
    drop_missing: options.DropMissing = False,
    mask: Annotated[
        bool, typer.Option("--mask", help="Learn from rows with missing values too, and to fill such gaps.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.html.")] = False,
    device: options.Device = "auto",
    force: options.Force = False,
) -> None:
    """Learn a table: writes a folder with model.pt, config.yaml, the logs and report.html.

    A part of the rows is kept from training, to judge by. Networks, their size of steps and of blur are chosen by folds
    of the others, as far as --config leaves it open, and what was chosen is written into config.yaml, which repeats the
    run. With --steps one network is trained, and nothing is chosen by folds.
    """
    if drop_missing and mask:
        raise ValueError("--drop-missing leaves out the rows that --mask would learn from; give one of the two")
    if sum(x is not None for x in (time_budget, steps)) == 2:
        raise ValueError("--steps and --time-budget both say how long to train; give one of the two")
    budget = None if time_budget is None else seconds(time_budget)
    folder = runs.check_place(output, force=force, resume=resume)
    if resume:
        if config is not None or steps is not None:
            raise ValueError("--resume goes on with the settings of the unfinished run; leave the others out")
        base = RunSettings.from_yaml(runs.unfinished(folder) / runs.CONFIG)
    else:
        base = RunSettings() if config is None else RunSettings.from_yaml(Path(config))
    asked: dict[str, Any] = {"table": table, "label": label, "seed": seed}
    asked["columns"] = None if columns is None else [name.strip() for name in columns.split(",")]
    asked["missing"] = "drop" if drop_missing else "mask" if mask else None
    given = {name: value for name, value in asked.items() if value is not None}
    if resume:
        base.check_same(given)
    settings = replace(base, **given)
    _run(settings, folder, output, budget=budget, steps=steps, resume=resume, report=not no_report, device=device)


def _run(
    settings: RunSettings, folder: Path, shown: str, *, budget: float | None, steps: int | None, resume: bool,
    report: bool, device: str,
) -> None:  # fmt: skip
    """Read, choose, train and write."""
    from pointdiffusion.cli import tables
    from pointdiffusion.config import DivergedError
    from pointdiffusion.model.diffusion_model import pick_device
    from pointdiffusion.table_model.parts import content_hash

    start, device = time.perf_counter(), pick_device(device)
    table = tables.read_training_table(settings)
    found = content_hash(table)
    if settings.sha256 is not None and settings.sha256 != found:
        if resume:
            raise ValueError(f"{settings.table} holds other rows than the unfinished run; give the table that it had")
        terminal.say("The table is not the one that the settings come from: this is a new run with the same settings.")
    elsewhere = settings.table if settings.table in (None, "-") else str(Path(settings.table).resolve())
    settings = replace(settings, sha256=found, table=elsewhere)
    parts = tables.split_table(table, settings)
    _tell(parts, shown)
    alone = steps is not None or bool(settings.training)
    if alone and not resume:
        settings = complete(parts, settings, steps=steps, budget=budget)
    with runs.staged(folder, resume=resume) as stage, redirect_stdout(sys.stderr):  # progress is talk
        terminal.write_file(str(stage / runs.CONFIG), settings.to_yaml().encode())
        try:
            if alone:
                model = fit_one(parts, settings, stage, resume=resume, device=device)
            else:
                model, settings = fit_chosen(parts, settings, stage, budget or DEFAULT_BUDGET, resume, device)
        except KeyboardInterrupt:
            kept = runs.has_checkpoint(stage)
            hint = f"; what was learned is kept: pointdiffusion train --resume -o {shown}" if kept else ""
            raise KeyboardInterrupt(f"interrupted{hint}") from None
        except DivergedError as error:
            for part in ("checkpoints", runs.NETWORKS):  # to go on with them would end in the same
                shutil.rmtree(stage / part, ignore_errors=True)
            if error.model is None:
                raise
            apart = _free_name(folder)
            error.model.save(apart)
            raise DivergedError(f"{error}; the model is kept apart in {Path(shown).parent / apart.name}") from None
        terminal.write_file(str(stage / runs.CONFIG), settings.to_yaml().encode())
        model.save(stage / runs.MODEL)
        if report:
            _write_report(model, parts, settings, stage, shown, time.perf_counter() - start)
    terminal.show(f"{shown}: {', '.join(sorted(entry.name for entry in folder.iterdir()))}")
    terminal.show(f"{time.perf_counter() - start:.0f} s in all. Next: pointdiffusion sample {shown} -n 1000 -o new.csv")


def _free_name(folder: Path) -> Path:
    """Return a name beside the folder of a run for the model of a training that diverged."""
    numbers = itertools.chain([""], itertools.count(2))
    paths = (folder.with_name(f"{folder.name}.diverged{number}.pt") for number in numbers)
    return next(path for path in paths if not path.exists())


def _tell(parts: Parts, shown: str) -> None:
    """Say what was found in the table."""
    schema, table = parts.table.schema, parts.table
    kinds = ", ".join(f"{column.name} ({column.kind})" for column in schema.columns)
    terminal.say(f"{table.total_rows} rows; columns {kinds}")
    if len(parts.table.values) < table.total_rows:
        terminal.say(f"{len(table.values)} of the rows are used")
    if table.values.nbytes > 2**26:  # less does not show beside the libraries
        terminal.say(f"training takes about {0.5 + 6.5 * table.values.nbytes / 2**30:.1f} GiB of memory")
    constant = [column.name for column in schema.columns if column.kind == "constant"]
    if constant:
        terminal.say(f"constant, so reproduced and not modelled: {', '.join(constant)}")
    kept = f"{len(parts.validation)} rows are kept from training, to judge {shown} by"
    terminal.say(f"{kept}; {len(parts.gaps)} have gaps" if len(parts.gaps) else kept)


def fit_chosen(
    parts: Parts, settings: RunSettings, folder: Path, budget: float, resume: bool, device: str
) -> tuple[TableModel, RunSettings]:
    """Fit networks that are chosen by folds, and return the model and the settings with what was chosen."""
    from pointdiffusion.config import TableConfig
    from pointdiffusion.table_model.fitting import fit_by_folds
    from pointdiffusion.table_model.parts import MASK

    masked = {"mask": MASK} if settings.missing == "mask" else {}
    found = fit_by_folds(
        parts, TableConfig.from_mapping({**masked, **settings.fit}), max_time=budget, seed=settings.seed,
        device=device, folder=folder / runs.NETWORKS, resume=resume, show_progress=True,
    )  # fmt: skip
    terminal.say(str(found))
    if found.folder is not None and (found.folder / runs.LOGS).is_dir():
        (found.folder / runs.LOGS).rename(folder / runs.LOGS)  # of the first network, to stand for all
    terminal.write_file(str(folder / runs.CHOICES), f"{found}\n".encode())
    return found, replace(settings, fit=found.config.to_mapping())


def complete(parts: Parts, settings: RunSettings, *, budget: float | None, steps: int | None) -> RunSettings:
    """Return the settings of one network with what they leave open: the noise levels, and how many steps to train."""
    from pointdiffusion.table_model.single import complete_settings

    training, inference = complete_settings(
        parts, settings.training, settings.inference, masked=settings.missing == "mask", steps=steps, max_time=budget
    )
    return replace(settings, fit={}, training=training.to_mapping(), inference=inference.to_mapping())


def fit_one(parts: Parts, settings: RunSettings, folder: Path, *, resume: bool, device: str) -> TableModel:
    """Train one network on the rows of a run."""
    from pointdiffusion.config import InferenceConfig, TrainingConfig
    from pointdiffusion.table_model.single import fit_single

    return fit_single(
        parts, TrainingConfig.from_mapping(settings.training), InferenceConfig.from_mapping(settings.inference),
        seed=settings.seed, folder=folder, resume=resume, device=device, show_progress=True,
    )  # fmt: skip


def _write_report(
    model: TableModel, parts: Parts, settings: RunSettings, stage: Path, shown: str, spent: float
) -> None:
    """Write the page about a fresh run into its folder, or say why there is none."""
    terminal.say("writing the report")
    again, costs = f"pointdiffusion report {shown} --force", {"training": f"{spent:.1f} s"}
    try:
        page = page_of(model, settings, parts, folder=stage, shown=shown, again=again, costs=costs)
    except ValueError as error:  # the run is worth keeping all the same
        terminal.say(f"there is no {runs.REPORT}: {error}")
    else:
        terminal.write_file(str(stage / runs.REPORT), page.encode())
