"""Bad input gets an error with a code and a remedy, and nothing is half written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Home
from tests.support.events import event_file, event_files
from tests.support.seaweed import Seaweed
from tests.support.worlds import World, make_world

TABLE = "sales.orders"


@pytest.fixture
def place(tmp_path: Path, seaweed: Seaweed) -> World:
    """Files on disk, the SQLite catalog."""
    return make_world("local-local", tmp_path, seaweed)


def refused(home: Home, *arguments: str, status: int = 1, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a command that must be refused; its JSON has a code, says what is wrong and what to do."""
    document: dict[str, Any] = home.json(*arguments, status=status, environ=environ)
    if "errors" in document:
        assert document["status"] == "failed"
        (error,) = document["errors"]
        document = {"code": error["category"], "detail": error["message"], "remedy": error["message"]}
    assert document["detail"]
    assert document["remedy"]
    return document


def is_untouched(home: Home) -> bool:
    return not list(home.folder.iterdir())


def test_a_missing_folder(place: World) -> None:
    error = refused(place.home, "load", "./nowhere", "--to", TABLE)
    assert error["code"] == "path_not_found"
    assert "nowhere" in error["detail"]
    assert is_untouched(place.home)


def test_no_file_matches(place: World) -> None:
    place.land({"notes.md": b"hello"})
    error = refused(place.home, "load", f"{place.source}/*.json", "--to", TABLE)
    assert error["code"] == "no_match"
    assert is_untouched(place.home)


def test_a_folder_that_mixes_formats(place: World) -> None:
    place.land({"a.json": b"{}", "b.csv": b"x\n1\n"})
    error = refused(place.home, "load", place.source, "--to", TABLE, status=2)
    assert error["code"] == "mixed_formats"
    assert "json" in error["detail"]
    assert "csv" in error["detail"]
    assert is_untouched(place.home)


def test_names_that_tell_no_format(place: World) -> None:
    place.land({"part-0000": b'{"a": 1}\n'})
    error = refused(place.home, "load", place.source, "--to", TABLE, status=2)
    assert "--format" in error["remedy"]
    assert place.home.json("load", place.source, "--to", TABLE, "--format", "json")["files"]["loaded"] == 1


def test_a_pattern_that_the_shell_expanded(place: World) -> None:
    error = refused(place.home, "load", "a.json", "b.json", "--to", TABLE, status=2)
    assert "quote the pattern" in error["remedy"]


def test_what_is_not_built_is_refused_by_name(place: World) -> None:
    place.land(event_files(0))
    error = refused(place.home, "load", place.source, "--to", TABLE, "--write-mode", "merge", status=2)
    assert (error["code"], "destination.write_mode" in error["detail"]) == ("not_supported", True)
    error = refused(place.home, "load", "sftp://host/x", "--to", TABLE, status=2)
    assert error["code"] == "not_supported"
    assert is_untouched(place.home)


def test_a_missing_bucket_and_a_wrong_key(seaweed: Seaweed, tmp_path: Path, bucket: str) -> None:
    home = Home(tmp_path / "home", dict(seaweed.environ))
    home.folder.mkdir()
    error = refused(home, "load", "s3://no-such-bucket-here/x/", "--to", TABLE)
    assert error["code"] == "bucket_not_found"
    secret = "wrong-secret-that-nobody-may-see"
    wrong = {"AWS_SECRET_ACCESS_KEY": secret}
    done = home.run("load", f"s3://{bucket}/x/", "--to", TABLE, "--output", "json", environ=wrong)
    assert done.status == 1
    assert done.json["code"] == "auth"
    assert secret not in done.stdout + done.stderr
    assert is_untouched(home)


def test_a_store_that_does_not_answer(tmp_path: Path) -> None:
    home = Home(tmp_path)
    environ = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_REGION": "us-east-1",
    }
    assert refused(home, "load", "s3://bucket/x/", "--to", TABLE, environ=environ)["code"] == "connectivity"


def test_a_source_that_contains_the_warehouse(place: World) -> None:
    place.home.folder.joinpath("a.json").write_bytes(b"{}")
    error = refused(place.home, "load", ".", "--to", TABLE)
    assert error["code"] == "source_contains_warehouse"
    assert "AUTOLOADER_HOME" in error["remedy"]
    assert [p.name for p in place.home.folder.iterdir()] == ["a.json"]
    # A pattern that cannot reach into the warehouse is no danger.
    assert place.home.json("load", "*.json", "--to", TABLE)["files"]["loaded"] == 1


def test_a_catalog_that_is_not_configured(place: World) -> None:
    place.land(event_files(0))
    error = refused(place.home, "load", place.source, "--to", "nocat.sales.orders")
    assert error["code"] == "catalog_not_configured"
    assert "nocat" in error["detail"]
    assert is_untouched(place.home)


def test_a_catalog_that_does_not_answer(place: World) -> None:
    place.land(event_files(0))
    environ = {"PYICEBERG_CATALOG__GONE__TYPE": "rest", "PYICEBERG_CATALOG__GONE__URI": "http://127.0.0.1:9"}
    assert (
        refused(place.home, "load", place.source, "--to", "gone.a.b", environ=environ)["code"] == "catalog_unreachable"
    )
    assert is_untouched(place.home)


def test_a_name_that_is_none(place: World) -> None:
    place.land(event_files(0))
    assert refused(place.home, "load", place.source, "--to", "orders", status=2)["code"] == "invalid_field"


@pytest.mark.parametrize("table", ["order.select", "a b.c d", 'x.say "hi"', "größe.naïve", "d.1st", "emoji.\U0001f680"])
def test_reserved_words_and_odd_characters_in_names(place: World, table: str) -> None:
    place.land({"a.json": b'{"select": 1, "from where": "x", "a.b": 2, "\\u00e9": true, "qu\\"ote": "q", "": 3}\n'})
    place.home.json("load", place.source, "--to", table)
    done = place.home.run("load", place.source, "--to", table)
    assert done.status == 0
    # The query that a load prints always runs.
    place.land({"b.json": b'{"select": 2}\n'})
    printed = place.home.run("load", place.source, "--to", table).stdout.splitlines()
    command = next(line for line in printed if line.startswith("  autoloader table"))
    shell = command.replace("autoloader", f"{sys.executable} -P -m app", 1) + " --output json"
    shown = subprocess.run(
        ["bash", "-c", shell],
        cwd=place.home.folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    rows = sorted(json.loads(shown.stdout), key=lambda row: int(row["select"]))
    assert [row["select"] for row in rows] == [1, 2]
    assert (rows[0]["from where"], rows[0]["a.b"], rows[0]["é"]) == ("x", 2, True)


def catalog_of(home: Home) -> Any:
    from pyiceberg.catalog.sql import SqlCatalog

    warehouse = home.folder / "warehouse"
    return SqlCatalog("local", uri=f"sqlite:///{warehouse}/catalog.db", warehouse=f"file://{warehouse}")


def test_a_table_that_was_dropped_or_made_anew(place: World) -> None:
    place.land(event_files(0))
    place.home.json("load", place.source, "--to", TABLE)
    catalog = catalog_of(place.home)
    schema = catalog.load_table(TABLE).schema()
    catalog.drop_table(TABLE)
    place.land(event_files(1))
    error = refused(place.home, "load", place.source, "--to", TABLE)
    assert error["code"] == "table_replaced"
    assert refused(place.home, "plan", place.source, "--to", TABLE)["code"] == "table_replaced"
    catalog.create_table(TABLE, schema)
    assert refused(place.home, "load", place.source, "--to", TABLE)["code"] == "table_replaced"
    assert catalog.load_table(TABLE).current_snapshot() is None
    # The remedy works: a new generation loads everything again.
    place.home.json("ledger", "clear", TABLE, "--yes")
    assert place.home.json("load", place.source, "--to", TABLE)["rows"]["loaded"] == 2000
    catalog.close()


def test_a_table_that_was_rolled_back(place: World) -> None:
    for number in (0, 1):
        place.land(event_files(number))
        place.home.json("load", place.source, "--to", TABLE)
    catalog = catalog_of(place.home)
    table = catalog.load_table(TABLE)
    first = table.metadata.snapshots[0].snapshot_id
    table.manage_snapshots().rollback_to_snapshot(first).commit()
    place.land(event_files(2))
    error = refused(place.home, "load", place.source, "--to", TABLE)
    assert error["code"] == "table_rolled_back"
    assert catalog.load_table(TABLE).current_snapshot().snapshot_id == first
    catalog.close()


def test_a_table_that_holds_more_than_the_ledger(place: World) -> None:
    """Of an ingestion that nobody here knows: nothing is guessed, and no empty ledger is made beside it."""
    place.land(event_files(0))
    place.home.json("load", place.source, "--to", TABLE)
    for file in place.home.folder.glob("autoloader.db*"):
        file.unlink()
    # A plan writes nothing, so it rebuilds nothing.
    assert refused(place.home, "plan", place.source, "--to", TABLE)["code"] == "ledger_behind_table"
    catalog = catalog_of(place.home)
    with catalog.load_table(TABLE).transaction() as transaction:
        transaction.set_properties({"autoloader.load-ingestion": "another"})
    catalog.close()
    error = refused(place.home, "load", place.source, "--to", TABLE)
    assert error["code"] == "ledger_behind_table"
    assert "--adopt" in error["remedy"]
    assert not (place.home.folder / "autoloader.db").exists()
    assert place.home.query(TABLE, f"select count(*) n from {TABLE}") == [{"n": 1000}]


def test_a_ledger_that_cannot_be_read_is_never_an_empty_one(place: World) -> None:
    place.land(event_files(0))
    place.home.json("load", place.source, "--to", TABLE)
    for file in place.home.folder.glob("autoloader.db-*"):
        file.unlink()
    (place.home.folder / "autoloader.db").write_bytes(b"this is no database" * 100)
    assert refused(place.home, "load", place.source, "--to", TABLE)["code"] == "ledger_unreadable"
    assert refused(place.home, "files", TABLE)["code"] == "ledger_unreadable"
    assert place.home.query(TABLE, f"select count(*) n from {TABLE}") == [{"n": 1000}]


def test_a_table_that_others_made(place: World) -> None:
    from pyiceberg.partitioning import PartitionField, PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.transforms import IdentityTransform
    from pyiceberg.types import DoubleType, IntegerType, LongType, NestedField, StringType

    (place.home.folder / "warehouse").mkdir()
    catalog = catalog_of(place.home)
    catalog.create_namespace("other")
    columns = (NestedField(1, "id", LongType(), required=False), NestedField(2, "event_type", StringType()))
    spec = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "event_type"))
    catalog.create_table("other.partitioned", Schema(*columns), partition_spec=spec)
    narrow = Schema(
        NestedField(1, "ID", IntegerType()), NestedField(2, "value", DoubleType()), NestedField(3, "mine", StringType())
    )
    catalog.create_table("other.plain", narrow)
    place.land(event_files(0))
    error = refused(place.home, "load", place.source, "--to", "other.partitioned")
    assert error["code"] == "table_unsuitable"
    assert catalog.load_table("other.partitioned").current_snapshot() is None

    place.home.json("load", place.source, "--to", "other.plain")
    assert place.home.columns("other.plain")[:3] == ["ID", "value", "mine"]
    sums = "select count(*) n, sum(id) ids, count(mine) mine, count(_file_path) paths from other.plain"
    expected = {"n": 1000, "ids": sum(range(1000)), "mine": 0, "paths": 1000}
    assert place.home.query("other.plain", sums) == [expected]
    catalog.close()


def test_a_table_whose_metadata_is_gone(place: World) -> None:
    place.land(event_files(0))
    place.home.json("load", place.source, "--to", TABLE)
    for file in place.home.folder.glob("warehouse/**/*.metadata.json"):
        file.unlink()
    place.land(event_files(1))
    assert refused(place.home, "load", place.source, "--to", TABLE)["code"] == "table_unreadable"


def test_a_full_disk(place: World) -> None:
    """The table's disk has no room: the run fails, the table is as before, and the next run loads the files."""
    place.land(event_files(0))
    place.home.json("load", place.source, "--to", TABLE)
    place.land(
        {f"big_{i}.json": os.urandom(300_000).hex().join(('{"id": 1, "blob": "', '"}\n')).encode() for i in (1, 2)}
    )
    limited = "import resource, sys, os; resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000)); "
    code = limited + "os.execv(sys.executable, [sys.executable, '-P', '-m', 'app', *sys.argv[1:]])"
    done = subprocess.run(
        [sys.executable, "-c", code, "load", place.source, "--to", TABLE, "--output", "json"],
        cwd=place.home.folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert json.loads(done.stdout)["errors"][0]["category"] == "write_failure"
    assert place.home.query(TABLE, f"select count(*) n from {TABLE}") == [{"n": 1000}]
    data = list(place.home.folder.glob("warehouse/**/*.parquet"))
    assert len(data) == 1, "unfinished data files were left behind"
    assert place.home.json("load", place.source, "--to", TABLE)["files"]["loaded"] == 2


def test_a_home_that_cannot_be_written(place: World) -> None:
    place.land(event_files(0))
    environ = {"DATABASE_URL": "sqlite:////proc/nothing/autoloader.db"}
    assert refused(place.home, "load", place.source, "--to", TABLE, environ=environ)["code"] == "ledger_unreadable"
    environ = {"DATABASE_URL": "mysql://me:hidden-password@127.0.0.1/x"}
    error = refused(place.home, "load", place.source, "--to", TABLE, status=2, environ=environ)
    assert error["code"] == "not_supported"
    assert "hidden-password" not in str(error)


def test_spellings_of_one_source_load_nothing_twice(place: World) -> None:
    place.land(event_files(0, 1))
    folder = Path(place.source)
    link = folder.parent / "link"
    link.symlink_to(folder)
    place.home.json("load", place.source, "--to", TABLE)
    for spelling in (
        f"{folder}/",
        os.path.relpath(folder, place.home.folder),
        f"file://{folder}",
        f"{folder}/**/*.json",
        f"{folder}/data/batch_0.json",
        f"{folder}/data/batch_[01].json",
        f"{folder}/../{folder.name}",
        str(link),
    ):
        report = place.home.json("load", spelling, "--to", TABLE)
        assert report["files"]["loaded"] == 0, spelling
        assert report["files"]["known"] > 0, spelling
    assert place.home.query(TABLE, f"select count(*) n from {TABLE}") == [{"n": 2000}]


def test_a_plan_writes_nothing(place: World) -> None:
    place.land({"a.json": event_file(0)})
    planned = place.home.json("plan", place.source, "--to", TABLE)
    assert (planned["files"], planned["batches"], planned["table"]) == (1, 1, f"local.{TABLE}")
    assert planned["schema"][0] == {"name": "id", "type": "long"}
    assert is_untouched(place.home)
    assert place.home.json("catalogs")[0]["name"] == "local"
    assert is_untouched(place.home)


def test_an_empty_file_and_a_changed_file_are_left_alone(place: World) -> None:
    place.land({"a.json": event_file(0), "empty.json": b"", "_hidden.json": b"{", ".tmp.json": b"{"})
    report = place.home.json("load", place.source, "--to", TABLE)
    assert report["files"] == {"loaded": 1, "failed": 0, "skipped": 1, "known": 0}
    place.land({"a.json": event_file(7)})
    report = place.home.json("load", place.source, "--to", TABLE)
    assert report["files"] == {"loaded": 0, "failed": 0, "skipped": 2, "known": 0}
    assert "new version" in report["warnings"][0]
    states = {f["state"] for f in place.home.json("files", TABLE)}
    assert states == {"success", "skipped", "changed"}


def test_two_loads_at_once_wait_for_each_other(place: World) -> None:
    place.land({f"{i}.json": event_file(i) for i in range(30)})
    processes = [place.home.process("load", place.source, "--to", TABLE, "--output", "json") for _ in range(3)]
    reports = [json.loads(p.communicate(timeout=120)[0]) for p in processes]
    assert [p.returncode for p in processes] == [0, 0, 0]
    assert sum(r["rows"]["loaded"] for r in reports) == 30_000
    sums = f"select count(*) n, count(distinct id) ids from {TABLE}"
    assert place.home.query(TABLE, sums) == [{"n": 30_000, "ids": 30_000}]


def test_a_load_that_may_not_wait(place: World) -> None:
    """With --wait 0 the second says who is at work."""
    place.land(event_files(0))
    still = {"AUTOLOADER_FAILPOINT": "batch_claimed:pause", "AUTOLOADER_LEASE_S": "900"}
    stopped = place.home.process("load", place.source, "--to", TABLE, environ=still)
    try:
        wait_for_stop(stopped.pid)
        error = refused(place.home, "load", place.source, "--to", TABLE, "--wait", "0")
        assert error["code"] == "run_in_progress"
        assert str(stopped.pid) in error["detail"]
        assert refused(place.home, "ledger", "clear", TABLE, "--yes")["code"] == "run_in_progress"
    finally:
        stopped.kill()
        stopped.communicate()
    assert place.home.json("load", place.source, "--to", TABLE)["rows"]["loaded"] == 1000


def wait_for_stop(pid: int) -> None:
    import psutil

    for _ in range(1500):
        if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
            return
        import time

        time.sleep(0.1)
    raise AssertionError("The process did not reach the place where it stops.")


def test_clearing_needs_a_yes(place: World) -> None:
    place.land(event_files(0))
    place.home.json("load", place.source, "--to", TABLE)
    assert refused(place.home, "ledger", "clear", TABLE, status=2)["code"] == "confirmation_needed"
    assert place.home.json("load", place.source, "--to", TABLE)["files"]["known"] == 1
    cleared = place.home.json("ledger", "clear", TABLE, "--yes")
    assert cleared["files_cleared"] == 1
    assert place.home.json("load", place.source, "--to", TABLE)["files"]["loaded"] == 1
    shutil.rmtree(place.source)
