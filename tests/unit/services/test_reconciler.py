from __future__ import annotations

import asyncio
import itertools
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.domain.errors import SchedulerUnavailableError
from app.domain.ingestions import Deployment, Ingestion, IngestionStatus, Method, Trigger
from app.domain.runs import Lease, Owner, RunReport, RunStatus
from app.domain.service import NewIngestion, NewRun, RetryPolicy
from app.persistence.leases import this_process
from app.persistence.service import SqlServiceStore, keyring, open_service_store
from app.services import reconciler
from app.services.prefect_plans import FoundDeployment
from app.services.reconciler import PassReport, Reconciler
from tests.fakes.scheduler import MemoryScheduler
from tests.unit.services.desk import DEAD


async def no_pause(_seconds: float) -> None:
    """Time does not pass."""


@dataclass
class Desk:
    """A database, a scheduler in memory, and the reconciler between them."""

    store: SqlServiceStore
    prefect: MemoryScheduler
    reconciler: Reconciler

    def add(self, schedule: dict[str, str] | None = None, **changes: object) -> Ingestion:
        document = {"source": {"type": "local", "path": "/in"}, "schedule": schedule or {"frequency": "hourly"}}
        new = NewIngestion(
            id=str(uuid.uuid4()),
            tenant="default",
            name=uuid.uuid4().hex,
            status=IngestionStatus.ACTIVE,
            table="local.shop.events",
            document=document,
        )
        return self.store.add_ingestion(replace(new, **changes))  # type: ignore[arg-type]

    def queue(self, ingestion: Ingestion, flow_run_id: str | None = None) -> str:
        run = NewRun(uuid.uuid4().hex, ingestion.id, Trigger.MANUAL, Method.PREFECT, flow_run_id=flow_run_id)
        return self.store.queue_run(run).id

    def again(self) -> PassReport:
        return asyncio.run(self.reconciler.run_pass())

    def look(self, ingestion: Ingestion) -> Ingestion:
        found = self.store.ingestion(ingestion.id, deleted=True)
        assert found is not None
        return found


@pytest.fixture
def desk(url: str, tmp_path: Path) -> Iterator[Desk]:
    store = open_service_store(url, keyring(url, "a passphrase", None, tmp_path), lambda _values: None)
    prefect = MemoryScheduler()
    yield Desk(store, prefect, Reconciler(store, prefect, RetryPolicy(times=2, delay_s=0), grace_s=0, pause=no_pause))
    store.dispose()


def test_every_deployment_stands_after_a_pass_and_the_next_one_sends_nothing(desk: Desk) -> None:
    some = [desk.add() for _ in range(5)]
    assert sorted(desk.again().made) == sorted(one.id for one in some)
    assert {plan.name for plan in desk.prefect.deployments.values()} == {f"ingestion-{one.id}" for one in some}
    assert all(desk.look(one).deployment is not None for one in some)
    desk.prefect.sent.clear()
    assert desk.again().is_quiet
    assert desk.prefect.sent == ["list", "open"]


def test_prefect_back_with_an_empty_database_has_all_of_them_again(desk: Desk) -> None:
    one = desk.add()
    desk.again()
    before = desk.look(one).deployment
    desk.prefect.deployments.clear()
    assert desk.again().made == [one.id]
    after = desk.look(one).deployment
    assert before is not None
    assert after is not None
    assert before.id != after.id


def test_an_outage_ends_the_pass_and_the_next_one_does_the_rest(desk: Desk) -> None:
    some = [desk.add() for _ in range(3)]
    desk.prefect.is_away = True
    assert desk.again().left == 1
    desk.prefect.is_away = False
    assert len(desk.again().made) == len(some)


def test_an_outage_in_the_middle_leaves_the_rest_for_the_next_pass(desk: Desk) -> None:
    for _ in range(5):
        desk.add()

    def stop_after_two(report: PassReport) -> None:
        desk.prefect.is_away = len(report.made) >= 2

    async def broken_off() -> PassReport:
        report = PassReport()
        actions = (await desk.reconciler.compare()).actions
        await desk.reconciler.carry_out(actions, report, on_step=stop_after_two)
        return report

    report = asyncio.run(broken_off())
    assert 2 <= len(report.made) <= 3
    assert report.left == 5 - len(report.made)
    desk.prefect.is_away = False
    assert len(desk.again().made) == 5 - len(report.made)


def test_a_deleted_ingestion_is_forgotten_when_its_deployment_is_gone(desk: Desk) -> None:
    one = desk.add()
    desk.again()
    desk.store.bury_ingestion(one.id, None)
    report = desk.again()
    assert (report.removed, report.buried) == ([one.id], [one.id])
    assert desk.prefect.deployments == {}
    assert desk.store.ingestion(one.id, deleted=True) is None
    assert desk.again().is_quiet


def test_an_ingestion_that_is_deleted_while_its_deployment_is_made_leaves_none(desk: Desk) -> None:
    one = desk.add()

    async def late() -> None:
        actions = (await desk.reconciler.compare()).actions
        desk.store.bury_ingestion(one.id, None)
        desk.store.remove_ingestion(one.id)
        await desk.reconciler.carry_out(actions, PassReport())

    asyncio.run(late())
    assert desk.prefect.deployments == {}


def test_an_ingestion_that_is_deleted_while_prefect_makes_its_deployment_leaves_none(desk: Desk) -> None:
    class Slow(MemoryScheduler):
        async def create_deployment(self, ingestion: Ingestion) -> str:
            made = await super().create_deployment(ingestion)
            # Whoever deletes it now finds no deployment in its row.
            desk.store.bury_ingestion(ingestion.id, None)
            desk.store.remove_ingestion(ingestion.id)
            return made

    desk.add()
    prefect = Slow()
    report = asyncio.run(Reconciler(desk.store, prefect, RetryPolicy(), grace_s=0, pause=no_pause).run_pass())
    assert (report.made, prefect.deployments) == ([], {})


def test_a_draft_has_no_deployment_and_a_paused_one_has_a_paused_one(desk: Desk) -> None:
    desk.add(status=IngestionStatus.DRAFT)
    paused = desk.add(status=IngestionStatus.PAUSED)
    assert desk.again().made == [paused.id]
    assert [plan.paused for plan in desk.prefect.deployments.values()] == [True]


def test_a_schedule_that_cannot_be_read_any_more_stops_nobody_else(desk: Desk) -> None:
    desk.add({"frequency": "daily", "timezone": "Mars/Olympus"})
    good = desk.add()
    assert desk.again().made == [good.id]


def test_one_that_prefect_refuses_stops_nobody_else(desk: Desk) -> None:
    refused, *others = [desk.add() for _ in range(5)]

    class Refusing(MemoryScheduler):
        async def create_deployment(self, ingestion: Ingestion) -> str:
            if ingestion.id == refused.id:
                raise SchedulerUnavailableError("Prefect answered 409.")
            return await super().create_deployment(ingestion)

    report = asyncio.run(Reconciler(desk.store, Refusing(), RetryPolicy(), grace_s=0, pause=no_pause).run_pass())
    assert (sorted(report.made), report.left) == (sorted(one.id for one in others), 0)
    assert list(report.failed) == [refused.id]
    assert "Prefect answered 409." in report.failed[refused.id]


def test_bulk_work_goes_at_a_rate_that_prefect_bears(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five a second, one after the other: what was sent and the rest after it take a fifth of a second together."""
    some = [desk.add() for _ in range(6)]
    for one in some[:3]:
        asyncio.run(desk.prefect.create_deployment(one))
    rests: list[float] = []
    # Between two looks at the clock, and so in all that is sent, 50 milliseconds go by.
    ticks = itertools.count()
    monkeypatch.setattr(reconciler, "time", SimpleNamespace(monotonic=lambda: next(ticks) * 0.05))

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    report = asyncio.run(Reconciler(desk.store, desk.prefect, RetryPolicy(), grace_s=0, pause=rest).run_pass())
    assert (len(report.made), len(report.noted)) == (3, 3)
    assert rests == pytest.approx([0.15] * 3)


def test_what_is_made_while_both_sides_are_read_is_nobodys_orphan(desk: Desk) -> None:
    class Busy(MemoryScheduler):
        async def list_deployments(self) -> list[FoundDeployment]:
            if not self.deployments:
                # Just then somebody makes an ingestion, and it is scheduled.
                await self.create_deployment(desk.add())
            return await super().list_deployments()

    prefect = Busy()
    report = asyncio.run(Reconciler(desk.store, prefect, RetryPolicy(), grace_s=0, pause=no_pause).run_pass())
    assert (report.removed, len(prefect.deployments)) == ([], 1)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_schedule_that_was_taken_away_is_nowhere(desk: Desk, *, is_there: bool) -> None:
    one, _ = a_scheduled_one(desk)
    present = desk.look(one)
    desk.store.change_ingestion(_without_schedule(present), None, present.version)
    if not is_there:
        desk.prefect.deployments.clear()
    assert not desk.again().is_quiet
    assert (desk.prefect.deployments, desk.look(one).deployment) == ({}, None)
    assert desk.again().is_quiet


def _without_schedule(one: Ingestion) -> Ingestion:
    return replace(one, document={name: value for name, value in one.document.items() if name != "schedule"})


def test_a_tombstone_of_which_prefect_knows_nothing_is_forgotten(desk: Desk) -> None:
    one, _ = a_scheduled_one(desk)
    desk.store.bury_ingestion(one.id, None)
    desk.prefect.deployments.clear()
    assert desk.again().buried == [one.id]
    assert desk.store.ingestion(one.id, deleted=True) is None


def test_a_schedule_that_is_taken_away_while_its_deployment_is_to_be_made_has_none(desk: Desk) -> None:
    one = desk.add()

    async def late() -> PassReport:
        report = PassReport()
        actions = (await desk.reconciler.compare()).actions
        desk.store.change_ingestion(_without_schedule(one), None, one.version)
        await desk.reconciler.carry_out(actions, report)
        return report

    assert asyncio.run(late()).made == []
    assert desk.prefect.deployments == {}


# --- runs -------------------------------------------------------------------------------------------------------------


def a_scheduled_one(desk: Desk) -> tuple[Ingestion, str]:
    one = desk.add()
    desk.again()
    deployment = desk.look(one).deployment
    assert deployment is not None
    return one, deployment.id


def old(desk: Desk, run_id: str, seconds: float = 10) -> None:
    """Make it look as if the run had been queued so long ago."""
    with desk.store._write() as connection:
        connection.exec_driver_sql(
            f"update runs set created_at = created_at - {int(seconds * 1e6)} where id = '{run_id}'"
        )


def test_a_run_of_which_prefect_never_heard_is_given_to_it_once(desk: Desk) -> None:
    one, _ = a_scheduled_one(desk)
    run_id = desk.queue(one)
    old(desk, run_id, -600)  # young, however long this takes
    assert desk.again().given_again == []  # whoever queued it is about to do so
    old(desk, run_id, 610)
    assert desk.again().given_again == [run_id]
    (flow_run,) = desk.prefect.flow_runs.values()
    run = desk.store.run(run_id)
    assert run is not None
    assert (run.flow_run_id, flow_run.parameters["run_id"]) == (flow_run.id, run_id)
    assert desk.again().given_again == []


def test_an_unknown_answer_of_prefect_is_looked_up_and_never_doubled(desk: Desk) -> None:
    one, deployment_id = a_scheduled_one(desk)
    run_id = desk.queue(one)
    order = {"ingestion_id": one.id, "trigger": "manual", "run_id": run_id}
    lost = asyncio.run(desk.prefect.trigger_deployment(deployment_id, order))
    old(desk, run_id)
    desk.again()
    run = desk.store.run(run_id)
    assert run is not None
    assert run.flow_run_id == lost
    assert len(desk.prefect.flow_runs) == 1


def test_a_run_whose_flow_run_ended_without_it_is_given_again_and_not_for_ever(desk: Desk) -> None:
    one, _ = a_scheduled_one(desk)
    run_id = desk.queue(one)
    old(desk, run_id)
    given = 0
    for _ in range(4):
        given += len(desk.again().given_again)
        for flow_run_id, flow_run in desk.prefect.flow_runs.items():
            desk.prefect.flow_runs[flow_run_id] = replace(flow_run, state="CRASHED")
    assert given == 2
    run = desk.store.run(run_id)
    assert run is not None
    assert (run.method, run.status) == (Method.DIRECT, RunStatus.QUEUED)


@pytest.mark.parametrize("way", ["look_at", "settle_runs"])
def test_what_is_cancelled_in_prefect_is_cancelled_here_whichever_way_we_hear_of_it(desk: Desk, way: str) -> None:
    one, _ = a_scheduled_one(desk)
    run_id = desk.queue(one)
    old(desk, run_id)
    desk.again()
    run = desk.store.run(run_id)
    assert run is not None
    assert run.flow_run_id is not None

    async def hear() -> None:
        if way == "look_at":
            await desk.reconciler.look_at(str(run.flow_run_id))
        else:
            await desk.reconciler.settle_runs(PassReport())

    asyncio.run(hear())
    assert [run.id for run in desk.store.open_runs(Method.PREFECT)] == [run_id]
    desk.prefect.flow_runs[run.flow_run_id] = replace(desk.prefect.flow_runs[run.flow_run_id], state="CANCELLED")
    for _ in range(2):
        asyncio.run(hear())
    ended = desk.store.run(run_id)
    assert ended is not None
    assert ended.status is RunStatus.CANCELLED
    assert desk.store.open_runs(Method.PREFECT) == []
    assert len(desk.prefect.flow_runs) == 1


def test_news_of_a_flow_run_that_crashed_have_its_run_given_again_at_once(desk: Desk) -> None:
    one, _ = a_scheduled_one(desk)
    run_id = desk.queue(one)
    old(desk, run_id)
    desk.again()
    (flow_run_id,) = desk.prefect.flow_runs
    desk.prefect.flow_runs[flow_run_id] = replace(desk.prefect.flow_runs[flow_run_id], state="CRASHED")
    desk.prefect.sent.clear()
    asyncio.run(desk.reconciler.look_at(flow_run_id))
    assert len(desk.prefect.flow_runs) == 2
    # Of flow runs that are nobody's here Prefect is not even asked.
    desk.prefect.sent.clear()
    asyncio.run(desk.reconciler.look_at(str(uuid.uuid4())))
    assert desk.prefect.sent == []


def test_news_of_a_flow_run_whose_process_died_have_prefect_told(desk: Desk) -> None:
    one, deployment_id = a_scheduled_one(desk)
    flow_run_id = asyncio.run(desk.prefect.trigger_deployment(deployment_id))
    run_id = desk.queue(one, flow_run_id)
    old(desk, run_id)
    _at_work(desk, one, run_id, owner=DEAD)
    asyncio.run(desk.reconciler.look_at(flow_run_id))
    # Nobody else would tell it soon: settled is a run only once.
    assert desk.prefect.flow_runs[flow_run_id].state == "CRASHED"
    assert len(desk.prefect.flow_runs) == 2


def test_a_run_waits_for_a_prefect_that_is_away_and_then_goes_without(desk: Desk) -> None:
    one, _ = a_scheduled_one(desk)
    run_id = desk.queue(one)
    old(desk, run_id, 30)
    desk.prefect.is_away = True

    async def settled() -> PassReport:
        report = PassReport()
        await desk.reconciler.settle_runs(report)
        return report

    assert asyncio.run(settled()).gone_without == []
    old(desk, run_id, 31)
    assert asyncio.run(settled()).gone_without == [run_id]
    assert [run.id for run in desk.store.due_runs(Method.DIRECT)] == [run_id]


def _handed_over(desk: Desk, one: Ingestion) -> str:
    """A run that its process handed over and did no more for: Prefect has not heard of it."""
    deployment = desk.look(one).deployment
    assert deployment is not None
    run_id = desk.queue(one)
    old(desk, run_id, 600)
    order = {"ingestion_id": one.id, "trigger": "manual", "run_id": run_id}
    desk.store.set_flow_run(run_id, asyncio.run(desk.prefect.trigger_deployment(deployment.id, order)))
    lease = desk.store.acquire(one.id, run_id, this_process(), 60)
    assert isinstance(lease, Lease)
    begun = desk.store.begin_run(run_id)
    assert begun is not None
    handed = desk.store.hand_over_run(RunReport(run_id, begun.table, discovered_bytes=11 << 30), "Much.", attempt=1)
    assert handed.handed_over_at is not None
    return run_id


def test_a_run_that_was_handed_over_is_given_to_its_queue_once_its_first_flow_run_is_over(desk: Desk) -> None:
    one, deployment_id = a_scheduled_one(desk)
    run_id = _handed_over(desk, one)
    (first,) = desk.prefect.flow_runs
    # Whoever handed it over may be about to have the next one made.
    desk.prefect.flow_runs[first] = replace(desk.prefect.flow_runs[first], state="RUNNING")
    assert desk.again().given_again == []
    desk.prefect.flow_runs[first] = replace(desk.prefect.flow_runs[first], state="COMPLETED")
    assert desk.again().given_again == [run_id]
    first, second = desk.prefect.flow_runs
    assert [desk.prefect.queues[id_] for id_ in (first, second)] == ["autoloader-priority", "autoloader-high-memory"]
    run = desk.store.run(run_id)
    assert run is not None
    assert (run.flow_run_id, run.status) == (second, RunStatus.QUEUED)
    order = {"ingestion_id": one.id, "trigger": "manual", "run_id": run_id}
    assert desk.prefect.flow_runs[second].parameters == order
    assert desk.again().given_again == []
    # Whoever asks late, as the process that handed it over, is told the same one.
    late = desk.prefect.trigger_deployment(deployment_id, order, after=first, queue="autoloader-high-memory")
    assert asyncio.run(late) == second


def test_a_flow_run_that_began_counts_none_of_the_times_that_a_run_is_given_in_vain(desk: Desk) -> None:
    one, _ = a_scheduled_one(desk)
    run_id = _handed_over(desk, one)
    begun = 1
    for state in ("CRASHED", "CRASHED", "begun", "CRASHED"):
        for flow_run_id, flow_run in desk.prefect.flow_runs.items():
            desk.prefect.flow_runs[flow_run_id] = replace(flow_run, state="CRASHED")
        if state == "begun":
            _at_work(desk, one, run_id, -1)
            begun += 1
        assert desk.again().given_again == [run_id]
    run = desk.store.run(run_id)
    assert run is not None
    assert (run.attempts, run.method) == (begun, Method.PREFECT)


def test_a_run_that_was_handed_over_waits_for_prefect_from_then_on_and_goes_without(desk: Desk) -> None:
    one, _ = a_scheduled_one(desk)
    run_id = _handed_over(desk, one)
    desk.prefect.is_away = True
    report = PassReport()
    asyncio.run(desk.reconciler.settle_runs(report))
    assert report.gone_without == []
    with desk.store._engine.begin() as connection:
        connection.exec_driver_sql("update runs set handed_over_at = handed_over_at - 61000000")
    asyncio.run(desk.reconciler.settle_runs(report))
    assert report.gone_without == [run_id]


def test_a_scheduled_run_is_given_again_to_the_queue_of_its_schedule(desk: Desk) -> None:
    one, _ = a_scheduled_one(desk)
    run = NewRun("r1", one.id, Trigger.SCHEDULED, Method.PREFECT, flow_run_id=str(uuid.uuid4()))
    desk.store.queue_run(run)
    old(desk, "r1")
    assert desk.again().given_again == ["r1"]
    assert list(desk.prefect.queues.values()) == ["autoloader-default"]


def test_a_run_without_a_deployment_goes_without_prefect(desk: Desk) -> None:
    one, _ = a_scheduled_one(desk)
    desk.store.set_deployment(one.id, None)
    run_id = desk.queue(one)
    old(desk, run_id)
    report = PassReport()
    asyncio.run(desk.reconciler.settle_runs(report))
    assert report.gone_without == [run_id]


def _at_work(desk: Desk, one: Ingestion, run_id: str, seconds: float = 60, owner: Owner | None = None) -> None:
    lease = desk.store.acquire(one.id, run_id, owner or this_process(), seconds)
    assert isinstance(lease, Lease)
    assert desk.store.begin_run(run_id) is not None


def test_a_run_whose_processes_die_is_given_to_prefect_again_and_then_given_up(desk: Desk) -> None:
    one, deployment_id = a_scheduled_one(desk)
    run_id = desk.queue(one)
    order = {"ingestion_id": one.id, "trigger": "manual", "run_id": run_id}
    flow_run_id = asyncio.run(desk.prefect.trigger_deployment(deployment_id, order))
    desk.store.set_flow_run(run_id, flow_run_id)
    old(desk, run_id)
    flow_runs = []
    for attempt in (1, 2, 3):
        run = desk.store.run(run_id)
        assert run is not None
        flow_runs.append(str(run.flow_run_id))
        _at_work(desk, one, run_id, owner=DEAD)
        report = desk.again()
        # Prefect takes it to be at work for ever, where its worker died too.
        assert report.crashed == [flow_runs[-1]]
        assert desk.prefect.flow_runs[flow_runs[-1]].state == "CRASHED"
        assert report.given_again == ([run_id] if attempt < 3 else [])
    run = desk.store.run(run_id)
    assert run is not None
    assert (run.status, run.attempts, run.errors[-1]["category"]) == (RunStatus.FAILED, 3, "run_died")
    assert len(set(flow_runs)) == 3
    assert desk.again().is_quiet


def test_a_run_that_is_to_go_on_later_is_given_to_prefect_then(desk: Desk) -> None:
    one, deployment_id = a_scheduled_one(desk)
    run_id = desk.queue(one, asyncio.run(desk.prefect.trigger_deployment(deployment_id)))
    old(desk, run_id)
    _at_work(desk, one, run_id, owner=DEAD)
    late = Reconciler(desk.store, desk.prefect, RetryPolicy(times=1, delay_s=3600), grace_s=0, pause=no_pause)
    assert asyncio.run(late.run_pass()).given_again == []
    assert asyncio.run(late.run_pass()).given_again == []
    with desk.store._write() as connection:
        connection.exec_driver_sql("update runs set next_attempt_at = next_attempt_at - 3601000000")
    assert asyncio.run(late.run_pass()).given_again == [run_id]


def test_prefect_is_told_nothing_of_a_run_that_went_without_it(desk: Desk) -> None:
    one, deployment_id = a_scheduled_one(desk)
    run_id = desk.queue(one, asyncio.run(desk.prefect.trigger_deployment(deployment_id)))
    desk.store.reroute_run(run_id, Method.DIRECT)
    _at_work(desk, one, run_id, owner=DEAD)
    assert desk.again().crashed == []
    run = desk.store.run(run_id)
    assert run is not None
    assert (run.method, run.status, run.attempts) == (Method.DIRECT, RunStatus.QUEUED, 1)


def test_a_flow_run_with_a_live_lease_is_left_and_one_without_is_ended(desk: Desk) -> None:
    one, deployment_id = a_scheduled_one(desk)
    run_id = desk.queue(one)
    order = {"ingestion_id": one.id, "trigger": "manual", "run_id": run_id}
    flow_run_id = asyncio.run(desk.prefect.trigger_deployment(deployment_id, order))
    desk.store.set_flow_run(run_id, flow_run_id)
    running = replace(desk.prefect.flow_runs[flow_run_id], state="RUNNING", start_time=desk.look(one).created_at)
    desk.prefect.flow_runs[flow_run_id] = running
    _at_work(desk, one, run_id)
    assert desk.again().crashed == []
    with desk.store._engine.begin() as connection:
        connection.exec_driver_sql("update leases set expires_at = 0")
    report = desk.again()
    assert report.crashed == [flow_run_id]
    assert desk.prefect.flow_runs[flow_run_id].state == "CRASHED"
    # Its machine died: the run goes on by itself, under the same id.
    old(desk, run_id)
    assert desk.again().given_again == [run_id]
    assert len(desk.prefect.flow_runs) == 2


def test_a_flow_run_whose_run_has_just_ended_is_left_to_say_so_itself(desk: Desk) -> None:
    one, deployment_id = a_scheduled_one(desk)
    run_id = desk.queue(one)
    order = {"ingestion_id": one.id, "trigger": "manual", "run_id": run_id}
    flow_run_id = asyncio.run(desk.prefect.trigger_deployment(deployment_id, order))
    desk.store.set_flow_run(run_id, flow_run_id)
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    running = replace(desk.prefect.flow_runs[flow_run_id], state="CANCELLING", start_time=long_ago)
    desk.prefect.flow_runs[flow_run_id] = running
    desk.store.cancel_queued(run_id, "Asked for.")
    desk.reconciler._grace = timedelta(seconds=60)
    assert desk.again().crashed == []
    desk.reconciler._grace = timedelta()
    assert desk.again().crashed == [flow_run_id]


def test_a_flow_run_of_nobody_is_ended(desk: Desk) -> None:
    one, deployment_id = a_scheduled_one(desk)
    flow_run_id = asyncio.run(desk.prefect.trigger_deployment(deployment_id))
    pending = replace(desk.prefect.flow_runs[flow_run_id], state="PENDING", start_time=desk.look(one).created_at)
    desk.prefect.flow_runs[flow_run_id] = pending
    assert desk.again().crashed == [flow_run_id]
    assert desk.prefect.flow_runs[flow_run_id].state == "CRASHED"


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_flow_run_is_known_by_its_row_or_by_the_run_that_it_names(desk: Desk, *, is_noted: bool) -> None:
    """A scheduled one names no run; of one that was triggered the row may not have been told yet."""
    one, deployment_id = a_scheduled_one(desk)
    run_id = uuid.uuid4().hex
    order = {"ingestion_id": one.id} if is_noted else {"ingestion_id": one.id, "run_id": run_id}
    flow_run_id = asyncio.run(desk.prefect.trigger_deployment(deployment_id, order))
    found = desk.prefect.flow_runs[flow_run_id]
    desk.prefect.flow_runs[flow_run_id] = replace(found, state="RUNNING", start_time=desk.look(one).created_at)
    noted = flow_run_id if is_noted else None
    desk.store.queue_run(NewRun(run_id, one.id, Trigger.MANUAL, Method.PREFECT, flow_run_id=noted))
    _at_work(desk, one, run_id)
    assert desk.again().crashed == []


def test_a_flow_run_whose_run_is_over_is_ended(desk: Desk) -> None:
    one, deployment_id = a_scheduled_one(desk)
    flow_run_id = asyncio.run(desk.prefect.trigger_deployment(deployment_id))
    found = desk.prefect.flow_runs[flow_run_id]
    desk.prefect.flow_runs[flow_run_id] = replace(found, state="RUNNING", start_time=desk.look(one).created_at)
    desk.store.cancel_queued(desk.queue(one, flow_run_id), "Not wanted any more.")
    assert desk.again().crashed == [flow_run_id]


def test_a_run_that_prefect_refuses_stops_no_other(desk: Desk) -> None:
    some = [a_scheduled_one(desk) for _ in range(2)]
    runs = [desk.queue(one) for one, _ in some]
    for run_id in runs:
        old(desk, run_id)
    # Somebody took this one away in Prefect a moment ago.
    del desk.prefect.deployments[some[0][1]]
    report = PassReport()
    asyncio.run(desk.reconciler.settle_runs(report))
    assert report.given_again == [runs[1]]


def test_what_was_noted_is_what_prefect_has(desk: Desk) -> None:
    one = desk.add()
    made = asyncio.run(desk.prefect.create_deployment(one))
    assert desk.again().noted == [one.id]
    assert desk.look(one).deployment == Deployment(made, desk.prefect.fingerprint(one))
    assert os.getpid() == this_process().pid
