"""The log events that a piece of code tells."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.domain.events import FIELDS


class _Ear(logging.Handler):
    def __init__(self, heard: list[dict[str, Any]]) -> None:
        super().__init__()
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, FIELDS, {})
        self._heard.append({**fields, "event": record.getMessage(), "log_level": record.levelname.lower()})


@contextmanager
def told_events() -> Iterator[list[dict[str, Any]]]:
    """Events of every level, as they come: name, level and fields."""
    heard: list[dict[str, Any]] = []
    logger, ear = logging.getLogger("app"), _Ear(heard)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(ear)
    try:
        yield heard
    finally:
        logger.removeHandler(ear)
        logger.setLevel(level)
