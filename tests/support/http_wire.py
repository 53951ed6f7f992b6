"""HTTP/1.1 messages as bytes: read whole, kept as they came, so that a signature over them stays valid."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

END_OF_HEAD = b"\r\n\r\n"
LIMIT_BYTES = 64 * 1024 * 1024
_FIRST_STATUS = 200
_WITHOUT_BODY = {204, 304}


@dataclass(frozen=True)
class Message:
    """A request or an answer: its head with the empty line, and its body as it was framed on the wire."""

    head: bytes
    body: bytes

    @property
    def first_line(self) -> list[str]:
        """The three parts of the first line."""
        return self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)

    @property
    def status(self) -> int:
        """The status of an answer."""
        return int(self.first_line[1])

    def header(self, name: str) -> str:
        """The value of a header; "" where there is none."""
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.strip().lower() == name:
                return value.strip()
        return ""

    @property
    def is_chunked(self) -> bool:
        """Whether the body tells its own length."""
        return self.header("transfer-encoding").lower() == "chunked"

    @property
    def ends_connection(self) -> bool:
        """Whether whoever sent it sends nothing more."""
        return self.header("connection").lower() == "close"

    def with_body(self, body: bytes, *, length: int | None = None) -> Message:
        """The same with another body.

        Args:
            body: As it goes over the wire.
            length: What the header says of it; None: the truth.
        """
        lines = [
            line
            for line in self.head.removesuffix(END_OF_HEAD).split(b"\r\n")
            if not line.lower().startswith((b"content-length:", b"transfer-encoding:"))
        ]
        lines.append(b"Content-Length: %d" % (len(body) if length is None else length))
        return Message(b"\r\n".join(lines) + END_OF_HEAD, body)

    def plain(self) -> Message:
        """The same with a body of told length in place of chunks."""
        return self.with_body(_joined(self.body)) if self.is_chunked else self


def made(status: int, body: bytes, content_type: str) -> Message:
    """An answer of one's own."""
    head = f"HTTP/1.1 {status} Fault\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return Message(head.encode(), body)


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Message | None:
    """The next request, whole; None when the client sends no more."""
    try:
        head = await reader.readuntil(END_OF_HEAD)
    except asyncio.IncompleteReadError:
        return None
    begun = Message(head, b"")
    if begun.header("expect").lower() == "100-continue":
        # It waits for our word before it sends the body.
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
    return Message(head, await _body(reader, begun))


async def read_answer(reader: asyncio.StreamReader, method: str) -> Message:
    """The final answer to a request of that method, whole."""
    while True:
        begun = Message(await reader.readuntil(END_OF_HEAD), b"")
        if begun.status >= _FIRST_STATUS:
            break
    if method == "HEAD" or begun.status in _WITHOUT_BODY:
        return begun
    if not begun.header("content-length") and not begun.is_chunked:
        return Message(begun.head, await reader.read(-1))
    return Message(begun.head, await _body(reader, begun))


async def _body(reader: asyncio.StreamReader, begun: Message) -> bytes:
    if not begun.is_chunked:
        return await reader.readexactly(int(begun.header("content-length") or 0))
    pieces = []
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        # The last chunk may be followed by trailers, each a line; an empty line ends it all.
        pieces += [line, await reader.readexactly(size + 2) if size else await _trailers(reader)]
        if size == 0:
            return b"".join(pieces)


async def _trailers(reader: asyncio.StreamReader) -> bytes:
    lines = [await reader.readuntil(b"\r\n")]
    while lines[-1] != b"\r\n":
        lines.append(await reader.readuntil(b"\r\n"))
    return b"".join(lines)


def _joined(body: bytes) -> bytes:
    pieces = []
    while body:
        line, _, body = body.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        pieces.append(body[:size])
        body = body[size + 2 :]
    return b"".join(pieces)
