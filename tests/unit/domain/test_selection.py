from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.definition import OnFileChange
from app.domain.errors import RunTooLarge
from app.domain.files import FileState, KnownVersion, SourceFile
from app.domain.selection import Decision, decide, fitting, plan_batches

NOW = datetime(2026, 5, 1, tzinfo=UTC)
FILE = SourceFile("s3://b/a", "v2", 10, NOW)
EMPTY_FILE = SourceFile("s3://b/a", "v2", 0, NOW)
S = FileState
D = Decision


def row(version: str, state: FileState, **more: object) -> KnownVersion:
    return KnownVersion("s3://b/a", version, state, **more)  # type: ignore[arg-type]


def decided(
    *known: KnownVersion,
    file: SourceFile = FILE,
    retry_failed: bool = False,
    on_file_change: OnFileChange = OnFileChange.IGNORE,
) -> Decision:
    return decide(file, known, now=NOW, max_tries=3, retry_failed=retry_failed, on_file_change=on_file_change)


# State of this version (None: not known), then what becomes of it by the state of another one (None: there is none).
TABLE = {
    None: {None: D.LOAD, S.DISCOVERED: D.LOAD, S.PROCESSING: D.TAKEN, S.SUCCESS: D.CHANGED, S.FAILED: D.LOAD,
           S.SKIPPED: D.LOAD, S.CHANGED: D.LOAD, S.SUPERSEDED: D.LOAD},
    S.DISCOVERED: {None: D.LOAD, S.DISCOVERED: D.LOAD, S.PROCESSING: D.TAKEN, S.SUCCESS: D.CHANGED, S.FAILED: D.LOAD,
                   S.SKIPPED: D.LOAD, S.CHANGED: D.LOAD, S.SUPERSEDED: D.LOAD},
    S.PROCESSING: dict.fromkeys([None, *S], D.TAKEN),
    S.SUCCESS: dict.fromkeys([None, *S], D.KNOWN),
    S.SKIPPED: dict.fromkeys([None, *S], D.SKIPPED),
    # Not to be tried again: see the tests of tries.
    S.FAILED: {None: D.STILL_FAILED, S.DISCOVERED: D.STILL_FAILED, S.PROCESSING: D.TAKEN, S.SUCCESS: D.CHANGED,
               S.FAILED: D.STILL_FAILED, S.SKIPPED: D.STILL_FAILED, S.CHANGED: D.STILL_FAILED,
               S.SUPERSEDED: D.STILL_FAILED},
    # The version that it was changed from was never loaded after all: then this one is.
    S.CHANGED: {None: D.LOAD, S.DISCOVERED: D.LOAD, S.PROCESSING: D.TAKEN, S.SUCCESS: D.STILL_CHANGED,
                S.FAILED: D.LOAD, S.SKIPPED: D.LOAD, S.CHANGED: D.LOAD, S.SUPERSEDED: D.LOAD},
    # It failed, a newer one took its place, and now it is back.
    S.SUPERSEDED: {None: D.LOAD, S.DISCOVERED: D.LOAD, S.PROCESSING: D.TAKEN, S.SUCCESS: D.CHANGED, S.FAILED: D.LOAD,
                   S.SKIPPED: D.LOAD, S.CHANGED: D.LOAD, S.SUPERSEDED: D.LOAD},
}  # fmt: skip


@pytest.mark.parametrize("same", [None, *FileState])
@pytest.mark.parametrize("other", [None, *FileState])
def test_every_state_beside_every_other_version(same: FileState | None, other: FileState | None) -> None:
    known = [row(version, state) for version, state in (("v1", other), ("v2", same)) if state is not None]
    assert decided(*known) is TABLE[same][other]
    assert decided(*reversed(known)) is TABLE[same][other]


# The same where new versions are loaded: beside a loaded version only.
BESIDE_A_LOADED_ONE = {
    None: D.LOAD_VERSION, S.DISCOVERED: D.LOAD_VERSION, S.PROCESSING: D.TAKEN, S.SUCCESS: D.KNOWN, S.SKIPPED: D.SKIPPED,
    S.FAILED: D.STILL_FAILED, S.CHANGED: D.LOAD_VERSION, S.SUPERSEDED: D.LOAD_VERSION,
}  # fmt: skip


@pytest.mark.parametrize("policy", [OnFileChange.APPEND, OnFileChange.REPLACE])
@pytest.mark.parametrize("same", [None, *FileState])
@pytest.mark.parametrize("other", [None, *FileState])
def test_every_state_where_new_versions_are_loaded(
    same: FileState | None, other: FileState | None, policy: OnFileChange
) -> None:
    known = [row(version, state) for version, state in (("v1", other), ("v2", same)) if state is not None]
    expected = BESIDE_A_LOADED_ONE[same] if other is S.SUCCESS else TABLE[same][other]
    assert decided(*known, on_file_change=policy) is expected
    assert expected.loads == (expected in {D.LOAD, D.LOAD_VERSION})


@pytest.mark.parametrize("policy", [OnFileChange.APPEND, OnFileChange.REPLACE])
def test_beside_a_loaded_version(policy: OnFileChange) -> None:
    loaded = row("v1", S.SUCCESS)
    assert decided(loaded, row("v3", S.PROCESSING), on_file_change=policy) is D.TAKEN
    assert decided(loaded, file=EMPTY_FILE, on_file_change=policy) is D.SKIP_EMPTIED
    assert decided(loaded, row("v2", S.SKIPPED), file=EMPTY_FILE, on_file_change=policy) is D.SKIPPED
    failed = row("v2", S.FAILED, retryable=True, tries=1)
    assert decided(loaded, failed, on_file_change=policy) is D.LOAD_VERSION
    assert decided(loaded, row("v2", S.FAILED), retry_failed=True, on_file_change=policy) is D.LOAD_VERSION


@pytest.mark.parametrize(
    ("tries", "next_try_at", "retryable", "decision"),
    [
        (1, None, True, D.LOAD),
        (1, NOW, True, D.LOAD),
        (2, NOW - timedelta(seconds=1), True, D.LOAD),
        (2, NOW + timedelta(seconds=1), True, D.STILL_FAILED),
        (3, NOW, True, D.STILL_FAILED),
        (1, NOW, False, D.STILL_FAILED),
    ],
)
def test_failed_files_have_their_turns(
    *,
    tries: int,
    next_try_at: datetime | None,
    retryable: bool,
    decision: Decision,
) -> None:
    failed = row("v2", S.FAILED, tries=tries, next_try_at=next_try_at, retryable=retryable)
    assert decided(failed) is decision
    assert decided(failed, retry_failed=True) is D.LOAD


def test_nobody_can_ask_for_a_failed_version_beside_a_loaded_one() -> None:
    assert decided(row("v1", S.SUCCESS), row("v2", S.FAILED), retry_failed=True) is D.CHANGED


def test_an_empty_file_is_skipped_unless_another_version_of_it_was_loaded() -> None:
    assert decided(file=EMPTY_FILE) is D.SKIP_EMPTY
    assert decided(row("v1", S.FAILED), file=EMPTY_FILE) is D.SKIP_EMPTY
    assert decided(row("v1", S.SUCCESS), file=EMPTY_FILE) is D.CHANGED
    assert decided(row("v2", S.SKIPPED), file=EMPTY_FILE) is D.SKIPPED


def sized(*sizes: int) -> list[SourceFile]:
    return [SourceFile(f"s3://b/{i:04}", "v", size, NOW) for i, size in enumerate(sizes)]


def sizes_of(batches: list[tuple[SourceFile, ...]]) -> list[list[int]]:
    return [[f.size_bytes for f in batch] for batch in batches]


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([], []),
        ([10], [[10]]),
        ([5, 5, 1], [[5, 5], [1]]),
        ([11], [[11]]),
        ([1, 11, 1], [[1], [11], [1]]),
        ([1, 1, 1, 1], [[1, 1, 1], [1]]),
        ([0, 0, 0, 0], [[0, 0, 0], [0]]),
    ],
)
def test_batches_keep_both_limits(sizes: list[int], batches: list[list[int]]) -> None:
    assert sizes_of(list(plan_batches(sized(*sizes), batch_bytes=10, batch_files=3))) == batches


@given(st.lists(st.integers(0, 30)), st.integers(1, 40), st.integers(1, 5))
def test_batches_hold_every_file_once_in_order(sizes: list[int], batch_bytes: int, batch_files: int) -> None:
    files = sized(*sizes)
    batches = list(plan_batches(files, batch_bytes=batch_bytes, batch_files=batch_files))
    assert [f for batch in batches for f in batch] == files
    for batch in batches:
        assert 1 <= len(batch) <= batch_files
        assert len(batch) == 1 or sum(f.size_bytes for f in batch) <= batch_bytes


def test_batches_are_planned_while_the_listing_streams() -> None:
    def endless() -> object:
        number = 0
        while True:
            number += 1
            yield SourceFile(f"s3://b/{number:09}", "v", 1, NOW)

    assert len(next(plan_batches(endless(), batch_bytes=10, batch_files=3))) == 3  # type: ignore[arg-type]


def test_files_that_fit_are_the_same_files() -> None:
    for ahead in (0, 1, 2, 100):
        assert list(fitting(iter(sized(4, 0, 6)), most_bytes=10, ahead=ahead)) == sized(4, 0, 6)
    assert list(fitting(iter([]), most_bytes=0, ahead=10)) == []


def test_of_files_that_do_not_fit_none_is_given_out_as_far_as_one_looks_ahead() -> None:
    with pytest.raises(RunTooLarge):
        fitting(iter(sized(4, 7, 1)), most_bytes=10, ahead=2)
    later = fitting(iter(sized(4, 4, 2, 1)), most_bytes=10, ahead=2)
    assert [next(later).size_bytes for _ in range(3)] == [4, 4, 2]
    with pytest.raises(RunTooLarge):
        next(later)


@pytest.mark.parametrize(("batch_bytes", "batch_files"), [(0, 1), (1, 0), (-1, 1)])
def test_limits_must_be_above_zero(batch_bytes: int, batch_files: int) -> None:
    with pytest.raises(ValueError, match="above zero"):
        next(plan_batches(sized(1), batch_bytes=batch_bytes, batch_files=batch_files))
