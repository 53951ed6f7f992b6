"""What every catalog promises of old snapshots: which of them go, that nothing else does, and what is left to sweep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.batch import BatchRef
from app.domain.errors import CommitUnknownError, FencedError, LeaseLostError, TableConflictError, TableNotFoundError
from app.domain.history import KEEP, LEAST_GOING, MOST
from app.domain.ports import Catalog, Committed
from app.domain.table import TableName
from tests.contract.catalog_rigs import Rig
from tests.contract.test_catalog import INGESTION, SCHEMA, Once, catalog, commit, manifest_of, nothing, rig

__all__ = ["catalog", "rig"]

# The newest two stay.
SHORT = {KEEP: "2", MOST: "3"}
MANY = 2 + LEAST_GOING
LATER = timedelta(hours=1)


def grow(catalog: Catalog, table: TableName, properties: dict[str, str], *, batches: int = MANY) -> list[Committed]:
    """Batches from 1 on, each with the row of its number."""
    done = [commit(catalog.draft_new(table, SCHEMA, properties), 1, [1])]
    done += [commit(catalog.draft(table, ()), number, [number]) for number in range(2, batches + 1)]
    return done


def expire(catalog: Catalog, table: TableName, *, epoch: int = 1, number: int = MANY) -> int:
    return catalog.expire(table, BatchRef(INGESTION, number, epoch), nothing)


def test_old_snapshots_go_and_nothing_else_does(rig: Rig, catalog: Catalog) -> None:
    table = rig.new_name()
    done = grow(catalog, table, SHORT)
    # It is said with the first commit after which it is worth one.
    assert [c.history_is_long for c in done] == [False] * (MANY - 1) + [True]
    before = catalog.head(table)
    assert expire(catalog, table) == LEAST_GOING
    after = rig.client().head(table)
    assert before is not None
    assert after is not None
    assert (after.snapshot_id, after.sequence_number) == (before.snapshot_id, before.sequence_number)
    assert (after.properties, after.schema) == (before.properties, before.schema)
    assert after.ancestors == before.ancestors[:2]
    assert (after.history_cut, after.oldest_sequence_number) == (True, MANY - 1)
    assert rig.snapshots(table) == 2
    assert rig.ids(table) == list(range(1, MANY + 1))
    assert rig.ids(table, snapshot_id=done[-2].snapshot_id) == list(range(1, MANY))
    # Once more there is nothing to do, and the table takes more batches, each of them once.
    assert expire(catalog, table) == 0
    assert not commit(rig.client().draft(table, ()), MANY + 1, [MANY + 1]).history_is_long
    assert rig.ids(table) == list(range(1, MANY + 2))


def test_batches_of_snapshots_that_went_are_known(rig: Rig, catalog: Catalog) -> None:
    table = rig.new_name()
    grow(catalog, table, SHORT)
    expire(catalog, table)
    found = rig.client().find_batch(table, BatchRef(INGESTION, 3, 9))
    assert found is not None
    assert found.manifest == manifest_of(BatchRef(INGESTION, 3, 1), [3])
    assert catalog.find_batch(table, BatchRef(INGESTION, MANY + 1, 1)) is None


def test_commits_leave_the_history_as_it_is(rig: Rig, catalog: Catalog) -> None:
    """What a commit is made from is a part of the metadata; what it makes is the whole."""
    table = rig.new_name()
    done = grow(catalog, table, {}, batches=4)
    catalog.fence(table, BatchRef(INGESTION, 5, 2), nothing)
    rig.append(table, 100)
    done.append(commit(rig.client().draft(table, ()), 5, [5], epoch=2, assert_lease=Once(lambda: rig.append(table, 9))))
    head = rig.client().head(table)
    assert head is not None
    assert len(head.ancestors) == rig.snapshots(table) == 8
    assert not head.history_cut
    for number, committed in enumerate(done[:4], start=1):
        assert committed.snapshot_id in head.ancestors
        assert rig.ids(table, snapshot_id=committed.snapshot_id) == list(range(1, number + 1))
    assert rig.ids(table) == [1, 2, 3, 4, 5, 9, 100]


def test_a_table_that_does_not_ask_for_it_keeps_everything(rig: Rig, catalog: Catalog) -> None:
    table = rig.new_name()
    rig.make(table, SCHEMA)
    for number in range(1, MANY + 1):
        assert not commit(catalog.draft(table, ()), number, [number]).history_is_long
    assert expire(catalog, table) == 0
    assert rig.snapshots(table) == MANY
    with pytest.raises(TableNotFoundError):
        expire(catalog, rig.new_name())


def test_who_may_not_commit_lets_nothing_go(rig: Rig, catalog: Catalog) -> None:
    table = rig.new_name()
    grow(catalog, table, SHORT)

    def lost() -> None:
        raise LeaseLostError

    with pytest.raises(LeaseLostError):
        catalog.expire(table, BatchRef(INGESTION, MANY, 1), lost)
    catalog.fence(table, BatchRef(INGESTION, MANY + 1, 2), nothing)
    with pytest.raises(FencedError):
        expire(catalog, table, epoch=1)
    # Somebody commits between the last look and the request.
    with pytest.raises(TableConflictError):
        catalog.expire(table, BatchRef(INGESTION, MANY, 2), Once(lambda: rig.append(table, 100)))
    assert rig.snapshots(table) == MANY + 2
    assert rig.client().expired(table, datetime.now(UTC) + LATER).files[:-3] == ()
    assert expire(catalog, table, epoch=2) == MANY
    assert rig.ids(table) == [*range(1, MANY + 1), 100]


def test_an_answer_that_is_lost_changes_no_row(rig: Rig, catalog: Catalog) -> None:
    table = rig.new_name()
    grow(catalog, table, SHORT)
    with pytest.raises(CommitUnknownError):
        expire(rig.forgetful(), table)
    assert rig.snapshots(table) == 2
    assert rig.ids(table) == list(range(1, MANY + 1))
    assert len(rig.client().expired(table, datetime.now(UTC) + LATER).files) > LEAST_GOING


def test_what_went_is_found_after_a_time_and_removed_for_good(rig: Rig, catalog: Catalog) -> None:
    table, client = rig.new_name(), rig.client()
    done = grow(catalog, table, SHORT)
    before = datetime.now(UTC) - LATER
    expire(catalog, table)
    after = datetime.now(UTC) + LATER
    found = client.expired(table, after)
    paths = [f.path for f in found.files]
    # A manifest list for each, and the note; the table still needs the manifests.
    assert len(paths) == len(set(paths)) == LEAST_GOING + 1
    assert not found.frees_data
    assert client.expired(table, before if rig.catalog_name != "fake" else datetime.min.replace(tzinfo=UTC)).files == ()
    # Broken off, it is found again.
    client.remove(table, paths[: LEAST_GOING // 2])
    rest = client.expired(table, after)
    assert [f.path for f in rest.files] == paths[LEAST_GOING // 2 :]
    client.remove(table, paths)
    assert client.expired(table, after).files == ()
    assert rig.ids(table) == list(range(1, MANY + 1))
    assert rig.ids(table, snapshot_id=done[-2].snapshot_id) == list(range(1, MANY))
