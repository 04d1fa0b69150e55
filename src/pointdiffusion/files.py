"""The one way to write a file, and the seal that shows when one was damaged.

A file appears whole or not at all: the bytes go to a temporary file in the same folder, are forced to the disk, and
then take the name in one step (`os.replace`). Whoever is killed in between leaves the earlier file as it was.

A *sealed* file is an ordinary zip archive (what `torch.save` writes) whose archive comment holds the SHA-256 of all
the bytes before it. Every tool that reads the archive still does, and a flipped bit anywhere is noticed before
anything is parsed.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import os
import struct
import tempfile
import zipfile
from pathlib import Path

_SEAL = b"pointdiffusion-sha256:"
_END_OF_ARCHIVE = b"PK\x05\x06"
_SEALED_TAIL = len(_SEAL) + 64  # the digest is written in hexadecimal


def write_atomic(path: str | os.PathLike[str], payload: bytes) -> None:
    """Write `payload` to `path`, whole or not at all.

    Args:
        path: Target file; its folder is made if it is missing.
        payload: What the file will hold.

    Raises:
        OSError: If the disk is full or the folder cannot be written; the earlier file is then untouched.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent, target.name)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp keeps others out; a result is as readable as any file that the user makes.
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove what a writer of `folder / name` may have left when it was killed."""
    for leftover in folder.glob(f".{glob.escape(name)}.*.tmp"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def seal(archive: bytes) -> bytes:
    """Return the zip `archive` with the hash of all its bytes as its comment."""
    start = len(archive) - 22  # the end record of an archive without a comment
    if archive[start : start + 4] != _END_OF_ARCHIVE or archive[-2:] != b"\0\0":
        raise ValueError("only a zip archive without a comment can be sealed")
    body = archive[:-2] + _SEALED_TAIL.to_bytes(2, "little")
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode()


def unseal(payload: bytes, name: str) -> io.BytesIO:
    """Return the archive in `payload` as a file, once its seal was checked.

    Args:
        payload: All bytes of a sealed file.
        name: What to call the file in messages.

    Raises:
        ValueError: If the file is empty, not one of ours, or damaged, or if it would unpack to more than it is.
    """
    if not payload:
        raise ValueError(f"{name} is empty; train again, or restore it from a copy")
    body, tail = payload[:-_SEALED_TAIL], payload[-_SEALED_TAIL:]
    if not tail.startswith(_SEAL):
        raise ValueError(f"{name} is damaged or was not written by pointdiffusion; train again, or give another file")
    if tail[len(_SEAL) :] != hashlib.sha256(body).hexdigest().encode():
        raise ValueError(f"{name} is damaged (its contents do not match its hash); restore it from a copy")
    archive = io.BytesIO(payload)
    try:
        with zipfile.ZipFile(archive) as entries:
            sizes = [(entry.file_size, entry.compress_type) for entry in entries.infolist()]
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, EOFError, struct.error) as error:
        raise ValueError(f"{name} is not a model file ({error}); give another file") from error
    if any(kind != zipfile.ZIP_STORED for _, kind in sizes) or sum(size for size, _ in sizes) > len(payload):
        raise ValueError(f"{name} would unpack to more than it is, as no file of ours does; do not trust it")
    archive.seek(0)
    return archive


def read_sealed(path: str | os.PathLike[str]) -> io.BytesIO:
    """Read a sealed file.

    Raises:
        ValueError: If the file is missing, a folder, unreadable, foreign or damaged.
    """
    target = Path(path)
    try:
        payload = target.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {target}; check the path, or train first") from error
    except IsADirectoryError as error:
        raise ValueError(f"{target} is a folder; give the file in it, as in {target / 'model.pt'}") from error
    except OSError as error:
        raise ValueError(f"{target} cannot be read ({error.strerror}); check the path and its permissions") from error
    return unseal(payload, str(target))
