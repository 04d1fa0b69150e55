"""`pointdiffusion play`: the page in the browser, with PyTorch behind it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pointdiffusion.cli import terminal

if TYPE_CHECKING:
    from pointdiffusion.model.diffusion_model import DiffusionModel

EXAMPLES = """\b
Examples:
  pointdiffusion play
  pointdiffusion play --data flowers.csv
  pointdiffusion play --model run/ --port 9000 --no-browser
"""

USUAL_PORT = 8765
OWN = ("127.0.0.1", "localhost", "::1")
"""Addresses that nobody else can reach."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("play", short_help="Open the playground: draw points, train, watch.", epilog=EXAMPLES)(play)


def play(
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Model file, or folder of a run, to begin with.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", metavar="TABLE", help="Table to begin with.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, metavar="N", help=f"Port; {USUAL_PORT} if it is free.")
    ] = None,
    host: Annotated[
        str,
        typer.Option("--host", metavar="ADDRESS", help="Address to serve on; others than this machine's need a token."),
    ] = OWN[0],
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
) -> None:
    """Serve the playground on this machine alone, until Ctrl-C.

    Draw points or load a table, train a network on them in PyTorch while its samples move, and set it beside the exact
    optimum. Nothing leaves this machine. On another address than 127.0.0.1 whoever has the printed link may use it.
    """
    try:
        from pointdiffusion.web.guard import Served
        from pointdiffusion.web.server import make_app
        from pointdiffusion.web.serving import server_of
    except ImportError as error:
        raise ValueError(
            'the playground needs a server, which is not installed; run: pip install "pointdiffusion[playground]"'
        ) from error
    import secrets

    table, (loaded, run) = _table(data), _run(model)
    listening = _listen(host, port)
    number = listening.getsockname()[1]
    token = None if host in OWN else secrets.token_urlsafe(24)
    name = _reachable(host)
    address = f"http://{f'[{name}]' if ':' in name else name}:{number}/" + (f"?token={token}" if token else "")
    hosts = frozenset(f"{own}:{number}" for own in ("127.0.0.1", "localhost", "[::1]"))
    app = make_app(Served(hosts if token is None else None, token, table, run, loaded))
    terminal.show(f"the playground is at {address}")
    terminal.say("Ctrl-C ends it, and what is being trained with it")
    if browser:
        _open_soon(address)
    server_of(app).run(sockets=[listening])


def _reachable(host: str) -> str:
    """Return the address by which others reach this one."""
    if host not in ("0.0.0.0", "::"):  # noqa: S104 (compared, not bound)
        return host
    family, far = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))  # sends nothing: it only asks which way it would go
            return str(probe.getsockname()[0])
    except OSError:
        return host


def _listen(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens; on another port than the usual one if that is taken and none was asked for.

    Raises:
        ValueError: If the address or the port cannot be had.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        try:
            listening.bind((host, port or USUAL_PORT))
        except OSError:
            if port:
                raise
            listening.bind((host, 0))
    except OSError as error:
        listening.close()
        where = f"{host}:{port}" if port else host
        raise ValueError(
            f"{where} cannot be served on ({error.strerror or error}); give another --port or --host"
        ) from error
    return listening


def _table(data: str | None) -> dict[str, Any] | None:
    from pointdiffusion.web.uploads import preview

    return None if data is None else preview(data)


def _run(model: str | None) -> tuple[DiffusionModel | None, dict[str, Any] | None]:
    if model is None:
        return None, None
    from pointdiffusion.cli import tables
    from pointdiffusion.web.export import run_of

    found = tables.open_model(model, "cpu").points
    return found, run_of(found, precision="float32", title=f"A diffusion model of {', '.join(found.columns)}")


def _open_soon(address: str) -> None:
    """Open the browser a moment later, when the server listens."""
    import threading
    import webbrowser

    timer = threading.Timer(0.5, webbrowser.open, (address,))
    timer.daemon = True
    timer.start()
