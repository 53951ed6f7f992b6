"""A load is killed at every named place; the next plain load makes the table equal to the files, every row once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from app.domain.watch import FAILPOINTS
from tests.support.events import RECORDS, event_files
from tests.support.seaweed import Seaweed
from tests.support.worlds import World, make_world

# A table that exists is not inferred again.
ON_A_TABLE = [name for name in FAILPOINTS if name != "schema_inferred"]
FILES = (0, 1, 2)
LATER = (3, 4)


@pytest.fixture(params=["local-local", "local-rest"])
def world(request: pytest.FixtureRequest, tmp_path: Path, seaweed: Seaweed) -> World:
    """Files on disk, a table in either catalog."""
    return make_world(request.param, tmp_path, seaweed)


def load_and_die(world: World, failpoint: str) -> None:
    done = world.home.run("load", world.source, "--to", world.table, environ={"AUTOLOADER_FAILPOINT": failpoint})
    assert done.status == -signal.SIGKILL, f"{failpoint} was not reached: {done.stdout}{done.stderr}"


def assert_equal_to_files(world: World, numbers: tuple[int, ...]) -> None:
    """Count, distinct ids and a checksum, file by file; and the ledger says the same."""
    sums = world.home.query(
        world.table,
        "select _file_path path, count(*) n, count(distinct id) ids, sum(id) total, sum(value) total_value, "
        f"count(distinct _batch_id) batches from {world.table} group by 1 order by 1",
    )
    paths = [f"file://{Path(world.source).resolve()}/data/batch_{n}.json" for n in numbers]
    assert [s.pop("path") for s in sums] == paths
    for number, found in zip(numbers, sums, strict=True):
        ids = range(number * RECORDS, (number + 1) * RECORDS)
        assert found == {
            "n": RECORDS,
            "ids": RECORDS,
            "total": sum(ids),
            "total_value": sum(ids) / 4,
            "batches": 1,
        }
    ledger = world.home.json("files", world.table)
    assert [(f["path"], f["state"], f["rows"]) for f in ledger] == [(path, "success", RECORDS) for path in paths]


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_killed_in_the_first_load(world: World, failpoint: str) -> None:
    world.land(event_files(*FILES))
    load_and_die(world, failpoint)
    report = world.home.json("load", world.source, "--to", world.table)
    assert report["status"] == "success"
    assert report["files"]["loaded"] + report["files"]["known"] == len(FILES)
    assert_equal_to_files(world, FILES)
    assert world.home.json("load", world.source, "--to", world.table)["files"]["known"] == len(FILES)


@pytest.mark.parametrize("failpoint", ON_A_TABLE)
def test_killed_in_a_later_load(world: World, failpoint: str) -> None:
    world.land(event_files(*FILES))
    world.home.json("load", world.source, "--to", world.table)
    world.land(event_files(*LATER, region="north"))
    load_and_die(world, failpoint)
    report = world.home.json("load", world.source, "--to", world.table)
    assert report["status"] == "success"
    assert_equal_to_files(world, FILES + LATER)


def test_killed_again_and_again(world: World) -> None:
    """Each try of one batch dies a step later than the one before."""
    world.land(event_files(*FILES))
    for failpoint in ("batch_claimed", "data_written", "manifest_written", "commit_attempt", "committed"):
        load_and_die(world, failpoint)
    world.land(event_files(*LATER))
    world.home.json("load", world.source, "--to", world.table)
    assert_equal_to_files(world, FILES + LATER)
