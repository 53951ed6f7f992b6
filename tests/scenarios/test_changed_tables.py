"""Somebody changes the table behind our back: what can be lived with is, what cannot is refused with the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.table import Table

from app.domain.comparison import DifferenceKind
from app.domain.errors import AutoloaderError, LedgerBehindTableError, TableReplacedError, TableRolledBackError
from app.domain.runs import RunReport, RunStatus
from app.domain.table import TableName
from app.persistence.leases import this_process
from app.services.checking import CheckPorts, CheckReport, CheckRequest, check
from app.services.preflight import LoadRequest
from app.services.run import RunSettings
from app.services.sweeping import Sweeper
from tests.model.lives import Life
from tests.model.worlds import FIRST, RealWorld, in_order
from tests.support.seaweed import Seaweed
from tests.support.worlds import rest_environ
from tests.unit.services.desk import Notes, lines

SETTINGS = RunSettings(lease_s=60.0, batch_bytes=1 << 30, batch_files=100, file_tries=3, unknown_waits_s=(0.0,))


@pytest.fixture(scope="module", params=["sqlite", "rest"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealWorld]:
    properties = None
    if request.param == "rest":
        seaweed: Seaweed = request.getfixturevalue("seaweed")
        prefix = "PYICEBERG_CATALOG__REST__"
        properties = {
            name.removeprefix(prefix).lower().replace("__", ".").replace("_", "-"): value
            for name, value in rest_environ(seaweed).items()
        }
    world = RealWorld(tmp_path_factory.mktemp("world"), properties)
    yield world
    world.end()


@pytest.fixture
def world(shared: RealWorld) -> RealWorld:
    """A table of two loads: the ids 1 and 2, then 3."""
    shared.begin()
    shared.put("a.json", lines({"id": 1}, {"id": 2}))
    assert load(shared).status is RunStatus.SUCCESS
    shared.put("b.json", lines({"id": 3}))
    assert load(shared).status is RunStatus.SUCCESS
    return shared


def load(world: RealWorld, table: TableName | None = None, *, ingestion: str = FIRST) -> RunReport:
    service = world.service(Life(this_process(), lambda *_: None), SETTINGS, ingestion=ingestion)
    return service.load(LoadRequest(world.path, table or world.table, {"format": "json"}), Notes())


def checked(world: RealWorld) -> CheckReport:
    ports = CheckPorts(world.ledger, world.keeper(), world.open_source, in_order, ())
    return check(ports, CheckRequest(world.table, LoadRequest(world.path, world.table, {"format": "json"})))


def ids(world: RealWorld) -> list[int]:
    return sorted(number for _, number in world.rows().elements())


def table_of(world: RealWorld) -> Table:
    table = world.found()
    assert table is not None
    return table


def refused(world: RealWorld, error: type[AutoloaderError]) -> AutoloaderError:
    """Nothing is written by a load, a check or a sweep, although a file waits."""
    before = table_of(world).metadata_location if world.found() else None
    world.put("new.json", lines({"id": 99}))
    report = load(world)
    assert report.status is RunStatus.FAILED
    assert isinstance(report.stopped_by, error), report.stopped_by
    with pytest.raises(error):
        checked(world)
    if before is not None:
        with pytest.raises(error):
            Sweeper(world.ledger, world.keeper(), world.table, lease_s=0.0).sweep()
        assert table_of(world).metadata_location == before
    else:
        assert world.found() is None
    return report.stopped_by


def clear(world: RealWorld) -> None:
    record = world.ledger.table(str(world.table))
    assert record is not None
    world.ledger.clear(record)


def assert_loads_on(world: RealWorld, *expected: int) -> None:
    """A new file is loaded, and no other one."""
    world.put("c.json", lines({"id": 4}))
    report = load(world)
    assert (report.status, report.files_loaded) == (RunStatus.SUCCESS, 1), report.stopped_by
    assert ids(world) == sorted((*expected, 4))


# --- another table, or none -------------------------------------------------------------------------------------------


def test_a_table_that_was_dropped(world: RealWorld) -> None:
    world.inner().drop_table((*world.table.namespace, world.table.name))
    error = refused(world, TableReplacedError)
    assert (error.code, "ledger clear" in error.advice) == ("table_replaced", True)
    # The remedy works.
    clear(world)
    assert load(world).files_loaded == 3
    assert ids(world) == [1, 2, 3, 99]


def test_a_table_that_was_made_again(world: RealWorld) -> None:
    name = (*world.table.namespace, world.table.name)
    schema = table_of(world).schema()
    world.inner().drop_table(name)
    world.inner().create_table(name, schema)
    error = refused(world, TableReplacedError)
    assert (error.code, "ledger clear" in error.advice) == ("table_replaced", True)
    clear(world)
    assert load(world).files_loaded == 3
    assert ids(world) == [1, 2, 3, 99]


# --- an older state of it ---------------------------------------------------------------------------------------------


def roll_back(table: Table) -> None:
    table.manage_snapshots().rollback_to_snapshot(table.metadata.snapshots[0].snapshot_id).commit()


def set_back(table: Table) -> None:
    table.manage_snapshots().set_current_snapshot(table.metadata.snapshots[0].snapshot_id).commit()


def set_back_with_a_branch(table: Table) -> None:
    """Our commit lives on in a branch: that is not the table that readers see."""
    table.manage_snapshots().create_branch(table.metadata.snapshots[1].snapshot_id, "kept").commit()
    set_back(table)


@pytest.mark.parametrize("work", [roll_back, set_back, set_back_with_a_branch])
def test_a_table_that_was_rolled_back(world: RealWorld, work: Callable[[Table], None]) -> None:
    newest = table_of(world).metadata.current_snapshot_id
    assert newest is not None
    work(table_of(world))
    error = refused(world, TableRolledBackError)
    assert error.code == "table_rolled_back"
    assert "Roll it forward again" in error.advice
    assert "ledger clear" in error.advice
    # The remedy works.
    table_of(world).manage_snapshots().set_current_snapshot(newest).commit()
    assert load(world).files_loaded == 1
    assert ids(world) == [1, 2, 3, 99]


def test_a_table_that_was_rolled_back_and_written_by_others(world: RealWorld) -> None:
    """A head that is newer by its number does not hide it."""
    set_back(table_of(world))
    for number in (7, 8, 9):
        table_of(world).append(pa.table({"id": pa.array([number], pa.int64())}))
    refused(world, TableRolledBackError)


# --- what can be lived with -------------------------------------------------------------------------------------------


def differences(world: RealWorld) -> dict[DifferenceKind, int]:
    return {kind: tally.count for kind, tally in checked(world).differences.items() if tally.count}


def test_rows_that_others_deleted(world: RealWorld) -> None:
    """A load neither minds nor brings them back; a check tells."""
    table_of(world).delete("id = 1")
    assert differences(world) == {DifferenceKind.ROWS_DIFFER: 1}
    assert_loads_on(world, 2, 3)
    table_of(world).delete("id in (2, 3)")
    assert differences(world) == {DifferenceKind.NOT_IN_TABLE: 2}
    world.put("d.json", lines({"id": 5}))
    assert load(world).files_loaded == 1
    assert ids(world) == [4, 5]


def test_rows_that_others_wrote(world: RealWorld) -> None:
    table_of(world).append(pa.table({"id": pa.array([7], pa.int64())}))
    assert checked(world).rows_of_no_file == 1
    assert differences(world) == {}
    assert_loads_on(world, 1, 2, 3, 7)


def test_rows_that_others_replaced(world: RealWorld) -> None:
    table = table_of(world)
    rows = table.scan(row_filter="id = 3").to_arrow()
    table.overwrite(rows.set_column(0, rows.schema.field(0), pa.array([30], pa.int64())), "id = 3")
    assert differences(world) == {}
    assert_loads_on(world, 1, 2, 30)


def expire(world: RealWorld) -> None:
    world.append(7)
    world.expire()


def branch(world: RealWorld) -> None:
    table = table_of(world)
    (first, second) = (s.snapshot_id for s in table.metadata.snapshots)
    table.manage_snapshots().create_branch(first, "old").create_tag(second, "now").commit()


def tell_more(world: RealWorld) -> None:
    with table_of(world).transaction() as transaction:
        transaction.set_properties({"owner": "somebody", "autoloader.note": "not ours"})


@pytest.mark.parametrize(("work", "more"), [(expire, [7]), (branch, []), (tell_more, [])])
def test_snapshots_expired_branches_made_and_properties_set(
    world: RealWorld, work: Callable[[RealWorld], None], more: list[int]
) -> None:
    before = table_of(world).metadata.refs
    work(world)
    assert_loads_on(world, 1, 2, 3, *more)
    refs: dict[str, Any] = dict(table_of(world).metadata.refs)
    assert refs.keys() >= before.keys()
    if work is branch:
        # What is loaded goes to the main branch alone.
        assert table_of(world).scan(snapshot_id=refs["old"].snapshot_id).to_arrow()["id"].to_pylist() == [1, 2]
    assert differences(world) == {}


def test_every_snapshot_expired_and_the_database_lost(world: RealWorld) -> None:
    expire(world)
    world.restore("fresh")
    assert_loads_on(world, 1, 2, 3, 7)


@pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
def test_a_table_that_was_renamed(world: RealWorld) -> None:
    """Under its old name it is gone; under the new one its batches belong to an ingestion of another table."""
    old, new = (*world.table.namespace, world.table.name), (*world.table.namespace, f"{world.table.name}_2")
    world.inner().rename_table(old, new)
    refused(world, TableReplacedError)
    renamed = TableName(world.table.catalog, world.table.namespace, new[-1])
    with pytest.raises(LedgerBehindTableError):
        load(world, renamed, ingestion="c" * 32)
    assert sorted(world.inner().load_table(new).scan().to_arrow()["id"].to_pylist()) == [1, 2, 3]
    world.inner().rename_table(new, old)
    assert load(world).files_loaded == 1
    assert ids(world) == [1, 2, 3, 99]
