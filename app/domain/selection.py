"""Which files of a listing a run takes. Pure: one sighting in, one decision out."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from app.domain.files import FileState, LedgerFile, SourceFile


class Decision(enum.Enum):
    """What a run does with a file that it sees."""

    LOAD = "load"
    KNOWN = "known"  # loaded before
    SKIP_EMPTY = "skip_empty"  # nothing in it; to be noted
    SKIPPED = "skipped"  # noted so by an earlier run
    CHANGED = "changed"  # a new version of a loaded file; to be noted
    STILL_CHANGED = "still_changed"  # noted so by an earlier run
    STILL_FAILED = "still_failed"  # failed before, and its turn is not now
    TAKEN = "taken"  # another ingestion of the same table is loading it


def decide(
    file: SourceFile, known: Sequence[LedgerFile], *, now: datetime, max_tries: int, retry_failed: bool
) -> Decision:
    """Decide what becomes of a file.

    Args:
        file: A version of a file, as the listing shows it.
        known: What the ledger knows of the same key, every version.
        now: Files whose next try lies behind it are tried again.
        max_tries: How often a file is tried by itself.
        retry_failed: Somebody asked for every failed file to be tried.
    """
    same = next((k for k in known if k.version == file.version), None)
    if same is not None and same.state is not FileState.DISCOVERED:
        return _decide_same(same, now=now, max_tries=max_tries, retry_failed=retry_failed)
    if any(k.state in (FileState.SUCCESS, FileState.PROCESSING) for k in known):
        return Decision.CHANGED
    return Decision.SKIP_EMPTY if file.size_bytes == 0 else Decision.LOAD


def _decide_same(same: LedgerFile, *, now: datetime, max_tries: int, retry_failed: bool) -> Decision:
    if same.state is FileState.FAILED:
        due = same.retryable and same.tries < max_tries and (same.next_try_at is None or same.next_try_at <= now)
        return Decision.LOAD if due or retry_failed else Decision.STILL_FAILED
    return {
        FileState.SUCCESS: Decision.KNOWN,
        FileState.PROCESSING: Decision.TAKEN,
        FileState.SKIPPED: Decision.SKIPPED,
        FileState.CHANGED: Decision.STILL_CHANGED,
    }[same.state]


def plan_batches(
    files: Iterable[SourceFile], *, batch_bytes: int, batch_files: int
) -> Iterator[tuple[SourceFile, ...]]:
    """Yield groups of files, in the order given.

    Args:
        files: The files to load, in key order; streamed, never held whole.
        batch_bytes: Stored bytes that a batch may reach, above zero. A larger file makes a batch of its own.
        batch_files: Files that a batch may hold, above zero.

    Raises:
        ValueError: A limit is zero or less.
    """
    if batch_bytes <= 0 or batch_files <= 0:
        raise ValueError("The limits of a batch must be above zero.")
    group: list[SourceFile] = []
    group_bytes = 0
    for file in files:
        if group and (group_bytes + file.size_bytes > batch_bytes or len(group) == batch_files):
            yield tuple(group)
            group, group_bytes = [], 0
        group.append(file)
        group_bytes += file.size_bytes
    if group:
        yield tuple(group)
