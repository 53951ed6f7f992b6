"""Claims and how they ended: a batch is durable before anything of it is read, and closed with its files at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from operator import attrgetter, lt
from typing import Any, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    bindparam,
    exists,
    func,
    insert,
    literal_column,
    select,
    update,
)

from app.domain.batch import BatchKind, BatchRef
from app.domain.definition import Definition, OnFileChange
from app.domain.errors import FileFailure
from app.domain.files import FileState, LoadedFile, SourceFile
from app.domain.ledger import Closing, OpenBatch
from app.domain.rebuilding import RestoredFile
from app.domain.runs import Lease, RunStatus, TableRecord
from app.persistence.counters import count, of_batch
from app.persistence.earlier import find_earlier, from_text, supersede, to_text
from app.persistence.leases import LeasedStore
from app.persistence.schema import batches, files, ingestions, runs, tables, to_microseconds
from app.persistence.store import as_stored, storable

# Of files whose time of modification nobody kept.
TIME_NOT_KEPT = datetime(1970, 1, 1, tzinfo=UTC)
# A failed file is tried again by the next run at once, then after a minute, four minutes and so on.
_FIRST_DELAY_S = 60
_LONGEST_DELAY_S = 24 * 60 * 60
_MOST_DOUBLINGS = 12
_CLAIMABLE = (
    FileState.SUPERSEDED,
    FileState.DISCOVERED,
    FileState.FAILED,
    FileState.CHANGED,
    FileState.SKIPPED,
)
# These two are run for each file of a batch. They are given to the driver as they stand, with values in the form in
# which they are stored: what SQLAlchemy does for each row costs several times what the database does.
_CLAIM = f"""
insert into files (table_id, generation, ingestion_id, batch_number, run_id, updated_at, key, version, size_bytes,
    modified_at, state, retryable, tries)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '{FileState.PROCESSING}', false, 0)
on conflict (table_id, generation, key, version) do update set
    state = excluded.state, ingestion_id = excluded.ingestion_id, batch_number = excluded.batch_number,
    run_id = excluded.run_id, updated_at = excluded.updated_at,
    -- A row that a rebuild made does not know size and time, by which the file is read.
    size_bytes = excluded.size_bytes, modified_at = excluded.modified_at,
    -- What failed in an earlier attempt of this very run counts one try with what comes of it now.
    tries = files.tries - case
        when files.run_id = excluded.run_id and files.state = '{FileState.FAILED}' and files.tries > 0
            and exists (select 1 from runs where runs.id = excluded.run_id and runs.attempts > 1)
        then 1 else 0 end
where files.state in ({", ".join(f"'{state}'" for state in _CLAIMABLE)})
"""  # noqa: S608 - nothing in it comes from outside
# By the primary key and nothing else: asked for the batch as well, a database may take the index of files at work and
# go through the whole batch for each of its files.
_LOADED = f"""
update files set state = '{FileState.SUCCESS}', updated_at = ?, rows = ?, category = null, message = null, line = null,
    "offset" = null, next_try_at = null, retryable = false
where table_id = ? and generation = ? and key = ? and version = ?
"""  # noqa: S608 - nothing in it comes from outside

# Key and version of a file → how often it was tried.
_Tries: TypeAlias = dict[tuple[str, str], int]


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
            claimed = self._claim_files(connection, lease, table, definition.on_file_change, number, files)
            if not claimed:
                return None
            changes = definition.on_file_change is not OnFileChange.IGNORE
            earlier = find_earlier(connection, lease.ingestion_id, number) if changes else ()
            replaces = earlier and definition.on_file_change is OnFileChange.REPLACE
            kind = BatchKind.REPLACE if replaces else BatchKind.LOAD
            connection.execute(
                update(ingestions).where(ingestions.c.id == lease.ingestion_id).values(next_batch=number + 1)
            )
            connection.execute(
                insert(batches).values(
                    ingestion_id=lease.ingestion_id,
                    number=number,
                    table_id=table.id,
                    generation=table.generation,
                    kind=kind.value,
                    state="open",
                    epoch=lease.epoch,
                    run_id=lease.run_id,
                    definition=definition.to_json(),
                    earlier=to_text(earlier),
                    created_at=datetime.now(UTC),
                )
            )
            return OpenBatch(batch, table.generation, kind, definition, claimed, earlier)

    def _claim_files(  # noqa: PLR0917 - each is needed once
        self,
        connection: Connection,
        lease: Lease,
        table: TableRecord,
        on_file_change: OnFileChange,
        number: int,
        found: Sequence[SourceFile],
    ) -> tuple[SourceFile, ...]:
        now = to_microseconds(datetime.now(UTC))
        fixed = (table.id, table.generation, lease.ingestion_id, number, lease.run_id, now)
        rows = [
            (*fixed, key, version, f.size_bytes, to_microseconds(f.modified_at))
            for f, key, version in zip(found, *self._stored_names(found), strict=True)
        ]
        in_order = tuple(sorted(found, key=attrgetter("key")))
        untouched = _is_untouched(connection, table, in_order)
        self._run_many(connection, _CLAIM, rows)
        if untouched:
            return in_order
        if _has_other_versions(connection, lease.ingestion_id, number):
            _give_back_other_versions(connection, lease.ingestion_id, number, on_file_change)
            _supersede_older_versions(connection, table, lease.ingestion_id, number)
        elif _count_claimed(connection, lease.ingestion_id, number) == len(found):
            # The number is new, so that nothing but these files can have it.
            return in_order
        return _claimed(connection, lease.ingestion_id, number)

    def open_batches(self, lease: Lease, table: TableRecord) -> list[OpenBatch]:
        """The ingestion's open batches, oldest first, under the lease's epoch from now on."""
        with self._write() as connection:
            self._assert_lease(connection, lease, table)
            mine = (batches.c.ingestion_id == lease.ingestion_id) & (batches.c.state == "open")
            rows = connection.execute(
                select(batches, runs.c.status.label("run_status"))
                .outerjoin(runs, runs.c.id == batches.c.run_id)
                .where(mine, batches.c.table_id == table.id)
                .order_by(batches.c.number)
            ).all()
            connection.execute(update(batches).where(mine).values(epoch=lease.epoch))
            return [
                OpenBatch(
                    BatchRef(row.ingestion_id, row.number, lease.epoch),
                    row.generation,
                    BatchKind(row.kind),
                    Definition.from_json(row.definition),
                    _claimed(connection, row.ingestion_id, row.number),
                    from_text(row.earlier),
                    cancelled=row.run_status == RunStatus.CANCELLED,
                )
                for row in rows
            ]

    def orphaned_ingestions(self, table: TableRecord) -> list[str]:
        """Those that were deleted and left batches open."""
        gone = ingestions.c.deleted_at.is_not(None)
        # As it stands in the index, which has the open ones alone.
        is_open = batches.c.state == literal_column("'open'")
        with self._read() as connection:
            statement = (
                select(batches.c.ingestion_id)
                .distinct()
                .join(ingestions, ingestions.c.id == batches.c.ingestion_id)
                .where(batches.c.table_id == table.id, is_open, gone)
                .order_by(batches.c.ingestion_id)
            )
            return list(connection.execute(statement).scalars())

    def close(self, lease: Lease, table: TableRecord, closing: Closing) -> None:
        """Record how a batch ended, with its files and the table's head."""
        with self._write("close_committed") as connection:
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
                    # It is for reloads; what came of those versions stands with the files.
                    earlier=None,
                )
            )
            tries = self._tries(connection, closing.batch)
            strangers = _strangers(closing, tries)
            if strangers:
                write_loaded(
                    self._insert(files), connection, table.id, generation, closing.batch, lease.run_id, strangers
                )
            supersede(connection, table.id, generation, closing.replaced)
            self._record_loaded(
                connection, table, generation, [f for f in closing.loaded if (f.key, f.version) in tries]
            )
            _record_failed(connection, table, generation, closing.failed, tries)
            # What the batch neither loaded nor failed is found again by the next listing.
            connection.execute(update(files).where(_at_work(closing.batch)).values(outcome(FileState.DISCOVERED, now)))
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
            count(connection, of_batch(closing.loaded, len(closing.failed)))

    def _tries(self, connection: Connection, batch: BatchRef) -> _Tries:
        """The files that the batch has at work, and how often each was tried before."""
        names = (as_stored(self._engine, files.c.key), as_stored(self._engine, files.c.version))
        rows = connection.execute(select(*names, files.c.tries).where(_at_work(batch)))
        return {(key, version): tries for key, version, tries in rows}

    def _record_loaded(
        self, connection: Connection, table: TableRecord, generation: int, loaded: Sequence[LoadedFile]
    ) -> None:
        now = to_microseconds(datetime.now(UTC))
        rows = [
            (now, f.rows, table.id, generation, key, version)
            for f, key, version in zip(loaded, *self._stored_names(loaded), strict=True)
        ]
        self._run_many(connection, _LOADED, rows)


def _is_untouched(connection: Connection, table: TableRecord, in_order: Sequence[SourceFile]) -> bool:
    """Whether the ledger knows no key from the first of the files to the last, and each is named once.

    Then a claim gets all of them, and nothing has to be looked for: so it is in a first load, batch by batch.
    """
    keys = [file.key for file in in_order]
    if not keys or not all(map(lt, keys, islice(keys, 1, None))):
        return False
    found = connection.execute(
        select(literal_column("1", Integer))
        .where(
            files.c.table_id == table.id,
            files.c.generation == table.generation,
            # PostgreSQL does not read BETWEEN beside the collation of a key.
            files.c.key >= keys[0],
            files.c.key <= keys[-1],
        )
        .limit(1)
    )
    return found.first() is None


def _has_other_versions(connection: Connection, ingestion_id: str, number: int) -> bool:
    """Whether the ledger knows another version of a file that the batch has claimed: of most new files it does not."""
    mine, other = files.alias("mine"), files.alias("other")
    same_file = (
        (other.c.table_id == mine.c.table_id)
        & (other.c.generation == mine.c.generation)
        & (other.c.key == mine.c.key)
        & (other.c.version != mine.c.version)
    )
    found = connection.execute(
        select(literal_column("1", Integer))
        .select_from(mine)
        .where(
            mine.c.ingestion_id == ingestion_id,
            mine.c.batch_number == number,
            mine.c.state == FileState.PROCESSING.value,
            exists().where(same_file),
        )
        .limit(1)
    )
    return found.first() is not None


def _count_claimed(connection: Connection, ingestion_id: str, number: int) -> int:
    found = connection.execute(
        select(func.count()).select_from(files).where(_at_work(BatchRef(ingestion_id, number, 0)))
    )
    return int(found.scalar_one())


def _give_back_other_versions(
    connection: Connection, ingestion_id: str, number: int, on_file_change: OnFileChange
) -> None:
    """Leave alone what another ingestion took in another version since the listing.

    One that it has loaded stands in the way only while new versions are ignored.
    """
    other = files.alias("other")
    states = [FileState.PROCESSING.value]
    if on_file_change is OnFileChange.IGNORE:
        states.append(FileState.SUCCESS.value)
    taken = exists().where(
        other.c.table_id == files.c.table_id,
        other.c.generation == files.c.generation,
        other.c.key == files.c.key,
        other.c.version != files.c.version,
        other.c.state.in_(states),
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


def _supersede_older_versions(connection: Connection, table: TableRecord, ingestion_id: str, number: int) -> None:
    """A version that failed, or was noted as changed, is so no more when a newer one of its file is taken."""
    newer = files.alias("newer")
    # Asked for by key, and not whether there is a newer one: that would be asked of every file of the table.
    taken = select(newer.c.key).where(
        newer.c.ingestion_id == ingestion_id,
        newer.c.batch_number == number,
        newer.c.state == FileState.PROCESSING.value,
    )
    connection.execute(
        update(files)
        .where(
            files.c.table_id == table.id,
            files.c.generation == table.generation,
            files.c.state.in_([FileState.FAILED.value, FileState.CHANGED.value]),
            files.c.key.in_(taken),
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


def _at_work(batch: BatchRef) -> ColumnElement[bool]:
    """The files that the batch has claimed and that nothing came of yet."""
    return (
        (files.c.ingestion_id == batch.ingestion_id)
        & (files.c.batch_number == batch.number)
        & (files.c.state == FileState.PROCESSING.value)
    )


def _record_failed(
    connection: Connection, table: TableRecord, generation: int, failed: Sequence[FileFailure], tries: _Tries
) -> None:
    now = datetime.now(UTC)
    outcomes = [
        {"the_key": f.key, "the_version": f.version, **failure_values(f, tries[f.key, f.version] + 1, now)}
        for f in failed
        if (f.key, f.version) in tries
    ]
    if not outcomes:
        return
    columns = outcomes[0].keys() - {"the_key", "the_version"}
    connection.execute(
        # By the primary key and nothing else, as `_LOADED`.
        update(files)
        .where(
            files.c.table_id == table.id,
            files.c.generation == generation,
            files.c.key == bindparam("the_key"),
            files.c.version == bindparam("the_version"),
        )
        .values({name: bindparam(f"new_{name}") for name in columns}),
        [{name if name.startswith("the_") else f"new_{name}": v for name, v in o.items()} for o in outcomes],
    )


def _strangers(closing: Closing, tries: _Tries) -> list[RestoredFile]:
    """Files that the batch loaded without our claim: another installation committed under the same number."""
    return [
        RestoredFile(f.key, f.version, f.rows, f.size_bytes) for f in closing.loaded if (f.key, f.version) not in tries
    ]


def write_loaded(  # noqa: PLR0917 - a statement and its values
    insertion: Any,  # noqa: ANN401 - the two dialects' inserts share no type with `on_conflict`
    connection: Connection,
    table_id: int,
    generation: int,
    batch: BatchRef,
    run_id: str,
    loaded: Sequence[RestoredFile],
    *,
    superseded: bool = False,
) -> None:
    """Record files as loaded by a batch, seen before or not; one that was loaded stays as it is.

    With `superseded` their rows are in the table no more: then one that another batch has stays as it is.
    """
    others = files.c.state != FileState.SUCCESS.value
    if superseded:
        others = (files.c.ingestion_id == batch.ingestion_id) & (files.c.batch_number == batch.number)
    now = datetime.now(UTC)
    fixed = {
        "table_id": table_id,
        "generation": generation,
        "ingestion_id": batch.ingestion_id,
        "batch_number": batch.number,
        "run_id": run_id,
        "tries": 0,
        **outcome(FileState.SUPERSEDED if superseded else FileState.SUCCESS, now),
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
            where=others,
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
    # The first retry is at once. On demand a file may be tried any number of times.
    grown_s = _FIRST_DELAY_S * 2 ** min(2 * (tries - 2), _MOST_DOUBLINGS) if tries >= 2 else 0  # noqa: PLR2004
    delay_s = min(grown_s, _LONGEST_DELAY_S)
    return outcome(FileState.FAILED, now) | {
        "category": failure.category.value,
        "message": storable(failure.message),
        "line": failure.line,
        "offset": failure.offset,
        "retryable": failure.retryable,
        "tries": tries,
        "next_try_at": now + timedelta(seconds=delay_s),
    }
