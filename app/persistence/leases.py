"""Leases: one run at a time for an ingestion, by the database's clock."""

from __future__ import annotations

import secrets
import socket
from datetime import UTC, datetime
from typing import Any

import psutil
from sqlalchemy import Connection, Row, select, update

from app.domain.errors import LeaseLostError
from app.domain.runs import Lease, LeaseHolder, Owner, RunStatus, TableRecord
from app.persistence.counters import count
from app.persistence.schema import leases, runs
from app.persistence.store import SqlStore
from app.persistence.telling import tell_run

# Start times of one process may differ by the rounding of clock ticks.
_SAME_PROCESS_S = 1.0
# Leases of earlier versions have the time of the clock, in seconds since 1970; no system runs as long as this.
_CLOCK_S = 1e9
# How much higher the next epoch is, at most; and how much where the database is behind the table.
_STEPS = 1 << 20
_FAR = 1 << 32


class SqlLeases(SqlStore):
    """Keeps the promises of `domain.ledger.Leases`."""

    def acquire(
        self, ingestion_id: str, run_id: str, owner: Owner, seconds: float, *, above_epoch: int = 0
    ) -> Lease | LeaseHolder:
        """Take the lease, or say who holds it."""
        with self._write() as connection:
            row = self._locked_row(connection, ingestion_id)
            # Not before the locks: waiting for them takes time.
            now_s = connection.execute(select(self._now_s())).scalar_one()
            at_work = holder(row, now_s)
            if at_work is not None and at_work.run_id != run_id:
                return at_work
            epoch = _next_epoch(row.epoch, above_epoch)
            connection.execute(
                update(leases)
                .where(leases.c.ingestion_id == ingestion_id)
                .values(
                    epoch=epoch,
                    run_id=run_id,
                    host=owner.host,
                    pid=owner.pid,
                    process_started_at=owner.process_started_at,
                    expires_at=now_s + seconds,
                )
            )
            _settle_dead_run(connection, row, run_id)
            return Lease(ingestion_id, run_id, epoch)

    def _locked_row(self, connection: Connection, ingestion_id: str) -> Row[Any]:
        """The lease's row, made when missing: of two that are first at once, one makes it and the other waits."""
        self._lock_table_of(connection, ingestion_id)
        nobody = {"epoch": 0, "host": "", "pid": 0, "process_started_at": 0.0, "expires_at": 0.0}
        statement = self._insert(leases).values(ingestion_id=ingestion_id, **nobody)
        connection.execute(statement.on_conflict_do_nothing(index_elements=["ingestion_id"]))
        return connection.execute(select(leases).where(leases.c.ingestion_id == ingestion_id).with_for_update()).one()

    def renew(self, lease: Lease, seconds: float) -> bool:
        """Extend the lease; False when another run has it."""
        with self._write() as connection:
            now_s = connection.execute(select(self._now_s())).scalar_one()
            changed = connection.execute(
                update(leases)
                .where(
                    leases.c.ingestion_id == lease.ingestion_id,
                    leases.c.epoch == lease.epoch,
                    leases.c.run_id == lease.run_id,
                )
                .values(expires_at=now_s + seconds)
            )
            return changed.rowcount == 1

    def is_alive(self, lease: Lease) -> bool:
        """Whether the lease is ours and has not run out."""
        with self._read() as connection:
            return holds(connection, lease, connection.execute(select(self._now_s())).scalar_one())

    def release(self, lease: Lease) -> None:
        """Give the lease back, if it is still ours."""
        with self._write() as connection:
            connection.execute(
                update(leases)
                .where(leases.c.ingestion_id == lease.ingestion_id, leases.c.epoch == lease.epoch)
                .values(run_id=None, expires_at=0.0)
            )


class LeasedStore(SqlStore):
    """What only the holder of a lease may write."""

    def _assert_lease(self, connection: Connection, lease: Lease, table: TableRecord) -> None:
        """Raise when the lease is not ours; else nobody takes it before the transaction has ended.

        Whoever takes a lease locks its table first. The lease itself is left unlocked, for it is renewed meanwhile.
        """
        self._lock_table(connection, table.id)
        if not holds(connection, lease, connection.execute(select(self._now_s())).scalar_one()):
            raise LeaseLostError


def _next_epoch(ours: int, above: int) -> int:
    """An epoch that no process has that works with another copy of this database: lost, or older than a backup of it.

    Two processes with the same epoch would take each other's manifests for their own. Where the table has seen a higher
    epoch than this database knows, others may be at work with one a little above that.
    """
    return max(ours, above + _FAR if above > ours else 0) + 1 + secrets.randbelow(_STEPS)


def holds(connection: Connection, lease: Lease, now_s: float) -> bool:
    """Whether the lease is alive, inside the caller's transaction."""
    row = connection.execute(select(leases).where(leases.c.ingestion_id == lease.ingestion_id)).first()
    return row is not None and bool(row.epoch == lease.epoch and row.run_id == lease.run_id and row.expires_at > now_s)


def holder(row: Row[Any], now_s: float) -> LeaseHolder | None:
    """Who holds the lease with a right to it: not run out, and not of a process known to be dead."""
    if row.run_id is None or row.expires_at <= now_s:
        return None
    owner = Owner(row.host, row.pid, row.process_started_at)
    return None if is_dead(owner) else LeaseHolder(row.run_id, owner, row.expires_at - now_s)


def is_dead(owner: Owner) -> bool:
    """Whether that process is known to be gone: it ran on this host, and no process has its id and start time now."""
    if owner.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(owner.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        is_of_clock = owner.process_started_at > _CLOCK_S
        started_at = process.create_time() if is_of_clock else _started_s(process)
        return abs(started_at - owner.process_started_at) > _SAME_PROCESS_S
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def this_process() -> Owner:
    """The owner that this process is."""
    process = psutil.Process()
    return Owner(socket.gethostname(), process.pid, _started_s(process))


def _started_s(process: psutil.Process) -> float:
    """How long after the system itself it was started, in seconds: when the clock is set that stays what it was."""
    return process.create_time() - psutil.boot_time()


def _settle_dead_run(connection: Connection, row: Row[Any], run_id: str) -> None:
    if row.run_id in (None, run_id):
        return
    now = datetime.now(UTC)
    settled = connection.execute(
        update(runs)
        .where(runs.c.id == row.run_id, runs.c.status == RunStatus.RUNNING.value)
        .values(
            status=RunStatus.FAILED.value,
            error=f"Its process ended before the run did; run {run_id} took over.",
            ended_at=now,
            progress=None,
        )
    )
    if settled.rowcount:
        # Only here: a load of the command line, which leases too, has no webhooks to import.
        from app.persistence.telling_webhooks import tell_webhooks  # noqa: PLC0415

        count(connection, {("deaths", ""): 1, ("runs_ended", RunStatus.FAILED.value): 1})
        tell_webhooks(connection, row.run_id, now)
        tell_run(connection, row.run_id)
