"""Prefect's news reach us by its event stream, by its calls and by our own looks: any one is enough.

A run waits in Prefect for a worker that never comes, and somebody cancels its flow run there. Each time all ways but
one are shut.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import uvicorn

from app.api.application import application
from app.api.services import Services
from app.config import Settings
from app.domain.ingestions import Method, RunRecord, Trigger, User
from app.domain.live import EventFilter
from app.domain.redaction import Redactor
from app.domain.runs import RunStatus
from app.domain.service import NewRun, RetryPolicy
from app.services.access import AccessControl
from app.services.health import HealthBoard
from app.services.prefect_hints import CALLBACK_PATH, PrefectCallback, PrefectHints, PrefectStream
from app.services.prefect_service import PrefectService
from app.services.reconciler import PassReport, Reconciler
from app.wiring.service import Service, build_service
from tests.support.api_in_memory import FakePreviews
from tests.support.prefect_server import PrefectServer
from tests.support.servers import free_ports

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.timeout(1_200)]

Post = Callable[[str, str], Awaitable[int]]
RETRY = RetryPolicy(times=3, delay_s=0.0)
HOURLY = {"frequency": "hourly", "timezone": "UTC"}
PATIENCE_S = 120.0


@dataclass
class Scene:
    """A service's parts, none of which does anything by itself."""

    server: PrefectServer
    service: Service
    redactor: Redactor
    prefect: PrefectService = field(init=False)
    reconciler: Reconciler = field(init=False)

    def __post_init__(self) -> None:
        assert isinstance(self.service.scheduler, PrefectService)
        self.prefect = self.service.scheduler
        self.reconciler = Reconciler(self.service.store, self.prefect, RETRY, grace_s=60)

    async def waiting(self) -> RunRecord:
        """A run that Prefect was asked for and nobody carries out."""
        name = uuid.uuid4().hex
        document = {
            "name": name,
            "source": {"type": "local", "path": "/nowhere"},
            "destination": {"database": "d", "table": f"t_{name}"},
            "schedule": HOURLY,
        }
        made = (await self.service.ingestions.create_ingestion(document, User())).ingestion
        assert made.deployment is not None
        run = self.service.store.queue_run(NewRun(uuid.uuid4().hex, made.id, Trigger.MANUAL, Method.PREFECT))
        order = {"ingestion_id": made.id, "trigger": "manual", "run_id": run.id}
        flow_run_id = await self.prefect.trigger_deployment(made.deployment.id, order)
        self.service.store.set_flow_run(run.id, flow_run_id)
        found = self.service.store.run(run.id)
        assert found is not None
        return found

    async def cancelled_there(self, run: RunRecord) -> None:
        """Somebody cancels its flow run in Prefect."""
        assert run.flow_run_id is not None
        body = {"state": {"type": "CANCELLED", "name": "Cancelled", "message": "By hand."}}
        await asyncio.to_thread(self.server.ask, f"/flow_runs/{run.flow_run_id}/set_state", body)

    async def until_cancelled(self, run: RunRecord) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.status(run) is not RunStatus.CANCELLED:  # noqa: ASYNC110 - other processes do it
                await asyncio.sleep(0.1)

    def status(self, run: RunRecord) -> RunStatus:
        found = self.service.store.run(run.id)
        assert found is not None
        return found.status

    def told(self, run: RunRecord) -> list[str]:
        found = self.service.store.events_after(0, EventFilter(run_id=run.id), limit=100)
        return [event.kind.value for event in found.events]


@pytest.fixture
def scene(prefect: PrefectServer, tmp_path: Path) -> Iterator[Scene]:
    settings = Settings(autoloader_home=tmp_path, autoloader_worker="off", prefect_api_url=prefect.api_url)
    redactor = Redactor()
    service = build_service(settings, {}, redactor)
    yield Scene(prefect, service, redactor)
    service.close()


@asynccontextmanager
async def connected(scene: Scene) -> AsyncIterator[PrefectHints]:
    """Prefect is there, and hints are followed."""
    with scene.prefect.patiently():
        assert await scene.prefect.initialize(), scene.prefect.trouble
        hints = PrefectHints(scene.service.store, scene.reconciler.look_at, _nothing)
        task = asyncio.create_task(hints.run())
        try:
            yield hints
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await scene.prefect.close()


async def _nothing() -> None:
    """No look at all runs: that is another way."""


@asynccontextmanager
async def _heard(scene: Scene, hints: PrefectHints, port: int) -> AsyncIterator[Post]:
    """The API is there for Prefect's calls, in this very event loop."""
    service = scene.service
    access = AccessControl(service.store)

    @asynccontextmanager
    async def open_services() -> AsyncIterator[Services]:
        yield Services(
            service.ingestions,
            FakePreviews(),
            service.store,
            HealthBoard(),
            access,
            service.events,
            service.metrics(),
            service.webhooks,
            hints=hints,
        )
        await access.close()

    config = uvicorn.Config(application(open_services, "0"), port=port, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    # Without its handlers of signals, which are the test's own.
    task = asyncio.create_task(server._serve())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE_S) as client:

        async def post(token: str, body: str) -> int:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            return (await client.post(CALLBACK_PATH, content=body, headers=headers)).status_code

        async with asyncio.timeout(PATIENCE_S):
            while not server.started:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        try:
            yield post
        finally:
            server.should_exit = True
            await task


def test_its_stream_alone_is_enough(scene: Scene) -> None:
    async def run() -> None:
        async with connected(scene) as hints:
            heard = asyncio.Event()

            def tell(flow_run_id: str) -> None:
                heard.set()
                hints.tell(flow_run_id)

            stream = PrefectStream(scene.prefect.flow_run_events, lambda: scene.prefect.initialized, tell)
            task = asyncio.create_task(stream.run())
            # What happens while it is being opened may never be told. One that has told something is open.
            async with asyncio.timeout(PATIENCE_S):
                while not heard.is_set():
                    await scene.cancelled_there(await scene.waiting())
                    with suppress(TimeoutError):
                        await asyncio.wait_for(heard.wait(), 2)
            waiting = await scene.waiting()
            await scene.cancelled_there(waiting)
            await scene.until_cancelled(waiting)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert scene.told(waiting) == ["run.queued", "run.updated", "run.cancelled"]

    asyncio.run(run())


def test_our_own_looks_alone_are_enough(scene: Scene) -> None:
    async def run() -> None:
        async with connected(scene):
            waiting = await scene.waiting()
            await scene.reconciler.settle_runs(PassReport())
            assert scene.status(waiting) is RunStatus.QUEUED
            await scene.cancelled_there(waiting)
            for _ in range(2):
                await scene.reconciler.settle_runs(PassReport())
            assert scene.status(waiting) is RunStatus.CANCELLED
            assert scene.told(waiting) == ["run.queued", "run.updated", "run.cancelled"]

    asyncio.run(run())


def test_its_calls_alone_are_enough_and_change_nothing_when_they_come_again(scene: Scene) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"

    async def run() -> None:
        async with AsyncExitStack() as stack:
            hints = await stack.enter_async_context(connected(scene))
            post = await stack.enter_async_context(_heard(scene, hints, port))
            keeper = PrefectCallback(scene.prefect, scene.service.store, url, scene.redactor.learn)
            stack.push_async_callback(scene.prefect.remove_callback)
            await keeper.ensure()
            held = await scene.prefect.callback()
            assert held is not None
            assert held.url == f"{url}{CALLBACK_PATH}"
            await keeper.ensure()
            assert await scene.prefect.callback() == held
            waiting = await scene.waiting()
            await scene.cancelled_there(waiting)
            await scene.until_cancelled(waiting)
            body = json.dumps({"flow_run_id": waiting.flow_run_id})
            assert await post(held.token, body) == 202
            assert await post("another", body) == 401
            assert scene.told(waiting) == ["run.queued", "run.updated", "run.cancelled"]
            assert held.token not in scene.redactor.text(f"it said {held.token}")
            # Of our token nothing is kept here, and when it is not wanted any more Prefect forgets it too.
            await PrefectCallback(scene.prefect, scene.service.store, None, scene.redactor.learn).ensure()
            assert await scene.prefect.callback() is None

    asyncio.run(run())
