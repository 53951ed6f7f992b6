from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.domain.batch import BatchRef
from app.domain.sweeping import BatchRecord, Sweeping, data_file_batch, is_unfinished, manifest_batch
from app.domain.upkeep import BatchCommit

OURS = {"848b", "848b-0f", "nightly"}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_names_that_we_give_are_told() -> None:
    assert data_file_batch("848b-00000012-3-0123abcd-1-00004-0001.parquet", OURS) == BatchRef("848b", 12, 3)
    assert data_file_batch("848b-0f-00000012-3-0123abcd-1-00004-0001.parquet", OURS) == BatchRef("848b-0f", 12, 3)
    assert data_file_batch("848b-123456789-3-0123abcd-1-00004-0001.parquet", OURS) == BatchRef("848b", 123456789, 3)
    assert manifest_batch("848b-00000012.3.json", OURS) == BatchRef("848b", 12, 3)
    assert manifest_batch("848b-00000012.3.stats", OURS) == BatchRef("848b", 12, 3)
    part = f".848b-00000012.3.json.{'0' * 32}.part"
    assert manifest_batch(part, OURS) == BatchRef("848b", 12, 3)
    assert is_unfinished(part)
    assert not is_unfinished("848b-00000012.3.json")


@pytest.mark.parametrize(
    "name",
    [
        "theirs-00000012-3-0123abcd-1-00004-0001.parquet",
        "848bb-00000012-3-0123abcd-1-00004-0001.parquet",
        "x848b-00000012-3-0123abcd-1-00004-0001.parquet",
        "848b-12-3-0123abcd-1-00004-0001.parquet",
        "848b-000000012-3-0123abcd-1-00004-0001.parquet",
        "848b-00000012-3-0123abcd-1-00004-0001.parquet.bak",
        "848b-00000012-3-0123abcd-1-00004-0001.orc",
        "848b-00000012-3-0123abcd.parquet",
        "848b-00000012-3-copy-1-00004-0001.parquet",
        "848b-00000012-0123abcd-1-00004-0001.parquet",
        "00000-0-0123abcd-0123-4567-89ab-0123456789ab.parquet",
        "848b-00000012.3.json",
        "",
    ],
)
def test_names_like_ours_are_not_ours(name: str) -> None:
    assert data_file_batch(name, OURS) is None


@pytest.mark.parametrize(
    "name",
    [
        "848b-00000012.json",
        "848b-00000012.3.json.bak",
        "848b-12.3.json",
        "theirs-00000012.3.json",
        ".848b-00000012.3.json",
    ],
)
def test_manifests_like_ours_are_not_ours(name: str) -> None:
    assert manifest_batch(name, OURS) is None


def sweeping(*records: BatchRecord, commits: tuple[BatchCommit, ...] = (), last: int = 0) -> Sweeping:
    return Sweeping({(r.ingestion_id, r.number): r for r in records}, 2, {"848b": last}, commits, NOW)


def record(number: int, *, generation: int = 2, is_open: bool = False, is_empty: bool = False) -> BatchRecord:
    return BatchRecord("848b", number, generation, is_open, is_empty)


def test_the_ledger_decides_about_the_batches_that_it_has() -> None:
    told = sweeping(record(1), record(2, is_open=True), record(3, generation=1), record(4, is_empty=True), last=9)
    closed = [n for n in range(1, 5) if told.is_closed(BatchRef("848b", n, 1))]
    assert closed == [1, 4]


def test_the_table_decides_about_the_others() -> None:
    told = sweeping(last=5)
    assert [n for n in range(4, 8) if told.is_closed(BatchRef("848b", n, 1))] == [4, 5]
    assert not told.is_closed(BatchRef("another", 1, 1))


def test_of_several_tries_the_committed_one_keeps_its_manifest() -> None:
    told = sweeping(record(1), commits=(BatchCommit(BatchRef("848b", 1, 3), "path"),))
    leftovers = [e for e in (2, 3, 4) if told.is_leftover_manifest(BatchRef("848b", 1, e), lists_files=True)]
    assert leftovers == [2, 4]


def test_a_manifest_stays_where_nobody_can_tell_or_where_it_is_a_proof() -> None:
    told = sweeping(record(1), record(2, is_empty=True))
    assert not told.is_leftover_manifest(BatchRef("848b", 1, 1), lists_files=True)
    assert told.is_leftover_manifest(BatchRef("848b", 2, 1), lists_files=True)
    assert not told.is_leftover_manifest(BatchRef("848b", 2, 1), lists_files=False)
    assert not told.is_leftover_manifest(BatchRef("848b", 3, 1), lists_files=True)
