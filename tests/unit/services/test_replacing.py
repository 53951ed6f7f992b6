"""New versions of loaded files: ignored, added, or put in the place of the rows that were loaded before."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.domain.batch import BatchManifest
from app.domain.errors import Category, InvalidFieldError
from app.domain.files import FileState, SourceFile
from app.domain.ports import DataFile, Draft
from app.domain.runs import RunReport, RunStatus
from app.persistence.ledger import open_ledger
from app.services.checking import CheckPorts, CheckRequest, check
from app.services.preflight import LoadRequest
from app.services.preview import PlanPorts, plan_load
from tests.fakes.catalog import FakeCatalog
from tests.unit.services.desk import TABLE, Desk, _in_order
from tests.unit.services.test_loading import FlakySource

S = FileState
REPLACE: dict[str, object] = {"on_file_change": "replace"}
APPEND: dict[str, object] = {"on_file_change": "append"}


def load(desk: Desk, values: dict[str, object] = REPLACE, **more: object) -> RunReport:
    report = desk.load(values=values, **more)  # type: ignore[arg-type]
    assert report.stopped_by is None, report
    return report


def rows(desk: Desk) -> dict[str, list[int]]:
    """Name → the ids of its rows in the table."""
    found: dict[str, list[int]] = {}
    for row in desk.rows():
        found.setdefault(str(row["_file_path"]).removeprefix("s3://memory/"), []).append(int(str(row["id"])))
    return {name: sorted(ids) for name, ids in found.items()}


def put_back(desk: Desk, file: SourceFile, data: bytes) -> None:
    """The file has an earlier version again: the same etag."""
    desk.source.files[file.key] = (file, data)


def assert_sound(desk: Desk, values: dict[str, object] = REPLACE) -> None:
    """Ledger and table agree file by file, nothing is open, and another load finds nothing to do."""
    ledger = open_ledger(desk.url)
    ports = CheckPorts(ledger, FakeCatalog(desk.store), lambda *_: desk.source, _in_order, ())
    report = check(ports, CheckRequest(TABLE))
    ledger.dispose()
    assert report.equal, report.differences
    assert desk.open_batches() == 0
    before = desk.snapshots()
    again = load(desk, values)
    assert (again.files_loaded, again.files_failed, desk.snapshots()) == (0, 0, before)


@pytest.fixture
def two(desk: Desk) -> Desk:
    """Two files of one data file, loaded."""
    desk.put("a.json", {"id": 1}, {"id": 2})
    desk.put("b.json", {"id": 10})
    desk.load()
    return desk


# --- what each policy does --------------------------------------------------------------------------------------------


def test_replace_swaps_exactly_that_files_rows_in_one_snapshot(two: Desk) -> None:
    two.put("a.json", {"id": 3})
    two.put("c.json", {"id": 20})
    before = two.snapshots()
    report = load(two)
    assert (report.files_loaded, report.files_replaced, report.files_appended, report.rows_loaded) == (2, 1, 0, 2)
    assert two.snapshots() == before + 1
    assert rows(two) == {"a.json": [3], "b.json": [10], "c.json": [20]}
    assert two.versions()["a.json"] == [(S.SUPERSEDED, 2), (S.SUCCESS, 1)]
    assert two.query("select kind from batches where number = 2") == "replace"
    assert_sound(two)


def test_a_data_file_of_that_file_alone_is_dropped_and_not_written_anew(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.load()
    desk.put("a.json", {"id": 2})
    load(desk)
    table = desk.store.get(TABLE)
    assert table is not None
    assert len(table.data_files) == 1
    assert rows(desk) == {"a.json": [2]}


def test_append_adds_the_new_version_and_keeps_the_old_one(two: Desk) -> None:
    two.put("a.json", {"id": 3})
    report = load(two, APPEND)
    assert (report.files_loaded, report.files_replaced, report.files_appended) == (1, 0, 1)
    assert rows(two) == {"a.json": [1, 2, 3], "b.json": [10]}
    assert two.versions()["a.json"] == [(S.SUCCESS, 2), (S.SUCCESS, 1)]
    assert two.query("select kind from batches where number = 2") == "load"
    assert_sound(two, APPEND)


def test_ignore_notes_it_and_a_later_policy_takes_it_up(two: Desk) -> None:
    two.put("a.json", {"id": 3})
    report = two.load()
    assert (report.files_loaded, report.files_changed) == (0, 1)
    assert two.versions()["a.json"][1][0] is S.CHANGED
    assert load(two).files_replaced == 1
    assert rows(two)["a.json"] == [3]
    assert_sound(two)


def test_a_version_that_was_noted_and_overtaken_is_superseded(two: Desk) -> None:
    two.put("a.json", {"id": 3})
    two.load()
    two.put("a.json", {"id": 4})
    load(two)
    assert [state for state, _ in two.versions()["a.json"]] == [S.SUPERSEDED, S.SUPERSEDED, S.SUCCESS]


def test_replace_takes_out_every_version_that_was_appended(two: Desk) -> None:
    two.put("a.json", {"id": 3})
    load(two, APPEND)
    two.put("a.json", {"id": 4})
    assert load(two).files_replaced == 1
    assert rows(two) == {"a.json": [4], "b.json": [10]}
    assert [state for state, _ in two.versions()["a.json"]] == [S.SUPERSEDED, S.SUPERSEDED, S.SUCCESS]
    assert_sound(two)


def test_content_that_goes_back_to_an_earlier_version(desk: Desk) -> None:
    first = desk.put("a.json", {"id": 1}, {"id": 2})
    data = desk.source.files[first.key][1]
    desk.load()
    desk.put("a.json", {"id": 3})
    load(desk)
    put_back(desk, first, data)
    assert load(desk).files_replaced == 1
    assert rows(desk) == {"a.json": [1, 2]}
    assert desk.versions()["a.json"] == [(S.SUCCESS, 2), (S.SUPERSEDED, 1)]
    assert_sound(desk)
    desk.put("a.json", {"id": 5})
    load(desk)
    assert rows(desk) == {"a.json": [5]}


def test_an_appended_version_is_loaded_once_however_often_it_comes_back(desk: Desk) -> None:
    first = desk.put("a.json", {"id": 1})
    data = desk.source.files[first.key][1]
    desk.load()
    desk.put("a.json", {"id": 2})
    load(desk, APPEND)
    put_back(desk, first, data)
    assert load(desk, APPEND).files_known == 1
    assert rows(desk) == {"a.json": [1, 2]}


def test_new_columns_of_the_new_version_come_in_the_same_commit(two: Desk) -> None:
    two.put("a.json", {"id": 3, "region": "north"})
    before = two.snapshots()
    load(two)
    assert two.snapshots() == before + 1
    assert {row["id"]: row["region"] for row in two.rows()} == {3: "north", 10: None}


def test_a_new_version_with_no_rows_takes_the_old_ones_out(two: Desk) -> None:
    two.source.put("a.json", b"\n")
    report = load(two)
    assert (report.files_replaced, report.rows_loaded) == (1, 0)
    assert rows(two) == {"b.json": [10]}
    assert two.versions()["a.json"] == [(S.SUPERSEDED, 2), (S.SUCCESS, 0)]
    assert_sound(two)


@pytest.mark.parametrize("values", [REPLACE, APPEND])
def test_an_empty_new_version_is_left_alone_and_said_so(two: Desk, values: dict[str, object]) -> None:
    two.put("a.json")
    report = load(two, values)
    assert (report.files_loaded, report.files_skipped) == (0, 1)
    assert any("without any content (1)" in w for w in report.warnings)
    assert two.versions()["a.json"] == [(S.SUCCESS, 2), (S.SKIPPED, None)]
    again = load(two, values)
    assert (again.files_skipped, again.warnings) == (1, [])
    assert rows(two)["a.json"] == [1, 2]


def test_a_file_that_vanishes_keeps_its_rows(two: Desk) -> None:
    two.source.delete("a.json")
    load(two)
    assert rows(two)["a.json"] == [1, 2]


# --- only what is loaded replaces -------------------------------------------------------------------------------------


def test_a_new_version_that_cannot_be_read_leaves_the_old_rows(two: Desk) -> None:
    two.source.put("a.json", b"{nonsense\n")
    two.put("b.json", {"id": 11})
    report = load(two)
    assert (report.status, report.files_replaced, report.files_failed) == (RunStatus.PARTIAL, 1, 1)
    assert rows(two) == {"a.json": [1, 2], "b.json": [11]}
    assert [state for state, _ in two.versions()["a.json"]] == [S.SUCCESS, S.FAILED]
    two.put("a.json", {"id": 3})
    load(two)
    assert rows(two) == {"a.json": [3], "b.json": [11]}
    assert [state for state, _ in two.versions()["a.json"]] == [S.SUPERSEDED, S.SUPERSEDED, S.SUCCESS]
    assert_sound(two)


def test_a_retry_of_a_failed_new_version_replaces(two: Desk) -> None:
    flaky = FlakySource(files=two.source.files, puts=two.source.puts)
    two.source, flaky.broken = flaky, ("a.json",)
    two.put("a.json", {"id": 3})
    assert load(two).files_failed == 1
    assert rows(two)["a.json"] == [1, 2]
    flaky.broken = ()
    assert load(two).files_replaced == 1
    assert rows(two)["a.json"] == [3]
    assert_sound(two)


def test_a_file_that_changes_again_behind_the_claim_is_replaced_by_the_next_run(two: Desk) -> None:
    two.put("a.json", {"id": 3})

    def change(place: str) -> None:
        if place == "batch_claimed:after":
            two.put("a.json", {"id": 4})

    report = load(two, reach=change)
    assert (report.files_failed, report.errors[0].category) == (1, Category.PATH_NOT_FOUND)
    assert rows(two)["a.json"] == [1, 2]
    load(two)
    assert rows(two)["a.json"] == [4]
    assert_sound(two)


# --- two ingestions on one table --------------------------------------------------------------------------------------


def test_a_file_that_the_other_ingestion_loaded_is_replaced(two: Desk) -> None:
    mine = str(two.query("select id from ingestions"))
    two.put("a.json", {"id": 3})
    two.load_as("f" * 32, REPLACE)
    assert rows(two) == {"a.json": [3], "b.json": [10]}
    assert (
        two.query("select count(*) from files where state = 'success' and batch_number = 1 and key like '%a.json'") == 1
    )
    two.put("a.json", {"id": 4})
    two.load_as(mine, REPLACE)
    assert rows(two) == {"a.json": [4], "b.json": [10]}
    assert_sound(two)


def test_a_version_that_is_at_work_elsewhere_is_left_alone(two: Desk) -> None:
    mine = str(two.query("select id from ingestions"))
    two.put("a.json", {"id": 3})
    two.load_and_die("batch_claimed:after", values=REPLACE)
    two.put("a.json", {"id": 4})
    two.load_as("f" * 32, REPLACE)
    assert rows(two)["a.json"] == [1, 2]
    # The one that had it finds it changed since, and the run after that takes the newest.
    two.load_as(mine, REPLACE)
    load(two)
    assert rows(two)["a.json"] == [4]
    assert_sound(two)


# --- rows that cannot be told, or are not what they were --------------------------------------------------------------


def test_without_provenance_it_is_refused_at_once(two: Desk) -> None:
    with pytest.raises(InvalidFieldError, match="provenance"):
        two.load(values={**REPLACE, "provenance": False})


def test_rows_of_a_version_that_was_loaded_without_provenance_stay(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.load(values={"provenance": False})
    desk.put("a.json", {"id": 2})
    desk.put("b.json", {"id": 10})
    report = load(desk)
    assert (report.files_loaded, report.files_failed) == (1, 1)
    assert "without provenance" in report.errors[0].message
    assert not report.errors[0].retryable
    assert desk.ids() == [1, 10]
    assert [state for state, _ in desk.versions()["a.json"]] == [S.SUCCESS, S.FAILED]
    assert load(desk, APPEND, retry_failed=True).files_appended == 1
    assert desk.ids() == [1, 2, 10]


def test_where_nobody_knows_of_provenance_and_no_row_is_found_the_old_ones_stay(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.put("b.json", {"id": 10})
    desk.load(values={"provenance": False})
    desk.execute("update batches set definition = '{}'")
    desk.put("a.json", {"id": 2})
    desk.put("c.json", {"id": 20})
    report = load(desk)
    assert (report.files_loaded, report.files_failed) == (1, 1)
    assert "nobody knows" in report.errors[0].message
    assert desk.ids() == [1, 10, 20]
    assert not desk.orphans()


def edit_rows(desk: Desk, edit: Callable[[list[dict[str, object]]], list[dict[str, object]]]) -> None:
    """Somebody writes the table's data files anew."""
    table = desk.store.get(TABLE)
    assert table is not None
    (data_file,) = table.data_files
    found = pq.read_table(io.BytesIO(desk.store.read(data_file.path)))
    changed = pa.Table.from_pylist(edit(found.to_pylist()), schema=found.schema)
    buffer = io.BytesIO()
    pq.write_table(changed, buffer)
    desk.store.files["memory://by-hand.parquet"] = buffer.getvalue()
    new = DataFile("memory://by-hand.parquet", changed.num_rows, buffer.tell())
    desk.store.change(TABLE, lambda t: replace(t, data_files=(new,)))


def test_fewer_rows_than_were_loaded_are_said(two: Desk) -> None:
    edit_rows(two, lambda found: [row for row in found if row["id"] != 1])
    two.put("a.json", {"id": 3})
    report = load(two)
    assert report.files_replaced == 1
    assert any("fewer rows" in w and "a.json" in w for w in report.warnings)
    assert rows(two) == {"a.json": [3], "b.json": [10]}


def test_all_rows_gone_is_said_too(two: Desk) -> None:
    edit_rows(two, lambda found: [row for row in found if row["id"] == 10])
    two.put("a.json", {"id": 3})
    report = load(two)
    assert any("fewer rows" in w for w in report.warnings)
    assert rows(two) == {"a.json": [3], "b.json": [10]}


def test_more_rows_than_were_loaded_fail_the_file_and_nothing_goes(two: Desk) -> None:
    edit_rows(two, lambda found: [*found, *found])
    two.put("a.json", {"id": 3})
    two.put("c.json", {"id": 20})
    report = load(two)
    assert (report.files_loaded, report.files_failed) == (1, 1)
    assert "holds 4 rows" in report.errors[0].message
    assert rows(two) == {"a.json": [1, 1, 2, 2], "b.json": [10, 10], "c.json": [20]}
    assert not [path for path in two.orphans() if "-00000002-" in path]


def test_rows_of_others_with_the_same_path_stay(two: Desk) -> None:
    other = "somebody-00000001"
    edit_rows(two, lambda found: [*found, {**found[0], "id": 99, "_batch_id": other}, {**found[0], "_batch_id": None}])
    two.put("a.json", {"id": 3})
    load(two)
    assert rows(two) == {"a.json": [1, 3, 99], "b.json": [10]}


# --- the table moves under a commit -----------------------------------------------------------------------------------


class Restless(FakeCatalog):
    """Before its first commit somebody moves rows to another data file."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk.store)
        self.desk = desk
        self.moved = False

    def draft(self, *args: object, **more: object) -> Draft:
        draft = super().draft(*args, **more)  # type: ignore[arg-type]
        writes = draft.write_manifest

        def write_manifest(manifest: BatchManifest) -> str:
            if not self.moved:
                self.moved = True
                edit_rows(self.desk, lambda found: found)
            return writes(manifest)

        draft.write_manifest = write_manifest  # type: ignore[method-assign]
        return draft


def test_rows_that_were_moved_are_looked_for_again(two: Desk) -> None:
    two.put("a.json", {"id": 3})
    catalog = Restless(two)
    assert load(two, catalog=catalog).files_replaced == 1
    assert catalog.moved
    assert len(two.engine.rewrites) == 2
    assert rows(two) == {"a.json": [3], "b.json": [10]}
    assert not [path for path in two.orphans() if "-00000002-" in path]


# --- killed -----------------------------------------------------------------------------------------------------------

PLACES = (
    "batch_claimed:after",
    "data_written:after",
    "rows_taken_out:after",
    "manifest_written:after",
    "committed:before",
    "committed:after",
    "batch_closed:after",
)


@pytest.mark.parametrize("place", PLACES)
def test_killed_anywhere_the_next_run_replaces_once(two: Desk, place: str) -> None:
    two.put("a.json", {"id": 3})
    two.put("c.json", {"id": 20})
    two.load_and_die(place, values=REPLACE)
    load(two)
    assert rows(two) == {"a.json": [3], "b.json": [10], "c.json": [20]}
    assert two.versions()["a.json"] == [(S.SUPERSEDED, 2), (S.SUCCESS, 1)]
    assert Counter(int(str(row["id"])) for row in two.rows()).most_common(1)[0][1] == 1
    assert_sound(two)


@pytest.mark.parametrize("place", PLACES)
def test_the_policy_of_an_open_batch_is_the_one_it_was_claimed_under(two: Desk, place: str) -> None:
    two.put("a.json", {"id": 3})
    two.load_and_die(place, values=REPLACE)
    two.load()
    assert rows(two) == {"a.json": [3], "b.json": [10]}
    assert_sound(two, {})


def test_a_batch_that_is_reloaded_takes_out_what_was_frozen(two: Desk) -> None:
    """Its file changed meanwhile: it is cut out, and so the old rows stay."""
    two.put("a.json", {"id": 3})
    two.put("b.json", {"id": 11})
    two.load_and_die("batch_claimed:after", values=REPLACE)
    two.put("a.json", {"id": 4})
    two.load()
    assert rows(two) == {"a.json": [1, 2], "b.json": [11]}
    load(two)
    assert rows(two) == {"a.json": [4], "b.json": [11]}
    assert_sound(two)


# --- a plan -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "counts"), [({}, (1, 0, 0)), (REPLACE, (2, 1, 0)), (APPEND, (2, 0, 1))])
def test_a_plan_tells_them_apart(two: Desk, values: dict[str, object], counts: tuple[int, int, int]) -> None:
    two.put("a.json", {"id": 3})
    two.put("c.json", {"id": 20})
    ledger = open_ledger(two.url)
    ports = PlanPorts(ledger, FakeCatalog(two.store), two.engine, lambda *_: two.source, _in_order, ())
    planned = plan_load(ports, two.settings, LoadRequest("s3://memory/", TABLE, values))
    ledger.dispose()
    assert (planned.files, planned.replaced, planned.appended) == counts
