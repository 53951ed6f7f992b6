"""Log events: a static name, and what varies in fields. Where they go is up to the process that is at work."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from types import MappingProxyType

# The attribute of a log record that holds an event's fields.
FIELDS = "event_fields"
# The logger above those of all modules.
OURS = "app"

# What is being worked on: each task and thread has its own.
_bound: ContextVar[Mapping[str, object]] = ContextVar("bound_fields", default=MappingProxyType({}))


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Have every event of this task, and of what it starts, carry these fields until the block ends.

    A thread that is begun meanwhile carries them where its target is given by `in_context`.
    """
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def in_context(target: Callable[[], None]) -> Callable[[], None]:
    """The same for another thread, which then tells its events with the fields that are bound here and now."""
    return partial(copy_context().run, target)


class EventLog:
    """Tells the events of one module to Python's logging, which costs a start nothing."""

    def __init__(self, name: str) -> None:
        """Tell them under `name`, the module's own."""
        self._logger = logging.getLogger(name)

    def info(self, event: str, **fields: object) -> None:
        """Something that whoever develops or operates the program wants to know."""
        self._tell(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something went wrong, and the program goes on."""
        self._tell(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something went wrong that somebody has to see."""
        self._tell(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """As `error`, with the traceback of the exception that is being handled."""
        self._logger.error("%s", event, extra={FIELDS: {**_bound.get(), **fields}}, exc_info=sys.exc_info())

    def _tell(self, level: int, event: str, fields: dict[str, object]) -> None:
        # As an argument the name is never taken for a format.
        self._logger.log(level, "%s", event, extra={FIELDS: {**_bound.get(), **fields}})
