"""Ends a connection whose client takes nothing: what is still to be sent to it would hold a server up that ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

_ABORT = "autoloader.abort"


class Application(FastAPI):
    """An application whose responses can abort their connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; the server's own channel is only seen here, before anything wraps it."""
        scope[_ABORT] = _abort_of(send)
        await super().__call__(scope, receive, send)


def abort(scope: Scope) -> None:
    """End the connection of that request at once. What was not sent is lost."""
    cast("Callable[[], None]", scope.get(_ABORT, _nothing))()


def _abort_of(send: Send) -> Callable[[], None]:
    # ASGI has no word for it. A server that is built otherwise closes the connection when the application returns.
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    found = getattr(transport, "abort", None)
    return found if callable(found) else _nothing


def _nothing() -> None:
    """There is no way to it."""
