"""A run lets old snapshots go after a commit that left too many, sweeps what is due, and depends on none of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.domain.batch import BatchRef
from app.domain.errors import AutoloaderError, CatalogUnreachableError, CommitUnknownError, TableConflictError
from app.domain.history import KEEP, LEAST_GOING, MOST
from app.domain.runs import RunStatus
from app.domain.table import TableName
from app.domain.upkeep import Expired
from app.persistence.ledger import open_ledger
from app.services.sweeping import Sweeper
from tests.fakes.catalog import FakeCatalog
from tests.unit.services.desk import SETTINGS, TABLE, Desk

# The newest two stay.
SHORT = {KEEP: "2", MOST: "3"}


@pytest.fixture
def long_loaded(desk: Desk) -> Desk:
    """A table with as many snapshots as may go, when there are two more."""
    desk.settings = replace(SETTINGS, batch_files=1)
    for number in range(LEAST_GOING):
        desk.put(f"{number:03d}.json", {"id": number})
    desk.load()
    desk.store.change(TABLE, lambda t: replace(t, properties={**t.properties, **SHORT}))
    return desk


def land(desk: Desk, *numbers: int) -> None:
    for number in numbers:
        desk.put(f"{number:03d}.json", {"id": number})


def manifest_lists(desk: Desk) -> list[str]:
    return [path for path in desk.store.files if path.endswith(".avro")]


def notes(desk: Desk) -> list[str]:
    return [path for path in desk.store.files if "/expired/" in path]


def test_a_run_lets_them_go_and_the_files_when_it_is_time(long_loaded: Desk) -> None:
    land(long_loaded, 100, 101, 102)
    reached: list[str] = []
    assert long_loaded.load(reach=reached.append).status is RunStatus.SUCCESS
    # With the second of three commits it was worth it.
    assert long_loaded.snapshots() == 3
    assert reached.count("history_expired:before") == 1
    # In the fake all files are old.
    assert (manifest_lists(long_loaded), notes(long_loaded)) == ([], [])
    assert long_loaded.ids() == long_loaded.source_ids()
    assert reached.index("batch_closed:after") < reached.index("history_expired:before")


def test_files_of_snapshots_that_just_went_stay_for_their_readers(long_loaded: Desk) -> None:
    land(long_loaded, 100, 101)

    def reach(place: str) -> None:
        if place == "expired_listed:before":
            (note,) = notes(long_loaded)
            long_loaded.store.written_at[note] = datetime.now(UTC) - timedelta(minutes=55)

    long_loaded.load(reach=reach)
    assert len(manifest_lists(long_loaded)) == LEAST_GOING
    (note,) = notes(long_loaded)
    ledger = open_ledger(long_loaded.url)
    sweeper = Sweeper(ledger, FakeCatalog(long_loaded.store), TABLE, lease_s=60.0)
    assert sweeper.sweep().metadata_files == []
    long_loaded.store.written_at[note] -= timedelta(minutes=6)
    planned = sweeper.sweep(dry_run=True)
    assert len(planned.metadata_files) == LEAST_GOING + 1
    assert len(manifest_lists(long_loaded)) == LEAST_GOING
    assert sweeper.sweep().metadata_files == planned.metadata_files
    assert planned.size_bytes > 0
    assert (manifest_lists(long_loaded), notes(long_loaded)) == ([], [])
    ledger.dispose()


@pytest.mark.parametrize("error", [TableConflictError, CommitUnknownError, CatalogUnreachableError])
def test_what_goes_wrong_with_it_fails_no_load(long_loaded: Desk, error: type[AutoloaderError]) -> None:
    class Refusing(FakeCatalog):
        def expire(self, table: TableName, batch: BatchRef, assert_lease: Callable[[], None]) -> int:
            assert_lease()
            raise error(f"{table} after {batch.batch_id}")

    land(long_loaded, 100, 101)
    assert long_loaded.load(catalog=Refusing(long_loaded.store)).status is RunStatus.SUCCESS
    assert long_loaded.snapshots() == LEAST_GOING + 2
    # The next commit says again that it is due.
    land(long_loaded, 102)
    long_loaded.load()
    assert long_loaded.snapshots() == 2
    assert long_loaded.ids() == long_loaded.source_ids()


@pytest.mark.parametrize("place", ["expiry_noted", "expiry_request", "history_expired", "expired_listed"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_that_dies_there_loses_nothing(long_loaded: Desk, place: str, moment: str) -> None:
    land(long_loaded, 100, 101)
    long_loaded.load_and_die(f"{place}:{moment}")
    land(long_loaded, 102)
    assert long_loaded.load().status is RunStatus.SUCCESS
    assert long_loaded.open_batches() == 0
    assert long_loaded.ids() == long_loaded.source_ids()
    assert long_loaded.snapshots() <= 3


def test_rows_that_were_replaced_take_their_data_files_along(long_loaded: Desk) -> None:
    """Where expired snapshots took rows out, their data files are looked for too; of others they are not."""
    long_loaded.put("000.json", {"id": 1000})
    long_loaded.load(values={"on_file_change": "replace"})
    assert len(long_loaded.orphans()) == 1
    land(long_loaded, *range(100, 103 + LEAST_GOING))
    reached: list[str] = []
    long_loaded.load(reach=reached.append, values={"on_file_change": "replace"})
    assert long_loaded.orphans() == set()
    assert long_loaded.ids() == long_loaded.source_ids()
    land(long_loaded, *range(200, 203 + LEAST_GOING))
    reached.clear()
    long_loaded.load(reach=reached.append)
    assert "expired_listed:after" in reached
    assert "leftovers_listed:before" not in reached


def test_a_sweep_that_fails_fails_no_load(long_loaded: Desk) -> None:
    class Broken(FakeCatalog):
        def expired(self, table: TableName, before: datetime) -> Expired:
            raise CatalogUnreachableError(f"{table} before {before}")

    land(long_loaded, 100, 101)
    long_loaded.storage = Broken(long_loaded.store)
    assert long_loaded.load().status is RunStatus.SUCCESS
    assert long_loaded.snapshots() == 2
    assert len(notes(long_loaded)) == 1
