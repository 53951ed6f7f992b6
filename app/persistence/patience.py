"""A connection to PostgreSQL that does not wait for ever for a server that stands still."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Engine, event

if TYPE_CHECKING:
    import psycopg

# What a server may take beyond its own limit for a statement, which it keeps by itself as long as it works.
GRACE_S = 30

T = TypeVar("T")


def be_impatient(engine: Engine, statement_timeout_s: int) -> None:
    """Give up connections whose server says nothing for longer than its own time-outs allow.

    The kernel of a server that was stopped, or a proxy before it, goes on answering for it: so neither keep-alives
    nor TCP's time-outs notice.

    Args:
        engine: Its connections, from now on.
        statement_timeout_s: What the server is told; 0, for any time, leaves everything as it is.
    """
    if not statement_timeout_s:
        return
    limit_s = statement_timeout_s + GRACE_S

    def connect(_dialect: object, _record: object, positional: list[Any], named: dict[str, Any]) -> object:
        return _connection_class(limit_s).connect(*positional, **named)

    event.listen(engine, "do_connect", connect)


def _connection_class(limit_s: float) -> type[psycopg.Connection[Any]]:
    # The driver is an extra, which is only there where somebody connects.
    import psycopg  # noqa: PLC0415

    class Impatient(psycopg.Connection[Any]):
        """Ends itself when a server has not answered in time."""

        def wait(self, gen: Generator[Any, Any, T], *more: Any, **named: Any) -> T:  # noqa: ANN401 - the driver's
            """What the driver's own gives, within `limit_s` seconds.

            Raises:
                psycopg.OperationalError: The server said nothing; the connection is closed.
            """
            return super().wait(self._limited(gen), *more, **named)

        def _limited(self, steps: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
            deadline = time.monotonic() + limit_s
            ready: Any = None
            while True:
                try:
                    wanted = steps.send(ready)
                except StopIteration as end:
                    result: T = end.value
                    return result
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    steps.close()
                    self.close()
                    raise psycopg.OperationalError(f"no answer for {limit_s:g} seconds")

    return Impatient
