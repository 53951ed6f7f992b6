"""Logs: events with static names and fields, on stderr, readable on a terminal and JSON elsewhere, without secrets."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from app.domain.errors import AutoloaderError, InternalError
from app.domain.events import FIELDS, OURS, EventLog
from app.domain.redaction import Redactor

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

log = EventLog(__name__)


def configure_logging(*, verbose: bool, redactor: Redactor | None = None, alone: bool = False) -> Redactor:
    """Send this process's log events to stderr, without secrets.

    Args:
        verbose: Show what a developer wants to know; else only what went wrong.
        redactor: Knows the secrets; None: a new one.
        alone: Take the place of what a library has set up to write its lines, and those of others, by itself.

    Returns:
        The redactor, to be told what this process reads.
    """
    hides = redactor or Redactor()
    ours = logging.getLogger(OURS)
    ours.setLevel(logging.INFO if verbose else logging.ERROR)
    ours.propagate = False
    for handler in ours.handlers[:]:
        ours.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EventFormatter(hides, terminal=sys.stderr is not None and sys.stderr.isatty()))
    ours.addHandler(handler)
    theirs = logging.StreamHandler(sys.stderr)
    theirs.setFormatter(_RedactedFormatter(hides))
    logging.basicConfig(handlers=[theirs], level=logging.WARNING if verbose else logging.CRITICAL, force=alone)
    if not verbose:
        # Libraries warn about their own internals; a user of the command line can do nothing about that.
        warnings.simplefilter("ignore")
    return hides


class EventFormatter(logging.Formatter):
    """Renders events by structlog, which is imported with the first of them: most processes have none to tell."""

    def __init__(self, redactor: Redactor, *, terminal: bool) -> None:
        """Render for a person's eyes on a `terminal`, else as JSON; what `redactor` knows is hidden."""
        super().__init__()
        self.redactor = redactor
        self._terminal = terminal

    def format(self, record: logging.LogRecord) -> str:
        """One event as a line; a traceback may follow it."""
        import structlog  # noqa: PLC0415  # with it come rich and Pygments

        event: EventDict = {**getattr(record, FIELDS, {}), "event": record.getMessage()}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        level = record.levelname.lower()
        renderer: Processor = structlog.dev.ConsoleRenderer() if self._terminal else structlog.processors.JSONRenderer()
        processors: tuple[Processor, ...] = (
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            # The last but one: after it nothing is added.
            lambda _logger, _method, told: self.redactor.fields(told),
        )
        for processor in processors:
            event = processor(None, level, event)  # type: ignore[assignment]  # they all give the event on
        return str(renderer(None, level, event))


def without_secrets(text: str) -> str:
    """A text for a person's eyes, without what the redactor of this process's log knows."""
    known = (handler.formatter for handler in logging.getLogger(OURS).handlers)
    formatter = next((one for one in known if isinstance(one, EventFormatter)), None)
    return (formatter.redactor if formatter else Redactor()).text(text)


def say_at_start(line: str) -> None:
    """Say a line that people wait for when the service starts: as it stands on a terminal, an event elsewhere."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    else:
        log.info(line)


@contextmanager
def told_without_secrets(redactor: Redactor) -> Iterator[None]:
    """Log what nobody expected, and let it leave the block with a text that may be shown: it may quote anything.

    Raises:
        InternalError: In the place of an error that is none of ours.
    """
    try:
        yield
    except AutoloaderError:
        raise
    except Exception as error:  # the outermost frame of a process that carries a run out
        log.exception("unexpected_error")
        text = f"{type(error).__name__}: {redactor.text(str(error))}"
    else:
        return
    # Not chained: the cause would be shown with it.
    raise InternalError(text)


def redact_handlers(redactor: Redactor, *names: str) -> None:
    """Have the redactor see what the handlers of these loggers write, which somebody else has set up."""
    for name in names:
        for handler in logging.getLogger(name).handlers:
            # One without a formatter writes the message alone.
            handler.setFormatter(_RedactedFormatter(redactor, handler.formatter or logging.Formatter()))


class _RedactedFormatter(logging.Formatter):
    """Libraries' own lines, exceptions included."""

    def __init__(self, redactor: Redactor, inner: logging.Formatter | None = None) -> None:
        super().__init__()
        self._redactor = redactor
        self._inner = inner or logging.Formatter("%(levelname)s:%(name)s:%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.text(self._inner.format(record))
