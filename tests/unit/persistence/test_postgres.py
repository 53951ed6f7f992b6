"""The ledger on PostgreSQL: its address, the state it must be in, and what goes wrong with a server."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator

import pytest
from alembic import command
from sqlalchemy import text

from app.domain.errors import (
    AutoloaderError,
    LedgerBusyError,
    LedgerUnreachableError,
    LedgerUnreadableError,
    LedgerVersionError,
    LedgerWriteError,
)
from app.domain.files import FileState
from app.persistence import patience
from app.persistence import postgres as postgres_module
from app.persistence.database import HEAD_REVISION, open_engine, parse_url, revision
from app.persistence.leases import this_process
from app.persistence.ledger import ledger_exists, open_existing_ledger, open_ledger, shown_url
from app.persistence.postgres import STATEMENT_TIMEOUT_S
from tests.support.postgres import Postgres, alembic, migrated_database, start_postgres, stop_postgres
from tests.support.servers import free_ports
from tests.unit.persistence.desk import LONG_S, TABLE, Desk, file, open_desk
from tests.unit.persistence.test_database import config_on

OPENINGS = pytest.mark.parametrize("opening", [open_ledger, open_existing_ledger])
SECRET = "hush%40hush"


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """A server that may be killed."""
    server = start_postgres()
    yield server
    stop_postgres(server)


def stands_at(url: str) -> str | None:
    engine = open_engine(parse_url(url))
    try:
        return revision(engine)
    finally:
        engine.dispose()


def tables_of(postgres: Postgres, url: str) -> set[str]:
    rows = postgres.execute("select tablename from pg_tables where schemaname = 'public'", url)
    return {str(row[0]) for row in rows}


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["postgres://", "postgresql://", "postgresql+psycopg://"])
def test_every_spelling_leads_to_the_database(url: str, spelling: str) -> None:
    desk = open_desk(url.replace("postgresql://", spelling))
    desk.ledger.mark(desk.table, "r", [(file("a"), FileState.SKIPPED)])
    desk.ledger.dispose()
    found = open_existing_ledger(url)
    assert found is not None
    assert found.table(TABLE) == desk.table
    found.dispose()
    assert ledger_exists(url)


def test_passwords_are_not_shown() -> None:
    assert shown_url(f"postgres://me:{SECRET}@host:5/db") == "postgresql://me:***@host:5/db"
    shown = shown_url(f"postgresql://me@host/db?password={SECRET}&sslpassword={SECRET}&sslmode=require")
    assert shown == "postgresql://me@host/db?sslmode=require"
    assert shown_url("sqlite:///a.db") == "sqlite:///a.db"


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:hush@hush@127.0.0.1:1/db",
        "postgresql://me:hush/hush@127.0.0.1:1/db",
        "postgresql://me@host:hush/db",
        f"postgresql://me:{SECRET}@127.0.0.1:1/db",
        f"postgresql://me@127.0.0.1:1/db?password={SECRET}",
        f"postgresql://me:{SECRET}@127.0.0.1:1/db?no_such_option=1",
        f"postgresql://me:{SECRET}@no-such-host.invalid/db",
    ],
)
@OPENINGS
def test_no_error_shows_a_password(address: str, opening: object) -> None:
    with pytest.raises(AutoloaderError) as raised:
        opening(address)  # type: ignore[operator]
    assert "hush" not in "".join(traceback.format_exception(raised.value)).replace(address, "")


@OPENINGS
def test_without_the_driver_the_extra_is_named(url: str, opening: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(LedgerUnreadableError, match=r"pip install 'iceberg-autoloader\[postgres\]'"):
        opening(url)  # type: ignore[operator]


# --- the state it must be in -----------------------------------------------------------------------------------------


@OPENINGS
def test_an_empty_database_is_refused_with_the_command_and_stays_empty(postgres: Postgres, opening: object) -> None:
    url = postgres.create_database()
    with pytest.raises(LedgerVersionError, match=r"migration none.*Run `alembic upgrade head`"):
        opening(url)  # type: ignore[operator]
    assert tables_of(postgres, url) == set()


@OPENINGS
def test_a_database_behind_the_program_is_refused_with_the_command(
    postgres: Postgres, url: str, opening: object
) -> None:
    assert alembic("downgrade", "base", url=url).returncode == 0
    with pytest.raises(LedgerVersionError, match="Run `alembic upgrade head`"):
        opening(url)  # type: ignore[operator]
    assert tables_of(postgres, url) == {"alembic_version"}


@OPENINGS
def test_a_newer_database_is_refused_and_left_as_it_is(postgres: Postgres, url: str, opening: object) -> None:
    postgres.execute("update alembic_version set version_num = '9999'", url)
    with pytest.raises(LedgerVersionError, match=r"9999.*newer"):
        opening(url)  # type: ignore[operator]
    assert stands_at(url) == "9999"


def test_alembic_by_hand_goes_up_and_down_and_up(postgres: Postgres) -> None:
    url = postgres.create_database()
    for arguments, head in ((("upgrade", "head"), HEAD_REVISION), (("downgrade", "base"), None)) * 2:
        done = alembic(*arguments, url=url)
        assert done.returncode == 0, done.stderr
        assert stands_at(url) == head


def test_two_that_migrate_at_once_do_it_once(postgres: Postgres) -> None:
    url = postgres.create_database()
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda: codes.append(alembic("upgrade", "head", url=url).returncode)) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0, 0]
    assert stands_at(url) == HEAD_REVISION


def test_a_partial_migration_leaves_nothing(postgres: Postgres) -> None:
    url = postgres.create_database()
    engine = open_engine(parse_url(url))
    with engine.connect() as connection:
        command.upgrade(config_on(connection), "head")
        # Not committed: the process is gone.
    engine.dispose()
    assert tables_of(postgres, url) == set()


def test_a_database_that_cannot_hold_every_name_is_refused(postgres: Postgres) -> None:
    url = postgres.create_database(options="encoding 'LATIN1' locale_provider libc locale 'C' template template0")
    with pytest.raises(LedgerUnreadableError, match=r"LATIN1.*encoding 'UTF8'"):
        open_ledger(url)


def test_the_tests_are_run_in_another_locale_than_c(postgres: Postgres, url: str) -> None:
    assert postgres.execute("select 'a' < 'B', 'a' < 'B' collate \"C\"", url) == [(True, False)]


# --- how we are connected --------------------------------------------------------------------------------------------


def session(url: str, setting: str) -> str:
    ledger = open_ledger(url)
    with ledger._read() as connection:
        value: str = connection.execute(text(f"show {setting}")).scalar_one()
    ledger.dispose()
    return value


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("lock_timeout", "30s"),
        ("statement_timeout", "5min"),
        ("idle_in_transaction_session_timeout", "1min"),
        ("application_name", "autoloader"),
    ],
)
def test_nothing_waits_for_ever(url: str, setting: str, value: str) -> None:
    assert session(url, setting) == value


def test_the_address_has_the_last_word(url: str) -> None:
    assert session(f"{url}?options=-c%20lock_timeout%3D7s", "lock_timeout") == "7s"
    assert session(f"{url}?options=-c%20lock_timeout%3D7s", "statement_timeout") == "5min"
    assert session(f"{url}?application_name=mine", "application_name") == "mine"


def test_transactions_see_what_was_committed_whatever_the_servers_default(postgres: Postgres, url: str) -> None:
    name = url.rpartition("/")[2]
    postgres.execute(f"alter database {name} set default_transaction_isolation = 'serializable'")
    assert session(url, "transaction_isolation") == "read committed"


# --- what goes wrong -------------------------------------------------------------------------------------------------


@OPENINGS
def test_a_server_that_is_not_there_is_unreachable(opening: object) -> None:
    (port,) = free_ports(1)
    with pytest.raises(LedgerUnreachableError, match=rf"127\.0\.0\.1:{port}/db does not answer"):
        opening(f"postgresql://me:{SECRET}@127.0.0.1:{port}/db")  # type: ignore[operator]


@OPENINGS
def test_what_the_server_refuses_is_not_tried_again(postgres: Postgres, url: str, opening: object) -> None:
    for address, reason in (
        (postgres.url("no_such_database"), "does not exist"),
        (postgres.url(url.rpartition("/")[2], password="wrong"), "authentication failed"),
        (postgres.url(url.rpartition("/")[2], user="nobody"), "authentication failed"),
    ):
        with pytest.raises(LedgerUnreadableError, match=reason):
            opening(address)  # type: ignore[operator]


def test_a_user_who_may_not_look_is_told_so_and_sees_no_empty_ledger(postgres: Postgres, url: str) -> None:
    user, password = postgres.create_user()
    with pytest.raises(LedgerUnreadableError, match="permission denied"):
        open_existing_ledger(postgres.url(url.rpartition("/")[2], user=user, password=password))


def test_who_may_only_read_can_read(postgres: Postgres, url: str) -> None:
    desk = open_desk(url)
    user, password = postgres.create_user()
    postgres.execute(f"grant select on all tables in schema public to {user}", url)
    reader = open_existing_ledger(postgres.url(url.rpartition("/")[2], user=user, password=password))
    assert reader is not None
    assert reader.table(TABLE) == desk.table
    with pytest.raises(LedgerUnreadableError, match="permission denied"):
        reader.mark(desk.table, "r", [(file("a"), FileState.SKIPPED)])
    reader.dispose()
    assert desk.rows() == {}
    desk.ledger.dispose()


def test_a_database_that_is_read_only_says_so(postgres: Postgres, url: str) -> None:
    desk = open_desk(url)
    desk.ledger.dispose()
    name = url.rpartition("/")[2]
    postgres.execute(f"alter database {name} set default_transaction_read_only = on")
    ledger = open_ledger(url)
    assert ledger.table(TABLE) == desk.table
    with pytest.raises(LedgerUnreadableError, match=r"cannot be written.*read-only"):
        ledger.acquire(desk.ingestion, "r", this_process(), LONG_S)
    ledger.dispose()


def test_a_lock_that_is_not_given_up_is_busy(url: str) -> None:
    desk, other = open_desk(url), open_desk(f"{url}?options=-c%20lock_timeout%3D100ms")
    with desk.ledger._write() as connection:
        desk.ledger._lock_table(connection, desk.table.id)
        with pytest.raises(LedgerBusyError, match="lock timeout"):
            other.take()
        # Who only reads does not wait for a writer.
        assert other.ledger.table(TABLE) == desk.table
    assert other.take().epoch > 0
    desk.ledger.dispose()
    other.ledger.dispose()


def test_a_deadlock_is_busy_for_one_of_the_two(url: str) -> None:
    desk = open_desk(url)
    other = desk.ledger.ensure_table("another")
    results: list[str] = []
    both_have_one = threading.Barrier(2)

    def lock(first: int, second: int) -> None:
        try:
            with desk.ledger._write() as connection:
                desk.ledger._lock_table(connection, first)
                both_have_one.wait(30)
                desk.ledger._lock_table(connection, second)
            results.append("done")
        except LedgerBusyError as error:
            results.append(error.code)

    threads = [
        threading.Thread(target=lock, args=ids) for ids in ((desk.table.id, other.id), (other.id, desk.table.id))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["done", "ledger_busy"]
    desk.ledger.dispose()


def test_a_connection_that_is_cut_in_a_transaction_changes_nothing_and_is_made_anew(
    postgres: Postgres, url: str
) -> None:
    desk = open_desk(url)
    lease = desk.take()

    def be_cut_off() -> None:
        with desk.ledger._write() as connection:
            connection.execute(text("delete from leases"))
            pid = connection.execute(text("select pg_backend_pid()")).scalar_one()
            postgres.execute(f"select pg_terminate_backend({pid}, 10000)")
            connection.execute(text("select 1"))

    with pytest.raises(LedgerUnreachableError, match="does not answer"):
        be_cut_off()
    assert desk.ledger.is_alive(lease)
    desk.ledger.dispose()


def test_a_transaction_that_stands_still_lets_others_go_on(url: str) -> None:
    sleeper, other = open_desk(url), open_desk(url)

    def stand_still() -> None:
        with sleeper.ledger._write() as connection:
            sleeper.ledger._lock_table(connection, sleeper.table.id)
            connection.exec_driver_sql("set local idle_in_transaction_session_timeout = '100ms'")
            assert other.take().epoch > 0

    with pytest.raises(LedgerUnreachableError):
        stand_still()
    sleeper.ledger.dispose()
    other.ledger.dispose()


def test_a_server_that_crashes_is_unreachable_and_has_everything_when_it_is_back(own_server: Postgres) -> None:
    desk = open_desk(migrated_database(own_server))
    lease = desk.take()
    batch = desk.claim(lease, file("a"))
    own_server.kill()
    for work in (
        desk.record,
        lambda: desk.claim(lease, file("b")),
        lambda: desk.ledger.renew(lease, LONG_S),
        desk.rows,
    ):
        with pytest.raises(LedgerUnreachableError):
            work()
    for opening in (open_ledger, open_existing_ledger):
        with pytest.raises(LedgerUnreachableError):
            opening(desk.url)
    own_server.start()
    assert desk.states() == {("a", "v1"): FileState.PROCESSING}
    assert desk.ledger.open_batches(lease, desk.table) == [batch]
    desk.ledger.dispose()


@pytest.mark.parametrize("state", ["53100", "58030"])
def test_a_server_whose_disk_is_full_says_so(postgres: Postgres, url: str, state: str) -> None:
    desk = open_desk(url)
    lease = desk.take()
    said = f"raise exception 'could not extend file: No space left on device' using errcode = '{state}'"
    postgres.execute(f"create function full_disk() returns trigger language plpgsql as $$ begin {said}; end $$", url)
    postgres.execute("create trigger full_disk before insert on batches execute function full_disk()", url)
    with pytest.raises(LedgerWriteError, match="No space left on device"):
        desk.claim(lease, file("a"))
    postgres.execute("drop trigger full_disk on batches", url)
    assert desk.states() == {}
    desk.claim(lease, file("a"))
    desk.ledger.dispose()


def test_a_server_that_stands_still_is_not_waited_for_for_ever(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machine goes on answering for it, so no time-out of the network ends the wait."""
    monkeypatch.setattr(patience, "GRACE_S", 10 - STATEMENT_TIMEOUT_S)
    desk = open_desk(url)
    pid = 0

    def ask() -> None:
        nonlocal pid
        with desk.ledger._read() as connection:
            pid = int(connection.exec_driver_sql("select pg_backend_pid()").scalar_one())
            os.kill(pid, signal.SIGSTOP)
            connection.exec_driver_sql("select 1")

    try:
        with pytest.raises(LedgerUnreachableError, match="no answer for 10 seconds"):
            ask()
        # On another connection, which another process of the server answers.
        assert desk.record() == desk.table
    finally:
        os.kill(pid, signal.SIGCONT)
    desk.ledger.dispose()


@OPENINGS
def test_a_port_where_nobody_speaks_is_unreachable(monkeypatch: pytest.MonkeyPatch, opening: object) -> None:
    monkeypatch.setattr(postgres_module, "CONNECT_TIMEOUT_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(LedgerUnreachableError, match="does not answer"):
            opening(f"postgresql://me:{SECRET}@127.0.0.1:{port}/db")  # type: ignore[operator]


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a\0", "a\0\0b", "a\1", "a\1\1", "a\1\2", "\0", "\1\0\1"])
def test_names_that_the_database_cannot_hold_come_back_as_they_were(url: str, name: str) -> None:
    desk = open_desk(url)
    desk.ledger.mark(desk.table, "r", [(file(name), FileState.SKIPPED)])
    assert [key for key, _ in desk.rows()] == [name]
    assert [f.key for f in desk.ledger.files_after(desk.table, file(name).key)] == [file(name).key]
    desk.ledger.dispose()


def test_the_longest_name_of_an_object_fits(url: str) -> None:
    """1,024 bytes that no compression makes smaller."""
    desk: Desk = open_desk(url)
    name = "".join(chr(0x1000 + i * 7919 % 0x8000) for i in range(341)) + "x"
    assert len(name.encode()) == 1024
    desk.ledger.mark(desk.table, "r", [(file(name, "v" * 64), FileState.SKIPPED)])
    assert [key for key, _ in desk.rows()] == [name]
    desk.ledger.dispose()
