"""Who is let in: what comes from the page itself, by the address and with the token that were printed.

Whoever sends a wrong `Host` or `Origin` gets no answer, since a page of somebody else in the same browser is no visitor
of ours; on an address that others can reach, every request needs the token as well.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from fastapi.responses import JSONResponse

from pointdiffusion.model.diffusion_model import DiffusionModel
from pointdiffusion.web.limits import LIMITS

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

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
            await send({"type": "websocket.accept"})  # of a handshake that fails, no page sees why
            await send({"type": "websocket.close", "code": 1008, "reason": refused[1]})
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
