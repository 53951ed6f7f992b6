"""Prefect's news: hints that are followed, streams that end, and the token that lets its calls in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from app.domain.errors import SchedulerUnavailableError
from app.services import prefect_hints
from app.services.prefect_callback import Callback
from app.services.prefect_hints import MOST_WAITING, TOKEN_HASH, PrefectCallback, PrefectHints, PrefectStream, hash_of

URL = "http://autoloader:8000"


@dataclass
class Notes:
    kept: dict[str, str] = field(default_factory=dict)

    def noted(self, name: str) -> str | None:
        return self.kept.get(name)

    def note(self, name: str, value: str) -> None:
        self.kept[name] = value


@dataclass
class FakeCaller:
    """Prefect, as far as it calls us."""

    held: Callback | None = None
    made: int = 0
    is_away: bool = False

    async def callback(self) -> Callback | None:
        if self.is_away:
            raise SchedulerUnavailableError
        return self.held

    async def set_callback(self, callback: Callback) -> None:
        self.held = callback
        self.made += 1

    async def remove_callback(self) -> None:
        self.held = None


@dataclass
class Looks:
    seen: list[str] = field(default_factory=list)
    fails: int = 0

    async def at(self, flow_run_id: str) -> None:
        if self.fails:
            self.fails -= 1
            raise SchedulerUnavailableError if self.fails else RuntimeError("a defect")
        self.seen.append(flow_run_id)

    async def at_all(self) -> None:
        self.seen.append("all")


def followed(tell: Callable[[PrefectHints], Awaitable[None]], looks: Looks) -> None:
    async def run() -> None:
        hints = PrefectHints(Notes(), looks.at, looks.at_all)
        task = asyncio.create_task(hints.run())
        async with asyncio.timeout(30):
            await tell(hints)
        task.cancel()

    asyncio.run(run())


async def _until(done: Callable[[], bool]) -> None:
    while not done():  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.005)


def test_each_flow_run_is_asked_about_once_however_often_it_is_named() -> None:
    looks = Looks()

    async def tell(hints: PrefectHints) -> None:
        for flow_run_id in ("a", "b", "a"):
            hints.tell(flow_run_id)
        await _until(lambda: len(looks.seen) == 2)
        hints.tell("a")
        await _until(lambda: len(looks.seen) == 3)

    followed(tell, looks)
    assert looks.seen == ["a", "b", "a"]


def test_too_many_or_none_by_name_are_asked_about_all_together() -> None:
    looks = Looks()

    async def tell(hints: PrefectHints) -> None:
        hints.tell(None)
        await _until(lambda: looks.seen == ["all"])
        for number in range(MOST_WAITING + 5):
            hints.tell(str(number))
        await _until(lambda: len(looks.seen) == MOST_WAITING + 2)

    followed(tell, looks)
    assert looks.seen[1] == "all"


def test_what_goes_wrong_ends_nothing() -> None:
    looks = Looks(fails=2)

    async def tell(hints: PrefectHints) -> None:
        for flow_run_id in ("a", "b", "c"):
            hints.tell(flow_run_id)
            await asyncio.sleep(0.02)
        await _until(lambda: looks.seen == ["c"])

    followed(tell, looks)


def test_a_stream_that_ends_is_opened_again_while_prefect_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_hints, "FIRST_PAUSE_S", 0.01)
    opened: list[bool] = []
    is_there = False
    told: list[str] = []

    async def stream() -> AsyncIterator[str]:
        opened.append(True)
        yield f"f-{len(opened)}"
        if len(opened) == 2:
            raise OSError("the line broke")

    async def run() -> None:
        nonlocal is_there
        task = asyncio.create_task(PrefectStream(stream, lambda: is_there, told.append).run())
        await asyncio.sleep(0.1)
        assert opened == []
        is_there = True
        async with asyncio.timeout(30):
            await _until(lambda: len(told) >= 3)
        task.cancel()

    asyncio.run(run())
    assert told[:3] == ["f-1", "f-2", "f-3"]


def test_the_token_is_made_once_and_only_its_hash_is_kept() -> None:
    async def run() -> None:
        prefect, notes, learned = FakeCaller(), Notes(), list[str]()
        keeper = PrefectCallback(prefect, notes, f"{URL}/", learned.extend)
        for _ in range(3):
            await keeper.ensure()
        assert prefect.made == 1
        assert prefect.held is not None
        assert prefect.held.url == f"{URL}/api/v1/webhooks/prefect"
        token = prefect.held.token
        assert notes.kept == {TOKEN_HASH: hash_of(token)}
        assert set(learned) == {token}
        hints = PrefectHints(notes, Looks().at, Looks().at_all)
        assert await hints.accepts(token)
        assert not await hints.accepts(hash_of(token))
        assert not await PrefectHints(Notes(), Looks().at, Looks().at_all).accepts("")

    asyncio.run(run())


def test_what_was_lost_or_changed_on_either_side_is_made_anew() -> None:
    async def run() -> None:
        prefect, notes = FakeCaller(), Notes()
        keeper = PrefectCallback(prefect, notes, URL, lambda _: None)
        await keeper.ensure()
        before = notes.kept[TOKEN_HASH]
        prefect.held = None
        await keeper.ensure()
        notes.kept.clear()
        await keeper.ensure()
        prefect.held = Callback("http://old/api/v1/webhooks/prefect", prefect.held.token if prefect.held else "")
        await keeper.ensure()
        assert prefect.made == 4
        assert notes.kept[TOKEN_HASH] != before
        prefect.is_away = True
        with pytest.raises(SchedulerUnavailableError):
            await keeper.ensure()

    asyncio.run(run())


def test_without_an_address_prefect_does_not_call() -> None:
    async def run() -> None:
        prefect = FakeCaller(Callback(URL, "t"))
        await PrefectCallback(prefect, Notes(), None, lambda _: None).ensure()
        assert prefect.held is None

    asyncio.run(run())
