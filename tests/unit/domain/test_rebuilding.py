from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.domain.batch import BatchManifest, BatchRef
from app.domain.errors import Category, FileFailure, LedgerBehindTableError
from app.domain.files import LoadedFile, version_by_time
from app.domain.rebuilding import Doubts, Evidence, RestoredBatch
from app.domain.upkeep import BatchCommit, StoredFile

AT = datetime(2026, 1, 1, tzinfo=UTC)
FAILED = FileFailure("bad", "v1", Category.DATA_MALFORMED, "why")


def manifest(number: int, epoch: int, *keys: str, generation: int = 1, rows: int = 2) -> BatchManifest:
    files = tuple(LoadedFile(key, "v1", rows, 10) for key in keys)
    return BatchManifest(BatchRef("i", number, epoch), generation, files=files, failed=(FAILED,))


def commit(number: int, epoch: int) -> BatchCommit:
    return BatchCommit(BatchRef("i", number, epoch), "path", 100 + number, number)


def evidence(
    *manifests: BatchManifest, commits: Sequence[BatchCommit] = (), last: int = 1, cut: bool = True
) -> Evidence:
    tries: dict[int, list[BatchManifest]] = {}
    for one in manifests:
        tries.setdefault(one.batch.number, []).append(one)
    return Evidence("t", "i", last, tries, {c.batch.number: c for c in commits}, history_cut=cut, by_file=True)


def stored(*keys: str, rows: int = 2) -> dict[str, list[StoredFile]]:
    return {"i-00000001": [StoredFile(key, "i-00000001", rows, AT) for key in keys]}


def only(found: Evidence, rows: dict[str, list[StoredFile]], doubts: Doubts | None = None) -> RestoredBatch:
    (batch,) = found.batches(rows, 1, doubts or Doubts())
    return batch


def keys(batch: RestoredBatch) -> list[str]:
    return [f.key for f in batch.loaded]


def test_the_commit_tells_the_try() -> None:
    found = evidence(manifest(1, 1, "a"), manifest(1, 2, "b"), commits=[commit(1, 1)])
    assert found.undecided() == set()
    batch = only(found, {})
    assert (batch.committed, keys(batch), batch.failed, batch.snapshot_id) == (True, ["a"], (FAILED,), 101)


def test_a_whole_history_without_it_says_that_it_is_not_in() -> None:
    found = evidence(manifest(1, 1, "a"), cut=False)
    assert found.undecided() == set()
    batch = only(found, {})
    assert (batch.committed, batch.loaded, batch.failed) == (False, (), (FAILED,))


@pytest.mark.parametrize(
    ("tries", "rows", "expected"),
    [
        ([manifest(1, 1, "a"), manifest(1, 2, "a", "b")], stored("a"), ["a"]),
        ([manifest(1, 1, "a", "b"), manifest(1, 2, "a")], stored("a", "b"), ["a", "b"]),
        ([manifest(1, 1, "a", "b")], stored("a", rows=1), ["a", "b"]),
        ([manifest(1, 1, "z")], stored("a"), ["a"]),
        ([], stored("a"), ["a"]),
        ([manifest(1, 3, "a", rows=0)], {}, ["a"]),
    ],
)
def test_the_rows_tell_the_try(
    tries: list[BatchManifest], rows: dict[str, list[StoredFile]], expected: list[str]
) -> None:
    found = evidence(*tries)
    assert found.undecided() == {"i-00000001"}
    batch = only(found, rows)
    assert batch.committed
    assert keys(batch) == expected


def test_files_known_by_their_rows_have_their_time_for_a_version() -> None:
    doubts = Doubts()
    (file,) = only(evidence(), stored("a"), doubts).loaded
    assert (file.version, file.rows, file.modified_at) == (version_by_time(AT), 2, AT)
    assert doubts.files_by_rows == 1
    assert version_by_time(None) != version_by_time(AT)


def test_what_has_no_rows_was_not_committed() -> None:
    doubts = Doubts()
    assert not only(evidence(manifest(1, 1, "a")), {}, doubts).committed
    assert not only(evidence(), {}, doubts).committed
    assert (doubts.batches_without_rows, doubts.batches_without_trace) == (["i-00000001"], ["i-00000001"])


def test_a_batch_without_a_manifest_is_of_the_generation_before_it() -> None:
    found = evidence(manifest(1, 1, "a"), manifest(2, 1, "b", generation=2), last=3)
    rows = {f"i-0000000{n}": [StoredFile(k, None, 2)] for n, k in enumerate("abc", start=1)}
    assert [b.generation for b in found.batches(rows, 1, Doubts())] == [1, 2, 2]


def test_without_provenance_one_manifest_is_believed() -> None:
    doubts = Doubts()
    blind = replace(evidence(manifest(1, 1, "a")), by_file=False)
    assert keys(only(blind, {}, doubts)) == ["a"]
    assert doubts.batches_on_trust == ["i-00000001"]
    for tries, reason in (([], "missing"), ([manifest(1, 1, "a"), manifest(1, 2, "a")], "contradict")):
        with pytest.raises(LedgerBehindTableError, match=reason):
            only(replace(evidence(*tries), by_file=False), {})
