"""A file of a source, and what the ledger knows of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple


class SourceFile(NamedTuple):
    r"""One version of one file, as a listing shows it; a tuple, as each listed file becomes one.

    `key` is the absolute URI (`s3://bucket/a/b.json`, `file:///data/b.json`), bytes as they are: not percent-encoded,
    a byte that is not UTF-8 as `\xNN`, a backslash doubled. `version` is the store's etag, else size and time.
    """

    key: str
    version: str
    size_bytes: int
    modified_at: datetime

    @property
    def order(self) -> bytes:
        """What files are sorted by everywhere: the key's UTF-8 bytes."""
        return self.key.encode()


def version_by_time(modified_at: datetime | None) -> str:
    """What stands for a version that nobody kept: the time at which the file was modified, as far as that is known."""
    return "modified-at-unknown" if modified_at is None else f"modified-at-{modified_at.isoformat()}"


class FileState(enum.StrEnum):
    """What happened to a version of a file. The values are part of the contract."""

    DISCOVERED = "discovered"
    PROCESSING = "processing"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    CHANGED = "changed"
    SUPERSEDED = "superseded"


class KnownVersion(NamedTuple):
    """What decides about a version of a file that the ledger knows; a tuple, as each known file becomes one."""

    key: str
    version: str
    state: FileState
    retryable: bool = False
    tries: int = 0
    next_try_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LedgerFile:
    """A row of the ledger: one version of one file, in the table's present generation."""

    key: str
    version: str
    state: FileState
    size_bytes: int = 0
    rows: int | None = None
    batch_id: str | None = None
    run_id: str | None = None
    category: str | None = None
    message: str | None = None
    line: int | None = None
    retryable: bool = False
    tries: int = 0
    next_try_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A file whose rows are in a batch's data files."""

    key: str
    version: str
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class EarlierVersion:
    """A version of a file whose rows are in the table, beside a newer one that is to be loaded.

    Its rows are those that name both the file and `batch_id`. `provenance` says whether they name them at all; None
    where nobody knows.
    """

    key: str
    version: str
    batch_id: str
    rows: int
    provenance: bool | None = True
