"""Receivers of webhooks over real HTTP, on loopback, in a thread of their own: good ones, and ones that are not."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.support.http_wire import Message, read_request

START_S = 120


@dataclass(frozen=True)
class Received:
    """One request that a receiver got."""

    message: Message

    @property
    def id(self) -> str:
        return self.message.header("webhook-id")

    @property
    def path(self) -> str:
        return self.message.first_line[1]

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.message.body)
        return found

    @property
    def kind(self) -> str:
        return str(self.body["type"])


Behave = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


def plain(status: int, body: bytes = b"", **headers: str) -> bytes:
    """An answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status} So", f"Content-Length: {len(body)}", *(f"{n}: {v}" for n, v in headers.items())]
    return "\r\n".join(lines).replace("_", "-").encode() + b"\r\n\r\n" + body


def answering(status: int, body: bytes = b"", **headers: str) -> Behave:
    """One that always answers so."""

    async def behave(_received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(plain(status, body, **headers))
        await writer.drain()

    return behave


@dataclass
class Receiver:
    """A running receiver. `behave` says what it does with a request, and can be changed at any time."""

    port: int = 0
    behave: Behave = field(default_factory=lambda: answering(200))
    received: list[Received] = field(default_factory=list)
    secure: bool = False
    # Connections that it has now, and had at most.
    open: int = 0
    most_open: int = 0

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"http{'s' if self.secure else ''}://{host}:{self.port}{path}"

    @property
    def ids(self) -> list[str]:
        return [one.id for one in list(self.received)]

    @property
    def kinds(self) -> list[str]:
        return [one.kind for one in list(self.received)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                request = await read_request(reader, writer)
                if request is not None:
                    received = Received(request)
                    self.received.append(received)
                    await self.behave(received, writer)
        finally:
            self.open -= 1
            with suppress(ConnectionError, RuntimeError):
                writer.close()


@contextmanager
def receiver(behave: Behave | None = None, *, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver that runs until the block ends; whatever it is doing then is broken off."""
    one = Receiver(secure=tls is not None)
    if behave is not None:
        one.behave = behave
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    ending = asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=tls)
        one.port = server.sockets[0].getsockname()[1]
        ready.set()
        await ending.wait()
        server.close()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def run() -> None:
        # Handlers that are broken off, and clients that break off, are what these tests are about.
        loop.set_exception_handler(lambda _loop, _context: None)
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run, name="receiver", daemon=True)
    thread.start()
    try:
        assert ready.wait(START_S)
        yield one
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join(START_S)
        assert not thread.is_alive()
