"""The next commit of a table: what it will look like, where its files go, and the guarded commit itself."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException, RESTError, TableAlreadyExistsError, ValidationException
from pyiceberg.expressions import BooleanExpression, In, Reference
from pyiceberg.manifest import DataFile as IcebergDataFile
from pyiceberg.schema import Schema
from pyiceberg.table import CreateTableTransaction, StagedTable, Table, Transaction
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata

from app.destinations.guard import Guard
from app.destinations.history import going
from app.destinations.holding import Whereabouts, held
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
from app.domain.failpoints import NO_FAILPOINTS, Failpoints
from app.domain.ports import CommitOrder, Committed, DataFile, DataSink
from app.domain.replacing import Holding, RowsOf
from app.domain.system_columns import FILE_PATH
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
# pyiceberg tries for about half a minute in each round, so rounds alone would go on for a long time.
CONTEST_S = 60.0


@dataclass(frozen=True)
class Target:
    """A table by its name, in its catalog."""

    catalog: Catalog
    identifier: tuple[str, ...]
    # As people write it; for messages.
    name: str
    # Root of the catalog's warehouse, "" where it is unknown.
    warehouse: str = ""
    # Seconds after which a contest with other writers is given up for now.
    contest_s: float = CONTEST_S
    failpoints: Failpoints = NO_FAILPOINTS


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

    @property
    def location(self) -> str:
        """Where that table lies, or will lie."""
        return self.metadata.location

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

    def holding(self, rows: Collection[RowsOf]) -> Holding:
        """The data files that may hold those rows. Raises as the port says."""
        with translated(reading, self.target.name):
            return held(self.table.metadata, self.table.io, rows).holding()

    def commit(self, order: CommitOrder) -> Committed:
        """Make the batch part of the table, at most once. Raises as the port says."""
        give_up_at = time.monotonic() + self.target.contest_s
        for attempt in range(ROUNDS):
            with translated(partial(preparing, location=self.metadata.location), self.target.name):
                transaction, gone = self._transaction(order)
                # Only now: of a table that is gone, the data files may be gone too, and that is the lesser news.
                with self.target.failpoints.step("footers_read"):
                    self._read_footers(order)
                with self.target.failpoints.step("commit_staged"):
                    snapshot_id = self._stage(transaction, order, gone)
            try:
                with translated(committing, self.target.name):
                    committed = transaction.commit_transaction()
            except CommitUnknownError as error:
                self._refuse_if_gone(error)
                raise
            except (CommitFailedException, TableAlreadyExistsError, ValidationException) as error:
                self._after_conflict(order, error)
                if time.monotonic() > give_up_at:
                    break
                # Jitter is no secret; waits differ so that rivals do not meet again.
                time.sleep(min(LONGEST_WAIT_S, 0.02 * 2**attempt) * random.uniform(0.5, 1))  # noqa: S311
            else:
                return _committed(committed.metadata, snapshot_id)
        raise TableConflictError(f"Other writers of {self.target.name} were faster every time; try again later.")

    @abstractmethod
    def _transaction(self, order: CommitOrder) -> tuple[Transaction, Sequence[IcebergDataFile]]:
        """A guarded transaction that makes the table what this draft says, without data; and what it is to take out."""

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

    def _stage(self, transaction: Transaction, order: CommitOrder, gone: Sequence[IcebergDataFile]) -> int:
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
        update = transaction.update_snapshot(snapshot_properties=summary)
        with update.overwrite() if gone else update.merge_append() as producer:
            for data_file in (*order.data_files, *order.removal.data_files):
                producer.append_data_file(self._footers[data_file.path])
            for old in gone:
                producer.delete_data_file(old)
            if gone:
                # It deletes nothing by itself: it says which concurrent commits are none of our business.
                producer.delete_by_predicate(_whose(transaction.table_metadata.schema(), order.removal.rows))
        return producer.snapshot_id

    def _read_footers(self, order: CommitOrder) -> None:
        try:
            self._look_at((*order.data_files, *order.removal.data_files))
        except WriteFailureError:
            # Of a run that slept, another one may have swept the files. That it lost its lease is the greater news.
            order.assert_lease()
            raise

    def _look_at(self, data_files: tuple[DataFile, ...]) -> None:
        # Imported here: a load with nothing new, the most frequent one, does not pay for Arrow.
        from pyiceberg.io.pyarrow import parquet_file_to_data_file  # noqa: PLC0415

        for data_file in data_files:
            if data_file.path in self._footers:
                continue
            try:
                footer = parquet_file_to_data_file(self.table.io, self.metadata, data_file.path)
            except (OSError, ValueError) as error:
                # A file that is cut has no footer, which Arrow calls an invalid value.
                raise WriteFailureError(
                    f"The data file {data_file.path} cannot be read back: {short(error)}."
                ) from error
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

    def _transaction(self, order: CommitOrder) -> tuple[Transaction, Sequence[IcebergDataFile]]:
        base = Base.of(self.table.metadata)
        whereabouts = Whereabouts(order.removal, self.table.io, self.target.name)

        def speaks_against(metadata: TableMetadata) -> AutoloaderError | None:
            return refusal(metadata, order.batch, base, self.target.name) or whereabouts.refusal(metadata)

        guard = Guard(self.target.catalog, speaks_against, order.assert_lease, failpoints=self.target.failpoints)
        table = load_guarded(guard, self.target)
        verdict = speaks_against(guard.whole(table))
        if verdict is not None:
            raise verdict
        transaction = table.transaction()
        self.evolve(transaction)
        if not _same_columns(transaction.table_metadata.schema(), self.metadata.schema()):
            raise TableConflictError(f"The schema of {self.target.name} was changed while this batch was being loaded.")
        if self.additions:
            transaction.set_properties(dict(self.additions))
        return transaction, whereabouts.gone

    def _after_conflict(self, order: CommitOrder, error: Exception) -> None:
        """Nothing is decided yet: the next round looks at the table again."""


@dataclass
class NewDraft(IcebergDraft):
    """A table that its first commit makes."""

    def _transaction(self, order: CommitOrder) -> tuple[Transaction, Sequence[IcebergDataFile]]:
        guard = Guard(self.target.catalog, None, order.assert_lease, failpoints=self.target.failpoints)
        staged = StagedTable(
            identifier=self.target.identifier,
            metadata=self.metadata,
            metadata_location=self.table.metadata_location,
            io=self.table.io,
            catalog=self.target.catalog,
            config=self.table.config,
        )
        guard.attach(staged)
        return CreateTableTransaction(staged), ()

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


def _whose(schema: Schema, rows: Collection[RowsOf]) -> BooleanExpression:
    """What rows of these files fulfil."""
    # Other writers may spell our column in another way.
    name = next(f.name for f in schema.fields if f.name.lower() == FILE_PATH)
    return In(Reference(name), values={r.key for r in rows})  # type: ignore[call-arg,misc]  # plain values do


def _same_columns(a: Schema, b: Schema) -> bool:
    return a.as_struct() == b.as_struct()


def _committed(metadata: TableMetadata, snapshot_id: int) -> Committed:
    snapshot = metadata.snapshot_by_id(snapshot_id)
    sequence_number = snapshot.sequence_number if snapshot else None
    return Committed(snapshot_id, sequence_number or 0, str(metadata.table_uuid), history_is_long=bool(going(metadata)))
