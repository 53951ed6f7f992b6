"""The next commit of a table: what it will look like, where its files go, and the guarded commit itself."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, RESTError, TableAlreadyExistsError
from pyiceberg.manifest import DataFile as IcebergDataFile
from pyiceberg.schema import Schema
from pyiceberg.table import CreateTableTransaction, StagedTable, Table, Transaction
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata

from app.destinations.guard import Guard
from app.destinations.manifests import last_manifest_property, write_manifest
from app.destinations.refusal import Base, is_in, refusal
from app.destinations.schemas import from_iceberg
from app.destinations.sink import make_sink
from app.destinations.translation import committing, preparing, reading, short, translated
from app.domain.batch import BatchManifest
from app.domain.errors import (
    AlreadyCommittedError,
    AutoloaderError,
    CatalogRefusedError,
    CommitUnknownError,
    TableConflictError,
    TableNotFoundError,
    WriteFailureError,
)
from app.domain.ports import CommitOrder, Committed, DataFile, DataSink
from app.domain.table import (
    MANIFEST_FOLDER,
    SNAPSHOT_BATCH_ID,
    SNAPSHOT_EPOCH,
    SNAPSHOT_MANIFEST,
    epoch_property,
    last_batch_property,
)
from app.domain.types import Struct

# A table made elsewhere may allow few retries or none; then we begin again on the new head ourselves.
ROUNDS = 20
LONGEST_WAIT_S = 1.0


@dataclass(frozen=True)
class Target:
    """A table by its name, in its catalog."""

    catalog: Catalog
    identifier: tuple[str, ...]
    # As people write it; for messages.
    name: str
    # Root of the catalog's warehouse, "" where it is unknown.
    warehouse: str = ""


@dataclass
class IcebergDraft(ABC):
    """What new and existing tables have in common. One draft is one batch's."""

    target: Target
    table: Table
    metadata: TableMetadata
    _footers: dict[str, IcebergDataFile] = field(default_factory=dict, init=False)

    @property
    def schema(self) -> Struct:
        """The schema that data files must have: every field with its id."""
        return from_iceberg(self.metadata.schema())

    @property
    def table_uuid(self) -> str:
        """The identity of the table that it was drafted on, or that it will make."""
        return str(self.metadata.table_uuid)

    def sink(self) -> DataSink:
        """Where the data files go."""
        provider = load_location_provider(self.metadata.location, self.metadata.properties)
        return make_sink(provider.data_path, self.table.io.properties)

    def write_manifest(self, manifest: BatchManifest) -> str:
        """Keep the manifest beside the table.

        Raises:
            WriteFailureError: No place for it takes a file.
        """
        return write_manifest(manifest, self.metadata, self.table.io, self.target.warehouse)

    def commit(self, order: CommitOrder) -> Committed:
        """Make the batch part of the table, at most once. Raises as the port says."""
        for attempt in range(ROUNDS):
            with translated(preparing, self.target.name):
                transaction = self._transaction(order)
                # Only now: of a table that is gone, the data files may be gone too, and that is the lesser news.
                self._read_footers(order.data_files)
                snapshot_id = self._stage(transaction, order)
            try:
                with translated(committing, self.target.name):
                    committed = transaction.commit_transaction()
            except CommitUnknownError as error:
                self._refuse_if_gone(error)
                raise
            except (CommitFailedException, TableAlreadyExistsError) as error:
                self._after_conflict(order, error)
                # Jitter is no secret; waits differ so that rivals do not meet again.
                time.sleep(min(LONGEST_WAIT_S, 0.02 * 2**attempt) * random.uniform(0.5, 1))  # noqa: S311
            else:
                return _committed(committed.metadata, snapshot_id)
        raise TableConflictError(f"Other writers of {self.target.name} were faster {ROUNDS} times; try again later.")

    @abstractmethod
    def _transaction(self, order: CommitOrder) -> Transaction:
        """A guarded transaction that makes the table what this draft says, without data."""

    @abstractmethod
    def _after_conflict(self, order: CommitOrder, error: Exception) -> None:
        """Raise where another attempt makes no sense."""

    def _refuse_if_gone(self, error: CommitUnknownError) -> None:
        # Some catalogs answer a commit to a table that is gone with a plain 404, which by itself could be anything.
        if not isinstance(error.__cause__, RESTError):
            return
        try:
            with translated(reading, self.target.name):
                there = self.target.catalog.load_table(self.target.identifier)
        except TableNotFoundError:
            if isinstance(self.table, StagedTable):
                return
        except AutoloaderError:
            return
        else:
            if there.metadata.table_uuid == self.metadata.table_uuid:
                return
        raise TableConflictError(f"The table {self.target.name} is gone since this batch was loaded.") from error

    def _stage(self, transaction: Transaction, order: CommitOrder) -> int:
        batch = order.batch
        transaction.set_properties(
            {
                **order.properties,
                MANIFEST_FOLDER: order.manifest_path.rpartition("/")[0],
                last_batch_property(batch.ingestion_id): str(batch.number),
                epoch_property(batch.ingestion_id): str(batch.epoch),
                last_manifest_property(batch.ingestion_id): order.manifest_path,
            }
        )
        summary = {
            SNAPSHOT_BATCH_ID: batch.batch_id,
            SNAPSHOT_EPOCH: str(batch.epoch),
            SNAPSHOT_MANIFEST: order.manifest_path,
        }
        with transaction.update_snapshot(snapshot_properties=summary).merge_append() as append:
            for data_file in order.data_files:
                append.append_data_file(self._footers[data_file.path])
        return append.snapshot_id

    def _read_footers(self, data_files: tuple[DataFile, ...]) -> None:
        # Imported here: a load with nothing new, the most frequent one, does not pay for Arrow.
        from pyiceberg.io.pyarrow import parquet_file_to_data_file  # noqa: PLC0415

        for data_file in data_files:
            if data_file.path in self._footers:
                continue
            try:
                footer = parquet_file_to_data_file(self.table.io, self.metadata, data_file.path)
            except OSError as error:
                raise WriteFailureError(f"The data file {data_file.path} cannot be read back.") from error
            if footer.record_count != data_file.rows:
                raise WriteFailureError(
                    f"The data file {data_file.path} holds {footer.record_count} rows, not {data_file.rows}."
                )
            self._footers[data_file.path] = footer


@dataclass
class ExistingDraft(IcebergDraft):
    """A table that is there, with changes of its schema."""

    evolve: Callable[[Transaction], None]
    additions: Mapping[str, str]

    def _transaction(self, order: CommitOrder) -> Transaction:
        base = Base.of(self.table.metadata)
        guard = Guard(
            self.target.catalog,
            lambda metadata: refusal(metadata, order.batch, base, self.target.name),
            order.assert_lease,
        )
        table = load_guarded(guard, self.target)
        verdict = refusal(table.metadata, order.batch, base, self.target.name)
        if verdict is not None:
            raise verdict
        transaction = table.transaction()
        self.evolve(transaction)
        if not _same_columns(transaction.table_metadata.schema(), self.metadata.schema()):
            raise TableConflictError(f"The schema of {self.target.name} was changed while this batch was being loaded.")
        if self.additions:
            transaction.set_properties(dict(self.additions))
        return transaction

    def _after_conflict(self, order: CommitOrder, error: Exception) -> None:
        """Nothing is decided yet: the next round looks at the table again."""


@dataclass
class NewDraft(IcebergDraft):
    """A table that its first commit makes."""

    def _transaction(self, order: CommitOrder) -> Transaction:
        guard = Guard(self.target.catalog, None, order.assert_lease)
        staged = StagedTable(
            identifier=self.target.identifier,
            metadata=self.metadata,
            metadata_location=self.table.metadata_location,
            io=self.table.io,
            catalog=self.target.catalog,
            config=self.table.config,
        )
        guard.attach(staged)
        return CreateTableTransaction(staged)

    def _after_conflict(self, order: CommitOrder, error: Exception) -> None:
        try:
            with translated(reading, self.target.name):
                there = self.target.catalog.load_table(self.target.identifier)
        except TableNotFoundError:
            raise CatalogRefusedError(
                f"The catalog refuses to make the table {self.target.name}: {short(error)}. "
                "Something that is no table, such as a view, may have that name."
            ) from error
        if is_in(there.metadata, order.batch):
            raise AlreadyCommittedError(
                f"The batch {order.batch.batch_id} is in the table {self.target.name} already."
            ) from error
        raise TableConflictError(
            f"The table {self.target.name} was made by somebody else while this batch was being loaded."
        ) from error


def load_guarded(guard: Guard, target: Target) -> Table:
    """The table with the guard before its commits.

    Raises:
        TableConflictError: It is gone.
    """
    with translated(reading, target.name):
        return guard.load_table(target.identifier)


def _same_columns(a: Schema, b: Schema) -> bool:
    return a.as_struct() == b.as_struct()


def _committed(metadata: TableMetadata, snapshot_id: int) -> Committed:
    snapshot = metadata.snapshot_by_id(snapshot_id)
    sequence_number = snapshot.sequence_number if snapshot else None
    return Committed(snapshot_id, sequence_number or 0, str(metadata.table_uuid))
