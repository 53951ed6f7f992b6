"""A proxy before a server of ours that answers as told: it drops, cuts, delays, lies, and keeps a log of it.

Requests go to the real server byte for byte, the Host header included, so that signatures over them stay valid.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from tests.support.http_wire import LIMIT_BYTES, Message, made, read_answer, read_request

HOST = "127.0.0.1"
STALL_S = 120.0
START_TIMEOUT_S = 60.0


class Exchange:
    """One request of a client, and what can be done about it."""

    def __init__(self, request: Message, client: Client, server: tuple[str, int]) -> None:
        self.request = request
        self._client = client
        self._server = server

    async def apply(self) -> Message:
        """Have the server carry it out, whether or not the client is still there; its answer."""
        return await _ask(self._server, self.request)

    async def answer(self, answer: Message) -> None:
        """Send an answer."""
        await self.end(answer, answer.head + answer.body)

    async def end(self, answer: Message, rest: bytes) -> None:
        """Send what is left of an answer."""
        await self._client.send(rest, None)
        if answer.ends_connection:
            self.close()

    async def begin(self, data: bytes, *, pace: float | None = None) -> None:
        """Send the begin of an answer, or any other bytes; with `pace` not more than so many a second."""
        await self._client.send(data, pace)

    async def stall(self, seconds: float) -> None:
        """Say nothing for so long, or until the client has gone."""
        await self._client.wait_for_end(seconds)

    def close(self) -> None:
        """End the connection as a server does that ends."""
        self._client.close()

    def reset(self) -> None:
        """End the connection as a machine does that knows nothing of it."""
        self._client.reset()


class Action(Protocol):
    """What to do with a request."""

    async def __call__(self, exchange: Exchange) -> None:
        """Do it."""


@dataclass(frozen=True)
class Cut:
    """End the connection without an answer: `close`, `reset`, or `stall` for `seconds` and close then."""

    how: str
    applied: bool
    seconds: float = STALL_S

    async def __call__(self, exchange: Exchange) -> None:
        """Do it."""
        if self.applied:
            await exchange.apply()
        await _end(exchange, self.how, self.seconds)


@dataclass(frozen=True)
class Answer:
    """Answer with a status of one's own, whether the server was asked before or not."""

    status: int
    applied: bool
    body: bytes = b""
    content_type: str = "application/json"

    async def __call__(self, exchange: Exchange) -> None:
        """Do it."""
        if self.applied:
            await exchange.apply()
        await exchange.answer(made(self.status, self.body, self.content_type))


@dataclass(frozen=True)
class Half:
    """Tell the true length, send this share of the body, then `close`, `reset` or `stall`."""

    how: str = "close"
    share: float = 0.5
    seconds: float = STALL_S

    async def __call__(self, exchange: Exchange) -> None:
        """Do it."""
        answer = (await exchange.apply()).plain()
        await exchange.begin(answer.head + answer.body[: int(len(answer.body) * self.share)])
        await _end(exchange, self.how, self.seconds)


@dataclass(frozen=True)
class Rewrite:
    """Answer as the server does, but with another body; `length` None: its true length is told."""

    change: Callable[[bytes], bytes]
    length: int | None = None
    edit_head: Callable[[bytes], bytes] = bytes

    async def __call__(self, exchange: Exchange) -> None:
        """Do it."""
        answer = (await exchange.apply()).plain()
        body = self.change(answer.body)
        changed = answer.with_body(body, length=self.length)
        await exchange.answer(Message(self.edit_head(changed.head), body))
        if self.length is not None and self.length != len(body):
            exchange.close()


@dataclass(frozen=True)
class Slow:
    """Answer late, and with `pace` not more than so many bytes a second."""

    delay_s: float = 0.0
    pace: float | None = None
    # How long each answer was on its way.
    took_s: list[float] = field(default_factory=list)

    async def __call__(self, exchange: Exchange) -> None:
        """Do it."""
        answer = await exchange.apply()
        began = time.monotonic()
        await asyncio.sleep(self.delay_s)
        whole = answer.head + answer.body
        await exchange.begin(whole[:-1], pace=self.pace)
        # Noted before the last byte is sent: who has got it may look here at once, or be gone.
        self.took_s.append(time.monotonic() - began)
        await exchange.end(answer, whole[-1:])


@dataclass(frozen=True)
class Then:
    """Do something in the world (a thread of its own runs it) before, or after, the server is asked."""

    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None

    async def __call__(self, exchange: Exchange) -> None:
        """Do it."""
        if self.before is not None:
            await asyncio.to_thread(self.before)
        answer = await exchange.apply()
        if self.after is not None:
            await asyncio.to_thread(self.after)
        await exchange.answer(answer)


@dataclass
class Hold:
    """Keep the request and end the connection; `deliver` gives it to the server, late."""

    kept: list[tuple[Exchange, asyncio.AbstractEventLoop]] = field(default_factory=list)

    async def __call__(self, exchange: Exchange) -> None:
        """Keep it."""
        self.kept.append((exchange, asyncio.get_running_loop()))
        exchange.close()

    def deliver(self) -> Message:
        """Give the request to the server now; what it answers."""
        ((exchange, loop),) = self.kept
        return asyncio.run_coroutine_threadsafe(exchange.apply(), loop).result(START_TIMEOUT_S)


async def _end(exchange: Exchange, how: str, seconds: float) -> None:
    if how == "stall":
        await exchange.stall(seconds)
    if how == "reset":
        exchange.reset()
    exchange.close()


@dataclass
class Rule:
    """Which requests an action is for.

    The first `skip` of them are let through, the next `times` are acted on (None: all), the rest are let through.
    """

    method: str
    path: str
    action: Action
    skip: int = 0
    times: int | None = 1
    seen: int = 0

    def takes(self, request: Message) -> bool:
        """Whether this request is one to act on."""
        method, target, _ = request.first_line
        if not re.fullmatch(self.method, method) or not re.search(self.path, target):
            return False
        self.seen += 1
        return self.seen > self.skip and (self.times is None or self.seen <= self.skip + self.times)

    @property
    def acted(self) -> int:
        """How often it acted."""
        return max(0, min(self.seen - self.skip, self.seen if self.times is None else self.times))


@dataclass(frozen=True)
class Entry:
    """A line of the log: what was asked, and what was done about it; `action` None: let through."""

    method: str
    target: str
    action: Action | None


class Client:
    """The connection to a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer
        self.open = True

    async def next_request(self) -> Message | None:
        return await read_request(self.reader, self._writer)

    async def send(self, data: bytes, pace: float | None) -> None:
        step = len(data) if pace is None else max(1, int(pace / 10))
        for begin in range(0, len(data), step or 1):
            self._writer.write(data[begin : begin + step])
            await self._writer.drain()
            if pace is not None:
                await asyncio.sleep(0.1)

    async def wait_for_end(self, seconds: float) -> None:
        with suppress(TimeoutError, asyncio.TimeoutError, ConnectionError):
            await asyncio.wait_for(self.reader.read(1), seconds)

    def close(self) -> None:
        self.open = False
        self._writer.close()

    def reset(self) -> None:
        sock = self._writer.get_extra_info("socket")
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.open = False
        self._writer.transport.abort()


async def _ask(address: tuple[str, int], request: Message) -> Message:
    """What the server answers, on a connection of its own: one that is kept may be ended just when it is needed."""
    reader, writer = await asyncio.open_connection(*address, limit=LIMIT_BYTES)
    try:
        writer.write(request.head + request.body)
        await writer.drain()
        return await read_answer(reader, request.first_line[0])
    finally:
        writer.close()


class Proxy:
    """A running proxy. Rules may be given and taken away at any time."""

    def __init__(self, port: int) -> None:
        """Stand before the server on that port of loopback; `running` starts it."""
        self._address = (HOST, port)
        self._rules: list[Rule] = []
        self.log: list[Entry] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://{HOST}:{self.port}"

    def on(self, method: str, path: str, action: Action, *, skip: int = 0, times: int | None = 1) -> Rule:
        """Act on requests; the first rule that takes a request has it."""
        rule = Rule(method, path, action, skip, times)
        self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Let everything through, and forget the log."""
        self._rules = []
        self.log = []

    def asked(self, method: str, path: str) -> int:
        """How many such requests there were."""
        return sum(bool(re.fullmatch(method, e.method) and re.search(path, e.target)) for e in list(self.log))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, request by request."""
        client = Client(reader, writer)
        try:
            while client.open:
                request = await client.next_request()
                if request is None:
                    break
                await self._one(Exchange(request, client, self._address))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # The client, the server or the test has gone, which is what this proxy is for.
            pass
        finally:
            client.close()

    async def _one(self, exchange: Exchange) -> None:
        action = next((rule.action for rule in self._rules if rule.takes(exchange.request)), None)
        method, target, _ = exchange.request.first_line
        self.log.append(Entry(method, target, action))
        if action is None:
            await exchange.answer(await exchange.apply())
        else:
            await action(exchange)


@contextmanager
def proxy_before(port: int) -> Iterator[Proxy]:
    """A proxy before the HTTP server on that port of loopback."""
    proxy = Proxy(port)
    with serving(proxy.serve) as proxy.port:
        yield proxy


@contextmanager
def serving(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> Iterator[int]:
    """Serve connections to a free port of loopback from a thread of its own; the port."""
    # The library keeps a connection's task only until its client has gone, and what a task waits for it keeps not at
    # all: one that waits for a server then would be collected as garbage in the midst of it.
    tasks: set[asyncio.Task[None] | None] = set()

    async def serve_and_keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        tasks.add(task)
        try:
            await serve(reader, writer)
        finally:
            tasks.discard(task)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fault-proxy", daemon=True)
    thread.start()
    started = asyncio.run_coroutine_threadsafe(
        asyncio.start_server(serve_and_keep, HOST, 0, limit=LIMIT_BYTES),
        loop,
    )
    server = started.result(START_TIMEOUT_S)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(START_TIMEOUT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
