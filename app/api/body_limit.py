"""Bodies that are larger than a request ever is are refused before they are read."""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import CODES_OF_HTTP, answer, problem

MAX_BODY_BYTES = 1024 * 1024


class _TooLargeError(Exception):
    """More came than is taken."""


class BodyLimit:
    """Reads no more of a body than `limit_bytes`; what the server still receives of it is dropped, not kept."""

    def __init__(self, app: ASGIApp, limit_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on with its body held, or answer 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _declared(Headers(scope=scope)) > self._limit:
            await self._refuse(scope, receive, send)
            return
        try:
            body = await self._read(receive)
        except _TooLargeError:
            await self._refuse(scope, receive, send)
            return
        # A client that went away amid its body gets nothing done: what came of it may look whole, and is not.
        if body is not None:
            await self._app(scope, _replayed(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The body; None where its client went away before the end."""
        parts: list[bytes] = []
        held = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            held += len(parts[-1])
            if held > self._limit:
                raise _TooLargeError
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        detail = f"{CODES_OF_HTTP['body_too_large']} At most {self._limit:,} bytes are taken."
        await answer(problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", detail))(scope, receive, send)


def _declared(headers: Headers) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isdecimal() else 0


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A channel that gives the body once, and then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
