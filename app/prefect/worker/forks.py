"""The worker's side of its fork server: keeps one running, and says of each process how it ended."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from app.domain.errors import ForkServerError
from app.domain.events import EventLog
from app.prefect.worker.forkserver import Forked
from app.prefect.worker.memory import processes_of
from app.prefect.worker.messages import Began, Ended, Message, Order, Ready, Refused, from_line, to_line

log = EventLog(__name__)

MODULE = "app.prefect.worker.forkserver"
# Arrow's allocator has a thread of its own, which a process that is forked from must not have.
ENVIRONMENT: Mapping[str, str] = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
# So often in a row it may end before it is ready.
TRIES = 3
AGAIN_S = 1.0
# The kernel ends the children with it; they are gone a moment later.
GONE_S = 5.0


class Server(Protocol):
    """A process that runs are forked from."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def kill(self) -> None:
        """End it; ProcessLookupError where it has ended."""
        ...

    async def wait(self) -> int:
        """Wait until it has ended, so that nothing is left of it."""
        ...


@dataclass(frozen=True)
class _OurFork:
    """The one that was forked from this process."""

    pid: int

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        try:
            _, status = await asyncio.to_thread(os.waitpid, self.pid, 0)
        except ChildProcessError:
            # Whoever started this process has the system forget its children as they end.
            return 0
        return os.waitstatus_to_exitcode(status)


class NotForkedError(Exception):
    """There is no process for an order."""


@dataclass
class Fork:
    """A process that carries a run out."""

    pid: int
    # Its exit status, or the negative number of the signal that ended it.
    ended: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal, unless it is gone."""
        if not self.ended.done():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it, and all that it started."""
        below = processes_of(self.pid)
        self.tell(signal.SIGKILL)
        for pid in below[1:]:
            # They end with their parent by themselves, unless a library started them.
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


class ForkServer:
    """Forks processes while `run` is at work; one that dies is replaced, and its children have ended with it."""

    def __init__(self, environ: Mapping[str, str], first: Forked | None = None) -> None:
        """Start nothing yet.

        Args:
            environ: What its processes get.
            first: The one to begin with; None: one is started.
        """
        self._environ = {**environ, **ENVIRONMENT}
        self._first = first
        self._numbers = itertools.count(1)
        self._orders: dict[int, asyncio.Future[Fork]] = {}
        self._forks: dict[int, Fork] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._process: Server | None = None
        self._ready = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether it forks at once."""
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        """Of the process that runs are forked from."""
        return None if self._process is None else self._process.pid

    async def run(self) -> None:
        """Keep one running until cancelled; then it ends, and every process with it.

        Raises:
            ForkServerError: It does not come up, again and again.
        """
        failures = 0
        while True:
            was_ready = await self._live()
            failures = 0 if was_ready else failures + 1
            if failures >= TRIES:
                raise ForkServerError
            log.warning("fork_server_ended", was_ready=was_ready)
            await asyncio.sleep(AGAIN_S)

    async def fork(self, flow_run: str, environ: Mapping[str, str]) -> Fork:
        """A process that carries out the flow run.

        Raises:
            NotForkedError: There is none.
        """
        await self._ready.wait()
        assert self._writer is not None  # noqa: S101 - it is ready
        number = next(self._numbers)
        began: asyncio.Future[Fork] = asyncio.get_running_loop().create_future()
        self._orders[number] = began
        self._writer.write(to_line(Order(number, flow_run, environ)))
        return await began

    async def _live(self) -> bool:
        """Hear one until it is gone; whether it was ready."""
        ours = await self._begun()
        reader, self._writer = await asyncio.open_connection(sock=ours)
        try:
            with suppress(ConnectionResetError):
                while line := await reader.readline():
                    self._hear(from_line(line))
            return self._ready.is_set()
        finally:
            await self._bury()

    async def _begun(self) -> socket.socket:
        """Our end of the channel to one that begins now, or that began with this process."""
        first, self._first = self._first, None
        if first is not None:
            self._process = _OurFork(first.pid)
            return first.channel
        ours, theirs = socket.socketpair()
        with theirs:
            command = (sys.executable, "-P", "-m", MODULE, str(theirs.fileno()))
            self._process = await asyncio.create_subprocess_exec(
                *command, env=self._environ, stdin=DEVNULL, pass_fds=(theirs.fileno(),)
            )
        return ours

    def _hear(self, message: Message) -> None:
        match message:
            case Ready(threads):
                if threads != 1:
                    log.error("fork_server_has_threads", threads=threads)
                log.info("worker_is_ready", fork_server=self.pid)
                self._ready.set()
            case Began(number, pid):
                self._forks[pid] = Fork(pid)
                self._orders.pop(number).set_result(self._forks[pid])
            case Refused(number, reason):
                self._orders.pop(number).set_exception(NotForkedError(reason))
            case Ended(pid, code):
                self._forks.pop(pid).ended.set_result(code)

    async def _bury(self) -> None:
        """See to it that it and its children are gone, and say so of each."""
        self._ready.clear()
        process, writer = self._process, self._writer
        self._process = self._writer = None
        if writer is not None:
            writer.close()
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        orders, self._orders = self._orders, {}
        forks, self._forks = self._forks, {}
        deadline = time.monotonic() + GONE_S
        while any(map(_is_there, forks)) and time.monotonic() < deadline:  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.02)
        for began in orders.values():
            if not began.done():
                began.set_exception(NotForkedError("The process that runs are forked from has ended."))
        for fork in forks.values():
            if not fork.ended.done():
                fork.ended.set_result(-signal.SIGKILL)


def _is_there(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
