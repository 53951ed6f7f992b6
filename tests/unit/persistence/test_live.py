"""Events, logs and counts: kept in the transaction that changes what they tell of, on both kinds of database."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text, update

from app.api.models import RunModel
from app.domain.ingestions import Ingestion, IngestionStatus, Method, RunRecord
from app.domain.live import Event, EventFilter, EventKind, RunLogLine, RunProgress
from app.domain.runs import RunReport, RunStatus
from app.domain.service import RetryPolicy, RunStop
from app.persistence.database import open_engine, parse_url
from app.persistence.live import FIRST_LINES, LAST_LINES, LINE_LENGTH
from app.persistence.schema import runs
from app.persistence.service import SqlServiceStore
from app.persistence.telling import tell
from tests.unit.persistence.desk import until
from tests.unit.persistence.service_desk import DEAD, ServiceDesk, new_ingestion, queue, take

RETRY = RetryPolicy(times=1, delay_s=3600.0)
ALL = EventFilter()
AGES = {"events_age_s": 3600.0, "logs_age_s": 3600.0}


def told(store: SqlServiceStore, wanted: EventFilter = ALL, after: int = 0) -> list[Event]:
    return list(store.events_after(after, wanted, limit=10_000).events)


def kinds(store: SqlServiceStore, wanted: EventFilter = ALL, after: int = 0) -> list[str]:
    return [event.kind.value for event in told(store, wanted, after)]


def begun(store: SqlServiceStore, ingestion: Ingestion, *, dead: bool = False) -> RunRecord:
    run = queue(store, ingestion)
    take(store, run, DEAD if dead else None)
    at_work = store.begin_run(run.id)
    assert at_work is not None
    return at_work


def backdate(store: SqlServiceStore, run: RunRecord) -> None:
    """Have it begun ten minutes ago: what it takes besides, on a slow machine too, changes no count of durations."""
    with store._write() as connection:
        begun_at = connection.execute(select(runs.c.started_at).where(runs.c.id == run.id)).scalar_one()
        connection.execute(update(runs).where(runs.c.id == run.id).values(started_at=begun_at - timedelta(minutes=10)))


def ended(store: SqlServiceStore, run: RunRecord, **values: int) -> RunRecord:
    report = RunReport(run_id=run.id, table=run.table, **values)  # type: ignore[arg-type]
    report.settle()
    over = store.end_run(report, None, RETRY)
    with store._write() as connection:
        connection.execute(text("update leases set run_id = null, expires_at = 0"))
    return over


def line(number: int, message: str = "m") -> RunLogLine:
    return RunLogLine(number, datetime(2026, 1, 1, tzinfo=UTC), "info", message)


@pytest.fixture
def ingestion(store: SqlServiceStore) -> Ingestion:
    return store.add_ingestion(new_ingestion(tenant="shop"))


# --- events --------------------------------------------------------------------------------------------------------


def test_what_is_told_of_a_run_has_the_fields_that_the_reference_says(
    store: SqlServiceStore, ingestion: Ingestion
) -> None:
    begun(store, ingestion)
    body = told(store)[-1].body
    lacks, has_more = RunModel.model_fields.keys() - body.keys(), body.keys() - RunModel.model_fields.keys()
    assert lacks == {"warnings", "errors", "new_versions", "progress", "duration_s"}
    assert has_more == {"cancel_requested_at", "error"}


def test_every_change_of_an_ingestion_is_told(store: SqlServiceStore, ingestion: Ingestion) -> None:
    paused = store.change_ingestion(replace(ingestion, status=IngestionStatus.PAUSED), None, 1)
    resumed = store.change_ingestion(replace(paused, status=IngestionStatus.ACTIVE), None, 2)
    renamed = store.change_ingestion(replace(resumed, name="new", status=IngestionStatus.PAUSED), None, 3)
    store.change_ingestion(renamed, {"aws_region": "x"}, 4)
    store.bury_ingestion(ingestion.id, None)
    expected = "created paused resumed updated paused updated deleted"
    assert kinds(store) == [f"ingestion.{word}" for word in expected.split()]
    assert {(event.tenant, event.ingestion_id, event.run_id) for event in told(store)} == {("shop", ingestion.id, None)}
    last = told(store)[-1]
    assert (last.body["name"], last.body["status"]) == ("new", "paused")


def test_every_change_of_a_run_is_told(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = queue(store, ingestion, method=Method.PREFECT)
    after = told(store)[-2].id
    store.set_flow_run(run.id, "f-1")
    store.reroute_run(run.id, Method.DIRECT)
    take(store, run)
    store.begin_run(run.id)
    store.request_cancel(run.id)
    ended(store, run, files_loaded=2, rows_loaded=7)
    expected = "queued updated updated running updated success"
    assert kinds(store, after=after) == [f"run.{word}" for word in expected.split()]
    queued, named, rerouted, *_, over = told(store, EventFilter(run_id=run.id))
    assert (queued.body["status"], queued.body["method"]) == ("queued", "prefect")
    assert (named.body["flow_run_id"], rerouted.body["method"]) == ("f-1", "direct")
    assert (over.body["files"]["loaded"], over.body["rows"]["loaded"], over.body["error"]) == (2, 7, None)
    assert over.kind.ends_run


def test_nothing_is_told_of_what_did_not_change(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = begun(store, ingestion)
    ended(store, run)
    before = kinds(store)
    ended(store, run)
    assert store.begin_run(run.id) is None
    store.cancel_queued(run.id, "no")
    assert not store.reroute_run(run.id, Method.PREFECT)
    assert kinds(store) == before


def test_an_attempt_that_is_followed_by_another_one_is_told_as_queued(
    store: SqlServiceStore, ingestion: Ingestion
) -> None:
    run = begun(store, ingestion)
    report = RunReport(run.id, run.table, status=RunStatus.FAILED)
    store.end_run(report, RunStop("connectivity", "No answer.", retryable=True), RETRY)
    last = told(store)[-1]
    assert last.kind is EventKind.RUN_QUEUED
    assert last.body["next_attempt_at"] is not None
    assert last.body["error"] == {"category": "connectivity", "message": "No answer."}


def test_a_death_is_told_and_stands_in_the_log(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = begun(store, ingestion, dead=True)
    store.tell_progress(run.id, 1, RunProgress(files=1), [line(1)])
    store.settle_dead_runs(RETRY)
    assert kinds(store)[-1] == "run.queued"
    (_, death) = store.run_log(run.id, after=0, limit=10).lines
    assert (death.number, death.level) == (2, "warning")
    assert "process ended" in death.message
    found = store.run(run.id)
    assert found is not None
    assert found.progress is None


def test_the_command_lines_loads_are_told_too(store: SqlServiceStore) -> None:
    table = store.ensure_table("local.db.t")
    store.ensure_load_ingestion(table, "load-1")
    store.start_run("r", "load-1", table)
    store.start_run("r", "load-1", table)
    store.finish_run(RunReport("r", "local.db.t", status=RunStatus.SUCCESS))
    assert kinds(store) == ["run.running", "run.success"]
    assert {event.tenant for event in told(store)} == {"default"}


def test_events_are_told_to_those_that_they_concern(store: SqlServiceStore, ingestion: Ingestion) -> None:
    other = store.add_ingestion(new_ingestion(table="local.db.other"))
    run = queue(store, ingestion)
    assert kinds(store, EventFilter(tenant="default")) == ["ingestion.created"]
    assert kinds(store, EventFilter(tenant="shop")) == ["ingestion.created", "run.queued"]
    assert kinds(store, EventFilter(ingestion_id=other.id)) == ["ingestion.created"]
    assert kinds(store, EventFilter(run_id=run.id)) == ["run.queued"]
    for wanted in (ALL, EventFilter("shop", ingestion.id, run.id), EventFilter(ingestion_id=other.id)):
        assert [event for event in told(store) if wanted.takes(event)] == told(store, wanted)
    assert store.knows_events_of(EventFilter("shop", ingestion.id))
    assert store.knows_events_of(EventFilter("shop", run_id=run.id))
    assert not store.knows_events_of(EventFilter("default", ingestion.id))
    assert not store.knows_events_of(EventFilter("default", run_id=run.id))


def test_pages_say_how_far_they_looked(store: SqlServiceStore, ingestion: Ingestion) -> None:
    for _ in range(3):
        store.cancel_queued(queue(store, ingestion).id, "no")
    everything = told(store)
    page = store.events_after(0, ALL, limit=2)
    assert (list(page.events), page.position) == (everything[:2], everything[1].id)
    nothing = store.events_after(0, EventFilter(run_id="none"), limit=2)
    assert (nothing.events, nothing.position) == ((), everything[-1].id)
    assert store.events_after(everything[-1].id + 5, ALL, limit=2).position == everything[-1].id + 5


def test_a_change_that_is_not_committed_is_not_told(store: SqlServiceStore, ingestion: Ingestion) -> None:
    def undone() -> None:
        with store._write() as connection:
            tell(connection, EventKind.RUN_FAILED, ingestion.id, "r", {})
            raise RuntimeError("undone")

    with pytest.raises(RuntimeError, match="undone"):
        undone()
    assert kinds(store) == ["ingestion.created"]


def test_ids_become_visible_in_their_order(store: SqlServiceStore, ingestion: Ingestion, service: ServiceDesk) -> None:
    """Two changes at once: the one that commits first has the lower id, so that a reader passes over none."""
    start = store.event_bounds().newest
    committed, holding, positions = threading.Event(), threading.Event(), []

    def first() -> None:
        with store._write() as connection:
            tell(connection, EventKind.RUN_QUEUED, ingestion.id, "slow", {})
            holding.set()
            assert committed.wait(60)

    def second() -> None:
        with other._write() as connection:
            tell(connection, EventKind.RUN_QUEUED, ingestion.id, "quick", {})

    other = service.open()
    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert holding.wait(60)
    threads[1].start()
    if not service.url.startswith("sqlite"):
        until(lambda: _is_waiting(service.url))
    page = store.events_after(start, ALL, limit=10)
    positions.append(page.position)
    assert page.events == ()
    committed.set()
    for thread in threads:
        thread.join(60)
    assert [event.run_id for event in told(store, after=positions[-1])] == ["slow", "quick"]
    other.dispose()


def _is_waiting(url: str) -> bool:
    """Whether a transaction waits for a lock of another one, or is through without having waited."""
    engine = open_engine(parse_url(url))
    with engine.connect() as connection:
        waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'advisory'"
        through = "select count(*) from events where run_id = 'quick'"
        found = [connection.execute(text(statement)).scalar_one() for statement in (waiting, through)]
    engine.dispose()
    return any(found)


def test_many_writers_and_a_reader_who_misses_none(store: SqlServiceStore, ingestion: Ingestion) -> None:
    seen: list[int] = []
    position = store.event_bounds().newest
    done = threading.Event()

    def write(number: int) -> None:
        for turn in range(15):
            with store._write() as connection:
                tell(connection, EventKind.RUN_QUEUED, ingestion.id, f"{number}-{turn}", {})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while not done.is_set():
        if not any(thread.is_alive() for thread in threads):
            done.set()
        page = store.events_after(position, ALL, limit=7)
        seen += [event.id for event in page.events]
        position = page.position
    seen += [event.id for event in told(store, after=position)]
    assert len(seen) == len(set(seen)) == 60
    assert seen == sorted(seen)


# --- what is kept --------------------------------------------------------------------------------------------------


def test_old_events_are_forgotten_and_that_is_known(store: SqlServiceStore, ingestion: Ingestion) -> None:
    for _ in range(4):
        store.cancel_queued(queue(store, ingestion).id, "no")
    everything = told(store)
    assert store.prune(events=100, **AGES) == 0
    assert store.event_bounds().pruned == 0
    assert store.prune(events=3, **AGES) == len(everything) - 3
    bounds = store.event_bounds()
    assert (bounds.pruned, bounds.newest) == (everything[-4].id, everything[-1].id)
    assert [bounds.has_all_after(event.id) for event in everything[-5:]] == [False, True, True, True, True]
    assert not bounds.has_all_after(bounds.newest + 1)
    assert told(store) == everything[-3:]
    assert store.prune(events=3, events_age_s=0, logs_age_s=0) == 3
    empty = store.event_bounds()
    assert (empty.pruned, empty.newest) == (bounds.newest, bounds.newest)
    queue(store, ingestion)
    assert told(store)[0].id > bounds.newest


def test_of_progress_the_last_news_are_kept_until_there_are_others(
    store: SqlServiceStore, ingestion: Ingestion
) -> None:
    run = begun(store, ingestion)
    store.tell_progress(run.id, 1, RunProgress(1, 10, 100, 2, 200), [])
    store.tell_progress(run.id, 1, RunProgress(2, 20, 200, 2, 200), [])
    only = told(store, EventFilter(run_id=run.id))[-1]
    assert kinds(store, EventFilter(run_id=run.id)) == ["run.queued", "run.running", "run.progress"]
    assert only.body["progress"] == {"files": 2, "rows": 20, "bytes": 200, "total_files": 2, "total_bytes": 200}
    found = store.run(run.id)
    assert found is not None
    assert found.progress == RunProgress(2, 20, 200, 2, 200)
    # Of an attempt that is not the present one, and of a run that is over, nothing is told.
    store.tell_progress(run.id, 2, RunProgress(9), [])
    assert told(store)[-1] == only
    ended(store, run)
    store.tell_progress(run.id, 1, RunProgress(9), [])
    assert kinds(store, EventFilter(run_id=run.id)) == ["run.queued", "run.running", "run.success"]
    over = store.run(run.id)
    assert over is not None
    assert over.progress is None


def test_new_lines_of_a_log_are_told_with_the_progress_that_there_is(
    store: SqlServiceStore, ingestion: Ingestion
) -> None:
    run = begun(store, ingestion)
    mine = EventFilter(run_id=run.id)
    store.tell_progress(run.id, 1, None, [line(1), line(2)])
    first = told(store, mine)[-1]
    assert (first.kind, first.body["progress"], first.body["log_lines"]) == ("run.progress", None, 2)
    store.tell_progress(run.id, 1, RunProgress(1, 10, 100, 2, 200), [])
    store.tell_progress(run.id, 1, None, [line(3)])
    last = told(store, mine)[-1]
    assert kinds(store, mine) == ["run.queued", "run.running", "run.progress"]
    assert last.id > first.id
    assert (last.body["progress"]["rows"], last.body["log_lines"]) == (10, 3)
    ended(store, run)
    store.tell_progress(run.id, 1, None, [line(4)])
    assert store.last_line(run.id) == 4
    assert kinds(store, mine) == ["run.queued", "run.running", "run.success"]


def test_the_first_and_the_last_lines_of_a_log_are_kept(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = begun(store, ingestion)
    most = FIRST_LINES + LAST_LINES
    store.tell_progress(run.id, 1, None, [line(number) for number in range(1, most)])
    store.tell_progress(run.id, 1, None, [line(most, "x" * 3_000), line(most, "again")])
    assert store.run_log(run.id, after=0, limit=5_000).left_out == 0
    store.tell_progress(run.id, 1, None, [line(most + 1), line(most + 2)])
    log = store.run_log(run.id, after=0, limit=5_000)
    assert log.left_out == 2
    numbers = [one.number for one in log.lines]
    assert numbers == [*range(1, FIRST_LINES + 1), *range(FIRST_LINES + 3, most + 3)]
    assert len(next(one for one in log.lines if one.number == most).message) == LINE_LENGTH
    assert [one.number for one in store.run_log(run.id, after=2, limit=2).lines] == [3, 4, 5]
    assert store.last_line(run.id) == most + 2
    store.prune(events=100, **AGES)
    assert store.run_log(run.id, after=0, limit=1).lines == ()


def test_a_removed_ingestion_takes_its_logs_with_it(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = begun(store, ingestion)
    store.tell_progress(run.id, 1, None, [line(1)])
    ended(store, run)
    store.bury_ingestion(ingestion.id, None)
    store.remove_ingestion(ingestion.id)
    assert store.last_line(run.id) == 0
    assert store.knows_events_of(EventFilter("shop", ingestion.id))


# --- counts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(store: SqlServiceStore, ingestion: Ingestion) -> RunRecord:
    run = begun(store, ingestion)
    backdate(store, run)
    return ended(store, run, commit_retries=2)


def test_what_was_counted_stays_when_its_rows_are_gone(
    store: SqlServiceStore, ingestion: Ingestion, counted: RunRecord
) -> None:
    run = begun(store, ingestion)
    backdate(store, run)
    failed = RunReport(run.id, run.table, status=RunStatus.FAILED)
    for attempt in (1, 1):
        store.end_run(failed, RunStop("lease_lost", "Gone."), RETRY, attempt=attempt)
    now = store.readings(most=10)
    assert now.last_success == {ingestion.id: counted.ended_at}
    store.bury_ingestion(ingestion.id, None)
    store.remove_ingestion(ingestion.id)
    counters = store.readings(most=10).counters
    assert counters["runs_ended"] == {"success": 1, "failed": 1}
    assert counters["run_duration"] == {"900": 2}
    assert counters["commit_retries"] == {"": 2}
    # Whoever slept through his lease is counted, though his report is not taken.
    assert counters["stops"] == {"lease_lost": 2}


def test_what_waits_and_what_is_fresh(store: SqlServiceStore, ingestion: Ingestion, counted: RunRecord) -> None:
    other = store.add_ingestion(new_ingestion(status=IngestionStatus.PAUSED, table="local.db.other"))
    run = queue(store, ingestion)
    now = store.readings(most=10)
    assert now.not_over == {("queued", "direct"): 1}
    assert now.due_since == {"direct": run.created_at}
    assert now.ingestions == {"active": 1, "paused": 1}
    assert now.last_success == {ingestion.id: counted.ended_at}
    assert (store.readings(most=0).last_success, store.readings(most=0).left_out) == ({}, 1)
    assert store.readings(most=10, tenant=ingestion.tenant).last_success == now.last_success
    assert store.readings(most=10, tenant="nobodys").last_success == {}
    store.bury_ingestion(other.id, None)
    assert store.readings(most=10).ingestions == {"active": 1}
