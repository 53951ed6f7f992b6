"""What expired snapshots leave beside a table of the built-in catalog, and what it takes for ours to remove."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from app.destinations.catalog import IcebergCatalog
from app.destinations.configured import local_catalog
from app.domain.batch import BatchManifest, BatchRef
from app.domain.errors import TableConflictError
from app.domain.history import GC_ENABLED, KEEP, LEAST_GOING, MOST
from app.domain.ports import CommitOrder
from app.domain.table import TableName
from app.domain.types import LONG, Field, Struct
from tests.support.parquet_files import write_data_file

TABLE = TableName("local", ("sales",), "orders")
SCHEMA = Struct((Field("id", LONG),))
SHORT = {
    KEEP: "2",
    MOST: "3",
    "commit.manifest.min-count-to-merge": "4",
    "write.metadata.previous-versions-max": "3",
}
MANY = 2 + LEAST_GOING
SOON = timedelta(hours=1)


@pytest.fixture
def catalog(tmp_path: Path) -> IcebergCatalog:
    """A catalog whose table has as many snapshots as make it worth to let some go, and merges manifests."""
    catalog = local_catalog(tmp_path / "warehouse")
    load(catalog, *range(1, MANY + 1))
    return catalog


def load(catalog: IcebergCatalog, *numbers: int) -> None:
    """A batch of one row for each number."""
    for number in numbers:
        draft = catalog.draft(TABLE, (), provenance=False) if number > 1 else catalog.draft_new(TABLE, SCHEMA, SHORT)
        batch = BatchRef("nightly", number, 1)
        data_file = write_data_file(draft.sink(), f"{number}.parquet", draft.schema, [{"id": number}])
        path = draft.write_manifest(BatchManifest(batch, 1))
        draft.commit(CommitOrder(batch, (data_file,), path, {}, lambda: None))


def expire(catalog: IcebergCatalog, meanwhile: Callable[[], object] = lambda: None) -> int:
    def assert_lease() -> None:
        meanwhile()

    return catalog.expire(TABLE, BatchRef("nightly", MANY, 1), assert_lease)


def sweep(catalog: IcebergCatalog, *, later: timedelta = SOON) -> list[str]:
    """Names of what was removed."""
    files = catalog.expired(TABLE, datetime.now(UTC) + later).files
    catalog.remove(TABLE, (f.path for f in files))
    return [f.name for f in files]


def lying(catalog: IcebergCatalog) -> set[str]:
    return {p.name for p in Path(catalog.load(TABLE).location(), "metadata").glob("*.avro")}


def named(table: Table) -> set[str]:
    """The manifest lists and manifests of all snapshots, and what their commits wrote and merged at once."""
    paths = {s.manifest_list for s in table.metadata.snapshots}
    paths.update(m.manifest_path for s in table.metadata.snapshots for m in s.manifests(table.io))
    merged = {p.replace("-m1.avro", "-m0.avro") for p in paths if p.endswith("-m1.avro")}
    return {Path(path).name for path in paths | {p for p in merged if Path(p).exists()}}


def ids(catalog: IcebergCatalog, snapshot_id: int | None = None) -> list[int]:
    return sorted(catalog.load(TABLE).scan(snapshot_id=snapshot_id).to_arrow()["id"].to_pylist())


def notes(catalog: IcebergCatalog) -> list[Path]:
    return list(Path(catalog.load(TABLE).properties["autoloader.manifests"], "expired").glob("*"))


def test_nothing_is_left_of_them_and_nothing_else_is_touched(catalog: IcebergCatalog) -> None:
    before = lying(catalog)
    assert expire(catalog) == LEAST_GOING
    # Nothing goes before its time.
    assert sweep(catalog, later=-SOON) == []
    assert lying(catalog) == before
    removed = sweep(catalog)
    assert lying(catalog) == named(catalog.load(TABLE)) == before - set(removed)
    # Manifests that were merged since went with their lists, and those that were merged at once.
    assert {"-m0.avro", "-m1.avro"} <= {name[-8:] for name in removed}
    assert notes(catalog) == []
    assert ids(catalog) == list(range(1, MANY + 1))


def test_metadata_files_stay_few(catalog: IcebergCatalog) -> None:
    """Although commits are made from metadata that has no log of them."""
    expire(catalog)
    folder = Path(catalog.load(TABLE).location(), "metadata")
    files = {entry.metadata_file for entry in catalog.load(TABLE).metadata.metadata_log}
    files.add(catalog.load(TABLE).metadata_location)
    assert {str(p) for p in folder.glob("*.metadata.json")} == files
    assert len(files) == 4


def test_sizes_are_those_of_the_files(catalog: IcebergCatalog) -> None:
    expire(catalog)
    for file in catalog.expired(TABLE, datetime.now(UTC) + SOON).files:
        assert file.size_bytes == Path(file.path).stat().st_size


@pytest.mark.parametrize("done", [1, 5, 11])
def test_a_sweep_that_is_broken_off_is_done_again(catalog: IcebergCatalog, done: int) -> None:
    expire(catalog)
    files = catalog.expired(TABLE, datetime.now(UTC) + SOON).files
    catalog.remove(TABLE, (f.path for f in files[:done]))
    # Whoever asks for data files meanwhile gets an answer.
    assert len(catalog.references(TABLE, {"1.parquet"}).names) == 1
    sweep(catalog)
    assert lying(catalog) == named(catalog.load(TABLE))
    assert notes(catalog) == []


def test_a_younger_expiry_protects_what_it_shares_with_an_older_one(catalog: IcebergCatalog) -> None:
    expire(catalog)
    load(catalog, *range(MANY + 1, 2 * MANY))
    (old,) = notes(catalog)
    expire(catalog)
    (young,) = (n for n in notes(catalog) if n != old)
    shared = json.loads(young.read_text())["snapshots"]
    document = json.loads(old.read_text())
    old.write_text(json.dumps({**document, "snapshots": document["snapshots"] + shared}))
    os.utime(old, (time.time() - 3600,) * 2)
    before = catalog.expired(TABLE, datetime.now(UTC) - SOON / 2)
    assert before.files[-1].path == str(old)
    kept = {Path(one["manifest_list"]).name for one in shared}
    assert not kept & {f.name for f in before.files}
    catalog.remove(TABLE, (f.path for f in before.files))
    assert kept <= lying(catalog)
    sweep(catalog)
    assert lying(catalog) == named(catalog.load(TABLE))


def test_a_tag_keeps_its_snapshot_and_all_of_its_files(catalog: IcebergCatalog) -> None:
    table = catalog.load(TABLE)
    third = table.metadata.snapshots[2].snapshot_id
    table.manage_snapshots().create_tag(third, "third").create_branch(third, "side").commit()
    load(catalog, *range(MANY + 1, MANY + 4))
    # The branch keeps what is young of its own line.
    assert expire(catalog) == LEAST_GOING
    sweep(catalog)
    assert ids(catalog, third) == [1, 2, 3]
    assert catalog.load(TABLE).metadata.refs["third"].snapshot_id == third


def test_a_tag_that_is_made_in_the_last_moment_is_no_victim(catalog: IcebergCatalog) -> None:
    first = catalog.load(TABLE).metadata.snapshots[0].snapshot_id
    with pytest.raises(TableConflictError):
        expire(catalog, lambda: catalog.load(TABLE).manage_snapshots().create_tag(first, "first").commit())
    assert catalog.load(TABLE).metadata.refs["first"].snapshot_id == first
    assert ids(catalog, first) == [1]
    load(catalog, MANY + 1)
    assert expire(catalog) == LEAST_GOING
    sweep(catalog)
    assert ids(catalog, first) == [1]


def test_of_two_at_once_one_is_told_that_it_was_late(catalog: IcebergCatalog) -> None:
    with pytest.raises(TableConflictError):
        expire(catalog, lambda: expire(catalog))
    assert catalog.describe(TABLE).snapshots == 2
    sweep(catalog)
    assert lying(catalog) == named(catalog.load(TABLE))
    assert notes(catalog) == []


def test_what_others_expired_is_left_to_them(catalog: IcebergCatalog) -> None:
    before = lying(catalog)
    table = catalog.load(TABLE)
    old = [s.snapshot_id for s in table.metadata.snapshots[:-1]]
    table.maintenance.expire_snapshots().by_ids(old).commit()
    assert sweep(catalog) == []
    assert lying(catalog) == before


def test_a_snapshot_that_is_there_again_is_not_touched(catalog: IcebergCatalog) -> None:
    """As when the catalog was restored from an older copy; or when the commit that let it go never arrived."""
    location = catalog.load(TABLE).metadata_location
    expire(catalog)
    inner = catalog.load(TABLE).catalog
    inner.drop_table(("sales", "orders"))
    inner.register_table(("sales", "orders"), location)
    before = lying(catalog)
    assert all(name.startswith("autoloader-expired-") for name in sweep(catalog))
    assert lying(catalog) == before


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "table_uuid": "x"}'])
def test_a_note_that_is_none_of_ours_is_left_alone(catalog: IcebergCatalog, damage: str) -> None:
    expire(catalog)
    (note,) = notes(catalog)
    note.write_text(damage)
    before = lying(catalog)
    assert sweep(catalog) == []
    assert lying(catalog) == before
    assert note.exists()


def test_a_note_of_another_table_is_left_alone(catalog: IcebergCatalog) -> None:
    expire(catalog)
    (note,) = notes(catalog)
    note.write_text(json.dumps({**json.loads(note.read_text()), "table_uuid": "another"}))
    assert sweep(catalog) == []


def test_users_ask_for_more_or_less(catalog: IcebergCatalog) -> None:
    with catalog.load(TABLE).transaction() as transaction:
        transaction.set_properties({GC_ENABLED: "false"})
    assert expire(catalog) == 0
    with catalog.load(TABLE).transaction() as transaction:
        transaction.set_properties({GC_ENABLED: "true", KEEP: "1", MOST: "1"})
    load(catalog, MANY + 1)
    assert expire(catalog) == MANY
    assert catalog.describe(TABLE).snapshots == 1
    assert ids(catalog) == list(range(1, MANY + 2))


def test_data_files_of_rows_that_were_taken_out_are_held_until_the_files_go(catalog: IcebergCatalog) -> None:
    catalog.load(TABLE).delete("id = 1")
    load(catalog, *range(MANY + 1, 2 * MANY + 1))
    asked = {"1.parquet", "2.parquet"}
    expire(catalog)
    # The snapshots that named it are gone, and a reader may still be at work on one of them.
    assert "1.parquet" not in {Path(f.file_path).name for f in data_files(catalog.load(TABLE))}
    assert catalog.references(TABLE, asked).names == asked
    assert catalog.expired(TABLE, datetime.now(UTC) + SOON).frees_data
    sweep(catalog)
    assert catalog.references(TABLE, asked).names == {"2.parquet"}


def data_files(table: Table) -> list[DataFile]:
    return [
        entry.data_file
        for snapshot in table.metadata.snapshots
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
    ]
