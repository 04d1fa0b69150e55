"""The one way to write a file, and the seal that shows when one was damaged.

A file appears whole or not at all: the bytes go to a temporary file in the same folder, are forced to the disk, and
then take the name in one step (`os.replace`). Whoever is killed in between leaves the earlier file as it was, and a
temporary file that the next writer of the same name removes. A writer locks its temporary file, and the system drops
the lock when the process ends, so the file of a writer that is still at work is never taken for a leftover.

A *sealed* file is an ordinary zip archive (what `torch.save` writes) whose archive comment holds the SHA-256 of all
the bytes before it. Every tool that reads the archive still does, and a flipped bit anywhere is noticed before
anything is parsed.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import io
import os
import re
import secrets
import stat
import struct
import zipfile
from pathlib import Path

try:
    import fcntl

    _LOCKS = True
except ImportError:  # Windows, where a file that is open can be neither removed nor replaced
    _LOCKS = False

_SEAL = b"pointdiffusion-sha256:"
_END_OF_ARCHIVE = b"PK\x05\x06"
_SEALED_TAIL = len(_SEAL) + 64  # the digest is written in hexadecimal
_TOKEN = re.compile(r"ptd-[0-9a-f]{8}\.tmp")


def regular_target(path: str | os.PathLike[str]) -> Path:
    """Return the regular file that writing to `path` makes or replaces, behind any symbolic links.

    Args:
        path: Target of the write; need not exist.

    Returns:
        The path with symbolic links resolved.

    Raises:
        ValueError: If a pipe, a device or a socket is there.
        OSError: If a folder is there, or the links go in circles.
    """
    target = Path(path)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        mode = target.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        if not stat.S_ISREG(mode):
            raise ValueError(
                f"{target} is a device or a pipe, not a regular file; give the name of a file, or - for a stream"
            )
    return Path(os.path.realpath(target)) if target.is_symlink() else target


def write_atomic(path: str | os.PathLike[str], payload: bytes) -> None:
    """Write a file atomically: it appears complete or not at all.

    A file that is replaced keeps its permissions, and a symbolic link stays one: the file that it leads to is
    replaced. Several processes and threads may write the same file at once; the last one wins.

    Args:
        path: Target file; its folder is created if it is missing.
        payload: Content of the file.

    Raises:
        ValueError: If `path` is a pipe or a device.
        OSError: If the disk is full or the folder cannot be written; an earlier file is then untouched.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "run", "note.txt")
        ...     write_atomic(path, b"first")
        ...     write_atomic(path, b"second")
        ...     path.read_bytes()
        b'second'
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    target = regular_target(path)
    earlier = target.stat() if target.exists() else None
    remove_leftovers(target.parent, target.name)
    handle, temporary = _temporary_file(target, 0o666 if earlier is None else earlier.st_mode & 0o777 | 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            if earlier is not None:
                _take_over(temporary, earlier)
            os.fsync(file.fileno())
            if not _LOCKS:
                file.close()
            temporary.replace(target)  # before the lock goes
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _temporary_file(target: Path, mode: int) -> tuple[int, Path]:
    """Return a new file beside `target`, open and locked, and its path."""
    visible = target.name[:50]  # 200 bytes at most: any name that a system allows has room for the rest
    while True:
        path = target.with_name(f".{visible}.ptd-{secrets.token_hex(4)}.tmp")
        with contextlib.suppress(FileExistsError):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
            if _lock(handle) and os.fstat(handle).st_nlink:  # nobody took it for a leftover before it was locked
                return handle, path
            os.close(handle)


def _lock(handle: int) -> bool:
    """Lock an open file, and return whether no other holds it; true where the file system knows no locks."""
    if _LOCKS:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _take_over(path: Path, earlier: os.stat_result) -> None:
    """Give a file the owner, where the system lets us, and the permissions of the one that it replaces."""
    if os.name != "nt":
        with contextlib.suppress(OSError):
            os.chown(path, earlier.st_uid, earlier.st_gid)
    path.chmod(earlier.st_mode & 0o777)


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove the temporary files that writers of `folder / name` left when they were killed, and no others."""
    if not _LOCKS:
        return
    start = f".{name[:50]}."
    for path in folder.glob(f"{glob.escape(start)}*"):
        if not _TOKEN.fullmatch(path.name[len(start) :]):
            continue
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(handle)


def seal(archive: bytes) -> bytes:
    """Return a zip archive with the hash of all its bytes as its comment.

    Args:
        archive: Bytes of a zip archive without a comment.

    Returns:
        Bytes of the sealed archive, which any zip tool reads.

    Raises:
        ValueError: If the bytes are no such archive.
    """
    start = len(archive) - 22  # the end record of an archive without a comment
    if archive[start : start + 4] != _END_OF_ARCHIVE or archive[-2:] != b"\0\0":
        raise ValueError("only a zip archive without a comment can be sealed")
    body = archive[:-2] + _SEALED_TAIL.to_bytes(2, "little")
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode()


def unseal(payload: bytes, name: str) -> io.BytesIO:
    """Return a sealed archive as a file object, after checking its seal.

    Args:
        payload: All bytes of a sealed file.
        name: Name of the file in messages.

    Returns:
        The archive, open at its start.

    Raises:
        ValueError: If the file is empty, was not written by this library, is damaged, or would unpack to more bytes
            than it has.
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
        raise ValueError(
            f"{name} would unpack to more bytes than it has, which pointdiffusion never writes; do not trust it"
        )
    archive.seek(0)
    return archive


def read_sealed(path: str | os.PathLike[str]) -> io.BytesIO:
    """Read a sealed file.

    Args:
        path: The file.

    Returns:
        The archive in it, open at its start.

    Raises:
        ValueError: If the file is missing, a folder, unreadable, foreign or damaged.
    """
    target = Path(path)
    try:
        payload = target.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {target}; check the path, or train first") from error
    except IsADirectoryError as error:
        raise ValueError(f"{target} is a folder; give a file in it, as in {target / 'model.pt'}") from error
    except OSError as error:
        raise ValueError(f"{target} cannot be read ({error.strerror}); check the path and its permissions") from error
    return unseal(payload, str(target))
