"""A proxy before a server that speaks no HTTP: it breaks a connection off at what a client says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.fault_proxy import HOST, serving

CHUNK_BYTES = 1 << 16
ANSWER_TIMEOUT_S = 30.0


@dataclass
class Break:
    """Breaks the first connection off on which the client says `at`, having said `after` before.

    `cut`: the server never hears it. `lost`: the server does it, and its answer is lost. A number: the client waits
    for so many seconds before the server hears it.
    """

    after: bytes
    at: bytes
    how: str | float
    done: bool = False


class TcpProxy:
    """A running proxy; what is to be broken may be changed at any time."""

    def __init__(self, port: int) -> None:
        self._address = (HOST, port)
        self.breaks: list[Break] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection."""
        try:
            back, forth = await asyncio.open_connection(*self._address)
        except (OSError, asyncio.CancelledError):
            writer.close()
            return
        answers = asyncio.create_task(_pump(back, writer))
        try:
            await self._listen(reader, back, forth, answers)
        except (OSError, asyncio.CancelledError):
            # The client, the server or the test has gone.
            pass
        finally:
            answers.cancel()
            forth.close()
            writer.close()

    async def _listen(
        self,
        reader: asyncio.StreamReader,
        back: asyncio.StreamReader,
        forth: asyncio.StreamWriter,
        answers: asyncio.Task[None],
    ) -> None:
        said = b""
        while data := await reader.read(CHUNK_BYTES):
            due = next(
                (b for b in self.breaks if not b.done and re.search(b.at, data) and re.search(b.after, said)), None
            )
            said += data
            if due is not None:
                due.done = True
                if due.how == "cut":
                    return
                if due.how == "lost":
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)
                    forth.write(data)
                    await forth.drain()
                    # Whose first byte says that it was done.
                    await asyncio.wait_for(back.read(1), ANSWER_TIMEOUT_S)
                    return
                await asyncio.sleep(float(due.how))
            forth.write(data)
            await forth.drain()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(CHUNK_BYTES):
        target.write(data)
        await target.drain()
    target.close()


@contextmanager
def tcp_proxy_before(port: int) -> Iterator[TcpProxy]:
    """A proxy before the server on that port of loopback."""
    proxy = TcpProxy(port)
    with serving(proxy.serve) as proxy.port:
        yield proxy
