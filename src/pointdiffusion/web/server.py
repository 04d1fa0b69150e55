"""The page with PyTorch behind it: one page, two routes, one WebSocket.

Nothing here takes a path, and nothing asks another host for anything. What exceeds a limit is refused with a sentence,
whatever is asked is answered, and the server goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from pointdiffusion.version import __version__
from pointdiffusion.web.export import filled_page
from pointdiffusion.web.guard import HEADERS, Guard, Rate, Served
from pointdiffusion.web.limits import LIMITS
from pointdiffusion.web.protocol import parse, start_of
from pointdiffusion.web.registry import registry
from pointdiffusion.web.sessions import Session, Trainers
from pointdiffusion.web.turns import Machine
from pointdiffusion.web.uploads import KINDS, TooLargeError, preview_bytes
from pointdiffusion.web.walks import walk_of

SLOWEST_UPLOAD = 60.0
"""Seconds in which an upload must be done."""
LONGEST_PAUSE = 15.0
"""Seconds in which something of an upload must arrive."""
SLOWEST_READER = 30.0
"""Seconds in which a browser must take a message."""


def make_app(served: Served) -> FastAPI:
    """Return the server of a page."""
    sessions: dict[Session, asyncio.Task[None] | None] = {}
    trainers, machine = Trainers(served.most), Machine()

    async def leave(session: Session) -> None:
        """End what a visitor began; one that is gone is counted no more, whatever that raises."""
        try:
            await session.leave()
        finally:
            sessions.pop(session, None)

    def leaving(session: Session) -> asyncio.Task[None]:
        """Return the task that ends a session: one of its own, since that of a visitor may be cancelled at any time."""
        task = sessions.get(session)
        if task is None:
            task = sessions[session] = asyncio.create_task(leave(session))
        return task

    @contextlib.asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        preparing = asyncio.create_task(trainers.prepare())
        try:
            yield
        finally:
            await asyncio.wait({preparing, asyncio.create_task(trainers.close()), *map(leaving, list(sessions))})
            machine.close()

    app = FastAPI(
        title="pointdiffusion playground", version=__version__, docs_url=None, redoc_url=None,
        openapi_url="/api/openapi.json", lifespan=life,
    )  # fmt: skip
    known, uploads = registry(), Uploads()
    html, policy = _page(served, known)

    @app.get("/", response_class=HTMLResponse, summary="The page")
    async def page() -> HTMLResponse:
        """Return the page."""
        return HTMLResponse(html, headers={**HEADERS, "Content-Security-Policy": policy})

    @app.get("/api/registry", summary="Solvers, schedules, point sets, settings of training")
    async def show_registry() -> JSONResponse:
        """Return what the page knows of the library."""
        return JSONResponse(known, headers=HEADERS)

    body = {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
    refusals = {
        408: "The upload took too long.", 413: "The table is too large.", 422: "The file is no table of that kind.",
        503: "Too much is uploaded at once.",
    }  # fmt: skip

    @app.post(
        "/api/table", summary="Read a table", openapi_extra={"requestBody": body},
        responses={code: {"description": text} for code, text in refusals.items()},
    )  # fmt: skip
    async def table(request: Request, kind: str) -> JSONResponse:
        """Return columns and rows of a file that is handed in."""
        if kind not in KINDS:
            raise HTTPException(422, f"kind must be one of {', '.join(KINDS)}")
        try:
            async with uploads.content(request) as content, uploads.reading:
                found = await run_in_threadpool(preview_bytes, content, kind)
        except TooLargeError as error:
            raise HTTPException(413, str(error)) from error
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        return JSONResponse(found, headers=HEADERS)

    @app.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        """Train for one visitor."""
        await socket.accept()  # before anything is refused: of a handshake that fails, no page sees why
        if len(sessions) >= LIMITS["connections"]:
            await socket.close(1013, "too many pages are open; close one of them, and reload this one")
            return
        session = Session(trainers, machine, served.model)
        sessions[session] = None
        both = {asyncio.create_task(_send(socket, session)), asyncio.create_task(_receive(socket, session))}
        with contextlib.suppress(asyncio.CancelledError):  # by the end of the server, which comes right after
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in both:
                    task.cancel()
                await asyncio.wait({*both, leaving(session)})
                for task in both:
                    _ = task.cancelled() or task.exception()  # looked at, so that nobody complains of it later

    app.add_middleware(Guard, served=served)
    return app


def _page(served: Served, known: Mapping[str, Any]) -> tuple[str, str]:
    """Return the page as it is served, and its policy: it may talk to this server, and to nobody else."""
    server = {"token": served.token, "limits": LIMITS, "table": served.table}
    blocks: dict[str, Any] = {"server": server, "registry": known}
    if served.run is not None:
        blocks["run"] = {"run": served.run, "state": None}
    html = filled_page(blocks).replace("connect-src 'none'", "connect-src 'self'", 1)
    policy = html.partition('<meta http-equiv="Content-Security-Policy" content="')[2].partition('"')[0]
    return html, f"{policy}; frame-ancestors 'none'"


class Uploads:
    """What is being uploaded: received by all at once, and read by two at a time."""

    def __init__(self) -> None:
        self.reading = asyncio.Semaphore(2)
        self._bytes = 0

    @contextlib.asynccontextmanager
    async def content(self, request: Request) -> AsyncIterator[bytes]:
        """Return the body of a request, received no further than is allowed, and counted until it is done with."""
        content = bytearray()
        loop = asyncio.get_running_loop()
        end = loop.time() + SLOWEST_UPLOAD
        try:
            try:
                async with asyncio.timeout(LONGEST_PAUSE) as limit:
                    async for piece in request.stream():
                        limit.reschedule(min(end, loop.time() + LONGEST_PAUSE))
                        content += piece
                        self._bytes += len(piece)
                        self._check(len(content))
            except TimeoutError as error:
                raise HTTPException(408, "the upload took too long, or stood still; try again") from error
            except ClientDisconnect as error:
                raise HTTPException(400, "the upload was broken off") from error
            yield bytes(content)
        finally:
            self._bytes -= len(content)

    def _check(self, own: int) -> None:
        if own > LIMITS["upload_bytes"]:
            raise HTTPException(413, "the file is larger than 20 MB; hand in fewer rows")
        if self._bytes > LIMITS["uploads_bytes"]:
            raise HTTPException(503, "too much is uploaded at once; try again in a minute")


async def _send(socket: WebSocket, session: Session) -> None:
    """Send what a session has to tell, at the browser's pace."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
        while True:
            for message in await session.outbox.take():
                async with asyncio.timeout(SLOWEST_READER):
                    await (socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message))


async def _receive(socket: WebSocket, session: Session) -> None:
    """Do what the page asks, until it goes."""
    rate = Rate(LIMITS["messages_a_second"])
    while True:
        event = await socket.receive()
        if event["type"] == "websocket.disconnect":
            return
        message: Mapping[str, Any] = {}
        allowed = rate.allows()
        if rate.left < -10 * rate.most:
            await socket.close(1008, "too many messages")
            return
        try:
            if event.get("text") is None:
                raise ValueError("messages are texts")
            message = parse(event["text"])
            if not allowed:
                raise ValueError("that were too many messages at once; wait a second")
            await _obey(session, message)
        except ValueError as error:
            session.refuse(message, str(error))
        except Exception as error:
            session.refuse(message, f"that cannot be done ({type(error).__name__})")


async def _obey(session: Session, message: Mapping[str, Any]) -> None:
    """Do what a message asks.

    Raises:
        ValueError: If that cannot be done.
    """
    match message["type"]:
        case "walk":
            session.walk(await run_in_threadpool(walk_of, message))
        case "start":
            await run_in_threadpool(start_of, message)  # checked here, where a wrong one starts no process
            await session.start(message)
        case _:
            await session.command(message)
