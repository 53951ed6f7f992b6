"""A run as it goes on: what is new of it, until it is over."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from app.cli.desk import Desk, Json
from app.cli.render import count, size
from app.domain.errors import RetriableError

T = TypeVar("T")
OPEN = ("queued", "running")
LOOK_EVERY_S = 1.0
# A server that is started anew is away for some seconds, and a database may be busy; the run goes on meanwhile.
AWAY_S = 300.0
STATUSES = {"success": 0, "partial": 3, "waiting": 4}
FAILED = 1


def changes(desk: Desk, ingestion_id: str, run_id: str) -> Iterator[Json]:
    """The run as it is now, and again whenever it or its log may have changed; it is over with the last one.

    Raises:
        RetriableError: The server or the database has been away for five minutes.
    """
    with desk.listening(ingestion_id, run_id) as news:
        while True:
            run = _patiently(desk, lambda: desk.run_of(ingestion_id, run_id))
            yield run
            if run["status"] not in OPEN:
                return
            news.wait()


def exit_status(run: Json) -> int:
    """The exit status of a command that began the run and saw its end."""
    return STATUSES.get(str(run["status"]), FAILED)


def line_of(run: Json) -> str:
    """How a run stands, in a line."""
    files, rows = run["files"], run["rows"]
    parts = [str(run["status"])]
    if run["status"] == "queued" and run["next_attempt_at"]:
        parts.append(f"goes on at {run['next_attempt_at']}")
    if files["loaded"] or files["failed"]:
        parts.append(
            f"{count(files['loaded'], 'file')} loaded" + (f", {files['failed']} failed" if files["failed"] else "")
        )
        parts.append(f"{count(rows['loaded'], 'row')}, {size(run['bytes'])}")
    elif run["status"] == "running" and (progress := run["progress"]) and progress["total_files"]:
        parts.append(f"{progress['files']} of {count(progress['total_files'], 'file')} read")
        parts.append(f"{count(progress['rows'], 'row')}, {size(progress['bytes'])}")
    elif run["status"] == "success":
        parts.append(f"nothing new, {count(files['known'], 'file')} known")
    if run["duration_s"] is not None:
        parts.append(f"{run['duration_s']:.1f} s")
    return ", ".join(parts)


class Story:
    """What a run tells, each thing once."""

    def __init__(self, desk: Desk, ingestion_id: str, run_id: str) -> None:
        """Of that run."""
        self._desk = desk
        self._ids = (ingestion_id, run_id)
        self._lines = 0
        self._told: set[str] = set()
        self._last = ""

    def news(self, run: Json) -> Iterator[str]:
        """Lines that were not told yet: of its log, and of how it stands."""
        for line in self.log():
            yield f"{line['at']}  {line['message']}"
        for text in (*run["warnings"], *map(error_line, run["errors"])):
            if text not in self._told:
                self._told.add(text)
                yield text
        stands = line_of(run)
        if stands != self._last:
            self._last = stands
            yield stands

    def log(self) -> Iterator[dict[str, Any]]:
        """Lines of its log that were not given yet."""
        while found := _patiently(self._desk, lambda: self._desk.log(*self._ids, after=self._lines)):
            for line in found:
                self._lines = int(line["number"])
                yield line


def error_line(error: Json) -> str:
    """What went wrong with a file, or with the whole run."""
    where = f", line {error['line']}" if error["line"] is not None else ""
    file = f"{error['file']}{where}: " if error["file"] else ""
    return f"{file}{error['message']} ({error['category']})"


def _patiently(desk: Desk, ask: Callable[[], T]) -> T:
    """What is asked for, as soon as there is somebody who answers."""
    since = time.monotonic()
    is_told = False
    while True:
        try:
            return ask()
        except RetriableError as error:
            if time.monotonic() - since > AWAY_S:
                raise
            if not is_told:
                sys.stderr.write(f"Note: {error.message} Asking on.\n")
                is_told = True
            desk.pause_for(LOOK_EVERY_S)
