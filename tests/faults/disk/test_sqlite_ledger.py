"""The ledger's SQLite file is damaged, not writable, locked, gone or old: a load stops before anything, or mends it."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from app.domain.errors import AutoloaderError
from tests.support.command import Home
from tests.support.disks import read_only
from tests.support.worksite import Worksite

NOISE = bytes((i * 7919) % 251 for i in range(20_000))


def database(site: Worksite) -> Path:
    return site.home / "autoloader.db"


def execute(site: Worksite, statement: str) -> None:
    with closing(sqlite3.connect(database(site))) as connection:
        connection.execute(statement)
        connection.commit()


def noise(site: Worksite) -> None:
    database(site).write_bytes(NOISE)


def cut(site: Worksite) -> None:
    whole = database(site).read_bytes()
    database(site).write_bytes(whole[: len(whole) // 2])


def emptied(site: Worksite) -> None:
    database(site).write_bytes(b"")


def folder(site: Worksite) -> None:
    database(site).unlink()
    database(site).mkdir()


def foreign(site: Worksite) -> None:
    database(site).unlink()
    execute(site, "create table orders (id integer)")


def newer(site: Worksite) -> None:
    execute(site, "update alembic_version set version_num = '9999'")


def without_a_table(site: Worksite) -> None:
    execute(site, "drop table files")


def broken_page(site: Worksite) -> None:
    """The root of the table of files is no page of a database any more."""
    with closing(sqlite3.connect(database(site))) as connection:
        (root,) = connection.execute("select rootpage from sqlite_master where name = 'files'").fetchone()
        (size,) = connection.execute("pragma page_size").fetchone()
    with database(site).open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (noise, "ledger_unreadable"),
        (cut, "ledger_unreadable"),
        (emptied, "ledger_unreadable"),
        (folder, "ledger_unreadable"),
        (foreign, "ledger_unreadable"),
        (newer, "ledger_version"),
        (without_a_table, "ledger_unreadable"),
        (broken_page, "ledger_unreadable"),
    ],
)
def test_what_cannot_be_read_is_never_an_empty_ledger(
    site: Worksite, damage: Callable[[Worksite], None], code: str
) -> None:
    before = site.rows()
    kept = database(site).read_bytes()
    site.land(1)
    damage(site)
    for _ in range(2):
        error = site.failed_load()
        assert error is not None
        assert error.code == code, error
        assert code == "ledger_version" or str(database(site)) in error.message
        assert error.advice
    assert site.rows() == before
    # As the remedy says: a backup, or none at all.
    if database(site).is_dir():
        database(site).rmdir()
    database(site).write_bytes(kept)
    site.load()
    site.assert_exact()


@pytest.mark.parametrize("damage", [noise, emptied, foreign])
def test_without_the_damaged_file_the_table_gives_the_ledger_back(
    site: Worksite, damage: Callable[[Worksite], None]
) -> None:
    site.land(1)
    damage(site)
    assert site.failed_load() is not None
    for file in site.home.glob("autoloader.db*"):
        file.unlink()
    assert site.load().files_loaded == 1
    site.assert_exact()


@pytest.mark.parametrize("content", [None, b"", NOISE])
def test_a_log_that_is_gone_or_damaged_loses_rows_of_the_ledger_and_none_of_the_table(
    site: Worksite, content: bytes | None
) -> None:
    """SQLite forgets what was only in its write-ahead log; what was loaded by then the table knows."""
    with closing(sqlite3.connect(database(site))) as reader:
        # Somebody who reads keeps the log from being moved into the file.
        reader.execute("begin")
        reader.execute("select count(*) from files").fetchone()
        site.land(1)
        site.load()
        shutil.copy(database(site), site.home / "copy")
    for file in site.home.glob("autoloader.db*"):
        file.unlink()
    (site.home / "copy").rename(database(site))
    if content is not None:
        (site.home / "autoloader.db-wal").write_bytes(content)
    site.land(2)
    report = site.load()
    assert (report.files_loaded, report.files_known) == (1, 2)
    site.assert_exact()


def test_a_medium_that_cannot_be_written_loads_nothing(site: Worksite) -> None:
    site.land(1)
    before = site.rows()
    arguments = ("load", str(site.landing), "--to", site.table, "--output", "json")
    done = Home(site.home).run(*arguments, before=read_only(site.home))
    assert done.status == 1
    # The catalog's file is of the same kind, and on the same medium.
    assert done.json["code"] in {"ledger_unreadable", "catalog_unreachable"}, done.json
    assert str(site.home) in done.json["detail"]
    assert "Traceback" not in done.stderr
    assert site.rows() == before
    site.load()
    site.assert_exact()


def test_a_database_that_is_locked_for_a_while_is_waited_for(site: Worksite) -> None:
    """A passing error at the start resets nothing."""
    site.land(1)
    with closing(sqlite3.connect(database(site), isolation_level=None, check_same_thread=False)) as other:
        other.execute("begin exclusive")
        timer = threading.Timer(2.0, lambda: other.execute("rollback"))
        began = time.monotonic()
        timer.start()
        report = site.load()
        waited = time.monotonic() - began
        timer.join()
    assert waited >= 1.0
    assert (report.files_loaded, report.files_known) == (1, 1)
    site.assert_exact()


class _AtPlace:
    """Does something once, before or after a step of a load."""

    def __init__(self, place: str, work: Callable[[], None]) -> None:
        self.place, self.work, self.done = place, work, False

    def __call__(self, name: str) -> None:
        if name == self.place and not self.done:
            self.done = True
            self.work()


@pytest.mark.parametrize(
    "place", ["lease_taken:after", "batch_claimed:after", "data_written:after", "committed:after", "batch_closed:after"]
)
def test_the_file_is_removed_under_a_load(site: Worksite, place: str) -> None:
    """The load ends by itself or says that the ledger is gone; the next one gives it back. It never starts empty."""
    site.land(1)

    def remove() -> None:
        for file in site.home.glob("autoloader.db*"):
            file.unlink()

    at = _AtPlace(place, remove)
    error: AutoloaderError | None = site.failed_load(at)
    assert at.done
    assert error is None or error.code in {"ledger_unreadable", "ledger_write_failure"}, error
    assert not database(site).exists()
    site.assert_whole_files()
    site.land(2)
    assert site.load().stopped_by is None
    site.assert_exact()


def test_an_older_copy_adopts_what_the_table_has_under_higher_epochs(site: Worksite) -> None:
    copy = site.home / "copy"
    shutil.copy(database(site), copy)
    for number in (1, 2):
        site.land(number)
        site.load()
    seen = site.highest_epoch()
    for file in site.home.glob("autoloader.db*"):
        file.unlink()
    copy.rename(database(site))
    site.land(3)
    report = site.load()
    assert (report.files_loaded, report.files_known) == (1, 3)
    assert site.highest_epoch() > seen
    site.assert_exact()
