"""Exit codes of our commands, and the one sentence that goes with each error."""

from __future__ import annotations

import errno

from pointdiffusion.config import DivergedError

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file grew beyond what the system allows",
}
OF_THE_MACHINE = (errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


def outcome(error: BaseException) -> tuple[int, str] | None:
    """Return the exit code and the one sentence of an error; None for one that is a fault of ours.

    2 stands for what the user gave or asked, 1 for the machine and for training that diverged, 130 for Ctrl-C, 0 for a
    reader that went away.
    """
    if isinstance(error, KeyboardInterrupt):
        return 130, str(error) or "interrupted"
    if isinstance(error, BrokenPipeError):
        return 0, ""
    if isinstance(error, OSError):
        if error.errno in FULL:
            return 1, f"{FULL[error.errno]}; what was there before is untouched, make room and try again"
        if error.errno in OF_THE_MACHINE:
            return 1, f"the machine failed ({error.strerror}); what was there before is untouched"
        return 2, f"{error.filename or 'a file'} cannot be used ({error.strerror or error}); check the path"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):
        return 1, "not enough memory; ask for fewer rows, or give a smaller table"
    if isinstance(error, (ValueError, ImportError)):
        return 1 if isinstance(error, DivergedError) else 2, str(error)
    return None
