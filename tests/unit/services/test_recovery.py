from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace

import pytest

from app.domain.batch import BatchManifest, BatchRef
from app.domain.errors import (
    AutoloaderError,
    BucketNotFoundError,
    CatalogAuthError,
    CatalogRefusedError,
    CatalogUnreachableError,
    CommitUnknownError,
    LedgerBehindTableError,
    LedgerBusyError,
    LedgerUnreachableError,
    TableConflictError,
    WriteFailureError,
)
from app.domain.files import FileState
from app.domain.ports import CommitOrder, Committed, Draft, FoundBatch, Progress, Source, WriteOrder, WriteResult
from app.domain.runs import RunStatus
from app.domain.table import TableHead, TableName, last_batch_property
from app.domain.types import EMPTY, Struct
from app.services.recovery import GivenUp, Settlement
from tests.fakes.catalog import FakeCatalog, FakeDraft
from tests.fakes.engine import FakeEngine
from tests.fakes.source import MemorySource
from tests.unit.services.desk import TABLE, Desk, error_of

# --- killed between two steps -----------------------------------------------------------------------------------------


def fill(desk: Desk, first: int = 0) -> None:
    desk.settings = replace(desk.settings, batch_files=2)
    for number in range(first, first + 5):
        desk.put(f"{number}.json", {"id": number * 10}, {"id": number * 10 + 1})


def settled(desk: Desk) -> None:
    """One plain load later everything is as if nothing had happened."""
    report = desk.load()
    assert report.status is RunStatus.SUCCESS, report.stopped_by
    assert desk.ids() == desk.source_ids()
    assert set(desk.states().values()) == {FileState.SUCCESS}
    assert desk.open_batches() == 0
    snapshots = desk.snapshots()
    again = desk.load()
    assert (again.files_loaded, again.files_known) == (0, len(desk.source.files))
    assert desk.snapshots() == snapshots
    assert desk.query("select count(*) from runs where status = 'running'") == 0


# What every load comes to when there is something to load. Between two of them nothing lasting is done, so that what
# lies before one is what lies behind the last; real processes are killed at both (tests/crash).
PLACES = (
    "source_listed:after", "table_read:after", "lease_taken:after", "run_started:after", "open_batches_read:after",
    "files_joined:after", "batch_claimed:after", "table_drafted:after", "data_written:after",
    "manifest_written:after", "commit_request:before", "commit_request:after", "committed:after",
    "batch_closed:after", "hints_added:after", "run_finished:after", "lease_released:after",
)  # fmt: skip


@pytest.mark.parametrize("place", [*PLACES, "schema_inferred:after"])
def test_killed_at_any_place_of_a_first_load_every_row_is_there_once(desk: Desk, place: str) -> None:
    fill(desk)
    desk.load_and_die(place)
    settled(desk)


@pytest.mark.parametrize("place", [*PLACES, "drift_drafted:after"])
def test_killed_at_any_place_of_a_later_load_every_row_is_there_once(desk: Desk, place: str) -> None:
    fill(desk)
    desk.load()
    fill(desk, first=5)
    desk.put("drift.json", {"id": 1000, "more": "x"})
    desk.load_and_die(place)
    settled(desk)


@pytest.mark.parametrize(
    "place",
    ["batch_claimed:after", "data_written:after", "commit_request:before", "committed:after", "batch_closed:after"],
)
def test_killed_in_a_later_batch_every_row_is_there_once(desk: Desk, place: str) -> None:
    fill(desk)
    desk.load_and_die(place, occurrence=2)
    settled(desk)


@pytest.mark.parametrize(
    "second", ["batch_closed:after", "data_written:after", "commit_request:before", "committed:after"]
)
@pytest.mark.parametrize("first", ["batch_claimed:after", "commit_request:before", "committed:after"])
def test_killed_again_while_it_recovers_every_row_is_there_once(desk: Desk, first: str, second: str) -> None:
    fill(desk)
    desk.load_and_die(first)
    desk.load_and_die(second)
    settled(desk)


def test_a_batch_that_is_in_is_closed_by_its_manifest_and_never_by_its_claim(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.source.put("b.json", b"{")
    desk.load_and_die("committed:after")
    assert desk.states() == {"a.json": FileState.PROCESSING, "b.json": FileState.PROCESSING}
    report = desk.load()
    assert (report.files_loaded, report.files_failed, report.status) == (1, 1, RunStatus.PARTIAL)
    assert desk.states() == {"a.json": FileState.SUCCESS, "b.json": FileState.FAILED}
    assert desk.ids() == [1]
    assert any("is in the table" in n for n in desk.notes.notes)


def test_a_batch_that_is_in_without_its_manifest_is_no_proof(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.load_and_die("committed:after")
    for path in [p for p in desk.store.files if p.startswith("manifests/")]:
        del desk.store.files[path]
    for _ in range(2):
        assert isinstance(error_of(desk.load()), LedgerBehindTableError)
    assert desk.ids() == [1]
    assert desk.open_batches() == 1


def test_a_batch_is_loaded_again_as_it_was_planned(desk: Desk) -> None:
    """A file that is gone by then, or has another version, is cut out of it."""
    for name, number in (("a", 1), ("b", 2), ("c", 3)):
        desk.put(f"{name}.json", {"id": number})
    desk.load_and_die("data_written:after")
    desk.source.delete("a.json")
    desk.put("b.json", {"id": 22})
    desk.put("d.json", {"id": 4})
    report = desk.load()
    # The new version of b is a new file: the one that was planned never was in the table.
    assert (report.files_loaded, report.files_failed) == (3, 2)
    assert desk.ids() == [3, 4, 22]
    table = desk.store.get(TABLE)
    assert table is not None
    assert [s.batch_id[-8:] for s in table.snapshots if s.batch_id] == ["00000001", "00000002"]


def test_an_older_process_that_wakes_up_cannot_commit_beside_its_successor(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    desk.load()
    desk.put("b.json", {"id": 2})
    woken: list[str] = []

    def sleep_through_it(name: str) -> None:
        if name == "commit_request:before" and not woken:
            woken.append(name)
            desk.execute("update leases set expires_at = 0")
            assert desk.load().status is RunStatus.SUCCESS

    report = desk.load(reach=sleep_through_it)
    assert report.status is RunStatus.FAILED
    assert desk.ids() == [1, 2]
    assert desk.load().files_known == 2


def test_an_older_process_that_wakes_up_where_there_is_no_table_yet(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    woken: list[str] = []

    def sleep_through_it(name: str) -> None:
        if name == "commit_request:before" and not woken:
            woken.append(name)
            desk.execute("update leases set expires_at = 0")
            assert desk.load().status is RunStatus.SUCCESS

    assert desk.load(reach=sleep_through_it).status is RunStatus.FAILED
    assert desk.ids() == [1]
    assert desk.load().files_known == 1


# --- a batch of another source ----------------------------------------------------------------------------------------


class Sources:
    """Two buckets; one of them may be gone."""

    def __init__(self) -> None:
        self.all = {"s3://memory/": MemorySource(), "s3://other/": MemorySource(bucket="other")}
        self.gone: AutoloaderError | None = None

    def open(self, path: str, _: str | None, __: Mapping[str, str] | None) -> Source:
        if path == "s3://other/" and self.gone:
            raise self.gone
        return self.all[path]


@pytest.fixture
def sources(desk: Desk) -> Sources:
    sources = Sources()
    desk.open_source = sources.open
    desk.source = sources.all["s3://memory/"]
    sources.all["s3://other/"].put("o.json", b'{"id": 50}\n')
    desk.put("a.json", {"id": 1})
    return sources


def crash_on_other(desk: Desk) -> None:
    def die(name: str) -> None:
        if name == "data_written:after":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        desk.load(path="s3://other/", reach=die)
    assert desk.open_batches() == 1


def test_a_batch_of_another_source_is_read_from_that_source(desk: Desk, sources: Sources) -> None:
    crash_on_other(desk)
    assert desk.load().files_loaded == 2
    assert desk.ids() == [1, 50]
    assert desk.load(path="s3://other/").files_known == 1
    assert sources.gone is None


def test_a_source_of_the_past_does_not_stand_in_the_way_for_ever(desk: Desk, sources: Sources) -> None:
    crash_on_other(desk)
    sources.gone = BucketNotFoundError()
    report = desk.load()
    assert (report.status, report.files_loaded) == (RunStatus.SUCCESS, 1)
    assert "s3://other/" in report.warnings[0]
    assert desk.open_batches() == 0
    sources.gone = None
    assert desk.load(path="s3://other/").files_loaded == 1
    assert desk.ids() == [1, 50]


# --- a catalog that misbehaves ----------------------------------------------------------------------------------------


class Scripted(FakeCatalog):
    """A catalog of which each commit, and each look at a batch, goes as `script` says; then as it should."""

    def __init__(self, desk: Desk, *script: str | AutoloaderError, looks: tuple[AutoloaderError, ...] = ()) -> None:
        super().__init__(desk.store)
        self.script = list(script)
        self.looks = list(looks)
        self.commits = 0
        self.late: Callable[[], object] | None = None

    def draft_new(self, table: TableName, schema: Struct, properties: Mapping[str, str]) -> Draft:
        return ScriptedDraft(self, super().draft_new(table, schema, properties))

    def draft(self, *args: object, **more: object) -> Draft:
        return ScriptedDraft(self, super().draft(*args, **more))  # type: ignore[arg-type]

    def find_batch(self, *args: object) -> FoundBatch | None:
        if self.looks:
            raise self.looks.pop(0)
        found = super().find_batch(*args)  # type: ignore[arg-type]
        if self.late is not None:
            self.late()
            self.late = None
        return found


class ScriptedDraft:
    def __init__(self, catalog: Scripted, inner: Draft) -> None:
        assert isinstance(inner, FakeDraft)
        self.catalog, self.inner = catalog, inner
        self.schema, self.sink = inner.schema, inner.sink
        self.table_uuid, self.location, self.holding = inner.table_uuid, inner.location, inner.holding

    def write_manifest(self, manifest: BatchManifest) -> str:
        return self.inner.write_manifest(manifest)

    def commit(self, order: CommitOrder) -> Committed:
        self.catalog.commits += 1
        step = self.catalog.script.pop(0) if self.catalog.script else "well"
        if isinstance(step, AutoloaderError):
            raise step
        if step == "applied":
            self.inner.commit(order)
            raise CommitUnknownError
        if step == "not applied":
            raise CommitUnknownError
        if step == "late":
            # It arrives just after the table was looked at, and is held against the head that it asserted.
            base = self.inner.base
            self.catalog.late = lambda: self._arrive(base, order)
            raise CommitUnknownError
        return self.inner.commit(order)

    def _arrive(self, base: object, order: CommitOrder) -> None:
        if self.catalog.store.get(TABLE) is base:
            self.inner.commit(order)


@pytest.fixture(params=["first", "later"])
def begun(desk: Desk, request: pytest.FixtureRequest) -> Desk:
    """Where the batch makes the table, and where it adds to one."""
    if request.param == "later":
        desk.put("0.json", {"id": 0})
        desk.load()
    desk.put("a.json", {"id": 1}, {"id": 2})
    return desk


@pytest.mark.parametrize("step", ["applied", "not applied", "late"])
def test_a_commit_that_nobody_answered_for_is_there_once(begun: Desk, step: str) -> None:
    report = begun.load(catalog=Scripted(begun, step))
    assert report.status is RunStatus.SUCCESS, report.stopped_by
    assert report.files_loaded == 1
    settled(begun)
    assert not begun.orphans()


@pytest.mark.parametrize("step", ["applied", "not applied", "late"])
def test_a_commit_that_stays_unknown_leaves_the_batch_open(begun: Desk, step: str) -> None:
    unreachable = (CatalogUnreachableError(),) * 9
    report = begun.load(catalog=Scripted(begun, step, looks=unreachable))
    assert isinstance(error_of(report), CommitUnknownError)
    assert begun.open_batches() == 1
    settled(begun)


@pytest.mark.parametrize("look", [CatalogAuthError(), LedgerBusyError(), CatalogRefusedError()])
def test_a_commit_is_unknown_whatever_keeps_it_from_being_looked_up(begun: Desk, look: AutoloaderError) -> None:
    """A token that runs out between the commit and the look must not give the batch up: it may be in the table."""
    report = begun.load(catalog=Scripted(begun, "applied", looks=(look,)))
    assert isinstance(error_of(report), CommitUnknownError)
    assert begun.open_batches() == 1
    settled(begun)


@pytest.mark.parametrize("error", [CatalogAuthError(), CatalogUnreachableError(), LedgerBusyError()])
def test_an_error_that_no_commit_promises_is_unknown(begun: Desk, error: AutoloaderError) -> None:
    report = begun.load(catalog=Scripted(begun, error))
    assert report.status is RunStatus.SUCCESS
    settled(begun)


def test_a_ledger_that_cannot_be_asked_before_the_commit_stops_the_run_and_says_so(begun: Desk) -> None:
    report = begun.load(catalog=Scripted(begun, LedgerUnreachableError()))
    assert isinstance(error_of(report), LedgerUnreachableError)
    settled(begun)
    assert not begun.orphans()


def test_a_conflict_loads_the_batch_again(begun: Desk) -> None:
    catalog = Scripted(begun, TableConflictError(), TableConflictError())
    report = begun.load(catalog=catalog)
    assert (report.status, report.commit_retries) == (RunStatus.SUCCESS, 2)
    assert catalog.commits == 3
    assert not begun.orphans()
    settled(begun)


def test_conflicts_without_end_give_the_batch_up_for_now(begun: Desk) -> None:
    report = begun.load(catalog=Scripted(begun, *[TableConflictError()] * 20))
    assert isinstance(error_of(report), TableConflictError)
    assert begun.open_batches() == 0
    assert not begun.orphans()
    settled(begun)


def test_a_refusal_gives_the_batch_up_and_leaves_nothing(begun: Desk) -> None:
    before = begun.snapshots()
    report = begun.load(catalog=Scripted(begun, CatalogRefusedError("No such branch.")))
    assert isinstance(error_of(report), CatalogRefusedError)
    assert (begun.open_batches(), begun.snapshots()) == (0, before)
    assert not begun.orphans()
    settled(begun)


def test_a_conflict_of_which_nobody_can_tell_who_won_leaves_the_batch_open(begun: Desk) -> None:
    report = begun.load(catalog=Scripted(begun, TableConflictError(), looks=(CatalogAuthError(),)))
    assert isinstance(error_of(report), CommitUnknownError)
    assert begun.open_batches() == 1
    settled(begun)


def test_a_table_that_somebody_changes_meanwhile_is_drafted_again(desk: Desk) -> None:
    desk.put("0.json", {"id": 0})
    desk.load()
    desk.put("a.json", {"id": 1})
    changed: list[str] = []

    def meddle(name: str) -> None:
        if name == "manifest_written:after" and not changed:
            changed.append(name)
            desk.store.change(
                TABLE, lambda t: replace(t, schema=Struct(t.schema.fields[:1] + t.schema.fields[1:][::-1]))
            )

    assert desk.load(reach=meddle).status is RunStatus.SUCCESS
    settled(desk)


# --- a place that takes no files --------------------------------------------------------------------------------------


class FullDisk(FakeEngine):
    """Writes fail from some order on."""

    def __init__(self, good_orders: int) -> None:
        super().__init__()
        self.good_orders = good_orders

    def write(self, order: WriteOrder, progress: Progress) -> WriteResult:
        if len(self.orders) >= self.good_orders:
            raise WriteFailureError
        return super().write(order, progress)


@pytest.mark.parametrize("good_orders", [0, 1])
def test_a_batch_that_cannot_be_written_is_given_up_and_its_files_are_found_again(
    begun: Desk, good_orders: int
) -> None:
    """Also when an earlier round of it was written: nothing of that is left."""
    begun.put("b.json", {"id": 5, "late": "x"})
    if not begun.snapshots():
        begun.load()
    begun.put("c.json", {"id": 6})
    begun.put("d.json", {"id": 7, "later": {"x": 1}})
    begun.engine = FullDisk(good_orders)
    report = begun.load()
    assert isinstance(error_of(report), WriteFailureError)
    assert begun.open_batches() == 0
    assert not begun.orphans()
    assert FileState.DISCOVERED in begun.states().values()
    begun.engine = FakeEngine()
    settled(begun)


def test_a_recovered_batch_that_cannot_be_written_stays_open_under_its_number(desk: Desk) -> None:
    """Where there is no table there is nothing to fence: the older process may yet make it, with this batch in it."""
    desk.put("a.json", {"id": 1})
    sleeper = threading.Event(), threading.Event()

    def sleep(name: str) -> None:
        if name == "manifest_written:after":
            sleeper[0].set()
            assert sleeper[1].wait(60)

    old = threading.Thread(target=lambda: desk.load(reach=sleep, catalog=Deaf(desk)))
    old.start()
    assert sleeper[0].wait(60)
    desk.execute("update leases set expires_at = 0")
    good, desk.engine = desk.engine, FullDisk(0)
    assert isinstance(error_of(desk.load()), WriteFailureError)
    assert desk.open_batches() == 1
    sleeper[1].set()
    old.join()
    assert desk.ids() == [1]
    desk.engine = good
    settled(desk)


def test_a_batch_that_was_given_up_cannot_be_committed_by_an_older_process(desk: Desk) -> None:
    """It wakes up when its files are about to be loaded under another number: the fence is all that stops it."""
    desk.put("0.json", {"id": 0})
    desk.load()
    desk.put("a.json", {"id": 1})
    asleep, awake = threading.Event(), threading.Event()

    def sleep() -> None:
        asleep.set()
        assert awake.wait(60)

    old = threading.Thread(target=lambda: desk.load(catalog=Deaf(desk, sleep)))
    old.start()
    assert asleep.wait(60)
    desk.execute("update leases set expires_at = 0")
    refusal = CatalogRefusedError("Not today.")
    assert error_of(desk.load(catalog=Scripted(desk, refusal))) is refusal
    assert desk.open_batches() == 0
    awake.set()
    old.join()
    assert desk.ids() == [0]
    settled(desk)


class Deaf(FakeCatalog):
    """Of a process that was stopped behind its last check: its request goes out, whoever has the lease by then."""

    def __init__(self, desk: Desk, before_request: Callable[[], None] = lambda: None) -> None:
        super().__init__(desk.store)
        self.before_request = before_request

    def draft_new(self, table: TableName, schema: Struct, properties: Mapping[str, str]) -> Draft:
        return DeafDraft(super().draft_new(table, schema, properties), self.before_request)

    def draft(self, *args: object, **more: object) -> Draft:
        return DeafDraft(super().draft(*args, **more), self.before_request)  # type: ignore[arg-type]


class DeafDraft:
    def __init__(self, inner: Draft, before_request: Callable[[], None]) -> None:
        self.inner, self.before_request = inner, before_request
        self.schema, self.sink, self.write_manifest = inner.schema, inner.sink, inner.write_manifest
        self.table_uuid, self.location, self.holding = inner.table_uuid, inner.location, inner.holding

    def commit(self, order: CommitOrder) -> Committed:
        return self.inner.commit(replace(order, assert_lease=self.before_request))


class NoManifests(FakeCatalog):
    """No place takes a manifest."""

    def draft_new(self, table: TableName, schema: Struct, properties: Mapping[str, str]) -> Draft:
        return NoManifestDraft(super().draft_new(table, schema, properties))

    def draft(self, *args: object, **more: object) -> Draft:
        return NoManifestDraft(super().draft(*args, **more))  # type: ignore[arg-type]


class NoManifestDraft:
    def __init__(self, inner: Draft) -> None:
        self.schema, self.sink, self.commit = inner.schema, inner.sink, inner.commit
        self.table_uuid, self.location, self.holding = inner.table_uuid, inner.location, inner.holding

    def write_manifest(self, _: BatchManifest) -> str:
        raise WriteFailureError


def test_a_batch_without_a_place_for_its_manifest_does_not_commit(begun: Desk) -> None:
    before = begun.snapshots()
    report = begun.load(catalog=NoManifests(begun.store))
    assert isinstance(error_of(report), WriteFailureError)
    assert begun.snapshots() == before
    assert not begun.orphans()
    settled(begun)


def test_a_catalog_that_does_not_answer_stops_the_run_before_it_begins(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    catalog = FakeCatalog(desk.store)
    catalog.failure = CatalogUnreachableError()
    with pytest.raises(CatalogUnreachableError):
        desk.load(catalog=catalog)
    assert desk.query("select count(*) from tables") == 0
    settled(desk)


# --- given up without a fence ---------------------------------------------------------------------------------------


def head_after(batch: int) -> TableHead:
    return TableHead(TABLE, "u", "s3://w/t", EMPTY, {last_batch_property("i"): str(batch)}, 1, 1)


@pytest.mark.parametrize(("batch", "is_late"), [(3, True), (4, False)])
def test_a_batch_that_was_given_up_and_comes_into_the_table_stops_the_run(batch: int, *, is_late: bool) -> None:
    given_up = GivenUp()
    given_up.note(BatchRef("i", 3, 1), Settlement(None, fenced=False))
    given_up.check(None)
    with pytest.raises(LedgerBehindTableError, match="Run it again") if is_late else nullcontext():
        given_up.check(head_after(batch))


def test_a_batch_that_was_fenced_cannot_come() -> None:
    given_up = GivenUp()
    given_up.note(BatchRef("i", 3, 1), Settlement(None))
    given_up.check(head_after(3))
