"""What a run tells while it works: the load hands it over and goes on, the database gets it in few writes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from app.domain.errors import LedgerBusyError
from app.domain.events import EventLog, bound
from app.domain.ingestions import Method, RunRecord, Trigger
from app.domain.live import RunLogLine, RunProgress
from app.domain.redaction import Redactor
from app.domain.runs import RunStatus
from app.services.telling import MOST_WAITING, RunTeller
from tests.unit.persistence.desk import until

RUN = RunRecord(
    "r",
    "i",
    "local.d.t",
    Trigger.MANUAL,
    Method.DIRECT,
    RunStatus.RUNNING,
    datetime(2026, 1, 1, tzinfo=UTC),
    attempts=2,
)
NEVER_S = 600.0
log = EventLog("app.tests")


@dataclass
class Book:
    """Keeps what it is told, while it is open."""

    is_open: bool = True
    last: int = 7
    writes: list[tuple[RunProgress | None, list[str]]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def tell_progress(
        self, run_id: str, attempt: int, progress: RunProgress | None, lines: Sequence[RunLogLine]
    ) -> None:
        assert (run_id, attempt) == ("r", 2)
        if not self.is_open:
            raise LedgerBusyError
        self.writes.append((progress, [f"{line.level} {line.message}" for line in lines]))
        self.numbers += [line.number for line in lines]

    def last_line(self, run_id: str) -> int:
        assert run_id == "r"
        return self.last

    @property
    def progress(self) -> RunProgress | None:
        return next((progress for progress, _ in reversed(self.writes) if progress is not None), None)

    @property
    def lines(self) -> list[str]:
        return [line for _, lines in self.writes for line in lines]


@pytest.fixture(autouse=True)
def _verbose() -> Iterator[None]:
    """As the processes of the service log."""
    ours = logging.getLogger("app")
    before = ours.level
    ours.setLevel(logging.INFO)
    yield
    ours.setLevel(before)


def teller(book: Book, every_s: float = NEVER_S) -> RunTeller:
    return RunTeller(book, RUN, Redactor(["hidden-value"]).text, every_s)


def test_lines_are_numbered_on_without_secrets_and_without_what_is_the_same_on_all() -> None:
    book = Book()
    tell = teller(book)
    with bound(run_id="r", ingestion_id="i"), tell.telling():
        tell.note("It waits.")
        log.warning("strange", value="has hidden-value in it", run_id="r")
        try:
            int("hidden-value")
        except ValueError:
            log.exception("broken")
    assert book.lines == [
        "info It waits.",
        "warning strange value=has *** in it",
        "error broken error=ValueError: invalid literal for int() with base 10: '***'",
    ]
    assert book.numbers == [8, 9, 10]
    log.info("later")
    assert len(book.lines) == 3


def test_progress_grows_and_is_put_right_when_its_batch_ends() -> None:
    book = Book()
    tell = teller(book)
    with tell.telling():
        tell.batch_begins(files=3, stored_bytes=300)
        tell.progress(files=2, rows=20, stored_bytes=200)
        tell.flush()
        assert book.progress == RunProgress(2, 20, 200, 3, 300)
        # It is read once more.
        tell.progress(files=2, rows=20, stored_bytes=200)
        tell.flush()
        assert book.progress == RunProgress(3, 40, 300, 3, 300)
        tell.batch_ends(files=2, rows=25, failed=1)
        tell.batch_begins(files=1, stored_bytes=10)
        tell.flush()
        assert book.progress == RunProgress(3, 25, 300, 4, 310)


def test_however_often_it_is_told_few_writes_are_made() -> None:
    book = Book()
    tell = teller(book)
    with tell.telling():
        tell.batch_begins(files=100_000, stored_bytes=100_000)
        for _ in range(10_000):
            tell.progress(files=1, rows=1, stored_bytes=1)
    assert len(book.writes) == 1
    assert book.progress == RunProgress(10_000, 10_000, 10_000, 100_000, 100_000)


def test_a_thread_writes_what_is_new_and_nothing_where_nothing_is() -> None:
    book = Book()
    tell = teller(book, every_s=0.01)
    with tell.telling():
        tell.batch_begins(files=1, stored_bytes=1)
        # The line comes after the progress, so whoever wrote it wrote both.
        until(lambda: bool(book.lines))
        written = len(book.writes)
        threading.Event().wait(0.1)
        assert len(book.writes) == written


def test_a_database_that_does_not_answer_holds_nobody_up_and_gets_it_later() -> None:
    book = Book(is_open=False)
    tell = teller(book)
    with tell.telling():
        tell.batch_begins(files=1, stored_bytes=5)
        for _ in range(3):
            tell.flush()
        assert book.writes == []
        book.is_open = True
    assert book.progress == RunProgress(0, 0, 0, 1, 5)
    assert [line.split()[1] for line in book.lines] == ["batch_begins", "progress_not_kept"]


def test_of_too_many_lines_the_last_are_kept_under_their_numbers() -> None:
    book = Book(last=0)
    tell = teller(book)
    with tell.telling():
        for number in range(MOST_WAITING + 20):
            log.info("event", number=number)
    assert book.numbers == list(range(21, MOST_WAITING + 21))
    assert book.lines[-1] == f"info event number={MOST_WAITING + 19}"


def test_when_it_is_closed_everything_is_written() -> None:
    book = Book()
    tell = teller(book)
    with tell.telling():
        log.info("before")
        tell.close()
        assert book.lines == ["info before"]
        log.info("after")
    assert book.lines == ["info before"]
