"""Which files of a listing a run takes. Pure: one sighting in, one decision out."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from app.domain.files import FileState, LedgerFile, SourceFile, version_by_time


class Decision(enum.Enum):
    """What a run does with a file that it sees."""

    LOAD = "load"
    KNOWN = "known"  # loaded before
    SKIP_EMPTY = "skip_empty"  # nothing in it; to be noted
    SKIPPED = "skipped"  # noted so by an earlier run
    CHANGED = "changed"  # a new version of a loaded file; to be noted
    STILL_CHANGED = "still_changed"  # noted so by an earlier run
    STILL_FAILED = "still_failed"  # failed before, and its turn is not now
    TAKEN = "taken"  # another ingestion of the same table is loading it, or another version of it


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
    # A version that is only known by its time is the one that has this time.
    versions = (file.version, version_by_time(file.modified_at))
    same = next((k for v in versions for k in known if k.version == v), None)
    state = None if same is None else same.state
    if state is not None and state in _SETTLED:
        return _SETTLED[state]
    # Another version counts before this one's own past: a file is loaded in one version, also when this one failed
    # before, and a version that was noted as changed is loaded after all when the other one never was.
    states = {k.state for k in known}
    if FileState.SUCCESS in states:
        return Decision.STILL_CHANGED if state is FileState.CHANGED else Decision.CHANGED
    if FileState.PROCESSING in states:
        return Decision.TAKEN
    if same is not None and state is FileState.FAILED:
        return _decide_failed(same, now=now, max_tries=max_tries, retry_failed=retry_failed)
    return Decision.SKIP_EMPTY if file.size_bytes == 0 else Decision.LOAD


_SETTLED = {
    FileState.SUCCESS: Decision.KNOWN,
    FileState.PROCESSING: Decision.TAKEN,
    FileState.SKIPPED: Decision.SKIPPED,
}


def _decide_failed(same: LedgerFile, *, now: datetime, max_tries: int, retry_failed: bool) -> Decision:
    due = same.retryable and same.tries < max_tries and (same.next_try_at is None or same.next_try_at <= now)
    return Decision.LOAD if due or retry_failed else Decision.STILL_FAILED


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
