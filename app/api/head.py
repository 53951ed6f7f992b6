"""HEAD, as HTTP has it: what GET would answer, without the body, which the server leaves out."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

# In the scope of a request: nothing but its headers goes out.
IS_HEAD = "autoloader.is_head"


class HeadAsGet:
    """Asks for what GET would answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            # A copy: the server goes by its own, and sends no body.
            scope = {**scope, "method": "GET", IS_HEAD: True}
        await self._app(scope, receive, send)
