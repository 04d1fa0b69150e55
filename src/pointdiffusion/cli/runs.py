"""The folder of a run: its `config.yaml`, its table, and how it comes to be whole or not at all.

A run is built in a hidden folder beside its place and takes its name in one step. Whoever is killed in between leaves
the earlier run as it was, and the hidden folder with its checkpoint, from which `--resume` goes on. Only what a run
writes is ever deleted: other files in an earlier run move to the new one, and where a command was killed before it
moved them, the next one does.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

MODEL, CONFIG, REPORT = "model.pt", "config.yaml", "report.html"
LOGS, CHOICES = "lightning_logs", "selection.txt"
NETWORKS = "networks"  # of a choice by folds, until it is made
CHECKPOINTS = "checkpoints"  # of a single network, until it is trained
FILE, WHOLE = "file", "whole"
FILES = dict.fromkeys((MODEL, CONFIG, CHOICES, REPORT), FILE)
PARTS: dict[str, Any] = {
    **FILES,
    ".*.ptd-????????.tmp": FILE,  # of `write_atomic`, killed
    LOGS: {"version_*": dict.fromkeys(("metrics.csv", "hparams.yaml", "events.out.tfevents.*"), FILE)},
}
"""What a run holds, by name: files, and folders with their files; all else in its folder is the user's."""
UNFINISHED_PARTS: dict[str, Any] = {**PARTS, CHECKPOINTS: WHOLE, NETWORKS: WHOLE}
"""What a run holds while it is built."""


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


def replaced(folder: Path) -> Path:
    """Return where an earlier run is while another takes its name."""
    return folder.parent / f".{folder.name}.replaced"


def has_checkpoint(folder: Path) -> bool:
    """Return whether an unfinished run can be gone on with."""
    places = (f"{CHECKPOINTS}/*.ckpt", f"{NETWORKS}/*/*/{CHECKPOINTS}/*.ckpt", f"{NETWORKS}/*/*/{MODEL}")
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
    recover(folder)
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
    with _locked(stage, folder):
        home = folder if folder.exists() else None
        if home is not None:
            stage.chmod(stat.S_IMODE(home.stat().st_mode))
        if not resume:
            _empty(stage, home, UNFINISHED_PARTS)
        try:
            yield stage
        except BaseException as error:
            unusable = isinstance(error, ValueError) and not resume
            if unusable or not has_checkpoint(stage):
                with suppress(OSError):
                    _discard(stage, home, UNFINISHED_PARTS)
            raise
        for part in (CHECKPOINTS, NETWORKS):
            shutil.rmtree(stage / part, ignore_errors=True)
        _publish(stage, folder)


def recover(folder: Path) -> None:
    """Finish what a command left undone that was killed while it put a run in the place of another."""
    aside, stage = replaced(folder), unfinished(folder)
    with suppress(FileNotFoundError, BusyError), _locked(aside, folder):
        if not folder.exists():
            (stage if (stage / MODEL).exists() and not has_checkpoint(stage) else aside).rename(folder)
        if aside.exists():
            _discard(aside, folder, PARTS)
    with suppress(FileNotFoundError, BusyError), _locked(stage, folder):
        if not has_checkpoint(stage):
            _discard(stage, folder if folder.exists() else None, UNFINISHED_PARTS)


class BusyError(ValueError):
    """Another command is writing the run."""


@contextmanager
def _locked(place: Path, folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other commands from a folder that belongs to a run; the lock goes with its process."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    handle = os.open(place, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            busy = not place.exists() or not os.path.samestat(os.fstat(handle), place.stat())  # it was just moved
        except OSError as error:
            busy = error.errno == errno.EWOULDBLOCK  # else the file system knows no locks
        if busy:
            raise BusyError(f"another command is writing {folder}; wait for it, or give another folder with -o")
        yield
    finally:
        os.close(handle)


def _discard(old: Path, home: Path | None, parts: Mapping[str, Any]) -> None:
    """Empty a folder as `_empty` does, and delete it if nothing stays."""
    _empty(old, home, parts)
    with suppress(OSError):
        old.rmdir()


def _empty(old: Path, home: Path | None, parts: Mapping[str, Any]) -> None:
    """Delete the parts of a run in `old`, and move all else to `home`; without a home it stays."""
    for entry in list(old.iterdir()):
        real_folder = entry.is_dir() and not entry.is_symlink()
        kind = next((kind for name, kind in parts.items() if fnmatchcase(entry.name, name)), None)
        if kind == WHOLE and real_folder:
            shutil.rmtree(entry)
        elif kind == FILE and entry.is_file() and not entry.is_symlink():
            entry.unlink()
        elif isinstance(kind, dict) and real_folder:
            _discard(entry, home and home / entry.name, kind)
        elif home is not None:
            home.mkdir(parents=True, exist_ok=True)
            entry.rename(_free(home / entry.name))


def _free(path: Path) -> Path:
    """Return a path where nothing is: the given one, or one whose name says that it holds what was there earlier."""
    count, free = 1, path
    while os.path.lexists(free):
        free = path.with_name(f"{path.name}.earlier{count if count > 1 else ''}")
        count += 1
    return free


def _publish(stage: Path, folder: Path) -> None:
    """Give a run its name in one step; files of the user's own in an earlier one are kept."""
    if not folder.exists() or not any(folder.iterdir()):
        stage.replace(folder)
        return
    for name in FILES:
        if (folder / name).is_file() and (stage / name).exists():
            (stage / name).chmod(stat.S_IMODE((folder / name).stat().st_mode))
    aside = replaced(folder)
    with _locked(folder, folder, wait=True):  # under its next name, so that nobody takes it for a leftover
        stage.rename(aside)
        if not _exchange(aside, folder):  # three steps where the system knows no exchange
            aside.rename(stage)
            folder.rename(aside)
            stage.rename(folder)
        _discard(aside, folder, PARTS)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, and return whether the system could."""
    with suppress(OSError, AttributeError, TypeError):
        here, swap = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
        library = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
        return bool(library.renameat2(here, os.fsencode(one), here, os.fsencode(other), swap) == 0)
    return False
