"""The outermost frame of a request: what nobody expected is logged, and answered as a problem."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import internal
from app.domain.events import EventLog

log = EventLog(__name__)


class LastResort:
    """Answers 500. The error goes no further: the server would log it without hiding what is secret."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException:
            # A panic in a library's native code is no `Exception`.
            log.exception("request_failed", method=scope["method"], path=scope["path"])
            if begun:
                raise
            await internal()(scope, receive, send)
