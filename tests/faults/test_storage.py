"""What an object store may do to data files, manifests and metadata: the table never holds what is not whole."""

from __future__ import annotations

import pytest

from tests.support.fault_proxy import Answer, Cut
from tests.support.fault_table import ERROR_XML, STORAGE_FAULTS, STORAGE_REQUESTS, SUCCESS, StorageFault
from tests.support.fault_worlds import FaultWorld
from tests.support.seaweed import TABLE_BUCKET


@pytest.fixture
def begun(world: FaultWorld) -> FaultWorld:
    """A table with file 9; file 0 is to be loaded."""
    world.land(9)
    assert world.load().ends == SUCCESS
    world.known = (9,)
    world.land(0)
    return world


def settles(world: FaultWorld) -> None:
    world.s3.clear()
    world.rest.clear()
    after = world.load()
    assert (after.ends, after.report.files_loaded + after.report.files_known) == (SUCCESS, 2)
    world.assert_exact(0, 9)


def request_of(name: str) -> tuple[str, str]:
    method, path = STORAGE_REQUESTS[name]
    return method, rf"^/{TABLE_BUCKET}/.*{path}"


@pytest.mark.parametrize("fault", STORAGE_FAULTS, ids=lambda f: f"{f.request} {f.words} {f.times}")
def test_a_fault_of_a_request(begun: FaultWorld, fault: StorageFault) -> None:
    rule = begun.s3.on(*request_of(fault.request), fault.action(), times=fault.times)
    load = begun.load()
    assert load.ends == fault.ends, load.text
    assert rule.acted == (fault.times or rule.acted) > 0
    assert begun.seaweed.secret_key not in load.text
    if fault.ends != SUCCESS:
        assert load.report.files_loaded == 0
        assert f"/{begun.table.name}/" in load.text
        assert sorted(begun.rows()["id"].to_pylist()) == list(range(180, 200))
    settles(begun)


@pytest.mark.parametrize("first", [True, False])
def test_a_data_file_that_is_cut_in_the_store(world: FaultWorld, first: bool) -> None:  # noqa: FBT001
    """It was written whole, and is not whole when it is to be committed."""
    if not first:
        world.land(9)
        world.load()
        world.known = (9,)
    world.land(0)
    world.on_the_way["data_written:after"] = lambda: _cut_last_data_file(world)
    load = world.load()
    assert load.ends == "write_failure"
    assert "cannot be read back" in load.text
    assert world.load().ends == SUCCESS
    world.assert_exact(0, *world.known)


def _cut_last_data_file(world: FaultWorld) -> None:
    paths = [e.target for e in world.s3.log if e.method == "PUT" and ".parquet?" in e.target]
    key = paths[-1].partition("?")[0].removeprefix(f"/{TABLE_BUCKET}/")
    store = world.seaweed.store(TABLE_BUCKET)
    store.put(key, bytes(store.get(key).bytes())[:-100])


def test_what_cannot_be_removed_is_swept_later(world: FaultWorld) -> None:
    """The commit is refused, the data files are not wanted any more, and the store removes nothing."""
    world.land(0)
    world.rest.on("POST", r"/tables/t_\w+$", Answer(409, applied=False))
    refusing = Answer(503, applied=False, body=ERROR_XML % b"SlowDown", content_type="application/xml")
    kept = world.s3.on("DELETE", r"\.parquet$", refusing, times=None)
    load = world.load()
    assert load.ends == "catalog_refused"
    assert kept.acted
    assert "data_file_not_removed" in load.events
    world.s3.clear()
    assert world.load().ends == SUCCESS
    world.assert_exact(0)


def test_away_after_the_commit(begun: FaultWorld) -> None:
    """The batch's outcome is unknown and its manifest cannot be read: it stays open until both can be had."""
    begun.rest.on("POST", r"/tables/t_\w+$", Cut("close", applied=True))
    begun.on_the_way["commit_request:before"] = lambda: begun.s3.on(
        ".*", r"\.stats", Cut("close", applied=False), times=None
    )
    assert begun.load().ends == "commit_unknown"
    settles(begun)
