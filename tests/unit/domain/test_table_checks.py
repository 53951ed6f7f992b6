from __future__ import annotations

from dataclasses import replace

import pytest

from app.domain.errors import LedgerBehindTableError, TableReplacedError, TableRolledBackError
from app.domain.runs import TableRecord
from app.domain.table import TableHead, TableName, last_batch_property
from app.domain.table_checks import batches_behind, check_batches, check_identity
from app.domain.types import EMPTY

NAME = TableName("local", ("db",), "t")
RECORD = TableRecord(1, str(NAME), uuid="u1", generation=1, snapshot_id=50, sequence_number=5)
HEAD = TableHead(NAME, "u1", "memory:/t", EMPTY, {}, 60, 6, ancestors=(60, 50, 40), oldest_sequence_number=1)


def test_the_table_that_the_ledger_knows_passes() -> None:
    check_identity(RECORD, HEAD)
    check_identity(RECORD, replace(HEAD, snapshot_id=50, sequence_number=5, ancestors=(50, 40)))


def test_a_ledger_that_never_committed_takes_any_table_or_none() -> None:
    nothing = replace(RECORD, uuid=None, snapshot_id=None, sequence_number=0)
    check_identity(nothing, None)
    check_identity(nothing, HEAD)


def test_a_table_that_is_gone_is_refused() -> None:
    with pytest.raises(TableReplacedError, match="is gone") as caught:
        check_identity(RECORD, None)
    assert "ledger clear" in caught.value.advice


def test_a_table_of_the_same_name_is_another_table() -> None:
    with pytest.raises(TableReplacedError, match=r"u1.*u2"):
        check_identity(RECORD, replace(HEAD, uuid="u2"))


@pytest.mark.parametrize(
    ("ancestors", "cut", "oldest", "sequence"),
    [
        pytest.param((40, 30), False, 3, 4, id="head behind our commit"),
        pytest.param((40, 30), True, 3, 4, id="head behind our commit, history cut before it"),
        pytest.param((70, 40, 30), False, 3, 7, id="others went on from before it"),
        pytest.param((70, 40), True, 4, 7, id="history cut, but it reaches back to before it"),
        pytest.param((70, 51), True, 5, 7, id="history begins at its number, and is another"),
        pytest.param((), False, 0, 0, id="emptied of every snapshot"),
    ],
)
def test_a_history_without_our_commit_was_rolled_back(
    *,
    ancestors: tuple[int, ...],
    cut: bool,
    oldest: int,
    sequence: int,
) -> None:
    head = replace(HEAD, ancestors=ancestors, history_cut=cut, oldest_sequence_number=oldest, sequence_number=sequence)
    with pytest.raises(TableRolledBackError, match="snapshot 50"):
        check_identity(RECORD, head)


def test_a_history_that_expired_behind_our_commit_is_no_evidence() -> None:
    head = replace(HEAD, ancestors=(70,), history_cut=True, oldest_sequence_number=7, sequence_number=7)
    check_identity(RECORD, head)


def test_batches_that_the_ledger_gave_out_pass() -> None:
    head = replace(HEAD, properties={last_batch_property("i1"): "3", "autoloader.i1.epoch": "9", "other": "x"})
    check_batches(RECORD.name, head, {"i1": 3})
    check_batches(RECORD.name, head, {"i1": 7})
    check_batches(RECORD.name, None, {})
    check_batches(RECORD.name, HEAD, {})


def test_a_batch_that_the_ledger_never_gave_out_is_refused() -> None:
    head = replace(HEAD, properties={last_batch_property("i1"): "4"})
    with pytest.raises(LedgerBehindTableError, match=r"batch 4 of ingestion i1.*only 3"):
        check_batches(RECORD.name, head, {"i1": 3})


def test_an_ingestion_that_nobody_here_knows_is_refused() -> None:
    head = replace(HEAD, properties={last_batch_property("other"): "1"})
    with pytest.raises(LedgerBehindTableError, match="ingestion other") as caught:
        check_batches(RECORD.name, head, {"i1": 3})
    assert "AUTOLOADER_HOME" in caught.value.advice


def test_what_the_ledger_lacks_is_told_by_ingestion() -> None:
    properties = {last_batch_property("i1"): "4", last_batch_property("i2"): "2", last_batch_property("theirs"): "8"}
    head = replace(HEAD, properties=properties)
    assert batches_behind(RECORD.name, head, {"i1": 3, "i2": 2}, {"theirs"}) == {"i1": 4}
    assert batches_behind(RECORD.name, head, {"i1": 0, "i2": 9}, {"theirs"}) == {"i1": 4}
    assert batches_behind(RECORD.name, None, {}) == {}
    with pytest.raises(LedgerBehindTableError, match="ingestion theirs") as caught:
        batches_behind(RECORD.name, head, {"i1": 4, "i2": 2})
    assert "--adopt theirs" in caught.value.advice
    assert "--not-ours theirs" in caught.value.advice
    check_batches(RECORD.name, head, {"i1": 4, "i2": 2}, {"theirs"})
