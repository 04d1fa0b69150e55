"""A visitor's training: the process that does it, what it tells, and what of that still waits to be sent.

The server always reads what a process tells, so that training never waits for a slow browser, and keeps of each kind of
message the latest alone: memory does not grow with what a browser leaves unread.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pointdiffusion.model.diffusion_model import DiffusionModel, load
from pointdiffusion.web.limits import LIMITS
from pointdiffusion.web.protocol import HEAD, KEPT, MODEL, TEXT, to_json
from pointdiffusion.web.turns import Machine, Walker
from pointdiffusion.web.walks import WalkRequest

MOST_LOSSES = 20_000
"""Losses that wait for a browser; of more, every second one is kept."""

LONGEST = 2**28
"""Bytes of a message of a process, at most."""


class Outbox:
    """What waits to be sent to a page: of each kind the latest, and all losses."""

    def __init__(self) -> None:
        self._waiting: dict[str, str | bytes] = {}
        self._losses: tuple[list[int], list[float]] = ([], [])
        self._changed = asyncio.Event()

    def put(self, kind: str, message: str | bytes) -> None:
        """Add a message in place of the one of its kind that still waits, at the end."""
        self._waiting.pop(kind, None)
        self._waiting[kind] = message
        self._changed.set()

    def tell(self, **message: Any) -> None:
        """Add a message as JSON."""
        self.put(message["type"], to_json(message))

    def add_losses(self, steps: list[int], losses: list[float]) -> None:
        """Add losses to those that still wait."""
        both = self._losses
        both[0].extend(steps)
        both[1].extend(losses)
        if len(both[0]) > MOST_LOSSES:
            self._losses = both[0][::2], both[1][::2]
        self._changed.set()

    def forget(self) -> None:
        """Drop what waits of an earlier training."""
        self._waiting.clear()
        self._losses = [], []

    async def take(self) -> list[str | bytes]:
        """Wait for something to send, and return all of it."""
        await self._changed.wait()
        self._changed.clear()
        (steps, losses), self._losses = self._losses, ([], [])
        waiting, self._waiting = self._waiting, {}
        found = [] if not steps else [to_json({"type": "losses", "steps": steps, "train": losses})]
        return [*waiting.values(), *found]  # that a training has started is told before its losses


class Trainers:
    """Processes that train: so many at once at most, and one that waits ready, since a process takes seconds to start.

    Args:
        most: How many may train at once.
    """

    def __init__(self, most: int = LIMITS["sessions"]) -> None:
        self.most, self.taken = most, 0
        self._spare: Process | None = None
        self._closed = False
        self._starting = asyncio.Lock()

    async def prepare(self) -> None:
        """Have a process ready."""
        async with self._starting:
            if not self._closed and (self._spare is None or self._spare.returncode is not None):
                with contextlib.suppress(OSError):
                    self._spare = await _spawn()

    async def take(self) -> Process:
        """Return a process that waits for its request.

        Raises:
            ValueError: If as many as may be train already, or no process can be started.
        """
        if self.taken >= self.most:
            raise ValueError(f"{self.most} trainings run already; wait until one ends, or stop one")
        self.taken += 1
        try:
            async with self._starting:
                spare, self._spare = self._spare, None
            return spare if spare is not None and spare.returncode is None else await _spawn()
        except BaseException as error:
            self.taken -= 1
            if not isinstance(error, OSError):
                raise  # the visitor left meanwhile
            raise ValueError(f"no process can be started ({error.strerror}); stop something and try again") from error

    async def leave(self, process: Process) -> None:
        """Count a process as ended, and have another ready in its place."""
        self.taken -= 1
        await _end(process)
        await self.prepare()

    async def close(self) -> None:
        """End the process that waits, and start no other."""
        async with self._starting:
            self._closed = True
            spare, self._spare = self._spare, None
        if spare is not None:
            await _end(spare)


def model_from(content: bytes) -> DiffusionModel:
    """Return the model in the bytes of its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        path.write_bytes(content)
        return load(path)


async def _spawn() -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pointdiffusion.web.trainer", stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "GOMP_SPINCOUNT": "5000"},
    )  # fmt: skip


async def _end(process: Process) -> int:
    """End a process, and return its status once it is gone."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    return await process.wait()


class Session:
    """One visitor: at most one training at a time, and the last model.

    Args:
        trainers: Shared by all visitors.
        machine: Shared by all visitors.
        given: The model that the server began with.
    """

    def __init__(self, trainers: Trainers, machine: Machine, given: DiffusionModel | None = None) -> None:
        self.trainers, self.given, self.outbox = trainers, given, Outbox()
        self._walker = Walker(machine, lambda request: self._own_model() if request.trained else given, self._walked)
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._model: bytes | None = None
        self._loaded: tuple[bytes, DiffusionModel] | None = None
        self._step, self._ended = 0, True

    async def start(self, message: Mapping[str, Any]) -> None:
        """Train as a checked message asks, in place of what was trained before.

        Raises:
            ValueError: If as many as may be train already.
        """
        await self.end()
        self._process = await self.trainers.take()
        self.outbox.forget()
        self._model, self._step, self._ended = None, 0, False
        self.outbox.tell(type="state", state="starting", step=0)
        self._reader = asyncio.create_task(self._read(self._process))
        await self._command(message)

    def walk(self, request: WalkRequest) -> None:
        """Walk with the last model of this session, or with the one that the server began with, while others talk.

        What cannot be done is told by the number of the walk; the page then walks itself.
        """
        self._walker.ask(request)

    def _walked(self, request: WalkRequest, found: bytes | str) -> None:
        if isinstance(found, bytes):
            self.outbox.put(f"walk {request.panel}", found)
        else:
            self.refuse({"type": "walk", "id": request.number, "panel": request.panel}, found)

    def refuse(self, message: Mapping[str, Any], sentence: str) -> None:
        """Tell why what was asked for is not done; of a walk by its number, so that the page walks itself."""
        if message.get("type") != "walk":
            self.outbox.tell(type="error", message=sentence)
            return
        number, panel = message.get("id"), message.get("panel")
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**32:
            number = None  # what is no number of a walk is not repeated
        self.outbox.put(f"walk {panel == 1:d}", to_json({"type": "refused", "id": number, "message": sentence}))

    def _own_model(self) -> DiffusionModel | None:
        """Return the last model that was trained here, read once."""
        kept = self._model
        if kept is None:
            return None
        if self._loaded is None or self._loaded[0] is not kept:
            self._loaded = kept, model_from(kept[8:])
        return self._loaded[1]

    async def command(self, message: Mapping[str, Any]) -> None:
        """Pause, go on, take a step, stop, or ask for the model.

        Raises:
            ValueError: If there is nothing to do that with.
        """
        if not self._ended:
            await self._command({"type": message["type"]})
        elif message["type"] == "save" and self._model is not None:
            self.outbox.put("model", self._model)
        else:
            raise ValueError("nothing is being trained; start a training first")

    async def end(self) -> None:
        """End the training, if one goes on, and wait until its process is gone."""
        process, reader = self._process, self._reader
        if process is None or reader is None:
            return
        self._ended = True
        await _end(process)
        await asyncio.wait({reader})  # not awaited itself: whoever is cancelled while awaiting a task cancels the task
        self._process = self._reader = None

    async def leave(self) -> None:
        """End everything: nobody listens any more."""
        await self._walker.leave()
        await self.end()

    async def _command(self, message: Mapping[str, Any]) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its end is told by the reader
            process.stdin.write(to_json(message).encode() + b"\n")
            await process.stdin.drain()

    async def _read(self, process: Process) -> None:
        """Pass on what the process tells, until it ends, and give its place back whatever happens."""
        assert process.stdout is not None  # noqa: S101 (it was made with a pipe)
        try:
            with contextlib.suppress(Exception):  # its end, and whatever is no message
                while True:
                    length, kind = HEAD.unpack(await process.stdout.readexactly(HEAD.size))
                    if length > LONGEST:
                        break
                    self._hear(kind, await process.stdout.readexactly(length))
            try:
                async with asyncio.timeout(5):
                    code = await process.wait()  # not killed at once: to signal one that has ended takes its status
            except TimeoutError:
                code = await _end(process)
            self._died(code)
        finally:
            await self.trainers.leave(process)

    def _died(self, code: int) -> None:
        """Tell the page that a training has ended, unless it was ended."""
        if self._ended:
            return
        self._ended = True
        reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
        self.outbox.tell(
            type="error",
            message=f"the training process died ({reason}); the samples so far stay, start again to train anew",
        )
        self.outbox.tell(type="state", state="died", step=self._step)

    def _hear(self, kind: int, payload: bytes) -> None:
        if kind == KEPT:
            self._model = payload
            return
        if kind != TEXT:
            self._step = int.from_bytes(payload[4:8], "little")
            self.outbox.put("model" if payload[0] == MODEL else "frame", payload)
            return
        message = json.loads(payload)
        if message["type"] == "losses":
            self.outbox.add_losses(message["steps"], message["train"])
            return
        if message["type"] == "state":
            self._ended = message["state"] in ("stopped", "finished")
        self.outbox.put(message["type"], payload.decode())
