"""The SQL catalog that reads a metadata file once: it sees what pyiceberg's own sees, and makes what that makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, ValidationError
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.update import AddSnapshotUpdate, SetPropertiesUpdate, TableUpdate
from pyiceberg.types import LongType, NestedField, StringType

from app.destinations.catalog import open_catalog
from app.destinations.slim import history, slim
from app.destinations.sql import AttentiveSqlCatalog

NAME = ("sales", "orders")
ROW = pa.table({"id": pa.array([1], pa.int64())})


@pytest.fixture
def properties(tmp_path: Path) -> dict[str, str]:
    return {"type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": str(tmp_path / "warehouse")}


@pytest.fixture
def ours(properties: dict[str, str]) -> Iterator[AttentiveSqlCatalog]:
    """With a table of three snapshots."""
    catalog = open_catalog("local", properties)
    assert isinstance(catalog, AttentiveSqlCatalog)
    catalog.create_namespace("sales")
    table = catalog.create_table(NAME, Schema(NestedField(1, "id", LongType())))
    for _ in range(3):
        table.append(ROW)
    yield catalog
    catalog.close()


@pytest.fixture
def plain(properties: dict[str, str]) -> Iterator[SqlCatalog]:
    catalog = load_catalog("local", **properties)
    assert type(catalog) is SqlCatalog
    yield catalog
    catalog.close()


@pytest.mark.parametrize("words", [{"type": "sql"}, {"type": "SQL"}, {}])
def test_it_is_what_pyiceberg_would_open_as_an_sql_catalog(tmp_path: Path, words: dict[str, str]) -> None:
    catalog = open_catalog("local", {**words, "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": str(tmp_path)})
    assert isinstance(catalog, AttentiveSqlCatalog)
    catalog.close()


def test_a_file_is_read_once(ours: AttentiveSqlCatalog) -> None:
    first, second = ours.load_table(NAME), ours.load_table(NAME)
    assert first is not second
    assert first.metadata is second.metadata
    assert (first.name(), first.metadata_location, first.io.properties) == (
        second.name(),
        second.metadata_location,
        second.io.properties,
    )


def test_what_others_commit_is_seen(ours: AttentiveSqlCatalog, plain: SqlCatalog) -> None:
    ours.load_table(NAME)
    plain.load_table(NAME).append(ROW)
    assert ours.load_table(NAME).metadata == plain.load_table(NAME).metadata
    plain.create_table(("sales", "other"), Schema(NestedField(1, "n", LongType())))
    assert ours.load_table(("sales", "other")).metadata == plain.load_table(("sales", "other")).metadata
    assert len(ours.load_table(NAME).metadata.snapshots) == 4


def test_a_file_that_is_damaged_or_gone_is_seen(ours: AttentiveSqlCatalog) -> None:
    metadata = Path(ours.load_table(NAME).metadata_location)
    whole = metadata.read_text()
    metadata.write_text("{")
    with pytest.raises(ValidationError, match="JSON"):
        ours.load_table(NAME)
    metadata.write_text(whole)
    assert len(ours.load_table(NAME).metadata.snapshots) == 3
    metadata.unlink()
    with pytest.raises(FileNotFoundError):
        ours.load_table(NAME)


def test_a_commit_makes_what_the_librarys_own_makes(ours: AttentiveSqlCatalog, plain: SqlCatalog) -> None:
    """Of one and the same update; and what is written is what was answered."""
    for change in (_append, _evolve, _set, _unset):
        table = ours.load_table(NAME)
        recorder = _Recorder(ours)
        table.catalog = cast("Catalog", recorder)
        change(table)
        base, requirements, updates = recorder.sent
        expected = plain._update_and_stage_table(base, NAME, requirements, updates).metadata
        assert _told(expected) == _told(table.metadata)
        assert _told(plain.load_table(NAME).metadata) == _told(table.metadata)
    assert len(ours.load_table(NAME).metadata.snapshots) == len(ours.load_table(NAME).metadata.snapshot_log) == 4


def test_old_snapshots_go_as_always(ours: AttentiveSqlCatalog, plain: SqlCatalog) -> None:
    table = ours.load_table(NAME)
    first, second, third = (s.snapshot_id for s in table.metadata.snapshots)
    table.manage_snapshots().create_tag(second, "second").commit()
    table.maintenance.expire_snapshots().by_ids([first]).commit()
    assert [s.snapshot_id for s in plain.load_table(NAME).metadata.snapshots] == [second, third]
    assert plain.load_table(NAME).metadata.refs["second"].snapshot_id == second


def test_a_snapshot_that_is_there_is_not_added_again(ours: AttentiveSqlCatalog) -> None:
    table = ours.load_table(NAME)
    first = table.metadata.snapshots[0].snapshot_id
    again = table.metadata.snapshots[-1].model_copy(update={"snapshot_id": first, "sequence_number": 9})
    with pytest.raises(CommitFailedException, match="already"):
        ours.commit_table(table, (), (AddSnapshotUpdate(snapshot=again),))
    assert len(ours.load_table(NAME).metadata.snapshots) == 3


def test_nothing_changed_is_no_new_metadata(ours: AttentiveSqlCatalog) -> None:
    table = ours.load_table(NAME)
    before = table.metadata_location
    answer = ours.commit_table(table, (), (SetPropertiesUpdate(updates={}),))
    assert answer.metadata_location == ours.load_table(NAME).metadata_location == before


def test_slim_metadata_has_the_head_and_what_came_since(ours: AttentiveSqlCatalog) -> None:
    table = ours.load_table(NAME)
    began = table.metadata
    whole = began.model_copy()
    small = slim(began, history(began))
    assert [s.snapshot_id for s in small.snapshots] == [began.current_snapshot_id]
    assert (small.snapshot_log, small.metadata_log) == ([], [])
    assert began == whole
    for _ in range(2):
        table.append(ROW)
    later = slim(table.metadata, history(began))
    assert [s.snapshot_id for s in later.snapshots] == [s.snapshot_id for s in table.metadata.snapshots[2:]]
    unequal = {"snapshots", "snapshot_log", "metadata_log", "last_updated_ms", "refs"}
    assert later.model_dump(exclude=unequal) == table.metadata.model_dump(exclude=unequal)


class _Recorder:
    """Notes what is sent to a catalog, and on which table it was made."""

    def __init__(self, inner: AttentiveSqlCatalog) -> None:
        self._inner = inner
        self.sent: tuple[Table, tuple[Any, ...], tuple[TableUpdate, ...]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def commit_table(self, _: Table, requirements: tuple[Any, ...], updates: tuple[TableUpdate, ...]) -> Any:
        base = self._inner.load_table(NAME)
        self.sent = (base, requirements, updates)
        return self._inner.commit_table(base, requirements, updates)


def _append(table: Table) -> None:
    table.append(ROW)


def _evolve(table: Table) -> None:
    with table.update_schema() as update:
        update.add_column("name", StringType())


def _set(table: Table) -> None:
    with table.transaction() as transaction:
        transaction.set_properties({"a": "1", "b": "2"})


def _unset(table: Table) -> None:
    with table.transaction() as transaction:
        transaction.remove_properties("a")


def _told(metadata: Any) -> dict[str, Any]:
    """Without the moment."""
    told: dict[str, Any] = metadata.model_dump(exclude={"last_updated_ms"})
    return told
