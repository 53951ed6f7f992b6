"""The promises that the layers around the domain keep. Each has a real implementation and a fake that works."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from app.domain.batch import BatchManifest, BatchRef
from app.domain.errors import FileFailure
from app.domain.evolution import Change
from app.domain.files import LoadedFile, SourceFile
from app.domain.formats import FormatOptions
from app.domain.replacing import Holding, RowsOf, StoredData
from app.domain.table import TableHead, TableName
from app.domain.types import EMPTY, Struct

# --- source ------------------------------------------------------------------------------------------------------


class SourceReader(Protocol):
    """Reads files of one source. Picklable: it travels to the engine's processes with the read key and nothing else.

    Both methods give bytes of exactly `file.version` or raise FileError: `path_not_found` when the file is gone or
    has another version by now, `auth`, `connectivity` after a few retries of their own.
    """

    def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
        """The stored bytes from `start` to `end` (excluded; None: to the end of the file)."""
        ...

    def stream(self, file: SourceFile, chunk_bytes: int) -> Iterator[bytes]:
        """The stored bytes in order, in pieces of about `chunk_bytes`.

        A change of the file meanwhile raises at the latest when the stream ends: what was read before is then void.
        """
        ...


class Source(Protocol):
    """Where files are."""

    @property
    def root(self) -> str:
        """URI of the folder (or file) below which every key lies, in the form of a key."""
        ...

    def discover(self) -> Iterator[SourceFile]:
        """Yield the matching files, in the order the store gives, which need not be key order; streaming.

        Hidden names and folder markers are left out; files of zero bytes are yielded.

        Raises:
            SourceNotFoundError, BucketNotFoundError, SourceAuthError, SourceUnreachableError.
        """
        ...

    def can_find_below(self, folder: str) -> bool:
        """Whether it could find a file inside `folder`, which has the form of a key."""
        ...

    def reader(self) -> SourceReader:
        """A reader for this source's files."""
        ...


# --- destination -------------------------------------------------------------------------------------------------


class DataSink(Protocol):
    """Makes data files at a table's data location. Picklable, with the write key for that location only."""

    def create(self, name: str) -> tuple[str, AbstractContextManager[BinaryIO]]:
        """Open a new file called `name` for writing.

        Returns:
            The file's whole path as the table must name it, and the stream: closing it makes the file whole,
            an exception inside the context leaves nothing that anyone reads.
        """
        ...

    def delete(self, path: str) -> None:
        """Remove a file that was never committed. A file that is gone already is no error."""
        ...

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a file that the table names, to be read; the stream can seek.

        Raises:
            OSError: It cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file that an engine wrote: rows of the table, field ids in its schema."""

    path: str
    rows: int
    size_bytes: int


@dataclass(frozen=True)
class Rewritten:
    """What stands in the place of a data file when certain rows are taken out of it.

    `removed` counts those rows; nothing is in it where the data file holds none of them and stays as it is. Without
    `data_files` there was nothing else in it. `refusal` says why the rows cannot be taken out; then nothing is written.
    """

    path: str
    removed: Mapping[RowsOf, int] = field(default_factory=dict)
    data_files: tuple[DataFile, ...] = ()
    refusal: str = ""


@dataclass(frozen=True)
class Removal:
    """Rows to be taken out of the table in a commit: which, where they were looked for, and what takes their place."""

    rows: frozenset[RowsOf] = frozenset()
    looked_at: tuple[StoredData, ...] = ()
    rewritten: tuple[Rewritten, ...] = ()

    @property
    def data_files(self) -> tuple[DataFile, ...]:
        """The data files that it puts into the table."""
        return tuple(f for r in self.rewritten for f in r.data_files)

    @property
    def found(self) -> dict[RowsOf, int]:
        """How many rows of each there were."""
        counts: dict[RowsOf, int] = {}
        for one in self.rewritten:
            for rows, count in one.removed.items():
                counts[rows] = counts.get(rows, 0) + count
        return counts


@dataclass(frozen=True)
class CommitOrder:
    """What one commit puts into the table, all or nothing."""

    batch: BatchRef
    data_files: tuple[DataFile, ...]
    manifest_path: str
    # Table properties to set in the same commit, beyond last-batch and epoch, which the commit sets itself.
    properties: Mapping[str, str]
    # Called before every attempt; raises LeaseLostError when this run may not commit any more.
    assert_lease: Callable[[], None]
    # Rows that go in the same commit.
    removal: Removal = field(default_factory=Removal)


@dataclass(frozen=True, slots=True)
class Committed:
    """A batch that is in the table."""

    snapshot_id: int
    sequence_number: int
    table_uuid: str
    # Whether the table has by now so many snapshots that `Catalog.expire` would let some go.
    history_is_long: bool = False


@dataclass(frozen=True)
class FoundBatch:
    """What the table says of a batch that was looked up.

    `manifest` is None when the batch is in (by the property) but its manifest cannot be found.
    """

    manifest: BatchManifest | None
    head: TableHead


class Draft(Protocol):
    """The table as the next commit will make it. Nothing of it is visible before `commit`."""

    @property
    def schema(self) -> Struct:
        """The schema that data files must have: every field with its id."""
        ...

    @property
    def table_uuid(self) -> str:
        """The identity of the table that it was drafted on, or that it will make."""
        ...

    @property
    def location(self) -> str:
        """Where that table lies, or will lie. Two drafts of one new table may have two."""
        ...

    def sink(self) -> DataSink:
        """Where the data files go."""
        ...

    def write_manifest(self, manifest: BatchManifest) -> str:
        """Keep the manifest beside the table, outside its own location where storage allows.

        Returns:
            Its path. Writing the same batch and epoch again replaces it.

        Raises:
            WriteFailureError: No place for it takes a file.
        """
        ...

    def holding(self, rows: Collection[RowsOf]) -> Holding:
        """The data files of the table that may hold those rows; nothing of a table that is to be made.

        Raises:
            CatalogUnreachableError, TableUnreadableError: They cannot be told.
        """
        ...

    def commit(self, order: CommitOrder) -> Committed:
        """Make the batch part of the table, at most once for one batch, whoever else tries; one snapshot.

        Before every attempt a guard checks, on the metadata that this attempt asserts: the batch is not in, no higher
        epoch, the lease is alive, and the rows that go are in the data files that were looked at and in no other.

        Raises:
            AlreadyCommittedError: The batch is in the table already; nothing was changed.
            LeaseLostError, FencedError: This run may not commit; nothing was changed.
            TableConflictError: The table's schema or identity changed, or somebody moved the rows that go; load the
                batch again on a new draft.
            CommitUnknownError: Nobody knows whether it was applied: look the batch up before anything else.
            CatalogRefusedError: The catalog refused; nothing was changed.
            WriteFailureError: What the commit consists of could not be written; nothing was changed.
        """
        ...


class Catalog(Protocol):
    """One Iceberg catalog."""

    def head(self, table: TableName) -> TableHead | None:
        """The table now; None where there is none.

        Raises:
            CatalogUnreachableError, CatalogAuthError, CatalogNotConfiguredError, TableUnreadableError.
        """
        ...

    def draft_new(self, table: TableName, schema: Struct, properties: Mapping[str, str]) -> Draft:
        """A table that does not exist yet; its first commit creates it, atomically with the data.

        Raises:
            TableConflictError: It exists by now.
        """
        ...

    def draft(self, table: TableName, changes: Sequence[Change], *, provenance: bool = True) -> Draft:
        """The existing table with `changes` made, and our system columns added where they are missing.

        Raises:
            TableUnsuitableError: It is partitioned, of a format version that cannot be written, or otherwise foreign.
            TableNotFoundError: It is gone.
        """
        ...

    def find_batch(self, table: TableName, batch: BatchRef) -> FoundBatch | None:
        """The batch of that ingestion and number (any epoch) as the table has it; None where it does not.

        Raises:
            CatalogUnreachableError: Nothing is known now.
        """
        ...

    def fence(self, table: TableName, batch: BatchRef, assert_lease: Callable[[], None]) -> TableHead:
        """Shut out every commit of the batch's ingestion under a lower epoch, for ever.

        One transaction sets the epoch property and adds an empty snapshot, so that an older process that asserts the
        old head is refused, and its retry meets the property.

        Raises:
            TableNotFoundError: There is no table: creating it is the fence.
            FencedError: A higher epoch is in the table already.
        """
        ...

    def expire(self, table: TableName, batch: BatchRef, assert_lease: Callable[[], None]) -> int:
        """Let go of the snapshots that the table's own properties do not ask to keep, in one commit of nothing else.

        The current one stays, and what branches and tags name. A table on whose properties nothing of the kind is set
        keeps all. What the snapshots alone held on to is not removed, but found by `TableStorage.expired`.

        Args:
            table: The table.
            batch: One of those whose commit may be the newest; its epoch is checked as for a commit.
            assert_lease: Called before the request; raises LeaseLostError when this run may not commit any more.

        Returns:
            How many went; 0 where it is not worth a commit.

        Raises:
            LeaseLostError, FencedError: This run may not commit; nothing was changed.
            TableConflictError: Somebody else committed, or made a tag; nothing was changed. Or the table is gone.
            CommitUnknownError: Nobody knows whether it was applied; the table's rows are the same either way.
            WriteFailureError: What is to go could not be noted down; nothing was changed.
            CatalogUnreachableError, CatalogAuthError, TableUnreadableError: As `head`.
        """
        ...


# --- engine ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """How to read a source's files."""

    reader: SourceReader
    options: FormatOptions


@dataclass(frozen=True)
class Inference:
    """What a sample of files showed.

    `schema` joins every value seen; it may hold UNKNOWN types, and nothing of what `known` could hold already.
    """

    schema: Struct
    failed: tuple[FileFailure, ...] = ()
    sampled_bytes: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class WriteOrder:
    """Files to write into a table's data files, under a schema that is frozen for this order."""

    files: tuple[SourceFile, ...]
    reading: Reading
    schema: Struct
    sink: DataSink
    batch_id: str
    # Every data file's name begins with it; unique to this try of the batch.
    name_prefix: str
    provenance: bool = True
    # True: a new column or a wider type is reported as drift, and its file left unwritten. False: it fails the file.
    report_drift: bool = True


@dataclass(frozen=True)
class WriteResult:
    """What became of each file of an order: it is in exactly one of `loaded`, `failed`, `drifted`."""

    data_files: tuple[DataFile, ...] = ()
    loaded: tuple[LoadedFile, ...] = ()
    failed: tuple[FileFailure, ...] = ()
    drifted: tuple[SourceFile, ...] = ()
    drift: Struct = EMPTY


@dataclass(frozen=True)
class RewriteOrder:
    """Rows to be taken out of data files of a table; all others are kept, value for value and in their order."""

    data_files: tuple[StoredData, ...]
    rows: frozenset[RowsOf]
    # The table's schema, under which what is kept is written.
    schema: Struct
    sink: DataSink
    # Every data file's name begins with it; unique to this order.
    name_prefix: str


class Progress(Protocol):
    """Told how far an engine is; called from any thread, often."""

    def __call__(self, *, files: int = 0, rows: int = 0, stored_bytes: int = 0) -> None:
        """Add what was done since the last call."""
        ...


class Engine(Protocol):
    """Reads batches and writes data files. One bad file never stops the others."""

    def expect(self, files: Sequence[SourceFile]) -> None:
        """Get ready for work on such files, which is likely to come and may not. Returns at once, and never fails."""
        ...

    def infer(self, files: Sequence[SourceFile], reading: Reading, known: Struct = EMPTY) -> Inference:
        """Look at a sample of all `files`, spread over them and over each of them.

        Args:
            files: At least one.
            reading: How to read them; `options.sample_bytes` bounds what is looked at.
            known: The data columns of a table that is there already; what fits them is not reported.
        """
        ...

    def write(self, order: WriteOrder, progress: Progress) -> WriteResult:
        """Write the rows of `order.files`; a file's rows are in the result's data files whole, or not at all.

        Raises:
            WriteFailureError: The data location takes no files; nothing of this order is left there.
        """
        ...

    def rewrite(self, order: RewriteOrder) -> tuple[Rewritten, ...]:
        """Write data files anew without some of their rows, and without those that other tools marked as deleted.

        Returns:
            What became of each data file, in their order. One that holds none of the rows is not written anew.

        Raises:
            WriteFailureError: One cannot be read, or the data location takes no files; nothing of this order is left
                there.
        """
        ...

    def close(self) -> None:
        """End the engine's processes. Idempotent."""
        ...
