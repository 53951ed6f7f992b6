"""New versions of loaded files: what a claim freezes of the earlier ones, and what becomes of those."""

from __future__ import annotations

from dataclasses import replace

from app.domain.batch import BatchKind, BatchRef
from app.domain.definition import Definition, OnFileChange
from app.domain.files import EarlierVersion, FileState, SourceFile
from app.domain.ledger import OpenBatch, RestoredHead
from app.domain.rebuilding import RestoredBatch, RestoredFile
from app.domain.runs import Lease
from tests.unit.persistence.desk import DEFINITION, Desk, file, loaded

REPLACING = replace(DEFINITION, on_file_change=OnFileChange.REPLACE)
APPENDING = replace(DEFINITION, on_file_change=OnFileChange.APPEND)


def claim_under(desk: Desk, lease: Lease, definition: Definition, *files: SourceFile) -> OpenBatch | None:
    return desk.ledger.claim(lease, desk.record(), definition, files)


def load_one(desk: Desk, lease: Lease, one: SourceFile, definition: Definition = DEFINITION) -> OpenBatch:
    batch = claim_under(desk, lease, definition, one)
    assert batch is not None
    desk.close(lease, batch.batch, loaded=loaded(one), replaced=batch.replaces)
    return batch


def test_what_a_batch_replaces_is_frozen_with_it(desk: Desk) -> None:
    lease = desk.take()
    load_one(desk, lease, file("a"))
    batch = claim_under(desk, lease, REPLACING, file("a", "v2"), file("new"))
    assert batch is not None
    assert (batch.kind, batch.replaces) == (
        BatchKind.REPLACE,
        (EarlierVersion("s3://b/a", "v1", "ing-00000001", 3, provenance=True),),
    )
    assert desk.states()["a", "v1"] is FileState.SUCCESS
    assert desk.ledger.open_batches(lease, desk.record()) == [batch]
    desk.close(lease, batch.batch, loaded=loaded(*batch.files), replaced=batch.replaces)
    assert desk.states() == {
        ("a", "v1"): FileState.SUPERSEDED,
        ("a", "v2"): FileState.SUCCESS,
        ("new", "v1"): FileState.SUCCESS,
    }


def test_a_batch_that_is_given_up_supersedes_nothing(desk: Desk) -> None:
    lease = desk.take()
    load_one(desk, lease, file("a"))
    batch = claim_under(desk, lease, REPLACING, file("a", "v2"))
    assert batch is not None
    desk.close(lease, batch.batch, committed=False)
    assert desk.states() == {("a", "v1"): FileState.SUCCESS, ("a", "v2"): FileState.DISCOVERED}


def test_a_batch_of_new_files_alone_is_a_plain_load(desk: Desk) -> None:
    batch = claim_under(desk, desk.take(), REPLACING, file("a"))
    assert batch is not None
    assert (batch.kind, batch.earlier) == (BatchKind.LOAD, ())


def test_an_appending_batch_knows_of_earlier_versions_and_replaces_none(desk: Desk) -> None:
    lease = desk.take()
    load_one(desk, lease, file("a"))
    batch = load_one(desk, lease, file("a", "v2"), APPENDING)
    assert (batch.kind, len(batch.earlier), batch.replaces) == (BatchKind.LOAD, 1, ())
    assert set(desk.states().values()) == {FileState.SUCCESS}


def test_what_is_at_work_elsewhere_in_another_version_is_given_back_under_every_policy(desk: Desk) -> None:
    lease = desk.take()
    load_one(desk, lease, file("a"))
    assert claim_under(desk, lease, REPLACING, file("a", "v2")) is not None
    for definition in (DEFINITION, APPENDING, REPLACING):
        assert claim_under(desk, lease, definition, file("a", "v3")) is None
    assert desk.states()["a", "v3"] is FileState.DISCOVERED


def test_a_version_that_was_loaded_again_is_not_superseded_for_its_past(desk: Desk) -> None:
    lease = desk.take()
    first = load_one(desk, lease, file("a"))
    load_one(desk, lease, file("a", "v2"), REPLACING)
    load_one(desk, lease, file("a"), REPLACING)
    past = EarlierVersion("s3://b/a", "v1", first.batch.batch_id, 3)
    desk.ledger.restore_replaced(lease, desk.record(), (past,))
    assert desk.states() == {("a", "v1"): FileState.SUCCESS, ("a", "v2"): FileState.SUPERSEDED}
    desk.ledger.restore_replaced(lease, desk.record(), (replace(past, batch_id="ing-00000003"),))
    assert desk.states()["a", "v1"] is FileState.SUPERSEDED
    desk.ledger.restore_replaced(lease, desk.record(), ())


def test_earlier_versions_tell_whether_their_rows_name_them(desk: Desk) -> None:
    lease = desk.take()
    load_one(desk, lease, file("a"), replace(DEFINITION, provenance=False))
    batch = claim_under(desk, lease, REPLACING, file("a", "v2"))
    assert batch is not None
    assert batch.replaces[0].provenance is False


# --- given back -------------------------------------------------------------------------------------------------------


def restored(number: int, version: str, *, superseded: bool, provenance: bool | None = None) -> RestoredBatch:
    files = (RestoredFile("s3://b/a", version, 3, 10),)
    return RestoredBatch(
        BatchRef("ing", number, 7),
        1,
        committed=True,
        loaded=() if superseded else files,
        superseded=files if superseded else (),
        kind=BatchKind.REPLACE,
        provenance=provenance,
    )


def test_a_version_that_was_replaced_comes_back_superseded(desk: Desk) -> None:
    lease = desk.take()
    assert desk.ledger.restore_batch(lease, desk.record(), restored(1, "v1", superseded=True))
    assert desk.ledger.restore_batch(lease, desk.record(), restored(2, "v2", superseded=False))
    assert desk.states() == {("a", "v1"): FileState.SUPERSEDED, ("a", "v2"): FileState.SUCCESS}
    row = desk.rows()["a", "v1"]
    assert (row.rows, row.batch_id) == (3, "ing-00000001")


def test_a_version_of_now_is_not_superseded_by_a_batch_of_the_past(desk: Desk) -> None:
    lease = desk.take()
    assert desk.ledger.restore_batch(lease, desk.record(), restored(3, "v1", superseded=False))
    assert desk.ledger.restore_batch(lease, desk.record(), restored(1, "v1", superseded=True))
    row = desk.rows()["a", "v1"]
    assert (row.state, row.batch_id) == (FileState.SUCCESS, "ing-00000003")


def test_an_open_batch_that_turns_out_replaced_gives_nothing_back(desk: Desk) -> None:
    lease = desk.take()
    desk.claim(lease, file("a"))
    assert desk.ledger.restore_batch(lease, desk.record(), restored(1, "v1", superseded=True))
    assert desk.states() == {("a", "v1"): FileState.SUPERSEDED}


def test_a_batch_given_back_tells_of_its_rows_what_is_known(desk: Desk) -> None:
    lease = desk.take()
    for number, provenance in enumerate((True, False, None), start=1):
        one = restored(number, f"v{number}", superseded=False, provenance=provenance)
        assert desk.ledger.restore_batch(lease, desk.record(), one)
    desk.ledger.restore_head(lease, desk.record(), RestoredHead("u", 1, 1, 4))
    batch = claim_under(desk, lease, REPLACING, file("a", "v9"))
    assert batch is not None
    assert [e.provenance for e in batch.replaces] == [True, False, None]
