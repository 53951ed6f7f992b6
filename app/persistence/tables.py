"""The tables that have a ledger, and the ingestions that load them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import Connection, ScalarSelect, Select, func, select, update

from app.domain.errors import RunInProgressError
from app.domain.files import FileState
from app.domain.runs import TableRecord
from app.domain.sweeping import BatchRecord
from app.persistence.leases import holder
from app.persistence.schema import batches, files, ingestions, leases, tables
from app.persistence.store import SqlStore, table_record


class SqlTables(SqlStore):
    """Keeps the promises of `domain.ledger.Tables`."""

    def table(self, name: str) -> TableRecord | None:
        """The record of the table of that full name."""
        with self._read() as connection:
            return _find(connection, name)

    def ensure_table(self, name: str) -> TableRecord:
        """The record, made when missing. Where it is there, nobody is kept from writing."""
        known = self.table(name)
        if known is not None:
            return known
        with self._write() as connection:
            connection.execute(
                self._insert(tables)
                .values(name=name, generation=1, sequence_number=0, created_at=datetime.now(UTC))
                .on_conflict_do_nothing(index_elements=["name"])
            )
            made = _find(connection, name)
            assert made is not None  # noqa: S101 - by us or by another: whoever comes second waits for the first
            return made

    def load_ingestion(self, table: TableRecord) -> str | None:
        """The id under which the command line loads the table."""
        with self._read() as connection:
            return _load_ingestion(connection, table)

    def ensure_load_ingestion(self, table: TableRecord, ingestion_id: str) -> str:
        """The id under which the command line loads the table, `ingestion_id` when there was none."""
        known = self.load_ingestion(table)
        if known is not None:
            return known
        with self._write() as connection:
            connection.execute(
                self._insert(ingestions)
                .values(
                    id=ingestion_id,
                    table_id=table.id,
                    kind="load",
                    next_batch=1,
                    created_at=datetime.now(UTC),
                    tenant=_tenant_of(table),
                )
                .on_conflict_do_nothing()
            )
            # It may be here already, because it was adopted before.
            connection.execute(
                update(ingestions)
                .where(
                    ingestions.c.id == ingestion_id,
                    ingestions.c.table_id == table.id,
                    # Never one of the service's.
                    ingestions.c.kind == "adopted",
                    _load_ingestion_of(table).scalar_subquery().is_(None),
                )
                .values(kind="load", tenant=_tenant_of(table))
            )
            made = _load_ingestion(connection, table)
            assert made is not None  # noqa: S101 - by us or by another
            return made

    def committed_batches(self, table: TableRecord) -> dict[str, int]:
        """Ingestion id → the highest number of a batch that may be in the table."""
        statement = (
            select(ingestions.c.id, func.coalesce(func.max(batches.c.number), 0))
            .outerjoin(batches, (batches.c.ingestion_id == ingestions.c.id) & (batches.c.state != "empty"))
            .where(ingestions.c.table_id == table.id)
            .group_by(ingestions.c.id)
        )
        with self._read() as connection:
            return {row[0]: row[1] for row in connection.execute(statement)}

    def count_open_batches(self, table: TableRecord) -> int:
        """How many batches of the table were claimed and not closed."""
        statement = select(func.count()).select_from(batches)
        with self._read() as connection:
            return connection.execute(
                statement.where(batches.c.table_id == table.id, batches.c.state == "open")
            ).scalar_one()

    def batch_records(self, table: TableRecord) -> list[BatchRecord]:
        """Every batch of the table."""
        statement = select(batches.c.ingestion_id, batches.c.number, batches.c.generation, batches.c.state)
        with self._read() as connection:
            rows = connection.execute(statement.where(batches.c.table_id == table.id))
            return [
                BatchRecord(row.ingestion_id, row.number, row.generation, row.state == "open", row.state == "empty")
                for row in rows
            ]

    def clear(self, table: TableRecord, *, fenced: Mapping[str, int] | None = None) -> tuple[int, int]:
        """Begin a new generation and forget which table it was."""
        with self._write() as connection:
            self._lock_table(connection, table.id)
            self._refuse_while_at_work(connection, table)
            if fenced is not None:
                _refuse_unfenced(connection, table, fenced)
            generation = connection.execute(select(tables.c.generation).where(tables.c.id == table.id)).scalar_one()
            loaded = connection.execute(
                select(func.count())
                .select_from(files)
                .where(
                    files.c.table_id == table.id,
                    files.c.generation == generation,
                    files.c.state == FileState.SUCCESS.value,
                )
            ).scalar_one()
            connection.execute(
                update(tables)
                .where(tables.c.id == table.id)
                .values(generation=generation + 1, uuid=None, snapshot_id=None, sequence_number=0)
            )
            # Batches still open belong to the generation that ends here: whether they are in the table or not,
            # nothing of this generation counts any more.
            connection.execute(
                update(batches)
                .where(batches.c.table_id == table.id, batches.c.state == "open")
                .values(state="cleared", closed_at=datetime.now(UTC))
            )
            # A run that slept through its lease must not wake up, renew it and commit what was just forgotten.
            connection.execute(
                update(leases)
                .where(leases.c.ingestion_id.in_(select(ingestions.c.id).where(ingestions.c.table_id == table.id)))
                .values(epoch=leases.c.epoch + 1, run_id=None, expires_at=0.0)
            )
            return loaded, generation + 1

    def _refuse_while_at_work(self, connection: Connection, table: TableRecord) -> None:
        rows = connection.execute(
            select(leases)
            .join(ingestions, ingestions.c.id == leases.c.ingestion_id)
            .where(ingestions.c.table_id == table.id)
            # A run that stood still may renew a lease that has run out, until it is forgotten here.
            .with_for_update(of=leases)
        ).all()
        now_s = connection.execute(select(self._now_s())).scalar_one()
        for row in rows:
            at_work = holder(row, now_s)
            if at_work is not None:
                raise RunInProgressError(f"Run {at_work.run_id} is at work on {table.name}.", run_id=at_work.run_id)


def _refuse_unfenced(connection: Connection, table: TableRecord, fenced: Mapping[str, int]) -> None:
    """A run that came after the fence and fell asleep could still commit."""
    rows = connection.execute(
        select(batches.c.ingestion_id, leases.c.epoch)
        .outerjoin(leases, leases.c.ingestion_id == batches.c.ingestion_id)
        .where(batches.c.table_id == table.id, batches.c.state == "open")
        .distinct()
    )
    if any(fenced.get(row.ingestion_id) != row.epoch for row in rows):
        raise RunInProgressError(f"A run began to load into {table.name} meanwhile.", remedy="Try again.")


def _find(connection: Connection, name: str) -> TableRecord | None:
    row = connection.execute(select(tables).where(tables.c.name == name)).first()
    return None if row is None else table_record(row)


def _load_ingestion(connection: Connection, table: TableRecord) -> str | None:
    return connection.execute(_load_ingestion_of(table)).scalar_one_or_none()


def _load_ingestion_of(table: TableRecord) -> Select[tuple[str]]:
    return select(ingestions.c.id).where(ingestions.c.table_id == table.id, ingestions.c.kind == "load")


def _tenant_of(table: TableRecord) -> ScalarSelect[str]:
    """Whoever the table belongs to sees what the command line did to it."""
    return select(tables.c.tenant).where(tables.c.id == table.id).scalar_subquery()
