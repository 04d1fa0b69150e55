"""Checkpoints of training: written whole or not at all, read without executing anything."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from pointdiffusion.files import read_sealed, seal, write_atomic
from pointdiffusion.model_file import check_pickle

_CALLS = (
    "torch Size", "torch device", "__builtin__ set", "__builtin__ complex", "collections Counter", "_codecs encode",
    *(f"torch {name}" for name, value in vars(torch).items() if isinstance(value, torch.dtype)),
)  # fmt: skip
"""What a checkpoint of somebody's own module may call as well; none of it makes more than the file has."""


def check_settings(saved: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raise a ValueError that names what differs between the settings of a saved run and those asked for."""
    differing = [name for name in asked if saved.get(name) != asked[name]]
    if differing:
        changes = ", ".join(
            f"the {name}" if name in ("network", "rows") else f"{name} {saved.get(name)} (now {asked[name]})"
            for name in differing
        )
        raise ValueError(
            f"the saved run cannot be continued with other settings; it differs in {changes}: "
            "give the settings that it had, or start afresh without resuming"
        )


class AtomicCheckpointIO(CheckpointIO):
    """Writes checkpoints whole or not at all, and reads them without executing anything.

    Lightning's own way goes through the system's temporary folder and is not atomic across file systems.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write the checkpoint to `path`, sealed by a hash."""
        archive = io.BytesIO()
        torch.save(checkpoint, archive)
        write_atomic(path, seal(archive.getvalue()))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:  # noqa: ARG002
        """Read a checkpoint.

        Raises:
            ValueError: If it is missing, damaged or foreign.
        """
        archive = read_sealed(path)
        try:
            check_pickle(archive, _CALLS)
            checkpoint = torch.load(archive, map_location="cpu", weights_only=True)
        except (
            pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, AttributeError, ValueError,
        ) as error:  # fmt: skip
            raise ValueError(f"{path} is not a checkpoint of pointdiffusion; do not trust it") from error
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("settings"), dict):
            raise ValueError(f"{path} is not a checkpoint of pointdiffusion; start afresh without resuming")
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)
