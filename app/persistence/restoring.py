"""Give a ledger back: batches of the past, and whose they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, exists, insert, or_, select, update

from app.domain.files import EarlierVersion, FileState
from app.domain.ledger import RestoredHead
from app.domain.rebuilding import RestoredBatch
from app.domain.runs import Lease, TableRecord
from app.persistence.batches import TIME_NOT_KEPT, failure_values, outcome, write_loaded
from app.persistence.earlier import supersede
from app.persistence.leases import LeasedStore
from app.persistence.schema import batches, files, foreign_ingestions, ingestions, tables
from app.persistence.store import table_record

# States of batches that a rebuild does not touch.
_SETTLED = ("committed", "cleared")
# States of files of which a failure of the past is news.
_NOT_SETTLED = (FileState.DISCOVERED.value, FileState.PROCESSING.value)


class SqlRestoring(LeasedStore):
    """Keeps the promises of `domain.ledger.Restoring`."""

    def table_of_ingestion(self, ingestion_id: str) -> str | None:
        """Name of the table that the ingestion loads."""
        statement = select(tables.c.name).join(ingestions, ingestions.c.table_id == tables.c.id)
        with self._read() as connection:
            return connection.execute(statement.where(ingestions.c.id == ingestion_id)).scalar_one_or_none()

    def foreign_ingestions(self, table: TableRecord) -> frozenset[str]:
        """Ingestions that load the table and belong to another installation."""
        statement = select(foreign_ingestions.c.ingestion_id).where(foreign_ingestions.c.table_id == table.id)
        with self._read() as connection:
            return frozenset(connection.execute(statement).scalars())

    def disown(self, table: TableRecord, ingestion_id: str) -> None:
        """Note that the ingestion belongs to another installation."""
        values = {"table_id": table.id, "ingestion_id": ingestion_id, "created_at": datetime.now(UTC)}
        with self._write() as connection:
            connection.execute(self._insert(foreign_ingestions).values(values).on_conflict_do_nothing())

    def adopt(self, table: TableRecord, ingestion_id: str) -> None:
        """Make the ingestion one of this ledger."""
        with self._write() as connection:
            values = {
                "id": ingestion_id,
                "table_id": table.id,
                "kind": "adopted",
                "next_batch": 1,
                "created_at": datetime.now(UTC),
            }
            connection.execute(self._insert(ingestions).values(values).on_conflict_do_nothing())
            connection.execute(
                delete(foreign_ingestions).where(
                    foreign_ingestions.c.table_id == table.id, foreign_ingestions.c.ingestion_id == ingestion_id
                )
            )

    def restore_generation(self, table: TableRecord, generation: int) -> TableRecord:
        """Raise the table's generation to this one at least."""
        with self._write() as connection:
            connection.execute(
                update(tables)
                .where(tables.c.id == table.id, tables.c.generation < generation)
                .values(generation=generation)
            )
            return table_record(connection.execute(select(tables).where(tables.c.id == table.id)).one())

    def restore_replaced(self, lease: Lease, table: TableRecord, replaced: Sequence[EarlierVersion]) -> None:
        """Note which versions are superseded."""
        if not replaced:
            return
        with self._write() as connection:
            self._assert_lease(connection, lease, table)
            supersede(connection, table.id, table.generation, replaced)

    def restore_batch(self, lease: Lease, table: TableRecord, restored: RestoredBatch) -> bool:
        """Record a batch of the past, with its files."""
        with self._write() as connection:
            self._assert_lease(connection, lease, table)
            if not self._restore_row(connection, lease, table, restored):
                return False
            if restored.generation == table.generation:
                self._restore_files(connection, lease, table, restored)
            _give_back(connection, restored)
            return True

    def _restore_row(self, connection: Connection, lease: Lease, table: TableRecord, restored: RestoredBatch) -> bool:
        batch = restored.batch
        this = (batches.c.ingestion_id == batch.ingestion_id) & (batches.c.number == batch.number)
        state = connection.execute(select(batches.c.state).where(this)).scalar_one_or_none()
        if state in _SETTLED or (state == "empty" and not restored.committed):
            return False
        now = datetime.now(UTC)
        told = {
            "generation": restored.generation,
            "state": "committed" if restored.committed else "empty",
            "epoch": batch.epoch,
            "kind": restored.kind.value,
            "files": len(restored.loaded) + len(restored.superseded),
            "rows": sum(f.rows for f in (*restored.loaded, *restored.superseded)),
            "snapshot_id": restored.snapshot_id,
            "closed_at": now,
        }
        if state is not None:
            connection.execute(update(batches).where(this).values(told))
            return True
        connection.execute(
            insert(batches).values(
                ingestion_id=batch.ingestion_id,
                number=batch.number,
                table_id=table.id,
                run_id=lease.run_id,
                definition=_definition(restored),
                created_at=now,
                **told,
            )
        )
        return True

    def _restore_files(self, connection: Connection, lease: Lease, table: TableRecord, restored: RestoredBatch) -> None:
        batch = restored.batch
        for loaded, superseded in ((restored.loaded, False), (restored.superseded, True)):
            if loaded:
                write_loaded(
                    self._insert(files),
                    connection,
                    table.id,
                    restored.generation,
                    batch,
                    lease.run_id,
                    loaded,
                    superseded=superseded,
                )
        now = datetime.now(UTC)
        rows = [
            {
                "table_id": table.id,
                "generation": restored.generation,
                "key": f.key,
                "version": f.version,
                "size_bytes": 0,
                "modified_at": TIME_NOT_KEPT,
                "ingestion_id": batch.ingestion_id,
                "batch_number": batch.number,
                "run_id": lease.run_id,
                **failure_values(f, 1, now),
            }
            for f in restored.failed
        ]
        if rows:
            insertion = self._insert(files)
            told = [n for n in rows[0] if n not in {*files.primary_key.columns.keys(), "size_bytes", "modified_at"}]
            connection.execute(
                insertion.on_conflict_do_update(
                    index_elements=["table_id", "generation", "key", "version"],
                    set_={name: insertion.excluded[name] for name in told},
                    # Not `in_`: of several rows at once the library takes no list of values.
                    where=or_(*(files.c.state == state for state in _NOT_SETTLED)),
                ),
                rows,
            )
        _supersede_failed(connection, table, restored)

    def restore_head(self, lease: Lease, table: TableRecord, head: RestoredHead) -> None:
        """Note where the table stands."""
        with self._write() as connection:
            self._assert_lease(connection, lease, table)
            connection.execute(
                update(tables)
                .where(tables.c.id == table.id)
                .values(
                    uuid=head.uuid,
                    snapshot_id=head.snapshot_id,
                    sequence_number=head.sequence_number,
                    committed_at=datetime.now(UTC),
                )
            )
            connection.execute(
                update(ingestions)
                .where(ingestions.c.id == lease.ingestion_id, ingestions.c.next_batch < head.next_batch)
                .values(next_batch=head.next_batch)
            )


def _definition(restored: RestoredBatch) -> str:
    """How a batch of the past was to be read, nobody knows; it is never loaded again."""
    return json.dumps({} if restored.provenance is None else {"provenance": restored.provenance})


def _supersede_failed(connection: Connection, table: TableRecord, restored: RestoredBatch) -> None:
    """A version that failed is no failure any more where another one of its file was loaded by this batch."""
    other = files.alias("other")
    is_loaded = exists().where(
        other.c.table_id == files.c.table_id,
        other.c.generation == files.c.generation,
        other.c.key == files.c.key,
        other.c.version != files.c.version,
        other.c.ingestion_id == restored.batch.ingestion_id,
        other.c.batch_number == restored.batch.number,
        other.c.state == FileState.SUCCESS.value,
    )
    connection.execute(
        update(files)
        .where(
            files.c.table_id == table.id,
            files.c.generation == restored.generation,
            files.c.state == FileState.FAILED.value,
            is_loaded,
        )
        .values(state=FileState.SUPERSEDED.value, retryable=False, next_try_at=None)
    )


def _give_back(connection: Connection, restored: RestoredBatch) -> None:
    """What an open batch had claimed and did not load is found again by the next listing."""
    connection.execute(
        update(files)
        .where(
            files.c.ingestion_id == restored.batch.ingestion_id,
            files.c.batch_number == restored.batch.number,
            files.c.state == FileState.PROCESSING.value,
        )
        .values(outcome(FileState.DISCOVERED, datetime.now(UTC)))
    )
