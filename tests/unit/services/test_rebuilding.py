"""A ledger that was lost, or that is older than its table, is given back from the table: nothing is loaded twice."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from app.domain.errors import (
    InvalidFieldError,
    LedgerBehindTableError,
    RunInProgressError,
    TableNotFoundError,
    TableReplacedError,
    TableRolledBackError,
)
from app.domain.files import FileState
from app.domain.runs import RunReport, RunStatus
from app.domain.table import LOAD_INGESTION, TableName, epoch_property, last_batch_property
from app.domain.upkeep import References
from app.persistence.leases import this_process
from app.persistence.ledger import open_ledger
from app.services.preflight import LoadRequest
from app.services.rebuilding import Rebuilder, RebuildPorts, RebuildReport, RebuildRequest
from tests.fakes.catalog import FakeCatalog, FakeTable
from tests.unit.services.desk import DEAD, TABLE, DeadLedger, Desk, Killed, desk_at, error_of

OTHER = "f" * 32


def rebuild(
    desk: Desk, *, adopt: str | None = None, not_ours: str | None = None, catalog: FakeCatalog | None = None
) -> RebuildReport:
    used = catalog or FakeCatalog(desk.store)
    ledger = open_ledger(desk.url)
    try:
        ports = RebuildPorts(ledger, used, used, used, this_process())
        return Rebuilder(ports, TABLE, lease_s=60.0).run(RebuildRequest(TABLE, adopt, not_ours))
    finally:
        ledger.dispose()


def lose(desk: Desk) -> None:
    for file in Path(desk.url.removeprefix("sqlite:///")).parent.glob("ledger.db*"):
        file.unlink()


def table_of(desk: Desk) -> FakeTable:
    table = desk.store.get(TABLE)
    assert table is not None
    return table


def set_properties(desk: Desk, **properties: str | None) -> None:
    def edit(table: FakeTable) -> FakeTable:
        merged = {**table.properties, **properties}
        return replace(table, properties={k: v for k, v in merged.items() if v is not None})

    desk.store.change(TABLE, edit)


def expire(desk: Desk) -> None:
    """Somebody expires every snapshot but the current one."""
    desk.store.change(TABLE, lambda t: replace(t, snapshots=t.snapshots[-1:]))


def drop_manifests(desk: Desk) -> None:
    for path in [p for p in desk.store.files if p.endswith(".json")]:
        del desk.store.files[path]


def loaded_three(desk: Desk) -> Desk:
    """Three batches of one file each, with a failed one and an empty one beside."""
    desk.settings = replace(desk.settings, batch_files=2)
    desk.put("a.json", {"id": 1}, {"id": 2})
    desk.source.put("bad.json", b"{nonsense\n")
    desk.put("empty.json")
    desk.load()
    desk.put("c.json", {"id": 3})
    desk.load()
    desk.put("d.json", {"id": 4})
    desk.load()
    return desk


@pytest.fixture
def loaded(desk: Desk) -> Desk:
    return loaded_three(desk)


def assert_whole(desk: Desk, report: RunReport, *, files_loaded: int = 0) -> None:
    assert report.status is RunStatus.SUCCESS, report.stopped_by
    assert report.files_loaded == files_loaded
    assert desk.ids() == sorted(set(desk.ids()))
    again = desk.load()
    assert (again.status, again.files_loaded) == (RunStatus.SUCCESS, 0)


# --- a database that is gone ------------------------------------------------------------------------------------------


def test_a_load_with_an_empty_database_loads_nothing_twice(loaded: Desk) -> None:
    before = loaded.states()
    ingestion = loaded.query("select id from ingestions")
    lose(loaded)
    report = loaded.load()
    assert_whole(loaded, report)
    assert report.files_known == 3
    assert loaded.states() == before
    assert loaded.query("select id from ingestions") == ingestion
    assert report.warnings == ["Files that failed in earlier runs were left alone (1): --retry-failed tries them now."]
    assert any("rebuilt" in note for note in loaded.notes.notes)


def test_several_failures_of_one_batch_are_given_back(desk: Desk) -> None:
    desk.put("a.json", {"id": 1})
    for name in ("x.json", "y.json", "z.json"):
        desk.source.put(name, b"{nonsense\n")
    desk.load()
    before = desk.states()
    lose(desk)
    assert_whole(desk, desk.load())
    assert desk.states() == before


@dataclass
class Dying(DeadLedger):
    """The ledger of a process that dies when it is about to do something for the so-manieth time."""

    calls: list[str] = field(default_factory=list)
    place: str = ""
    nth: int = 1

    def __getattr__(self, name: str) -> object:
        self.calls.append(name)
        self.dead |= self.calls.count(self.place) == self.nth
        return super().__getattr__(name)


@pytest.mark.parametrize(
    ("place", "nth"),
    [("restore_generation", 1), ("restore_head", 1), ("restore_batch", 1), ("restore_batch", 3), ("claim", 1)],
)
def test_killed_while_it_rebuilds(loaded: Desk, place: str, nth: int) -> None:
    """The next run goes on where it ended: nothing is twice, and nothing stands in its way."""
    lose(loaded)
    loaded.put("e.json", {"id": 5})
    ledger = Dying(open_ledger(loaded.url), place=place, nth=nth)
    with pytest.raises(Killed):
        loaded.service(ledger, owner=DEAD).load(LoadRequest("s3://memory/", TABLE, {}), loaded.notes)
    ledger.inner.dispose()
    assert_whole(loaded, loaded.load(), files_loaded=1)
    assert loaded.ids() == [1, 2, 3, 4, 5]


def test_what_is_new_is_loaded_on_top(loaded: Desk) -> None:
    lose(loaded)
    loaded.put("e.json", {"id": 5})
    assert_whole(loaded, loaded.load(), files_loaded=1)
    assert loaded.ids() == [1, 2, 3, 4, 5]
    assert loaded.query("select max(number) from batches") == 4


def test_a_rebuild_by_command_gives_back_the_same_ledger(loaded: Desk) -> None:
    columns = "group_concat(key || version || state || ifnull(rows, '') || batch_number || ifnull(category, ''))"
    statement = f"select {columns} from (select * from files where batch_number is not null order by key)"
    before = loaded.query(statement)
    lose(loaded)
    report = rebuild(loaded)
    assert (report.batches, report.files_loaded, report.files_failed, report.rows) == (3, 3, 1, 4)
    assert report.sentences() == []
    assert loaded.query(statement) == before
    snapshots = loaded.snapshots()
    again = rebuild(loaded)
    assert (again.batches, again.files_loaded) == (0, 0)
    assert loaded.query(statement) == before
    assert loaded.snapshots() == snapshots
    assert_whole(loaded, loaded.load())


def test_a_process_of_the_lost_database_is_shut_out(loaded: Desk) -> None:
    """Its manifest is written, its commit on the way; it must not land beside what is loaded now."""
    loaded.put("e.json", {"id": 5})
    stolen: list[str] = []

    def wake(name: str) -> None:
        if name == "commit_request:before" and not stolen:
            stolen.append(name)
            url, loaded.url = loaded.url, loaded.url.replace("ledger.db", "new.db")
            assert loaded.load().files_loaded == 1
            loaded.url = url

    assert loaded.load(reach=wake).status is not RunStatus.CANCELLED
    assert loaded.ids() == [1, 2, 3, 4, 5]
    loaded.url = loaded.url.replace("ledger.db", "new.db")
    assert_whole(loaded, loaded.load())


def test_two_databases_that_load_one_table_in_turn(loaded: Desk, tmp_path: Path) -> None:
    """Each finds what the other put in, and loads it not again."""
    other = replace(loaded, url=f"sqlite:///{tmp_path}/other.db")
    for number in range(10, 16):
        desk = (loaded, other)[number % 2]
        desk.put(f"{number}.json", {"id": number})
        report = desk.load()
        assert report.status is RunStatus.SUCCESS, report.stopped_by
        assert report.files_loaded == 1
    assert loaded.ids() == [1, 2, 3, 4, *range(10, 16)]


def test_two_databases_at_the_same_moment(loaded: Desk, tmp_path: Path) -> None:
    other = replace(loaded, url=f"sqlite:///{tmp_path}/other.db")
    other.load()
    loaded.put("e.json", {"id": 5})
    ran: list[str] = []

    def meanwhile(name: str) -> None:
        if name == "batch_claimed:after" and not ran:
            ran.append(name)
            loaded.put("f.json", {"id": 6})
            other.load()

    loaded.load(reach=meanwhile)
    for desk in (loaded, other, loaded):
        desk.load()
        assert desk.ids() == [1, 2, 3, 4, 5, 6]


# --- a database that is older -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["lease_released:after", "batch_claimed:after", "committed:after"])
def test_a_database_restored_from_an_older_copy(desk: Desk, tmp_path: Path, place: str) -> None:
    """Whatever was open when the copy was made."""
    desk.put("a.json", {"id": 1})
    desk.load()
    desk.put("b.json", {"id": 2})
    desk.load_and_die(place)
    copy = tmp_path / "copy.db"
    ledger = open_ledger(desk.url)
    with ledger._read() as connection:
        connection.exec_driver_sql("pragma wal_checkpoint(truncate)")
    ledger.dispose()
    shutil.copy(tmp_path / "ledger.db", copy)
    desk.load()
    desk.put("c.json", {"id": 3})
    desk.load()
    lose(desk)
    shutil.copy(copy, tmp_path / "ledger.db")
    desk.put("d.json", {"id": 4})
    report = desk.load()
    assert_whole(desk, report, files_loaded=1)
    assert desk.ids() == [1, 2, 3, 4]
    assert set(desk.states().values()) == {FileState.SUCCESS}
    assert desk.open_batches() == 0


# --- what manifests cannot tell ---------------------------------------------------------------------------------------


def test_without_manifests_the_rows_tell(loaded: Desk) -> None:
    drop_manifests(loaded)
    lose(loaded)
    report = loaded.load()
    # The file that failed is tried again, and fails again: nobody knows of its failure any more.
    assert (report.files_loaded, report.files_known, report.files_failed) == (0, 3, 1)
    assert loaded.ids() == [1, 2, 3, 4]
    assert "by their rows" in report.warnings[0]
    again = loaded.load()
    assert (again.files_loaded, again.files_known) == (0, 3)
    # A version of another time is another version.
    loaded.put("a.json", {"id": 100})
    changed = loaded.load()
    assert (changed.files_loaded, changed.files_changed) == (0, 1)


def first_manifest(loaded: Desk, beginning: str) -> tuple[bytes, int]:
    """The manifest of the first batch, and its epoch."""
    (path,) = (path for path in loaded.store.files if path.startswith(f"{beginning}-00000001."))
    return loaded.store.files[path], int(path.split(".")[-2])


def test_after_expiry_the_rows_tell_which_try_won(loaded: Desk) -> None:
    ingestion = str(loaded.query("select id from ingestions"))
    folder = f"manifests/{table_of(loaded).uuid}"
    won, epoch = first_manifest(loaded, f"{folder}/{ingestion}")
    higher = epoch + 8
    lost = won.replace(b'"epoch": %d' % epoch, b'"epoch": %d' % higher).replace(b"a.json", b"c.json")
    loaded.store.files[f"{folder}/{ingestion}-00000001.{higher}.json"] = lost
    expire(loaded)
    lose(loaded)
    assert_whole(loaded, loaded.load())
    assert loaded.ids() == [1, 2, 3, 4]
    # No epoch of any try is given out again.
    assert int(table_of(loaded).properties[epoch_property(ingestion)]) > higher


def test_a_try_of_which_no_row_is_there_was_not_committed(loaded: Desk) -> None:
    ingestion = str(loaded.query("select id from ingestions"))
    folder = f"manifests/{table_of(loaded).uuid}"
    given_up = first_manifest(loaded, f"{folder}/{ingestion}")[0].replace(b"a.json", b"z.json")
    given_up = given_up.replace(b"-00000001", b"-00000004").replace(b'"number": 1', b'"number": 4')
    loaded.store.files[f"{folder}/{ingestion}-00000004.2.json"] = given_up
    set_properties(loaded, **{last_batch_property(ingestion): "5", f"autoloader.{ingestion}.last-manifest": None})
    expire(loaded)
    lose(loaded)
    report = rebuild(loaded)
    assert [b[-8:] for b in report.doubts.batches_without_rows] == ["00000004"]
    assert [b[-8:] for b in report.doubts.batches_without_trace] == ["00000005"]
    assert len(report.sentences()) == 2
    assert "z.json" not in loaded.states()
    loaded.put("e.json", {"id": 5})
    assert_whole(loaded, loaded.load(), files_loaded=1)
    assert loaded.query("select max(number) from batches") == 6


def test_without_provenance_manifests_are_all_there_is(desk: Desk) -> None:
    for name, number in (("a.json", 1), ("b.json", 2)):
        desk.put(name, {"id": number})
        desk.load(values={"provenance": False})
    expire(desk)
    lose(desk)
    report = desk.load(values={"provenance": False})
    assert (report.files_loaded, report.files_known) == (0, 2)
    assert "on the word of their manifest" in report.warnings[0]
    drop_manifests(desk)
    lose(desk)
    refused = desk.load(values={"provenance": False})
    assert isinstance(error_of(refused), LedgerBehindTableError)
    assert desk.ids() == [1, 2]


# --- generations ------------------------------------------------------------------------------------------------------


def test_only_the_newest_generation_counts(loaded: Desk) -> None:
    ledger = open_ledger(loaded.url)
    ledger.clear(ledger.ensure_table(str(TABLE)))
    ledger.dispose()
    loaded.store.change(TABLE, lambda t: replace(t, data_files=()))
    loaded.source.delete("c.json")
    loaded.load()
    assert loaded.ids() == [1, 2, 4]
    lose(loaded)
    report = rebuild(loaded)
    assert (report.generation, report.files_loaded) == (2, 2)
    assert "c.json" not in loaded.states()
    assert_whole(loaded, loaded.load())


def test_a_generation_that_was_begun_here_is_not_taken_back(loaded: Desk) -> None:
    ledger = open_ledger(loaded.url)
    ledger.clear(ledger.ensure_table(str(TABLE)))
    ledger.dispose()
    report = rebuild(loaded)
    assert (report.generation, report.files_loaded) == (2, 0)
    assert loaded.states() == {}


# --- whose batches ----------------------------------------------------------------------------------------------------


@pytest.fixture
def strange(loaded: Desk) -> Desk:
    """A table with a batch of an ingestion that nobody here knows."""
    ingestion = str(loaded.query("select id from ingestions"))
    for path, data in list(loaded.store.files.items()):
        if path.endswith(".json"):
            loaded.store.files[path.replace(ingestion, OTHER)] = data.replace(ingestion.encode(), OTHER.encode())
            del loaded.store.files[path]

    def rename(table: FakeTable) -> FakeTable:
        properties = {k.replace(ingestion, OTHER): v.replace(ingestion, OTHER) for k, v in table.properties.items()}
        snapshots = tuple(
            replace(
                s,
                batch_id=(s.batch_id or "").replace(ingestion, OTHER) or None,
                manifest_path=(s.manifest_path or "").replace(ingestion, OTHER) or None,
            )
            for s in table.snapshots
        )
        return replace(table, properties={**properties, LOAD_INGESTION: "somebody"}, snapshots=snapshots)

    loaded.store.change(TABLE, rename)
    lose(loaded)
    return loaded


def test_batches_that_nobody_knows_are_refused(strange: Desk) -> None:
    for attempt in (strange.load, lambda: rebuild(strange)):
        with pytest.raises(LedgerBehindTableError, match=OTHER) as refused:
            attempt()
        assert f"--adopt {OTHER}" in refused.value.advice
        assert f"--not-ours {OTHER}" in refused.value.advice
    assert strange.ids() == [1, 2, 3, 4]


def test_they_may_be_adopted(strange: Desk) -> None:
    report = rebuild(strange, adopt=OTHER)
    assert (report.ingestions, report.files_loaded) == ([OTHER], 3)
    assert rebuild(strange, adopt=OTHER).batches == 0
    strange.put("e.json", {"id": 5})
    assert_whole(strange, strange.load(), files_loaded=1)
    assert strange.ids() == [1, 2, 3, 4, 5]


def test_adopting_what_is_ours_anyway_does_no_harm(loaded: Desk) -> None:
    ingestion = str(loaded.query("select id from ingestions"))
    lose(loaded)
    assert rebuild(loaded, adopt=ingestion).files_loaded == 3
    loaded.put("e.json", {"id": 5})
    assert_whole(loaded, loaded.load(), files_loaded=1)
    assert loaded.query("select count(*) from ingestions") == 1


def test_they_may_be_another_installations(strange: Desk) -> None:
    report = rebuild(strange, not_ours=OTHER)
    assert report.batches == 0
    # This installation's files are its own: it knows nothing of theirs.
    assert strange.load().files_loaded == 3
    assert strange.load().files_known == 3
    # Adopted after all: the last word counts.
    assert rebuild(strange, adopt=OTHER).batches == 3


def test_what_cannot_be_decided_is_refused(strange: Desk) -> None:
    with pytest.raises(InvalidFieldError, match="no batch"):
        rebuild(strange, adopt="nothing")
    rebuild(strange, adopt=OTHER)
    with pytest.raises(InvalidFieldError, match="own"):
        rebuild(strange, not_ours=OTHER)
    strange.execute("update tables set name = 'local.db.another'")
    with pytest.raises(InvalidFieldError, match=r"local\.db\.another"):
        rebuild(strange, adopt=OTHER)


def test_an_id_that_loads_another_table_here_is_not_taken_for_lost(loaded: Desk) -> None:
    """The table was renamed in the catalog: its ledger goes by the old name."""
    loaded.execute("update tables set name = 'local.db.old'")
    with pytest.raises(LedgerBehindTableError):
        loaded.load()


# --- what stops a rebuild ---------------------------------------------------------------------------------------------


def test_a_table_that_is_not_there_or_another(desk: Desk, loaded: Desk) -> None:
    loaded.store.change(TABLE, lambda t: replace(t, uuid="another"))
    with pytest.raises(TableReplacedError):
        rebuild(loaded)
    assert desk.store.swap(TABLE, desk.store.get(TABLE), None)
    with pytest.raises(TableNotFoundError):
        rebuild(loaded)


class RolledBack(FakeCatalog):
    """Of a table whose history lost what these batches committed; nothing else did."""

    numbers: Collection[int] = (2, 3)

    def references(self, table: TableName, names: Collection[str]) -> References:
        found = super().references(table, names)
        commits = (replace(c, in_history=c.batch.number not in self.numbers) for c in found.commits)
        return replace(found, commits=tuple(commits))


def clear(desk: Desk) -> None:
    ledger = open_ledger(desk.url)
    ledger.clear(ledger.ensure_table(str(TABLE)))
    ledger.dispose()


def empty(desk: Desk) -> None:
    desk.store.change(TABLE, lambda t: replace(t, data_files=()))


def test_a_table_that_was_rolled_back_is_left_as_it_is(loaded: Desk) -> None:
    before = table_of(loaded)
    loaded.storage = RolledBack(loaded.store)
    lose(loaded)
    for _ in range(2):
        with pytest.raises(TableRolledBackError, match=r"which batch \w+-0000000[23] made"):
            rebuild(loaded, catalog=loaded.storage)
        assert isinstance(error_of(loaded.load()), TableRolledBackError)
    assert table_of(loaded) is before


@pytest.mark.parametrize("generations", [1, 3])
def test_after_a_rollback_the_ledger_can_be_begun_anew(loaded: Desk, generations: int) -> None:
    """However many generations the ledger that is lost had seen."""
    for _ in range(1, generations):
        empty(loaded)
        clear(loaded)
        loaded.load()
    loaded.storage = RolledBack(loaded.store)
    loaded.storage.numbers = range(2, 100)
    lose(loaded)
    assert isinstance(error_of(loaded.load()), TableRolledBackError)
    empty(loaded)
    clear(loaded)
    report = loaded.load()
    assert (report.status, report.files_loaded) == (RunStatus.PARTIAL, 3), report.stopped_by
    assert loaded.ids() == [1, 2, 3, 4]
    assert loaded.query("select generation from tables") == generations + 1


def test_a_rollback_behind_a_batch_without_manifest_is_one_of_the_newest_generation(loaded: Desk) -> None:
    drop_manifests(loaded)
    lose(loaded)
    clear(loaded)
    with pytest.raises(TableRolledBackError):
        rebuild(loaded, catalog=RolledBack(loaded.store))


def test_a_run_at_work_is_not_disturbed(loaded: Desk) -> None:
    ledger = open_ledger(loaded.url)
    ingestion = str(loaded.query("select id from ingestions"))
    ledger.acquire(ingestion, "busy", replace(this_process(), host="elsewhere"), 600)
    ledger.dispose()
    with pytest.raises(RunInProgressError):
        rebuild(loaded)


@pytest.mark.parametrize(
    ("place", "occurrence"),
    [
        ("lease_taken:after", 1),
        ("head_restored:before", 1),
        ("head_restored:after", 1),
        ("batch_restored:after", 1),
        ("batch_restored:after", 3),
        ("ledger_rebuilt:after", 1),
        ("batch_claimed:after", 1),
        ("data_written:after", 1),
        ("committed:after", 1),
        ("run_finished:after", 1),
    ],
)
def test_killed_after_the_database_was_lost(tmp_path: Path, place: str, occurrence: int) -> None:
    desk = loaded_three(desk_at(tmp_path))
    lose(desk)
    desk.put("e.json", {"id": 5})
    desk.load_and_die(place, occurrence=occurrence)
    assert desk.load().status is RunStatus.SUCCESS
    assert desk.ids() == [1, 2, 3, 4, 5]
    lose(desk)
    assert_whole(desk, desk.load())
    assert desk.ids() == [1, 2, 3, 4, 5]


# --- rows that were replaced ------------------------------------------------------------------------------------------

REPLACE = {"on_file_change": "replace"}


def replaced_twice(desk: Desk) -> None:
    """Three batches: two files, then new versions of one of them, the last of which is the first again."""
    first = desk.put("a.json", {"id": 1}, {"id": 2})
    data = desk.source.files[first.key][1]
    desk.put("b.json", {"id": 10})
    desk.load(values=REPLACE)
    desk.put("a.json", {"id": 3})
    desk.load(values=REPLACE)
    desk.source.files[first.key] = (first, data)
    desk.load(values=REPLACE)
    assert desk.ids() == [1, 2, 10]
    assert desk.versions() == {
        "a.json": [(FileState.SUCCESS, 2), (FileState.SUPERSEDED, 1)],
        "b.json": [(FileState.SUCCESS, 1)],
    }


def assert_given_back(desk: Desk) -> None:
    before = desk.versions()
    owners = "select group_concat(key || version || state || batch_number, ' ') from files"
    owned = desk.query(owners)
    lose(desk)
    report = desk.load(values=REPLACE)
    assert_whole(desk, report)
    assert desk.versions() == before
    assert desk.query(owners) == owned
    assert not [w for w in report.warnings if "could not know" in w]
    assert desk.query("select kind from batches where number = 2") == "replace"


def test_what_was_replaced_is_superseded_again(desk: Desk) -> None:
    replaced_twice(desk)
    assert_given_back(desk)


def test_what_was_replaced_is_superseded_again_when_only_rows_can_tell(desk: Desk) -> None:
    """The rows of the first batch are not those of its manifest any more, and the second has none left."""
    replaced_twice(desk)
    expire(desk)
    assert_given_back(desk)


def test_a_given_back_ledger_goes_on_replacing(desk: Desk) -> None:
    replaced_twice(desk)
    expire(desk)
    lose(desk)
    desk.put("a.json", {"id": 4})
    desk.put("b.json", {"id": 11})
    report = desk.load(values=REPLACE)
    assert (report.files_replaced, desk.ids()) == (2, [4, 11])


def test_a_try_that_was_not_committed_replaced_nothing(desk: Desk) -> None:
    """Its manifest says that it did, and the rows say that it did not."""
    desk.put("a.json", {"id": 1})
    desk.load()
    desk.put("a.json", {"id": 2})
    desk.load_and_die("manifest_written:after", values=REPLACE)
    manifests = {path: data for path, data in desk.store.files.items() if path.endswith(".json")}
    desk.put("b.json", {"id": 10})
    desk.source.delete("a.json")
    desk.load(values=REPLACE)
    assert desk.ids() == [1, 10]
    # As if nobody had swept.
    desk.store.files.update(manifests)
    before = desk.versions()
    assert before["a.json"] == [(FileState.SUCCESS, 1), (FileState.FAILED, None)]
    expire(desk)
    lose(desk)
    rebuild(desk)
    assert desk.versions() == before


def test_an_older_copy_of_the_ledger_learns_what_was_replaced_since(desk: Desk, tmp_path: Path) -> None:
    desk.put("a.json", {"id": 1})
    desk.load()
    path = Path(desk.url.removeprefix("sqlite:///"))
    shutil.copy(path, tmp_path / "backup.db")
    desk.put("a.json", {"id": 2})
    desk.load(values=REPLACE)
    lose(desk)
    shutil.copy(tmp_path / "backup.db", path)
    assert_whole(desk, desk.load(values=REPLACE))
    assert desk.versions() == {"a.json": [(FileState.SUPERSEDED, 1), (FileState.SUCCESS, 1)]}
    assert desk.ids() == [2]


@pytest.mark.parametrize("names", [("a" * 32, "f" * 32), ("f" * 32, "a" * 32)], ids=["first first", "first last"])
def test_versions_that_two_ingestions_took_from_each_other(desk: Desk, names: tuple[str, str]) -> None:
    """Whichever of the two is given back first."""
    one, other = names
    first = desk.put("a.json", {"id": 1})
    data = desk.source.files[first.key][1]
    desk.load_as(one, REPLACE)
    desk.put("a.json", {"id": 2})
    desk.load_as(other, REPLACE)
    desk.source.files[first.key] = (first, data)
    desk.load_as(one, REPLACE)
    assert desk.ids() == [1]
    versions = desk.versions()
    expire(desk)
    lose(desk)
    rebuild(desk, adopt=other)
    desk.load_as(one, REPLACE)
    assert desk.versions() == versions
    assert desk.query(f"select batch_number from files where state = 'success' and ingestion_id = '{one}'") == 2
