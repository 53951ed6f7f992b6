from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from app.domain.definition import Definition
from app.domain.errors import (
    Category,
    FileError,
    InvalidFieldError,
    LeaseLostError,
    LedgerBehindTableError,
    MixedFormatsError,
    NoMatchError,
    RunInProgressError,
    SourceContainsWarehouseError,
    StoppedByUser,
    TableReplacedError,
    TableRolledBackError,
)
from app.domain.files import FileState, SourceFile
from app.domain.formats import FileFormat, FormatOptions
from app.domain.ledger import Closing
from app.domain.runs import Lease, RunStatus
from app.domain.table import last_batch_property
from app.persistence.leases import this_process
from app.persistence.ledger import open_ledger
from tests.fakes.catalog import FakeCatalog
from tests.fakes.source import MemoryReader, MemorySource
from tests.unit.persistence.desk import until
from tests.unit.services.desk import TABLE, Desk, error_of

S = FileState


def test_a_first_load_makes_the_table_and_its_rows_say_where_they_come_from(desk: Desk) -> None:
    one = desk.put("a.json", {"id": 1, "x": "é"}, {"id": 2})
    desk.put("b.json", {"id": 3})
    report = desk.load()
    assert (report.status, report.files_loaded, report.rows_loaded, report.batches) == (RunStatus.SUCCESS, 2, 3, 1)
    assert report.stored_bytes == sum(f.size_bytes for f, _ in desk.source.files.values())
    table = desk.store.get(TABLE)
    assert table is not None
    assert report.snapshot_id == table.snapshots[-1].id
    first = next(row for row in desk.rows() if row["id"] == 1)
    assert (first["_file_path"], first["x"], first["_rescued_data"]) == (one.key, "é", None)
    assert first["_batch_id"] == table.snapshots[-1].batch_id
    assert desk.notes.batches == [(2, 3, 0)]
    assert desk.states() == {"a.json": S.SUCCESS, "b.json": S.SUCCESS}


def test_a_second_load_loads_nothing_and_commits_nothing(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.load()
    report = desk.load()
    assert (report.status, report.files_loaded, report.files_known) == (RunStatus.SUCCESS, 0, 1)
    assert report.snapshot_id is None
    assert desk.snapshots() == 1
    assert desk.ids() == [1]


def test_the_engine_is_told_of_work_before_it_comes_and_never_without(desk: Desk) -> None:
    first, _empty = desk.put("a.json", {"id": 1}), desk.source.put("b.json", b"")
    desk.load()
    # Before the ledger is opened, and when the batch is claimed.
    assert desk.engine.expected == [(first,), (first,)]
    desk.engine.expected.clear()
    desk.load()
    assert desk.engine.expected == []
    second = desk.put("c.json", {"id": 2})
    desk.load()
    assert desk.engine.expected == [(second,)]


def test_only_new_files_are_loaded_wherever_they_sort(desk: Desk) -> None:
    desk.put("m.json", {"id": 1})
    desk.load()
    desk.put("a.json", {"id": 2})
    desk.put("z.json", {"id": 3})
    report = desk.load()
    assert (report.files_loaded, report.files_known, report.rows_loaded) == (2, 1, 2)
    assert desk.ids() == [1, 2, 3]


def test_batches_commit_one_by_one(desk: Desk) -> None:
    desk.settings = replace(desk.settings, batch_files=2)
    for number in range(5):
        desk.put(f"{number}.json", {"id": number})
    report = desk.load()
    assert (report.batches, report.files_loaded) == (3, 5)
    assert desk.snapshots() == 3
    table = desk.store.get(TABLE)
    assert table is not None
    assert [v for k, v in table.properties.items() if k.endswith("last-batch")] == ["3"]


def test_one_bad_file_leaves_the_others_alone(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.source.put("b.json", b'{"id": 2}\n{"id": ')
    desk.put("c.json", {"id": 3})
    report = desk.load()
    assert (report.status, report.files_loaded, report.files_failed) == (RunStatus.PARTIAL, 2, 1)
    (failure,) = report.errors
    assert (failure.key, failure.category, failure.line) == ("s3://memory/b.json", Category.DATA_MALFORMED, 2)
    assert desk.ids() == [1, 3]
    again = desk.load()
    assert (again.status, again.files_still_failed, again.files_known) == (RunStatus.SUCCESS, 1, 2)
    assert "--retry-failed" in again.warnings[0]


def test_when_all_files_fail_no_table_is_made(desk: Desk) -> None:
    desk.source.put("a.json", b"{")
    report = desk.load()
    assert (report.status, report.files_failed) == (RunStatus.FAILED, 1)
    assert desk.store.get(TABLE) is None
    assert desk.states() == {"a.json": S.FAILED}
    desk.put("a.json", {"id": 1})
    assert desk.load().status is RunStatus.SUCCESS
    assert desk.ids() == [1]


class FlakySource(MemorySource):
    """Some of its files cannot be read for now."""

    broken: tuple[str, ...] = ()

    def reader(self) -> MemoryReader:
        return FlakyReader(self.files, self.broken)


class FlakyReader(MemoryReader):
    def __init__(self, files: dict[str, tuple[SourceFile, bytes]], broken: tuple[str, ...]) -> None:
        super().__init__(files)
        self.broken = broken

    def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
        if file.key.endswith(self.broken):
            raise FileError(Category.CONNECTIVITY, "The store does not answer.")
        return super().read(file, start, end)


def test_retryable_failures_have_three_tries_and_then_wait_to_be_asked_for(desk: Desk) -> None:
    desk.source = source = FlakySource()
    source.broken = ("b.json",)
    desk.put("a.json", {"id": 1})
    desk.put("b.json", {"id": 2})
    statuses = []
    for _ in range(5):
        report = desk.load()
        statuses.append((report.status, report.files_failed, report.files_still_failed))
        desk.let_time_pass()
    failed, left = (RunStatus.FAILED, 1, 0), (RunStatus.SUCCESS, 0, 1)
    assert statuses == [(RunStatus.PARTIAL, 1, 0), failed, failed, left, left]
    source.broken = ("none",)
    assert desk.load().files_loaded == 0
    report = desk.load(retry_failed=True)
    assert (report.status, report.files_loaded) == (RunStatus.SUCCESS, 1)
    assert desk.ids() == [1, 2]


def test_a_file_whose_turn_has_not_come_is_left_alone(desk: Desk) -> None:
    desk.source = source = FlakySource()
    source.broken = ("a.json",)
    desk.put("a.json", {"id": 1})
    desk.load()
    assert desk.load().files_failed == 1
    assert desk.load().files_still_failed == 1


def test_a_new_version_of_a_loaded_file_is_noted_and_not_loaded(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.load()
    desk.put("a.json", {"id": 9})
    for _ in range(2):
        report = desk.load()
        assert (report.status, report.files_loaded, report.files_changed) == (RunStatus.SUCCESS, 0, 1)
        assert "new version" in report.warnings[0]
    assert desk.ids() == [1]
    assert desk.query("select count(*) from files where state = 'changed'") == 1


def test_empty_files_are_skipped_until_something_is_in_them(desk: Desk) -> None:
    desk.source.put("a.json", b"")
    desk.put("b.json", {"id": 1})
    assert desk.load().files_skipped == 1
    assert desk.load().files_skipped == 1
    assert desk.states()["a.json"] is S.SKIPPED
    desk.put("a.json", {"id": 2})
    assert desk.load().files_loaded == 1
    assert desk.ids() == [1, 2]


def test_a_file_without_rows_is_loaded_and_makes_no_snapshot(desk: Desk) -> None:
    desk.source.put("a.json", b"\n\n")
    report = desk.load()
    assert (report.status, report.files_loaded, report.rows_loaded, report.snapshot_id) == (
        RunStatus.SUCCESS, 1, 0, None,
    )  # fmt: skip
    assert desk.load().files_known == 1
    assert desk.snapshots() == 0


def test_a_file_that_is_gone_or_changed_by_the_time_it_is_read_is_left_out(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.put("b.json", {"id": 2})

    def change(name: str) -> None:
        if name == "batch_claimed:after":
            desk.source.delete("a.json")

    report = desk.load(reach=change)
    assert report.status is RunStatus.PARTIAL
    assert report.errors[0].category is Category.PATH_NOT_FOUND
    desk.put("a.json", {"id": 3})
    assert desk.load().files_loaded == 1
    assert desk.ids() == [2, 3]


def test_a_store_that_lists_in_disorder_is_sorted_and_nothing_is_missed(desk: Desk) -> None:
    desk.settings = replace(desk.settings, batch_files=2)
    names = ["m", "z", "a!", "a", "é", "\uffee", "\U0001f600", "b/x", "b-b/x"]
    for number, name in enumerate(names):
        desk.put(f"{name}.json", {"id": number})
    assert desk.load().files_loaded == len(names)
    assert len([n for n in desk.notes.notes if "key order" in n]) == 1
    desk.put("0.json", {"id": 100})
    report = desk.load()
    assert (report.files_loaded, report.files_known) == (1, len(names))
    assert desk.ids() == desk.source_ids()


def test_drift_is_taken_into_the_same_commit(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.load()
    desk.put("b.json", {"id": 2, "new": "x", "deep": {"a": 1}})
    desk.put("c.json", {"id": 3, "deep": {"b": [1]}, "other": 1.5})
    report = desk.load()
    assert report.files_loaded == 2
    assert desk.snapshots() == 2
    by_id = {row["id"]: row for row in desk.rows()}
    assert by_id[2]["new"] == "x"
    assert by_id[3]["deep"] == {"a": None, "b": [1]}
    assert "new" not in by_id[1]
    assert not desk.orphans()


def test_a_value_that_no_promotion_fits_fails_its_file(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.load()
    desk.put("b.json", {"id": "text"})
    desk.put("c.json", {"id": 3})
    report = desk.load()
    assert report.status is RunStatus.PARTIAL
    assert report.errors[0].category is Category.SCHEMA_MISMATCH
    assert desk.ids() == [1, 3]


# --- what a load refuses ----------------------------------------------------------------------------------------------


def assert_refused(desk: Desk, error: type[Exception]) -> None:
    before, files = desk.store.get(TABLE), dict(desk.store.files)
    desk.put("new.json", {"id": 99})
    report = desk.load()
    assert report.status is RunStatus.FAILED
    assert isinstance(error_of(report), error)
    assert desk.store.get(TABLE) is before
    assert desk.store.files == files
    assert desk.query("select count(*) from leases where run_id is not null") == 0
    assert "new.json" not in desk.states()


def loaded_desk(desk: Desk) -> Desk:
    desk.settings = replace(desk.settings, batch_files=1)
    for number in range(3):
        desk.put(f"{number}.json", {"id": number})
    desk.load()
    return desk


def test_a_table_that_was_dropped_is_refused(desk: Desk) -> None:
    loaded_desk(desk).store.swap(TABLE, desk.store.get(TABLE), None)
    assert_refused(desk, TableReplacedError)


def test_a_table_that_was_made_anew_is_refused(desk: Desk) -> None:
    loaded_desk(desk).store.change(TABLE, lambda t: replace(t, uuid="another", snapshots=(), properties={}))
    assert_refused(desk, TableReplacedError)


def test_a_table_that_was_rolled_back_is_refused(desk: Desk) -> None:
    loaded_desk(desk).store.change(TABLE, lambda t: replace(t, snapshots=t.snapshots[:1]))
    assert_refused(desk, TableRolledBackError)


def test_a_history_that_expired_is_not_refused(desk: Desk) -> None:
    catalog = FakeCatalog(loaded_desk(desk).store)
    desk.store.change(TABLE, lambda t: replace(t, snapshots=(*t.snapshots, catalog.snapshot(t))[-1:]))
    desk.put("new.json", {"id": 99})
    assert desk.load().status is RunStatus.SUCCESS


def test_a_table_with_batches_that_nobody_here_knows_is_refused(desk: Desk) -> None:
    strange = {last_batch_property("f" * 32): "1"}
    loaded_desk(desk).store.change(TABLE, lambda t: replace(t, properties={**t.properties, **strange}))
    before, files = desk.store.get(TABLE), dict(desk.store.files)
    desk.put("new.json", {"id": 99})
    with pytest.raises(LedgerBehindTableError):
        desk.load()
    assert desk.store.get(TABLE) is before
    assert desk.store.files == files
    assert desk.query("select count(*) from leases where run_id is not null") == 0
    assert "new.json" not in desk.states()


def test_a_cleared_ledger_loads_every_file_again(desk: Desk) -> None:
    loaded_desk(desk)
    ledger = open_ledger(desk.url)
    ledger.clear(ledger.ensure_table(str(TABLE)))
    ledger.dispose()
    desk.store.swap(TABLE, desk.store.get(TABLE), None)
    assert desk.load().files_loaded == 3
    assert desk.ids() == [0, 1, 2]


def test_a_source_without_a_file_makes_neither_table_nor_ledger(desk: Desk) -> None:
    with pytest.raises(NoMatchError):
        desk.load()
    assert desk.query("select count(*) from tables") == 0


def test_a_source_that_contains_the_table_is_refused(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.load()
    desk.store.change(TABLE, lambda t: replace(t, location="s3://memory/warehouse/t"))
    with pytest.raises(SourceContainsWarehouseError):
        desk.load()


def test_formats_that_mix_are_refused_before_anything_is_made(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.source.put("b.csv", b"id\n1\n")
    with pytest.raises(MixedFormatsError, match=r"b\.csv"):
        desk.load()
    assert desk.load(values={"format": "json"}).files_failed == 1


def test_a_type_of_source_that_the_path_does_not_name_is_refused(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    with pytest.raises(InvalidFieldError, match=r"source\.type"):
        desk.load(values={"source_type": "local"})
    assert desk.load(values={"source_type": "s3"}).status is RunStatus.SUCCESS


# --- others at work ---------------------------------------------------------------------------------------------------


def ingestion_of(desk: Desk) -> str:
    return str(desk.query("select id from ingestions where kind = 'load'"))


def test_a_run_at_work_is_waited_for_and_then_named(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.load()
    ledger = open_ledger(desk.url)
    lease = ledger.acquire(ingestion_of(desk), "theirs", this_process(), 60)
    assert isinstance(lease, Lease)
    with pytest.raises(RunInProgressError, match="theirs") as caught:
        desk.load()
    assert caught.value.run_id == "theirs"

    def release() -> None:
        until(lambda: any("Waiting for run theirs" in note for note in desk.notes.notes))
        ledger.release(lease)

    releaser = threading.Thread(target=release)
    releaser.start()
    assert desk.load(wait_s=60).status is RunStatus.SUCCESS
    releaser.join()
    assert len([n for n in desk.notes.notes if "Waiting for run theirs" in n]) == 1
    ledger.dispose()


@pytest.mark.parametrize(
    "place",
    ["batch_claimed:after", "data_written:after", "manifest_written:after", "commit_request:before", "committed:after"],
)
def test_a_run_that_loses_its_lease_stops_and_records_nothing_twice(desk: Desk, place: str) -> None:
    desk.settings = replace(desk.settings, batch_files=1)
    desk.put("a.json", {"id": 1})
    desk.put("b.json", {"id": 2})
    other = open_ledger(desk.url)

    def steal(name: str) -> None:
        if name == place and desk.query("select count(*) from leases where run_id = 'thief'") == 0:
            desk.execute("update leases set expires_at = 0")
            lease = other.acquire(ingestion_of(desk), "thief", this_process(), 60)
            assert isinstance(lease, Lease)

    report = desk.load(reach=steal)
    assert isinstance(error_of(report), LeaseLostError)
    assert desk.open_batches() == 1
    assert desk.query("select run_id from leases") == "thief"
    desk.execute("update leases set expires_at = 0")
    assert desk.load().status is RunStatus.SUCCESS
    assert desk.ids() == [1, 2]
    assert desk.query("select count(*) from batches where state = 'committed'") == 2
    other.dispose()


def test_a_lease_is_renewed_while_the_ledger_takes_its_time_over_the_runs_row(desk: Desk) -> None:
    desk.settings = replace(desk.settings, lease_s=20.0)
    desk.put("a.json", {"id": 1})
    expires_at = "select expires_at from leases"
    renewed = []

    def wait(name: str) -> None:
        if name == "run_started:before":
            first = desk.query(expires_at)
            until(lambda: desk.query(expires_at) != first)
            renewed.append(name)

    assert desk.load(reach=wait).status is RunStatus.SUCCESS
    assert renewed
    assert desk.ids() == [1]


def test_files_that_another_ingestion_has_claimed_are_respected(desk: Desk) -> None:
    one = desk.put("a.json", {"id": 1})
    desk.put("b.json", {"id": 2})
    ledger = open_ledger(desk.url)
    record = ledger.ensure_table(str(TABLE))
    desk.execute(
        "insert into ingestions (id, table_id, kind, next_batch, created_at) "
        f"values ('service', {record.id}, 'service', 1, 0)"
    )
    lease = ledger.acquire("service", "theirs", this_process(), 60)
    assert isinstance(lease, Lease)
    definition = Definition("s3://memory/", None, FormatOptions(FileFormat.JSON))
    batch = ledger.claim(lease, record, definition, [one])
    assert batch is not None
    report = desk.load()
    assert (report.files_loaded, report.files_skipped) == (1, 1)
    assert desk.ids() == [2]
    ledger.close(lease, record, Closing(batch.batch, committed=False))
    assert desk.load().files_loaded == 1
    assert desk.ids() == [1, 2]
    ledger.dispose()


# --- stopped by a person ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["batch_claimed:after", "data_written:after", "commit_request:before", "committed:after"]
)
def test_a_stop_gives_the_lease_back_and_the_next_run_settles_the_batch(desk: Desk, place: str) -> None:
    desk.put("a.json", {"id": 1})

    def stop(name: str) -> None:
        if name == place:
            raise StoppedByUser

    with pytest.raises(StoppedByUser):
        desk.load(reach=stop)
    assert desk.query("select run_id from leases") is None
    assert desk.query("select status from runs") == "cancelled"
    assert desk.open_batches() == 1
    report = desk.load()
    assert (report.status, report.files_loaded) == (RunStatus.SUCCESS, 1)
    assert desk.ids() == [1]
    assert desk.open_batches() == 0
    assert len(desk.orphans()) <= 1


def test_a_stop_says_of_the_run_what_it_did_before(desk: Desk) -> None:
    desk.settings = replace(desk.settings, batch_files=1)
    for number in range(3):
        desk.put(f"{number}.json", {"id": number})
    closed: list[str] = []

    def stop(name: str) -> None:
        if name == "batch_closed:after":
            closed.append(name)
        if name == "batch_claimed:after" and len(closed) == 2:
            raise StoppedByUser

    with pytest.raises(StoppedByUser):
        desk.load(reach=stop)
    assert desk.query("select files_loaded from runs") == 2
