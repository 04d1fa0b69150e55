"""A server of the playground in a process of its own, and visitors who talk with it, for tests of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from websockets.asyncio.client import ClientConnection, connect

import pointdiffusion as ptd
from pointdiffusion.web.protocol import MODEL, POINTS, start_of
from pointdiffusion.web.trainer import fit_start

FRAME_HEAD = 16


class Server:
    """A server in a process of its own, as a person starts it."""

    def __init__(self, *arguments: str, program: Sequence[str] = ("-m", "pointdiffusion")) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, *program, "play", "--no-browser", "--port", str(self.port), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise TimeoutError("the server does not listen")

    def ask(
        self, path: str = "/", method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def sentence(self, *arguments: Any, **headers: str) -> tuple[int, str]:
        status, body, _ = self.ask(*arguments, **headers)
        return status, json.loads(body)["detail"]

    def connect(self, **settings: Any) -> Any:
        return connect(f"ws://127.0.0.1:{self.port}/ws", max_size=2**27, open_timeout=60, **settings)

    def children(self) -> list[int]:
        """Processes that train, zombies among them."""
        return children_of(self.process.pid)

    def memory(self) -> int:
        """Bytes that the server has in memory."""
        return memory_of(self.process.pid)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=30)
        return self.process.returncode


def memory_of(process: int) -> int:
    """Bytes that a process has in memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(entry.parent.name))
    return found


def gone(process: int) -> bool:
    """Whether a process is there no more; a zombie whose parent has not asked for it is."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def start_message(steps: int = 40, seed: int = 1, count: int = 60, **more: Any) -> dict[str, Any]:
    points = ptd.DATASETS["moons"](count, random_state=0).astype("<f4")
    data = {"points": base64.b64encode(points.tobytes()).decode(), "dims": 2, **more.pop("data", {})}
    settings = {"steps": steps, "hidden_dim": 16, "num_layers": 1, **more.pop("settings", {})}
    live = {"count": 50, "nfe": 4, "seed": 1}
    return {"type": "start", "seed": seed, "data": data, "settings": settings, "live": live, **more}


class Told:
    """All that a session was told so far."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.texts: list[dict[str, Any]] = []
        self.frames: list[bytes] = []
        self.models: list[bytes] = []

    async def say(self, message: dict[str, Any] | str) -> None:
        await self.connection.send(message if isinstance(message, str) else json.dumps(message))

    async def hear(self) -> dict[str, Any] | bytes:
        message = await asyncio.wait_for(self.connection.recv(), 120)
        if isinstance(message, bytes):
            (self.frames if message[0] == POINTS else self.models).append(message)
            return message
        self.texts.append(json.loads(message))
        found: dict[str, Any] = self.texts[-1]
        return found

    async def until(self, kind: str, **values: Any) -> dict[str, Any]:
        while True:
            message = await self.hear()
            if isinstance(message, bytes):
                if kind == "frame" and message[0] == POINTS:
                    return {"step": step_of(message)}
                if kind == "model" and message[0] == MODEL:
                    return {"bytes": message[8:]}
            elif message["type"] == kind and all(message.get(name) == value for name, value in values.items()):
                return message


def step_of(frame: bytes) -> int:
    return int(struct.unpack_from("<I", frame, 4)[0])


def points_of(frame: bytes) -> Any:
    kind, version, dims, _, count, drawn = struct.unpack_from("<BBHIII", frame)
    assert (kind, version) == (POINTS, 1)
    assert (time.time() * 1000 - drawn) % 2**32 < 600_000
    low, high = np.frombuffer(frame, "<f4", 2 * dims, FRAME_HEAD).reshape(2, dims)
    values = np.frombuffer(frame, "<u2", count * dims, FRAME_HEAD + 8 * dims).reshape(count, dims)
    return low + (high - low) * (values / 65535)


@contextlib.asynccontextmanager
async def visitor(server: Server) -> AsyncIterator[Told]:
    async with server.connect() as connection:
        yield Told(connection)


def visit(server: Server, talk: Callable[[Told], Any]) -> Any:
    """Talk with the server over one WebSocket."""

    async def whole() -> Any:
        async with visitor(server) as told:
            return await talk(told)

    return asyncio.run(whole())


def walk_message(solver: str = "heun", **more: Any) -> dict[str, Any]:
    x = np.random.default_rng(0).normal(size=(40, 2)).astype("<f4") * 10
    sigmas = ptd.KarrasSchedule(0.01, 10.0).sigmas(8).tolist()
    return {"type": "walk", "id": 5, "panel": 0, "x": base64.b64encode(x.tobytes()).decode(), "dims": 2,
            "network": "trained", "solver": solver, "sigmas": sigmas, "label": -1, "guidance": 1, "seed": 3,
            **more}  # fmt: skip


def trainers(server: Server) -> list[int]:
    return [child for child in server.children() if not gone(child)]


def cpu_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_one_thread(message: dict[str, Any]) -> ptd.DiffusionModel:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return fit_start(start_of(message), [])
    finally:
        torch.set_num_threads(threads)
