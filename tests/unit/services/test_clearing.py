"""A ledger that begins anew: no run that sleeps puts into the table what was forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from app.domain.errors import CatalogUnreachableError, RunInProgressError
from app.domain.ports import Catalog
from app.domain.runs import Lease
from app.domain.table import epoch_property
from app.persistence.leases import this_process
from app.persistence.ledger import open_ledger
from app.services.clearing import Cleared, FencePorts, clear, fence_table
from tests.fakes.catalog import FakeCatalog
from tests.unit.services.desk import DEAD, TABLE, Desk


def cleared(desk: Desk, open_catalog: Callable[[], Catalog] | None = None) -> Cleared:
    ledger = open_ledger(desk.url)
    try:
        ports = FencePorts(ledger, open_catalog or (lambda: FakeCatalog(desk.store)), this_process(), 60.0)
        return clear(ports, ledger.ensure_table(str(TABLE)), TABLE)
    finally:
        ledger.dispose()


def away() -> Catalog:
    raise CatalogUnreachableError


def epoch_in_table(desk: Desk) -> int:
    table = desk.store.get(TABLE)
    assert table is not None
    return int(table.properties.get(epoch_property(str(desk.query("select id from ingestions"))), "0"))


@pytest.fixture
def loaded(desk: Desk) -> Desk:
    desk.put("a.json", {"id": 1})
    desk.load()
    desk.put("b.json", {"id": 2})
    return desk


def test_the_table_is_fenced_above_a_run_that_left_a_batch_open(loaded: Desk) -> None:
    loaded.load_and_die("commit_request:before")
    sleepers = int(str(loaded.query("select max(epoch) from leases")))
    assert epoch_in_table(loaded) < sleepers
    assert cleared(loaded) == Cleared(1, 2)
    assert epoch_in_table(loaded) > sleepers
    assert (loaded.open_batches(), loaded.query("select count(*) from leases where run_id is not null")) == (0, 0)
    assert loaded.load().files_loaded == 2


def test_a_batch_that_is_in_the_table_is_named(loaded: Desk) -> None:
    loaded.load_and_die("committed:after")
    outcome = cleared(loaded)
    assert (outcome.files, outcome.generation) == (1, 2)
    (warning,) = outcome.warnings
    assert "-00000002 was committed" in warning


def test_where_no_batch_is_open_the_catalog_is_not_asked(loaded: Desk) -> None:
    assert cleared(loaded, away) == Cleared(1, 2)


def test_nothing_is_forgotten_when_the_catalog_does_not_answer(loaded: Desk) -> None:
    loaded.load_and_die("commit_request:before")
    with pytest.raises(CatalogUnreachableError):
        cleared(loaded, away)
    assert (loaded.open_batches(), loaded.query("select generation from tables")) == (1, 1)


def test_where_there_is_no_table_there_is_nothing_to_fence(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.load_and_die("commit_request:before")
    assert cleared(desk) == Cleared(0, 2)
    assert desk.store.get(TABLE) is None
    assert desk.load().files_loaded == 1


def test_another_table_of_that_name_is_left_alone(loaded: Desk) -> None:
    loaded.load_and_die("commit_request:before")
    loaded.store.change(TABLE, lambda t: replace(t, uuid="another"))
    before = loaded.store.get(TABLE)
    assert cleared(loaded) == Cleared(1, 2)
    assert loaded.store.get(TABLE) is before


def test_nothing_is_forgotten_under_a_run_at_work(loaded: Desk) -> None:
    loaded.load_and_die("commit_request:before")
    ledger = open_ledger(loaded.url)
    ingestion = str(loaded.query("select id from ingestions"))
    lease = ledger.acquire(ingestion, "r", this_process(), 60.0)
    assert isinstance(lease, Lease)
    with pytest.raises(RunInProgressError, match="Run r is at work"):
        cleared(loaded)
    ledger.release(lease)
    ledger.dispose()
    assert cleared(loaded) == Cleared(1, 2)


def test_a_run_that_came_after_the_fence_is_not_forgotten(loaded: Desk) -> None:
    """It may have fallen asleep since, with a batch in hand that nothing shuts out."""
    loaded.load_and_die("commit_request:before")
    ledger = open_ledger(loaded.url)
    record = ledger.ensure_table(str(TABLE))
    ports = FencePorts(ledger, lambda: FakeCatalog(loaded.store), this_process(), 60.0)
    fenced = fence_table(ports, record, TABLE)
    ledger.acquire(str(loaded.query("select id from ingestions")), "r", DEAD, 60.0)
    with pytest.raises(RunInProgressError, match="began to load"):
        ledger.clear(record, fenced=fenced.epochs)
    assert loaded.open_batches() == 1
    ledger.dispose()
    assert cleared(loaded) == Cleared(1, 2)
