"""The verbs on a real database, with a scheduler in memory that can be away, and a runner that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import (
    CatalogUnreachableError,
    ConfirmationNeededError,
    InvalidFieldError,
    LoadIngestionError,
    NameTakenError,
    NotActiveError,
    NotFoundError,
    NothingToRetryError,
    RunAtWorkError,
    RunOverError,
    SchedulerUnavailableError,
    SecretKeyError,
    SharedTableError,
    VersionMismatchError,
)
from app.domain.ingestions import Deployment, Ingestion, IngestionStatus, Method, RunRecord, Trigger, User
from app.domain.runs import RunReport, RunStatus
from app.domain.service import IngestionQuery, NewRun, RetryPolicy, RunStop
from app.persistence.keys import Keyring
from app.persistence.leases import this_process
from app.persistence.service import SqlServiceStore, open_service_store
from app.services.clearing import Fenced
from app.services.ingestion_service import LATER, NOT_SCHEDULED, IngestionService, ServiceSettings
from tests.fakes.scheduler import MemoryScheduler
from tests.unit.services.desk import DEAD

USER = User()
STRANGER = User("eve", "other")
HOURLY = {"frequency": "hourly"}
KEYS = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "not-a-real-secret"}
RETRY = RetryPolicy(times=1, delay_s=0.0)


def document(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Orders",
        "source": {"path": "s3://bucket/orders/"},
        "destination": {"database": "shop", "table": "orders"},
        **changes,
    }


def _only(version: int | None) -> set[int] | None:
    return None if version is None else {version}


@dataclass
class MemoryRunner:
    """Carries nothing out; `act` may do so in its place."""

    store: SqlServiceStore
    asked: list[tuple[str, float]] = field(default_factory=list)
    act: Callable[[str], object] = bool

    def nudge(self) -> None:
        pass

    async def run(self, run_id: str, wait_s: float) -> RunRecord:
        self.asked.append((run_id, wait_s))
        await asyncio.to_thread(self.act, run_id)
        found = self.store.run(run_id)
        assert found is not None
        return found


@dataclass
class MemoryDropper:
    dropped: list[str] = field(default_factory=list)
    fenced: list[str] = field(default_factory=list)

    is_away: bool = False

    def drop(self, table: str) -> bool:
        if self.is_away:
            raise CatalogUnreachableError
        self.dropped.append(table)
        return True

    def fence(self, table: str) -> Fenced:
        if self.is_away:
            raise CatalogUnreachableError
        self.fenced.append(table)
        return Fenced({})


class Scene:
    """A service, and what it works with."""

    def __init__(self, url: str, folder: Path, *, scheduling: bool = True) -> None:
        self.store = open_service_store(url, Keyring(None, None, folder), lambda _: None)
        self.scheduler = MemoryScheduler()
        self.runner = MemoryRunner(self.store)
        self.dropper = MemoryDropper()
        settings = ServiceSettings("local", str(folder), 30.0, RETRY, lambda: ["local", "lake"])
        scheduler = self.scheduler if scheduling else None
        self.service = IngestionService(self.store, self.runner, self.dropper, settings, scheduler)

    def do(self, verb: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(verb)

    def create(self, **changes: Any) -> Ingestion:
        made: Ingestion = self.do(self.service.create_ingestion(document(**changes), USER)).ingestion
        return made

    def update(self, ingestion: Ingestion, changes: dict[str, Any], version: int | None = None) -> Any:
        return self.do(self.service.update_ingestion(ingestion.id, changes, _only(version), USER))

    def trigger(self, ingestion: Ingestion) -> Any:
        return self.do(self.service.trigger_manual_run(ingestion.id, USER))

    def delete(self, ingestion: Ingestion, *, table: bool = False, version: int | None = None) -> None:
        self.do(
            self.service.delete_ingestion(
                ingestion.id, delete_table=table, expected_versions=_only(version), current_user=USER
            )
        )

    def get(self, ingestion: Ingestion) -> Ingestion:
        found: Ingestion = self.do(self.service.get_ingestion(ingestion.id, USER))
        return found

    def begin(self, run: RunRecord) -> None:
        self.store.acquire(run.ingestion_id, run.id, this_process(), 60.0)
        self.store.begin_run(run.id)

    def end(self, run_id: str, stop: RunStop | None = None) -> None:
        run = self.store.run(run_id)
        assert run is not None
        self.begin(run)
        report = RunReport(run_id=run_id, table=run.table, status=RunStatus.FAILED if stop else RunStatus.SUCCESS)
        self.store.end_run(report, stop, RETRY)


@pytest.fixture
def scene(url: str, tmp_path: Path) -> Any:
    scene = Scene(url, tmp_path)
    yield scene
    scene.store.dispose()


# --- create --------------------------------------------------------------------------------------------------------


def test_a_scheduled_ingestion_has_its_deployment_at_once(scene: Scene) -> None:
    made = scene.do(scene.service.create_ingestion(document(schedule=HOURLY), USER))
    assert made.warnings == ()
    (deployment_id,) = scene.scheduler.deployments
    assert made.ingestion.deployment.id == deployment_id
    assert scene.get(made.ingestion) == made.ingestion


def test_one_without_a_schedule_and_a_draft_have_none(scene: Scene) -> None:
    scene.create()
    scene.create(name="later", status="draft", schedule=HOURLY)
    assert scene.scheduler.sent == []


def test_a_scheduler_that_is_away_is_a_warning(scene: Scene) -> None:
    scene.scheduler.is_away = True
    made = scene.do(scene.service.create_ingestion(document(schedule=HOURLY), USER))
    assert made.warnings == (NOT_SCHEDULED,)
    assert made.ingestion.deployment is None
    assert scene.get(made.ingestion) == made.ingestion


def test_without_a_scheduler_the_same_is_told(url: str, tmp_path: Path) -> None:
    scene = Scene(url, tmp_path, scheduling=False)
    made = scene.do(scene.service.create_ingestion(document(schedule=HOURLY), USER))
    assert made.warnings == (NOT_SCHEDULED,)
    scene.store.dispose()


def test_the_row_is_committed_before_the_scheduler_is_called(scene: Scene) -> None:
    seen = []

    class Looking(MemoryScheduler):
        async def create_deployment(self, ingestion: Ingestion) -> str:
            # From another connection, and writing: no transaction of ours is open.
            seen.append(await asyncio.to_thread(scene.store.ingestion, ingestion.id))
            await asyncio.to_thread(scene.store.set_discovered, ingestion.id, 1)
            raise SchedulerUnavailableError

    scene.service._scheduler = Looking()
    made = scene.create(schedule=HOURLY)
    assert [one.id for one in seen if one] == [made.id]


def test_what_will_not_run_is_said(scene: Scene) -> None:
    destination = {"catalog": "spark_catalog", "database": "d", "table": "t"}
    made = scene.do(scene.service.create_ingestion(document(cluster_id="cluster_123", destination=destination), USER))
    assert "'cluster_123'" in made.warnings[0]
    assert "'spark_catalog'" in made.warnings[1]
    known = scene.do(
        scene.service.create_ingestion(
            document(name="n", destination={"catalog": "lake", "database": "d", "table": "t"}), USER
        )
    )
    assert known.warnings == ()


def test_a_folder_that_is_not_there_is_said(scene: Scene, tmp_path: Path) -> None:
    def warnings(name: str, path: str) -> tuple[str, ...]:
        source = {"type": "local", "path": path}
        made: tuple[str, ...] = scene.do(
            scene.service.create_ingestion(document(name=name, source=source), USER)
        ).warnings
        return made

    missing = tmp_path / "landing" / "2026"
    (said,) = warnings("a", str(missing))
    assert said == f"There is no {missing} on this machine: runs fail until it is where they are carried out."
    assert warnings("b", f"file://{missing}") == (said,)
    # What matches some day need not match now.
    assert warnings("c", f"{missing}/*/x-[0-9].json") == warnings("c2", f"{tmp_path}/{{a,b}}") == ()
    missing.mkdir(parents=True)
    assert warnings("d", str(missing)) == warnings("e", f"file://{missing}") == ()
    made = scene.do(scene.service.create_ingestion(document(name="f"), USER)).ingestion
    changed = {"source": {"type": "local", "path": f"{missing}/gone"}}
    told = scene.do(scene.service.update_ingestion(made.id, changed, expected_versions=None, current_user=USER))
    assert told.warnings == (
        f"There is no {missing}/gone on this machine: runs fail until it is where they are carried out.",
    )


def test_what_is_refused_leaves_nothing(scene: Scene) -> None:
    scene.create(schedule=HOURLY)
    sent = list(scene.scheduler.sent)
    with pytest.raises(NameTakenError):
        scene.create(schedule=HOURLY)
    with pytest.raises(InvalidFieldError):
        scene.create(name="other", schedule={"frequency": "daily", "time": "25:99"})
    assert len(scene.do(scene.service.list_ingestions(IngestionQuery("ignored"), USER))) == 1
    assert scene.scheduler.sent == sent


def test_one_that_was_deleted_while_it_was_scheduled_leaves_no_deployment(scene: Scene) -> None:
    class Slow(MemoryScheduler):
        async def create_deployment(self, ingestion: Ingestion) -> str:
            scene.store.bury_ingestion(ingestion.id, None)
            scene.store.remove_ingestion(ingestion.id)
            return await super().create_deployment(ingestion)

    scheduler = Slow()
    scene.service._scheduler = scheduler
    scene.create(schedule=HOURLY)
    assert scheduler.deployments == {}


def test_other_tenants_see_nothing(scene: Scene) -> None:
    made = scene.create()
    service = scene.service
    for verb in (
        service.get_ingestion(made.id, STRANGER),
        service.update_ingestion(made.id, {"name": "x"}, None, STRANGER),
        service.pause_ingestion(made.id, STRANGER),
        service.trigger_manual_run(made.id, STRANGER),
        service.delete_ingestion(made.id, delete_table=False, expected_versions=None, current_user=STRANGER),
        service.list_runs(made.id, limit=5, after=None, current_user=STRANGER),
        service.clear_processed_files(made.id, confirm=True, current_user=STRANGER),
    ):
        with pytest.raises(NotFoundError):
            scene.do(verb)
    assert scene.do(service.list_ingestions(IngestionQuery("default"), STRANGER)) == []


# --- change --------------------------------------------------------------------------------------------------------


def test_a_schedule_is_changed_added_and_removed_with_its_deployment(scene: Scene) -> None:
    made = scene.create()
    added = scene.update(made, {"schedule": HOURLY}).ingestion
    assert added.deployment is not None
    daily = scene.update(added, {"schedule": {"frequency": "daily", "time": "14:30"}}).ingestion
    assert daily.deployment.id == added.deployment.id
    assert daily.deployment.fingerprint != added.deployment.fingerprint
    removed = scene.update(daily, {"schedule": None}).ingestion
    assert (removed.schedule, removed.deployment) == (None, None)
    assert scene.scheduler.deployments == {}


def test_nothing_is_sent_where_nothing_changed(scene: Scene) -> None:
    made = scene.create(schedule=HOURLY)
    sent = list(scene.scheduler.sent)
    scene.update(made, {"source": {"file_pattern": "*.json"}})
    scene.do(scene.service.resume_ingestion(made.id, USER))
    assert scene.scheduler.sent == sent


def test_a_change_holds_while_the_scheduler_is_away(scene: Scene) -> None:
    made = scene.create(schedule=HOURLY)
    scene.scheduler.is_away = True
    changed = scene.update(made, {"schedule": {"frequency": "daily"}})
    assert changed.warnings == (LATER,)
    assert scene.get(made).schedule != made.schedule
    assert changed.ingestion.deployment == made.deployment


def test_a_change_for_another_version_is_refused(scene: Scene) -> None:
    made = scene.create()
    changed = scene.update(made, {"name": "new"}, made.version).ingestion
    assert changed.version == made.version + 1
    for verb in (
        scene.service.update_ingestion(made.id, {"name": "late"}, {made.version}, USER),
        scene.service.delete_ingestion(
            made.id, delete_table=False, expected_versions={made.version}, current_user=USER
        ),
        scene.service.pause_ingestion(made.id, USER, expected_versions={made.version}),
        scene.service.resume_ingestion(made.id, USER, expected_versions={made.version}),
        scene.service.pause_ingestion(made.id, USER, expected_versions=()),
    ):
        with pytest.raises(VersionMismatchError):
            scene.do(verb)
    assert scene.get(made) == changed


def test_of_several_versions_any_will_do(scene: Scene) -> None:
    made = scene.create()
    paused = scene.do(scene.service.pause_ingestion(made.id, USER, expected_versions={99, 1})).ingestion
    assert (paused.version, paused.status) == (2, IngestionStatus.PAUSED)
    active = scene.do(scene.service.resume_ingestion(made.id, USER, expected_versions={2, 99})).ingestion
    changed = scene.do(scene.service.update_ingestion(made.id, {"name": "new"}, {99, 3}, USER)).ingestion
    assert (active.version, changed.version) == (3, 4)
    scene.do(scene.service.delete_ingestion(made.id, delete_table=False, expected_versions={4, 99}, current_user=USER))


def test_credentials_stay_change_and_go(scene: Scene) -> None:
    made = scene.create(source={"path": "s3://bucket/orders/", "credentials": KEYS})
    assert made.credential_names == tuple(KEYS)
    made = scene.update(made, {"name": "kept"}).ingestion
    assert scene.store.credentials(made.id) == KEYS
    with pytest.raises(InvalidFieldError) as refused:
        scene.update(made, {"source": {"path": "gs://bucket/orders/"}})
    assert refused.value.field == "source.credentials"
    with pytest.raises(InvalidFieldError):
        scene.update(made, {"source": {"credentials": {"endpoint_url": "https://elsewhere"}}})
    made = scene.update(made, {"source": {"credentials": None, "path": "gs://bucket/orders/"}}).ingestion
    assert (made.credential_names, made.document["source"]["type"]) == ((), "gcs")


def test_the_status_among_the_changes_pauses_and_resumes(scene: Scene) -> None:
    made = scene.create(schedule=HOURLY)
    (deployment_id,) = scene.scheduler.deployments
    paused = scene.update(made, {"status": "paused", "name": "new"}).ingestion
    assert paused.status is IngestionStatus.PAUSED
    assert scene.scheduler.deployments[deployment_id].paused
    active = scene.update(paused, {"status": "active"}).ingestion
    assert active.status is IngestionStatus.ACTIVE
    assert not scene.scheduler.deployments[deployment_id].paused
    for status in ("draft", "deleted", 5):
        with pytest.raises(InvalidFieldError) as refused:
            scene.update(active, {"status": status})
        assert refused.value.field == "status"


def test_pause_and_resume_again_change_nothing(scene: Scene) -> None:
    made = scene.create(schedule=HOURLY)
    (deployment_id,) = scene.scheduler.deployments
    for verb, is_paused in ((scene.service.pause_ingestion, True), (scene.service.resume_ingestion, False)):
        first = scene.do(verb(made.id, USER)).ingestion
        assert scene.scheduler.deployments[deployment_id].paused is is_paused
        assert scene.do(verb(made.id, USER)).ingestion == first
    scene.scheduler.is_away = True
    assert scene.do(scene.service.pause_ingestion(made.id, USER)).warnings == (LATER,)
    assert scene.get(made).status is IngestionStatus.PAUSED


def test_a_draft_that_becomes_active_is_scheduled(scene: Scene) -> None:
    made = scene.create(status="draft", schedule=HOURLY)
    with pytest.raises(NotActiveError):
        scene.trigger(made)
    assert scene.do(scene.service.resume_ingestion(made.id, USER)).ingestion.deployment is not None


def test_credentials_that_nobody_can_read_any_more_are_sent_again(scene: Scene) -> None:
    made = scene.create(source={"path": "s3://bucket/orders/", "credentials": KEYS})
    scene.store._keyring = Keyring("another key", None, None)
    with pytest.raises(SecretKeyError):
        scene.store.credentials(made.id)
    scene.update(made, {"source": {"credentials": KEYS}})
    assert scene.store.credentials(made.id) == KEYS


# --- delete --------------------------------------------------------------------------------------------------------


def test_the_deployment_goes_with_its_ingestion(scene: Scene) -> None:
    made = scene.create(schedule=HOURLY)
    scene.delete(made)
    assert scene.scheduler.deployments == {}
    assert scene.store.ingestion(made.id, deleted=True) is None
    with pytest.raises(NotFoundError):
        scene.delete(made)
    scene.create(schedule=HOURLY)


def test_a_tombstone_waits_for_the_scheduler(scene: Scene) -> None:
    made = scene.create(schedule=HOURLY)
    scene.scheduler.is_away = True
    scene.delete(made)
    with pytest.raises(NotFoundError):
        scene.get(made)
    (tombstone,) = scene.store.ingestions_to_schedule()
    assert tombstone.deployment == made.deployment
    with pytest.raises(NotFoundError):
        scene.trigger(made)


def test_nothing_is_deleted_under_a_run(scene: Scene) -> None:
    made = scene.create()
    run = scene.trigger(made).run
    scene.begin(run)
    with pytest.raises(RunAtWorkError) as refused:
        scene.delete(made)
    assert refused.value.run_id == run.id
    scene.end(run.id)
    scene.delete(made)


def test_a_table_is_dropped_where_that_is_asked_and_nobody_else_writes_it(scene: Scene) -> None:
    made, other = scene.create(), scene.create(name="other")
    with pytest.raises(SharedTableError, match="other"):
        scene.delete(made, table=True)
    assert scene.get(made) == made
    scene.delete(other)
    assert scene.dropper.dropped == []
    scene.delete(made, table=True)
    assert scene.dropper.dropped == ["local.shop.orders"]
    record = scene.store.table("local.shop.orders")
    assert record is not None
    assert record.generation == 2


def test_a_table_that_cannot_be_dropped_is_told_and_the_ingestion_is_gone(scene: Scene) -> None:
    made = scene.create(schedule=HOURLY)
    scene.dropper.is_away = True
    with pytest.raises(CatalogUnreachableError):
        scene.delete(made, table=True)
    assert scene.scheduler.deployments == {}
    with pytest.raises(NotFoundError):
        scene.get(made)


# --- run -----------------------------------------------------------------------------------------------------------


def test_a_run_of_one_with_a_deployment_goes_to_the_scheduler(scene: Scene) -> None:
    outcome = scene.trigger(scene.create(schedule=HOURLY))
    assert (outcome.method, outcome.is_over) == (Method.PREFECT, False)
    flow_run = scene.scheduler.flow_runs[outcome.flow_run_id]
    assert flow_run.parameters["run_id"] == outcome.run.id
    assert set(flow_run.parameters) == {"ingestion_id", "trigger", "run_id"}
    assert scene.store.run_of_flow_run(outcome.flow_run_id).id == outcome.run.id  # type: ignore[union-attr]
    assert scene.runner.asked == []


def test_a_run_is_direct_without_a_deployment_and_is_waited_for(scene: Scene) -> None:
    scene.runner.act = scene.end
    outcome = scene.trigger(scene.create())
    assert (outcome.method, outcome.is_over, outcome.run.status) == (Method.DIRECT, True, RunStatus.SUCCESS)
    assert scene.runner.asked == [(outcome.run.id, 30.0)]


@pytest.mark.parametrize("lost", ["away", "gone"])
def test_a_run_is_direct_where_the_scheduler_does_not_take_it(scene: Scene, lost: str) -> None:
    made = scene.create(schedule=HOURLY)
    if lost == "away":
        scene.scheduler.is_away = True
    else:
        scene.scheduler.deployments.clear()
    outcome = scene.trigger(made)
    assert (outcome.method, outcome.flow_run_id) == (Method.DIRECT, None)
    assert [run_id for run_id, _ in scene.runner.asked] == [outcome.run.id]


def test_two_that_ask_at_once_get_one_run(scene: Scene) -> None:
    made = scene.create()

    async def both() -> list[Any]:
        asked = (scene.service.trigger_manual_run(made.id, USER) for _ in range(2))
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = scene.do(both())
    refused = [one for one in answers if isinstance(one, RunAtWorkError)]
    assert len(refused) == 1
    assert [refused[0].run_id] == [one.run.id for one in answers if not isinstance(one, Exception)]


def test_a_paused_one_does_not_run(scene: Scene) -> None:
    made = scene.create()
    scene.do(scene.service.pause_ingestion(made.id, USER))
    with pytest.raises(NotActiveError):
        scene.trigger(made)
    assert scene.do(scene.service.list_runs(made.id, limit=5, after=None, current_user=USER)) == []


def test_runs_belong_to_their_ingestion(scene: Scene) -> None:
    made, other = scene.create(), scene.create(name="other")
    run = scene.trigger(made).run
    assert scene.do(scene.service.get_run(made.id, run.id, USER)) == run
    with pytest.raises(NotFoundError):
        scene.do(scene.service.get_run(other.id, run.id, USER))
    with pytest.raises(NotFoundError):
        scene.do(scene.service.cancel_run(other.id, run.id, USER))
    assert scene.do(scene.service.cancel_run(made.id, run.id, USER)).status is RunStatus.CANCELLED
    with pytest.raises(RunOverError):
        scene.do(scene.service.cancel_run(made.id, run.id, USER))


def test_a_run_that_failed_as_a_whole_is_tried_again(scene: Scene) -> None:
    made = scene.create()
    run = scene.trigger(made).run
    with pytest.raises(NothingToRetryError):
        scene.do(scene.service.retry_run(made.id, run.id, USER))
    scene.end(run.id, RunStop("auth", "No."))
    again = scene.do(scene.service.retry_run(made.id, run.id, USER)).run
    assert (again.trigger, again.retry_of, again.only_keys) == (Trigger.RETRY, run.id, None)
    # A retry is answered at once.
    assert scene.runner.asked[-1] == (again.id, 0.0)
    scene.end(again.id)
    with pytest.raises(NothingToRetryError):
        scene.do(scene.service.retry_run(made.id, again.id, USER))


# --- asked for again after its process died ------------------------------------------------------------------------


def test_an_ingestion_that_was_made_is_not_made_twice(scene: Scene) -> None:
    scene.scheduler.is_away = True
    wanted = document(schedule=HOURLY, source={"path": "s3://bucket/orders/", "credentials": KEYS})

    def create() -> Any:
        return scene.do(scene.service.create_ingestion(wanted, USER, made_id="made-1"))

    one = create()
    assert (one.ingestion.id, one.warnings) == ("made-1", (NOT_SCHEDULED,))
    # What the one that died did not come to is done by whoever comes after it.
    scene.scheduler.is_away = False
    two = create()
    assert (two.ingestion.id, two.ingestion.version, two.warnings) == ("made-1", one.ingestion.version, ())
    assert list(scene.scheduler.deployments) == [two.ingestion.deployment.id]
    assert len(scene.do(scene.service.list_ingestions(IngestionQuery("default"), USER))) == 1


def test_one_that_was_deleted_since_stays_deleted(scene: Scene) -> None:
    def create() -> Any:
        return scene.do(scene.service.create_ingestion(document(schedule=HOURLY), USER, made_id="made-1"))

    made = create().ingestion
    scene.scheduler.is_away = True
    scene.delete(made)
    scene.scheduler.is_away = False
    # As by an earlier version of the program: for a living one the scheduler would be told.
    scene.store.set_deployment(made.id, Deployment(made.deployment.id, "another"))
    sent = list(scene.scheduler.sent)
    assert create().ingestion.id == made.id
    assert scene.store.ingestion(made.id) is None
    assert scene.scheduler.sent == sent


def test_a_run_that_was_queued_and_never_given_to_prefect_is_given_once(scene: Scene) -> None:
    made = scene.create(schedule=HOURLY)
    scene.store.queue_run(NewRun("run-1", made.id, Trigger.MANUAL, Method.PREFECT))
    begun = [scene.do(scene.service.trigger_manual_run(made.id, USER, made_id="run-1")).run for _ in range(2)]
    assert [one.id for one in begun] == ["run-1"] * 2
    assert [one.flow_run_id for one in begun] == list(scene.scheduler.flow_runs) * 2
    assert sum(one.startswith("trigger") for one in scene.scheduler.sent) == 1


def test_a_run_that_is_over_is_told_whatever_became_of_its_ingestion(scene: Scene) -> None:
    made = scene.create()
    scene.do(scene.service.trigger_manual_run(made.id, USER, made_id="run-1"))
    scene.end("run-1")
    scene.do(scene.service.pause_ingestion(made.id, USER))
    again = scene.do(scene.service.trigger_manual_run(made.id, USER, made_id="run-1")).run
    assert (again.id, again.status) == ("run-1", RunStatus.SUCCESS)
    with pytest.raises(NotActiveError):
        scene.do(scene.service.trigger_manual_run(made.id, USER, made_id="run-2"))


def test_a_retry_is_told_although_nothing_is_left_to_be_tried(scene: Scene) -> None:
    made = scene.create()
    run = scene.trigger(made).run
    scene.end(run.id, RunStop("auth", "No."))
    scene.do(scene.service.retry_run(made.id, run.id, USER, made_id="run-1"))
    scene.end("run-1")
    assert scene.do(scene.service.retry_run(made.id, run.id, USER, made_id="run-1")).run.id == "run-1"
    assert scene.do(scene.service.retry_files(made.id, None, USER, made_id="run-1")).run.id == "run-1"
    assert len(scene.do(scene.service.list_runs(made.id, limit=5, after=None, current_user=USER))) == 2


def test_files_that_never_failed_are_not_tried_again(scene: Scene) -> None:
    made = scene.create()
    with pytest.raises(NothingToRetryError):
        scene.do(scene.service.retry_files(made.id, None, USER))
    with pytest.raises(InvalidFieldError, match="is no file that failed"):
        scene.do(scene.service.retry_files(made.id, ["s3://bucket/orders/x.json"], USER))
    assert scene.do(scene.service.list_files(made.id, failed=False, limit=5, after=None, current_user=USER)) == []


def test_the_ledger_is_cleared_only_when_that_is_meant_and_safe(scene: Scene) -> None:
    made = scene.create()

    def clear(*, confirm: bool) -> Any:
        return scene.do(scene.service.clear_processed_files(made.id, confirm=confirm, current_user=USER))

    with pytest.raises(ConfirmationNeededError):
        clear(confirm=False)
    assert clear(confirm=True) == 0
    run = scene.trigger(made).run
    with pytest.raises(RunAtWorkError):
        clear(confirm=True)
    scene.end(run.id)
    scene.store.release(scene.store.acquire(made.id, run.id, this_process(), 1.0))  # type: ignore[arg-type]
    other = scene.create(name="other")
    with pytest.raises(SharedTableError):
        clear(confirm=True)
    scene.delete(other)
    scene.dropper.is_away = True
    with pytest.raises(CatalogUnreachableError):
        clear(confirm=True)
    record = scene.store.table("local.shop.orders")
    assert record is not None
    generation = record.generation
    scene.dropper.is_away = False
    scene.dropper.fenced.clear()
    assert clear(confirm=True) == 0
    assert scene.dropper.fenced == ["local.shop.orders"]
    assert scene.store.ensure_table("local.shop.orders").generation == generation + 1


def test_loads_of_the_command_line_are_looked_at_and_left_alone(scene: Scene) -> None:
    record = scene.store.ensure_table("local.shop.orders")
    load_id = scene.store.ensure_load_ingestion(record, "loads")
    scene.store.start_run("r1", load_id, record)
    service = scene.service
    assert scene.do(service.get_ingestion(load_id, USER)).is_load
    assert [run.id for run in scene.do(service.list_runs(load_id, limit=5, after=None, current_user=USER))] == ["r1"]
    for verb in (
        service.update_ingestion(load_id, {"name": "x"}, None, USER),
        service.pause_ingestion(load_id, USER),
        service.trigger_manual_run(load_id, USER),
        service.cancel_run(load_id, "r1", USER),
        service.delete_ingestion(load_id, delete_table=False, expected_versions=None, current_user=USER),
    ):
        with pytest.raises(LoadIngestionError):
            scene.do(verb)


def test_a_user_is_asked_for_the_tenant(scene: Scene) -> None:
    made = scene.create()
    found = scene.do(scene.service.list_ingestions(IngestionQuery(STRANGER.tenant, limit=1), USER))
    assert [one.id for one in found] == [made.id]


def test_a_run_that_died_for_good_is_in_nobodys_way(scene: Scene) -> None:
    """Its row still says running when the next one is asked for."""
    made = scene.create()
    last = scene.trigger(made).run
    for _ in range(1 + RETRY.times):
        scene.store.acquire(made.id, last.id, DEAD, 60.0)
        scene.store.begin_run(last.id)
    begun = scene.trigger(made).run
    assert begun.id != last.id
    ended = scene.store.run(last.id)
    assert ended is not None
    assert ended.status is RunStatus.FAILED
