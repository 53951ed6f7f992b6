"""Claims and how they ended: a batch is durable before anything of it is read, and closed with its files at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, exists, insert, or_, select, update

from app.domain.batch import BatchKind, BatchRef
from app.domain.definition import Definition
from app.domain.errors import FileFailure
from app.domain.files import FileState, SourceFile
from app.domain.ledger import Closing, OpenBatch
from app.domain.rebuilding import RestoredFile
from app.domain.runs import Lease, TableRecord
from app.persistence.leases import LeasedStore
from app.persistence.schema import batches, files, ingestions, tables
from app.persistence.store import storable

# Of files whose time of modification nobody kept.
TIME_NOT_KEPT = datetime(1970, 1, 1, tzinfo=UTC)
# A failed file is tried again by the next run at once, then after a minute, four minutes and so on.
_FIRST_DELAY_S = 60
_CLAIMABLE = (
    FileState.SUPERSEDED.value,
    FileState.DISCOVERED.value,
    FileState.FAILED.value,
    FileState.CHANGED.value,
    FileState.SKIPPED.value,
)


class SqlBatches(LeasedStore):
    """Keeps the promises of `domain.ledger.Batches`."""

    def claim(
        self, lease: Lease, table: TableRecord, definition: Definition, files: Sequence[SourceFile]
    ) -> OpenBatch | None:
        """Make the next batch durable, with those of `files` that are still to be had."""
        with self._write() as connection:
            self._assert_lease(connection, lease, table)
            number = connection.execute(
                select(ingestions.c.next_batch).where(ingestions.c.id == lease.ingestion_id)
            ).scalar_one()
            batch = BatchRef(lease.ingestion_id, number, lease.epoch)
            claimed = self._claim_files(connection, lease, table, number, files)
            if not claimed:
                return None
            connection.execute(
                update(ingestions).where(ingestions.c.id == lease.ingestion_id).values(next_batch=number + 1)
            )
            connection.execute(
                insert(batches).values(
                    ingestion_id=lease.ingestion_id,
                    number=number,
                    table_id=table.id,
                    generation=table.generation,
                    kind=BatchKind.LOAD.value,
                    state="open",
                    epoch=lease.epoch,
                    run_id=lease.run_id,
                    definition=definition.to_json(),
                    created_at=datetime.now(UTC),
                )
            )
            return OpenBatch(batch, table.generation, BatchKind.LOAD, definition, claimed)

    def _claim_files(
        self, connection: Connection, lease: Lease, table: TableRecord, number: int, found: Sequence[SourceFile]
    ) -> tuple[SourceFile, ...]:
        now = datetime.now(UTC)
        claim = {
            "state": FileState.PROCESSING.value,
            "ingestion_id": lease.ingestion_id,
            "batch_number": number,
            "run_id": lease.run_id,
            "updated_at": now,
        }
        fixed = {"table_id": table.id, "generation": table.generation, "retryable": False, "tries": 0, **claim}
        rows = [
            {**fixed, "key": f.key, "version": f.version, "size_bytes": f.size_bytes, "modified_at": f.modified_at}
            for f in found
        ]
        statement = self._insert(files)
        statement = statement.on_conflict_do_update(
            index_elements=["table_id", "generation", "key", "version"],
            set_={name: statement.excluded[name] for name in claim},
            where=or_(*(files.c.state == state for state in _CLAIMABLE)),
        )
        connection.execute(statement, rows)
        _give_back_other_versions(connection, lease.ingestion_id, number)
        _supersede_failed_versions(connection, table, lease.ingestion_id, number)
        return _claimed(connection, lease.ingestion_id, number)

    def open_batches(self, lease: Lease, table: TableRecord) -> list[OpenBatch]:
        """The ingestion's open batches, oldest first, under the lease's epoch from now on."""
        with self._write() as connection:
            self._assert_lease(connection, lease, table)
            mine = (batches.c.ingestion_id == lease.ingestion_id) & (batches.c.state == "open")
            rows = connection.execute(
                select(batches).where(mine, batches.c.table_id == table.id).order_by(batches.c.number)
            ).all()
            connection.execute(update(batches).where(mine).values(epoch=lease.epoch))
            return [
                OpenBatch(
                    BatchRef(row.ingestion_id, row.number, lease.epoch),
                    row.generation,
                    BatchKind(row.kind),
                    Definition.from_json(row.definition),
                    _claimed(connection, row.ingestion_id, row.number),
                )
                for row in rows
            ]

    def close(self, lease: Lease, table: TableRecord, closing: Closing) -> None:
        """Record how a batch ended, with its files and the table's head."""
        with self._write() as connection:
            self._assert_lease(connection, lease, table)
            now = datetime.now(UTC)
            this = (batches.c.ingestion_id == closing.batch.ingestion_id) & (batches.c.number == closing.batch.number)
            generation = connection.execute(
                select(batches.c.generation).where(this, batches.c.state == "open")
            ).scalar_one_or_none()
            if generation is None:
                return
            connection.execute(
                update(batches)
                .where(this)
                .values(
                    state="committed" if closing.committed else "empty",
                    files=len(closing.loaded),
                    rows=sum(f.rows for f in closing.loaded),
                    snapshot_id=closing.snapshot_id,
                    closed_at=now,
                )
            )
            strangers = _strangers(connection, closing)
            if strangers:
                write_loaded(
                    self._insert(files), connection, table.id, generation, closing.batch, lease.run_id, strangers
                )
            _record_files(connection, table, generation, closing, now)
            if closing.committed:
                connection.execute(
                    update(tables)
                    .where(tables.c.id == table.id)
                    .values(
                        uuid=closing.table_uuid,
                        snapshot_id=closing.snapshot_id,
                        sequence_number=closing.sequence_number,
                        committed_at=now,
                    )
                )


def _give_back_other_versions(connection: Connection, ingestion_id: str, number: int) -> None:
    """Leave alone what another ingestion took in another version since the listing: a file is loaded once."""
    other = files.alias("other")
    taken = exists().where(
        other.c.table_id == files.c.table_id,
        other.c.generation == files.c.generation,
        other.c.key == files.c.key,
        other.c.version != files.c.version,
        or_(other.c.state == FileState.SUCCESS.value, other.c.state == FileState.PROCESSING.value),
    )
    connection.execute(
        update(files)
        .where(
            files.c.ingestion_id == ingestion_id,
            files.c.batch_number == number,
            files.c.state == FileState.PROCESSING.value,
            taken,
        )
        .values(state=FileState.DISCOVERED.value, ingestion_id=None, batch_number=None)
    )


def _supersede_failed_versions(connection: Connection, table: TableRecord, ingestion_id: str, number: int) -> None:
    """A version that failed is no failure any more when a newer one of its file is taken."""
    newer = files.alias("newer")
    is_taken = exists().where(
        newer.c.table_id == files.c.table_id,
        newer.c.generation == files.c.generation,
        newer.c.key == files.c.key,
        newer.c.version != files.c.version,
        newer.c.ingestion_id == ingestion_id,
        newer.c.batch_number == number,
        newer.c.state == FileState.PROCESSING.value,
    )
    connection.execute(
        update(files)
        .where(
            files.c.table_id == table.id,
            files.c.generation == table.generation,
            files.c.state == FileState.FAILED.value,
            is_taken,
        )
        .values(state=FileState.SUPERSEDED.value, retryable=False, next_try_at=None)
    )


def _claimed(connection: Connection, ingestion_id: str, number: int) -> tuple[SourceFile, ...]:
    rows = connection.execute(
        select(files.c.key, files.c.version, files.c.size_bytes, files.c.modified_at)
        .where(
            files.c.ingestion_id == ingestion_id,
            files.c.batch_number == number,
            files.c.state == FileState.PROCESSING.value,
        )
        .order_by(files.c.key)
    )
    return tuple(SourceFile(row.key, row.version, row.size_bytes, row.modified_at) for row in rows)


def _record_files(connection: Connection, table: TableRecord, generation: int, closing: Closing, now: datetime) -> None:
    mine = (
        (files.c.ingestion_id == closing.batch.ingestion_id)
        & (files.c.batch_number == closing.batch.number)
        & (files.c.state == FileState.PROCESSING.value)
    )
    claimed = connection.execute(select(files.c.key, files.c.version, files.c.tries).where(mine))
    tries = {(row.key, row.version): row.tries for row in claimed}
    # By the primary key and nothing else: asked for `mine` as well, a database may take the index of files at work and
    # go through the whole batch for each of its files.
    one = (
        (files.c.table_id == table.id)
        & (files.c.generation == generation)
        & (files.c.key == bindparam("the_key"))
        & (files.c.version == bindparam("the_version"))
    )
    loaded = [f for f in closing.loaded if (f.key, f.version) in tries]
    if loaded:
        connection.execute(
            update(files).where(one).values(outcome(FileState.SUCCESS, now) | {"rows": bindparam("the_rows")}),
            [{"the_key": f.key, "the_version": f.version, "the_rows": f.rows} for f in loaded],
        )
    outcomes = [
        {"the_key": f.key, "the_version": f.version, **failure_values(f, tries[f.key, f.version] + 1, now)}
        for f in closing.failed
        if (f.key, f.version) in tries
    ]
    if outcomes:
        columns = outcomes[0].keys() - {"the_key", "the_version"}
        connection.execute(
            update(files).where(one).values({name: bindparam(f"new_{name}") for name in columns}),
            [{name if name.startswith("the_") else f"new_{name}": v for name, v in o.items()} for o in outcomes],
        )
    # What the batch neither loaded nor failed is found again by the next listing.
    connection.execute(update(files).where(mine).values(outcome(FileState.DISCOVERED, now)))


def _strangers(connection: Connection, closing: Closing) -> list[RestoredFile]:
    """Files that the batch loaded without our claim: another installation committed under the same number."""
    claimed = {
        (row.key, row.version)
        for row in connection.execute(
            select(files.c.key, files.c.version).where(
                files.c.ingestion_id == closing.batch.ingestion_id,
                files.c.batch_number == closing.batch.number,
                files.c.state == FileState.PROCESSING.value,
            )
        )
    }
    return [
        RestoredFile(f.key, f.version, f.rows, f.size_bytes)
        for f in closing.loaded
        if (f.key, f.version) not in claimed
    ]


def write_loaded(  # noqa: PLR0917 - a statement and its values
    insertion: Any,  # noqa: ANN401 - the two dialects' inserts share no type with `on_conflict`
    connection: Connection,
    table_id: int,
    generation: int,
    batch: BatchRef,
    run_id: str,
    loaded: Sequence[RestoredFile],
) -> None:
    """Record files as loaded by a batch, seen before or not; one that was loaded stays as it is."""
    now = datetime.now(UTC)
    fixed = {
        "table_id": table_id,
        "generation": generation,
        "ingestion_id": batch.ingestion_id,
        "batch_number": batch.number,
        "run_id": run_id,
        "tries": 0,
        **outcome(FileState.SUCCESS, now),
    }
    rows = [
        {
            **fixed,
            "key": f.key,
            "version": f.version,
            "size_bytes": f.size_bytes,
            "modified_at": f.modified_at or TIME_NOT_KEPT,
            "rows": f.rows,
        }
        for f in loaded
    ]
    told = [
        name
        for name in rows[0]
        if name not in {*files.primary_key.columns.keys(), "size_bytes", "modified_at", "tries"}
    ]
    connection.execute(
        insertion.on_conflict_do_update(
            index_elements=["table_id", "generation", "key", "version"],
            set_={name: insertion.excluded[name] for name in told},
            where=files.c.state != FileState.SUCCESS.value,
        ),
        rows,
    )


def outcome(state: FileState, now: datetime) -> dict[str, Any]:
    """The columns of a file that has come to this state, with no failure."""
    return {
        "state": state.value,
        "updated_at": now,
        "category": None,
        "message": None,
        "line": None,
        "offset": None,
        "next_try_at": None,
        "retryable": False,
    }


def failure_values(failure: FileFailure, tries: int, now: datetime) -> dict[str, Any]:
    """The columns of a file that failed for the `tries`-th time."""
    delay_s = 0 if tries < 2 else _FIRST_DELAY_S * 4 ** (tries - 2)  # noqa: PLR2004 - the first retry is at once
    return outcome(FileState.FAILED, now) | {
        "category": failure.category.value,
        "message": storable(failure.message),
        "line": failure.line,
        "offset": failure.offset,
        "retryable": failure.retryable,
        "tries": tries,
        "next_try_at": now + timedelta(seconds=delay_s),
    }
