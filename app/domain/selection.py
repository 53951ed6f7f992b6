"""Which files of a listing a run takes. Pure: one sighting in, one decision out."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain, islice

from app.domain.definition import OnFileChange
from app.domain.errors import RunTooLarge
from app.domain.files import FileState, KnownVersion, SourceFile, version_by_time


class Decision(enum.Enum):
    """What a run does with a file that it sees."""

    LOAD = "load"
    LOAD_VERSION = "load_version"  # a new version of a loaded file, to be loaded too
    KNOWN = "known"  # loaded before
    SKIP_EMPTY = "skip_empty"  # nothing in it; to be noted
    SKIP_EMPTIED = "skip_emptied"  # nothing in it, and a loaded file before; to be noted
    SKIPPED = "skipped"  # noted so by an earlier run
    CHANGED = "changed"  # a new version of a loaded file; to be noted
    STILL_CHANGED = "still_changed"  # noted so by an earlier run
    STILL_FAILED = "still_failed"  # failed before, and its turn is not now
    TAKEN = "taken"  # another ingestion of the same table is loading it, or another version of it

    @property
    def loads(self) -> bool:
        """Whether the file is to be loaded."""
        return self in (Decision.LOAD, Decision.LOAD_VERSION)


def decide(
    file: SourceFile,
    known: Sequence[KnownVersion],
    *,
    now: datetime,
    max_tries: int,
    retry_failed: bool,
    on_file_change: OnFileChange = OnFileChange.IGNORE,
) -> Decision:
    """Decide what becomes of a file.

    Args:
        file: A version of a file, as the listing shows it.
        known: What the ledger knows of the same key, every version.
        now: Files whose next try lies behind it are tried again.
        max_tries: How often a file is tried by itself.
        retry_failed: Somebody asked for every failed file to be tried.
        on_file_change: What a new version of a loaded file is to do.
    """
    if not known and file.size_bytes:
        # Most of what is not loaded yet.
        return Decision.LOAD
    same = _same_version(file, known)
    state = None if same is None else same.state
    if state is not None and state in _SETTLED:
        return _SETTLED[state]
    # Another version counts before this one's own past: while new versions are ignored a file is loaded in one, also
    # when this one failed before; and one that was noted as changed is loaded after all when the other never was.
    states = {k.state for k in known}
    is_loaded = FileState.SUCCESS in states
    if is_loaded and on_file_change is OnFileChange.IGNORE:
        return Decision.STILL_CHANGED if state is FileState.CHANGED else Decision.CHANGED
    if FileState.PROCESSING in states:
        return Decision.TAKEN
    if same is not None and state is FileState.FAILED:
        loads = _is_due(same, now=now, max_tries=max_tries, retry_failed=retry_failed)
        otherwise = Decision.STILL_FAILED
    else:
        loads = file.size_bytes > 0
        otherwise = Decision.SKIP_EMPTIED if is_loaded else Decision.SKIP_EMPTY
    load = Decision.LOAD_VERSION if is_loaded else Decision.LOAD
    return load if loads else otherwise


def _same_version(file: SourceFile, known: Sequence[KnownVersion]) -> KnownVersion | None:
    for version in known:
        if version.version == file.version:
            return version
    # A version that is only known by its time is the one that has this time.
    by_time = version_by_time(file.modified_at) if known else ""
    return next((version for version in known if version.version == by_time), None)


_SETTLED = {
    FileState.SUCCESS: Decision.KNOWN,
    FileState.PROCESSING: Decision.TAKEN,
    FileState.SKIPPED: Decision.SKIPPED,
}


def _is_due(same: KnownVersion, *, now: datetime, max_tries: int, retry_failed: bool) -> bool:
    due = same.retryable and same.tries < max_tries and (same.next_try_at is None or same.next_try_at <= now)
    return due or retry_failed


def fitting(files: Iterator[SourceFile], *, most_bytes: int, ahead: int) -> Iterator[SourceFile]:
    """The same files, as long as they hold `most_bytes` together, or less.

    Args:
        files: The files to load; streamed.
        most_bytes: Stored bytes that they may hold.
        ahead: So many files are looked at before the first one is given out. Where they alone are too many, none is.

    Raises:
        RunTooLarge: They hold more.
    """
    counted = _counted(files, most_bytes)
    return chain(list(islice(counted, ahead)), counted)


def _counted(files: Iterator[SourceFile], most_bytes: int) -> Iterator[SourceFile]:
    total = 0
    for file in files:
        total += file.size_bytes
        if total > most_bytes:
            raise RunTooLarge
        yield file


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
