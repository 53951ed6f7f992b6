"""While Prefect is waited for, nothing of the database is held: no transaction, no lock, no connection."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import QueuePool

from app.domain.ingestions import Deployment, IngestionStatus, Method, Trigger, User
from app.domain.service import NewIngestion, NewRun, RetryPolicy
from app.persistence.keys import Keyring
from app.persistence.service import SqlServiceStore, open_service_store
from app.services.clearing import Fenced
from app.services.direct_runs import ChildProcesses, DirectRunner, DirectSettings
from app.services.ingestion_service import IngestionService, ServiceSettings
from app.services.prefect_plans import PrefectSettings
from app.services.prefect_service import PrefectService
from app.services.reconciler import PassReport, Reconciler
from tests.support.listener import Listener

USER = User()
# Longer than any test takes: whoever waits for Prefect waits on.
FOREVER_S = 300.0
PATIENCE_S = 60.0
DOCUMENT = {
    "source": {"type": "s3", "path": "s3://b/"},
    "destination": {"database": "db", "table": "t"},
    "schedule": {"frequency": "hourly"},
}


@dataclass
class Scene:
    """A service whose Prefect hears everything and never says a word."""

    store: SqlServiceStore
    service: IngestionService
    prefect: PrefectService
    server: Listener
    reconciler: Reconciler

    def add(self) -> str:
        name = uuid.uuid4().hex
        new = NewIngestion(name, "default", name, IngestionStatus.ACTIVE, "local.db.t", DOCUMENT)
        made = self.store.add_ingestion(new).id
        self.store.set_deployment(made, Deployment(str(uuid.uuid4()), "old"))
        return made

    async def create(self) -> object:
        return await self.service.create_ingestion({"name": "n", **DOCUMENT}, USER)

    async def update(self) -> object:
        return await self.service.update_ingestion(self.add(), {"schedule": {"frequency": "daily"}}, None, USER)

    async def pause(self) -> object:
        return await self.service.pause_ingestion(self.add(), USER)

    async def run(self) -> object:
        return await self.service.trigger_manual_run(self.add(), USER)

    async def delete(self) -> None:
        delete = self.service.delete_ingestion
        await delete(self.add(), delete_table=False, expected_versions=None, current_user=USER)

    async def reconcile(self) -> object:
        self.add()
        return await self.reconciler.run_pass()

    async def settle(self) -> None:
        # As if it had answered last: the reconciler asks no other.
        self.prefect._has_answered = True
        run = NewRun(uuid.uuid4().hex, self.add(), Trigger.MANUAL, Method.PREFECT, flow_run_id=str(uuid.uuid4()))
        self.store.queue_run(run)
        await self.reconciler.settle_runs(PassReport())


@pytest.fixture
def scene(url: str, tmp_path: Path) -> Iterator[Scene]:
    store = open_service_store(url, Keyring("a passphrase", None, tmp_path), lambda _: None)
    with closing(Listener(None)) as server:
        prefect = PrefectService(PrefectSettings(server.url, "here", timeout_s=FOREVER_S, pause_s=0))
        runner = DirectRunner(store, ChildProcesses(("/bin/false",), {}), DirectSettings())
        settings = ServiceSettings("local", str(tmp_path), 0.0, RetryPolicy(), lambda: ["local"])
        service = IngestionService(store, runner, NothingToDrop(), settings, prefect)
        yield Scene(store, service, prefect, server, Reconciler(store, prefect, RetryPolicy(), grace_s=0))
    store.dispose()


class NothingToDrop:
    """No table is dropped here."""

    def drop(self, table: str) -> bool:
        raise AssertionError(table)

    def fence(self, table: str) -> Fenced:
        raise AssertionError(table)


@pytest.mark.parametrize("verb", ["create", "update", "pause", "run", "delete", "reconcile", "settle"])
def test_whoever_waits_for_prefect_holds_nothing(scene: Scene, verb: str) -> None:
    act: Callable[[], Awaitable[object]] = getattr(scene, verb)

    async def play() -> None:
        await scene.prefect._connection.open()
        asked = scene.server.connections
        waiting = asyncio.ensure_future(act())
        async with asyncio.timeout(PATIENCE_S):
            while scene.server.connections == asked:
                assert not waiting.done(), await waiting
                await asyncio.sleep(0.01)
            pool = scene.store._engine.pool
            assert isinstance(pool, QueuePool)
            # The one before it may just be giving its connection back.
            while pool.checkedout():
                assert not waiting.done()
                await asyncio.sleep(0.01)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await scene.prefect.close()

    asyncio.run(play())
