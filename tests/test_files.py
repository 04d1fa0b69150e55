"""Files: whole or not at all, and any damage noticed."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pointdiffusion.runtime.files import read_sealed, remove_leftovers, seal, unseal, write_atomic

SEALED_TAIL = len(b"pointdiffusion-sha256:") + 64


def make_archive(content: bytes = b"what a model is made of", *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a small zip archive, always the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr(zipfile.ZipInfo("data.pkl"), content, compress_type=compression)
    return buffer.getvalue()


SEALED = seal(make_archive())


# ------------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("payload", [b"", b"new", bytes(range(256)) * 10_000])
def test_written_bytes_are_read_back(tmp_path: Path, payload: bytes) -> None:
    """A file holds what was given, whether it was there before or not, and nothing else is left in its folder."""
    path = tmp_path / "result.bin"
    for content in (payload, payload[::-1]):
        write_atomic(path, content)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    """A path in folders that do not exist yet makes them; a path may be text."""
    write_atomic(str(tmp_path / "a" / "b" / "c.txt"), b"x")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == b"x"


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    """A result is as readable as any file that the user makes, and the umask is left as it was."""
    with _umask(mask):
        write_atomic(tmp_path / "result", b"x")
        ordinary = tmp_path / "ordinary"
        ordinary.touch()
        assert stat.S_IMODE((tmp_path / "result").stat().st_mode) == mode
        assert stat.S_IMODE(ordinary.stat().st_mode) == mode
        assert os.umask(mask) == mask


@pytest.mark.parametrize("stage", ["fsync", "replace"])
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_in_the_middle_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, fault: BaseException
) -> None:
    """A full disk or Ctrl-C at any stage: the fault is told, the old file stays, and no other is left behind."""
    path = tmp_path / "result"
    write_atomic(path, b"old")

    def fail(*arguments: Any, **keywords: Any) -> None:
        raise fault

    monkeypatch.setattr(os, stage, fail)
    with pytest.raises(type(fault)):
        write_atomic(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


def test_bytes_are_forced_to_the_disk_before_they_take_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order that makes a write atomic: a temporary file in the same folder, its bytes synced, one replacement."""
    events: list[tuple[str, Any]] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(handle: int) -> None:
        events.append(("fsync", os.fstat(handle).st_ino))
        fsync(handle)

    def spy_replace(source: Any, target: Any) -> None:
        assert Path(source).parent == Path(target).parent == tmp_path
        assert Path(source).read_bytes() == b"new"
        events.append(("replace", Path(source).stat().st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    write_atomic(tmp_path / "result", b"new")
    assert [name for name, _ in events[:2]] == ["fsync", "replace"]
    assert events[0][1] == events[1][1]  # it was that file that was synced


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_real_full_disk_leaves_the_earlier_file(tmp_path: Path) -> None:
    """Where the system itself stops the write half way, the old file stays whole and nothing is left behind."""
    path = tmp_path / "result"
    write_atomic(path, b"old")
    program = """
        import resource, sys
        from pointdiffusion import write_atomic
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_atomic(sys.argv[1], bytes(1_000_000))
        except OSError as error:
            print("refused")
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "refused"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("delay", [0.02, 0.05, 0.11])
def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path, delay: float) -> None:
    """`kill -9` in the midst of writing leaves one version or the other; leftovers are found and removed by name."""
    path, other = tmp_path / "result", tmp_path / ".other.1.tmp"
    other.write_bytes(b"not ours")
    program = """
        import sys
        from pointdiffusion import write_atomic
        versions = [bytes([letter]) * 1_000_000 for letter in b"ab"]
        write_atomic(sys.argv[1], versions[0])
        print("started", flush=True)
        while True:
            for version in versions:
                write_atomic(sys.argv[1], version)
    """
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), str(path)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"started\n"
        time.sleep(delay)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=30)
    assert path.read_bytes() in (b"a" * 1_000_000, b"b" * 1_000_000)
    remove_leftovers(tmp_path, path.name)
    assert set(tmp_path.iterdir()) == {path, other}


@pytest.mark.skipif(os.name == "nt", reason="locks of POSIX")
def test_leftovers_are_removed_by_the_name_of_their_file(tmp_path: Path) -> None:
    """What a killed write of this file left goes; the file itself, and what belongs to others, stays."""
    kept = [
        "model.pt", ".model.pt", "model.pt.tmp", ".model.ptx.ptd-01234567.tmp", ".other.pt.ptd-01234567.tmp",
        ".model.pt.gz.ptd-01234567.tmp", ".model.pt.notes.tmp", ".model.pt.abcd_123.tmp", ".model.pt.ptd-0123456z.tmp",
        ".model.pt.ptd-01234567.tmp.tmp",
    ]  # fmt: skip
    gone = [".model.pt.ptd-01234567.tmp", ".model.pt.ptd-fedcba98.tmp"]
    for name in (*kept, *gone):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, "model.pt")
    assert {path.name for path in tmp_path.iterdir()} == set(kept)
    remove_leftovers(tmp_path / "missing", "model.pt")  # nothing to do is no fault


def test_temporary_files_of_others_stay(tmp_path: Path) -> None:
    """Names like those that a writer might choose, and the user's own: `d.csv` is not `d.csv.gz`."""
    names = [".mine.csv.notes.tmp", ".mine.csv.gz.k3jd8_2a.tmp", ".mine.csv.k3jd8_2a.tmp", ".mine.csv.tmp"]
    for name in names:
        (tmp_path / name).write_text("notes")
    write_atomic(tmp_path / "mine.csv", b"x")
    assert {path.name for path in tmp_path.iterdir()} == {*names, "mine.csv"}


@pytest.mark.parametrize("other", ["d.csv", "d.csv.gz"])
def test_a_writer_in_the_middle_of_another_harms_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """The moment that matters, without a race: one write is synced, and then a whole other one takes place."""
    fsync = os.fsync

    def write_another(handle: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        fsync(handle)
        command = "import sys, pointdiffusion; pointdiffusion.write_atomic(sys.argv[1], b'other')"
        subprocess.run([sys.executable, "-c", command, str(tmp_path / other)], check=True, timeout=60)

    monkeypatch.setattr(os, "fsync", write_another)
    write_atomic(tmp_path / "d.csv", b"first")
    assert (tmp_path / "d.csv").read_bytes() == b"first"  # the last to take the name
    if other != "d.csv":
        assert (tmp_path / other).read_bytes() == b"other"
    assert {path.name for path in tmp_path.iterdir()} == {"d.csv", other}


def test_many_writers_of_one_file(tmp_path: Path) -> None:
    """Threads that write one file and its neighbour: no write fails, and each file is whole."""
    failures: list[BaseException] = []

    def write(name: str, letter: bytes) -> None:
        try:
            for _ in range(40):
                write_atomic(tmp_path / name, letter * 1000)
        except BaseException as error:
            failures.append(error)

    writers = [
        threading.Thread(target=write, args=job) for job in [("b.csv", b"1"), ("b.csv", b"2"), ("b.csv.gz", b"3")]
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert failures == []
    assert (tmp_path / "b.csv").read_bytes() in (b"1" * 1000, b"2" * 1000)
    assert {path.name for path in tmp_path.iterdir()} == {"b.csv", "b.csv.gz"}


def test_a_temporary_file_that_was_taken_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer may find the file in the moment before it is locked."""
    fcntl = pytest.importorskip("fcntl")
    flock, taken = fcntl.flock, list[str]()

    def tidy_first(handle: int, kind: int) -> None:
        if not taken:
            taken.extend(path.name for path in tmp_path.iterdir())
            monkeypatch.setattr(fcntl, "flock", flock)
            remove_leftovers(tmp_path, "result")
            assert list(tmp_path.iterdir()) == []
        flock(handle, kind)

    monkeypatch.setattr(fcntl, "flock", tidy_first)
    write_atomic(tmp_path / "result", b"x")
    assert len(taken) == 1
    assert (tmp_path / "result").read_bytes() == b"x"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize("length", [1, 50, 51, 240, 255])
def test_a_name_as_long_as_the_system_allows(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("x" * length)
    write_atomic(path, b"x")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o444, 0o755, 0o666])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    """What was private stays so: already while it is written, and whatever the umask."""
    path = tmp_path / "result"
    path.write_bytes(b"old")
    path.chmod(mode)
    with _umask(0o022):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_private_file_is_private_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, fsync, modes = tmp_path / "result", os.fsync, list[int]()
    path.touch(0o600)

    def spy(handle: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(handle).st_mode))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    with _umask(0):
        write_atomic(path, b"new")
    assert modes[:1] == [0o600]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_is_replaced_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_bytes(b"old")
    os.chown(path, 1234, 2345)
    write_atomic(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing yet"])
def test_a_symbolic_link_stays_one(tmp_path: Path, there: bool) -> None:
    """The file behind it is written, beside itself, and the links on the way stay."""
    far, near = tmp_path / "far", tmp_path / "near"
    far.mkdir()
    near.mkdir()
    if there:
        (far / "result").write_bytes(b"old")
    (near / "first").symlink_to("second")
    (near / "second").symlink_to(Path("..") / "far" / "result")
    write_atomic(near / "first", b"new")
    assert (far / "result").read_bytes() == b"new"
    assert not (far / "result").is_symlink()
    assert {path.name for path in near.iterdir() if path.is_symlink()} == {"first", "second"}
    assert [path.name for path in far.iterdir()] == ["result"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and devices of POSIX")
def test_pipes_sockets_and_circles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing takes their place, and nothing waits for a reader; devices are not tried, lest a fault destroy one."""
    monkeypatch.chdir(tmp_path)  # paths of sockets are short
    os.mkfifo("pipe")
    Path("link").symlink_to("pipe")
    Path("circle").symlink_to("circle")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for target in ("pipe", "link", "socket"):
            with pytest.raises(ValueError, match="device or a pipe"):
                write_atomic(target, b"x")
        with pytest.raises(OSError, match="symbolic links"):
            write_atomic("circle", b"x")
        assert Path("pipe").is_fifo()
        assert Path("socket").is_socket()
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "link", "circle", "socket"}


def test_what_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    """A target that is a folder, or lies below a file, is refused by the system, and nothing is changed."""
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.write_bytes(b"old")
    for target in (folder, file / "below"):
        with pytest.raises(OSError, match=r"."):
            write_atomic(target, b"new")
    assert set(tmp_path.rglob("*")) == {folder, file}
    assert file.read_bytes() == b"old"


# ------------------------------------------------------------------------------------------------------------ the seal


def test_a_sealed_archive_comes_back_and_is_still_an_archive() -> None:
    """Sealing changes nothing that a reader of archives sees, and unsealing hands the archive over from its start."""
    opened = unseal(SEALED, "model.pt")
    assert opened.tell() == 0
    for file in (opened, io.BytesIO(SEALED)):
        with zipfile.ZipFile(file) as archive:
            assert archive.testzip() is None
            assert archive.read("data.pkl") == b"what a model is made of"


def test_the_seal_covers_everything_before_it() -> None:
    """The seal is the SHA-256 of all the bytes before the comment, in hexadecimal: whoever likes can check it."""
    body, tail = SEALED[:-SEALED_TAIL], SEALED[-SEALED_TAIL:]
    assert tail == b"pointdiffusion-sha256:" + hashlib.sha256(body).hexdigest().encode()
    assert len(body) == len(make_archive())


def test_every_single_flipped_bit_is_noticed() -> None:
    """There is no bit in the file, seal included, whose change goes unnoticed."""
    for position in range(len(SEALED)):
        for bit in range(8):
            damaged = bytearray(SEALED)
            damaged[position] ^= 1 << bit
            with pytest.raises(ValueError, match=r"model\.pt is damaged"):
                unseal(bytes(damaged), "model.pt")


def test_every_truncation_is_noticed() -> None:
    """However much is missing, at the end or at the beginning, the file is refused."""
    for length in range(len(SEALED)):
        for part in (SEALED[:length], SEALED[len(SEALED) - length :]):
            with pytest.raises(ValueError, match=r"model\.pt is (damaged|empty)"):
                unseal(part, "model.pt")


@pytest.mark.parametrize("extra", [b"\0", b"x" * 100, SEALED])
def test_every_addition_is_noticed(extra: bytes) -> None:
    """Bytes put before, behind or into the middle are refused."""
    for changed in (SEALED + extra, extra + SEALED, SEALED[:40] + extra + SEALED[40:]):
        with pytest.raises(ValueError, match=r"model\.pt is damaged"):
            unseal(changed, "model.pt")


def test_swapped_bytes_are_noticed() -> None:
    """Exchanging any byte with its neighbour is refused, unless they are the same."""
    for position in range(len(SEALED) - 1):
        swapped = bytearray(SEALED)
        swapped[position : position + 2] = reversed(swapped[position : position + 2])
        if swapped != SEALED:
            with pytest.raises(ValueError, match=r"model\.pt is damaged"):
                unseal(bytes(swapped), "model.pt")


def _repeated(times: int) -> bytes:
    """Return an archive whose directory lists one stored entry many times over."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data", bytes(10_000))
        archive.filelist.extend(archive.filelist * (times - 1))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(make_archive(bytes(10_000_000), compression=zipfile.ZIP_DEFLATED), id="deflated"),
        pytest.param(make_archive(b"short", compression=zipfile.ZIP_DEFLATED), id="deflated but small"),
        pytest.param(make_archive(bytes(10_000_000), compression=zipfile.ZIP_BZIP2), id="bzip2"),
        pytest.param(make_archive(bytes(10_000_000), compression=zipfile.ZIP_LZMA), id="lzma"),
        pytest.param(_repeated(50), id="one entry many times"),
    ],
)
def test_archives_that_would_unpack_to_more_are_refused(bomb: bytes) -> None:
    """A seal can be forged, so a sealed archive that is larger inside than outside is refused before it is read."""
    with pytest.raises(ValueError, match=r"model\.pt would unpack to more bytes than it has"):
        unseal(seal(bomb), "model.pt")


def test_a_forged_seal_over_rubbish_is_refused() -> None:
    """Bytes that are no archive are refused in a sentence even where their hash is right; so is any broken archive."""
    archive = make_archive()
    for rubbish in [b"rubbish" * 20, *(archive[:cut] + archive[-22:] for cut in range(0, len(archive) - 22, 3))]:
        body = rubbish[:-2] + SEALED_TAIL.to_bytes(2, "little")
        forged = body + b"pointdiffusion-sha256:" + hashlib.sha256(body).hexdigest().encode()
        with pytest.raises(ValueError, match=r"model\.pt"):
            unseal(forged, "model.pt")


def test_a_forged_seal_over_a_damaged_archive_is_read_or_refused_but_nothing_else() -> None:
    """With the hash made right again, each flipped bit gives an archive or a ValueError, never another fault."""
    body = SEALED[:-SEALED_TAIL]
    for position in range(len(body)):
        for bit in range(8):
            damaged = bytearray(body)
            damaged[position] ^= 1 << bit
            seal_of = b"pointdiffusion-sha256:" + hashlib.sha256(damaged).hexdigest().encode()
            try:
                unseal(bytes(damaged) + seal_of, "model.pt")
            except ValueError as error:
                assert "model.pt" in str(error)  # noqa: PT017


def test_a_forged_seal_over_a_name_that_is_no_text_is_refused() -> None:
    """An entry whose name is said to be UTF-8 and is not is refused with the name of the file."""
    archive = bytearray(make_archive())
    directory = archive.rindex(b"PK\x01\x02")
    archive[directory + 9] |= 0x08  # bit 11 of the flags: the name is UTF-8
    archive[directory + 46] = 0xFF
    with pytest.raises(ValueError, match=r"model\.pt"):
        unseal(seal(bytes(archive)), "model.pt")


@pytest.mark.parametrize("foreign", [make_archive(), b"x", b"not an archive at all" * 10, bytes(1000)])
def test_foreign_files_are_refused(foreign: bytes) -> None:
    """What we did not write, archives without a seal included, is refused with the name of the file."""
    with pytest.raises(ValueError, match=r"model\.pt is damaged or was not written by pointdiffusion"):
        unseal(foreign, "model.pt")


@pytest.mark.parametrize("archive", [b"", b"PK", b"x" * 100, SEALED, make_archive()[:-1]])
def test_only_an_archive_without_a_comment_is_sealed(archive: bytes) -> None:
    """Sealing something else, or twice, is a mistake of the caller."""
    with pytest.raises(ValueError, match="zip archive without a comment"):
        seal(archive)


# ------------------------------------------------------------------------------------------------------------- reading


def test_a_sealed_file_is_read(tmp_path: Path) -> None:
    """Reading gives the archive; the path may be text."""
    path = tmp_path / "model.pt"
    write_atomic(path, SEALED)
    for target in (path, str(path)):
        with zipfile.ZipFile(read_sealed(target)) as archive:
            assert archive.read("data.pkl") == b"what a model is made of"


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    """Missing, empty, a folder, below a file: each is a ValueError of one sentence with the path in it."""
    missing, empty, folder = tmp_path / "missing.pt", tmp_path / "empty.pt", tmp_path / "folder"
    empty.touch()
    folder.mkdir()
    for path, reason in ((missing, "no file"), (empty, "is empty"), (folder, "is a folder")):
        with pytest.raises(ValueError, match=reason) as caught:
            read_sealed(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_path_below_a_file_is_a_value_error(tmp_path: Path) -> None:
    """A path that leads through a file names nothing: the same as a missing file."""
    (tmp_path / "model.pt").write_bytes(SEALED)
    with pytest.raises(ValueError, match=r"model\.pt"):
        read_sealed(tmp_path / "model.pt" / "model.pt")


def test_a_name_that_no_system_has_is_a_value_error(tmp_path: Path) -> None:
    """A name that is too long, or goes in circles, is a file that is not there."""
    circle = tmp_path / "circle.pt"
    circle.symlink_to(circle)
    for path in (tmp_path / ("x" * 300), circle):
        with pytest.raises(ValueError, match=r"\w"):
            read_sealed(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    """A file that others locked is told from a damaged one."""
    path = tmp_path / "model.pt"
    path.write_bytes(SEALED)
    path.chmod(0)
    with pytest.raises(ValueError, match="permissions"):
        read_sealed(path)
