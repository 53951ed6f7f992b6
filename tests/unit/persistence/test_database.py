from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from app.domain.errors import LedgerBusyError, LedgerUnreadableError, LedgerVersionError, NotSupportedError
from app.domain.files import FileState
from app.persistence import database
from app.persistence.database import HEAD_REVISION, migrations_folder, open_engine, parse_url, revision
from app.persistence.ledger import ledger_exists, open_existing_ledger, open_ledger
from app.persistence.schema import metadata
from tests.unit.persistence.desk import CLEAN, TABLE, file, open_and_count, open_desk
from tests.unit.persistence.service_desk import ServiceDesk, claim, new_ingestion, queue, take

ROOT = Path(__file__).parents[3]
PARTIAL_INDEXES = 9


def config_on(connection: object) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.attributes["connection"] = connection
    return config


def indexes(connection: Connection, table: str) -> set[str | None]:
    """Names of the indexes that are not made for a constraint."""
    return {i["name"] for i in inspect(connection).get_indexes(table) if "duplicates_constraint" not in i}


def asked_for(condition: object) -> list[str]:
    """The values and the absences in a condition, which databases tell each in its own words."""
    return re.findall(r"'[\w.]+'|\w+ is null|\w+ is not null", str(condition).lower())


def conditions(connection: Connection, table: str) -> dict[str | None, list[str]]:
    """What partial indexes ask for, by their names."""
    kind = f"{connection.dialect.name}_where"
    found = {i["name"]: i.get("dialect_options", {}).get(kind) for i in inspect(connection).get_indexes(table)}
    return {name: asked_for(condition) for name, condition in found.items() if condition is not None}


def test_migrations_make_what_the_program_reads(url: str) -> None:
    open_ledger(url).dispose()
    engine = open_engine(parse_url(url))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        made = {t: indexes(connection, t) for t in metadata.tables}
        asked = {name: condition for t in metadata.tables for name, condition in conditions(connection, t).items()}
    assert made == {t.name: {str(i.name) for i in t.indexes} for t in metadata.tables.values()}
    wheres = {i.name: i.dialect_options["sqlite"]["where"] for t in metadata.tables.values() for i in t.indexes}
    assert asked == {name: asked_for(where) for name, where in wheres.items() if where is not None}
    assert all(asked.values())
    assert len(asked) == PARTIAL_INDEXES
    engine.dispose()


def test_migrations_go_down_to_nothing_and_up_again(url: str) -> None:
    open_ledger(url).dispose()
    engine = open_engine(parse_url(url))
    with engine.connect() as connection:
        command.downgrade(config_on(connection), "base")
        connection.commit()
        assert inspect(connection).get_table_names() == ["alembic_version"]
        connection.rollback()
        command.upgrade(config_on(connection), "head")
        connection.commit()
    engine.dispose()
    desk = open_desk(url)
    assert desk.table.name == TABLE
    desk.ledger.dispose()


def test_the_head_is_the_newest_script() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD_REVISION]


def test_a_partial_migration_leaves_nothing(sqlite_url: str) -> None:
    """A process that dies half-way leaves a database that the next one can upgrade."""
    engine = open_engine(parse_url(sqlite_url), create=True)
    with engine.connect() as connection:
        command.upgrade(config_on(connection), "0001")
        connection.commit()
        command.upgrade(config_on(connection), "head")
        # Not committed: the process is gone.
    engine.dispose()
    desk = open_desk(sqlite_url)
    assert desk.table.generation == 1
    desk.ledger.dispose()


def test_a_process_that_died_while_it_made_the_file_left_none(sqlite_url: str, tmp_path: Path) -> None:
    for suffix in ("", "-journal", "-wal"):
        (tmp_path / f"ledger.db.new{suffix}").write_bytes(b"half of it")
    assert not ledger_exists(sqlite_url)
    open_desk(sqlite_url).ledger.dispose()
    assert {p.name for p in tmp_path.iterdir()} == {"ledger.db", "ledger.db.upgrade-lock"}


def test_alembic_by_hand_upgrades_the_database_of_the_settings(tmp_path: Path) -> None:
    environ = {k: v for k, v in os.environ.items() if k != "DATABASE_URL"} | {"AUTOLOADER_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"], cwd=ROOT, env=environ, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    engine = open_engine(parse_url(f"sqlite:///{tmp_path}/autoloader.db"))
    assert revision(engine) == HEAD_REVISION
    engine.dispose()


def test_alembic_by_hand_says_what_is_wrong_without_a_traceback(tmp_path: Path) -> None:
    environ = {**os.environ, "AUTOLOADER_HOME": str(tmp_path), "DATABASE_URL": "mysql://u:word@host/d"}
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode != 0
    assert "FAILED: DATABASE_URL names mysql" in said
    assert "Traceback" not in said
    assert ":word@" not in said


def test_a_newer_database_is_refused_and_left_as_it_is(sqlite_url: str, tmp_path: Path) -> None:
    open_ledger(sqlite_url).dispose()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    connection.close()
    with pytest.raises(LedgerVersionError, match=r"9999.*newer"):
        open_ledger(sqlite_url)
    with pytest.raises(LedgerVersionError):
        open_existing_ledger(sqlite_url)
    engine = open_engine(parse_url(sqlite_url))
    assert revision(engine) == "9999"
    engine.dispose()


@pytest.mark.parametrize("opening", [open_ledger, open_existing_ledger])
@pytest.mark.parametrize("size", [100, 4096, 100_000])
def test_a_broken_file_is_an_error_and_never_an_empty_ledger(
    sqlite_url: str, tmp_path: Path, opening: object, size: int
) -> None:
    path = tmp_path / "ledger.db"
    noise = bytes((i * 7919) % 251 for i in range(size))
    path.write_bytes(noise)
    with pytest.raises(LedgerUnreadableError):
        opening(sqlite_url)  # type: ignore[operator]
    assert path.read_bytes() == noise


def test_a_page_that_broke_later_is_an_error(sqlite_url: str, tmp_path: Path) -> None:
    open_desk(sqlite_url).ledger.dispose()
    path = tmp_path / "ledger.db"
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4000)
    with pytest.raises(LedgerUnreadableError):
        open_ledger(sqlite_url)


def test_somebody_elses_database_is_refused_and_left_as_it_is(sqlite_url: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("create table iceberg_tables (name text)")
    connection.close()
    with pytest.raises(LedgerUnreadableError, match=r"not a ledger.*iceberg_tables"):
        open_ledger(sqlite_url)
    engine = open_engine(parse_url(sqlite_url))
    with engine.connect() as opened:
        assert inspect(opened).get_table_names() == ["iceberg_tables"]
    engine.dispose()


def test_a_folder_that_cannot_be_made_or_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file" / "ledger.db", tmp_path / "file" / "deep" / "ledger.db", Path("/proc/ledger.db")):
        with pytest.raises(LedgerUnreadableError, match=r"ledger\.db"):
            open_ledger(f"sqlite:///{place}")


def test_looking_makes_nothing(sqlite_url: str, tmp_path: Path) -> None:
    assert open_existing_ledger(sqlite_url) is None
    assert open_existing_ledger(f"sqlite:///{tmp_path}/no/such/ledger.db") is None
    assert not ledger_exists(sqlite_url)
    assert list(tmp_path.iterdir()) == []
    open_ledger(sqlite_url).dispose()
    assert ledger_exists(sqlite_url)
    found = open_existing_ledger(sqlite_url)
    assert found is not None
    assert found.table(TABLE) is None
    found.dispose()


@pytest.mark.parametrize("opening", [open_ledger, open_existing_ledger])
def test_a_file_that_was_emptied_is_an_error_and_never_an_empty_ledger(
    sqlite_url: str, tmp_path: Path, opening: object
) -> None:
    open_desk(sqlite_url).ledger.dispose()
    (tmp_path / "ledger.db").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(LedgerUnreadableError, match="is empty") as refused:
            opening(sqlite_url)  # type: ignore[operator]
        assert "remove the file" in refused.value.advice


def test_a_file_that_is_gone_under_a_run_does_not_come_back_empty(sqlite_url: str, tmp_path: Path) -> None:
    desk = open_desk(sqlite_url)
    desk.ledger.dispose()
    (tmp_path / "ledger.db").unlink()
    with pytest.raises(LedgerUnreadableError, match="unable to open"):
        desk.record()
    assert not ledger_exists(sqlite_url)


def test_the_log_of_a_file_that_was_removed_is_not_played_into_a_new_one(sqlite_url: str, tmp_path: Path) -> None:
    """Whoever still has the old one open goes on with it, and takes nothing of the new one along when it ends."""
    old = open_desk(sqlite_url)
    old.claim(old.take(), file("a"))
    log = (tmp_path / "ledger.db-wal").stat()
    assert log.st_size
    (tmp_path / "ledger.db").unlink()
    new = open_desk(sqlite_url)
    assert (tmp_path / "ledger.db-wal").stat().st_ino != log.st_ino
    assert (old.ledger.count_open_batches(old.record()), new.ledger.count_open_batches(new.record())) == (1, 0)
    new.claim(new.take(), file("b"))
    old.ledger.dispose()
    again = open_desk(sqlite_url)
    assert again.ledger.count_open_batches(again.record()) == 1
    with again.ledger._read() as connection:
        assert connection.exec_driver_sql("pragma integrity_check").scalar() == "ok"
    new.ledger.dispose()
    again.ledger.dispose()


def test_a_page_that_broke_below_the_first_is_an_error(sqlite_url: str, tmp_path: Path) -> None:
    desk = open_desk(sqlite_url)
    desk.ledger.mark(desk.table, "r", [(file(f"{n:04}"), FileState.SKIPPED) for n in range(500)])
    desk.ledger.dispose()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        (root,) = connection.execute("select rootpage from sqlite_master where name = 'files'").fetchone()
        (size,) = connection.execute("pragma page_size").fetchone()
    connection.close()
    with (tmp_path / "ledger.db").open("r+b") as database_file:
        database_file.seek((root - 1) * size)
        database_file.write(b"\xff" * size)
    opened = open_ledger(sqlite_url)
    with pytest.raises(LedgerUnreadableError, match="malformed"):
        list(opened.files_after(desk.table, ""))
    opened.dispose()


def test_an_address_that_is_none_is_an_error() -> None:
    with pytest.raises(LedgerUnreadableError, match="no database address"):
        open_ledger("nonsense")


@pytest.mark.parametrize("url", ["mysql://user:secret@host/db", "postgresql+asyncpg://user:secret@host/db"])
def test_other_databases_and_drivers_are_refused_and_no_password_is_shown(url: str) -> None:
    with pytest.raises(NotSupportedError) as refused:
        open_ledger(url)
    assert "secret" not in str(refused.value)


def test_processes_that_open_a_new_database_at_once_make_one(sqlite_url: str) -> None:
    for number in range(2):
        new = sqlite_url.replace("ledger.db", f"{number}.db")
        gate = CLEAN.Barrier(20)
        processes = [CLEAN.Process(target=open_and_count, args=(new, gate)) for _ in range(20)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(100)
        assert [p.exitcode for p in processes] == [0] * 20
        desk = open_desk(new)
        assert desk.table.id == 1
        desk.ledger.dispose()


def test_a_database_that_stays_locked_is_busy(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_desk(sqlite_url).ledger.dispose()
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    holder.execute("begin immediate")
    ledger = open_ledger(sqlite_url)
    with pytest.raises(LedgerBusyError, match="locked"):
        ledger.ensure_table("another")
    # Who only reads does not wait for a writer.
    assert ledger.table(TABLE) is not None
    holder.execute("rollback")
    holder.close()
    assert ledger.ensure_table("another").name == "another"
    ledger.dispose()


def test_every_commit_is_on_the_disk_and_readers_wait_for_nobody(sqlite_url: str) -> None:
    ledger = open_ledger(sqlite_url)
    with ledger._engine.connect() as connection:
        assert connection.execute(text("pragma journal_mode")).scalar_one() == "wal"
        assert connection.execute(text("pragma synchronous")).scalar_one() == 2
        assert connection.execute(text("pragma foreign_keys")).scalar_one() == 1
    ledger.dispose()


def test_later_migrations_keep_what_the_first_ledger_has(url: str) -> None:
    """Down and up step by step, on a ledger with rows in it."""
    open_desk(url).ledger.dispose()
    engine = open_engine(parse_url(url))
    steps = (("0002", True, False), ("0001", False, False), ("0002", True, False), ("0003", True, True))
    for number, (wanted, has_table, has_column) in enumerate(steps):
        with engine.connect() as connection:
            (command.downgrade if number < 2 else command.upgrade)(config_on(connection), wanted)
            connection.commit()
            found = inspect(connection)
            assert found.has_table("foreign_ingestions") is has_table
            assert ("earlier" in {c["name"] for c in found.get_columns("batches")}) is has_column
            assert connection.execute(text("select name from tables")).scalar() == TABLE
    engine.dispose()


# By the revision that made them, tables and columns of the service.
SINCE = {
    "0004": {"secrets", "ingestions.document"},
    "0005": {"runs.handed_over_at"},
    "0006": {"tokens", "tables.tenant"},
    "0007": {"events", "run_logs", "counters", "runs.progress", "ingestions.last_success_at"},
    "0008": {"webhooks", "webhook_deliveries"},
    "0009": {"idempotency_keys.made_id"},
}


def _there(connection: Connection) -> set[str]:
    found = inspect(connection)
    columns = {f"{table}.{column['name']}" for table in found.get_table_names() for column in found.get_columns(table)}
    return {what for whats in SINCE.values() for what in whats if what in columns or found.has_table(what)}


def test_the_services_tables_go_and_come_and_the_ledger_stays(url: str, tmp_path: Path) -> None:
    """Down and up with an ingestion that has loaded: its batches stay ours whatever becomes of the rest."""
    store = ServiceDesk(url, tmp_path).open()
    made = store.add_ingestion(new_ingestion(credentials={"aws_access_key_id": "x" * 20}))
    claim(store, take(store, queue(store, made)), "a.json")
    store.dispose()
    engine = open_engine(parse_url(url))
    downs = [(command.downgrade, number) for number in sorted({"0003", *SINCE} - {HEAD_REVISION}, reverse=True)]
    for move, wanted in (*downs, *((command.upgrade, number) for number in SINCE)):
        with engine.connect() as connection:
            move(config_on(connection), wanted)
            connection.commit()
            assert _there(connection) == {what for number, found in SINCE.items() if number <= wanted for what in found}
            rows = (
                "select (select count(*) from ingestions), (select count(*) from runs), (select count(*) from batches)"
            )
            assert tuple(connection.execute(text(rows)).one()) == (1, 1, 1)
    engine.dispose()
    store = ServiceDesk(url, tmp_path).open()
    record = store.table("local.db.t")
    assert record is not None
    assert store.committed_batches(record) == {made.id: 1}
    store.dispose()
