"""Writers of one process take turns at a SQLite database: first come, first served.

SQLite has whoever finds its lock taken sleep and look again, longer each time, so that who waits longest is passed by
those who come later. Between processes there is no other way; the threads of one process can do better.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from sqlalchemy import Engine

# As long as SQLite itself waits for its lock: who had no turn by then goes on without one.
PATIENCE_S = 30.0


class Line:
    """A lock that is given to whoever has waited for it longest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = False
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def turn(self, patience_s: float = PATIENCE_S) -> Iterator[None]:
        """Wait for the turn, `patience_s` seconds at most, and keep it until the block ends."""
        is_mine = self._come(patience_s)
        try:
            yield
        finally:
            if is_mine:
                self._go()

    def _come(self, patience_s: float) -> bool:
        called = threading.Event()
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return True
            self._waiting.append(called)
        if called.wait(patience_s):
            return True
        with self._lock:
            if called.is_set():
                return True
            self._waiting.remove(called)
            return False

    def _go(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._is_taken = False


_lines: WeakKeyDictionary[Engine, Line] = WeakKeyDictionary()
_lines_lock = threading.Lock()


@contextmanager
def in_turn(engine: Engine) -> Iterator[None]:
    """Write to the database of `engine` while no other thread of this process does; PostgreSQL needs no turns."""
    if engine.dialect.name != "sqlite":
        yield
        return
    with _lines_lock:
        line = _lines.setdefault(engine, Line())
    with line.turn():
        yield
