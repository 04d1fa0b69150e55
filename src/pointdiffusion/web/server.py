"""The page with PyTorch behind it: one page, two routes, one WebSocket.

Nothing here takes a path, and nothing asks another host for anything. Whoever sends a wrong `Host` or `Origin` gets no
answer, since a page of somebody else in the same browser is no visitor of ours; on an address that others can reach,
every request needs the token as well. What exceeds a limit is refused with a sentence, and the server goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, HTTPException, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from pointdiffusion.model import DiffusionModel
from pointdiffusion.version import __version__
from pointdiffusion.web.export import filled_page
from pointdiffusion.web.limits import LIMITS
from pointdiffusion.web.protocol import parse, start_of
from pointdiffusion.web.registry import registry
from pointdiffusion.web.sessions import Session, Trainers
from pointdiffusion.web.uploads import KINDS, TooLargeError, preview_bytes
from pointdiffusion.web.walks import walk_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

SLOWEST_UPLOAD = 60.0
"""Seconds in which an upload must be done."""
SLOWEST_READER = 30.0
"""Seconds in which a browser must take a message."""
HEADERS = {
    "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}  # fmt: skip


@dataclass
class Served:
    """What a server shows, and who may see it.

    Args:
        hosts: What the `Host` of a request may be, as `127.0.0.1:8765`; None for anything, where the token keeps out
            whoever came by another name.
        token: What every request must bring as `?token=`; None where nobody else can reach the server.
        table: A table to begin with, as `uploads.preview` returns it.
        run: A run to begin with, as an export holds one.
        model: The model of that run.
        most: How many may train at once.
    """

    hosts: frozenset[str] | None
    token: str | None = None
    table: Mapping[str, Any] | None = None
    run: Mapping[str, Any] | None = None
    model: DiffusionModel | None = None
    most: int = LIMITS["sessions"]


class Guard:
    """Lets through what comes from the page itself, and answers the rest with one sentence."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], served: Served) -> None:
        self.app, self.served = app, served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refused = self._refusal(scope)
        if refused is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refused[1]})  # before the handshake: 403
        else:
            await JSONResponse({"detail": refused[1]}, refused[0], HEADERS)(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        found: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts, origins = found.get("host", []), found.get("origin", [])
        known = self.served.hosts
        if len(hosts) != 1 or (known is not None and hosts[0].lower() not in known):
            return 400, "this server answers to the address alone that it printed when it started"
        if origins and origins != [f"http://{hosts[0]}"] and origins != [f"http://{hosts[0].lower()}"]:
            return 403, "requests of other pages are not answered"
        if self.served.token is not None:
            given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[-1]
            if not hmac.compare_digest(given.encode(), self.served.token.encode()):
                return 401, "open the whole link that was printed when the server started: the token in it is missing"
        return None


class Rate:
    """So many messages a second, and as many at once."""

    def __init__(self, most: float) -> None:
        self.most, self.left, self.seen = most, most, time.monotonic()

    def allows(self) -> bool:
        """Count a message, and return whether it is not one too many."""
        now = time.monotonic()
        self.left = min(self.most, self.left + (now - self.seen) * self.most)
        self.seen = now
        self.left -= 1
        return self.left >= 0


def make_app(served: Served) -> FastAPI:
    """Return the server of a page."""
    sessions: set[Session] = set()
    trainers = Trainers(served.most)

    @contextlib.asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        preparing = asyncio.create_task(trainers.prepare())
        yield
        await preparing
        await asyncio.gather(trainers.close(), *(session.end() for session in list(sessions)))

    app = FastAPI(
        title="pointdiffusion playground", version=__version__, docs_url=None, redoc_url=None,
        openapi_url="/api/openapi.json", lifespan=life,
    )  # fmt: skip
    known, uploads = registry(), asyncio.Semaphore(4)
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
            async with uploads:
                found = await run_in_threadpool(preview_bytes, await _content(request), kind)
        except TooLargeError as error:
            raise HTTPException(413, str(error)) from error
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        return JSONResponse(found, headers=HEADERS)

    @app.websocket("/ws")
    async def talk(socket: WebSocket) -> None:
        """Train for one visitor."""
        if len(sessions) >= LIMITS["connections"]:
            await socket.close(1013, "too many pages are open")
            return
        await socket.accept()
        session = Session(trainers)
        sessions.add(session)
        both = {asyncio.create_task(_send(socket, session)), asyncio.create_task(_receive(socket, session, served))}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            await session.leave()
            sessions.discard(session)

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


async def _content(request: Request) -> bytes:
    """Return the body of a request, read no further than is allowed."""
    content = bytearray()
    try:
        async with asyncio.timeout(SLOWEST_UPLOAD):
            async for piece in request.stream():
                content += piece
                if len(content) > LIMITS["upload_bytes"]:
                    raise HTTPException(413, "the file is larger than 20 MB; hand in fewer rows")
    except TimeoutError as error:
        raise HTTPException(408, "the upload took longer than a minute; try again") from error
    return bytes(content)


async def _send(socket: WebSocket, session: Session) -> None:
    """Send what a session has to tell, at the browser's pace."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
        while True:
            for message in await session.outbox.take():
                async with asyncio.timeout(SLOWEST_READER):
                    await (socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message))


async def _receive(socket: WebSocket, session: Session, served: Served) -> None:
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
            match message["type"]:
                case "walk":
                    session.walk(await run_in_threadpool(walk_of, message), served.model)
                case "start":
                    await run_in_threadpool(start_of, message)  # checked here, where a wrong one starts no process
                    await session.start(message)
                case _:
                    await session.command(message)
        except ValueError as error:
            session.refuse(message, str(error))
