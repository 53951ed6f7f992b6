"""Whether a batch may be committed on the metadata of this moment. Pure but for the exception."""

from __future__ import annotations

from dataclasses import dataclass

from pyiceberg.exceptions import ValidationException
from pyiceberg.table.metadata import TableMetadata

from app.domain.batch import BatchRef
from app.domain.errors import AlreadyCommittedError, AutoloaderError, FencedError, TableConflictError
from app.domain.table import SNAPSHOT_BATCH_ID, epoch_property, last_batch_property


class Refused(ValidationException):  # it is a verdict
    """The guard lets this commit not pass; nothing was changed.

    It derives from pyiceberg's own class because only then pyiceberg removes the manifests of the refused attempt.
    """

    def __init__(self, error: AutoloaderError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class Base:
    """What a draft was made on: another identity or another schema makes its data files unfit."""

    uuid: str
    schema_id: int
    last_column_id: int

    @classmethod
    def of(cls, metadata: TableMetadata) -> Base:
        """The base that `metadata` shows."""
        return cls(str(metadata.table_uuid), metadata.current_schema_id, metadata.last_column_id)


def conflict(metadata: TableMetadata, base: Base, table: str) -> AutoloaderError | None:
    """Why data files made on `base` do not belong to the table any more; None when they do."""
    now = Base.of(metadata)
    if now.uuid != base.uuid:
        return TableConflictError(f"The table {table} was replaced by another one while this batch was being loaded.")
    if now != base:
        return TableConflictError(f"The schema of {table} was changed while this batch was being loaded.")
    return None


def fenced(metadata: TableMetadata, batch: BatchRef) -> AutoloaderError | None:
    """Why the batch's epoch may not write any more; None when it may."""
    epoch = property_number(metadata, epoch_property(batch.ingestion_id))
    if epoch is not None and epoch > batch.epoch:
        return FencedError()
    return None


def is_in(metadata: TableMetadata, batch: BatchRef) -> bool:
    """Whether the batch is in the table, under whatever epoch.

    The property alone would do for our own tables and answers after snapshots were expired. The history is asked too,
    for somebody may have removed the property.
    """
    last = property_number(metadata, last_batch_property(batch.ingestion_id))
    if last is not None and batch.number <= last:
        return True
    return any(s.summary and s.summary[SNAPSHOT_BATCH_ID] == batch.batch_id for s in metadata.snapshots)


def refusal(metadata: TableMetadata, batch: BatchRef, base: Base, table: str) -> AutoloaderError | None:
    """Why the batch may not be committed; None when nothing speaks against it."""
    if str(metadata.table_uuid) == base.uuid and is_in(metadata, batch):
        return AlreadyCommittedError(f"The batch {batch.batch_id} is in the table {table} already.")
    return fenced(metadata, batch) or conflict(metadata, base, table)


def property_number(metadata: TableMetadata, name: str) -> int | None:
    """The number that a table property holds; None where it is missing or no number."""
    text = metadata.properties.get(name, "")
    return int(text) if text.isdecimal() else None
