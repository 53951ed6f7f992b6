"""A check is equal exactly when every file of the listing is in the table, once, and nothing else is."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from app.domain.comparison import DifferenceKind
from app.domain.errors import TableNotFoundError, TableReplacedError
from app.persistence.ledger import open_ledger
from app.services.checking import CheckPorts, CheckReport, CheckRequest, check
from app.services.preflight import LoadRequest
from tests.fakes.catalog import FakeCatalog
from tests.unit.services.desk import TABLE, Desk, _in_order

LOAD = LoadRequest("s3://memory/", TABLE, {})


def checked(desk: Desk, *, source: LoadRequest | None = LOAD, limit: int = 100) -> CheckReport:
    ledger = open_ledger(desk.url)
    try:
        ports = CheckPorts(ledger, FakeCatalog(desk.store), lambda *_: desk.source, _in_order, ())
        return check(ports, CheckRequest(TABLE, source, limit))
    finally:
        ledger.dispose()


def told(report: CheckReport) -> dict[str, list[str]]:
    """Kind → names of files."""
    return {
        kind.value: [(d.key or "").removeprefix("s3://memory/") for d in tally.first]
        for kind, tally in report.differences.items()
        if tally.count
    }


def edit_rows(desk: Desk, edit: Callable[[list[dict[str, object]]], list[dict[str, object]]]) -> None:
    """Somebody rewrites the table's rows."""
    table = desk.store.get(TABLE)
    assert table is not None
    for data_file in table.data_files:
        found = pq.read_table(io.BytesIO(desk.store.read(data_file.path)))
        buffer = io.BytesIO()
        pq.write_table(found.from_pylist(edit(found.to_pylist()), schema=found.schema), buffer)
        desk.store.files[data_file.path] = buffer.getvalue()


@pytest.fixture
def loaded(desk: Desk) -> Desk:
    desk.put("a.json", {"id": 1}, {"id": 2})
    desk.put("b.json", {"id": 3})
    desk.put("empty.json")
    desk.load()
    return desk


def test_a_table_that_equals_its_files(loaded: Desk) -> None:
    report = checked(loaded)
    assert report.equal
    assert (report.files_listed, report.files_in_ledger, report.files_in_table) == (3, 2, 2)
    assert (report.rows_in_ledger, report.rows_in_table, report.rows_of_no_file) == (3, 3, 0)
    table = loaded.store.get(TABLE)
    assert table is not None
    assert table.current is not None
    assert report.snapshot_id == table.current.id
    assert not report.disturbed


def test_a_file_that_is_gone_from_the_source_is_no_difference(loaded: Desk) -> None:
    del loaded.source.files["s3://memory/a.json"]
    report = checked(loaded)
    assert (report.equal, report.warnings()) == (True, [])


def test_where_nothing_is_listed_nothing_is_proven(loaded: Desk) -> None:
    loaded.source.files.clear()
    report = checked(loaded)
    assert (report.equal, report.proves_nothing, report.files_listed, told(report)) == (False, True, 0, {})
    (warning,) = report.warnings()
    assert "nothing is proven" in warning
    assert checked(loaded, source=None).equal


def test_where_nothing_is_listed_and_nothing_was_loaded_all_is_equal(desk: Desk) -> None:
    desk.put("empty.json")
    desk.load()
    desk.source.files.clear()
    report = checked(desk)
    assert (report.equal, report.warnings()) == (True, [])


def test_a_file_that_was_not_loaded_yet(loaded: Desk) -> None:
    loaded.put("c.json", {"id": 4})
    assert told(checked(loaded)) == {"not_loaded": ["c.json"]}
    assert checked(loaded, source=None).equal


def test_a_file_that_failed(loaded: Desk) -> None:
    loaded.source.put("bad.json", b"{nonsense\n")
    loaded.load()
    assert told(checked(loaded)) == {"failed": ["bad.json"]}


def test_a_version_that_changed(loaded: Desk) -> None:
    loaded.put("a.json", {"id": 9})
    assert told(checked(loaded)) == {"changed": ["a.json"]}
    loaded.load()
    assert told(checked(loaded)) == {"changed": ["a.json"]}


def test_a_row_deleted_by_hand(loaded: Desk) -> None:
    edit_rows(loaded, lambda rows: [r for r in rows if r["id"] != 1])
    report = checked(loaded)
    assert told(report) == {"rows_differ": ["a.json"]}
    (difference,) = report.differences[DifferenceKind.ROWS_DIFFER].first
    assert (difference.ledger_rows, difference.table_rows) == (2, 1)


def test_a_row_doubled_by_hand(loaded: Desk) -> None:
    edit_rows(loaded, lambda rows: [*rows, rows[-1]])
    assert told(checked(loaded, source=None)) == {"rows_differ": ["b.json"]}


def test_a_file_without_its_rows(loaded: Desk) -> None:
    edit_rows(loaded, lambda rows: [r for r in rows if r["id"] != 3])
    assert told(checked(loaded)) == {"not_in_table": ["b.json"]}


def test_rows_of_a_file_that_the_ledger_does_not_know(loaded: Desk) -> None:
    edit_rows(loaded, lambda rows: [*rows, {**rows[0], "_file_path": "s3://memory/else.json"}])
    assert told(checked(loaded)) == {"not_in_ledger": ["else.json"]}


def test_rows_of_another_writer_are_counted_and_no_difference(loaded: Desk) -> None:
    edit_rows(loaded, lambda rows: [*rows, {**rows[0], "_file_path": None, "_batch_id": None}])
    report = checked(loaded)
    assert report.equal
    assert report.rows_of_no_file == 1


def test_only_so_many_are_named(loaded: Desk) -> None:
    for number in range(5):
        loaded.put(f"new{number}.json", {"id": number})
    report = checked(loaded, limit=2)
    assert report.differences[DifferenceKind.NOT_LOADED].count == 5
    assert told(report) == {"not_loaded": ["new0.json", "new1.json"]}


def test_without_provenance_the_sum_is_compared(desk: Desk) -> None:
    desk.put("a.json", {"id": 1}, {"id": 2})
    desk.load(values={"provenance": False})
    assert checked(desk).equal
    edit_rows(desk, lambda rows: rows[:1])
    report = checked(desk)
    assert not report.by_file
    (difference,) = report.differences[DifferenceKind.ROWS_DIFFER].first
    assert (difference.key, difference.ledger_rows, difference.table_rows) == (None, 2, 1)


def test_a_batch_that_was_left_open_is_said(loaded: Desk) -> None:
    loaded.put("c.json", {"id": 4})
    loaded.load_and_die("committed:after")
    report = checked(loaded)
    assert told(report) == {"not_loaded": ["c.json"], "not_in_ledger": ["c.json"]}
    assert report.disturbed
    assert report.open_batches == 1
    loaded.load()
    assert checked(loaded).equal


def test_a_generation_that_was_cleared_does_not_count(loaded: Desk) -> None:
    ledger = open_ledger(loaded.url)
    ledger.clear(ledger.ensure_table(str(TABLE)))
    ledger.dispose()
    assert told(checked(loaded)) == {"not_loaded": ["a.json", "b.json"], "not_in_ledger": ["a.json", "b.json"]}


def test_what_cannot_be_compared_is_refused(desk: Desk) -> None:
    with pytest.raises(TableNotFoundError):
        checked(desk)
    desk.put("a.json", {"id": 1})
    desk.load()
    desk.store.change(TABLE, lambda t: replace(t, uuid="another"))
    with pytest.raises(TableReplacedError):
        checked(desk)
    assert desk.store.swap(TABLE, desk.store.get(TABLE), None)
    with pytest.raises(TableReplacedError):
        checked(desk)
