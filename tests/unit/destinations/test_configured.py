"""Which catalogs there are, and that looking makes nothing."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from app.destinations.configured import configured_catalog, configured_catalogs, local_catalog
from app.domain.batch import BatchManifest, BatchRef
from app.domain.errors import (
    CatalogNotConfiguredError,
    CatalogUnreachableError,
    LeaseLostError,
    TableNotFoundError,
    WriteFailureError,
)
from app.domain.ports import CommitOrder
from app.domain.table import TableName
from app.domain.types import LONG, Field, Struct
from tests.support.parquet_files import write_data_file
from tests.support.seaweed import Seaweed
from tests.support.servers import free_ports
from tests.unit.persistence.desk import CLEAN

TABLE = TableName("local", ("sales",), "orders")
SCHEMA = Struct((Field("id", LONG),))


def load(warehouse: Path, table: TableName, number: int = 1) -> None:
    """One batch of one row through a catalog of its own, as a process does."""
    catalog = local_catalog(warehouse)
    draft = catalog.draft_new(table, SCHEMA, {}) if catalog.head(table) is None else catalog.draft(table, ())
    batch = BatchRef("nightly", number, 1)
    data_file = write_data_file(draft.sink(), f"{number}.parquet", draft.schema, [{"id": number}])
    path = draft.write_manifest(BatchManifest(batch, 1))
    draft.commit(CommitOrder(batch, (data_file,), path, {}, lambda: None))
    catalog.close()


def test_looking_at_a_warehouse_that_is_not_there_makes_nothing(tmp_path: Path) -> None:
    catalog = local_catalog(tmp_path / "warehouse")
    assert catalog.head(TABLE) is None
    assert catalog.find_batch(TABLE, BatchRef("nightly", 1, 1)) is None
    assert catalog.ping() is None
    with pytest.raises(TableNotFoundError):
        catalog.describe(TABLE)
    with pytest.raises(TableNotFoundError):
        catalog.query(TABLE, "select 1")
    with pytest.raises(TableNotFoundError):
        catalog.draft(TABLE, ())
    assert list(tmp_path.iterdir()) == []


def test_whatever_a_commit_names_is_on_the_disk_before_the_catalog_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a machine that loses its power would have a table that cannot be read."""
    synced: list[Path] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    warehouse = tmp_path / "warehouse"
    named: set[Path] = set()
    for number in (1, 2):
        load(warehouse, TABLE, number)
        catalog = local_catalog(warehouse)
        table = catalog.load(TABLE)
        named.add(Path(table.metadata_location))
        for snapshot in table.metadata.snapshots:
            named.add(Path(snapshot.manifest_list))
            named.update(Path(m.manifest_path) for m in snapshot.manifests(table.io))
        assert table.scan().to_arrow().num_rows == number
        catalog.close()
    assert len(named) >= 6
    assert named <= set(synced)
    assert {path.parent for path in named} <= set(synced)


def test_a_run_that_slept_until_its_files_were_swept_hears_of_its_lease(tmp_path: Path) -> None:
    catalog = local_catalog(tmp_path / "warehouse")
    draft = catalog.draft_new(TABLE, SCHEMA, {})
    batch = BatchRef("nightly", 1, 1)
    data_file = write_data_file(draft.sink(), "1.parquet", draft.schema, [{"id": 1}])
    path = draft.write_manifest(BatchManifest(batch, 1))
    draft.sink().delete(data_file.path)

    def lost() -> None:
        raise LeaseLostError

    with pytest.raises(WriteFailureError, match="cannot be read back"):
        draft.commit(CommitOrder(batch, (data_file,), path, {}, lambda: None))
    with pytest.raises(LeaseLostError):
        draft.commit(CommitOrder(batch, (data_file,), path, {}, lost))
    assert catalog.head(TABLE) is None
    catalog.close()


def test_the_local_catalog_lives_in_any_folder(tmp_path: Path) -> None:
    warehouse = tmp_path / "ü b#c?d%20e'f"
    load(warehouse, TABLE)
    assert (warehouse / "catalog.db").exists()
    catalog = local_catalog(warehouse)
    head = catalog.head(TABLE)
    assert head is not None
    assert head.location == f"{warehouse}/sales/orders"
    assert head.properties["autoloader.manifests"] == f"{warehouse}/.autoloader/manifests/{head.uuid}"
    assert catalog.ping() is None


def test_readers_and_writers_of_the_local_catalog_do_not_lock_each_other_out(tmp_path: Path) -> None:
    load(tmp_path, TABLE)
    catalog = local_catalog(tmp_path)
    assert catalog.head(TABLE) is not None
    engine = catalog._opened.engine  # type: ignore[union-attr]
    with engine.connect() as connection:
        assert connection.exec_driver_sql("pragma busy_timeout").scalar() == 30_000
        assert connection.exec_driver_sql("pragma journal_mode").scalar() == "wal"
    catalog.close()


@pytest.mark.parametrize(
    "name",
    [
        TableName("local", ("sales",), "order"),
        TableName("local", ("group by",), "sélect 'x'"),
        TableName("local", ("a", "b", "c"), "nested"),
        TableName("local", ("sales",), "100% #1?"),
    ],
    ids=str,
)
def test_any_name_makes_a_table(tmp_path: Path, name: TableName) -> None:
    load(tmp_path, name)
    load(tmp_path, name, 2)
    catalog = local_catalog(tmp_path)
    rows = catalog.query(name, catalog.printed_query(name))
    assert sorted(str(row["id"]) for row in rows) == ["1", "2"]


def test_names_that_differ_in_odd_characters_only_do_not_share_a_folder(tmp_path: Path) -> None:
    locations = []
    for name in ("a b", "a#b", "a_b"):
        table = TableName("local", ("sales",), name)
        load(tmp_path, table)
        head = local_catalog(tmp_path).head(table)
        assert head is not None
        locations.append(head.location)
    assert len(set(locations)) == 3


def test_twenty_processes_that_make_and_write_one_new_catalog_at_once_all_succeed(tmp_path: Path) -> None:
    names = [TableName("local", ("sales",), f"t{n}") for n in range(20)]
    # Forked from a server that has everything imported, so that they really meet.
    processes = [CLEAN.Process(target=load, args=(tmp_path / "warehouse", name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [p.exitcode for p in processes] == [0] * len(names)
    catalog = local_catalog(tmp_path / "warehouse")
    assert all(catalog.head(name) is not None for name in names)


def test_a_file_that_is_no_database_is_said_to_be_unreachable(tmp_path: Path) -> None:
    (tmp_path / "catalog.db").write_bytes(b"this is no database, and it is long enough to be seen as none" * 50)
    with pytest.raises(CatalogUnreachableError):
        local_catalog(tmp_path).head(TABLE)


def test_a_lock_held_by_another_does_not_stop_readers(tmp_path: Path) -> None:
    load(tmp_path, TABLE)
    other = sqlite3.connect(tmp_path / "catalog.db")
    other.execute("begin immediate")
    assert local_catalog(tmp_path).head(TABLE) is not None
    other.close()


def test_catalogs_are_configured_by_pyiceberg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".pyiceberg.yaml").write_text("catalog:\n  lake:\n    uri: http://127.0.0.1:1\n")
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    monkeypatch.setenv("PYICEBERG_CATALOG__POND__URI", f"sqlite:///{tmp_path}/pond.db")
    assert configured_catalogs() == ["lake", "pond"]
    with pytest.raises(CatalogNotConfiguredError, match="PYICEBERG_CATALOG__"):
        configured_catalog("sea")
    assert configured_catalog("pond").ping() is None


def test_a_broken_configuration_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".pyiceberg.yaml").write_text("catalog: [1, 2\n")
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    with pytest.raises(CatalogNotConfiguredError, match="configuration"):
        configured_catalogs()


def test_a_wrong_configuration_is_said_without_its_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYICEBERG_CATALOG__POND__URI", "ftp://user:hush-hush@pond")
    answer = configured_catalog("pond").ping()
    assert answer is not None
    assert "pond" in answer
    assert "hush" not in answer


def test_a_catalog_that_does_not_answer_or_refuses_us(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYICEBERG_CATALOG__AWAY__URI", f"http://127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.setenv("PYICEBERG_CATALOG__CLOSED__URI", seaweed.rest_uri)
    monkeypatch.setenv("PYICEBERG_CATALOG__CLOSED__WAREHOUSE", seaweed.rest_warehouse)
    monkeypatch.setenv("PYICEBERG_CATALOG__CLOSED__CREDENTIAL", "nobody:knows-this")
    monkeypatch.setenv("PYICEBERG_CATALOG__CLOSED__OAUTH2_SERVER_URI", f"{seaweed.rest_uri}/v1/oauth/tokens")
    away, closed = configured_catalog("away").ping(), configured_catalog("closed").ping()
    assert away is not None
    assert "does not answer" in away
    assert closed is not None
    assert "refuses our credentials" in closed
    assert "knows-this" not in closed
