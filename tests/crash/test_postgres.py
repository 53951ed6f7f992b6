"""The ledger in PostgreSQL: loads are killed, the server is killed in the middle of a load, and no row is doubled."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.crash.scenes import Scene, unstalled
from tests.support.events import event_files
from tests.support.forked import Template
from tests.support.postgres import Postgres, migrated_database, start_postgres, stop_postgres
from tests.support.seaweed import Seaweed
from tests.support.servers import free_ports
from tests.support.worlds import World, make_world

FILES = (0, 1, 2)
LATER = (3, 4)


@pytest.fixture
def new_scene(forks: Template, tmp_path: Path, postgres: Postgres, migrated: str) -> Iterator[Callable[[], Scene]]:
    """Makes scenes: files on disk, the built-in catalog, the ledger in PostgreSQL."""
    with ExitStack() as stack:

        def make() -> Scene:
            scene = Scene(forks, tmp_path / uuid.uuid4().hex, database_url=postgres.copy_database(migrated))
            stack.callback(scene.close)
            return scene

        yield make


@pytest.fixture
def scene(new_scene: Callable[[], Scene]) -> Scene:
    return new_scene()


@pytest.fixture
def world(tmp_path: Path, seaweed: Seaweed, postgres: Postgres, migrated: str) -> World:
    """The same, for the command line."""
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
def fragile(scene: Scene, server: Postgres) -> Scene:
    """The same on a server that may be killed, with files of two loads: one is done, one is to come."""
    scene.database_url = migrated_database(server)
    scene.land(*FILES)
    scene.load()
    scene.land(*LATER, region="north")
    return scene


@pytest.mark.parametrize(
    "failpoint",
    [
        "lease_taken",
        "batch_claimed",
        "commit_request:before",
        "committed",
        "close_committed:before",
        "close_committed:after",
        "lease_released",
    ],
)
def test_killed(new_scene: Callable[[], Scene], failpoint: str) -> None:
    def died() -> Scene:
        scene = new_scene()
        scene.land(*FILES)
        scene.load_and_die(failpoint)
        return scene

    scene = unstalled(died)
    scene.land(*LATER)
    scene.load()
    scene.assert_exact()
    assert not (scene.home / "autoloader.db").exists()


@pytest.mark.parametrize(
    "failpoint", ["lease_taken", "batch_claimed", "data_written", "commit_request:before", "committed"]
)
def test_the_server_is_killed_under_a_load(fragile: Scene, server: Postgres, failpoint: str) -> None:
    run = fragile.paused(f"{failpoint}:pause")
    server.kill()
    run.go_on()
    assert run.wait() == 1
    assert run.json["status"] == "failed"
    (error,) = run.json["errors"]
    assert error["category"] == "ledger_unreachable"
    assert "does not answer" in error["message"]
    server.start()
    fragile.load()
    fragile.assert_exact()


@pytest.mark.parametrize("failpoint", ["batch_claimed", "committed"])
def test_the_server_is_back_before_anybody_asks(fragile: Scene, server: Postgres, failpoint: str) -> None:
    run = fragile.paused(f"{failpoint}:pause")
    server.kill()
    server.start()
    run.go_on()
    assert run.wait() == 0, run.stdout
    assert run.json["files"]["loaded"] == len(LATER)
    fragile.assert_exact()


def highest_epoch(scene: Scene) -> int:
    with scene.catalog() as catalog:
        head = catalog.head(scene.table)
    assert head is not None
    return max(int(value) for name, value in head.properties.items() if name.endswith(".epoch"))


@pytest.mark.parametrize("which", ["of an hour ago", "made anew"])
def test_another_copy_of_the_database_adopts_what_the_table_has(
    scene: Scene, postgres: Postgres, migrated: str, which: str
) -> None:
    scene.land(*FILES)
    scene.load()
    copy = postgres.copy_database(scene.database_url if which == "of an hour ago" else migrated)
    scene.land(*LATER)
    scene.load()
    seen = highest_epoch(scene)
    scene.database_url = copy
    scene.land(5)
    files = scene.load().json["files"]
    assert (files["loaded"], files["known"]) == (1, len(FILES) + len(LATER))
    assert highest_epoch(scene) > seen
    scene.assert_exact()


def test_a_database_that_lost_a_table_is_never_taken_for_an_empty_ledger(scene: Scene, postgres: Postgres) -> None:
    scene.land(*FILES)
    scene.load()
    postgres.execute("alter table files rename to lost", scene.database_url)
    scene.land(*LATER)
    assert scene.load(status=1).json["code"] == "ledger_unreadable"
    postgres.execute("alter table lost rename to files", scene.database_url)
    scene.load()
    scene.assert_exact()


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
    assert len(world.home.json("files", world.table)) == len(FILES)
    postgres.execute(f"alter database {name} set default_transaction_read_only = off")
    assert world.home.json("load", world.source, "--to", world.table)["files"]["loaded"] == len(LATER)
    assert len(world.home.json("files", world.table)) == len(FILES + LATER)
