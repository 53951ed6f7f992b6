"""What every catalog promises of rows that go: exactly those, in the commit that brings the new ones, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from app.domain.batch import BatchKind, BatchRef
from app.domain.errors import AlreadyCommittedError, CommitUnknownError, FencedError, TableConflictError
from app.domain.evolution import AddColumn
from app.domain.files import EarlierVersion
from app.domain.ports import Catalog, CommitOrder, Committed, Draft, Removal, RewriteOrder
from app.domain.replacing import RowsOf, rows_of
from app.domain.table import TableName
from app.domain.types import LONG
from tests.contract.catalog_rigs import Rig
from tests.contract.test_catalog import INGESTION, SCHEMA, Once, catalog, manifest_of, nothing, rig
from tests.fakes.engine import FakeEngine
from tests.support.parquet_files import write_data_file

__all__ = ["catalog", "rig"]

FIRST = f"{INGESTION}-00000001"
A, B = "s3://landing/some/long/folder/a.json", "s3://landing/some/long/folder/b.json"


@dataclass
class Batch:
    """Data files of a batch, one for each of `files` (file → ids), and what goes for them."""

    number: int
    files: dict[str, list[int]]
    takes: tuple[RowsOf, ...] = ()
    assert_lease: Callable[[], None] = nothing
    epoch: int = 1

    def order(self, draft: Draft) -> CommitOrder:
        ref = BatchRef(INGESTION, self.number, self.epoch)
        rows = [{"id": i, "_file_path": key, "_batch_id": ref.batch_id} for key, ids in self.files.items() for i in ids]
        name = f"{ref.batch_id}-{self.epoch}-{id(draft)}"
        data_file = write_data_file(draft.sink(), f"{name}.parquet", draft.schema, rows)
        earlier = tuple(EarlierVersion(r.key, "v1", r.batch_id, 1) for r in self.takes)
        kind = BatchKind.REPLACE if earlier else BatchKind.LOAD
        path = draft.write_manifest(replace(manifest_of(ref, []), kind=kind, replaced=earlier))
        return CommitOrder(ref, (data_file,), path, {}, self.assert_lease, self.removal(draft, name))

    def removal(self, draft: Draft, name: str) -> Removal:
        rows = frozenset(self.takes)
        if not rows:
            return Removal()
        data = draft.holding(rows).data_files
        rewritten = FakeEngine().rewrite(RewriteOrder(data, rows, draft.schema, draft.sink(), f"{name}-0"))
        return Removal(rows, data, rewritten)

    def commit(self, draft: Draft) -> Committed:
        return draft.commit(self.order(draft))


@pytest.fixture
def table(rig: Rig, catalog: Catalog) -> TableName:
    """A table with one batch of one data file: rows 1 and 2 of A, 10 of B."""
    name = rig.new_name()
    Batch(1, {A: [1, 2], B: [10]}).commit(catalog.draft_new(name, SCHEMA, {}))
    return name


TAKES_A = (RowsOf(A, FIRST),)


def test_the_rows_go_in_the_commit_that_brings_the_new_ones(rig: Rig, catalog: Catalog, table: TableName) -> None:
    snapshots = rig.snapshots(table)
    committed = Batch(2, {A: [3]}, TAKES_A).commit(catalog.draft(table, ()))
    assert rig.ids(table) == [3, 10]
    assert rig.snapshots(table) == snapshots + 1
    head = catalog.head(table)
    assert head is not None
    assert head.snapshot_id == committed.snapshot_id
    found = catalog.find_batch(table, BatchRef(INGESTION, 2, 1))
    assert found is not None
    assert found.manifest is not None
    assert (found.manifest.kind, rows_of(found.manifest.replaced)) == (BatchKind.REPLACE, frozenset(TAKES_A))


def test_old_snapshots_show_old_rows(rig: Rig, catalog: Catalog, table: TableName) -> None:
    before = catalog.head(table)
    assert before is not None
    assert before.snapshot_id is not None
    Batch(2, {A: [3]}, TAKES_A).commit(catalog.draft(table, ()))
    assert rig.ids(table, snapshot_id=before.snapshot_id) == [1, 2, 10]


def test_data_files_are_held_by_file_and_batch(rig: Rig, catalog: Catalog, table: TableName) -> None:
    Batch(2, {"s3://landing/z.json": [20]}).commit(catalog.draft(table, ()))
    draft = catalog.draft(table, ())
    assert len(draft.holding([RowsOf(A, FIRST)]).data_files) == 1
    assert len(draft.holding([RowsOf(B, FIRST)]).data_files) == 1
    assert draft.holding([RowsOf("s3://landing/a.json", FIRST)]).data_files == ()
    assert draft.holding([RowsOf(A, "somebody-00000001")]).data_files == ()
    both = draft.holding([RowsOf(A, FIRST), RowsOf("s3://landing/z.json", f"{INGESTION}-00000002")])
    assert sorted(f.rows for f in both.data_files) == [1, 3]
    assert not both.refused
    assert draft.holding([]).data_files == ()
    assert catalog.draft_new(rig.new_name(), SCHEMA, {}).holding([RowsOf(A, FIRST)]).data_files == ()


def test_rows_beside_them_are_kept_under_the_new_schema(rig: Rig, catalog: Catalog, table: TableName) -> None:
    Batch(2, {A: [3]}, TAKES_A).commit(catalog.draft(table, (AddColumn(("extra",), LONG),)))
    assert rig.ids(table) == [3, 10]
    head = catalog.head(table)
    assert head is not None
    assert head.schema.find("extra") is not None


def test_rows_may_go_without_any_that_come(rig: Rig, catalog: Catalog, table: TableName) -> None:
    draft = catalog.draft(table, ())
    order = Batch(2, {A: [3]}, TAKES_A).order(draft)
    draft.commit(replace(order, data_files=()))
    assert rig.ids(table) == [10]


def test_rows_that_are_not_there_make_a_plain_commit(rig: Rig, catalog: Catalog, table: TableName) -> None:
    Batch(2, {A: [3]}, (RowsOf("s3://landing/none.json", FIRST),)).commit(catalog.draft(table, ()))
    assert rig.ids(table) == [1, 2, 3, 10]


def test_another_writer_is_no_conflict(rig: Rig, catalog: Catalog, table: TableName) -> None:
    meddle = Once(lambda: rig.append(table, 50))
    Batch(2, {A: [3]}, TAKES_A, meddle).commit(catalog.draft(table, ()))
    assert meddle.calls == 2
    assert rig.ids(table) == [3, 10, 50]


@pytest.mark.parametrize("late", [False, True])
def test_rows_that_were_moved_are_a_conflict(rig: Rig, catalog: Catalog, table: TableName, *, late: bool) -> None:
    """Another program takes the very data file away between planning and commit, or between check and request."""
    draft = catalog.draft(table, ())
    order = Batch(2, {A: [3]}, TAKES_A).order(draft)

    def move() -> None:
        other = rig.client().draft(table, ())
        theirs = Batch(1, {B: [11]}, (RowsOf(A, FIRST), RowsOf(B, FIRST))).order(other)
        other.commit(replace(theirs, batch=BatchRef("other", 1, 1)))

    if late:
        order = replace(order, assert_lease=Once(move))
    else:
        move()
    with pytest.raises(TableConflictError):
        draft.commit(order)
    assert rig.ids(table) == [11]


def test_a_batch_does_not_get_in_twice(rig: Rig, catalog: Catalog, table: TableName) -> None:
    first, second = catalog.draft(table, ()), rig.client().draft(table, ())
    orders = [Batch(2, {A: [3]}, TAKES_A).order(draft) for draft in (first, second)]
    first.commit(orders[0])
    with pytest.raises(AlreadyCommittedError):
        second.commit(orders[1])
    assert rig.ids(table) == [3, 10]


def test_a_lower_epoch_takes_nothing_out(rig: Rig, catalog: Catalog, table: TableName) -> None:
    draft = catalog.draft(table, ())
    order = Batch(2, {A: [3]}, TAKES_A).order(draft)
    fence = Once(lambda: rig.client().fence(table, BatchRef(INGESTION, 2, 5), nothing))
    with pytest.raises(FencedError):
        draft.commit(replace(order, assert_lease=fence))
    assert rig.ids(table) == [1, 2, 10]


def test_a_lost_answer_is_unknown_and_the_batch_is_found(rig: Rig, catalog: Catalog, table: TableName) -> None:
    forgetful = rig.forgetful()
    with pytest.raises(CommitUnknownError):
        Batch(2, {A: [3]}, TAKES_A).commit(forgetful.draft(table, ()))
    assert rig.ids(table) == [3, 10]
    assert catalog.find_batch(table, BatchRef(INGESTION, 2, 1)) is not None


def test_a_commit_that_is_called_a_conflict_but_was_applied_is_a_success(rig: Rig, table: TableName) -> None:
    Batch(2, {A: [3]}, TAKES_A).commit(rig.contradicting().draft(table, ()))
    assert rig.ids(table) == [3, 10]


def test_the_table_of_a_replacement_takes_more_batches(rig: Rig, catalog: Catalog, table: TableName) -> None:
    Batch(2, {A: [3]}, TAKES_A).commit(catalog.draft(table, ()))
    Batch(3, {A: [4], B: [11]}, (RowsOf(A, f"{INGESTION}-00000002"), RowsOf(B, FIRST))).commit(catalog.draft(table, ()))
    Batch(4, {"s3://landing/c.json": [30]}).commit(catalog.draft(table, ()))
    assert rig.ids(table) == [4, 11, 30]
