from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.domain.errors import (
    Category,
    DestinationFixedError,
    FileFailure,
    NameTakenError,
    NotFoundError,
    RunAtWorkError,
    TableTakenError,
    VersionMismatchError,
)
from app.domain.files import LoadedFile
from app.domain.ingestions import Deployment, Ingestion, IngestionStatus, Schedule
from app.domain.ledger import Closing, OpenBatch
from app.domain.runs import Lease
from app.domain.service import IngestionQuery, Sort
from app.persistence.service import SqlServiceStore
from tests.unit.persistence.service_desk import claim, new_ingestion, queue, take, with_schedule


def test_what_was_added_is_found_as_it_was(store: SqlServiceStore) -> None:
    new = new_ingestion(name="Événements", status=IngestionStatus.DRAFT, document=with_schedule())
    made = store.add_ingestion(new)
    assert store.ingestion(new.id) == made
    assert made.schedule == Schedule("hourly")
    assert (made.name, made.status, made.table, made.version) == ("Événements", IngestionStatus.DRAFT, "local.db.t", 1)
    assert made.document == new.document
    assert not made.has_loaded
    assert not made.is_load


def test_a_tenant_sees_its_own_alone(store: SqlServiceStore) -> None:
    made = store.add_ingestion(new_ingestion())
    assert store.ingestion(made.id, "default") == made
    assert store.ingestion(made.id, "other") is None
    assert store.list_ingestions(IngestionQuery("other")) == []


def test_a_table_is_the_first_ones_who_named_it(store: SqlServiceStore) -> None:
    mine = store.add_ingestion(new_ingestion(tenant="acme", table="local.db.orders"))
    store.add_ingestion(new_ingestion(tenant="acme", table="local.db.orders"))
    theirs = store.add_ingestion(new_ingestion(tenant="beta", table="local.db.other"))
    # Some catalogs take names in other letters for the same.
    for name in ("local.db.orders", "local.DB.Orders"):
        with pytest.raises(TableTakenError, match="local.db.orders" if name.islower() else "Orders") as caught:
            store.add_ingestion(new_ingestion(tenant="beta", table=name))
        assert "acme" not in str(caught.value)
        with pytest.raises(TableTakenError):
            store.change_ingestion(replace(theirs, table=name), None, theirs.version)
    assert store.ingestion(theirs.id) == theirs
    assert store.ingestion(mine.id) == mine


def test_a_table_that_nobody_uses_and_nobody_loaded_may_be_anothers(store: SqlServiceStore) -> None:
    first = store.add_ingestion(new_ingestion(tenant="acme"))
    with pytest.raises(TableTakenError):
        store.add_ingestion(new_ingestion(tenant="beta"))
    store.bury_ingestion(first.id, None)
    taken = store.add_ingestion(new_ingestion(tenant="beta"))
    with pytest.raises(TableTakenError):
        store.add_ingestion(new_ingestion(tenant="acme"))
    claim(store, take(store, queue(store, taken)), "a.json")
    store.cancel_queued(store.list_runs(taken.id, limit=1)[0].id, "for the test")
    store.bury_ingestion(taken.id, None)
    # There are rows of it now, and files in its ledger.
    with pytest.raises(TableTakenError):
        store.add_ingestion(new_ingestion(tenant="acme"))


def test_what_the_command_line_loads_shows_where_the_table_belongs(store: SqlServiceStore) -> None:
    store.add_ingestion(new_ingestion(tenant="acme"))
    table, fresh = store.ensure_table("local.db.t"), store.ensure_table("local.db.u")
    store.ensure_load_ingestion(table, "of-acme")
    store.ensure_load_ingestion(fresh, "of-default")
    assert store.ingestion("of-acme", "acme") is not None
    assert store.ingestion("of-acme", "default") is None
    assert store.ingestion("of-default", "default") is not None
    with pytest.raises(TableTakenError):
        store.add_ingestion(new_ingestion(tenant="acme", table="local.db.u"))


def test_a_name_is_used_once_in_a_tenant_until_its_ingestion_is_deleted(store: SqlServiceStore) -> None:
    first = store.add_ingestion(new_ingestion(name="orders"))
    store.add_ingestion(new_ingestion(name="orders", tenant="other", table="local.db.other"))
    again = new_ingestion(name="orders", table="local.db.never_made")
    with pytest.raises(NameTakenError, match="'orders'"):
        store.add_ingestion(again)
    # Nothing half made is left.
    assert store.ingestion(again.id) is None
    assert store.table("local.db.never_made") is None
    store.bury_ingestion(first.id, None)
    store.add_ingestion(again)


def test_lists_are_sorted_filtered_and_paged_without_gap_or_double(store: SqlServiceStore) -> None:
    for name in ("b", "A%", "c", "a_"):
        store.add_ingestion(new_ingestion(name=name))
    other = store.add_ingestion(new_ingestion(name="d", document={"source": {"type": "local", "path": "/x"}}))
    for sort in Sort:
        for descending in (False, True):
            whole = store.list_ingestions(IngestionQuery("default", sort=sort, descending=descending, limit=100))
            assert len(whole) == 5
            assert _paged(store, sort, descending=descending) == [one.id for one in whole]
    assert store.list_ingestions(IngestionQuery("default", source_type="local")) == [other]
    assert [one.name for one in store.list_ingestions(IngestionQuery("default", q="a%"))] == ["A%"]
    assert store.list_ingestions(IngestionQuery("default", status=IngestionStatus.PAUSED)) == []


def _paged(store: SqlServiceStore, sort: Sort, *, descending: bool) -> list[str]:
    found: list[Ingestion] = []
    after = None
    while True:
        query = IngestionQuery("default", sort=sort, descending=descending, limit=2, after=after)
        page = store.list_ingestions(query)
        found += page[:2]
        if len(page) <= 2:
            return [one.id for one in found]
        value = {Sort.NAME: found[-1].name, Sort.CREATED_AT: found[-1].created_at.isoformat()}
        after = (value.get(sort, found[-1].updated_at.isoformat()), found[-1].id)


def test_loads_of_the_command_line_are_shown_too(store: SqlServiceStore) -> None:
    record = store.ensure_table("local.db.t")
    load_id = store.ensure_load_ingestion(record, "loads-id")
    made = store.add_ingestion(new_ingestion())
    shown = store.ingestion(load_id, "default")
    assert shown is not None
    assert (shown.name, shown.is_load, shown.schedule) == ("load into local.db.t", True, None)
    assert {one.id for one in store.list_ingestions(IngestionQuery("default"))} == {load_id, made.id}
    assert [one.id for one in store.other_ingestions(made.id)] == [load_id]


def test_an_ingestion_of_the_service_never_becomes_that_of_the_command_line(store: SqlServiceStore) -> None:
    made = store.add_ingestion(new_ingestion())
    record = store.ensure_table("local.db.t")
    with pytest.raises(AssertionError):
        store.ensure_load_ingestion(record, made.id)
    assert store.ensure_load_ingestion(record, "another") == "another"
    found = store.ingestion(made.id)
    assert found is not None
    assert not found.is_load


def test_a_change_is_made_on_the_version_that_it_was_made_for(store: SqlServiceStore) -> None:
    made = store.add_ingestion(new_ingestion())
    changed = store.change_ingestion(replace(made, name="new name", document=with_schedule()), None, made.version)
    assert (changed.version, changed.name, changed.schedule) == (2, "new name", Schedule("hourly"))
    with pytest.raises(VersionMismatchError):
        store.change_ingestion(replace(made, name="too late"), None, made.version)
    assert store.ingestion(made.id) == changed
    store.add_ingestion(new_ingestion(name="taken"))
    with pytest.raises(NameTakenError):
        store.change_ingestion(replace(changed, name="taken"), None, changed.version)


NAMELESS = {"source": {"type": "s3", "path": "s3://b/"}, "destination": {"provenance": False}}


def one_batch(store: SqlServiceStore) -> tuple[Ingestion, Lease, OpenBatch]:
    """An ingestion whose run was ended while its first batch was open."""
    made = store.add_ingestion(new_ingestion())
    run = queue(store, made)
    lease = take(store, run)
    batch = claim(store, lease, "a.json")
    store.cancel_queued(run.id, "enough")
    return made, lease, batch


def close(store: SqlServiceStore, lease: Lease, batch: OpenBatch, *, committed: bool) -> None:
    table = store.table("local.db.t")
    assert table is not None
    failures = () if committed else tuple(FileFailure(f.key, f.version, Category.AUTH, "No.") for f in batch.files)
    loaded = tuple(LoadedFile(f.key, f.version, 1, f.size_bytes) for f in batch.files) if committed else ()
    more: dict[str, Any] = {"table_uuid": "u", "sequence_number": 1, "snapshot_id": 9} if committed else {}
    store.close(lease, table, Closing(batch.batch, committed=committed, loaded=loaded, failed=failures, **more))


def refused(store: SqlServiceStore, changed: Ingestion) -> str:
    with pytest.raises(DestinationFixedError) as error:
        store.change_ingestion(changed, None, changed.version)
    return str(error.value)


def test_the_destination_may_change_until_a_run_is_at_work(store: SqlServiceStore) -> None:
    made = store.add_ingestion(new_ingestion())
    made = store.change_ingestion(replace(made, table="local.db.t2"), None, made.version)
    made = store.change_ingestion(replace(made, table="local.db.t"), None, made.version)
    queue(store, made)
    for changed in (replace(made, table="local.db.t2"), replace(made, document=NAMELESS)):
        with pytest.raises(RunAtWorkError):
            store.change_ingestion(changed, None, made.version)


def test_a_batch_that_is_open_keeps_the_destination_until_it_is_settled(store: SqlServiceStore) -> None:
    made, lease, batch = one_batch(store)
    for changed in (replace(made, table="local.db.t2"), replace(made, document=NAMELESS)):
        said = refused(store, changed)
        assert "still open in local.db.t" in said
        assert "the next run settles it" in said
    close(store, lease, batch, committed=False)
    found = store.ingestion(made.id)
    assert found is not None
    assert not found.has_loaded
    moved = store.change_ingestion(replace(made, table="local.db.t2", document=NAMELESS), None, made.version)
    assert moved.table == "local.db.t2"


def test_what_was_committed_fixes_the_destination(store: SqlServiceStore) -> None:
    made, lease, batch = one_batch(store)
    close(store, lease, batch, committed=True)
    assert "which fixes destination.table." in refused(store, replace(made, table="local.db.t2"))
    assert "which fixes destination.provenance." in refused(store, replace(made, document=NAMELESS))
    same = {**made.document, "destination": {"provenance": True}}
    changed = store.change_ingestion(replace(made, name="other", document=same), None, made.version)
    assert changed.has_loaded


def test_so_does_a_batch_that_nobody_settled_before_the_ledger_was_cleared(store: SqlServiceStore) -> None:
    made, lease, _ = one_batch(store)
    store.release(lease)
    table = store.table("local.db.t")
    assert table is not None
    store.clear(table)
    assert "which fixes destination.table." in refused(store, replace(made, table="local.db.t2"))


def test_an_ingestion_whose_batches_were_all_empty_is_not_forgotten_with_them(store: SqlServiceStore) -> None:
    made, lease, batch = one_batch(store)
    close(store, lease, batch, committed=False)
    store.bury_ingestion(made.id, None)
    store.remove_ingestion(made.id)
    table = store.table("local.db.t")
    assert table is not None
    assert [one.ingestion_id for one in store.batch_records(table)] == [made.id]


def test_a_tombstone_is_invisible_and_goes_when_its_deployment_is_gone(store: SqlServiceStore) -> None:
    made = store.add_ingestion(new_ingestion(document=with_schedule(), credentials={"aws_access_key_id": "x" * 20}))
    assert store.set_deployment(made.id, Deployment("d1", "f1"))
    with pytest.raises(VersionMismatchError):
        store.bury_ingestion(made.id, {7})
    buried = store.bury_ingestion(made.id, {99, 1})
    assert buried.deployment == Deployment("d1", "f1")
    assert store.ingestion(made.id) is None
    assert store.credentials(made.id) == {}
    assert [one.id for one in store.ingestions_to_schedule()] == [made.id]
    with pytest.raises(NotFoundError):
        store.bury_ingestion(made.id, None)
    for _ in range(2):
        store.remove_ingestion(made.id)
        assert store.ingestion(made.id, deleted=True) is None
        assert store.ingestions_to_schedule() == []
    assert not store.set_deployment(made.id, Deployment("d2", "f1"))


def test_batches_of_a_removed_ingestion_stay_known_as_ours(store: SqlServiceStore) -> None:
    made = store.add_ingestion(new_ingestion())
    run = queue(store, made)
    lease = take(store, run)
    claim(store, lease, "a.json")
    with pytest.raises(RunAtWorkError):
        store.bury_ingestion(made.id, None)
    store.cancel_queued(run.id, "enough")
    store.bury_ingestion(made.id, None)
    store.remove_ingestion(made.id)
    record = store.table("local.db.t")
    assert record is not None
    assert store.committed_batches(record) == {made.id: 1}
    assert store.list_ingestions(IngestionQuery("default")) == []
    assert store.ingestions_to_schedule() == []


def test_only_what_the_scheduler_may_have_to_know_is_told_to_it(store: SqlServiceStore) -> None:
    store.add_ingestion(new_ingestion())
    scheduled = store.add_ingestion(new_ingestion(document=with_schedule()))
    leftover = store.add_ingestion(new_ingestion())
    store.set_deployment(leftover.id, Deployment("d", "f"))
    assert {one.id for one in store.ingestions_to_schedule()} == {scheduled.id, leftover.id}


def test_an_installation_has_one_id(store: SqlServiceStore) -> None:
    assert store.installation_id() == store.installation_id()
    store.ping()
