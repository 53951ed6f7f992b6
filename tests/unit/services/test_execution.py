"""Runs of the service carried out with the real ledger and the real load; engine, source and catalog are in memory."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from app.domain.errors import (
    Category,
    FileFailure,
    LeaseLostError,
    LedgerUnreachableError,
    RunCancelled,
    RunTimedOut,
    SchedulerUnavailableError,
    SourceUnreachableError,
    StoppedByUser,
    WrongDatabaseError,
)
from app.domain.events import FIELDS
from app.domain.files import FileState
from app.domain.ingestions import Deployment, Ingestion, IngestionStatus, Method, RunRecord, Trigger
from app.domain.live import EventFilter
from app.domain.ports import Progress, WriteOrder, WriteResult
from app.domain.redaction import Redactor
from app.domain.runs import Lease, RunReport, RunStatus
from app.domain.service import NewIngestion, NewRun, RetryPolicy
from app.persistence.keys import Keyring
from app.persistence.leases import this_process
from app.persistence.ledger import open_ledger
from app.persistence.schema import leases
from app.persistence.service import SqlServiceStore, open_service_store
from app.services import vigil
from app.services.execution import Execution, ExecutionSettings, HandOn, RunExecutor
from app.services.preflight import LoadRequest
from app.services.vigil import GIVE_BACK_SIGNAL, SIGNAL, Interruption
from tests.fakes.engine import FakeEngine
from tests.unit.persistence.desk import until
from tests.unit.services.desk import DEAD, TABLE, Desk, Killed, lines

SETTINGS = ExecutionSettings(4.0, 60.0, RetryPolicy(times=1, delay_s=0.0), "/home/of/it", "sqlite:///shown.db")
# Longer than any test takes: whoever waits for it is ended.
FOREVER_S = 100.0


class WaitingEngine(FakeEngine):
    """Works for ever on a file whose name it is told, so that somebody can end it."""

    def __init__(self, stuck_on: str, reached: Callable[[], object] = bool) -> None:
        super().__init__()
        self._stuck_on = stuck_on
        self._reached = reached

    def write(self, order: WriteOrder, progress: Progress) -> WriteResult:
        if any(self._stuck_on in file.key for file in order.files):
            self._reached()
            time.sleep(FOREVER_S)
        return super().write(order, progress)


@dataclass
class Scene:
    desk: Desk
    store: SqlServiceStore
    settings: ExecutionSettings = SETTINGS
    requests: list[LoadRequest] = field(default_factory=list)
    ingestion: Ingestion = field(init=False)

    def __post_init__(self) -> None:
        self.ingestion = self.add()

    def add(self, name: str = "n", **document: Any) -> Ingestion:
        whole = {"source": {"type": "s3", "path": "s3://memory/"}, "format": {"type": "json"}, **document}
        new = NewIngestion(name, "default", name, IngestionStatus.ACTIVE, "local.db.t", whole, {"aws_region": "x"})
        return self.store.add_ingestion(new)

    def executor(self, load: Callable[..., RunReport] | None = None, hand_on: HandOn | None = None) -> RunExecutor:
        def really(request: LoadRequest, watcher: Any, order: Any) -> RunReport:
            self.requests.append(request)
            ledger = open_ledger(self.desk.url)
            try:
                return self.desk.service(ledger).load(request, watcher, order=order)
            finally:
                ledger.dispose()

        return RunExecutor(self.store, load or really, this_process(), self.settings, hand_on)

    def queue(self, **changes: Any) -> RunRecord:
        new = NewRun(f"r{time.monotonic_ns()}", self.ingestion.id, Trigger.MANUAL, Method.DIRECT)
        return self.store.queue_run(replace(new, **changes))

    def execute(self, run: RunRecord, load: Callable[..., RunReport] | None = None) -> RunRecord:
        done = self.executor(load).execute_run(run.id)
        assert done.run is not None
        return done.run

    def slot(self, at: datetime, flow_run_id: str = "f") -> Execution:
        execute = self.executor().execute
        return execute(self.ingestion.id, Trigger.SCHEDULED, flow_run_id=flow_run_id, scheduled_for=at)


@pytest.fixture
def scene(url: str, tmp_path: Path) -> Iterator[Scene]:
    desk = Desk(url)
    store = open_service_store(url, Keyring("a passphrase", None, tmp_path), lambda _: None)
    yield Scene(desk, store)
    store.dispose()


# --- a run ---------------------------------------------------------------------------------------------------------


def test_a_queued_run_is_carried_out_and_told(scene: Scene) -> None:
    scene.desk.put("a.json", {"id": 1}, {"id": 2})
    run = scene.execute(scene.queue())
    assert (run.status, run.files_loaded, run.rows_loaded, run.attempts) == (RunStatus.SUCCESS, 1, 2, 1)
    assert run.snapshot_id is not None
    assert run.stored_bytes > 0
    assert scene.desk.ids() == [1, 2]
    (request,) = scene.requests
    assert (request.path, request.credentials) == ("s3://memory/", {"aws_region": "x"})
    found = scene.store.ingestion(scene.ingestion.id)
    assert found is not None
    assert (found.has_loaded, found.discovered_bytes) == (True, run.stored_bytes)
    # Its lease is free, and nothing new is nothing to load.
    again = scene.execute(scene.queue())
    assert (again.status, again.files_known, again.snapshot_id) == (RunStatus.SUCCESS, 1, None)


def test_its_batches_are_its_own_and_the_command_line_goes_its_own_way(scene: Scene) -> None:
    scene.desk.put("a.json", {"id": 1})
    scene.execute(scene.queue())
    table = scene.desk.store.get(TABLE)
    assert table is not None
    assert "autoloader.load-ingestion" not in table.properties
    assert table.properties[f"autoloader.{scene.ingestion.id}.last-batch"] == "1"
    scene.desk.put("b.json", {"id": 2})
    # Its ledger is the table's: what the service loaded is known to the command line.
    report = scene.desk.load()
    assert (report.files_loaded, report.files_known) == (1, 1)
    assert scene.desk.ids() == [1, 2]
    assert scene.execute(scene.queue()).files_known == 2


def test_a_source_without_any_file_yet_is_no_failure(scene: Scene) -> None:
    run = scene.execute(scene.queue())
    assert (run.status, run.errors) == (RunStatus.SUCCESS, ())
    assert "No file in s3://memory/ matches" in run.warnings[0]


def test_a_bad_file_makes_it_partial_and_can_be_tried_again_alone(scene: Scene) -> None:
    scene.desk.put("a.json", {"id": 1})
    scene.desk.source.put("b.json", b"{broken\n")
    run = scene.execute(scene.queue())
    assert (run.status, run.files_loaded, run.files_failed) == (RunStatus.PARTIAL, 1, 1)
    assert [error["file"] for error in run.errors] == ["s3://memory/b.json"]
    assert scene.store.failed_keys(scene.ingestion.id, run_id=run.id) == ["s3://memory/b.json"]
    # Mended under the same version's eyes: a new version, and a new file that is none of the retry's business.
    scene.desk.put("b.json", {"id": 2})
    scene.desk.put("c.json", {"id": 3})
    retry = scene.execute(scene.queue(trigger=Trigger.RETRY, retry_of=run.id, only_keys=("s3://memory/b.json",)))
    assert (retry.status, retry.files_loaded, retry.retry_of) == (RunStatus.SUCCESS, 1, run.id)
    assert scene.desk.ids() == [1, 2]
    assert scene.execute(scene.queue()).files_loaded == 1
    assert scene.desk.ids() == [1, 2, 3]


def test_a_cluster_that_nobody_registered_fails_with_what_to_do(scene: Scene) -> None:
    other = scene.add("other", cluster_id="cluster_123")
    run = scene.execute(scene.queue(ingestion_id=other.id))
    assert (run.status, run.errors[0]["category"]) == (RunStatus.FAILED, "cluster_unknown")
    assert "'cluster_123'" in run.errors[0]["message"]
    assert "Set cluster_id to local." in run.errors[0]["message"]


def test_an_ingestion_or_run_that_the_database_lacks_names_the_database(scene: Scene) -> None:
    executor = scene.executor()
    with pytest.raises(WrongDatabaseError, match=r"sqlite:///shown\.db"):
        executor.execute("no such", Trigger.SCHEDULED, flow_run_id="f")
    with pytest.raises(WrongDatabaseError, match=r"sqlite:///shown\.db"):
        executor.execute(scene.ingestion.id, Trigger.MANUAL, run_id="no such")
    with pytest.raises(WrongDatabaseError, match=r"sqlite:///shown\.db"):
        executor.execute_run("no such")


def test_what_is_kept_with_a_run_holds_no_secret(scene: Scene) -> None:
    secret = "hidden-value-" * 5
    scene.settings = replace(SETTINGS, clean=Redactor([secret]).text)

    def defect(_request: LoadRequest, _watcher: Any, order: Any) -> RunReport:
        order.report.warnings.append(f"It said {secret!r}.")
        order.report.errors.append(FileFailure("s3://b/a", "v", Category.AUTH, f"refused {secret}"))
        # Cut in the middle of it.
        raise ZeroDivisionError("." * 280 + secret)

    run = scene.queue()
    with pytest.raises(ZeroDivisionError):
        scene.executor(defect).execute_run(run.id)
    kept = scene.store.run(run.id)
    assert kept is not None
    assert kept.warnings == ("It said '***'.",)
    assert {error["category"] for error in kept.errors} == {"auth", "internal"}
    assert "hidden" not in str(kept)


# --- which run -----------------------------------------------------------------------------------------------------


def test_asked_again_for_a_run_that_is_over_nothing_is_done(scene: Scene) -> None:
    scene.desk.put("a.json", {"id": 1})
    run = scene.execute(scene.queue(), None)
    again = scene.executor().execute(scene.ingestion.id, Trigger.MANUAL, run_id=run.id, flow_run_id="late")
    assert "is over" in again.reason
    assert again.run is not None
    assert (again.run.attempts, again.run.status) == (1, RunStatus.SUCCESS)


def test_a_flow_run_finds_the_run_that_was_queued_for_it(scene: Scene) -> None:
    run = scene.queue(method=Method.PREFECT)
    done = scene.executor().execute(scene.ingestion.id, Trigger.MANUAL, flow_run_id="f1")
    assert done.run is not None
    assert (done.run.id, done.run.flow_run_id, done.run.status) == (run.id, "f1", RunStatus.SUCCESS)
    # The same flow run again, as after a retry of the flow.
    assert "is over" in scene.executor().execute(scene.ingestion.id, Trigger.MANUAL, flow_run_id="f1").reason


def test_a_run_at_work_is_left_to_whoever_is_at_it(scene: Scene) -> None:
    run = scene.queue()
    assert isinstance(scene.store.acquire(scene.ingestion.id, run.id, this_process(), 60.0), Lease)
    scene.store.begin_run(run.id)
    assert "is at work already" in scene.executor().execute_run(run.id).reason
    slot = scene.slot(datetime.now(UTC))
    assert slot.run is None
    assert run.id in slot.reason


def test_a_run_that_is_over_and_holds_its_lease_yet_is_waited_for(scene: Scene) -> None:
    """It has told how it ended, and its process is about to end."""
    before = scene.execute(scene.queue())
    lease = scene.store.acquire(scene.ingestion.id, before.id, this_process(), 60.0)
    assert isinstance(lease, Lease)
    scene.desk.put("a.json", {"id": 1})
    # How long one of before is waited for is a multiple of it.
    scene.settings = replace(SETTINGS, lease_s=60.0)
    run = scene.queue()
    let_go = threading.Timer(1.0, scene.store.release, [lease])
    let_go.start()
    assert scene.execute(run).status is RunStatus.SUCCESS
    let_go.join()
    assert scene.desk.ids() == [1]


@pytest.mark.parametrize("state", ["draft", "paused", "deleted"])
def test_one_that_is_not_active_never_runs(scene: Scene, state: str) -> None:
    run = scene.queue()
    scene.desk.put("a.json", {"id": 1})
    scene.desk.execute(
        "update ingestions set deleted_at = 1" if state == "deleted" else f"update ingestions set status = '{state}'"
    )
    done = scene.executor().execute_run(run.id)
    assert f"is {state}" in done.reason
    assert done.run is not None
    assert done.run.status is RunStatus.CANCELLED
    assert scene.slot(datetime.now(UTC)).run is None
    assert scene.desk.ids() == []


def test_of_late_times_of_the_schedule_one_is_carried_out(scene: Scene) -> None:
    scene.ingestion = scene.add("hourly", schedule={"frequency": "hourly"})
    now = datetime.now(UTC)
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    ran = [scene.slot(this_hour - timedelta(hours=ago), f"f{ago}") for ago in (3, 2, 1, 0)]
    assert [one.run is not None for one in ran] == [True, False, False, False]
    assert "ran at" in ran[1].reason
    assert len(scene.store.list_runs(scene.ingestion.id, limit=10)) == 1
    assert scene.slot(datetime.now(UTC) + timedelta(seconds=5), "f5").run is not None


# --- its end -------------------------------------------------------------------------------------------------------


def test_a_retryable_error_lets_it_go_on_under_the_same_id(scene: Scene) -> None:
    def away(*_: Any) -> RunReport:
        raise SourceUnreachableError

    scene.desk.put("a.json", {"id": 1})
    run = scene.queue()
    first = scene.execute(run, away)
    assert (first.status, first.attempts, first.errors[0]["category"]) == (RunStatus.QUEUED, 1, "connectivity")
    second = scene.execute(run)
    assert (second.status, second.attempts, second.errors) == (RunStatus.SUCCESS, 2, ())
    other = scene.queue()
    assert [scene.execute(other, away).status for _ in range(2)] == [RunStatus.QUEUED, RunStatus.FAILED]


def test_a_defect_is_kept_and_no_less_raised(scene: Scene) -> None:
    def defect(*_: Any) -> RunReport:
        raise ZeroDivisionError("by nothing")

    run = scene.queue()
    with pytest.raises(ZeroDivisionError):
        scene.executor(defect).execute_run(run.id)
    kept = scene.store.run(run.id)
    assert kept is not None
    assert (kept.status, kept.errors[0]["category"]) == (RunStatus.FAILED, "internal")
    assert "ZeroDivisionError: by nothing" in kept.errors[0]["message"]


def test_what_was_committed_before_a_cancel_stays_the_rest_is_as_if_never_begun(scene: Scene) -> None:
    scene.desk.settings = replace(scene.desk.settings, batch_files=1)
    scene.desk.put("a.json", {"id": 1})
    scene.desk.put("b.json", {"id": 2})
    run = scene.queue()
    scene.desk.engine = WaitingEngine("b.json", lambda: scene.store.request_cancel(run.id))
    began = time.monotonic()
    ended = scene.execute(run)
    assert time.monotonic() - began < FOREVER_S / 2
    assert (ended.status, ended.files_loaded, ended.rows_loaded) == (RunStatus.CANCELLED, 1, 1)
    assert scene.desk.ids() == [1]
    scene.desk.engine = FakeEngine()
    assert scene.execute(scene.queue()).status is RunStatus.SUCCESS
    assert scene.desk.ids() == [1, 2]
    assert scene.desk.states() == {"a.json": FileState.SUCCESS, "b.json": FileState.SUCCESS}


def test_a_run_that_is_cancelled_as_a_batch_is_closed_tells_all_that_is_in_the_table(scene: Scene) -> None:
    scene.desk.put("a.json", {"id": 1}, {"id": 2})

    ended = ended_at(scene, "batch_closed:after", RunCancelled())
    assert (ended.status, ended.files_loaded, ended.rows_loaded) == (RunStatus.CANCELLED, 1, 2)
    assert ended.snapshot_id is not None
    assert scene.desk.ids() == [1, 2]


def test_a_run_whose_time_is_over_fails_and_what_was_committed_stays(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    late_s = 0.0

    def an_hour_goes_by() -> None:
        nonlocal late_s
        late_s = 3600.0

    monkeypatch.setattr(vigil, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + late_s))
    scene.desk.settings = replace(scene.desk.settings, batch_files=1)
    scene.settings = replace(SETTINGS, timeout_s=600.0)
    scene.desk.put("a.json", {"id": 1})
    scene.desk.put("b.json", {"id": 2})
    scene.desk.engine = WaitingEngine("b.json", an_hour_goes_by)
    ended = scene.execute(scene.queue())
    assert (ended.status, ended.errors[-1]["category"]) == (RunStatus.FAILED, "timed_out")
    assert "longer than 600 s" in ended.errors[-1]["message"]
    assert (ended.files_loaded, scene.desk.ids()) == (1, [1])


def test_a_process_that_is_told_to_end_leaves_the_run_to_be_gone_on_with(scene: Scene) -> None:
    def told(*_: Any) -> RunReport:
        raise StoppedByUser(signal.SIGTERM)

    run = scene.queue()
    with pytest.raises(StoppedByUser):
        scene.executor(told).execute_run(run.id)
    kept = scene.store.run(run.id)
    assert kept is not None
    assert (kept.status, kept.errors[0]["category"]) == (RunStatus.QUEUED, "run_died")
    assert scene.execute(run).status is RunStatus.SUCCESS


def test_a_run_that_is_handed_over_is_queued_and_gone_on_with_at_once(scene: Scene) -> None:
    scene.desk.settings = replace(scene.desk.settings, batch_files=1)
    scene.desk.put("a.json", {"id": 1})
    scene.desk.put("b.json", {"id": 2})
    run = scene.queue()
    scene.desk.engine = WaitingEngine("b.json", lambda: signal.raise_signal(GIVE_BACK_SIGNAL))
    # As often as its tries, and once more: no try is used up.
    for attempt in (1, 2, 3):
        done = scene.executor().execute_run(run.id)
        assert done.given_back
        assert done.run is not None
        assert (done.run.status, done.run.attempts, done.run.next_attempt_at) == (RunStatus.QUEUED, attempt, None)
        assert not scene.store.is_run_alive(run.id)
    scene.desk.engine = FakeEngine()
    ended = scene.execute(run)
    assert (ended.status, ended.files_loaded, ended.rows_loaded, ended.errors) == (RunStatus.SUCCESS, 2, 2, ())
    assert scene.desk.ids() == [1, 2]


def test_one_whose_cancel_was_asked_for_is_cancelled_where_it_was_to_be_handed_over(scene: Scene) -> None:
    def cancelled(*_: Any) -> RunReport:
        scene.store.request_cancel(run.id)
        signal.raise_signal(GIVE_BACK_SIGNAL)
        raise AssertionError

    run = scene.queue()
    done = scene.executor(cancelled).execute_run(run.id)
    assert done.run is not None
    assert (done.run.status, done.given_back) == (RunStatus.CANCELLED, False)


def test_a_panic_of_a_library_is_a_defect_and_not_tried_again(scene: Scene) -> None:
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})

    def panics(*_: Any) -> RunReport:
        raise panic("called `unwrap()`")

    run = scene.queue()
    with pytest.raises(panic):
        scene.executor(panics).execute_run(run.id)
    kept = scene.store.run(run.id)
    assert kept is not None
    assert (kept.status, kept.errors[0]["category"]) == (RunStatus.FAILED, "internal")


def test_a_time_of_the_schedule_passes_also_where_the_run_that_served_it_ends_at_that_moment(scene: Scene) -> None:
    class EndsFirst:
        """Another process comes to the end of its run before the row of this one is made."""

        def __getattr__(self, name: str) -> Any:
            return getattr(scene.store, name)

        def queue_run(self, new: NewRun) -> RunRecord:
            scene.store.end_run(RunReport(other.id, other.table, status=RunStatus.SUCCESS), None, SETTINGS.retry)
            return scene.store.queue_run(new)

    at = datetime.now(UTC) - timedelta(hours=1)
    other = scene.queue()
    scene.store.acquire(scene.ingestion.id, other.id, this_process(), 3600)
    scene.store.begin_run(other.id)
    executor = RunExecutor(EndsFirst(), scene.desk.load, this_process(), SETTINGS)  # type: ignore[arg-type]
    passed = executor.execute(scene.ingestion.id, Trigger.SCHEDULED, flow_run_id="f", scheduled_for=at)
    assert passed.run is None
    assert passed.reason.startswith("The ingestion ran at ")
    assert [run.id for run in scene.store.list_runs(scene.ingestion.id, limit=9)] == [other.id]


def test_a_lease_is_kept_while_the_source_is_looked_at(scene: Scene) -> None:
    # Renewed at a quarter of it; what is left is for a machine that is busy.
    scene.settings = replace(SETTINGS, lease_s=8)

    def expiry() -> float:
        with scene.store._engine.connect() as connection:
            return float(connection.execute(select(leases.c.expires_at)).scalar_one())

    def slow(*_: Any) -> RunReport:
        first = expiry()
        until(lambda: expiry() > first, 60)
        assert scene.store.is_run_alive(run.id)
        return RunReport(run.id, run.table)

    run = scene.queue()
    assert scene.execute(run, slow).status is RunStatus.SUCCESS


@pytest.mark.parametrize("place", ["batch_claimed:after", "committed:before", "committed:after", "batch_closed:after"])
def test_a_run_that_was_killed_goes_on_and_every_row_is_in_once(scene: Scene, place: str) -> None:
    """The process is gone at that place: nothing of it reaches the database any more."""
    for name in ("a", "b", "c"):
        scene.desk.put(f"{name}.json", {"id": ord(name)})
    scene.desk.settings = replace(scene.desk.settings, batch_files=2)
    run = scene.queue()
    _die(scene, run, place)
    left = scene.store.run(run.id)
    assert left is not None
    assert left.status is RunStatus.RUNNING
    assert not scene.store.is_run_alive(run.id)
    ended = scene.execute(run)
    assert (ended.id, ended.status, ended.attempts) == (run.id, RunStatus.SUCCESS, 2)
    assert (ended.files_loaded, ended.rows_loaded) == (3, 3)
    assert scene.desk.ids() == [97, 98, 99]
    assert scene.desk.open_batches() == 0


def _die(scene: Scene, run: RunRecord, place: str, queue: str | None = None) -> None:
    ledger = open_ledger(scene.desk.url)
    dead = False

    def reach(here: str) -> None:
        nonlocal dead
        if here == place:
            dead = True
        if dead:
            raise Killed

    def load(request: LoadRequest, watcher: Any, order: Any) -> RunReport:
        silent = replace(order, finish=lambda _error: None)
        return scene.desk.service(ledger, reach=reach, owner=DEAD).load(request, watcher, order=silent)

    class Dead(RunExecutor):
        """Its store answers no more once it is dead."""

    class Silent:
        def __getattr__(self, name: str) -> object:
            if dead and threading.current_thread() is threading.main_thread():
                raise Killed
            if dead:
                # A thread that watches lives on for a moment; what it raised would be taken for a failure of the test.
                raise LedgerUnreachableError("Its process is dead.")
            return getattr(scene.store, name)

    executor = Dead(Silent(), load, DEAD, scene.settings)  # type: ignore[arg-type]
    with pytest.raises(Killed):
        executor.execute(run.ingestion_id, run.trigger, run_id=run.id, queue=queue)
    ledger.dispose()


def test_a_process_that_wakes_after_another_took_the_run_over_changes_nothing(scene: Scene) -> None:
    scene.desk.put("a.json", {"id": 1})
    # The heartbeat of the one that sleeps does not renew it meanwhile.
    scene.settings = replace(SETTINGS, lease_s=3600.0)
    run = scene.queue()

    def slept(*_: Any) -> RunReport:
        # Meanwhile its lease ran out, and the run was carried out by somebody else.
        scene.desk.execute("update leases set expires_at = 0")
        assert scene.execute(run).attempts == 2
        raise LeaseLostError

    scene.execute(run, slept)
    ended = scene.store.run(run.id)
    assert ended is not None
    assert (ended.status, ended.rows_loaded, ended.errors) == (RunStatus.SUCCESS, 1, ())


# --- what nobody wants any more ------------------------------------------------------------------------------------


def ended_at(scene: Scene, place: str, error: BaseException) -> RunRecord:
    """A run that this ended at that place on its way."""

    def reach(here: str) -> None:
        if here == place:
            raise error

    def load(request: LoadRequest, watcher: Any, order: Any) -> RunReport:
        ledger = open_ledger(scene.desk.url)
        try:
            return scene.desk.service(ledger, reach=reach).load(request, watcher, order=order)
        finally:
            ledger.dispose()

    return scene.execute(scene.queue(), load)


def test_what_a_cancelled_run_had_begun_is_as_if_never_begun(scene: Scene) -> None:
    scene.desk.put("wrong.json", {"id": 1})
    assert ended_at(scene, "data_written:after", RunCancelled()).status is RunStatus.CANCELLED
    assert (scene.desk.open_batches(), scene.desk.states()) == (0, {"wrong.json": FileState.DISCOVERED})
    scene.desk.source.files.clear()
    scene.desk.put("right.json", {"id": 2})
    ended = scene.execute(scene.queue())
    assert (ended.status, ended.files_loaded, scene.desk.ids()) == (RunStatus.SUCCESS, 1, [2])


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("is_committed", [True, False])
def test_a_run_that_was_cancelled_in_its_commit_is_settled_by_the_next_one(
    scene: Scene, *, is_new: bool, is_committed: bool
) -> None:
    """What is in the table stays; what is not is found again, if it is wanted still."""
    if not is_new:
        scene.desk.put("first.json", {"id": 0})
        scene.execute(scene.queue())
    scene.desk.put("a.json", {"id": 1})
    place = "commit_request:after" if is_committed else "commit_request:before"
    assert ended_at(scene, place, RunCancelled()).status is RunStatus.CANCELLED
    assert scene.desk.open_batches() == 1
    if not is_committed:
        scene.desk.source.delete("a.json")
    scene.desk.put("b.json", {"id": 2})
    ended = scene.execute(scene.queue())
    assert ended.status is RunStatus.SUCCESS
    assert scene.desk.ids() == [*([] if is_new else [0]), *([1] if is_committed else []), 2]
    assert scene.desk.open_batches() == 0
    assert scene.execute(scene.queue()).files_loaded == 0


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("place", ["data_written:after", "commit_request:before", "commit_request:after"])
def test_files_of_a_deleted_ingestions_open_batch_are_loaded_by_whoever_comes_next(
    scene: Scene, place: str, *, is_new: bool
) -> None:
    if not is_new:
        scene.desk.put("first.json", {"id": 0})
        scene.execute(scene.queue())
    scene.desk.put("a.json", {"id": 1})
    assert ended_at(scene, place, RunTimedOut()).status is RunStatus.FAILED
    assert scene.desk.open_batches() == 1
    scene.store.bury_ingestion(scene.ingestion.id, None)
    scene.store.remove_ingestion(scene.ingestion.id)
    scene.ingestion = scene.add("again")
    ended = scene.execute(scene.queue())
    assert (ended.status, scene.desk.ids()) == (RunStatus.SUCCESS, [1] if is_new else [0, 1])
    assert (ended.files_loaded, ended.files_skipped) == (0 if place == "commit_request:after" else 1, 0)
    assert scene.desk.open_batches() == 0
    assert scene.execute(scene.queue()).files_known == (1 if is_new else 2)


def test_files_that_another_run_has_in_hand_are_told(scene: Scene) -> None:
    scene.desk.put("a.json", {"id": 1})
    ended_at(scene, "data_written:after", RunTimedOut())
    scene.ingestion = scene.add("other")
    ended = scene.execute(scene.queue())
    assert (ended.files_loaded, ended.files_skipped) == (0, 1)
    assert "another ingestion's run has in hand were left to it (1)" in ended.warnings[0]


# --- handed over ---------------------------------------------------------------------------------------------------

ROW_BYTES = len(lines({"id": 1}))
SMALL = replace(SETTINGS, high_memory_queue="large", high_memory_bytes=2 * ROW_BYTES)


@dataclass
class Scheduler:
    """Begins flow runs, unless it is away."""

    store: SqlServiceStore
    is_away: bool = False
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def __call__(self, ingestion: Ingestion, run: RunRecord) -> str:
        if self.is_away:
            raise SchedulerUnavailableError
        assert ingestion.deployment is not None
        # Whoever it has carry the run out may begin at once.
        assert run.status is RunStatus.QUEUED
        assert not self.store.is_run_alive(run.id)
        self.asked.append((run.id, run.flow_run_id))
        return "f2"


def _large(scene: Scene) -> RunRecord:
    scene.settings = SMALL
    scene.store.set_deployment(scene.ingestion.id, Deployment("d", "fingerprint"))
    for number in range(3):
        scene.desk.put(f"{number}.json", {"id": number})
    return scene.queue(method=Method.PREFECT, flow_run_id="f1")


def _in(scene: Scene, queue: str | None, run: RunRecord, scheduler: Scheduler | None = None) -> Execution:
    executor = scene.executor(hand_on=scheduler)
    return executor.execute(scene.ingestion.id, run.trigger, run_id=run.id, flow_run_id=run.flow_run_id, queue=queue)


def test_a_run_that_finds_more_than_its_queue_is_meant_for_goes_on_in_the_other(scene: Scene) -> None:
    run = _large(scene)
    scheduler = Scheduler(scene.store)
    done = _in(scene, "small", run, scheduler)
    assert done.run is not None
    assert (done.run.id, done.run.status, done.run.flow_run_id) == (run.id, RunStatus.QUEUED, "f2")
    assert "was handed over to the work queue large" in done.reason
    assert done.run.warnings == (done.reason,)
    assert scheduler.asked == [(run.id, "f1")]
    # Nothing was claimed, nothing was read.
    assert (scene.desk.query("select count(*) from batches"), scene.desk.ids()) == (0, [])
    kept = scene.store.ingestion(scene.ingestion.id)
    assert kept is not None
    assert (kept.discovered_bytes or 0) > SMALL.high_memory_bytes
    ended = _in(scene, "large", done.run, scheduler).run
    assert ended is not None
    assert (ended.status, ended.files_loaded, ended.rows_loaded, ended.warnings) == (RunStatus.SUCCESS, 3, 3, ())
    assert scene.desk.ids() == [0, 1, 2]
    # The first flow run again, as by a scheduler that did not hear of its end.
    assert "is over" in _in(scene, "small", run, scheduler).reason
    assert len(scheduler.asked) == 1


@pytest.mark.parametrize("queue", ["small", "large", None])
def test_a_run_is_handed_over_once_at_most(scene: Scene, queue: str | None) -> None:
    run = _large(scene)
    handed = _in(scene, "small", run).run
    assert handed is not None
    ended = _in(scene, queue, replace(handed, flow_run_id="f2")).run
    assert ended is not None
    assert (ended.status, scene.desk.ids()) == (RunStatus.SUCCESS, [0, 1, 2])


@pytest.mark.parametrize("queue", ["large", None])
def test_where_no_other_queue_is_better_a_large_run_goes_on(scene: Scene, queue: str | None) -> None:
    ended = _in(scene, queue, _large(scene)).run
    assert ended is not None
    assert (ended.status, ended.handed_over_at, scene.desk.ids()) == (RunStatus.SUCCESS, None, [0, 1, 2])


def test_a_run_of_the_schedule_is_handed_over_under_the_id_that_its_flow_run_gave_it(scene: Scene) -> None:
    scene.store.cancel_queued(_large(scene).id, "It is in the way.")
    at = datetime.now(UTC)

    def flow_run(flow_run_id: str, run_id: str | None, queue: str, scheduled_for: datetime | None) -> Execution:
        executor = scene.executor(hand_on=Scheduler(scene.store))
        return executor.execute(
            scene.ingestion.id,
            Trigger.SCHEDULED,
            run_id=run_id,
            flow_run_id=flow_run_id,
            scheduled_for=scheduled_for,
            queue=queue,
        )

    handed = flow_run("s1", None, "small", at).run
    assert handed is not None
    assert (handed.status, handed.trigger, handed.flow_run_id) == (RunStatus.QUEUED, Trigger.SCHEDULED, "f2")
    # While it waits, neither the first flow run, once more, nor the next one of the schedule begins another.
    for flow_run_id in ("s1", "s2"):
        again = flow_run(flow_run_id, None, "small", at)
        assert again.run is None
        assert handed.id in again.reason
    ended = flow_run("f2", handed.id, "large", None).run
    assert ended is not None
    assert (ended.id, ended.status, scene.desk.ids()) == (handed.id, RunStatus.SUCCESS, [0, 1, 2])


def test_a_direct_run_goes_on_whatever_it_finds(scene: Scene) -> None:
    run = _large(scene)
    scene.store.reroute_run(run.id, Method.DIRECT)
    # Also where a flow run comes upon it that was thought to be lost.
    ended = _in(scene, "small", run).run
    assert ended is not None
    assert (ended.status, ended.handed_over_at, scene.desk.ids()) == (RunStatus.SUCCESS, None, [0, 1, 2])


def test_what_just_fits_stays(scene: Scene) -> None:
    run = _large(scene)
    scene.settings = replace(SMALL, high_memory_bytes=3 * ROW_BYTES)
    ended = _in(scene, "small", run).run
    assert ended is not None
    assert (ended.status, ended.attempts) == (RunStatus.SUCCESS, 1)


def test_a_scheduler_that_is_away_or_has_no_deployment_leaves_the_run_to_whoever_reconciles(scene: Scene) -> None:
    run = _large(scene)
    done = _in(scene, "small", run, Scheduler(scene.store, is_away=True))
    assert done.run is not None
    assert (done.run.status, done.run.flow_run_id) == (RunStatus.QUEUED, "f1")
    assert [one.id for one in scene.store.due_runs(Method.PREFECT)] == [run.id]
    scene.desk.execute("update runs set status = 'running', handed_over_at = null")
    scene.store.set_deployment(scene.ingestion.id, None)
    scheduler = Scheduler(scene.store)
    again = _in(scene, "small", run, scheduler)
    assert again.run is not None
    assert (again.run.status, again.run.handed_over_at is None, scheduler.asked) == (RunStatus.QUEUED, False, [])


def test_what_an_earlier_attempt_claimed_is_settled_before_the_rest_is_handed_over(scene: Scene) -> None:
    run = _large(scene)
    scene.settings = replace(SMALL, high_memory_bytes=ROW_BYTES)
    scene.desk.settings = replace(scene.desk.settings, batch_files=1)
    _die(scene, run, "committed:after")
    scene.desk.put("3.json", {"id": 3})
    handed = _in(scene, "small", run).run
    assert handed is not None
    assert (handed.status, handed.files_loaded, handed.attempts) == (RunStatus.QUEUED, 1, 2)
    assert (scene.desk.ids(), scene.desk.open_batches()) == ([0], 0)
    ended = _in(scene, "large", replace(handed, flow_run_id="f2")).run
    assert ended is not None
    assert (ended.status, ended.files_loaded, ended.rows_loaded) == (RunStatus.SUCCESS, 4, 4)
    assert scene.desk.ids() == [0, 1, 2, 3]


@pytest.mark.parametrize("place", ["files_joined:before", "run_finished:before"])
def test_a_run_that_dies_before_it_is_handed_over_is_handed_over_by_its_next_attempt(scene: Scene, place: str) -> None:
    run = _large(scene)
    _die(scene, run, place, queue="small")
    left = scene.store.run(run.id)
    assert left is not None
    assert (left.status, left.handed_over_at) == (RunStatus.RUNNING, None)
    handed = _in(scene, "small", run).run
    assert handed is not None
    assert (handed.status, handed.handed_over_at is None) == (RunStatus.QUEUED, False)
    ended = _in(scene, "large", replace(handed, flow_run_id="f2")).run
    assert ended is not None
    assert (ended.status, ended.files_loaded, scene.desk.ids()) == (RunStatus.SUCCESS, 3, [0, 1, 2])


# --- interruption --------------------------------------------------------------------------------------------------


def test_an_interruption_ends_what_waits_and_comes_once() -> None:
    before = signal.getsignal(SIGNAL)
    interruption = Interruption()
    with interruption.armed():
        with pytest.raises(RunCancelled):
            _wait_for(threading.Timer(0.05, interruption.interrupt, (RunCancelled(),)))
        interruption.interrupt(RunCancelled())
        time.sleep(0.05)
    assert signal.getsignal(SIGNAL) is before


def _wait_for(timer: threading.Timer) -> None:
    timer.start()
    time.sleep(FOREVER_S)


def test_a_disarmed_interruption_does_nothing() -> None:
    interruption = Interruption()
    with interruption.armed():
        interruption.disarm()
        interruption.interrupt(RunCancelled())
        time.sleep(0.05)


def test_what_it_does_is_kept_with_the_run(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "app")
    scene.desk.put("a.json", {"id": 1}, {"id": 2})
    run = scene.execute(scene.queue(flow_run_id="flow-1"))
    events = scene.store.events_after(0, EventFilter(run_id=run.id), limit=100).events
    assert [event.kind.value for event in events] == ["run.queued", "run.running", "run.success"]
    assert events[-1].body["rows"] == {"loaded": 2}
    lines = [line.message for line in scene.store.run_log(run.id, after=0, limit=100).lines]
    assert lines[0] == "run_begins attempt=1"
    assert "batch_ends files=1 rows=2 failed=0" in lines
    assert lines[-1] == "run_ends status=success files=1 rows=2"
    # Every event of the process while it works says for which run.
    ids = [getattr(record, FIELDS) for record in caplog.records]
    assert {(fields["run_id"], fields["flow_run_id"]) for fields in ids} == {(run.id, "flow-1")}
    counters = scene.store.readings(most=1).counters
    assert (counters["rows"], counters["files"], counters["bytes"]) == ({"": 2}, {"loaded": 1}, {"": run.stored_bytes})


def test_why_it_stopped_is_the_end_of_its_log(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "app")

    def load(_request: LoadRequest, watcher: Any, _order: Any) -> RunReport:
        watcher.batch_begins(files=4, stored_bytes=40)
        watcher.progress(files=1, rows=5, stored_bytes=10)
        raise SourceUnreachableError("Nobody is there.")

    run = scene.execute(scene.queue(), load)
    assert run.status is RunStatus.QUEUED
    lines = scene.store.run_log(run.id, after=0, limit=100).lines
    assert [line.level for line in lines[-2:]] == ["warning", "info"]
    assert "Nobody is there." in lines[-2].message
    assert lines[-1].message == "run_ends status=failed files=0 rows=0"
    # The next attempt's lines follow.
    scene.execute(run)
    assert "run_begins attempt=2" in [line.message for line in scene.store.run_log(run.id, after=0, limit=100).lines]
