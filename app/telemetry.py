"""Logs: events with static names and fields, on stderr, readable on a terminal and JSON elsewhere."""

from __future__ import annotations

import logging
import sys
import warnings

import structlog


def configure_logging(*, verbose: bool) -> None:
    """Send this process's log events to stderr.

    Args:
        verbose: Show what a developer wants to know; else only what went wrong.
    """
    level = logging.INFO if verbose else logging.ERROR
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING if verbose else logging.CRITICAL)
    if not verbose:
        # Libraries warn about their own internals; a user of the command line can do nothing about that.
        warnings.simplefilter("ignore")
