"""Keeps what a run tells while it works: how far it has come, and the lines of its log.

The load hands numbers over and goes on. A thread of its own writes them, twice a second at most, together with the
lines that came since; where the database does not answer the load is none the worse.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

from app.domain.errors import AutoloaderError
from app.domain.events import FIELDS, OURS, EventLog, in_context
from app.domain.ingestions import RunRecord
from app.domain.live import RunLogLine, RunProgress, Telling

log = EventLog(__name__)

EVERY_S = 0.5
# Of more lines than these between two writes the last are kept; their numbers tell how many are missing.
MOST_WAITING = 500
LINE_LENGTH = 2_000
# They are the same on every line.
_KNOWN = frozenset({"run_id", "ingestion_id", "flow_run_id"})


class RunTeller:
    """A watcher of one attempt of a run, which tells the database."""

    def __init__(self, store: Telling, run: RunRecord, clean: Callable[[str], str], every_s: float = EVERY_S) -> None:
        """Tell of `run`, which is at work; `clean` takes secrets out of what is written down."""
        self._store = store
        self._run = run
        self._clean = clean
        self._every_s = every_s
        self._lock = threading.Lock()
        # One write at a time, so that what is newer never goes first.
        self._writing = threading.Lock()
        self._progress = RunProgress()
        self._before_batch = RunProgress()
        self._kept = RunProgress()
        self._lines: list[RunLogLine] = []
        self._number = 0
        self._is_failing = False
        self._handler = _Lines(self._add_line)
        self._stopped = threading.Event()

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell until the block ends, or `close` is called."""
        with suppress(AutoloaderError):
            self._number = self._store.last_line(self._run.id)
        ours = logging.getLogger(OURS)
        ours.addHandler(self._handler)
        thread = threading.Thread(target=in_context(self._write_often), name="run-telling", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.close()
            thread.join()

    def close(self) -> None:
        """Write what is left: after this nothing more is told. Again: no change."""
        logging.getLogger(OURS).removeHandler(self._handler)
        if not self._stopped.is_set():
            self._stopped.set()
            self.flush()

    # --- what the load says -----------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """A sentence on a line of its own."""
        log.info("run_note", text=text)

    def batch_begins(self, *, files: int, stored_bytes: int) -> None:
        """So much more is to do."""
        with self._lock:
            now = self._progress
            self._before_batch = now
            total = {"total_files": now.total_files + files, "total_bytes": now.total_bytes + stored_bytes}
            self._progress = replace(now, **total)
        log.info("batch_begins", files=files, stored_bytes=stored_bytes)

    def progress(self, *, files: int = 0, rows: int = 0, stored_bytes: int = 0) -> None:
        """So much more is done."""
        with self._lock:
            now = self._progress
            self._progress = replace(
                now,
                # Of a batch that is read once more: it is not more than there is.
                files=min(now.files + files, now.total_files),
                rows=now.rows + rows,
                bytes=min(now.bytes + stored_bytes, now.total_bytes),
            )

    def batch_ends(self, *, files: int, rows: int, failed: int) -> None:
        """What was told of the batch while it was read is replaced by what came of it."""
        with self._lock:
            before, now = self._before_batch, self._progress
            self._progress = replace(
                now, files=before.files + files + failed, rows=before.rows + rows, bytes=now.total_bytes
            )
        log.info("batch_ends", files=files, rows=rows, failed=failed)

    # --- the database -----------------------------------------------------------------------------------------------

    def _write_often(self) -> None:
        while not self._stopped.wait(self._every_s):
            self.flush()

    def flush(self) -> None:
        """Write what is new. Where that does not go, it is tried again with what comes next."""
        with self._writing:
            with self._lock:
                progress, lines = self._progress, self._lines[:]
            if progress == self._kept and not lines:
                return
            news = None if progress == self._kept else progress
            try:
                self._store.tell_progress(self._run.id, self._run.attempts, news, lines)
            except AutoloaderError as error:
                if not self._is_failing:
                    log.warning("progress_not_kept", reason=str(error))
                self._is_failing = True
                return
            self._is_failing = False
            with self._lock:
                self._kept = progress
                kept = {line.number for line in lines}
                self._lines = [line for line in self._lines if line.number not in kept]

    def _add_line(self, record: logging.LogRecord) -> None:
        message = self._clean(_text_of(record))[:LINE_LENGTH]
        at = datetime.fromtimestamp(record.created, UTC)
        with self._lock:
            self._number += 1
            self._lines.append(RunLogLine(self._number, at, record.levelname.lower(), message))
            del self._lines[:-MOST_WAITING]


class _Lines(logging.Handler):
    """Hands on what this process logs."""

    def __init__(self, take: Callable[[logging.LogRecord], None]) -> None:
        super().__init__(logging.INFO)
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        """Take one."""
        self._take(record)


def _text_of(record: logging.LogRecord) -> str:
    """An event as one line, for people."""
    fields = dict(getattr(record, FIELDS, {}))
    if record.getMessage() == "run_note":
        return str(fields.get("text", ""))
    told = [f"{name}={value}" for name, value in fields.items() if name not in _KNOWN]
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        told.append(f"error={type(error).__name__}: {error}")
    return " ".join([record.getMessage(), *told])
