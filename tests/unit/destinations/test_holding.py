"""Where rows are that are to go: told from metrics alone, and with an eye on what other tools have deleted."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from app.destinations.catalog import IcebergCatalog
from app.destinations.configured import local_catalog
from app.destinations.properties import FILE_PATH_METRICS
from app.domain.batch import BatchManifest, BatchRef
from app.domain.errors import TableConflictError
from app.domain.ports import CommitOrder, Removal, RewriteOrder
from app.domain.replacing import Holding, RowsOf, StoredData
from app.domain.system_columns import system_columns
from app.domain.table import TableName
from app.domain.types import LONG, Field, Struct
from tests.fakes.engine import FakeEngine
from tests.support.delete_files import delete_equal, delete_positions
from tests.support.parquet_files import write_data_file

TABLE = TableName("local", ("sales",), "orders")
SCHEMA = Struct((Field("id", LONG), *system_columns(provenance=True)))
A, B, C = (f"s3://landing/a/folder/with/a/long/name/{name}.json" for name in "abc")
INGESTION = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def catalog(tmp_path: Path) -> IcebergCatalog:
    return local_catalog(tmp_path / "warehouse")


def ref(number: int) -> BatchRef:
    return BatchRef(INGESTION, number, 1)


def rows_of(key: str, number: int) -> RowsOf:
    return RowsOf(key, ref(number).batch_id)


def load(catalog: IcebergCatalog, number: int, *keys: str | None, takes: tuple[RowsOf, ...] = ()) -> StoredData:
    """One data file with a row of each file; ids are 10 × number and up."""
    draft = catalog.draft(TABLE, ()) if catalog.head(TABLE) else catalog.draft_new(TABLE, SCHEMA, {})
    rows = [{"id": 10 * number + i, "_file_path": key, "_batch_id": ref(number).batch_id} for i, key in enumerate(keys)]
    data_file = write_data_file(draft.sink(), f"{number}.parquet", draft.schema, rows)
    path = draft.write_manifest(BatchManifest(ref(number), 1))
    found = draft.holding(takes).data_files
    order = RewriteOrder(found, frozenset(takes), draft.schema, draft.sink(), f"{number}-rewritten")
    removal = Removal(frozenset(takes), found, FakeEngine().rewrite(order)) if takes else Removal()
    draft.commit(CommitOrder(ref(number), (data_file,), path, {}, lambda: None, removal))
    return StoredData(data_file.path, data_file.rows, data_file.size_bytes)


def holding(catalog: IcebergCatalog, *rows: RowsOf) -> Holding:
    return catalog.draft(TABLE, ()).holding(rows)


def ids(catalog: IcebergCatalog) -> list[int]:
    return sorted(int(str(row["id"])) for row in catalog.query(TABLE, "select id from orders"))


def test_whole_bounds_leave_few_candidates(catalog: IcebergCatalog) -> None:
    first, second = load(catalog, 1, A, B), load(catalog, 2, C)
    assert holding(catalog, rows_of(A, 1)).data_files == (first,)
    assert holding(catalog, rows_of(C, 2)).data_files == (second,)
    assert set(holding(catalog, rows_of(A, 1), rows_of(C, 2)).data_files) == {first, second}
    # Between the bounds of one, in the batch of the other: batches are cut to the ingestion, so both may hold it.
    assert holding(catalog, rows_of(B, 2)).data_files == (first,)
    assert holding(catalog, RowsOf(B, "fedcba9876543210fedcba9876543210-00000001")).data_files == ()


def test_cut_bounds_make_more_candidates_and_the_same_outcome(catalog: IcebergCatalog) -> None:
    load(catalog, 1, A)
    table = catalog.load(TABLE)
    with table.transaction() as transaction:
        transaction.set_properties({FILE_PATH_METRICS: "truncate(16)"})
    load(catalog, 2, B)
    load(catalog, 3, C)
    assert len(holding(catalog, rows_of(A, 1)).data_files) == 3
    load(catalog, 4, A, takes=(rows_of(A, 1),))
    assert ids(catalog) == [20, 30, 40]


def test_rows_of_nobody_are_no_candidates(catalog: IcebergCatalog) -> None:
    load(catalog, 1, None, None)
    assert holding(catalog, rows_of(A, 1)).data_files == ()


def test_a_table_without_our_columns_holds_nothing(catalog: IcebergCatalog) -> None:
    draft = catalog.draft_new(TABLE, Struct((Field("id", LONG), *system_columns(provenance=False))), {})
    path = draft.write_manifest(BatchManifest(ref(1), 1))
    draft.commit(CommitOrder(ref(1), (write_data_file(draft.sink(), "1", draft.schema, [{"id": 1}]),), path, {}, _none))
    assert holding(catalog, rows_of(A, 1)).data_files == ()


def _none() -> None:
    """A lease that lives."""


def test_rows_deleted_by_position_do_not_come_back(catalog: IcebergCatalog) -> None:
    first = load(catalog, 1, A, B, C)
    load(catalog, 2, C)
    deletes = delete_positions(catalog.load(TABLE), first.path, [1])
    assert ids(catalog) == [10, 12, 20]
    (found,) = holding(catalog, rows_of(A, 1)).data_files
    assert (found.path, found.deletes) == (first.path, frozenset({deletes}))
    load(catalog, 3, A, takes=(rows_of(A, 1),))
    assert ids(catalog) == [12, 20, 30]
    # What is deleted of other data files is none of ours.
    assert all(not f.deletes for f in holding(catalog, rows_of(C, 2)).data_files if f.path != first.path)


def test_rows_deleted_by_equality_are_refused_with_a_remedy(catalog: IcebergCatalog) -> None:
    load(catalog, 1, A, B)
    delete_equal(catalog.load(TABLE), "id", [11])
    load(catalog, 2, C)
    found = holding(catalog, rows_of(A, 1), rows_of(C, 2))
    assert set(found.refused) == {rows_of(A, 1)}
    assert "compact the table" in found.refused[rows_of(A, 1)]
    # It was written behind the deletes: they say nothing of it.
    assert [f.rows for f in found.data_files] == [1]


def test_rows_deleted_meanwhile_are_a_conflict(catalog: IcebergCatalog) -> None:
    first = load(catalog, 1, A, B)
    draft = catalog.draft(TABLE, ())
    rows = frozenset({rows_of(A, 1)})
    found = draft.holding(rows).data_files
    done = FakeEngine().rewrite(RewriteOrder(found, rows, draft.schema, draft.sink(), "x"))
    path = draft.write_manifest(BatchManifest(ref(2), 1))
    delete_positions(catalog.load(TABLE), first.path, [1])
    with pytest.raises(TableConflictError, match="moved"):
        draft.commit(CommitOrder(ref(2), (), path, {}, _none, Removal(rows, found, done)))
    assert ids(catalog) == [10]


def test_a_table_made_elsewhere_measures_paths_from_its_first_batch_on(catalog: IcebergCatalog) -> None:
    catalog.draft_new(TABLE, SCHEMA, {})
    assert catalog._opened is not None
    catalog._opened.create_table(("sales", "orders"), pa.schema([pa.field("id", pa.int64())]))
    load(catalog, 1, A)
    load(catalog, 2, B)
    assert [f.rows for f in holding(catalog, rows_of(A, 1)).data_files] == [1]
