"""The process that runs are forked from. What it forks here fails, for it cannot read its order."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from app.domain.errors import ForkServerError
from app.prefect.worker.forks import ENVIRONMENT, ForkServer, NotForkedError
from app.prefect.worker.messages import Began, Ended, Lines, Message, Order, Ready, Refused, from_line, to_line
from tests.support.command import ROOT

ENVIRON = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": str(ROOT),
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "PREFECT_API_URL": "http://127.0.0.1:9/api",
}
READY_S = 90


def test_messages_come_as_they_were_sent() -> None:
    sent: list[Message] = [
        Order(1, '{"name": "ä\\n"}', {"A": "b=c\nd"}),
        Ready(1),
        Began(1, 17),
        Refused(2, "No."),
        Ended(17, -signal.SIGKILL),
    ]
    whole = b"".join(map(to_line, sent))
    for size in (1, 7, len(whole)):
        lines = Lines()
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert [from_line(line) for piece in pieces for line in lines.feed(piece)] == sent


def served(work: Callable[[ForkServer], Awaitable[None]], environ: dict[str, str]) -> None:
    async def run() -> None:
        forks = ForkServer(environ)
        keeping = asyncio.create_task(forks.run())
        try:
            await work(forks)
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping

    asyncio.run(asyncio.wait_for(run(), 2 * READY_S))


def test_each_is_forked_and_its_end_is_told(tmp_path: Path) -> None:
    async def work(forks: ForkServer) -> None:
        first = await forks.fork("no flow run", {})
        second = await forks.fork("no flow run either", {})
        assert forks.pid is not None
        # A process of several threads must not be forked, those that Python does not know of counted.
        assert psutil.Process(forks.pid).num_threads() == 1
        # What cannot be read ends its own process, as a program's error does.
        assert [await first.ended, await second.ended] == [1, 1]
        assert forks.is_ready
        server = psutil.Process(forks.pid)
        server.suspend()
        waiting = asyncio.create_task(forks.fork("never", {}))
        await asyncio.sleep(0)
        server.kill()
        with pytest.raises(NotForkedError):
            await waiting
        again = await forks.fork("on the one that took its place", {})
        assert await again.ended == 1
        assert forks.pid != server.pid

    served(work, {**ENVIRON, "HOME": str(tmp_path)})


# Forked from this process, many of whose libraries have threads, it would be no example of one.
FORKED_FROM_A_PROGRAM = """
import asyncio, os, sys
import psutil
from app.prefect.worker.forks import ForkServer
from app.prefect.worker.forkserver import fork_one, prepare
from app.prefect.worker.names import FORK_SERVER

async def main(first):
    forks = ForkServer(os.environ, first)
    keeping = asyncio.create_task(forks.run())
    one = await forks.fork("no flow run", {})
    server = psutil.Process(first.pid)
    assert (forks.pid, server.name(), server.num_threads()) == (first.pid, FORK_SERVER, 1)
    # Only its parent is told how a process ended.
    assert await one.ended == 1
    shared = sum(map_.shared_dirty + map_.shared_clean for map_ in server.memory_maps())
    private = sum(map_.private_dirty for map_ in server.memory_maps())
    assert private < shared / 2, (private, shared)
    server.kill()
    while forks.pid == first.pid:
        await asyncio.sleep(0.02)
    again = await forks.fork("on the one that took its place", {})
    assert await again.ended == 1
    assert psutil.Process(forks.pid).name() == FORK_SERVER
    print(forks.pid, flush=True)
    keeping.cancel()

prepare()
asyncio.run(main(fork_one()))
"""


def test_the_first_is_forked_from_the_worker_and_has_its_memory_in_common(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", FORKED_FROM_A_PROGRAM],
        env={**ENVIRON, **ENVIRONMENT, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=2 * READY_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not psutil.pid_exists(int(done.stdout))


def test_one_that_does_not_come_up_is_given_up(tmp_path: Path) -> None:
    # Another program's package of the same name.
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("")

    async def run() -> None:
        await ForkServer({**ENVIRON, "PYTHONPATH": str(tmp_path)}).run()

    with pytest.raises(ForkServerError):
        asyncio.run(asyncio.wait_for(run(), READY_S))
