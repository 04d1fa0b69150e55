"""What is left when something ends: a visit, a training, the server. Nothing: no process, no place, no traceback."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator

import pytest
import websockets
from server_fixtures import (
    Server,
    Told,
    cpu_seconds,
    gone,
    in_one_thread,
    start_message,
    trainers,
    visit,
    visitor,
    wait_for,
)  # fmt: skip

from pointdiffusion.web import sessions
from pointdiffusion.web.sessions import Session, Trainers
from pointdiffusion.web.trainer import model_bytes
from pointdiffusion.web.turns import Machine

STEPS = int(os.environ.get("PLAYGROUND_SESSION_STEPS", "100"))
"""Steps of each of eight sessions at once; 400 take a minute on two cores."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.stop()


def test_a_training_that_dies_is_told(server: Server) -> None:
    """Killed, as when memory runs out; another can be started on the same connection."""

    async def talk(told: Told) -> None:
        before = set(trainers(server))
        await told.say(start_message(steps=100_000))
        await told.until("frame")
        mine = [child for child in trainers(server) if cpu_seconds(child) > 0.5 or child not in before]
        for child in mine:
            os.kill(child, signal.SIGKILL)
        await told.until("error")
        await told.until("state", state="died")
        assert any("died (signal SIGKILL)" in text.get("message", "") for text in told.texts)
        await told.say(start_message(steps=10))
        await told.until("state", state="finished")

    visit(server, talk)


def test_closing_the_tab_ends_its_training(server: Server) -> None:
    """No process of a visitor outlives the visit, and none is left as a zombie; one waits for the next."""

    async def talk(told: Told) -> None:
        await told.say(start_message(steps=100_000))
        await told.until("frame")

    visit(server, talk)
    wait_for(lambda: len(server.children()) <= 1)


def test_a_second_start_ends_the_first(server: Server) -> None:
    async def talk(told: Told) -> None:
        await told.say(start_message(steps=100_000))
        await told.until("frame")
        await told.say(start_message(steps=10))
        await told.until("state", state="finished", step=10)

    visit(server, talk)
    wait_for(lambda: len(server.children()) <= 1)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running(kind: signal.Signals) -> None:
    """After Ctrl-C with the status of Ctrl-C; even after a kill that the server cannot see coming."""
    server = Server()

    async def talk(told: Told) -> list[int]:
        await told.say(start_message(steps=100_000))
        await told.until("frame")
        running = server.children()
        server.process.send_signal(kind)
        await asyncio.to_thread(server.process.wait, 30)
        return running

    running: list[int] = []
    with contextlib.suppress(websockets.exceptions.ConnectionClosed, OSError):
        running = visit(server, talk)
    assert running
    wait_for(lambda: all(map(gone, running)), 10)
    said = server.process.communicate()[1]
    if kind == signal.SIGINT:
        assert server.process.returncode == 130
        assert "Traceback" not in said


def test_eight_sessions_train_at_once_each_as_if_alone() -> None:
    """Each ends with what its seed gives alone; a ninth is refused with a sentence; nothing is left behind."""
    server = Server()

    async def one(seed: int, enough: asyncio.Event) -> str:
        async with visitor(server) as told:
            await told.say(start_message(steps=STEPS, seed=seed))
            await told.until("frame")
            if seed == 7:
                enough.set()
            await told.until("state", state="finished")
            await told.say({"type": "save"})
            return hashlib.sha256((await told.until("model"))["bytes"]).hexdigest()

    async def ninth(enough: asyncio.Event) -> str:
        await enough.wait()
        async with visitor(server) as told:
            await told.say(start_message())
            return str((await told.until("error"))["message"])

    async def all_of_them() -> list[str]:
        enough = asyncio.Event()
        return list(await asyncio.gather(*(one(seed, enough) for seed in range(8)), ninth(enough)))

    try:
        *found, refused = asyncio.run(all_of_them())
        wait_for(lambda: len(server.children()) <= 1)
    finally:
        server.stop()
    assert refused.startswith("8 trainings run already")
    for seed in range(8):
        alone = model_bytes(in_one_thread(start_message(steps=STEPS, seed=seed)))
        assert found[seed] == hashlib.sha256(alone).hexdigest()
    assert len(set(found)) == 8


# --------------------------------------------------------------------------------------------------------------- places


async def sleeping() -> Process:
    """Start a process that stands for one that trains, and does nothing."""
    return await asyncio.create_subprocess_exec("sleep", "60", stdin=PIPE, stdout=PIPE)


def test_a_place_is_given_back_however_early_a_visitor_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that starts anew and is cancelled after so many turns of the event loop, at any of the points between."""
    monkeypatch.setattr(sessions, "_spawn", sleeping)

    async def leave_after(turns: int, trainers: Trainers) -> None:
        session = Session(trainers, Machine())
        await session.start({"type": "start"})
        again = asyncio.create_task(session.start({"type": "start"}))
        for _ in range(turns):
            await asyncio.sleep(0)
        again.cancel()
        await asyncio.wait({again})
        await session.leave()
        assert trainers.taken == 0

    async def talk() -> None:
        trainers = Trainers(1)
        for turns in range(40):
            await leave_after(turns, trainers)
        await trainers.close()

    asyncio.run(talk())


def test_who_is_gone_is_counted_no_more() -> None:
    """Eight visitors read nothing, start anew again and again, and hang up; all 32 places are to be had after that."""
    server = Server()

    async def rude() -> None:
        async with server.connect() as connection:
            connection.transport.pause_reading()
            for _ in range(15):
                await Told(connection).say(start_message(steps=100_000, live={"count": 5000, "nfe": 1, "seed": 0}))
            connection.transport.abort()

    async def places() -> int:
        async with contextlib.AsyncExitStack() as stack:
            for count in range(40):
                told = Told(await stack.enter_async_context(server.connect()))
                try:
                    await told.say({"type": "stop"})
                    await told.hear()
                except websockets.exceptions.ConnectionClosed:
                    return count
        return 40

    async def talk() -> None:
        for _ in range(8):
            with contextlib.suppress(websockets.exceptions.ConnectionClosed, OSError):
                await rude()
        for _ in range(60):
            if await places() == 32:
                return
            await asyncio.sleep(1)
        raise AssertionError("a place is lost")

    try:
        asyncio.run(talk())
    finally:
        server.stop()


# -------------------------------------------------------------------------------------------------------- the very end

BROKEN = """
import sys, uvicorn
def shutdown(self, sockets=None):
    raise RuntimeError("of a connection in some state that was not expected")
uvicorn.Server.shutdown = shutdown
from pointdiffusion.cli.app import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_server_library_that_fails_at_the_end_leaves_nothing() -> None:
    """Trainings end, the exit code is that of Ctrl-C, and nobody reads a traceback."""
    server = Server(program=["-c", BROKEN])

    async def talk(told: Told) -> list[int]:
        await told.say(start_message(steps=100_000))
        await told.until("frame")
        running = server.children()
        server.process.send_signal(signal.SIGINT)
        await asyncio.to_thread(server.process.wait, 60)
        return running

    running: list[int] = []
    with contextlib.suppress(websockets.exceptions.ConnectionClosed, OSError):
        running = visit(server, talk)
    wait_for(lambda: all(map(gone, running)), 30)
    said = server.process.communicate()[1]
    assert running
    assert server.process.returncode == 130
    assert "Traceback" not in said


KEY = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
UPGRADES = [
    ("GET /ws HTTP/1.1", "Upgrade: websocket", ""),
    ("GET /ws HTTP/1.1", "Upgrade: websocket", f"Sec-WebSocket-Version: 12\r\n{KEY}"),
    ("POST /ws HTTP/1.1", "Upgrade: websocket", f"Sec-WebSocket-Version: 13\r\n{KEY}\r\nContent-Length: 5"),
    ("GET /ws HTTP/1.0", "Upgrade: websocket", f"Sec-WebSocket-Version: 13\r\n{KEY}"),
    ("GET /nowhere HTTP/1.1", "Upgrade: websocket", f"Sec-WebSocket-Version: 13\r\n{KEY}"),
    ("GET /ws HTTP/1.1", "Upgrade: h2c", ""),
]
"""Requests that become no WebSocket, each for another reason."""


def test_connections_in_any_state_do_not_disturb_the_end() -> None:
    """Upgrades that are refused, of several kinds, are still open when Ctrl-C comes."""
    server = Server()
    opened = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in UPGRADES]
    try:
        for connection, (request, upgrade, more) in zip(opened, UPGRADES, strict=True):
            head = [request, f"Host: 127.0.0.1:{server.port}", "Connection: Upgrade", upgrade, more]
            connection.sendall("\r\n".join([*filter(None, head), "", ""]).encode())
        assert server.ask()[0] == 200
        server.process.send_signal(signal.SIGINT)
        said = server.process.communicate(timeout=60)[1]
    finally:
        for connection in opened:
            connection.close()
        server.stop()
    assert server.process.returncode == 130
    assert "Traceback" not in said
