"""A signal is heard wherever an event loop is when it comes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from app.cli.heeding import run_heeding
from app.domain.errors import StoppedByUser

FOREVER_S = 100.0
# A loop itself keeps no task alive.
BESIDE: list[asyncio.Task[None]] = []


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """One that is handled as by the command line."""

    def stop(came: int, _frame: object) -> NoReturn:
        raise StoppedByUser(came)

    before = signal.signal(request.param, stop)
    yield request.param
    assert signal.getsignal(request.param) is stop
    signal.signal(request.param, before)


def raised_at_once(number: signal.Signals) -> None:
    signal.raise_signal(number)


def raised_in_a_callback(number: signal.Signals) -> None:
    asyncio.get_running_loop().call_soon(signal.raise_signal, number)


def raised_in_another_task(number: signal.Signals) -> None:
    async def beside() -> None:
        signal.raise_signal(number)

    BESIDE.append(asyncio.create_task(beside()))


@pytest.mark.parametrize("raise_it", [raised_at_once, raised_in_a_callback, raised_in_another_task])
def test_a_signal_ends_the_call_and_is_raised(
    number: signal.Signals, raise_it: Callable[[signal.Signals], None]
) -> None:
    ended = []

    async def work() -> None:
        raise_it(number)
        try:
            await asyncio.sleep(FOREVER_S)
        finally:
            ended.append(True)

    async def seven() -> int:
        return 7

    with asyncio.Runner() as runner:
        with pytest.raises(StoppedByUser) as stopped:
            run_heeding(runner, work())
        assert stopped.value.signal_number == number
        assert ended
        # The loop is as it was.
        assert run_heeding(runner, seven()) == 7


def test_who_does_not_end_is_ended_by_the_second(number: signal.Signals) -> None:
    async def work() -> None:
        signal.raise_signal(number)
        try:
            await asyncio.sleep(FOREVER_S)
        except asyncio.CancelledError:
            signal.raise_signal(number)

    with asyncio.Runner() as runner, pytest.raises(StoppedByUser):
        run_heeding(runner, work())


def test_one_that_comes_as_the_call_ends_is_no_less_raised(number: signal.Signals) -> None:
    async def work() -> int:
        signal.raise_signal(number)
        return 7

    with asyncio.Runner() as runner, pytest.raises(StoppedByUser):
        run_heeding(runner, work())
