"""What a scheduler promises, held against a real Prefect server and the fake alike."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest

from app.domain.errors import DeploymentGoneError
from app.domain.ingestions import IngestionStatus, Schedule
from app.services.prefect_plans import PrefectSettings
from app.services.prefect_service import PrefectService
from app.services.schedules import Cron
from tests.fakes.scheduler import MemoryScheduler
from tests.support.ingestions import an_ingestion
from tests.support.prefect_server import PrefectServer

T = TypeVar("T")


@dataclass
class Rig:
    """A scheduler, and the loop that it is asked from."""

    scheduler: MemoryScheduler | PrefectService
    run: Callable[[Coroutine[Any, Any, T]], T]


@pytest.fixture(params=["fake", "real"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Both of them; the real one calls the server an installation of its own."""
    if request.param == "fake":
        with asyncio.Runner() as runner:
            yield Rig(MemoryScheduler(), runner.run)
        return
    server: PrefectServer = request.getfixturevalue("prefect")
    service = PrefectService(PrefectSettings(server.api_url, uuid.uuid4().hex[:12], timeout_s=150))
    with asyncio.Runner() as runner:
        assert runner.run(service.initialize()), service.trouble
        yield Rig(service, runner.run)
        runner.run(service.close())


def test_a_deployment_is_made_once_and_matches_what_was_wanted(rig: Rig) -> None:
    ingestion = an_ingestion()
    first = rig.run(rig.scheduler.create_deployment(ingestion))
    assert rig.run(rig.scheduler.create_deployment(ingestion)) == first
    (found,) = rig.run(rig.scheduler.list_deployments())
    assert (found.id, found.name, found.ingestion_id) == (first, f"ingestion-{ingestion.id}", ingestion.id)
    assert found.schedules == (Cron("0 * * * *", "UTC"),)
    assert found.parameters == {"ingestion_id": ingestion.id, "trigger": "scheduled"}
    assert {"autoloader", "tenant-default", "source-s3"} < set(found.tags)
    assert found.queue == "autoloader-default"
    assert found.matches(rig.scheduler.plan(ingestion))


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": Schedule("daily", time="14:30", timezone="Europe/Berlin")},
        {"schedule": None},
        {"status": IngestionStatus.PAUSED},
        {"discovered_bytes": 11 << 30},
        {"tenant": "other"},
        {"document": {"source": {"type": "gcs", "path": "gs://bucket/"}}},
    ],
)
def test_a_change_is_seen_and_sent(rig: Rig, change: dict[str, Any]) -> None:
    ingestion = an_ingestion()
    first = rig.run(rig.scheduler.create_deployment(ingestion))
    changed = replace(ingestion, **change)
    assert not rig.run(rig.scheduler.list_deployments())[0].matches(rig.scheduler.plan(changed))
    assert rig.run(rig.scheduler.create_deployment(changed)) == first
    assert rig.run(rig.scheduler.list_deployments())[0].matches(rig.scheduler.plan(changed))


def test_pause_resume_and_delete_may_be_said_again_and_of_what_is_gone(rig: Rig) -> None:
    deployment_id = rig.run(rig.scheduler.create_deployment(an_ingestion()))
    for _ in range(2):
        rig.run(rig.scheduler.pause_deployment(deployment_id))
        assert [d.paused for d in rig.run(rig.scheduler.list_deployments())] == [True]
    for _ in range(2):
        rig.run(rig.scheduler.resume_deployment(deployment_id))
        assert [d.paused for d in rig.run(rig.scheduler.list_deployments())] == [False]
    for _ in range(2):
        rig.run(rig.scheduler.delete_deployment(deployment_id))
        assert rig.run(rig.scheduler.list_deployments()) == []
    rig.run(rig.scheduler.pause_deployment(deployment_id))
    rig.run(rig.scheduler.resume_deployment(deployment_id))
    with pytest.raises(DeploymentGoneError):
        rig.run(rig.scheduler.trigger_deployment(deployment_id))


def test_a_pause_is_a_change_that_leaves_the_deployment_as_it_was_made(rig: Rig) -> None:
    ingestion = an_ingestion()
    paused = replace(ingestion, status=IngestionStatus.PAUSED)
    assert rig.scheduler.fingerprint(ingestion) != rig.scheduler.fingerprint(paused)
    deployment_id = rig.run(rig.scheduler.create_deployment(ingestion))
    rig.run(rig.scheduler.pause_deployment(deployment_id))
    (found,) = rig.run(rig.scheduler.list_deployments())
    assert found.matches(rig.scheduler.plan(paused))
    assert not found.matches(rig.scheduler.plan(ingestion))


def test_an_order_is_given_once_and_a_further_attempt_is_another(rig: Rig) -> None:
    ingestion = an_ingestion()
    deployment_id = rig.run(rig.scheduler.create_deployment(ingestion))
    order = {"ingestion_id": ingestion.id, "trigger": "manual", "run_id": uuid.uuid4().hex}
    first = rig.run(rig.scheduler.trigger_deployment(deployment_id, order))
    assert rig.run(rig.scheduler.trigger_deployment(deployment_id, order)) == first
    second = rig.run(rig.scheduler.trigger_deployment(deployment_id, order, after=first))
    assert second != first
    runs = rig.run(rig.scheduler.get_flow_runs(deployment_id))
    ours = [run for run in runs if run.parameters.get("run_id")]
    assert {run.id for run in ours} == {first, second}
    assert all(run.parameters == order and run.state == "SCHEDULED" for run in ours)
    assert set(rig.run(rig.scheduler.flow_runs_by_id([first, second, str(uuid.uuid4())]))) == {first, second}
    assert len(rig.run(rig.scheduler.get_flow_runs(deployment_id, limit=1))) == 1


def test_a_flow_run_that_is_said_to_have_crashed_is_over(rig: Rig) -> None:
    ingestion = an_ingestion(schedule=None)
    deployment_id = rig.run(rig.scheduler.create_deployment(ingestion))
    flow_run_id = rig.run(rig.scheduler.trigger_deployment(deployment_id, {"run_id": uuid.uuid4().hex}))
    assert rig.run(rig.scheduler.open_flow_runs()) == []
    for _ in range(2):
        rig.run(rig.scheduler.end_flow_run(flow_run_id, "Its process is gone.", crashed=True))
        assert [r.state for r in rig.run(rig.scheduler.get_flow_runs(deployment_id))] == ["CRASHED"]
    rig.run(rig.scheduler.end_flow_run(str(uuid.uuid4()), "Nobody knows it.", crashed=True))
