"""Ledger and table are held against each other, and mended, through the command line."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table

from app.domain.history import KEEP, LEAST_GOING, MOST, NEW_TABLE_HISTORY
from tests.support.command import Home
from tests.support.events import event_files
from tests.support.seaweed import Seaweed
from tests.support.worlds import World, make_world


@pytest.fixture(params=["local-local", "s3-rest"])
def world(request: pytest.FixtureRequest, tmp_path: Path, seaweed: Seaweed) -> World:
    return make_world(request.param, tmp_path, seaweed)


@pytest.fixture
def home(world: World) -> Home:
    return world.home


def by_hand(world: World, work: Callable[[Table], None]) -> None:
    """Another program writes to the table."""
    name, *identifier = (
        world.table.split(".") if world.table.startswith("rest.") else ["local", *world.table.split(".")]
    )
    if name == "local":
        warehouse = world.home.folder / "warehouse"
        properties = {"type": "sql", "uri": f"sqlite:///{warehouse}/catalog.db", "warehouse": str(warehouse)}
    else:
        prefix = "PYICEBERG_CATALOG__REST__"
        properties = {
            k.removeprefix(prefix).lower().replace("__", ".").replace("_", "-"): v
            for k, v in world.home.environ.items()
            if k.startswith(prefix)
        }
    catalog = load_catalog(name, **properties)
    try:
        work(catalog.load_table(tuple(identifier)))
    finally:
        catalog.close()


def counts(report: dict[str, Any]) -> dict[str, int]:
    return {kind: found["count"] for kind, found in report["differences"].items() if found["count"]}


# --- check ------------------------------------------------------------------------------------------------------------


def test_a_check_finds_what_others_did_to_the_table(world: World, home: Home) -> None:
    world.land(event_files(0, 1))
    home.json("load", world.source, "--to", world.table)
    report = home.json("ledger", "check", world.table, world.source)
    assert report["equal"]
    assert report["files"] == {"listed": 2, "ledger": 2, "table": 2}
    assert report["rows"] == {"ledger": 2000, "table": 2000, "of_no_file": 0}

    # A pattern that nothing matches proves nothing.
    mistyped = ("ledger", "check", world.table, world.source, "--file-pattern", "*.jsno")
    report = home.json(*mistyped, "--format", "json", status=1)
    assert (report["equal"], report["files"]["listed"], counts(report), len(report["warnings"])) == (False, 0, {}, 1)
    text = home.run(*mistyped)
    assert (text.status, "NOT proven" in text.stdout, "Nothing was listed" in text.stderr) == (1, True, True)

    by_hand(world, lambda table: table.delete("id = 5"))
    report = home.json("ledger", "check", world.table, world.source, status=1)
    assert counts(report) == {"rows_differ": 1}
    (row,) = report["differences"]["rows_differ"]["files"]
    assert row["path"].endswith("/data/batch_0.json")
    assert (row["rows_ledger"], row["rows_table"]) == (1000, 999)

    by_hand(world, lambda table: table.append(table.scan(row_filter="id = 1500").to_arrow()))
    by_hand(world, lambda table: table.delete("id < 1000"))
    world.land(event_files(2))
    report = home.json("ledger", "check", world.table, world.source, status=1)
    assert counts(report) == {"not_loaded": 1, "not_in_table": 1, "rows_differ": 1}
    assert counts(home.json("ledger", "check", world.table, status=1)) == {"not_in_table": 1, "rows_differ": 1}
    text = home.run("ledger", "check", world.table, world.source)
    assert text.status == 1
    assert "are NOT equal" in text.stdout
    assert "batch_2.json" in text.stdout


# --- sweep ------------------------------------------------------------------------------------------------------------

# Leases that are over at once, so that what was left just now is old enough.
SHORT = {"AUTOLOADER_LEASE_S": "0.01"}
# One that outlives the test, so that nothing is. Who died is known by its process.
LONG = {"AUTOLOADER_LEASE_S": "3600"}


def data_names(world: World) -> set[str]:
    """Every data file that lies beside the table."""
    names: set[str] = set()

    def look(table: Table) -> None:
        if world.seaweed is None:
            names.update(p.name for p in Path(table.location(), "data").iterdir())
        else:
            bucket, _, prefix = table.location().removeprefix("s3://").partition("/")
            listed = world.seaweed.store(bucket).list(f"{prefix}/data")
            found = {str(o["path"]).rpartition("/")[2] for page in listed for o in page}
            # Removing an object may leave a marker of its folder.
            names.update(name for name in found if name.endswith(".parquet"))

    by_hand(world, look)
    return names


def names_in_use(world: World) -> set[str]:
    names: set[str] = set()
    by_hand(world, lambda t: names.update(p.rpartition("/")[2] for p in t.inspect.all_files()["file_path"].to_pylist()))
    return names


def grow_old(world: World, names: set[str]) -> None:
    """Let these data files be older than a lease."""
    if world.seaweed is not None:
        # On an object store no hour can be made to pass, so the lease is a short one, which loads outlive yet.
        world.home.environ["AUTOLOADER_LEASE_S"] = "20"
        time.sleep(20)
        return

    def touch(table: Table) -> None:
        for name in names:
            os.utime(Path(table.location(), "data", name), (time.time() - 3600,) * 2)

    by_hand(world, touch)


def test_a_sweep_leaves_no_orphan_and_takes_no_other_file(world: World, home: Home) -> None:
    home.environ.update(LONG)
    world.land(event_files(0))
    home.json("load", world.source, "--to", world.table)
    world.land(event_files(1))
    for failpoint in ("data_written", "manifest_written", "commit_request:before", "committed"):
        done = home.run("load", world.source, "--to", world.table, environ={"AUTOLOADER_FAILPOINT": failpoint})
        assert done.status == -signal.SIGKILL
    before = data_names(world)
    open_batch = home.json("sweep", world.table, environ=SHORT)
    assert open_batch["data_files"] == []
    assert home.json("load", world.source, "--to", world.table)["files"]["loaded"] == 1
    # A file of a snapshot that is not current is in use; one of another program is that program's.
    by_hand(world, lambda table: table.append(table.scan(row_filter="id = 1500").to_arrow()))
    by_hand(world, lambda table: table.delete("id = 1500"))
    in_use = names_in_use(world)
    orphans = data_names(world) - in_use
    assert len(orphans) == 3
    assert orphans < before

    assert home.json("sweep", world.table)["data_files"] == []
    planned = home.json("sweep", world.table, "--dry-run", environ=SHORT)
    assert planned["dry_run"]
    assert {f["path"].rpartition("/")[2] for f in planned["data_files"]} == orphans
    assert len(planned["manifests"]) == 2
    assert data_names(world) == in_use | orphans
    swept = home.json("sweep", world.table, environ=SHORT)
    assert swept["bytes"] == planned["bytes"] > 0
    assert data_names(world) == in_use
    again = home.json("sweep", world.table, environ=SHORT)
    assert (again["data_files"], again["manifests"]) == ([], [])
    assert home.query(world.table, f"select count(*) n, count(distinct id) ids from {world.table}") == [
        {"n": 1999, "ids": 1999}
    ]


def test_a_recovery_sweeps_by_itself(world: World, home: Home) -> None:
    world.land(event_files(0))
    home.json("load", world.source, "--to", world.table)
    world.land(event_files(1))
    home.run("load", world.source, "--to", world.table, environ={"AUTOLOADER_FAILPOINT": "commit_request:before"})
    assert len(data_names(world)) == 2
    grow_old(world, data_names(world) - names_in_use(world))
    assert home.json("load", world.source, "--to", world.table)["files"]["loaded"] == 1
    assert data_names(world) == names_in_use(world)


def test_old_snapshots_go_by_themselves_and_a_sweep_takes_what_they_left(world: World, home: Home) -> None:
    for number in range(LEAST_GOING):
        world.land(event_files(number))
    home.json("load", world.source, "--to", world.table, environ={"AUTOLOADER_BATCH_FILES": "1"})
    properties = home.json("table", world.table)["properties"]
    assert NEW_TABLE_HISTORY.items() <= properties.items()
    assert home.json("table", world.table)["snapshots"] == LEAST_GOING

    def ask(table: Table) -> None:
        with table.transaction() as transaction:
            transaction.set_properties({KEEP: "1", MOST: "1"})

    by_hand(world, ask)
    world.land(event_files(LEAST_GOING))
    home.json("load", world.source, "--to", world.table)
    assert home.json("table", world.table)["snapshots"] == 1
    assert home.json("sweep", world.table)["metadata_files"] == []
    if world.seaweed is None:
        # On an object store an hour cannot be made to pass.
        (note,) = Path(properties["autoloader.manifests"], "expired").iterdir()
        os.utime(note, (time.time() - 3601,) * 2)
        planned = home.json("sweep", world.table, "--dry-run")
        assert len(planned["metadata_files"]) == LEAST_GOING + 1
        assert planned["bytes"] == sum(f["bytes"] for f in planned["metadata_files"]) > 0
        text = home.run("sweep", world.table)
        assert text.stdout.splitlines()[-1].startswith("Removed 11 files of expired snapshots, 0 data files and 0 man")
        assert set(text.stdout.splitlines()[:-1]) == {f["path"] for f in planned["metadata_files"]}
    rows = home.query(world.table, f"select count(*) n, count(distinct id) ids from {world.table}")
    assert rows == [{"n": 11_000, "ids": 11_000}]
    check = home.json("ledger", "check", world.table, world.source)
    assert check["equal"]


# --- rebuild ----------------------------------------------------------------------------------------------------------


def lose_the_database(home: Home) -> None:
    for file in home.folder.glob("autoloader.db*"):
        file.unlink()


def test_a_lost_database_loads_nothing_twice(world: World, home: Home) -> None:
    world.land({**event_files(0), "data/broken.json": b"{nonsense\n", "data/empty.json": b""})
    home.json("load", world.source, "--to", world.table, status=3)
    world.land(event_files(1))
    home.json("load", world.source, "--to", world.table)
    before = home.json("files", world.table)
    lose_the_database(home)

    again = home.json("load", world.source, "--to", world.table)
    assert again["files"] == {"loaded": 0, "failed": 0, "skipped": 1, "known": 2}
    told = ("path", "version", "state", "rows", "category", "message", "tries")
    after = home.json("files", world.table)
    assert [{name: f[name] for name in told} for f in after] == [{name: f[name] for name in told} for f in before]

    lose_the_database(home)
    world.land(event_files(2))
    new = home.json("load", world.source, "--to", world.table)
    assert (new["files"]["loaded"], new["files"]["known"]) == (1, 2)
    count = f"select count(*) n, count(distinct id) ids, sum(id) total from {world.table}"
    assert home.query(world.table, count) == [{"n": 3000, "ids": 3000, "total": sum(range(3000))}]
    report = home.json("ledger", "check", world.table, world.source, status=1)
    assert counts(report) == {"failed": 1}


def test_a_ledger_is_rebuilt_by_command(world: World, home: Home) -> None:
    for number in range(2):
        world.land(event_files(number))
        home.json("load", world.source, "--to", world.table)
    lose_the_database(home)
    rebuilt = home.json("ledger", "rebuild", world.table)
    assert (rebuilt["batches"], rebuilt["rows"]) == (2, 2000)
    assert rebuilt["files"] == {"loaded": 2, "failed": 0, "known_by_rows": 0}
    assert rebuilt["warnings"] == []
    assert home.json("ledger", "rebuild", world.table)["batches"] == 0
    assert home.json("ledger", "check", world.table, world.source)["equal"]
    assert "was given 0 batches" in home.run("ledger", "rebuild", world.table).stdout


def test_without_manifests_and_snapshots_the_rows_tell(world: World, home: Home) -> None:
    for number in range(2):
        world.land(event_files(number))
        home.json("load", world.source, "--to", world.table)
    manifests: list[str] = []
    by_hand(world, lambda table: manifests.extend(_manifests_of(table)))
    assert len(manifests) == 2

    def lose_manifests(table: Table) -> None:
        for path in manifests:
            table.io.delete(path)

    by_hand(world, lose_manifests)
    lose_the_database(home)
    again = home.json("load", world.source, "--to", world.table)
    assert (again["files"]["loaded"], again["files"]["known"]) == (0, 2)
    assert "by their rows" in again["warnings"][0]
    world.land(event_files(2))
    assert home.json("load", world.source, "--to", world.table)["files"] == {
        "loaded": 1,
        "failed": 0,
        "skipped": 0,
        "known": 2,
    }
    assert home.json("ledger", "check", world.table, world.source)["equal"]


def _manifests_of(table: Table) -> list[str]:
    return [str(s.summary["autoloader.manifest"]) for s in table.metadata.snapshots if s.summary]


def test_an_older_copy_of_the_database_catches_up(world: World, home: Home) -> None:
    world.land(event_files(0))
    home.json("load", world.source, "--to", world.table)
    copy = home.folder / "copy"
    with closing(sqlite3.connect(home.folder / "autoloader.db")) as now, closing(sqlite3.connect(copy)) as then:
        now.backup(then)
    for number in (1, 2):
        world.land(event_files(number))
        home.json("load", world.source, "--to", world.table)
    lose_the_database(home)
    copy.rename(home.folder / "autoloader.db")
    world.land(event_files(3))
    done = home.json("load", world.source, "--to", world.table)
    assert (done["files"]["loaded"], done["files"]["known"]) == (1, 3)
    assert home.json("ledger", "check", world.table, world.source)["equal"]


def test_batches_of_nobody_are_adopted_or_not_ours(world: World, home: Home) -> None:
    world.land(event_files(0))
    home.json("load", world.source, "--to", world.table)
    names: list[str] = []

    def forget(table: Table) -> None:
        names.append(table.properties["autoloader.load-ingestion"])
        with table.transaction() as transaction:
            transaction.remove_properties("autoloader.load-ingestion")

    by_hand(world, forget)
    lose_the_database(home)
    refused = home.json("load", world.source, "--to", world.table, status=1)
    assert refused["code"] == "ledger_behind_table"
    assert f"--adopt {names[0]}" in refused["remedy"]
    assert home.json("ledger", "rebuild", world.table, "--adopt", "nobody", status=2)["code"] == "invalid_field"
    rebuilt = home.json("ledger", "rebuild", world.table, "--adopt", names[0])
    assert (rebuilt["ingestions"], rebuilt["files"]["loaded"]) == (names, 1)
    assert home.json("load", world.source, "--to", world.table)["files"]["known"] == 1

    lose_the_database(home)
    home.json("ledger", "rebuild", world.table, "--not-ours", names[0])
    # Another installation's files are not this one's: it loads what it is told to.
    assert home.json("load", world.source, "--to", world.table)["files"]["loaded"] == 1
