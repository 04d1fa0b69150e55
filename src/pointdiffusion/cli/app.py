"""The command `pointdiffusion`: its parts put together, and what every one of them has in common.

Commands import what they work with where they work, so that `--help` answers at once. Choices that take an import to
check, as the names of solvers, are checked after parsing.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer
from typer.core import TyperGroup

from pointdiffusion.cli import datasets, explain, export, impute, info, judge, play, sample, score, terminal, train
from pointdiffusion.version import __version__

app = typer.Typer(
    name="pointdiffusion", add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
Examples:
  pointdiffusion datasets moons -n 2000 -o moons.csv
  pointdiffusion train moons.csv -o run/ --time-budget 60s
  pointdiffusion sample run/model.pt -n 1000 -o new.csv
  pointdiffusion score run/model.pt moons.csv --anomalies 10
""",
)  # fmt: skip

for module in (datasets, train, sample, score, explain, impute, judge, export, play, info):
    module.register(app)


def _version(asked: bool) -> None:
    if asked:
        print(f"pointdiffusion {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def pointdiffusion(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001  (its callback does the work)
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Learn a table, draw more rows like its own, and say how likely rows are.

    A run is a folder that `train` makes; the other commands take it, or the model.pt in it.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: list[str] | None = None) -> int:
    """Run a command, and return its exit code: 0, 2 for the user's request, 1 for the machine, 130 for Ctrl-C."""
    # OpenMP's threads wait for each other by spinning; where the machine does anything else as well, that costs most of
    # the time of steps as small as ours.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        terminal.say_quality_warnings()
    given, name = sys.argv[1:] if arguments is None else list(arguments), "pointdiffusion"
    command = typer.main.get_command(app)
    if isinstance(command, TyperGroup) and given and given[0] in command.commands:
        # Straight to the command: the options of the whole come before it, and to check that there are none of them
        # takes pydantic, which costs more than all the rest of a help page.
        name, command, given = f"{name} {given[0]}", command.commands[given[0]], given[1:]
    try:
        with command.make_context(name, given) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as stop:
        return stop.exit_code
    except BaseException as error:
        found = terminal.outcome(error)
        if found is None:
            raise
        code, sentence = found
        if isinstance(error, BrokenPipeError):  # nobody reads on, as after `| head`; the flush at the end would fail
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            terminal.say(" ".join(f"{'' if code == 130 else 'error: '}{sentence}".split()))
        return code
    return 0
