"""A watch takes what lands: in a folder by the kernel’s news, in a store by looking; stopped, killed, beside others.

Where news are what is tested, the watch would look by itself in an hour.
"""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import pytest

from app.destinations.configured import local_catalog
from app.domain.table import parse_table_name
from tests.support.seaweed import Seaweed
from tests.support.watching import TIMEOUT_S, watching
from tests.support.worlds import World, make_world

pytestmark = pytest.mark.timeout(1_200)


def one_row(number: int) -> bytes:
    return json.dumps({"id": number}).encode() + b"\n"


def ids(world: World) -> list[int]:
    """What is in the table, asked in this process: another one takes its time to start."""
    catalog = local_catalog(world.home.folder / "warehouse")
    name = parse_table_name(world.table, default_catalog="local")
    return [int(str(row["id"])) for row in catalog.query(name, f"select id from {world.table} order by id")]


@pytest.fixture
def local(tmp_path: Path, seaweed: Seaweed) -> World:
    return make_world("local-local", tmp_path, seaweed)


def test_what_lands_in_a_folder_is_queryable_without_the_beat(local: World) -> None:
    """Before and while it runs, in new folders, by renaming; and another load goes between."""
    local.land({"a.json": one_row(1)})
    assert local.folder is not None
    with watching(local.home, local.source, "--to", local.table, "--every", "1h") as watch:
        first = watch.next_run()
        assert (first["status"], first["files"]["loaded"], first["table"]) == ("success", 1, f"local.{local.table}")
        local.land({"b.json": one_row(2)})
        second = watch.next_run()
        assert (second["files"]["loaded"], second["rows"]["loaded"]) == (1, 1)
        assert ids(local) == [1, 2]
        assert second["run_id"] != first["run_id"]

        local.land({"deep/er/c.json": one_row(3), "d.tmp/.part": one_row(4)})
        (local.folder / "d.tmp" / ".part").rename(local.folder / "d.json")
        watch.loaded(2)
        elsewhere = local.folder.parent / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "e.json").write_bytes(one_row(5))
        other = local.home.json("load", str(elsewhere), "--to", local.table)
        assert other["files"]["loaded"] == 1

        local.land({"f.json": one_row(6)})
        watch.loaded(1)
        assert watch.stop(signal.SIGINT) == 0
        assert watch.rest() == []
    assert ids(local) == [1, 2, 3, 4, 5, 6]
    again = local.home.json("load", local.source, "--to", local.table)
    assert (again["files"]["loaded"], again["files"]["known"]) == (0, 5)


def test_what_lands_in_a_store_is_found_by_looking_wherever_it_sorts(tmp_path: Path, seaweed: Seaweed) -> None:
    world = make_world("s3-local", tmp_path, seaweed)
    world.land({"m.json": one_row(1)})
    with watching(world.home, world.source, "--to", world.table, "--every", "200ms") as watch:
        watch.loaded(1)
        world.land({"z.json": one_row(2)})
        watch.loaded(1)
        world.land({"a.json": one_row(3)})
        watch.loaded(1)
        assert watch.stop() == 0
    assert ids(world) == [1, 2, 3]


def test_a_folder_is_taken_when_its_marker_comes(local: World) -> None:
    local.land({"day1/a.json": one_row(1), "day1/_SUCCESS": b"", "day2/b.json": one_row(2)})
    arguments = (local.source, "--to", local.table, "--complete-when", "_SUCCESS", "--every", "1h")
    with watching(local.home, *arguments) as watch:
        assert watch.next_run()["files"]["loaded"] == 1
        local.land({"day2/c.json": one_row(3)})
        assert ids(local) == [1]
        local.land({"day2/_SUCCESS": b""})
        watch.loaded(2)
        assert watch.stop() == 0
    assert ids(local) == [1, 2, 3]


@pytest.mark.parametrize("failpoint", ["batch_claimed", "committed"])
def test_a_watch_that_is_killed_begins_again_where_it_was(local: World, failpoint: str) -> None:
    local.land({"a.json": one_row(1)})
    arguments = (local.source, "--to", local.table, "--every", "1h")
    with watching(local.home, *arguments, environ={"AUTOLOADER_FAILPOINT": failpoint}) as watch:
        assert watch.process.wait(TIMEOUT_S) == -signal.SIGKILL
    local.land({"b.json": one_row(2)})
    with watching(local.home, *arguments) as watch:
        watch.loaded(2)
        local.land({"c.json": one_row(3)})
        watch.loaded(1)
        watch.process.kill()
    assert ids(local) == [1, 2, 3]
    states = [f["state"] for f in local.home.json("files", local.table)]
    assert states == ["success"] * 3


def test_a_watch_ends_by_itself_when_a_person_has_to_change_something(local: World) -> None:
    local.land({"a.json": one_row(1)})
    with watching(local.home, local.source, "--to", local.table, "--every", "1h") as watch:
        watch.loaded(1)
        local.land({"b.csv": b"id\n2\n"})
        last = watch.next_run()
        assert (last["status"], last["code"], last["run_id"]) == ("failed", "mixed_formats", None)
        assert watch.process.wait(TIMEOUT_S) == 2
    assert ids(local) == [1]
    missing = local.home.run("load", f"{local.source}/nowhere", "--to", local.table, "--watch")
    assert missing.status == 1
    assert "path_not_found" in missing.stderr


def test_people_read_a_line_a_run(local: World) -> None:
    local.land({"a.json": one_row(1), "b.json": b"{"})
    process = local.home.process("load", local.source, "--to", local.table, "--watch")
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "Loaded 1 file, 1 row, 10 B in" in line
    process.send_signal(signal.SIGTERM)
    rest, notes = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert rest == ""
    assert "Watching" in notes
    assert "data_malformed" in notes
    assert "Stopped; what was committed stays" in notes


def test_a_beat_without_a_watch_is_a_mistake(local: World) -> None:
    done = local.home.run("load", local.source, "--to", local.table, "--every", "5s")
    assert done.status == 2
    assert "--watch" in done.stderr
    done = local.home.run("load", local.source, "--to", local.table, "--watch", "--every", "soon")
    assert done.status == 2
    assert "'soon'" in done.stderr


def test_a_load_leaves_what_is_being_written_and_says_so(local: World) -> None:
    """The writer never stops, so the file is another one at the second look."""
    local.land({"a.json": one_row(1), "growing.json": one_row(2)})
    assert local.folder is not None
    growing, done = local.folder / "growing.json", threading.Event()

    def write_on() -> None:
        with growing.open("ab") as file:
            while not done.wait(0.01):
                file.write(one_row(2))
                file.flush()

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        settle = {"AUTOLOADER_SETTLE_S": "10"}
        alone = local.home.run("load", str(growing), "--to", local.table, environ=settle)
        report = local.home.json("load", local.source, "--to", local.table, environ=settle)
    finally:
        done.set()
        writer.join()
    assert alone.status == 1
    assert "The only files that match are still being written (1)" in alone.stderr
    assert report["files"]["loaded"] == 1
    assert report["warnings"] == ["Files that are still being written were left for the next run (1)."]
    assert local.home.json("load", local.source, "--to", local.table)["files"]["loaded"] == 1
