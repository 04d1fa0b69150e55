"""How the page is served: no packed messages, no silent connections, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from pointdiffusion.web.limits import LIMITS

SILENCE = 15.0
"""Seconds in which a connection must have asked for something."""


class ImpatientProtocol(H11Protocol):
    """HTTP that closes a connection on which no request arrives, or none comes to its end."""

    def connection_made(self, transport: Any) -> None:
        """Begin to count."""
        super().connection_made(transport)
        self.loop.call_later(SILENCE, self._look, None)

    def _look(self, before: object) -> None:
        """Close the connection if it has asked for nothing since the last look; uploads have a time of their own."""
        if self not in self.connections:
            return  # closed, or a WebSocket by now
        busy = self.cycle is not None and not self.cycle.response_complete
        if not busy and self.cycle is before:
            self.transport.close()
            return
        self.loop.call_later(SILENCE, self._look, self.cycle)


class PlayServer(uvicorn.Server):
    """A server whose trainings end and whose exit code is right, whatever it raises at its end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all connections, and then all that the application has begun."""
        try:
            await super().shutdown(sockets)
        except Exception:
            with contextlib.suppress(asyncio.CancelledError):
                await self.lifespan.shutdown()


def server_of(app: FastAPI) -> PlayServer:
    """Return what serves an application."""
    return PlayServer(uvicorn.Config(
        app, log_level="warning", http=ImpatientProtocol, ws_max_size=LIMITS["message_bytes"], ws_max_queue=8,
        ws_per_message_deflate=False, server_header=False, date_header=False, timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=2**16,
    ))  # fmt: skip
