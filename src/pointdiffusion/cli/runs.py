"""The folder of a run: its `config.yaml`, its table, and how it comes to be whole or not at all.

A run is built in a hidden folder beside its place and takes its name in one step. Whoever is killed in between leaves
the earlier run as it was, and the hidden folder with its checkpoint, from which `--resume` goes on.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MODEL, CONFIG, REPORT = "model.pt", "config.yaml", "report.html"
LOGS, CHOICES = "lightning_logs", "selection.txt"
NETWORKS = "networks"  # of a choice by folds, until it is made
PARTS = (MODEL, CONFIG, LOGS, CHOICES, REPORT)
"""What a run holds; other files in its folder are the user's."""


def model_path(path: str) -> Path:
    """Return the model file that a path stands for: itself, or the one in the folder of a run."""
    return Path(path) / MODEL if Path(path).is_dir() else Path(path)


def folder_of(path: str) -> Path:
    """Return the folder of a run that a path stands for: itself, or the one that the model file lies in."""
    return Path(path) if Path(path).is_dir() else Path(path).parent


def logs_of(folder: Path) -> Path | None:
    """Return the folder of a run for its logs; None for a run without."""
    return folder if (folder / LOGS).is_dir() else None


def unfinished(folder: Path) -> Path:
    """Return where a run is built until it is whole."""
    return folder.parent / f".{folder.name}.unfinished"


def has_checkpoint(folder: Path) -> bool:
    """Return whether an unfinished run can be gone on with."""
    places = ("checkpoints/*.ckpt", f"{NETWORKS}/*/*/checkpoints/*.ckpt", f"{NETWORKS}/*/*/{MODEL}")
    return any(True for place in places for _ in folder.glob(place))


def check_place(target: str, *, force: bool, resume: bool) -> Path:
    """Return the folder of a run to be, once it was made sure that nothing is lost by making it.

    Raises:
        ValueError: If something else is there, or an earlier run that neither `force` nor `resume` speaks of.
    """
    folder = Path(target).resolve()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{target} is a file; give the name of a folder with -o")
    nearest = next((parent for parent in folder.parents if parent.exists()), folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{target} cannot be made in {nearest}; give another folder with -o")
    inside = [entry.name for entry in folder.iterdir()] if folder.exists() else []
    if inside and not {MODEL, CONFIG} <= set(inside):
        raise ValueError(f"{target} holds other things than a run; give a new folder with -o")
    if resume:
        if not has_checkpoint(unfinished(folder)):
            whole = f"the run in {target} is whole" if inside else f"there is no unfinished run in {target}"
            raise ValueError(f"{whole}, so there is nothing to go on with; train without --resume")
    elif not force:
        if inside:
            raise ValueError(f"{target} holds a run already; give another folder with -o, or --force to replace it")
        if has_checkpoint(unfinished(folder)):
            raise ValueError(
                f"an unfinished run for {target} is there; add --resume to go on, or --force to start it afresh"
            )
    return folder


@contextmanager
def staged(folder: Path, *, resume: bool) -> Iterator[Path]:
    """Make the folder of a run, which takes its name when the block ends well.

    Yields:
        A folder to write to. It stays after an error if it holds a checkpoint that is worth going on with.

    Raises:
        ValueError: If another command is making the same run.
    """
    stage = unfinished(folder)
    stage.mkdir(parents=True, exist_ok=True)
    handle = os.open(stage, os.O_RDONLY)
    try:
        _lock(handle, folder)
        if not resume:
            _empty(stage)
        try:
            yield stage
        except BaseException as error:
            unusable = isinstance(error, ValueError) and not resume
            if unusable or not has_checkpoint(stage):
                shutil.rmtree(stage, ignore_errors=True)
            raise
        for part in ("checkpoints", NETWORKS):
            shutil.rmtree(stage / part, ignore_errors=True)
        _publish(stage, folder)
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    """Keep a second command from building the same run; the lock goes with its process."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ValueError(f"another command is writing {folder}; wait for it, or give another folder with -o") from error


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _publish(stage: Path, folder: Path) -> None:
    """Give a run its name in one step; files of the user's own in an earlier one are kept."""
    if not folder.exists() or not any(folder.iterdir()):
        stage.replace(folder)
        return
    if not _exchange(stage, folder):  # two steps where the system knows no exchange
        aside = folder.parent / f".{folder.name}.replaced"
        folder.rename(aside)
        stage.rename(folder)
        aside.rename(stage)
    for entry in stage.iterdir():
        if entry.name not in PARTS and not (folder / entry.name).exists():
            entry.rename(folder / entry.name)
    shutil.rmtree(stage, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, and return whether the system could."""
    with suppress(OSError, AttributeError, TypeError):
        here, swap = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
        library = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
        return bool(library.renameat2(here, os.fsencode(one), here, os.fsencode(other), swap) == 0)
    return False
