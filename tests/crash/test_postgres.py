"""The ledger in PostgreSQL: loads are killed, the server is killed in the middle of a load, and no row is doubled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.test_failpoints import FILES, LATER, assert_equal_to_files, load_and_die
from tests.support.command import TIMEOUT_S
from tests.support.events import event_files
from tests.support.postgres import Postgres, migrated_database, start_postgres, stop_postgres
from tests.support.seaweed import Seaweed
from tests.support.servers import free_ports
from tests.support.worlds import World, make_world


@pytest.fixture
def world(tmp_path: Path, seaweed: Seaweed, postgres: Postgres, migrated: str) -> World:
    """Files on disk, the built-in catalog, the ledger in PostgreSQL."""
    made = make_world("local-local", tmp_path, seaweed)
    made.home.environ["DATABASE_URL"] = postgres.copy_database(migrated)
    return made


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A server that may be killed."""
    started = start_postgres()
    yield started
    stop_postgres(started)


@pytest.fixture
def fragile(world: World, server: Postgres) -> World:
    """The same on a server that may be killed, with files of two loads: one is done, one is to come."""
    world.home.environ["DATABASE_URL"] = migrated_database(server)
    world.land(event_files(*FILES))
    world.home.json("load", world.source, "--to", world.table)
    world.land(event_files(*LATER, region="north"))
    return world


def load_and_stop(world: World, failpoint: str) -> subprocess.Popen[str]:
    """A load that stands still at the failpoint."""
    process = world.home.process(
        "load", world.source, "--to", world.table, "--output", "json",
        environ={"AUTOLOADER_FAILPOINT": f"{failpoint}:stop"},
    )  # fmt: skip
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"{failpoint} was not reached"
    return process


def go_on(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    """Let it go on to its end; its exit status and report."""
    process.send_signal(signal.SIGCONT)
    stdout, _ = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, json.loads(stdout)


@pytest.mark.parametrize(
    "failpoint", ["lease_taken", "batch_claimed", "commit_attempt", "committed", "batch_closed", "lease_released"]
)
def test_killed(world: World, failpoint: str) -> None:
    world.land(event_files(*FILES))
    load_and_die(world, failpoint)
    world.land(event_files(*LATER))
    assert world.home.json("load", world.source, "--to", world.table)["status"] == "success"
    assert_equal_to_files(world, FILES + LATER)
    assert not (world.home.folder / "autoloader.db").exists()


@pytest.mark.parametrize("failpoint", ["lease_taken", "batch_claimed", "data_written", "commit_attempt", "committed"])
def test_the_server_is_killed_under_a_load(fragile: World, server: Postgres, failpoint: str) -> None:
    process = load_and_stop(fragile, failpoint)
    server.kill()
    status, report = go_on(process)
    assert (status, report["status"]) == (1, "failed")
    (error,) = report["errors"]
    assert error["category"] == "ledger_unreachable"
    assert "does not answer" in error["message"]
    server.start()
    assert fragile.home.json("load", fragile.source, "--to", fragile.table)["status"] == "success"
    assert_equal_to_files(fragile, FILES + LATER)


@pytest.mark.parametrize("failpoint", ["batch_claimed", "committed"])
def test_the_server_is_back_before_anybody_asks(fragile: World, server: Postgres, failpoint: str) -> None:
    process = load_and_stop(fragile, failpoint)
    server.kill()
    server.start()
    status, report = go_on(process)
    assert (status, report["status"], report["files"]["loaded"]) == (0, "success", len(LATER))
    assert_equal_to_files(fragile, FILES + LATER)


def refused(world: World, *arguments: str, url: str) -> dict[str, Any]:
    error: dict[str, Any] = world.home.json(*arguments, status=1, environ={"DATABASE_URL": url})
    return error


def test_a_ledger_that_cannot_be_had_starts_nothing(world: World, postgres: Postgres) -> None:
    world.land(event_files(*FILES))
    empty, (port,) = postgres.create_database(), free_ports(1)
    for url, code in (
        (f"postgresql://me:hush@127.0.0.1:{port}/db", "ledger_unreachable"),
        (empty.replace(postgres.password, "hush"), "ledger_unreadable"),
        (empty, "ledger_version"),
    ):
        for arguments in (
            ("load", world.source, "--to", world.table),
            ("plan", world.source, "--to", world.table),
            ("files", world.table),
            ("ledger", "clear", world.table, "--yes"),
        ):
            error = refused(world, *arguments, url=url)
            assert error["code"] == code, error
            assert "hush" not in str(error)
    assert not (world.home.folder / "warehouse").exists()


def test_a_read_only_database_loads_nothing_and_can_be_looked_at(world: World, postgres: Postgres) -> None:
    world.land(event_files(*FILES))
    world.home.json("load", world.source, "--to", world.table)
    name = world.home.environ["DATABASE_URL"].rpartition("/")[2]
    postgres.execute(f"alter database {name} set default_transaction_read_only = on")
    world.land(event_files(*LATER))
    error = refused(world, "load", world.source, "--to", world.table, url=world.home.environ["DATABASE_URL"])
    assert error["code"] == "ledger_unreadable"
    assert "read-only" in error["detail"]
    assert_equal_to_files(world, FILES)
    postgres.execute(f"alter database {name} set default_transaction_read_only = off")
    world.home.json("load", world.source, "--to", world.table)
    assert_equal_to_files(world, FILES + LATER)
