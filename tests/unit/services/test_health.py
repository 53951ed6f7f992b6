"""Health is what the last beats said, and silence is no health."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from app.domain.errors import LedgerUnreachableError
from app.services.health import STALE_S, HealthBoard, Part, beat_database, watch_database


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_before_the_first_beat_nothing_is_up() -> None:
    health = HealthBoard().read()
    assert not health.is_healthy
    assert not health.prefect.up
    assert health.database.detail


def test_the_last_beat_counts_until_it_is_old() -> None:
    clock = Clock()
    board = HealthBoard(clock)
    board.database(Part(up=True, detail=""))
    clock.now = STALE_S
    assert board.read().is_healthy
    clock.now = STALE_S + 1
    assert not board.read().is_healthy
    assert "11 s" in board.read().database.detail


def test_prefect_is_not_needed_to_be_healthy() -> None:
    board = HealthBoard()
    board.database(Part(up=True, detail=""))
    board.prefect(Part(detail="Gone."))
    assert board.read().is_healthy
    assert board.read().prefect == Part(detail="Gone.")


def test_the_database_is_watched() -> None:
    board = HealthBoard(lambda: 0.0)
    answers = iter([True, False, True])
    seen: list[bool] = []
    enough = threading.Event()

    def ping() -> None:
        seen.append(board.read().database.up)
        if len(seen) == 4:
            enough.set()
        if not next(answers, True):
            raise LedgerUnreachableError

    async def watch() -> None:
        task = asyncio.create_task(watch_database(ping, board, beat_s=0.001))
        assert await asyncio.to_thread(enough.wait, 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(watch())
    assert seen[:4] == [False, True, False, True]


def test_the_database_is_watched_while_every_thread_is_busy() -> None:
    board, done, seen = HealthBoard(), threading.Event(), threading.Event()

    async def watch() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, done.wait)
        task = asyncio.create_task(watch_database(seen.set, board))
        try:
            async with asyncio.timeout(60):
                while not board.read().is_healthy:  # noqa: ASYNC110 - of a board that tells nobody
                    await asyncio.sleep(0.01)
        finally:
            done.set()
            task.cancel()
            await asyncio.gather(busy, task, return_exceptions=True)

    asyncio.run(watch())
    assert seen.is_set()


def test_an_error_of_the_database_is_told() -> None:
    board = HealthBoard()

    def ping() -> None:
        raise LedgerUnreachableError

    asyncio.run(beat_database(ping, board))
    assert board.read().database.detail == "The server of the ledger's database does not answer."
