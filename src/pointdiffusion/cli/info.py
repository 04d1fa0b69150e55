"""`pointdiffusion info`: what is in a model file, without trusting it; and what is installed."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pointdiffusion.cli import runs, terminal
from pointdiffusion.version import __version__

if TYPE_CHECKING:
    from pointdiffusion.tabular.schema import Schema

EXAMPLES = """\b
Examples:
  pointdiffusion info
  pointdiffusion info run/model.pt
"""

PACKAGES = ("torch", "lightning", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "narwhals", "matplotlib")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("info", short_help="Show what is in a model file, or what is installed.", epilog=EXAMPLES)(info)


def info(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Model file, or the folder of a run.")] = None,
) -> None:
    """Show what is in a model file, or without one the versions and devices that are there.

    Nothing in the file is executed, its hash is checked, and no network is made of it.
    """
    lines = _environment() if model is None else _contents(model)
    rows = list(lines)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        terminal.show(f"{name:<{width}}  {terminal.plain(value)}")


def _environment() -> Iterator[tuple[str, str]]:
    from importlib.metadata import PackageNotFoundError, version

    import torch

    yield "pointdiffusion", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"
    found = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    found += ["mps"] if torch.backends.mps.is_available() else []
    yield "devices", ", ".join([f"cpu ({torch.get_num_threads()} threads)", *found])


def _contents(name: str) -> Iterator[tuple[str, str]]:
    from pointdiffusion.model.file import read_payload

    path = runs.model_path(name)
    payload = read_payload(path)
    raw = path.read_bytes()
    weights = payload["weights"].values()
    yield "file", f"{path}, {len(raw):,} bytes, whole: its contents match its hash"
    yield "sha256", hashlib.sha256(raw).hexdigest()
    yield "written by", f"pointdiffusion {payload['version']}, format {payload['format']}"
    yield "network", f"{payload['backbone']}, {sum(value.numel() for value in weights):,} weights"
    yield "made of", "parts of pointdiffusion" if payload["architecture"] else "a class of its author's, not included"
    yield from _columns(payload)
    if payload["conditions"] is not None:
        yield "classes", ", ".join(map(str, payload["conditions"]["classes"])) or "none"
        yield "fills gaps", "trained with masks" if payload["conditions"]["masked"] else "by twisted diffusion"
    for part in ("training", "inference"):
        settings = payload[part] or {}
        yield part, ", ".join(f"{key} {value}" for key, value in settings.items()) or "not told"
    other = sorted(key for key in payload["metadata"] if key != "table")
    yield "metadata", ", ".join(map(str, other)) or "none"


def _columns(payload: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Tell the columns: those of the table where the file tells of one, those of the model otherwise."""
    schema = _schema(payload["metadata"])
    if isinstance(schema, str):
        yield "table", schema
    if schema is None or isinstance(schema, str):
        yield "columns", ", ".join(payload["columns"])
        return
    for column in schema.columns:
        decimals = "" if column.decimals is None else f", {column.decimals} decimals"
        limits = f"{column.value}" if column.kind == "constant" else f"{column.low:g} to {column.high:g}{decimals}"
        yield "column", f"{column.name}: {column.kind}, {column.dtype}, {limits}"
    if schema.label is not None:
        yield "label", f"{schema.label.name}: {schema.label.dtype}, {len(schema.label.classes)} classes"


def _schema(metadata: dict[str, Any]) -> Schema | str | None:
    """Return the schema of a file, None where there is none, or what is wrong with it."""
    from pointdiffusion.tabular.schema import Schema

    if "table" not in metadata:
        return None
    try:
        return Schema.from_mapping(metadata["table"])
    except ValueError as error:
        return f"not to be trusted: {error}"
