"""A worker as a child of the service, where nobody else runs one for the pool."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

import psutil

from app.domain.events import EventLog

log = EventLog(__name__)

MODULE = "app.prefect.worker"
NAME_PREFIX = "autoloader-"
# A worker that ends at once, again and again, is not started oftener.
STARTS_APART_S = 10.0
STOP_WAIT_S = 12.0
# So long its runs may go on when the service ends: whoever stops that does not want to wait. They go on later.
GRACE_S = 2.0


def worker_name() -> str:
    """The name of a worker in this process: it says where it runs, so that others here can tell whether it lives."""
    return f"{NAME_PREFIX}{socket.gethostname()}-{os.getpid()}"


def is_dead_worker(name: str) -> bool:
    """Whether it is one of ours on this machine whose process is gone, whatever Prefect still says of it."""
    host, _, pid = name.removeprefix(NAME_PREFIX).rpartition("-")
    if not name.startswith(NAME_PREFIX) or host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        return psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Workers(Protocol):
    """Who says which workers there are."""

    @property
    def pool_type(self) -> str | None:
        """The type of the pool."""
        ...

    async def workers_online(self) -> list[str]:
        """Their names."""
        ...


class WorkerChild:
    """Starts the warm worker when there is no worker, and ends it with the service."""

    def __init__(self, workers: Workers, pool: str, environ: Mapping[str, str]) -> None:
        self._workers = workers
        self._pool = pool
        self._environ = dict(environ)
        self._process: Process | None = None
        self._started_at = -STARTS_APART_S

    @property
    def pid(self) -> int | None:
        """Of the child that runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def ensure(self) -> list[str]:
        """Start one where none is online; names of those that are.

        Raises:
            SchedulerUnavailableError: Prefect does not say which there are.
        """
        online = await self._workers.workers_online()
        if online or self.pid is not None or self._workers.pool_type != "process":
            return online
        if time.monotonic() - self._started_at >= STARTS_APART_S:
            self._started_at = time.monotonic()
            await self._start()
        return []

    async def _start(self) -> None:
        # A session of its own: Ctrl-C at the terminal is for the service, which then ends the worker in order.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            MODULE,
            "--parent",
            str(os.getpid()),
            "--grace",
            str(GRACE_S),
            env=self._environ,
            stdin=DEVNULL,
            start_new_session=True,
        )
        log.info("worker_started", pool=self._pool, pid=self._process.pid)

    async def stop(self) -> None:
        """End it and what it runs; what is left of its runs goes on with the next worker."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_WAIT_S)
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
