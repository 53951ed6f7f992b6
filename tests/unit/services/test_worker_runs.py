"""What a worker says of its runs in our rows, on the real database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import LedgerUnreachableError, MemoryLimitError
from app.domain.files import LoadedFile
from app.domain.ingestions import Ingestion, RunRecord
from app.domain.ledger import Closing
from app.domain.runs import RunStatus
from app.domain.service import RetryPolicy
from app.persistence.keys import Keyring
from app.persistence.service import SqlServiceStore, open_service_store
from app.services.worker_runs import OfFlowRun, WorkerRuns
from tests.unit.persistence.service_desk import DEAD, claim, new_ingestion, queue, take

RETRY = RetryPolicy(times=3, delay_s=0.0)
TOO_LARGE = MemoryLimitError("The run needed 2.00 GB of memory, its limit is 1 GB, and it was ended.")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlServiceStore]:
    found = open_service_store(f"sqlite:///{tmp_path}/a.db", Keyring("key", None, tmp_path), lambda _: None)
    yield found
    found.dispose()


@pytest.fixture
def ingestion(store: SqlServiceStore) -> Ingestion:
    return store.add_ingestion(new_ingestion())


def of(run: RunRecord, *, named: bool = True) -> OfFlowRun:
    return OfFlowRun(
        run.flow_run_id or "unknown",
        {"ingestion_id": run.ingestion_id, **({"run_id": run.id} if named else {})},
    )


def status(store: SqlServiceStore, run: RunRecord) -> RunStatus:
    found = store.run(run.id)
    assert found is not None
    return found.status


@pytest.mark.parametrize("named", [True, False])
def test_a_run_is_found_by_its_name_or_its_flow_run_and_cancelled(
    store: SqlServiceStore, ingestion: Ingestion, *, named: bool
) -> None:
    run = queue(store, ingestion, flow_run_id=None if named else "f1")
    take(store, run)
    store.begin_run(run.id)
    runs = WorkerRuns(store, RETRY)
    assert runs.cancel(of(run, named=named))
    # Its process is at work, and is the one to end it.
    assert (status(store, run), store.is_cancel_requested(run.id)) == (RunStatus.RUNNING, True)
    assert not runs.cancel(OfFlowRun("another", {"ingestion_id": ingestion.id}))


def test_one_that_nobody_is_at_work_on_is_cancelled_at_once(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = queue(store, ingestion)
    take(store, run, DEAD)
    store.begin_run(run.id)
    runs = WorkerRuns(store, RETRY)
    assert runs.cancel(of(run))
    assert status(store, run) is RunStatus.CANCELLED
    # Once more: it is over.
    assert runs.cancel(of(run))


def test_one_that_was_too_large_fails_for_good_with_what_it_had_loaded(
    store: SqlServiceStore, ingestion: Ingestion
) -> None:
    run = queue(store, ingestion)
    lease = take(store, run)
    store.begin_run(run.id)
    table = store.table("local.db.t")
    assert table is not None
    batch = claim(store, lease, "a", "b")
    loaded = tuple(LoadedFile(one.key, one.version, 7, one.size_bytes) for one in batch.files)
    store.close(lease, table, Closing(batch.batch, True, loaded, (), (), 9, 1, "uuid"))  # noqa: FBT003
    WorkerRuns(store, RETRY).fail(of(run), TOO_LARGE)
    ended = store.run(run.id)
    assert ended is not None
    assert (ended.status, ended.files_loaded, ended.rows_loaded) == (RunStatus.FAILED, 2, 14)
    assert ended.next_attempt_at is None
    (error,) = ended.errors
    assert (error["category"], error["retryable"]) == ("memory_limit", False)
    assert "AUTOLOADER_RUN_MEMORY_GB" in error["message"]
    # It was settled by somebody else before: it stays as it is.
    WorkerRuns(store, RETRY).fail(of(run), MemoryLimitError("Later."))
    assert store.run(run.id) == ended


def test_a_run_whose_process_died_is_settled(store: SqlServiceStore, ingestion: Ingestion) -> None:
    run = queue(store, ingestion)
    take(store, run, DEAD)
    store.begin_run(run.id)
    other = queue(store, store.add_ingestion(new_ingestion(table="local.db.u")))
    take(store, other, DEAD)
    store.begin_run(other.id)
    WorkerRuns(store, RETRY).settle(of(run))
    assert (status(store, run), status(store, other)) == (RunStatus.QUEUED, RunStatus.RUNNING)


class Away:
    """A database that does not answer."""

    def __getattr__(self, _name: str) -> Any:
        def refuse(*_: object, **__: object) -> None:
            raise LedgerUnreachableError

        return refuse


def test_a_database_that_is_away_is_borne(store: SqlServiceStore, ingestion: Ingestion) -> None:
    which = of(replace(queue(store, ingestion), flow_run_id="f1"))
    runs = WorkerRuns(Away(), RETRY)
    assert not runs.cancel(which)
    runs.fail(which, TOO_LARGE)
    runs.settle(which)
