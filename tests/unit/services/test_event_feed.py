"""Readers of events: none is missed, none waits for another, and nothing is looked for while nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.domain.errors import LedgerUnreachableError, NotFoundError, TooManyReadersError
from app.domain.live import Event, EventFilter, EventKind
from app.services.event_feed import Beat, EventFeed, EventReader, Reset, Told
from tests.fakes.live import MemoryLive

ALL = EventFilter()
SOON_S = 300.0


def with_feed(test: Callable[[MemoryLive, EventFeed], Awaitable[None]], **settings: Any) -> None:
    async def run() -> None:
        rows = MemoryLive()
        feed = EventFeed(rows, **{"poll_s": 0.01, "beat_s": SOON_S, **settings})
        async with asyncio.timeout(SOON_S):
            await test(rows, feed)
            await feed.close()

    asyncio.run(run())


async def take(reader: EventReader, count: int) -> list[Told]:
    found: list[Told] = []
    async for told in reader.told():
        found.append(told)
        if len(found) == count:
            break
    return found


def ids(found: list[Told]) -> list[int]:
    return [told.id for told in found if isinstance(told, Event)]


async def until(done: Callable[[], bool]) -> None:
    while not done():  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.005)


def test_a_reader_gets_what_comes_after_him_and_only_what_he_wants() -> None:
    async def test(rows: MemoryLive, feed: EventFeed) -> None:
        rows.tell()
        reader = await feed.open(EventFilter(run_id="mine"), None)
        taking = asyncio.create_task(take(reader, 2))
        await until(lambda: rows.looks > 0)
        wanted = [rows.tell(run_id=run_id).id for run_id in ("mine", "other", "mine")]
        assert ids(await taking) == [wanted[0], wanted[2]]

    with_feed(test)


def test_one_who_comes_back_gets_what_he_missed_and_then_what_comes() -> None:
    async def test(rows: MemoryLive, feed: EventFeed) -> None:
        before = [rows.tell().id for _ in range(700)]
        reader = await feed.open(ALL, before[2])
        assert ids(await take(reader, 697)) == before[3:]
        taking = asyncio.create_task(take(reader, 1))
        new = rows.tell()
        assert await taking == [new]

    with_feed(test)


def test_what_is_there_now_and_no_more() -> None:
    async def test(rows: MemoryLive, feed: EventFeed) -> None:
        events = [rows.tell() for _ in range(3)]
        reader = await feed.open(ALL, 0)
        found = [told async for told in reader.told(wait=False)]
        assert found == [*events, Beat(events[-1].id)]

    with_feed(test)


@pytest.mark.parametrize(("after", "position"), [(2, 4), (99, 6)])
def test_one_whose_events_are_gone_is_told_so_and_goes_on(after: int, position: int) -> None:
    async def test(rows: MemoryLive, feed: EventFeed) -> None:
        for _ in range(6):
            rows.tell()
        rows.prune(events=2, events_age_s=0, logs_age_s=0)
        reader = await feed.open(ALL, after)
        found = [told async for told in reader.told(wait=False)]
        assert found[0] == Reset(position)
        assert ids(found) == [number for number in (5, 6) if number > position]

    with_feed(test)


def test_one_who_missed_nothing_of_what_is_gone_is_told_nothing() -> None:
    async def test(rows: MemoryLive, feed: EventFeed) -> None:
        for _ in range(6):
            rows.tell()
        rows.prune(events=2, events_age_s=0, logs_age_s=0)
        reader = await feed.open(ALL, 4)
        assert ids([told async for told in reader.told(wait=False)]) == [5, 6]

    with_feed(test)


def test_a_quiet_reader_hears_that_the_line_is_open_and_how_far_it_is() -> None:
    async def test(rows: MemoryLive, feed: EventFeed) -> None:
        rows.tell()
        reader = await feed.open(EventFilter(run_id="mine"), None)
        assert await take(reader, 1) == [Beat(1)]
        other = rows.tell(run_id="other")
        taking = asyncio.create_task(take(reader, 3))
        await until(lambda: feed.after(0) is not None or feed.after(other.id) is not None)
        assert all(isinstance(told, Beat) for told in await taking)

    with_feed(test, beat_s=0.05)


def test_one_who_is_too_slow_is_sent_away_and_the_others_are_not() -> None:
    async def test(rows: MemoryLive, feed: EventFeed) -> None:
        slow, quick = await feed.open(ALL, None), await feed.open(ALL, None)
        taken = slow.told()
        first = asyncio.ensure_future(anext(taken))
        following = asyncio.create_task(take(quick, 30))
        await until(lambda: rows.looks > 0)
        for number in range(30):
            event = rows.tell()
            await until(lambda at=event.id: feed.after(at) is not None and feed._position >= at)  # type: ignore[misc]
            if number == 0:
                assert await first == event
        assert len(await following) == 30
        assert [told async for told in taken] == []
        assert (feed.dropped, feed.readers) == (1, 1)
        # With the last id that he saw he comes back, and misses nothing.
        again = await feed.open(ALL, 1)
        assert ids([told async for told in again.told(wait=False)]) == list(range(2, 31))

    with_feed(test, kept=5)


def test_there_are_never_more_readers_than_that() -> None:
    async def test(rows: MemoryLive, feed: EventFeed) -> None:
        opened = await asyncio.gather(*(feed.open(ALL, None) for _ in range(4)), return_exceptions=True)
        assert [isinstance(one, TooManyReadersError) for one in opened] == [False, False, True, True]
        assert isinstance(opened[0], EventReader)
        opened[0].close()
        await feed.open(ALL, None)
        rows.is_away = True
        assert isinstance(opened[1], EventReader)
        opened[1].close()
        with pytest.raises(LedgerUnreachableError):
            await feed.open(ALL, None)
        assert feed.readers == 1

    with_feed(test, most_readers=2)


def test_nothing_is_looked_for_while_nobody_reads() -> None:
    async def test(rows: MemoryLive, feed: EventFeed) -> None:
        reader = await feed.open(ALL, None)
        await until(lambda: rows.looks > 2)
        reader.close()
        task = feed._task
        assert task is not None
        await task
        looks = rows.looks
        missed = rows.tell()
        again = await feed.open(ALL, missed.id)
        assert rows.looks == looks
        taking = asyncio.create_task(take(again, 1))
        new = rows.tell()
        assert await taking == [new]

    with_feed(test)


def test_a_database_that_is_away_for_a_while_costs_no_event() -> None:
    async def test(rows: MemoryLive, feed: EventFeed) -> None:
        reader = await feed.open(ALL, None)
        taking = asyncio.create_task(take(reader, 2))
        await until(lambda: rows.looks > 0)
        rows.is_away = True
        events = [rows.tell(), rows.tell(EventKind.RUN_SUCCESS)]
        await asyncio.sleep(0.05)
        rows.is_away = False
        assert await taking == events

    with_feed(test)


def test_at_the_end_everybody_goes() -> None:
    async def test(_rows: MemoryLive, feed: EventFeed) -> None:
        readers = [await feed.open(ALL, None) for _ in range(3)]
        taking = [asyncio.create_task(take(reader, 1)) for reader in readers]
        await asyncio.sleep(0.02)
        await feed.close()
        assert await asyncio.gather(*taking) == [[], [], []]
        with pytest.raises(TooManyReadersError):
            await feed.open(ALL, None)

    with_feed(test)


def test_nobody_waits_for_events_of_what_is_not_there() -> None:
    async def test(rows: MemoryLive, feed: EventFeed) -> None:
        rows.tell(run_id="mine")
        await feed.read(EventFilter("default", run_id="mine"), None)
        for foreign in (EventFilter("other", run_id="mine"), EventFilter("default", "i", "another")):
            with pytest.raises(NotFoundError):
                await feed.read(foreign, None)

    with_feed(test)
