"""Whose time it is: of several machines' clocks only the database's counts. Here it goes ahead of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from app.domain.errors import KeyAtWorkError
from app.domain.ingestions import Deployment, Ingestion, IngestionStatus, Method, RunRecord, Trigger
from app.domain.runs import Lease, LeaseHolder, Owner, RunReport
from app.domain.service import NewIngestion, NewRun, RetryPolicy, RunStop
from app.persistence.answers import LONGEST_REQUEST
from app.persistence.keys import Keyring
from app.persistence.service import SqlServiceStore, open_service_store
from app.services import reconciling
from app.services.reconciler import PassReport, Reconciler
from tests.fakes.scheduler import MemoryScheduler
from tests.support.postgres import Postgres

ELSEWHERE = Owner("another-host", 1, 0.0)
RETRY = RetryPolicy(times=1, delay_s=3600.0)


@dataclass
class Scene:
    """A database whose clock can be put forward; nobody else's moves."""

    server: Postgres
    url: str
    store: SqlServiceStore
    ahead_s: float = 0.0

    def go_on(self, seconds: float) -> None:
        self.ahead_s += seconds
        self.server.execute(
            "create or replace function public.clock_timestamp() returns timestamptz language sql as "
            f"$$ select pg_catalog.clock_timestamp() + interval '{self.ahead_s} seconds' $$",
            self.url,
        )

    def queue(self, method: Method = Method.DIRECT) -> RunRecord:
        document = {"source": {"type": "s3", "path": "s3://b/"}, "schedule": {"frequency": "hourly"}}
        new = NewIngestion("i", "default", "n", IngestionStatus.ACTIVE, "local.db.t", document)
        made: Ingestion = self.store.add_ingestion(new)
        return self.store.queue_run(NewRun("r", made.id, Trigger.MANUAL, method))


@pytest.fixture
def scene(postgres: Postgres, migrated: str, tmp_path: Path) -> Iterator[Scene]:
    url = postgres.copy_database(migrated)
    name = url.rpartition("/")[2]
    postgres.execute(f"alter database {name} set search_path = public, pg_catalog")
    store = open_service_store(url, Keyring("a passphrase", None, tmp_path), lambda _: None)
    yield Scene(postgres, url, store)
    store.dispose()


def test_a_lease_runs_out(scene: Scene) -> None:
    lease = scene.store.acquire("i", "one", ELSEWHERE, 600.0)
    assert isinstance(lease, Lease)
    scene.go_on(400.0)
    assert isinstance(scene.store.acquire("i", "two", ELSEWHERE, 600.0), LeaseHolder)
    assert scene.store.renew(lease, 600.0)
    scene.go_on(400.0)
    assert scene.store.is_alive(lease)
    assert isinstance(scene.store.acquire("i", "two", ELSEWHERE, 600.0), LeaseHolder)
    scene.go_on(201.0)
    assert not scene.store.is_alive(lease)
    assert isinstance(scene.store.acquire("i", "two", ELSEWHERE, 600.0), Lease)


def test_an_attempt_that_is_due_later_comes_due_and_a_claim_runs_out(scene: Scene) -> None:
    run = scene.queue()
    scene.store.acquire(run.ingestion_id, run.id, ELSEWHERE, 60.0)
    scene.store.begin_run(run.id)
    lost = RunStop("connectivity", "The source does not answer.", retryable=True)
    scene.store.end_run(RunReport(run.id, run.table), lost, RETRY)
    scene.go_on(3000.0)
    assert scene.store.due_runs(Method.DIRECT) == []
    scene.go_on(601.0)
    assert scene.store.claim_run(run.id, for_s=600.0)
    assert scene.store.due_runs(Method.DIRECT) == []
    scene.go_on(601.0)
    assert [one.id for one in scene.store.due_runs(Method.DIRECT)] == [run.id]


def test_the_dead_of_another_machine_are_settled_when_their_lease_is_over(scene: Scene) -> None:
    run = scene.queue()
    scene.store.acquire(run.ingestion_id, run.id, ELSEWHERE, 60.0)
    scene.store.begin_run(run.id)
    assert scene.store.settle_dead_runs(RETRY) == []
    scene.go_on(61.0)
    assert [one.id for one in scene.store.settle_dead_runs(RETRY)] == [run.id]


def test_a_request_that_never_ended_is_carried_out_anew(scene: Scene) -> None:
    begun = scene.store.begin_answer("t", "k", "hash")
    scene.go_on(LONGEST_REQUEST.total_seconds() - 60.0)
    with pytest.raises(KeyAtWorkError):
        scene.store.begin_answer("t", "k", "hash")
    scene.go_on(61.0)
    assert scene.store.begin_answer("t", "k", "hash") == begun


def test_a_queued_run_waits_for_prefect_only_so_long(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than this test may take.
    young, patience = timedelta(minutes=10), timedelta(hours=1)
    monkeypatch.setattr(reconciling, "YOUNG", young)
    monkeypatch.setattr(reconciling, "PATIENCE", patience)
    prefect = MemoryScheduler()
    reconciler = Reconciler(scene.store, prefect, RETRY, grace_s=0)
    # Whatever our own clock says of a run that was queued by another machine a moment ago.
    scene.go_on(3600.0)
    run = scene.queue(Method.PREFECT)
    ingestion = scene.store.ingestion(run.ingestion_id)
    assert ingestion is not None
    made = asyncio.run(prefect.create_deployment(ingestion))
    scene.store.set_deployment(run.ingestion_id, Deployment(made, ""))

    def settled() -> PassReport:
        report = PassReport()
        asyncio.run(reconciler.settle_runs(report))
        return report

    assert settled().given_again == []
    scene.go_on(young.total_seconds())
    assert settled().given_again == [run.id]
    prefect.is_away = True
    assert settled().gone_without == []
    scene.go_on(patience.total_seconds())
    assert settled().gone_without == [run.id]
