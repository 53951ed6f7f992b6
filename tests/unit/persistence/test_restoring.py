"""Batches of the past are recorded whole or not at all, and what the ledger knows already stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.domain.batch import BatchRef
from app.domain.errors import LeaseLostError
from app.domain.files import FileState, LoadedFile
from app.domain.ledger import RestoredHead
from app.domain.rebuilding import RestoredBatch, RestoredFile
from app.domain.runs import Lease
from app.persistence.leases import this_process
from tests.unit.persistence.desk import LONG_S, Desk, failed, file, loaded


def restored(number: int, *names: str, generation: int = 1, committed: bool = True) -> RestoredBatch:
    files = tuple(RestoredFile(f"s3://b/{name}", "v1", 3, 10) for name in names)
    return RestoredBatch(BatchRef("ing", number, 7), generation, committed, files, (failed(file("bad")),), 99)


def test_a_batch_of_the_past_comes_back_with_its_files(desk: Desk) -> None:
    lease = desk.take()
    assert desk.ledger.restore_batch(lease, desk.record(), restored(3, "a"))
    assert desk.states() == {("a", "v1"): FileState.SUCCESS, ("bad", "v1"): FileState.FAILED}
    row = desk.rows()[("a", "v1")]
    assert (row.rows, row.size_bytes, row.batch_id, row.run_id) == (3, 10, "ing-00000003", lease.run_id)
    assert desk.ledger.committed_batches(desk.record()) == {"ing": 3}
    assert not desk.ledger.restore_batch(lease, desk.record(), restored(3, "a", "b"))
    assert ("b", "v1") not in desk.states()


def test_a_failed_file_of_the_past_is_claimed_with_the_size_that_it_has(desk: Desk) -> None:
    """A rebuild does not know it; read by a size of zero, the file would be loaded without a row."""
    lease, bad = desk.take(), file("bad")
    desk.ledger.restore_batch(lease, desk.record(), restored(3, "a"))
    desk.ledger.restore_head(lease, desk.record(), RestoredHead("u", 9, 1, 4))
    assert desk.claim(lease, bad).files == (bad,)
    assert bad.size_bytes > 0


def test_a_batch_of_another_generation_brings_no_files(desk: Desk) -> None:
    lease = desk.take()
    record = desk.ledger.restore_generation(desk.record(), 4)
    assert record.generation == 4
    assert desk.ledger.restore_generation(record, 2).generation == 4
    assert desk.ledger.restore_batch(lease, record, restored(3, "a", generation=3))
    assert desk.states() == {}
    assert desk.ledger.committed_batches(record) == {"ing": 3}


def test_an_open_batch_is_closed_by_what_is_known_of_it(desk: Desk) -> None:
    lease = desk.take()
    desk.claim(lease, file("a"), file("b"))
    assert desk.ledger.restore_batch(lease, desk.record(), restored(1, "a", "c"))
    assert desk.states() == {
        ("a", "v1"): FileState.SUCCESS,
        ("b", "v1"): FileState.DISCOVERED,
        ("bad", "v1"): FileState.FAILED,
        ("c", "v1"): FileState.SUCCESS,
    }
    assert desk.ledger.count_open_batches(desk.record()) == 0


def test_an_open_batch_that_was_not_committed_gives_its_files_back(desk: Desk) -> None:
    lease = desk.take()
    desk.claim(lease, file("a"))
    desk.ledger.restore_batch(lease, desk.record(), restored(1, committed=False))
    assert desk.states()[("a", "v1")] is FileState.DISCOVERED
    assert desk.ledger.committed_batches(desk.record()) == {"ing": 0}


def test_a_batch_that_was_given_up_may_turn_out_to_be_in(desk: Desk) -> None:
    lease = desk.take()
    desk.close(lease, desk.claim(lease, file("a")).batch, committed=False)
    assert not desk.ledger.restore_batch(lease, desk.record(), restored(1, committed=False))
    assert desk.ledger.restore_batch(lease, desk.record(), restored(1, "a"))
    assert desk.states()[("a", "v1")] is FileState.SUCCESS


def test_what_failed_and_was_loaded_later_is_no_failure(desk: Desk) -> None:
    lease = desk.take()
    desk.ledger.restore_batch(lease, desk.record(), restored(1))
    newer = RestoredFile("s3://b/bad", "v2", 3)
    desk.ledger.restore_batch(lease, desk.record(), replace(restored(2), loaded=(newer,), failed=()))
    assert desk.states() == {("bad", "v1"): FileState.SUPERSEDED, ("bad", "v2"): FileState.SUCCESS}
    desk.ledger.restore_batch(lease, desk.record(), restored(3, "bad"))
    assert desk.states()[("bad", "v1")] is FileState.SUCCESS


def test_the_head_and_the_next_number(desk: Desk) -> None:
    lease = desk.take()
    desk.ledger.restore_head(lease, desk.record(), RestoredHead("uuid", 5, 6, next_batch=9))
    record = desk.record()
    assert (record.uuid, record.snapshot_id, record.sequence_number) == ("uuid", 5, 6)
    assert desk.claim(lease, file("a")).batch.number == 9
    desk.ledger.restore_head(lease, record, RestoredHead("uuid", 5, 6, next_batch=2))
    assert desk.claim(lease, file("b")).batch.number == 10


def test_without_the_lease_nothing_is_restored(desk: Desk) -> None:
    old = desk.take()
    desk.ledger.release(old)
    with pytest.raises(LeaseLostError):
        desk.ledger.restore_batch(old, desk.record(), restored(1, "a"))
    with pytest.raises(LeaseLostError):
        desk.ledger.restore_head(old, desk.record(), RestoredHead("uuid", 5, 6, 9))
    assert desk.states() == {}
    assert desk.record().uuid is None


def test_epochs_of_a_table_are_not_given_out_again(desk: Desk) -> None:
    lease = desk.ledger.acquire("ing", "r1", this_process(), LONG_S, above_epoch=41)
    assert isinstance(lease, Lease)
    assert lease.epoch > 41 + (1 << 32)
    desk.ledger.release(lease)
    again = desk.ledger.acquire("ing", "r2", this_process(), LONG_S, above_epoch=3)
    assert isinstance(again, Lease)
    assert again.epoch > lease.epoch


def test_whose_an_ingestion_is(desk: Desk) -> None:
    record = desk.record()
    assert desk.ledger.table_of_ingestion("ing") == record.name
    assert desk.ledger.table_of_ingestion("theirs") is None
    for _ in range(2):
        desk.ledger.disown(record, "theirs")
    assert desk.ledger.foreign_ingestions(record) == {"theirs"}
    assert desk.ledger.committed_batches(record) == {"ing": 0}
    for _ in range(2):
        desk.ledger.adopt(record, "theirs")
    assert desk.ledger.foreign_ingestions(record) == frozenset()
    assert desk.ledger.committed_batches(record) == {"ing": 0, "theirs": 0}
    assert desk.ledger.load_ingestion(record) == "ing"


def test_an_adopted_ingestion_may_become_the_one_that_loads(desk: Desk) -> None:
    record = desk.ledger.ensure_table("local.db.other")
    desk.ledger.adopt(record, "theirs")
    assert desk.ledger.load_ingestion(record) is None
    assert desk.ledger.ensure_load_ingestion(record, "theirs") == "theirs"
    assert desk.ledger.load_ingestion(record) == "theirs"


def test_a_batch_of_another_database_under_our_number_is_recorded_with_its_files(desk: Desk) -> None:
    """It was committed in the place of ours: its files are loaded, ours are found again."""
    lease = desk.take()
    batch = desk.claim(lease, file("ours"))
    stranger = LoadedFile("s3://b/theirs", "v1", 5, 50)
    desk.close(lease, batch.batch, loaded=(stranger,))
    assert desk.states() == {("ours", "v1"): FileState.DISCOVERED, ("theirs", "v1"): FileState.SUCCESS}
    assert desk.rows()[("theirs", "v1")].rows == 5


def test_a_file_that_was_loaded_keeps_its_batch(desk: Desk) -> None:
    lease = desk.take()
    batch = desk.claim(lease, file("a"))
    desk.close(lease, batch.batch, loaded=loaded(file("a")))
    desk.ledger.restore_batch(lease, desk.record(), restored(2, "a"))
    assert desk.rows()[("a", "v1")].batch_id == "ing-00000001"
