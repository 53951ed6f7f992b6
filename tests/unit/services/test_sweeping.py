"""A sweep removes what killed runs left, and nothing that is in use or somebody else's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.domain.errors import CatalogUnreachableError, TableNotFoundError, TableReplacedError, WriteFailureError
from app.domain.runs import RunStatus
from app.domain.table import TableName
from app.domain.upkeep import References, StoredObject
from app.persistence.ledger import open_ledger
from app.services.sweeping import Sweeper, SweepReport
from tests.fakes.catalog import FakeCatalog
from tests.unit.services.desk import TABLE, Desk

LEASE_S = 60.0
KILLED_WITH_DATA = ["data_written:after", "manifest_written:after", "commit_request:before"]


def sweep(desk: Desk, *, dry_run: bool = False, catalog: FakeCatalog | None = None) -> SweepReport:
    ledger = open_ledger(desk.url)
    try:
        return Sweeper(ledger, catalog or FakeCatalog(desk.store), TABLE, lease_s=LEASE_S).sweep(dry_run=dry_run)
    finally:
        ledger.dispose()


def location(desk: Desk) -> str:
    table = desk.store.get(TABLE)
    assert table is not None
    return table.location


def manifests(desk: Desk) -> set[str]:
    return {path for path in desk.store.files if path.endswith(".json")}


def ingestion(desk: Desk) -> str:
    return str(desk.query("select id from ingestions"))


@pytest.fixture
def loaded(desk: Desk) -> Desk:
    desk.put("a.json", {"id": 1})
    desk.load()
    return desk


def test_nothing_is_left_of_a_run_that_went_well(loaded: Desk) -> None:
    before = dict(loaded.store.files)
    report = sweep(loaded)
    assert (report.data_files, report.manifests, report.size_bytes) == ([], [], 0)
    assert loaded.store.files == before


def test_what_a_killed_run_left_stays_while_its_batch_is_open(loaded: Desk) -> None:
    loaded.put("b.json", {"id": 2})
    loaded.load_and_die("commit_request:before")
    orphans = loaded.orphans()
    assert orphans
    assert sweep(loaded).data_files == []
    assert loaded.orphans() == orphans


@pytest.mark.parametrize("place", KILLED_WITH_DATA)
def test_the_run_that_settles_the_batch_sweeps_by_itself(loaded: Desk, place: str) -> None:
    loaded.put("b.json", {"id": 2})
    loaded.load_and_die(place)
    assert loaded.load().status is RunStatus.SUCCESS
    assert not loaded.orphans()
    assert len(manifests(loaded)) == 2
    assert loaded.ids() == [1, 2]


def test_a_batch_that_was_committed_loses_nothing(loaded: Desk) -> None:
    loaded.put("b.json", {"id": 2})
    loaded.load_and_die("committed:after")
    loaded.load()
    assert loaded.ids() == [1, 2]
    assert len(manifests(loaded)) == 2


def test_files_younger_than_a_lease_stay(loaded: Desk) -> None:
    orphan = f"{location(loaded)}/data/{ingestion(loaded)}-00000001-7-0123abcd-1-00001-0001.parquet"
    loaded.store.files[orphan] = b"rows"
    loaded.store.written_at[orphan] = datetime.now(UTC) - timedelta(seconds=LEASE_S / 2)
    assert sweep(loaded).data_files == []
    loaded.store.written_at[orphan] = datetime.now(UTC) - timedelta(seconds=LEASE_S + 1)
    report = sweep(loaded, dry_run=True)
    assert [f.path for f in report.data_files] == [orphan]
    assert report.size_bytes == 4
    assert orphan in loaded.store.files
    sweep(loaded)
    assert orphan not in loaded.store.files


def test_files_of_similar_names_are_not_ours(loaded: Desk) -> None:
    ours = ingestion(loaded)
    names = [
        f"{ours}x-00000001-1-0123abcd-1-00001-0001.parquet",
        f"{ours}-00000001-1-0123abcd-1-00001-0001.parquet.tmp",
        f"copy-of-{ours}-00000001-1-0123abcd-1-00001-0001.parquet",
        "00000-0-0123abcd-0123-4567-89ab-0123456789ab-00001.parquet",
        f"{'f' * 32}-00000001-1-0123abcd-1-00001-0001.parquet",
        # Of a batch that is yet to come: of a process that we know nothing of.
        f"{ours}-00000099-1-0123abcd-1-00001-0001.parquet",
    ]
    for name in names:
        loaded.store.files[f"{location(loaded)}/data/{name}"] = b"theirs"
    folder = f"manifests/{loaded.store.get(TABLE).uuid}"  # type: ignore[union-attr]
    others = ["notes.json", f"{ours}-00000001.json", f"{'f' * 32}-00000001.1.json", f"{ours}-00000099.1.json"]
    for name in others:
        loaded.store.files[f"{folder}/{name}"] = b"theirs"
    before = dict(loaded.store.files)
    report = sweep(loaded)
    assert (report.data_files, report.manifests) == ([], [])
    assert loaded.store.files == before


def test_manifests_of_tries_that_lost_are_removed(loaded: Desk) -> None:
    (kept,) = manifests(loaded)
    lost = kept.replace(".json", "7.json")
    part = f"{kept.rpartition('/')[0]}/.{kept.rpartition('/')[2]}.{'0' * 32}.part"
    loaded.store.files[lost] = loaded.store.files[kept]
    loaded.store.files[part] = b"{"
    report = sweep(loaded)
    assert {f.path for f in report.manifests} == {lost, part}
    assert manifests(loaded) == {kept}


def test_a_file_of_an_older_snapshot_is_in_use(loaded: Desk) -> None:
    """The storage says so, and the sweep believes it."""
    orphan = f"{ingestion(loaded)}-00000001-7-0123abcd-1-00001-0001.parquet"
    loaded.store.files[f"{location(loaded)}/data/{orphan}"] = b"rows"

    class Historic(FakeCatalog):
        def references(self, table: TableName, names: object) -> References:
            found = super().references(table, names)  # type: ignore[arg-type]
            return replace(found, names=found.names | {orphan})

    assert sweep(loaded, catalog=Historic(loaded.store)).data_files == []


def test_a_table_that_is_another_one_is_not_touched(loaded: Desk) -> None:
    orphan = f"{location(loaded)}/data/{ingestion(loaded)}-00000001-7-0123abcd-1-00001-0001.parquet"
    loaded.store.files[orphan] = b"rows"
    loaded.store.change(TABLE, lambda t: replace(t, uuid="another"))
    with pytest.raises(TableReplacedError):
        sweep(loaded)
    assert orphan in loaded.store.files


def test_a_table_that_nobody_knows_is_not_touched(desk: Desk) -> None:
    with pytest.raises(TableNotFoundError):
        sweep(desk)


def test_a_sweep_after_a_recovery_fails_no_run(loaded: Desk) -> None:
    loaded.put("b.json", {"id": 2})
    loaded.load_and_die("manifest_written:after")

    class Stubborn(FakeCatalog):
        def remove(self, *_: object) -> None:
            raise WriteFailureError

        def data_folder(self, table: TableName) -> Iterator[StoredObject]:
            raise CatalogUnreachableError(str(table))

    loaded.storage = Stubborn(loaded.store)
    assert loaded.load().status is RunStatus.SUCCESS
    assert loaded.ids() == [1, 2]
    loaded.storage = None
    sweep(loaded)
    assert not loaded.orphans()
