from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import SchedulerUnavailableError
from app.domain.ingestions import Ingestion, IngestionStatus, Method, Trigger, User
from app.domain.runs import RunStatus
from app.domain.service import NewIngestion, NewRun, RetryPolicy
from app.persistence.leases import this_process
from app.persistence.service import SqlServiceStore, keyring, open_service_store
from app.services.migrating import Migration
from app.services.prefect_beat import LEASE_ID, SILENT, PrefectBeat, WithoutPrefect
from app.services.prefect_worker import WorkerChild, is_dead_worker, worker_name
from app.services.reconciler import Reconciler
from tests.fakes.scheduler import MemoryScheduler
from tests.support.listener import Listener
from tests.unit.services.desk import DEAD


async def no_pause(_seconds: float) -> None:
    """Time does not pass."""


@dataclass
class Server(MemoryScheduler):
    """A scheduler in memory that is also looked at."""

    trouble: str = ""
    pool_type: str | None = "process"
    workers: list[str] = field(default_factory=list)
    unserved: list[str] = field(default_factory=list)
    has_missed: bool = False

    def missed(self) -> bool:
        missed, self.has_missed = self.has_missed, False
        return missed

    async def ping(self) -> bool:
        self.trouble = "It is away." if self.is_away else ""
        return not self.is_away

    async def workers_online(self) -> list[str]:
        self._asked("workers")
        return self.workers

    async def unserved_queues(self) -> list[str]:
        self._asked("queues")
        return self.unserved


@dataclass
class Desk:
    """A beat, and what it told."""

    store: SqlServiceStore
    prefect: Server
    beat: PrefectBeat
    told: list[tuple[bool, str, Mapping[str, Any]]]

    def add(self, tenant: str = "default", table: str = "local.shop.events") -> str:
        document = {"source": {"type": "local", "path": "/in"}, "schedule": {"frequency": "hourly"}}
        name = uuid.uuid4().hex
        new = NewIngestion(name, tenant, name, IngestionStatus.ACTIVE, table, document)
        return self.store.add_ingestion(new).id

    async def once(self) -> tuple[bool, str, Mapping[str, Any]]:
        await self.beat.beat()
        return self.told[-1]


def a_beat(store: SqlServiceStore, prefect: Server, told: list[Any], **options: Any) -> PrefectBeat:
    reconciler = Reconciler(store, prefect, RetryPolicy(), grace_s=0, pause=no_pause)
    tell = lambda up, detail, facts: told.append((up, detail, facts))  # noqa: E731
    options = {"ensure_worker": None, **options}
    return PrefectBeat(prefect, reconciler, store, this_process(), tell=tell, **options)


@pytest.fixture
def store(url: str, tmp_path: Path) -> Iterator[SqlServiceStore]:
    found = open_service_store(url, keyring(url, "a passphrase", None, tmp_path), lambda _values: None)
    yield found
    found.dispose()


@pytest.fixture
def desk(store: SqlServiceStore) -> Desk:
    told: list[Any] = []
    prefect = Server()
    return Desk(store, prefect, a_beat(store, prefect, told), told)


def test_a_beat_tells_how_prefect_is(desk: Desk) -> None:
    desk.prefect.is_away = True
    assert asyncio.run(desk.once()) == (False, "It is away.", {})
    desk.prefect.is_away = False
    up, detail, facts = asyncio.run(desk.once())
    assert (up, detail) == (True, "No worker is online for the work pool.")
    desk.prefect.workers = ["mine"]
    up, detail, facts = asyncio.run(desk.once())
    assert (up, detail, facts["workers"]) == (True, "", ["mine"])
    desk.prefect.unserved = ["autoloader-high-memory"]
    _, detail, _ = asyncio.run(desk.once())
    assert detail == "No worker takes runs from the work queue autoloader-high-memory: those that belong there wait."
    desk.prefect.pool_type = "docker"
    _, detail, _ = asyncio.run(desk.once())
    assert "autoloader-high-memory" in detail
    assert "docker" in detail


def test_a_prefect_that_answers_a_greeting_and_nothing_else_is_told(desk: Desk) -> None:
    async def lost() -> list[str]:
        raise SchedulerUnavailableError("Prefect answered 500.", remedy="Look into its log.")

    beat = a_beat(desk.store, desk.prefect, desk.told, ensure_worker=lost)
    asyncio.run(beat.beat())
    assert desk.told == [(False, "Prefect answered 500. Look into its log.", {})]


def test_workers_are_those_that_the_service_sees_to(desk: Desk) -> None:
    async def ensured() -> list[str]:
        return ["ours"]

    beat = a_beat(desk.store, desk.prefect, desk.told, ensure_worker=ensured)
    asyncio.run(beat.beat())
    assert desk.told == [(True, "", {"workers": ["ours"], "pool_type": "process", "unserved_queues": []})]


def play(beat: PrefectBeat, act: Callable[[], Awaitable[None]]) -> None:
    """Have all loops run until `act` has ended."""

    async def scene() -> None:
        task = asyncio.create_task(beat.run())
        try:
            async with asyncio.timeout(60):
                await act()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scene())


async def come(look: Callable[[], object]) -> None:
    """Wait until it is so: a fake tells nobody."""
    while not look():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def test_prefect_is_reconciled_as_soon_as_it_is_back_and_then_is_left_alone(desk: Desk) -> None:
    desk.add()
    desk.prefect.is_away = True

    async def beats(count: int) -> None:
        enough = len(desk.told) + count
        await come(lambda: len(desk.told) > enough)

    async def comes_back() -> None:
        await beats(3)
        assert desk.prefect.deployments == {}
        for passes in (1, 2):
            desk.prefect.is_away = False
            await come(lambda: desk.prefect.deployments)
            await beats(5)
            assert desk.prefect.sent.count("list") == passes
            # It goes again, and comes back with an empty database.
            desk.prefect.deployments.clear()
            desk.prefect.is_away = True
            await come(lambda: desk.told[-1][0] is False)

    play(a_beat(desk.store, desk.prefect, desk.told, beat_s=0.02, reconcile_s=600), comes_back)


@dataclass
class Stubborn(Server):
    """Makes a deployment when it is asked again."""

    goes_away: bool = False

    async def create_deployment(self, ingestion: Ingestion) -> str:
        if f"refused {ingestion.id}" not in self.sent:
            self.sent.append(f"refused {ingestion.id}")
            self.is_away = self.goes_away
            raise SchedulerUnavailableError
        return await super().create_deployment(ingestion)

    async def ping(self) -> bool:
        self.is_away = False
        return await super().ping()


@pytest.mark.parametrize("goes_away", [False, True])
def test_what_a_pass_could_not_do_is_done_soon(desk: Desk, *, goes_away: bool) -> None:
    """Refused, or left because Prefect was away for a moment in which nobody looked."""
    desk.add()
    prefect = Stubborn(goes_away=goes_away)

    async def stands() -> None:
        await come(lambda: prefect.deployments)

    play(a_beat(desk.store, prefect, desk.told, beat_s=0.02, reconcile_s=600, soon_s=0.05), stands)


def test_a_defect_ends_one_beat_and_no_more(desk: Desk) -> None:
    class Faulty(Server):
        """A beat of it fails as nobody expected."""

        async def ping(self) -> bool:
            if not self.sent:
                self.sent.append("a defect")
                raise ZeroDivisionError
            return await super().ping()

    async def beats_on() -> None:
        await come(lambda: desk.told)

    play(a_beat(desk.store, Faulty(), desk.told, beat_s=0.02), beats_on)


def test_runs_are_settled_between_passes_and_without_prefect(desk: Desk) -> None:
    desk.prefect.is_away = True
    ingestion_id = desk.add()
    run = desk.store.queue_run(NewRun("r1", ingestion_id, Trigger.MANUAL, Method.PREFECT))
    desk.store.acquire(ingestion_id, run.id, DEAD, 60)
    desk.store.begin_run(run.id)

    def status() -> RunStatus:
        found = desk.store.run(run.id)
        assert found is not None
        return found.status

    async def settled() -> None:
        await come(lambda: status() is RunStatus.QUEUED)

    play(a_beat(desk.store, desk.prefect, desk.told, beat_s=0.02, reconcile_s=600), settled)


def test_of_several_processes_one_reconciles(desk: Desk) -> None:
    desk.add()
    other = desk.store.acquire(LEASE_ID, "another process", this_process(), 60)

    async def turn() -> None:
        await desk.beat.beat()
        await desk.beat.reconcile()

    asyncio.run(turn())
    assert desk.prefect.deployments == {}
    desk.store.release(other)  # type: ignore[arg-type]
    asyncio.run(turn())
    assert len(desk.prefect.deployments) == 1


def test_whoever_does_not_reach_prefect_leaves_reconciling_to_others(desk: Desk) -> None:
    """It keeps settling runs all the same, where nobody else does."""
    blind = Server(is_away=True)
    first = a_beat(desk.store, blind, [])
    run_id = desk.add()
    run = desk.store.queue_run(NewRun("r1", run_id, Trigger.MANUAL, Method.PREFECT))
    desk.store.acquire(run_id, run.id, DEAD, 60)
    desk.store.begin_run(run.id)

    async def turn(beat: PrefectBeat) -> None:
        await beat.beat()
        await beat.reconcile()
        await beat.settle()

    asyncio.run(turn(first))
    settled = desk.store.run(run.id)
    assert settled is not None
    assert settled.status is RunStatus.QUEUED
    asyncio.run(turn(desk.beat))
    assert len(desk.prefect.deployments) == 1
    # The one that reaches it keeps the lease, also from one that reaches it again.
    blind.is_away = False
    asyncio.run(turn(first))
    assert blind.deployments == {}


def test_a_scheduler_that_makes_nothing_ahead_is_silent(desk: Desk) -> None:
    desk.add()
    desk.prefect.is_silent = True

    async def passes(count: int) -> tuple[bool, str, Mapping[str, Any]]:
        for _ in range(count):
            await desk.beat.beat()
            await desk.beat.reconcile()
        return await desk.once()

    # The pass that makes the deployment, and the first that finds nothing, may just be too early.
    assert asyncio.run(passes(2))[0] is True
    assert asyncio.run(passes(1))[:2] == (False, SILENT)
    desk.prefect.is_silent = False
    assert asyncio.run(passes(1))[0] is True


def test_where_nothing_is_due_nothing_is_made_ahead(desk: Desk) -> None:
    desk.prefect.is_silent = True

    async def passes() -> bool:
        for _ in range(4):
            await desk.beat.beat()
            await desk.beat.reconcile()
        return (await desk.once())[0]

    assert asyncio.run(passes()) is True


def test_where_scheduling_is_off_queued_runs_go_directly(desk: Desk) -> None:
    run = desk.store.queue_run(NewRun("r1", desk.add(), Trigger.MANUAL, Method.PREFECT))
    begun = desk.store.queue_run(NewRun("r2", desk.add(table="local.db.other"), Trigger.MANUAL, Method.PREFECT))
    # By a worker that died before scheduling was switched off.
    desk.store.acquire(begun.ingestion_id, begun.id, DEAD, 60.0)
    desk.store.begin_run(begun.id)
    told: list[Any] = []
    retry = RetryPolicy(times=1, delay_s=0)
    asyncio.run(WithoutPrefect(desk.store, retry, tell=lambda *news: told.append(news)).beat())
    assert {one.id for one in desk.store.due_runs(Method.DIRECT)} == {run.id, begun.id}
    assert told[0][0] is False


# --- migration --------------------------------------------------------------------------------------------------------


def test_a_migration_says_first_and_does_then(desk: Desk) -> None:
    ids = {desk.add() for _ in range(3)}
    migration = Migration(Reconciler(desk.store, desk.prefect, RetryPolicy(), grace_s=0, pause=no_pause))
    planned = asyncio.run(migration.migrate(User(), dry_run=True))
    assert (planned.scheduled, planned.present, set(planned.created)) == (3, 0, ids)
    assert desk.prefect.deployments == {}
    steps: list[tuple[int, int]] = []
    done = asyncio.run(migration.migrate(User(), dry_run=False, on_progress=lambda *step: steps.append(step)))
    assert (set(done.created), done.left, done.is_whole) == (ids, 0, True)
    assert steps[-1] == (3, 3)
    again = asyncio.run(migration.migrate(User(), dry_run=False))
    assert (again.present, again.created) == (3, ())


def test_a_migration_is_the_tenants_who_asks_and_of_all_where_nobody_is_named(desk: Desk) -> None:
    mine, theirs = desk.add(), desk.add(tenant="other", table="local.db.other")
    migration = Migration(Reconciler(desk.store, desk.prefect, RetryPolicy(), grace_s=0, pause=no_pause))
    planned = asyncio.run(migration.migrate(User(tenant="other"), dry_run=True))
    assert (planned.scheduled, planned.created) == (1, (theirs,))
    assert asyncio.run(migration.migrate(User(), dry_run=False)).created == (mine,)
    assert len(desk.prefect.deployments) == 1
    assert asyncio.run(migration.migrate(None, dry_run=False)).created == (theirs,)


def test_a_migration_that_runs_out_of_time_leaves_the_rest_for_the_next(desk: Desk) -> None:
    for _ in range(3):
        desk.add()
    migration = Migration(Reconciler(desk.store, desk.prefect, RetryPolicy(), grace_s=0, pause=no_pause))
    first = asyncio.run(migration.migrate(User(), dry_run=False, within_s=-1))
    assert (first.created, first.left, first.is_whole) == ((), 3, False)
    assert len(asyncio.run(migration.migrate(User(), dry_run=False)).created) == 3


def test_a_migration_without_prefect_says_so(desk: Desk) -> None:
    desk.prefect.is_away = True
    migration = Migration(Reconciler(desk.store, desk.prefect, RetryPolicy(), grace_s=0, pause=no_pause))
    with pytest.raises(SchedulerUnavailableError):
        asyncio.run(migration.migrate(User(), dry_run=True))


# --- the worker -------------------------------------------------------------------------------------------------------


def test_a_worker_of_ours_whose_process_is_gone_is_none() -> None:
    assert not is_dead_worker(worker_name())
    assert is_dead_worker(f"autoloader-{socket.gethostname()}-4194305")
    assert not is_dead_worker("autoloader-elsewhere-4194305")
    assert not is_dead_worker("ProcessWorker 1234")


@pytest.mark.parametrize(("workers", "pool_type"), [(["theirs"], "process"), ([], "docker")])
def test_no_worker_is_started_where_one_is_online_or_the_pool_is_anothers(workers: list[str], pool_type: str) -> None:
    child = WorkerChild(Server(workers=workers, pool_type=pool_type), "pool", dict(os.environ))
    assert asyncio.run(child.ensure()) == workers
    assert child.pid is None


def test_a_worker_that_is_started_ends_with_the_service() -> None:
    async def life() -> tuple[int | None, int | None]:
        # Its server takes connections and says nothing; that it is one process, started once, is what counts here.
        child = WorkerChild(Server(), "pool", {**os.environ, "PREFECT_API_URL": silent.url})
        await child.ensure()
        first = child.pid
        await child.ensure()
        again = child.pid
        await child.stop()
        assert child.pid is None
        return first, again

    with closing(Listener(None)) as silent:
        first, again = asyncio.run(life())
    assert first is not None
    assert first == again
    assert not Path(f"/proc/{first}").exists()


def test_what_prefect_did_not_hear_is_not_left_for_a_minute(store: SqlServiceStore) -> None:
    prefect = Server()
    told: list[Any] = []
    beat = a_beat(store, prefect, told, beat_s=0.05, reconcile_s=3600, soon_s=3600)
    desk = Desk(store, prefect, beat, told)

    async def act() -> None:
        first = desk.add()
        await until_deployed(prefect, first)
        second = desk.add(table="local.shop.others")
        prefect.has_missed = True
        await until_deployed(prefect, second)

    play(beat, act)


async def until_deployed(prefect: Server, ingestion_id: str) -> None:
    while f"ingestion-{ingestion_id}" not in {plan.name for plan in prefect.deployments.values()}:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
