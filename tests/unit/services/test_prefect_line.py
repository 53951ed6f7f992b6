"""How many calls to Prefect are made at once, and who goes next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from prefect.client.orchestration import PrefectClient

from app.domain.errors import SchedulerUnavailableError
from app.services.prefect_connection import AT_ONCE, BUSY, PrefectConnection

NOBODY = "http://127.0.0.1:9/api"
LONG_S = 60.0


class Desk:
    """What is asked of Prefect; answered when it is told to."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self.at_once = 0
        self.most = 0
        self.opened = asyncio.Event()

    async def ask(self, connection: PrefectConnection, number: int) -> int:
        """Ask, and wait until the desk opens."""

        async def call(_client: PrefectClient) -> int:
            self.came.append(number)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            await self.opened.wait()
            self.at_once -= 1
            return number

        return await connection.ask(call)


@asynccontextmanager
async def connected(*, timeout_s: float = LONG_S, in_line_s: float = LONG_S) -> AsyncIterator[PrefectConnection]:
    connection = PrefectConnection(NOBODY, timeout_s=timeout_s, pause_s=LONG_S, in_line_s=in_line_s)
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


async def full(connection: PrefectConnection, desk: Desk, count: int) -> list[asyncio.Task[int]]:
    """So many that ask, as many of them at the desk as may be."""
    tasks = [asyncio.create_task(desk.ask(connection, number)) for number in range(count)]
    while desk.at_once < min(count, AT_ONCE):  # noqa: ASYNC110 - of a count
        await asyncio.sleep(0)
    return tasks


def test_a_few_are_asked_at_once_and_the_others_in_their_order() -> None:
    async def asked() -> Desk:
        async with connected() as connection:
            desk = Desk()
            tasks = await full(connection, desk, 5 * AT_ONCE)
            desk.opened.set()
            assert await asyncio.gather(*tasks) == list(range(5 * AT_ONCE))
            return desk

    desk = asyncio.run(asked())
    assert desk.most == AT_ONCE
    assert desk.came == list(range(5 * AT_ONCE))


def test_who_looks_whether_it_is_there_does_not_wait_for_the_others() -> None:
    async def asked() -> int:
        async with connected() as connection:
            desk = Desk()
            tasks = await full(connection, desk, AT_ONCE + 1)

            async def look(_client: PrefectClient) -> int:
                return 7

            seen = await connection.ask(look, anyway=True)
            desk.opened.set()
            await asyncio.gather(*tasks)
            return seen

    assert asyncio.run(asyncio.wait_for(asked(), LONG_S)) == 7


def test_whose_turn_does_not_come_is_told_and_spoils_nothing() -> None:
    async def asked() -> list[int]:
        async with connected(in_line_s=0.05) as connection:
            desk = Desk()
            tasks = await full(connection, desk, AT_ONCE)
            with pytest.raises(SchedulerUnavailableError, match="more to do than it can"):
                await desk.ask(connection, 99)
            # It answers: nobody is spared for that.
            assert not connection.is_silent
            desk.opened.set()
            return [*await asyncio.gather(*tasks), await desk.ask(connection, 5)]

    assert asyncio.run(asked()) == [*range(AT_ONCE), 5]


def test_those_in_line_are_told_at_once_when_it_falls_silent() -> None:
    async def asked() -> list[int | BaseException]:
        async with connected(timeout_s=0.2) as connection:
            desk = Desk()
            tasks = await full(connection, desk, 3 * AT_ONCE)
            return await asyncio.gather(*tasks, return_exceptions=True)

    ended = asyncio.run(asked())
    assert all(isinstance(one, SchedulerUnavailableError) for one in ended)
    assert ["a moment ago" in str(one) for one in ended] == [False] * AT_ONCE + [True] * 2 * AT_ONCE


def test_a_busy_one_is_not_asked_again_once_whoever_looks_after_it_has_found_it_of_no_use() -> None:
    """But for whoever looks."""

    async def asked(*, anyway: bool) -> int:
        async with connected() as connection:
            came = 0

            async def call(_client: PrefectClient) -> int:
                nonlocal came
                came += 1
                if came > 1:
                    return came
                connection.spare()
                request = httpx.Request("POST", NOBODY)
                raise httpx.HTTPStatusError("", request=request, response=httpx.Response(BUSY[-1], request=request))

            try:
                await connection.ask(call, anyway=anyway)
            except SchedulerUnavailableError:
                assert connection.calls == {"silent": 1}
            return came

    assert asyncio.run(asked(anyway=False)) == 1
    assert asyncio.run(asked(anyway=True)) == 2


def test_who_answers_others_meanwhile_is_slow_and_not_silent() -> None:
    async def asked() -> bool:
        async with connected(timeout_s=0.5) as connection:
            desk = Desk()
            (slow,) = await full(connection, desk, 1)

            async def answer(_client: PrefectClient) -> int:
                return 7

            assert await connection.ask(answer) == 7
            with pytest.raises(SchedulerUnavailableError, match="did not answer within"):
                await slow
            return connection.is_silent

    assert asyncio.run(asked()) is False
