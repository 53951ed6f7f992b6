"""A start that cannot be made says why in one line, and what to do."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.domain.errors import AutoloaderError
from app.domain.events import EventLog

log = EventLog(__name__)
_FAILED = "lifespan.startup.failed"


class PlainStart:
    """Logs the error that ends a start. The server is told that it failed, and no traceback, which it would print."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything but a start on."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        held: list[Message] = []

        async def noted(message: Message) -> None:
            if message["type"] == _FAILED:
                held.append(message)
            else:
                await send(message)

        try:
            await self._app(scope, receive, noted)
        except BaseException as error:
            if not held:
                raise
            if not isinstance(error, AutoloaderError):
                await send(held[0])
                raise
            log.error("start_failed", code=error.code, reason=str(error))  # noqa: TRY400 - it says what to do
            await send({"type": _FAILED})
