from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from app.domain.errors import (
    Category,
    ConflictError,
    FileFailure,
    LoadIngestionError,
    NotActiveError,
    NotFoundError,
    RunAtWorkError,
    RunOverError,
)
from app.domain.files import LoadedFile
from app.domain.ingestions import Ingestion, IngestionStatus, Method, RunRecord, Trigger
from app.domain.ledger import Closing
from app.domain.runs import RunReport, RunStatus
from app.domain.service import NewRun, RetryPolicy, RunStop
from app.persistence.leases import this_process
from app.persistence.schema import runs
from app.persistence.service import SqlServiceStore
from tests.unit.persistence.service_desk import DEAD, ELSEWHERE, ServiceDesk, claim, new_ingestion, queue, take

RETRY = RetryPolicy(times=1, delay_s=3600.0)
AT_ONCE = RetryPolicy(times=1, delay_s=0.0)
LOST = RunStop("connectivity", "The source does not answer.", retryable=True)


@pytest.fixture
def ingestion(store: SqlServiceStore) -> Ingestion:
    return store.add_ingestion(new_ingestion())


def begun(store: SqlServiceStore, ingestion: Ingestion, *, dead: bool = False) -> RunRecord:
    run = queue(store, ingestion)
    take(store, run, DEAD if dead else None)
    at_work = store.begin_run(run.id)
    assert at_work is not None
    return at_work


def report(run: RunRecord, **values: int) -> RunReport:
    made = RunReport(run_id=run.id, table=run.table, **values)  # type: ignore[arg-type]
    made.settle()
    return made


# --- queue ---------------------------------------------------------------------------------------------------------


def test_a_run_is_queued_as_it_was_asked_for(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = queue(
        store, ingestion, trigger=Trigger.RETRY, method=Method.PREFECT, retry_of="earlier", only_keys=("s3://b/ä", "b")
    )
    assert store.run(run.id) == run
    assert (run.status, run.trigger, run.method, run.attempts) == (RunStatus.QUEUED, Trigger.RETRY, Method.PREFECT, 0)
    assert (run.retry_of, run.only_keys, run.table) == ("earlier", ("s3://b/ä", "b"), "local.db.t")
    assert not run.is_over
    assert queue(store, ingestion, id=run.id) == run
    assert store.run_at_work(ingestion.id) == run


def test_one_run_at_a_time_is_queued_or_at_work(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = queue(store, ingestion)
    with pytest.raises(RunAtWorkError, match="is queued") as refused:
        queue(store, ingestion)
    assert refused.value.run_id == run.id
    take(store, run)
    store.begin_run(run.id)
    with pytest.raises(RunAtWorkError, match="is at work"):
        queue(store, ingestion)
    store.end_run(report(run), None, RETRY)
    queue(store, ingestion)


def test_of_many_that_ask_at_once_one_is_queued(service: ServiceDesk, ingestion: Ingestion) -> None:
    stores = [service.open() for _ in range(4)]

    def ask(number: int) -> str:
        try:
            return queue(stores[number % 4], ingestion).id
        except RunAtWorkError as refused:
            return refused.run_id

    with ThreadPoolExecutor(8) as pool:
        found = Counter(pool.map(ask, range(16)))
    assert list(found.values()) == [16]
    for one in stores:
        one.dispose()


def test_who_may_not_run_is_refused(store: SqlServiceStore, ingestion: Ingestion) -> None:
    for status in (IngestionStatus.PAUSED, IngestionStatus.DRAFT):
        ingestion = store.change_ingestion(replace(ingestion, status=status), None, ingestion.version)
        with pytest.raises(NotActiveError, match=status.value):
            queue(store, ingestion)
    store.bury_ingestion(ingestion.id, None)
    with pytest.raises(NotFoundError):
        queue(store, ingestion)
    load_id = store.ensure_load_ingestion(store.ensure_table("local.db.t"), "loads")
    with pytest.raises(LoadIngestionError):
        store.queue_run(NewRun("r", load_id, Trigger.MANUAL, Method.DIRECT))


@pytest.mark.parametrize(
    ("status", "is_served"),
    [(RunStatus.SUCCESS, True), (RunStatus.PARTIAL, True), (RunStatus.FAILED, True), (RunStatus.CANCELLED, False)],
)
def test_a_time_of_the_schedule_passes_that_a_run_which_is_over_has_served(
    store: SqlServiceStore, ingestion: Ingestion, status: RunStatus, *, is_served: bool
) -> None:
    run = begun(store, ingestion)
    assert run.started_at is not None
    with pytest.raises(RunAtWorkError):
        queue(store, ingestion, scheduled_for=run.started_at)
    told = report(run)
    told.status = status
    store.end_run(told, None, RETRY)
    due_at = run.started_at
    if is_served:
        with pytest.raises(ConflictError, match="The ingestion ran at"):
            queue(store, ingestion, scheduled_for=due_at)
        due_at += timedelta(microseconds=1)
    assert queue(store, ingestion, scheduled_for=due_at).status is RunStatus.QUEUED


def test_a_flow_run_has_one_run(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = queue(store, ingestion, flow_run_id="f1")
    assert queue(store, ingestion, flow_run_id="f1") == run
    assert store.run_of_flow_run("f1") == run
    store.cancel_queued(run.id, "not now")
    second = queue(store, ingestion)
    store.set_flow_run(second.id, "f1")
    assert store.run_of_flow_run("f1") == store.run(run.id)
    store.set_flow_run(second.id, "f2")
    found = store.run_of_flow_run("f2")
    assert found is not None
    assert found.id == second.id


def test_runs_are_listed_newest_first_in_pages(store: SqlServiceStore, ingestion: Ingestion) -> None:
    made = []
    for _ in range(5):
        made.append(queue(store, ingestion))
        store.cancel_queued(made[-1].id, "enough")
    page = store.list_runs(ingestion.id, limit=2)
    assert [run.id for run in page] == [run.id for run in made[:1:-1]]
    rest = store.list_runs(ingestion.id, limit=10, after=(page[1].created_at, page[1].id))
    assert [run.id for run in rest] == [run.id for run in made[2::-1]]


def test_one_process_is_started_for_a_run(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = queue(store, ingestion)
    assert [one.id for one in store.due_runs(Method.DIRECT)] == [run.id]
    assert store.due_runs(Method.PREFECT) == []
    assert store.claim_run(run.id, for_s=60.0)
    assert not store.claim_run(run.id, for_s=60.0)
    assert store.due_runs(Method.DIRECT) == []
    assert store.reroute_run(run.id, Method.PREFECT)
    # Whoever starts it another way need not wait for the claim.
    assert [one.id for one in store.due_runs(Method.PREFECT)] == [run.id]
    assert store.claim_run(run.id, for_s=0.0)
    assert store.claim_run(run.id, for_s=0.0)
    take(store, run)
    store.begin_run(run.id)
    assert not store.claim_run(run.id, for_s=60.0)
    assert not store.reroute_run(run.id, Method.DIRECT)


# --- ends ----------------------------------------------------------------------------------------------------------


def test_how_a_run_ended_is_kept(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = begun(store, ingestion)
    assert (run.status, run.attempts) == (RunStatus.RUNNING, 1)
    assert run.started_at is not None
    told = report(run, files_loaded=2, files_failed=1, rows_loaded=20, stored_bytes=99, files_known=4, files_skipped=5)
    told.errors.append(FileFailure("s3://b/\ud800.json", "v", Category.DATA_MALFORMED, "cut\0 off", line=3))
    told.warnings.append("careful")
    ended = store.end_run(told, None, RETRY)
    assert ended.is_over
    assert ended == store.run(run.id)
    assert (ended.status, ended.files_loaded, ended.rows_loaded) == (RunStatus.PARTIAL, 2, 20)
    assert (ended.stored_bytes, ended.files_known, ended.files_skipped) == (99, 4, 5)
    assert ended.warnings == ("careful",)
    assert {name: value for name, value in ended.errors[0].items() if name != "file"} == {
        "category": "data_malformed",
        "line": 3,
        "message": "cut\0 off",
        "retryable": False,
    }
    assert ended.ended_at is not None
    # Whoever comes later changes nothing.
    assert store.end_run(report(run), LOST, RETRY) == ended


def test_a_retryable_end_is_no_end_while_attempts_last(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = begun(store, ingestion)
    again = store.end_run(report(run, files_loaded=1), LOST, RETRY)
    assert (again.status, again.attempts, again.ended_at) == (RunStatus.QUEUED, 1, None)
    assert again.next_attempt_at is not None
    assert again.next_attempt_at - datetime.now(UTC) > timedelta(minutes=59)
    assert again.errors[-1]["category"] == "connectivity"
    assert store.due_runs(Method.DIRECT) == []
    assert not store.claim_run(run.id, for_s=1.0)
    second = store.begin_run(run.id)
    assert second is not None
    assert (second.attempts, second.started_at) == (2, run.started_at)
    told = report(run)
    told.status = RunStatus.FAILED
    assert store.end_run(told, LOST, RETRY).status is RunStatus.FAILED


def test_a_run_of_several_attempts_tells_what_all_of_them_did(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = queue(store, ingestion)
    lease = take(store, run)
    record = store.table(run.table)
    assert record is not None
    for name in ("a", "b"):
        # The first one's process was killed before it could tell anything.
        store.begin_run(run.id)
        batch = claim(store, lease, f"{name}.json", f"{name}.bad")
        loaded = (LoadedFile(f"s3://b/{name}.json", "v1", 7, 10),)
        failed = (FileFailure(f"s3://b/{name}.bad", "v1", Category.DATA_MALFORMED, "bad"),)
        store.close(lease, record, Closing(batch.batch, True, loaded, failed, (), 5, 1, "uuid"))  # noqa: FBT003
    ended = store.end_run(report(run, files_loaded=1, files_failed=1, rows_loaded=7, stored_bytes=10), None, RETRY)
    assert (ended.files_loaded, ended.rows_loaded, ended.files_failed, ended.stored_bytes) == (2, 14, 2, 20)
    assert {error["file"] for error in ended.errors} == {"s3://b/a.bad", "s3://b/b.bad"}
    assert ended.snapshot_id == 5
    assert store.failed_keys(ingestion.id) == ["s3://b/a.bad", "s3://b/b.bad"]
    assert store.failed_keys(ingestion.id, run_id=run.id) == ["s3://b/a.bad", "s3://b/b.bad"]
    assert store.failed_keys(ingestion.id, run_id="other") == []


def test_a_file_that_fails_in_two_attempts_of_a_run_counts_one_try(
    store: SqlServiceStore, ingestion: Ingestion
) -> None:
    record = store.table("local.db.t")
    assert record is not None
    for expected in (1, 2):
        run = queue(store, ingestion)
        for _ in range(2):
            lease = take(store, run)
            store.begin_run(run.id)
            batch = claim(store, lease, "a.json")
            failed = (FileFailure("s3://b/a.json", "v1", Category.CONNECTIVITY, "away"),)
            store.close(lease, record, Closing(batch.batch, committed=False, failed=failed))
            (kept,) = store.list_files(record, failed=True, limit=10, after=None)
            assert kept.tries == expected
        store.release(lease)
        store.end_run(report(run), None, RETRY)


def test_who_slept_through_his_lease_says_nothing_of_a_later_attempt(
    store: SqlServiceStore, ingestion: Ingestion
) -> None:
    run = begun(store, ingestion)
    later = store.begin_run(run.id)
    assert later is not None
    for stop in (LOST, None):
        assert store.end_run(report(run), stop, RETRY, attempt=1) == later
    assert store.end_run(report(run), None, RETRY, attempt=2).status is RunStatus.SUCCESS


# --- handed over ---------------------------------------------------------------------------------------------------


def test_a_run_that_is_handed_over_is_queued_again_at_once(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = begun(store, ingestion)
    handed = store.hand_over_run(report(run, files_known=3, discovered_bytes=99), "It found much.", attempt=1)
    assert (handed.id, handed.status, handed.ended_at) == (run.id, RunStatus.QUEUED, None)
    assert (handed.warnings, handed.files_known, handed.errors) == (("It found much.",), 3, ())
    assert handed.handed_over_at is not None
    # Nobody has its lease, and nothing is waited for.
    assert not store.is_run_alive(run.id)
    assert [one.id for one in store.due_runs(Method.DIRECT)] == [run.id]
    assert store.settle_dead_runs(RETRY) == []
    kept = store.ingestion(ingestion.id)
    assert kept is not None
    assert kept.discovered_bytes == 99
    # Again, as after an answer that was lost.
    assert store.hand_over_run(report(run), "Again.", attempt=1) == handed
    with pytest.raises(NotFoundError):
        store.hand_over_run(RunReport("no such run", "t"), "Much.", attempt=1)


def test_the_attempt_that_hands_a_run_over_is_none_that_failed(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = begun(store, ingestion)
    store.hand_over_run(report(run), "Much.", attempt=1)
    states = []
    for _ in range(2):
        take(store, run, DEAD)
        store.begin_run(run.id)
        states += [one.status for one in store.settle_dead_runs(AT_ONCE)]
    # One attempt and one retry, as anywhere.
    assert states == [RunStatus.QUEUED, RunStatus.FAILED]


def test_a_run_is_handed_over_once_and_by_whoever_is_at_work_on_it(
    store: SqlServiceStore, ingestion: Ingestion
) -> None:
    run = begun(store, ingestion)
    later = store.begin_run(run.id)
    assert later is not None
    assert store.hand_over_run(report(run), "Of an earlier attempt.", attempt=1) == later
    assert store.is_run_alive(run.id)
    store.hand_over_run(report(run), "Much.", attempt=2)
    take(store, run)
    there = store.begin_run(run.id)
    assert there is not None
    assert store.hand_over_run(report(run), "To and fro.", attempt=there.attempts) == there
    ended = store.end_run(report(run, files_loaded=1), None, RETRY, attempt=there.attempts)
    assert ended.status is RunStatus.SUCCESS
    assert store.hand_over_run(report(run), "Late.", attempt=there.attempts) == ended


def test_a_run_whose_end_was_asked_for_is_not_handed_over(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = begun(store, ingestion)
    store.request_cancel(run.id)
    ended = store.hand_over_run(report(run), "Much.", attempt=1)
    assert (ended.status, ended.is_over, ended.handed_over_at) == (RunStatus.CANCELLED, True, None)


# --- dead ----------------------------------------------------------------------------------------------------------


def test_a_run_whose_process_died_goes_on_while_attempts_last(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = begun(store, ingestion, dead=True)
    assert not store.is_run_alive(run.id)
    (again,) = store.settle_dead_runs(AT_ONCE)
    assert (again.id, again.status, again.attempts) == (run.id, RunStatus.QUEUED, 1)
    assert store.settle_dead_runs(AT_ONCE) == []
    take(store, run, DEAD)
    store.begin_run(run.id)
    (failed,) = store.settle_dead_runs(AT_ONCE, ingestion.id)
    assert (failed.status, failed.errors[-1]["category"]) == (RunStatus.FAILED, "run_died")
    assert failed.is_over


def test_a_living_run_is_left_alone(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = begun(store, ingestion)
    assert store.is_run_alive(run.id)
    assert store.settle_dead_runs(AT_ONCE) == []
    other = store.add_ingestion(new_ingestion())
    elsewhere = queue(store, other)
    lease = take(store, elsewhere, ELSEWHERE, seconds=3600.0)
    store.begin_run(elsewhere.id)
    assert store.settle_dead_runs(AT_ONCE) == []
    # Of a process on another machine only its lease tells.
    store.renew(lease, -1.0)
    assert [one.id for one in store.settle_dead_runs(AT_ONCE)] == [elsewhere.id]


def test_runs_of_the_command_line_are_not_settled_here(store: SqlServiceStore) -> None:
    record = store.ensure_table("local.db.t")
    store.start_run("r", store.ensure_load_ingestion(record, "loads"), record)
    assert store.settle_dead_runs(AT_ONCE) == []
    (told,) = store.list_runs("loads", limit=5)
    assert (told.id, told.method, told.trigger) == ("r", Method.DIRECT, Trigger.MANUAL)


def test_an_attempt_that_never_began_is_counted(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = queue(store, ingestion)
    assert store.note_not_begun(run.id, AT_ONCE) is None
    states = []
    for _ in range(2):
        store.claim_run(run.id, for_s=60.0)
        noted = store.note_not_begun(run.id, AT_ONCE)
        assert noted is not None
        states.append((noted.status, noted.attempts))
    assert states == [(RunStatus.QUEUED, 1), (RunStatus.QUEUED, 2)]
    store.claim_run(run.id, for_s=60.0)
    last = store.note_not_begun(run.id, AT_ONCE)
    assert last is not None
    assert (last.status, last.errors[-1]["category"]) == (RunStatus.FAILED, "run_died")
    assert store.note_not_begun("no such run", AT_ONCE) is None


# --- cancel --------------------------------------------------------------------------------------------------------


def test_a_queued_run_is_cancelled_at_once_and_never_begins(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = queue(store, ingestion)
    cancelled = store.request_cancel(run.id)
    assert (cancelled.status, cancelled.is_over) == (RunStatus.CANCELLED, True)
    assert store.begin_run(run.id) is None
    with pytest.raises(RunOverError, match="cancelled"):
        store.request_cancel(run.id)
    with pytest.raises(NotFoundError):
        store.request_cancel("no such run")


def test_a_run_at_work_is_asked_to_end(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = begun(store, ingestion)
    assert not store.is_cancel_requested(run.id)
    assert store.request_cancel(run.id).status is RunStatus.RUNNING
    assert store.is_cancel_requested(run.id)
    # No attempt begins any more, and none comes after an error.
    assert store.begin_run(run.id) is None
    told = report(run)
    told.status = RunStatus.CANCELLED
    assert store.end_run(told, LOST, RETRY).status is RunStatus.CANCELLED


def test_a_dead_run_is_cancelled_at_once(store: SqlServiceStore, ingestion: Ingestion) -> None:
    assert store.request_cancel(begun(store, ingestion, dead=True).id).status is RunStatus.CANCELLED
    run = begun(store, ingestion)
    store.request_cancel(run.id)
    with store._write() as connection:
        connection.execute(update(runs).where(runs.c.id == run.id).values(status="running"))
    take(store, run, DEAD)
    assert [one.status for one in store.settle_dead_runs(AT_ONCE)] == [RunStatus.CANCELLED]


def test_a_run_that_is_not_needed_says_why(store: SqlServiceStore, ingestion: Ingestion) -> None:
    ended = store.cancel_queued(queue(store, ingestion).id, "The ingestion is paused.")
    assert (ended.status, ended.warnings) == (RunStatus.CANCELLED, ("The ingestion is paused.",))
    run = begun(store, ingestion)
    assert store.cancel_queued(run.id, "too late").status is RunStatus.RUNNING


def test_one_process_reconciles(store: SqlServiceStore) -> None:
    """The lease of a thing that is no ingestion."""
    lease = store.acquire("reconciler", "one", this_process(), 60.0)
    holder = store.acquire("reconciler", "two", this_process(), 60.0)
    assert getattr(holder, "expires_in_s", 0.0) > 0
    store.release(lease)  # type: ignore[arg-type]
    assert getattr(store.acquire("reconciler", "two", this_process(), 60.0), "run_id", "") == "two"
