"""Many processes at once on one table: every row is there once; everybody loads, waits, or is told who is at work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.destinations.catalog import IcebergCatalog
from app.domain.table import last_batches
from tests.crash.neighbours import STRANGE
from tests.crash.truths import assert_exact, catalog_properties, name_of, rows
from tests.support.command import ROOT
from tests.support.events import event_files
from tests.support.postgres import Postgres
from tests.support.seaweed import Seaweed
from tests.support.worlds import World, make_world

TIMEOUT_S = 700
# Many processes on few cores take their time.
pytestmark = pytest.mark.timeout(1_500)
FILES = 12
# So that a run makes several commits.
SMALL = {"AUTOLOADER_BATCH_FILES": "2"}


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path, seaweed: Seaweed) -> World:
    made = make_world(request.param, tmp_path, seaweed)
    made.home.environ |= SMALL
    return made


@contextmanager
def landing(world: World, first: int, last: int) -> Iterator[None]:
    """Files land one after the other while the block runs; when it ends, all of them are there."""

    def land() -> None:
        for number in range(first, last):
            # Whole at once, as a tool that writes to a folder must: a half file would be another version.
            (name, data), = event_files(number).items()  # fmt: skip
            path = Path(world.source) / name
            path.parent.mkdir(exist_ok=True)
            hidden = path.with_name(f".{path.name}")
            hidden.write_bytes(data)
            hidden.rename(path)
            stop.wait(0.15)

    stop = threading.Event()
    thread = threading.Thread(target=land)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def loads(world: World, count: int, *, wait_s: int = 600) -> list[subprocess.Popen[str]]:
    arguments = ("load", world.source, "--to", world.table, "--wait", str(wait_s), "--output", "json")
    return [world.home.process(*arguments) for _ in range(count)]


def neighbour(world: World, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.crash.neighbours", *arguments],
        cwd=world.home.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | world.home.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def busy(world: World, *works: str) -> Iterator[None]:
    """Others at work on the table until the block ends; each of them has been at it once by then."""
    name = name_of(world)
    others = [neighbour(world, work, name.catalog, name.within_catalog) for work in works]
    for other in others:
        assert other.stdin is not None
        other.stdin.write(json.dumps(catalog_properties(world)))
        other.stdin.close()
    try:
        yield
        for other in others:
            assert other.stdout is not None
            assert other.stdout.readline().strip() == "1", other.stderr and other.stderr.read()
    finally:
        for other in others:
            other.kill()
            other.wait()
            for pipe in (other.stdout, other.stderr):
                assert pipe is not None
                pipe.close()


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    """A load's report: it went through, or was told that another one is at work."""
    stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    report: dict[str, Any] = json.loads(stdout)
    if report["status"] != "success":
        assert [e["category"] for e in report["errors"]] == ["run_in_progress"], f"{report}\n{stderr}"
    return report


@pytest.mark.parametrize(("world", "count"), [("local-local", 2), ("local-rest", 8)], indirect=["world"])
def test_loaders_at_once_while_files_land(world: World, count: int) -> None:
    """From nothing: no table, no ledger, no warehouse."""
    world.land(event_files(0, 1))
    with landing(world, 2, FILES):
        reports = [ended(process) for process in loads(world, count)]
    assert [r["status"] for r in reports] == ["success"] * count
    reports += [ended(*loads(world, 1))]
    assert sum(r["files"]["loaded"] for r in reports) == FILES
    assert_exact(world, range(FILES))


@pytest.mark.parametrize("world", ["local-local"], indirect=True)
def test_who_does_not_wait_is_told_who_is_at_work(world: World) -> None:
    world.land(event_files(0, 1))
    with landing(world, 2, FILES):
        reports = [ended(process) for process in loads(world, 3, wait_s=0)]
    assert any(r["status"] == "success" for r in reports)
    ended(*loads(world, 1))
    assert_exact(world, range(FILES))


@pytest.mark.parametrize("world", ["local-local"], indirect=True)
def test_loaders_at_once_with_the_ledger_in_postgresql(world: World, postgres: Postgres, migrated: str) -> None:
    world.home.environ["DATABASE_URL"] = postgres.copy_database(migrated)
    world.land(event_files(0, 1))
    with landing(world, 2, FILES):
        seconds = [neighbour(world, "second", world.source, "*.json", world.table) for _ in range(2)]
        reports = [ended(process) for process in (*loads(world, 2), *seconds)]
    reports += [ended(*loads(world, 1))]
    assert sum(r["files"]["loaded"] for r in reports) == FILES
    assert_exact(world, range(FILES))


@pytest.mark.parametrize("world", ["local-local", "local-rest"], indirect=True)
def test_two_ingestions_among_writers_and_upkeep(world: World) -> None:
    """Two ingestions over files that they share; snapshots expire under them; somebody else appends meanwhile."""
    world.land(event_files(0, 1))
    world.home.json("load", world.source, "--to", world.table)
    with busy(world, "write", "expire"), landing(world, 2, FILES):
        seconds = [neighbour(world, "second", world.source, "*[0-5].json", world.table) for _ in range(2)]
        reports = [ended(process) for process in (*loads(world, 2), *seconds)]
    reports += [ended(*loads(world, 1))]
    assert [r["status"] for r in reports] == ["success"] * 5
    # The table holds the first two; nothing was loaded by both.
    assert sum(r["files"]["loaded"] for r in reports) == FILES - 2
    assert_exact(world, range(FILES))
    # The other writer's rows are there too, each once.
    (strange,) = rows(world, f"select count(*) n, count(distinct id) ids from t where id >= {STRANGE} and true")
    assert strange["n"] == strange["ids"] > 0
    name = name_of(world)
    catalog = IcebergCatalog(name.catalog, catalog_properties(world))
    head = catalog.head(name)
    catalog.close()
    assert head is not None
    assert len(last_batches(head.properties)) == 2
    assert head.history_cut
