"""Around every request: its id, its log line, its metrics, and what is common to all responses."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .logs import log_event
from .refusals import FAULT, RequestError, error_response
from .uploads import ClientGoneError
from .work import Front, RequestNote

REQUEST_ID = "X-Request-Id"
_SANE = re.compile(r"[A-Za-z0-9._:-]{1,100}")
# Status of a request whose client hung up, for logs and metrics: nobody reads it.
GONE = 499
# Seconds in which the rest of a body may still come that nobody reads: a connection that is cut takes the
# response with it.
LINGER = 5.0


class Recording:
    """The outermost part of the application.

    Args:
        app: what answers.
        front: the service as routes see it.
    """

    def __init__(self, app: ASGIApp, front: Front) -> None:
        self._app, self._front = app, front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        note = RequestNote(given if _SANE.fullmatch(given) else secrets.token_hex(8))
        method = scope["method"]
        # Answered as GET, in a scope of its own: the server takes the body off, by the one that it has.
        scope = {**scope, "matmamba.note": note, "method": "GET" if method == "HEAD" else method}
        # Whether a proxy took it off the path or not: routes are found below it either way.
        scope["root_path"] = self._front.options.root_path
        exchange = _Exchange(scope, receive, send, self._front, note)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientGoneError:
            exchange.status = GONE
        except Exception as error:
            log_event("fault", level=logging.ERROR, error=error, request_id=note.request_id)
            if not exchange.status:
                response = error_response(RequestError("internal", FAULT), note.request_id)
                await response(scope, exchange.receive, exchange.send)
        finally:
            self._record(scope, method, note, exchange.status or GONE)

    def _record(self, scope: Scope, method: str, note: RequestNote, status: int) -> None:
        seconds = time.monotonic() - note.arrived
        route = getattr(scope.get("route"), "path", "") or "none"
        labels = {"route": route, "width": note.width, "strategy": note.strategy, "status": str(status)}
        self._front.metrics.responded(labels, seconds)
        known = {"gallery": note.gallery, "width": note.width, "strategy": note.strategy}
        client = scope.get("client")
        line: dict[str, Any] = {
            "request_id": note.request_id,
            "client": client[0] if client else "",
            "method": method,
            "route": route,
            "status": status,
            "ms": round(1e3 * seconds, 2),
            **{name: value for name, value in known.items() if value},
            **note.more,
        }
        log_event("request", **line)


class _Exchange:
    """A request and its response as they pass.

    Attributes:
        status: of the response, 0 before it has begun.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, front: Front, note: RequestNote) -> None:
        self.status = 0
        self._receive, self._send, self._front, self._note = receive, send, front, note
        headers = Headers(scope=scope)
        # Without either of these there is no body.
        self._whole = "content-length" not in headers and "transfer-encoding" not in headers
        self._asks_first, self._begun = "expect" in headers, False

    async def receive(self) -> Message:
        """The next message, seen as it passes."""
        self._begun = True
        message = await self._receive()
        self._whole = self._whole or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send a message, with what is common to all responses."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            await self._finish(MutableHeaders(scope=message))
        await self._send(message)

    async def _finish(self, headers: MutableHeaders) -> None:
        headers[REQUEST_ID] = self._note.request_id
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        shared = "cross-origin" if self._front.options.cors else "same-origin"
        headers["Cross-Origin-Resource-Policy"] = shared
        headers.setdefault("Cache-Control", "no-store")
        if not self._whole:
            # What still comes of this request would be taken for the next one, or never end.
            headers["Connection"] = "close"
            if self.status != 408 and (self._begun or not self._asks_first):
                await self._linger()

    async def _linger(self) -> None:
        """Let a little more come, and throw it away."""
        seen, most = 0, self._front.options.max_bytes
        with suppress(TimeoutError):
            async with asyncio.timeout(min(LINGER, self._front.options.idle_s)):
                while not self._whole and seen < most:
                    message: Any = await self.receive()
                    seen += len(message.get("body", b""))
