"""Server-sent events: the answer that goes on while there is something to tell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.connections import abort
from app.api.head import IS_HEAD
from app.domain.errors import AutoloaderError
from app.domain.events import EventLog
from app.services.event_feed import Beat, EventReader, Reset, Told

log = EventLog(__name__)

MEDIA_TYPE = "text/event-stream"
# Milliseconds after which a client comes back that was cut off.
RETRY_MS = 2_000
# A client that takes nothing of what is sent to it for so long is sent away.
STUCK_S = 15.0
# So often it is asked whether whoever reads still may: tokens are revoked, and first ones are made.
RECHECK_S = 5.0
# After so long a stream ends; clients come back by themselves.
LONGEST_S = 3_600.0
# When the process ends, a client has so long to take what is on its way.
FAREWELL_S = 1.0
_HEADERS = {
    "Cache-Control": "no-store",
    # Proxies that collect what they pass on would hold events back.
    "X-Accel-Buffering": "no",
}


class EventStream(Response):
    """Sends a reader's events until one of the two goes away."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        reader: EventReader,
        still_may: Callable[[], Awaitable[bool]],
        *,
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Send what `reader` is told, and close it at the end.

        Args:
            reader: Of the events.
            still_may: Tells whether whoever reads would be let in now.
            limit: After so many events it ends; None: after any number.
            timeout_s: After so long it ends; 0: as soon as there is nothing more to send.
        """
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._reader = reader
        self._still_may = still_may
        self._left = limit
        self._timeout_s = LONGEST_S if timeout_s is None else min(timeout_s, LONGEST_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send; where nobody wants a body, there is nothing to wait for."""
        if scope.get(IS_HEAD):
            self._timeout_s, self._left = 0.0, 0
        sending = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(_until_gone(receive))
        ending = asyncio.create_task(self._reader.closed.wait())
        watching = asyncio.create_task(self._until_refused())
        try:
            await asyncio.wait({sending, gone, ending, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and not sending.done():
                # He hears nothing more, whatever there is.
                abort(scope)
                return
            if not gone.done() and not sending.done():
                await asyncio.wait({sending, gone}, timeout=FAREWELL_S, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done() and not (sending.done() and sending.result()):
                abort(scope)
        finally:
            self._reader.close()
            for task in (sending, gone, ending, watching):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _until_refused(self) -> None:
        """Until whoever reads may not any more."""
        while True:
            await asyncio.sleep(RECHECK_S)
            if not await self._still_may():
                log.info("event_stream_refused")
                return

    async def _send(self, send: Send) -> bool:
        """Whether it came to its end; False: the client took nothing."""
        try:
            await self._send_in_time(send)
        except _StuckError:
            self._reader.drop()
            log.info("event_reader_dropped")
            return False
        except AutoloaderError as error:
            # It has begun to answer: the client comes back, and hears then what is wrong.
            log.warning("event_stream_ended", code=error.code, reason=str(error))
        return True

    async def _send_in_time(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await _sent(send, start)
        await _sent(send, _part(f"retry: {RETRY_MS}\n\n"))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s or None):
                async for part in self._parts():
                    await _sent(send, _part(part))
        await _sent(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _parts(self) -> AsyncIterator[str]:
        if self._left == 0:
            return
        async for told in self._reader.told(wait=self._timeout_s > 0):
            yield text_of(told)
            if self._left is not None and not isinstance(told, Reset | Beat):
                self._left -= 1
                if self._left == 0:
                    return


class _StuckError(Exception):
    """The client takes nothing."""


async def _sent(send: Send, message: dict[str, object]) -> None:
    try:
        async with asyncio.timeout(STUCK_S):
            await send(message)
    except TimeoutError:
        raise _StuckError from None


def _part(text: str) -> dict[str, object]:
    return {"type": "http.response.body", "body": text.encode(), "more_body": True}


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def text_of(told: Told) -> str:
    """What stands in the stream for it. Its JSON has no line break, so that one line holds it."""
    match told:
        case Reset(position):
            return f"id: {position}\nevent: reset\ndata: {json.dumps({'after': position})}\n\n"
        case Beat(position):
            # A comment keeps the connection alive, an id without data is kept by clients and told to nobody.
            return f":\nid: {position}\n\n"
        case event:
            return f"id: {event.id}\nevent: {event.kind.value}\ndata: {json.dumps(event.data)}\n\n"
