"""What every catalog promises: a batch is in its table at most once, whoever else tries, whatever gets lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.destinations.configured import local_catalog
from app.domain.batch import BatchManifest, BatchRef
from app.domain.errors import (
    AlreadyCommittedError,
    AutoloaderError,
    CommitUnknownError,
    FencedError,
    LeaseLostError,
    TableConflictError,
    TableNotFoundError,
    TableUnsuitableError,
)
from app.domain.evolution import AddColumn, PromoteColumn
from app.domain.files import LoadedFile
from app.domain.ports import Catalog, CommitOrder, Committed, Draft
from app.domain.system_columns import system_columns
from app.domain.table import TableName, epoch_property, last_batch_property
from app.domain.types import INT, LONG, STRING, DataType, Field, ListOf, MapOf, Struct
from app.domain.upkeep import StoredFile
from tests.contract.catalog_rigs import NESTED, FakeRig, IcebergRig, Rig
from tests.support.parquet_files import write_data_file

SCHEMA = Struct((Field("id", LONG), Field("name", STRING), *system_columns(provenance=True)))
INGESTION = "nightly"


@pytest.fixture(params=["fake", "sqlite", "rest"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """Each kind of catalog in turn."""
    if request.param == "fake":
        yield FakeRig()
        return
    if request.param == "sqlite":
        catalog = local_catalog(tmp_path / "warehouse")
        (tmp_path / "warehouse").mkdir()
        iceberg = IcebergRig("local", catalog._properties)
    else:
        seaweed = request.getfixturevalue("seaweed")
        iceberg = IcebergRig(
            "rest",
            {
                "type": "rest",
                "uri": seaweed.rest_uri,
                "warehouse": seaweed.rest_warehouse,
                "credential": f"{seaweed.access_key}:{seaweed.secret_key}",
                "oauth2-server-uri": f"{seaweed.rest_uri}/v1/oauth/tokens",
                "s3.endpoint": seaweed.endpoint,
                "s3.access-key-id": seaweed.access_key,
                "s3.secret-access-key": seaweed.secret_key,
                "s3.region": seaweed.region,
            },
        )
    yield iceberg
    iceberg.close()


@pytest.fixture
def catalog(rig: Rig) -> Catalog:
    return rig.client()


@pytest.fixture
def table(rig: Rig, catalog: Catalog) -> TableName:
    """A table with batch 1 in it: the row 1."""
    name = rig.new_name()
    commit(catalog.draft_new(name, SCHEMA, {"autoloader.note": "ours"}), 1, [1])
    return name


def nothing() -> None:
    """A lease that lives."""


def order_for(
    draft: Draft, number: int, ids: list[int], *, epoch: int = 1, assert_lease: Callable[[], None] = nothing
) -> CommitOrder:
    """Write the rows and the manifest of a batch, as a run does before it commits."""
    batch = BatchRef(INGESTION, number, epoch)
    rows = [{"id": value} for value in ids]
    name = f"{batch.batch_id}-{epoch}-{'-'.join(map(str, ids))}-{id(draft)}.parquet"
    data_file = write_data_file(draft.sink(), name, draft.schema, rows)
    path = draft.write_manifest(manifest_of(batch, ids))
    return CommitOrder(batch, (data_file,), path, {}, assert_lease)


def manifest_of(batch: BatchRef, ids: list[int]) -> BatchManifest:
    return BatchManifest(batch, 1, files=tuple(LoadedFile(f"s3://b/{i}.json", f"v{i}", 1, 10) for i in ids))


def commit(
    draft: Draft, number: int, ids: list[int], *, epoch: int = 1, assert_lease: Callable[[], None] = nothing
) -> Committed:
    return draft.commit(order_for(draft, number, ids, epoch=epoch, assert_lease=assert_lease))


class Once:
    """Does something at its first call: what happens between the last check and the request."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == 1:
            self.action()


def ids_in(kind: DataType) -> list[int | None]:
    """Every field id of a type."""
    match kind:
        case Struct():
            return [i for f in kind.fields for i in (f.id, *ids_in(f.type))]
        case ListOf():
            return [kind.element_id, *ids_in(kind.element)]
        case MapOf():
            return [kind.key_id, kind.value_id, *ids_in(kind.key), *ids_in(kind.value)]
    return []


# --- creating and appending --------------------------------------------------------------------------------------


def test_a_table_that_is_not_there_has_no_head(rig: Rig, catalog: Catalog) -> None:
    name = rig.new_name()
    assert catalog.head(name) is None
    assert catalog.head(replace(name, namespace=("nowhere",))) is None
    assert catalog.find_batch(name, BatchRef(INGESTION, 1, 1)) is None


def test_the_first_commit_makes_the_table_whole(rig: Rig, catalog: Catalog) -> None:
    name = rig.new_name()
    draft = catalog.draft_new(name, SCHEMA, {"autoloader.note": "ours"})
    order = replace(order_for(draft, 1, [1, 2]), properties={"autoloader.schema-version": "1"})
    assert catalog.head(name) is None
    committed = draft.commit(order)
    head = catalog.head(name)
    assert head is not None
    assert (head.uuid, head.snapshot_id) == (committed.table_uuid, committed.snapshot_id)
    assert head.sequence_number == committed.sequence_number == head.oldest_sequence_number
    assert head.ancestors == (committed.snapshot_id,)
    assert not head.history_cut
    assert [f.name for f in head.schema.fields] == [f.name for f in SCHEMA.fields]
    assert head.properties["autoloader.note"] == "ours"
    assert head.properties["autoloader.schema-version"] == "1"
    assert head.properties[last_batch_property(INGESTION)] == "1"
    assert head.properties[epoch_property(INGESTION)] == "1"
    assert rig.ids(name) == [1, 2]


def test_a_later_batch_is_appended(rig: Rig, catalog: Catalog, table: TableName) -> None:
    before = catalog.head(table)
    committed = commit(catalog.draft(table, ()), 2, [2, 3])
    head = catalog.head(table)
    assert before is not None
    assert head is not None
    assert head.ancestors == (committed.snapshot_id, *before.ancestors)
    assert committed.sequence_number > before.sequence_number
    assert head.properties[last_batch_property(INGESTION)] == "2"
    assert rig.ids(table) == [1, 2, 3]


def test_a_batch_without_rows_is_a_commit_too(rig: Rig, catalog: Catalog, table: TableName) -> None:
    draft = catalog.draft(table, ())
    batch = BatchRef(INGESTION, 2, 1)
    draft.commit(CommitOrder(batch, (), draft.write_manifest(manifest_of(batch, [])), {}, nothing))
    assert catalog.find_batch(table, batch) is not None
    assert rig.ids(table) == [1]


def test_a_new_table_gets_the_ids_that_its_draft_says(rig: Rig, catalog: Catalog) -> None:
    name = rig.new_name()
    draft = catalog.draft_new(name, NESTED, {})
    drafted = draft.schema
    ids = ids_in(drafted)
    assert None not in ids
    assert len(set(ids)) == len(ids)
    commit(draft, 1, [1])
    head = catalog.head(name)
    assert head is not None
    assert head.schema == drafted


def test_a_table_that_is_there_is_not_drafted_anew(catalog: Catalog, table: TableName) -> None:
    with pytest.raises(TableConflictError):
        catalog.draft_new(table, SCHEMA, {})


def test_of_two_that_make_the_table_one_wins(rig: Rig, catalog: Catalog) -> None:
    name = rig.new_name()
    first, second = catalog.draft_new(name, SCHEMA, {}), rig.client().draft_new(name, SCHEMA, {})
    commit(first, 1, [1])
    with pytest.raises(AlreadyCommittedError):
        commit(second, 1, [1])
    other = order_for(second, 1, [5])
    with pytest.raises(TableConflictError):
        second.commit(replace(other, batch=BatchRef("other", 1, 1)))
    assert rig.ids(name) == [1]


# --- schema changes ----------------------------------------------------------------------------------------------


def test_schema_and_data_change_in_one_commit(rig: Rig, catalog: Catalog) -> None:
    name = rig.new_name()
    commit(catalog.draft_new(name, Struct((*NESTED.fields, Field("n", INT))), {}), 1, [1])
    changes = (
        AddColumn(("who", "age"), LONG),
        AddColumn(("who", "tags", "element", "value"), STRING),
        AddColumn(("scores", "value", "unit"), STRING),
        AddColumn(("more.dotted",), Struct((Field("deep", ListOf(LONG)),))),
        PromoteColumn(("n",), INT, LONG),
    )
    draft = catalog.draft(name, changes)
    before = catalog.head(name)
    assert before is not None
    assert before.schema.find("more.dotted") is None
    drafted = draft.schema
    assert set(ids_in(before.schema)) < set(ids_in(drafted))
    snapshots = rig.snapshots(name)
    commit(draft, 2, [2])
    head = catalog.head(name)
    assert head is not None
    assert head.schema == drafted
    assert [f.name for f in drafted.fields] == [
        "id", "who", "scores", "n", "more.dotted", *(f.name for f in system_columns(provenance=True))
    ]  # fmt: skip
    assert str(drafted.fields[3].type) == "long"
    assert (
        str(drafted.fields[1].type) == "struct<name: string, tags: list<struct<key: string, value: string>>, age: long>"
    )
    assert rig.snapshots(name) == snapshots + 1
    assert rig.ids(name) == [1, 2]


def test_a_foreign_table_gets_our_columns_with_the_first_batch(rig: Rig, catalog: Catalog) -> None:
    name = rig.new_name()
    rig.make(name, Struct((Field("id", LONG),)))
    draft = catalog.draft(name, (), provenance=False)
    assert [f.name for f in draft.schema.fields] == ["id", "_rescued_data"]
    commit(catalog.draft(name, ()), 1, [1])
    head = catalog.head(name)
    assert head is not None
    assert [f.name for f in head.schema.fields] == ["id", *(f.name for f in system_columns(provenance=True))]


def test_a_column_of_ours_with_another_type_is_refused(rig: Rig, catalog: Catalog) -> None:
    name = rig.new_name()
    rig.make(name, Struct((Field("id", LONG), Field("_batch_id", LONG))))
    with pytest.raises(TableUnsuitableError, match="_batch_id"):
        catalog.draft(name, ())


def test_a_change_that_somebody_made_since_it_was_planned_is_a_conflict(catalog: Catalog, table: TableName) -> None:
    change = AddColumn(("extra",), LONG)
    commit(catalog.draft(table, (change,)), 2, [2])
    with pytest.raises(TableConflictError):
        catalog.draft(table, (change,))


def test_a_table_that_is_gone_is_not_drafted(rig: Rig, catalog: Catalog) -> None:
    with pytest.raises(TableNotFoundError):
        catalog.draft(rig.new_name(), ())


# --- at most once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_batch_does_not_get_in_twice(rig: Rig, catalog: Catalog, table: TableName, epoch: int) -> None:
    before = catalog.head(table)
    with pytest.raises(AlreadyCommittedError):
        commit(catalog.draft(table, ()), 1, [1], epoch=epoch)
    assert catalog.head(table) == before
    assert rig.ids(table) == [1]


def test_an_earlier_number_does_not_get_in(rig: Rig, catalog: Catalog, table: TableName) -> None:
    commit(catalog.draft(table, ()), 7, [7])
    with pytest.raises(AlreadyCommittedError):
        commit(catalog.draft(table, ()), 6, [6])
    assert rig.ids(table) == [1, 7]


def test_ingestions_do_not_stand_in_each_others_way(rig: Rig, catalog: Catalog, table: TableName) -> None:
    draft = catalog.draft(table, ())
    draft.commit(replace(order_for(draft, 1, [2]), batch=BatchRef("other", 1, 1)))
    assert rig.ids(table) == [1, 2]


def test_of_two_with_one_batch_one_wins(rig: Rig, table: TableName) -> None:
    both_checked = threading.Barrier(2, timeout=60)

    def race(_: int) -> str:
        draft = rig.client().draft(table, ())
        try:
            commit(draft, 2, [2], assert_lease=Once(both_checked.wait))
        except AutoloaderError as error:
            return error.code
        return "in"

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(pool.map(race, range(2)))
    assert outcomes == ["already_committed", "in"]
    assert rig.ids(table) == [1, 2]


def test_a_writer_of_something_else_is_no_conflict(rig: Rig, catalog: Catalog, table: TableName) -> None:
    meddle = Once(lambda: rig.append(table, 50))
    commit(catalog.draft(table, ()), 2, [2], assert_lease=meddle)
    assert meddle.calls == 2
    assert rig.ids(table) == [1, 2, 50]


def test_without_a_lease_nothing_is_changed(rig: Rig, catalog: Catalog, table: TableName) -> None:
    def lost() -> None:
        raise LeaseLostError

    before = catalog.head(table)
    with pytest.raises(LeaseLostError):
        commit(catalog.draft(table, ()), 2, [2], assert_lease=lost)
    assert catalog.head(table) == before
    name = rig.new_name()
    with pytest.raises(LeaseLostError):
        commit(catalog.draft_new(name, SCHEMA, {}), 1, [1], assert_lease=lost)
    assert catalog.head(name) is None


def test_a_lease_lost_between_two_attempts_stops_the_second(rig: Rig, catalog: Catalog, table: TableName) -> None:
    calls = []

    def lost_later() -> None:
        calls.append(1)
        if len(calls) > 1:
            raise LeaseLostError
        rig.append(table, 50)

    with pytest.raises(LeaseLostError):
        commit(catalog.draft(table, ()), 2, [2], assert_lease=lost_later)
    assert rig.ids(table) == [1, 50]


# --- fencing -----------------------------------------------------------------------------------------------------


def test_a_lower_epoch_is_fenced_for_ever(rig: Rig, catalog: Catalog, table: TableName) -> None:
    zombie = catalog.draft(table, ())
    snapshots = rig.snapshots(table)
    head = catalog.fence(table, BatchRef(INGESTION, 2, 5), nothing)
    assert head.properties[epoch_property(INGESTION)] == "5"
    assert rig.snapshots(table) == snapshots + 1
    rig.expire(table)
    with pytest.raises(FencedError):
        commit(zombie, 2, [2], epoch=4)
    with pytest.raises(FencedError):
        catalog.fence(table, BatchRef(INGESTION, 2, 4), nothing)
    commit(catalog.draft(table, ()), 2, [3], epoch=5)
    assert rig.ids(table) == [1, 3]


def test_a_zombie_that_wakes_after_its_last_check_is_fenced(rig: Rig, catalog: Catalog, table: TableName) -> None:
    successor = rig.client()
    takeover = Once(lambda: successor.fence(table, BatchRef(INGESTION, 2, 2), nothing))
    with pytest.raises(FencedError):
        commit(catalog.draft(table, ()), 2, [2], epoch=1, assert_lease=takeover)
    assert rig.ids(table) == [1]


def test_a_zombie_whose_successor_committed_finds_the_batch_in(rig: Rig, catalog: Catalog, table: TableName) -> None:
    successor = rig.client()
    takeover = Once(lambda: commit(successor.draft(table, ()), 2, [2], epoch=2))
    with pytest.raises(AlreadyCommittedError):
        commit(catalog.draft(table, ()), 2, [2], epoch=1, assert_lease=takeover)
    assert rig.ids(table) == [1, 2]


def test_a_fence_needs_the_lease_and_a_table(rig: Rig, catalog: Catalog, table: TableName) -> None:
    def lost() -> None:
        raise LeaseLostError

    before = catalog.head(table)
    with pytest.raises(LeaseLostError):
        catalog.fence(table, BatchRef(INGESTION, 2, 5), lost)
    assert catalog.head(table) == before
    with pytest.raises(TableNotFoundError):
        catalog.fence(rig.new_name(), BatchRef(INGESTION, 1, 1), nothing)


# --- a table that changes under us -------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True], ids=["before-the-check", "after-the-check"])
def test_another_schema_is_a_conflict(rig: Rig, catalog: Catalog, table: TableName, *, late: bool) -> None:
    draft = catalog.draft(table, (AddColumn(("extra",), STRING),))
    meddle = Once(lambda: rig.add_column(table, "theirs"))
    if not late:
        meddle()
    with pytest.raises(TableConflictError):
        commit(draft, 2, [2], assert_lease=meddle)
    assert rig.ids(table) == [1]
    commit(catalog.draft(table, ()), 2, [2])
    assert rig.ids(table) == [1, 2]


def test_a_late_schema_change_is_noticed_without_changes_of_ours(rig: Rig, catalog: Catalog, table: TableName) -> None:
    meddle = Once(lambda: rig.add_column(table, "theirs"))
    with pytest.raises(TableConflictError):
        commit(catalog.draft(table, ()), 2, [2], assert_lease=meddle)
    assert rig.ids(table) == [1]


@pytest.mark.parametrize("late", [False, True], ids=["before-the-check", "after-the-check"])
def test_a_dropped_table_is_a_conflict(rig: Rig, catalog: Catalog, table: TableName, *, late: bool) -> None:
    draft = catalog.draft(table, ())
    meddle = Once(lambda: rig.drop(table))
    order = order_for(draft, 2, [2], assert_lease=meddle)
    if not late:
        meddle()
    with pytest.raises(TableConflictError):
        draft.commit(order)
    assert catalog.head(table) is None


@pytest.mark.parametrize("late", [False, True], ids=["before-the-check", "after-the-check"])
def test_a_replaced_table_is_a_conflict(rig: Rig, catalog: Catalog, table: TableName, *, late: bool) -> None:
    def replace_it() -> None:
        rig.drop(table)
        rig.make(table, SCHEMA)

    draft = catalog.draft(table, ())
    meddle = Once(replace_it)
    order = order_for(draft, 2, [2], assert_lease=meddle)
    if not late:
        meddle()
    with pytest.raises(TableConflictError):
        draft.commit(order)
    assert rig.snapshots(table) == 0


# --- unknown outcomes --------------------------------------------------------------------------------------------


def test_a_lost_answer_is_unknown_and_the_batch_is_found(rig: Rig, catalog: Catalog, table: TableName) -> None:
    draft = rig.forgetful().draft(table, ())
    order = order_for(draft, 2, [2])
    with pytest.raises(CommitUnknownError):
        draft.commit(order)
    found = catalog.find_batch(table, order.batch)
    assert found is not None
    assert found.manifest == manifest_of(order.batch, [2])
    with pytest.raises(AlreadyCommittedError):
        draft.commit(order)
    assert rig.ids(table) == [1, 2]


def test_a_lost_answer_to_a_creation_is_unknown_and_the_batch_is_found(rig: Rig, catalog: Catalog) -> None:
    name = rig.new_name()
    draft = rig.forgetful().draft_new(name, SCHEMA, {})
    order = order_for(draft, 1, [1])
    with pytest.raises(CommitUnknownError):
        draft.commit(order)
    found = catalog.find_batch(name, order.batch)
    assert found is not None
    assert found.manifest == manifest_of(order.batch, [1])
    with pytest.raises(AlreadyCommittedError):
        draft.commit(order)
    assert rig.ids(name) == [1]


def test_a_commit_that_is_called_a_conflict_but_was_applied_is_a_success(
    rig: Rig, catalog: Catalog, table: TableName
) -> None:
    committed = commit(rig.contradicting().draft(table, ()), 2, [2])
    head = catalog.head(table)
    assert head is not None
    assert head.snapshot_id == committed.snapshot_id
    assert rig.ids(table) == [1, 2]
    name = rig.new_name()
    created = commit(rig.contradicting().draft_new(name, SCHEMA, {}), 1, [1])
    assert created.table_uuid != committed.table_uuid
    assert rig.ids(name) == [1]


# --- finding batches ---------------------------------------------------------------------------------------------


def test_a_batch_is_found_with_its_manifest(catalog: Catalog, table: TableName) -> None:
    batch = BatchRef(INGESTION, 1, 1)
    found = catalog.find_batch(table, batch)
    assert found is not None
    assert found.manifest == manifest_of(batch, [1])
    assert found.head == catalog.head(table)
    assert catalog.find_batch(table, BatchRef(INGESTION, 2, 1)) is None
    assert catalog.find_batch(table, BatchRef("other", 1, 1)) is None


def test_a_batch_is_found_after_its_snapshot_expired(rig: Rig, catalog: Catalog, table: TableName) -> None:
    commit(catalog.draft(table, ()), 2, [2])
    rig.append(table, 50)
    rig.expire(table)
    head = catalog.head(table)
    assert head is not None
    assert head.history_cut
    for number in (1, 2):
        batch = BatchRef(INGESTION, number, 1)
        found = catalog.find_batch(table, batch)
        assert found is not None
        assert found.manifest == manifest_of(batch, [number])
        with pytest.raises(AlreadyCommittedError):
            commit(catalog.draft(table, ()), number, [number])
    assert rig.ids(table) == [1, 2, 50]


def test_a_batch_committed_under_another_epoch_is_found(catalog: Catalog, table: TableName) -> None:
    commit(catalog.draft(table, ()), 2, [2], epoch=3)
    found = catalog.find_batch(table, BatchRef(INGESTION, 2, 4))
    assert found is not None
    assert found.manifest == manifest_of(BatchRef(INGESTION, 2, 3), [2])


def test_the_manifest_of_the_try_that_won_is_the_one(rig: Rig, catalog: Catalog, table: TableName) -> None:
    loser, winner = catalog.draft(table, ()), rig.client().draft(table, ())
    loser.write_manifest(manifest_of(BatchRef(INGESTION, 2, 1), [8, 9]))
    commit(winner, 2, [2], epoch=2)
    rig.append(table, 50)
    rig.expire(table)
    found = catalog.find_batch(table, BatchRef(INGESTION, 2, 2))
    assert found is not None
    assert found.manifest == manifest_of(BatchRef(INGESTION, 2, 2), [2])


def test_a_batch_in_by_number_only_has_no_manifest(catalog: Catalog, table: TableName) -> None:
    commit(catalog.draft(table, ()), 5, [5])
    found = catalog.find_batch(table, BatchRef(INGESTION, 3, 1))
    assert found is not None
    assert found.manifest is None


# --- the data location -------------------------------------------------------------------------------------------


def test_a_file_that_was_never_committed_can_be_removed(catalog: Catalog, table: TableName) -> None:
    draft = catalog.draft(table, ())
    sink = draft.sink()
    data_file = write_data_file(sink, "left.parquet", draft.schema, [{"id": 1}])
    assert data_file.path.endswith("/data/left.parquet")
    sink.delete(data_file.path)
    sink.delete(data_file.path)


# --- what is in it ------------------------------------------------------------------------------------------------


def rows_of(*numbered: tuple[str | None, str | None, datetime | None]) -> list[dict[str, object]]:
    return [
        {"id": n, "_file_path": path, "_batch_id": batch, "_file_modified_at": at}
        for n, (path, batch, at) in enumerate(numbered)
    ]


def test_rows_are_counted_by_file_and_batch_in_the_order_of_keys(rig: Rig, catalog: Catalog) -> None:
    name = rig.new_name()
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    draft = catalog.draft_new(name, SCHEMA, {})
    order = order_for(draft, 1, [1])
    high, low = "s3://b/\U00010000", "s3://b/\uffff"
    rows = rows_of(
        (high, "n-1", late), (low, "n-1", None), (low, "n-2", early), (high, "n-1", late), (None, None, None)
    )
    data_file = write_data_file(draft.sink(), "rows.parquet", draft.schema, rows)
    draft.commit(replace(order, data_files=(data_file,)))
    found = rig.client().contents(name)
    assert found.by_file
    assert list(found.files) == [
        StoredFile(None, None, 1, None),
        StoredFile(low, "n-1", 1, None),
        StoredFile(low, "n-2", 1, early),
        StoredFile(high, "n-1", 2, late),
    ]
    head = catalog.head(name)
    assert head is not None
    assert found.head.snapshot_id == head.snapshot_id


def test_rows_of_a_table_that_names_no_files_are_one_number(rig: Rig, catalog: Catalog) -> None:
    name = rig.new_name()
    draft = catalog.draft_new(name, Struct((Field("id", LONG), *system_columns(provenance=False))), {})
    commit(draft, 1, [1, 2, 3])
    found = rig.client().contents(name)
    assert not found.by_file
    assert list(found.files) == [StoredFile(None, None, 3)]


def test_a_table_without_rows_and_one_that_is_not_there(rig: Rig) -> None:
    name = rig.new_name()
    rig.make(name, SCHEMA)
    assert list(rig.client().contents(name).files) == []
    with pytest.raises(TableNotFoundError):
        rig.client().contents(rig.new_name())


# --- what lies beside it ------------------------------------------------------------------------------------------


def test_data_files_are_listed_and_those_in_use_are_told(rig: Rig, catalog: Catalog, table: TableName) -> None:
    client = rig.client()
    commit(catalog.draft(table, ()), 2, [2])
    draft = catalog.draft(table, ())
    orphan = write_data_file(draft.sink(), "orphan.parquet", draft.schema, [{"id": 9}])
    found = {f.path: f for f in client.data_folder(table)}
    assert orphan.path in found
    assert len(found) == 3
    seen = found[orphan.path]
    assert (seen.name, seen.size_bytes) == ("orphan.parquet", orphan.size_bytes)
    assert seen.modified_at.utcoffset() is not None
    references = client.references(table, {f.name for f in found.values()} | {"elsewhere.parquet"})
    assert references.names == {f.name for f in found.values()} - {"orphan.parquet"}
    assert references.head == catalog.head(table)
    assert client.references(table, ()).names == frozenset()


def test_files_are_removed_once_and_for_all(rig: Rig, catalog: Catalog, table: TableName) -> None:
    client = rig.client()
    draft = catalog.draft(table, ())
    orphans = [write_data_file(draft.sink(), f"o{n}.parquet", draft.schema, [{"id": n}]).path for n in (1, 2)]
    client.remove(table, orphans)
    client.remove(table, orphans)
    assert not {f.path for f in client.data_folder(table)} & set(orphans)
    assert rig.ids(table) == [1]


def test_manifests_are_listed_and_read(rig: Rig, catalog: Catalog, table: TableName) -> None:
    client = rig.client()
    path = catalog.draft(table, ()).write_manifest(manifest_of(BatchRef(INGESTION, 2, 5), [7]))
    found = [f for f in client.manifest_folder(table) if f.name.startswith(INGESTION)]
    assert sorted(f.name.rpartition(".")[0] for f in found) == [f"{INGESTION}-00000001.1", f"{INGESTION}-00000002.5"]
    assert path in {f.path for f in found}
    read = list(client.read_manifests(table, [path, path.replace(".5.", ".6.")]))
    assert read == [manifest_of(BatchRef(INGESTION, 2, 5), [7]), None]


def test_commits_are_told_as_long_as_the_metadata_knows(rig: Rig, catalog: Catalog, table: TableName) -> None:
    client = rig.client()
    second = commit(catalog.draft(table, ()), 2, [2], epoch=3)
    manifests = {f.path for f in client.manifest_folder(table)}
    commits = client.references(table, ()).commits
    assert {c.batch for c in commits} == {BatchRef(INGESTION, 1, 1), BatchRef(INGESTION, 2, 3)}
    assert {c.manifest_path for c in commits} <= manifests
    assert (second.snapshot_id, second.sequence_number) in {(c.snapshot_id, c.sequence_number) for c in commits}
    assert all(c.in_history for c in commits)
    rig.append(table, 50)
    rig.expire(table)
    (last,) = client.references(table, ()).commits
    assert (last.batch, last.snapshot_id) == (BatchRef(INGESTION, 2, 3), None)


def test_nothing_lies_beside_a_table_that_is_not_there(rig: Rig) -> None:
    client, name = rig.client(), rig.new_name()
    for look in (client.data_folder, client.manifest_folder):
        with pytest.raises(TableNotFoundError):
            list(look(name))
    with pytest.raises(TableNotFoundError):
        client.references(name, ())


def test_a_table_of_others_has_no_manifests(rig: Rig) -> None:
    name = rig.new_name()
    rig.make(name, SCHEMA)
    client = rig.client()
    assert list(client.manifest_folder(name)) == []
    assert list(client.data_folder(name)) == []
    assert client.references(name, {"x"}).commits == ()
