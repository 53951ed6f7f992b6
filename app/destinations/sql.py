"""pyiceberg's SQL catalog, which reads a metadata file once, and not at each of a commit's five looks at the table."""

from __future__ import annotations

from dataclasses import dataclass

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import StagedTable, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import (
    AddSchemaUpdate,
    AddSnapshotUpdate,
    RemovePropertiesUpdate,
    SetCurrentSchemaUpdate,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)
from pyiceberg.typedef import Identifier

from app.destinations.sink import is_local, local_path

# What a commit of a batch consists of: none of it looks at the history, only adds to it.
_ADDING = (
    AddSchemaUpdate,
    AddSnapshotUpdate,
    RemovePropertiesUpdate,
    SetCurrentSchemaUpdate,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
)


@dataclass(frozen=True)
class _Seen:
    """A metadata file as it was read; nobody changes one that was written, and whoever did is noticed on a disk."""

    location: str
    state: tuple[int, ...]
    metadata: TableMetadata


class AttentiveSqlCatalog(SqlCatalog):
    """Asks the database each time which metadata is a table's, and reads that only where it is not the last one."""

    _seen: _Seen | None = None

    def _convert_orm_to_iceberg(self, orm_table: IcebergTables) -> Table:
        location = orm_table.metadata_location
        state = _state(location) if location else ()
        seen = self._seen
        if not location or seen is None or (seen.location, seen.state) != (location, state):
            table = super()._convert_orm_to_iceberg(orm_table)
            self._seen = _Seen(table.metadata_location, state, table.metadata)
            return table
        return Table(
            identifier=(*Catalog.identifier_to_tuple(orm_table.table_namespace), orm_table.table_name),
            metadata=seen.metadata,
            metadata_location=location,
            io=self._load_file_io(seen.metadata.properties, location),
            catalog=self,
        )

    def _update_and_stage_table(
        self,
        current_table: Table | None,
        table_identifier: Identifier,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> StagedTable:
        """The table as the updates make it. History is set aside meanwhile: pyiceberg copies what it gets."""
        if current_table is None or not all(isinstance(update, _ADDING) for update in updates):
            return super()._update_and_stage_table(current_table, table_identifier, requirements, updates)
        whole = current_table.metadata
        added = {u.snapshot.snapshot_id for u in updates if isinstance(u, AddSnapshotUpdate)}
        named = {u.snapshot_id for u in updates if isinstance(u, SetSnapshotRefUpdate)} | {whole.current_snapshot_id}
        if any(s.snapshot_id in added for s in whole.snapshots):
            raise CommitFailedException("The snapshot is in the table already.")
        kept = [s for s in whole.snapshots if s.snapshot_id in named]
        base = whole.model_copy(update={"snapshots": kept, "snapshot_log": []})
        table = Table(
            current_table.name(), base, current_table.metadata_location, current_table.io, self, current_table.config
        )
        staged = super()._update_and_stage_table(table, table_identifier, requirements, updates)
        new = staged.metadata
        staged.metadata = new.model_copy(
            update={
                "snapshots": [*whole.snapshots, *new.snapshots[len(kept) :]],
                "snapshot_log": [*whole.snapshot_log, *new.snapshot_log],
            }
        )
        return staged


def _state(location: str) -> tuple[int, ...]:
    """What tells a file of this disk from what it was; nothing of an object, which is written once."""
    if not is_local(location):
        return ()
    try:
        seen = local_path(location).stat()
    except OSError:
        # Reading it will say why.
        return (-1,)
    return (seen.st_ino, seen.st_size, seen.st_mtime_ns)
