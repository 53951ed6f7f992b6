from __future__ import annotations

import os
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
from app.persistence import database
from app.persistence.database import HEAD_REVISION, migrations_folder, open_engine, parse_url, revision
from app.persistence.ledger import ledger_exists, open_existing_ledger, open_ledger
from app.persistence.schema import metadata
from tests.unit.persistence.desk import CLEAN, TABLE, open_and_count, open_desk

ROOT = Path(__file__).parents[3]


def config_on(connection: object) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.attributes["connection"] = connection
    return config


def indexes(connection: Connection, table: str) -> set[str | None]:
    """Names of the indexes that are not made for a constraint."""
    return {i["name"] for i in inspect(connection).get_indexes(table) if "duplicates_constraint" not in i}


def test_migrations_make_what_the_program_reads(url: str) -> None:
    open_ledger(url).dispose()
    engine = open_engine(parse_url(url))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        made = {t: indexes(connection, t) for t in metadata.tables}
    assert made == {t.name: {str(i.name) for i in t.indexes} for t in metadata.tables.values()}
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
    engine = open_engine(parse_url(sqlite_url))
    with engine.connect() as connection:
        command.upgrade(config_on(connection), "head")
        # Not committed: the process is gone.
    engine.dispose()
    desk = open_desk(sqlite_url)
    assert desk.table.generation == 1
    desk.ledger.dispose()


def test_alembic_by_hand_upgrades_the_database_of_the_settings(tmp_path: Path) -> None:
    environ = {k: v for k, v in os.environ.items() if k != "DATABASE_URL"} | {"AUTOLOADER_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"], cwd=ROOT, env=environ, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    engine = open_engine(parse_url(f"sqlite:///{tmp_path}/autoloader.db"))
    assert revision(engine) == HEAD_REVISION
    engine.dispose()


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


def test_an_empty_file_is_no_ledger_to_look_at(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    with pytest.raises(LedgerVersionError, match="none"):
        open_existing_ledger(sqlite_url)


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


def test_the_second_migration_keeps_what_the_first_ledger_has(url: str) -> None:
    """Up and down by one step, on a ledger with rows in it."""
    open_desk(url).ledger.dispose()
    engine = open_engine(parse_url(url))
    for step, tables in ((command.downgrade, False), (command.upgrade, True)):
        with engine.connect() as connection:
            step(config_on(connection), "0001" if step is command.downgrade else "0002")
            connection.commit()
            assert inspect(connection).has_table("foreign_ingestions") is tables
            assert connection.execute(text("select name from tables")).scalar() == TABLE
    engine.dispose()
