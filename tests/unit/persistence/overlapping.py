"""Two transactions that overlap for certain: the second begins before the first has committed, and waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Connection, event

from app.persistence.ledger import SqlLedger, open_ledger
from tests.support.postgres import Postgres
from tests.unit.persistence.desk import until

WAITING = (
    "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database() "
    "and pid <> pg_backend_pid()"
)
LONG_S = 60


def held_at_commit(ledger: SqlLedger) -> tuple[threading.Event, threading.Event]:
    """From now on whoever commits what it wrote says that it got there, and goes on when it may."""
    reached, may_go = threading.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        if not connection.get_execution_options().get("read_only"):
            reached.set()
            assert may_go.wait(LONG_S)

    event.listen(ledger._engine, "commit", hold)
    return reached, may_go


def overlapped(
    server: Postgres, url: str, first: Callable[[SqlLedger], object], second: Callable[[SqlLedger], object]
) -> tuple[object, object]:
    """What the two gave: `second` ran while everything that `first` does was done and not committed."""
    one, other = open_ledger(url), open_ledger(url)
    reached, may_go = held_at_commit(one)
    with ThreadPoolExecutor() as threads:
        try:
            before = threads.submit(first, one)
            assert reached.wait(LONG_S)
            behind = threads.submit(second, other)
            until(lambda: behind.done() or server.execute(WAITING, url) == [(1,)])
            assert not behind.done(), "it did not wait"
            may_go.set()
            return before.result(LONG_S), behind.result(LONG_S)
        finally:
            may_go.set()
            one.dispose()
            other.dispose()
