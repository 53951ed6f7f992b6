from __future__ import annotations

from dataclasses import replace

import pytest

from app.domain.discovery import in_key_order
from app.domain.errors import LedgerBehindTableError, MixedFormatsError, TableReplacedError
from app.domain.types import STRING, Field
from app.persistence.ledger import open_existing_ledger
from app.services.preflight import PEEK_FILES, LoadRequest
from app.services.preview import Plan, PlanPorts, plan_load
from app.sources.sorting import DiskSorter
from tests.fakes.catalog import FakeCatalog
from tests.unit.services.desk import SETTINGS, TABLE, Desk


def plan(desk: Desk) -> Plan:
    ledger = open_existing_ledger(desk.url)
    ports = PlanPorts(
        ledger=ledger,
        catalog=FakeCatalog(desk.store),
        engine=desk.engine,
        open_source=lambda _path, _pattern, _keys: desk.source,
        in_order=lambda listing, tell: in_key_order(listing, DiskSorter(), tell),
        keep_out=(),
    )
    try:
        return plan_load(ports, replace(SETTINGS, batch_files=2), LoadRequest("s3://memory/", TABLE, {}))
    finally:
        if ledger:
            ledger.dispose()


def test_a_plan_of_a_new_table_tells_all_and_makes_nothing(desk: Desk) -> None:
    files = [desk.put(f"{n}.json", {"id": n, "x": "a"}) for n in range(3)]
    planned = plan(desk)
    assert (planned.files, planned.batches, planned.known) == (3, 2, 0)
    assert planned.stored_bytes == sum(f.size_bytes for f in files)
    assert [(f.name, str(f.type)) for f in planned.schema.fields] == [("id", "long"), ("x", "string")]
    assert planned.changes == ("create table with 2 columns",)
    assert open_existing_ledger(desk.url) is None
    assert desk.store.get(TABLE) is None
    assert not desk.store.files


def test_a_plan_tells_what_is_new_and_what_it_changes(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.load()
    desk.put("b.json", {"id": 2, "more": "x"})
    before = desk.snapshots(), desk.query("select count(*) from runs"), dict(desk.store.files)
    planned = plan(desk)
    assert (planned.files, planned.batches, planned.known) == (1, 1, 1)
    assert planned.changes == ("add more string",)
    assert planned.schema.fields[-1] == Field("more", STRING)
    assert (desk.snapshots(), desk.query("select count(*) from runs"), dict(desk.store.files)) == before
    assert desk.load().files_loaded == planned.files


def test_a_plan_with_nothing_new_is_empty(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.load()
    planned = plan(desk)
    assert (planned.files, planned.batches, planned.known, planned.changes) == (0, 0, 1, ())


def test_a_plan_names_files_that_cannot_be_read(desk: Desk) -> None:
    desk.source.put("a.json", b"{")
    assert any("a.json" in warning for warning in plan(desk).warnings)


def test_a_plan_refuses_what_a_load_would(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.load()
    table = desk.store.get(TABLE)
    desk.store.swap(TABLE, table, None)
    with pytest.raises(TableReplacedError):
        plan(desk)
    desk.store.swap(TABLE, None, table)
    desk.store.change(TABLE, lambda t: replace(t, properties={**t.properties, "autoloader.other.last-batch": "1"}))
    with pytest.raises(LedgerBehindTableError):
        plan(desk)


def test_a_format_that_shows_far_down_the_listing_is_refused(desk: Desk) -> None:
    for number in range(PEEK_FILES):
        desk.source.put(f"{number:06}.json", b"")
    desk.source.put("z.csv", b"id\n")
    with pytest.raises(MixedFormatsError, match=r"z\.csv"):
        plan(desk)
