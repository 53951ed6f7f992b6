"""`python -m app.prefect.server server start …`: a Prefect server whose SQLite database is written in turn.

Prefect 3.8 begins most transactions without the lock for writing, reads, and then writes: where somebody else wrote
in between, SQLite refuses, and the request is answered 503. Others wait for the lock in threads, for a minute at most.
When the garbage collector meets a cursor of such a connection, it waits for the thread, and with it the event loop that
the lock's holder needs to go on: nothing is answered until the minute is over. One process writes this database, so
that its transactions can wait for each other before they begin, in their order, where nothing is held meanwhile.

Some of Prefect's services, such as the one that keeps events, write without a transaction, each statement by itself.
Those statements take turns with the transactions too, or they would be what wrote in between.
"""

from __future__ import annotations

import asyncio
import runpy
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from prefect.server.database.dependencies import temporary_database_config
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from app.domain.events import EventLog

log = EventLog(__name__)

# A transaction that waits for another one which waits for it would wait for ever: after so long it goes on as Prefect
# itself would.
PATIENCE_S = 20.0
# As SQLAlchemy's pools have it.
UNLIMITED = -1
# What statements that write begin with, as far as they are looked at.
WRITING = frozenset({"INSERT", "UPDATE", "DELETE", "REPLAC"})


class Turn:
    """A transaction's turn, as long as it lasts."""

    is_over = False


class SqliteInTurn(AioSqliteConfiguration):
    """Prefect's SQLite, with one transaction at a time: first come, first served."""

    def __init__(self, connection_url: str, *, patience_s: float = PATIENCE_S) -> None:
        super().__init__(connection_url=connection_url)
        self.turn = asyncio.Lock()
        self._patience_s = patience_s
        # Each task has its own, and those that it begins have what it had, also when that has ended.
        self._turn_of: ContextVar[Turn | None] = ContextVar("turn_of", default=None)
        # Statements by themselves that have a turn.
        self._alone: set[object] = set()

    async def engine(self) -> AsyncEngine:
        """Prefect's engine, whose statements outside of transactions wait for their turn."""
        engine = await super().engine()
        # Those that wait for their turn have a connection already: whoever has the turn must find one too.
        engine.sync_engine.pool._max_overflow = UNLIMITED  # type: ignore[attr-defined]  # noqa: SLF001
        listeners: dict[str, Callable[..., None]] = {
            "before_cursor_execute": self._statement_begins,
            "after_cursor_execute": self._statement_ended,
            "handle_error": self._statement_failed,
        }
        for name, listener in listeners.items():
            if not event.contains(engine.sync_engine, name, listener):
                event.listen(engine.sync_engine, name, listener)
        return engine

    @property
    def _has_turn(self) -> bool:
        turn = self._turn_of.get()
        return turn is not None and not turn.is_over

    @asynccontextmanager
    async def begin_transaction(
        self,
        session: Any,  # noqa: ANN401 - of a library that is at home in persistence
        with_for_update: bool = False,  # noqa: FBT001, FBT002 - as the base class has it
    ) -> AsyncIterator[Any]:
        """A transaction as Prefect has it, in its turn; one inside of another one is in the other's."""
        if self._has_turn:
            async with super().begin_transaction(session, with_for_update) as transaction:
                yield transaction
            return
        is_mine = await self._came()
        turn = Turn()
        token = self._turn_of.set(turn)
        try:
            async with super().begin_transaction(session, with_for_update) as transaction:
                yield transaction
        finally:
            turn.is_over = True
            self._turn_of.reset(token)
            if is_mine:
                self.turn.release()

    async def _came(self) -> bool:
        """Wait for the turn; False where it did not come in time."""
        try:
            async with asyncio.timeout(self._patience_s):
                return await self.turn.acquire()
        except TimeoutError:
            log.warning("prefect_transaction_out_of_turn", waited_s=self._patience_s)
            return False

    # --- statements by themselves -----------------------------------------------------------------------------------

    def _statement_begins(
        self, _connection: object, _cursor: object, statement: str, _values: object, context: object, _many: object
    ) -> None:
        # Where Prefect named how transactions begin, this one is in one: it has its turn, or nobody has.
        is_alone = SQLITE_BEGIN_MODE.get() is None and not self._has_turn
        if is_alone and statement.lstrip()[:6].upper() in WRITING and await_only(self._came()):
            self._alone.add(context)

    def _statement_ended(
        self, _connection: object, _cursor: object, _statement: str, _values: object, context: object, _many: object
    ) -> None:
        self._give_back(context)

    def _statement_failed(self, failure: ExceptionContext) -> None:
        self._give_back(failure.execution_context)

    def _give_back(self, context: object) -> None:
        if context in self._alone:
            self._alone.remove(context)
            self.turn.release()


def configured(connection_url: str) -> AbstractContextManager[object]:
    """Have Prefect use its database in turn while the block lasts; PostgreSQL is left as it is."""
    if not connection_url.startswith("sqlite"):
        return nullcontext()
    return temporary_database_config(SqliteInTurn(connection_url))


def main() -> None:
    """Be the command `prefect` with the arguments given."""
    with configured(str(PREFECT_API_DATABASE_CONNECTION_URL.value())):
        runpy.run_module("prefect", run_name="__main__")


if __name__ == "__main__":
    # What it says of wrong arguments is said by that name.
    sys.argv[0] = "prefect"
    main()
