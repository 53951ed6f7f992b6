"""One test for each way in which systems of this kind lose or double rows; `docs/explanation/once.md` has the list.

Each plays on a real ledger, a real catalog, files on disk and the engine's own processes. A process that dies is played
inside this one (`tests/model/lives.py`); real ones are killed in the other modules of this folder.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from app.domain.errors import Category, LeaseLostError, LedgerUnreadableError, StoppedByUser
from app.domain.files import FileState, LedgerFile, SourceFile
from app.domain.ports import Source
from app.domain.runs import Owner, RunReport, RunStatus
from app.persistence.leases import this_process
from app.persistence.ledger import open_ledger
from app.services.preflight import LoadRequest
from app.services.run import RunSettings
from app.sources.local import LocalReader
from tests.model.lives import Killed, Life
from tests.model.worlds import APPLIED, LATE, NOT_APPLIED, SENT, RealWorld
from tests.unit.services.desk import DEAD, Notes, lines

SETTINGS = RunSettings(lease_s=600.0, batch_bytes=1 << 30, batch_files=100, file_tries=3, unknown_waits_s=(0.0, 0.0))
# Steps of a process at which it may die, in the order in which it comes to them.
AROUND_THE_COMMIT = ("after write_manifest", "after is_alive", "after commit_table", "after commit", "before close")


def _ignored(*_: object) -> None:
    """Nobody listens."""


@dataclass
class Place:
    """An installation, a folder where files land, and a table."""

    world: RealWorld
    settings: RunSettings = SETTINGS
    ids: dict[str, list[int]] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)

    def land(self, name: str, *ids: int, **more: Any) -> None:
        self.ids[name] = list(ids)
        self.world.put(name, lines(*({"id": i, **more} for i in ids)))

    def life(self, at: int | str = 0, happens: Callable[[str], None] | None = None, owner: Owner | None = None) -> Life:
        return Life(owner or this_process(), _ignored, at=at, happens=happens)

    def load(
        self, life: Life | None = None, *, fate: str = SENT, path: str | None = None, retry: bool = False, **values: Any
    ) -> RunReport:
        service = self.world.service(life or self.life(), self.settings, fate=fate)
        request = LoadRequest(path or self.world.path, self.world.table, {"format": "json", **values}, None, retry)
        return service.load(request, self.notes)

    def load_and_die(self, at: str, **how: Any) -> None:
        life = self.life(at, owner=DEAD)
        life.happens = life.die
        with pytest.raises(Killed):
            self.load(life, **how)
        assert life.is_dead

    def files(self) -> dict[str, LedgerFile]:
        record = self.world.ledger.table(str(self.world.table))
        assert record is not None
        return {f.key.rpartition("/")[2]: f for f in self.world.ledger.files_after(record, "")}

    def batches(self) -> dict[int, list[str]]:
        """Number → names of its files, of all batches."""
        found: dict[int, list[str]] = {}
        for name, file in self.files().items():
            if file.batch_id is not None:
                found.setdefault(int(file.batch_id[-8:]), []).append(name)
        return found

    def assert_whole(self) -> None:
        """Every row of every file is there once; nothing is open, nothing is left to do, nothing is left behind."""
        expected = Counter((name, number) for name, ids in self.ids.items() for number in ids)
        assert self.world.rows() == expected
        assert {f.state for f in self.files().values()} - {FileState.SUPERSEDED} == {FileState.SUCCESS}
        again = self.load()
        assert (again.status, again.files_loaded, again.files_known) == (RunStatus.SUCCESS, 0, len(self.ids))
        with self.world.ledger._read() as connection:
            count = connection.exec_driver_sql("select count(*) from batches where state = 'open'").scalar()
        assert count == 0


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealWorld]:
    world = RealWorld(tmp_path_factory.mktemp("real"))
    yield world
    world.end()


@pytest.fixture
def place(real: RealWorld) -> Place:
    real.begin()
    return Place(real)


@pytest.fixture(params=["first", "later"])
def begun(place: Place, request: pytest.FixtureRequest) -> Place:
    """Files wait: for a table that they make, or for one that is there."""
    if request.param == "later":
        place.land("0.json", 0)
        place.load()
    place.land("a.json", 1, 2)
    place.land("b.json", 3)
    return place


# --- a process dies, or is thought dead -------------------------------------------------------------------------------


@pytest.mark.parametrize("at", AROUND_THE_COMMIT)
def test_crash_between_data_commit_and_ledger(begun: Place, at: str) -> None:
    """The batch's number is in the commit itself: the next run looks there, and loads nothing that is in."""
    begun.load_and_die(at)
    report = begun.load()
    assert (report.status, report.files_loaded) == (RunStatus.SUCCESS, 2)
    begun.assert_whole()


@pytest.mark.parametrize("fate", [APPLIED, NOT_APPLIED, LATE])
def test_commit_applied_and_answer_lost(begun: Place, fate: str) -> None:
    """Nothing is added twice, no live file is removed, and a request that arrives late is refused."""
    report = begun.load(fate=fate)
    assert (report.status, report.files_loaded) == (RunStatus.SUCCESS, 2)
    assert [begun.world.arrive() for _ in range(len(begun.world.late))] == [False] * (fate == LATE)
    begun.assert_whole()


@pytest.mark.parametrize("at", ["after claim", "after write", "after is_alive", "after commit_table"])
def test_two_runs_at_once_and_one_that_was_thought_dead(begun: Place, at: str) -> None:
    """It sleeps through its lease, at the worst place too: between its last check and its request."""
    successor: list[RunReport] = []

    def sleep(_: str) -> None:
        begun.world.execute("update leases set expires_at = 0")
        successor.append(begun.load())

    report = begun.load(begun.life(at, sleep))
    assert (successor[0].status, successor[0].files_loaded) == (RunStatus.SUCCESS, 2)
    assert isinstance(report.stopped_by, LeaseLostError), report
    begun.assert_whole()


@pytest.mark.parametrize("at", ["before head", "after head", "after start_run", "after open_batches", "after claim"])
def test_another_ingestion_commits_between_two_looks(begun: Place, at: str) -> None:
    """What the ledger learns after a look at the table is no sign of one that was replaced or rolled back."""
    second: list[RunReport] = []

    def load_as_another(_: str) -> None:
        service = begun.world.service(begun.life(), begun.settings, ingestion="b" * 32, is_second=True)
        request = LoadRequest(begun.world.path, begun.world.table, {"format": "json", "file_pattern": "a.json"})
        second.append(service.load(request, begun.notes))

    report = begun.load(begun.life(at, load_as_another))
    assert (report.status, second[0].status) == (RunStatus.SUCCESS, RunStatus.SUCCESS), report.stopped_by
    assert report.files_loaded + second[0].files_loaded == 2
    begun.assert_whole()


@pytest.mark.parametrize("at", ["after claim", "after write", "after commit_table", "after close"])
def test_stopped_in_the_middle_of_many_files(place: Place, at: str) -> None:
    """Whoever stops a run, in the middle of a listing, a batch or a commit: the rest is not dropped."""
    place.settings = replace(SETTINGS, batch_files=2)
    for number in range(7):
        place.land(f"{number}.json", number)
    seen = Counter[str]()

    def stop_at_the_second(_: str) -> None:
        seen[at] += 1
        if seen[at] == 2:
            raise StoppedByUser
        life.happens = stop_at_the_second

    life = place.life(at, stop_at_the_second)
    with pytest.raises(StoppedByUser) as stopped:
        place.load(life)
    assert isinstance(stopped.value.report, RunReport)
    report = place.load()
    assert (report.status, report.files_loaded + report.files_known) == (RunStatus.SUCCESS, 7)
    place.assert_whole()


# --- what is new ------------------------------------------------------------------------------------------------------


def test_files_of_one_second_and_files_that_show_late(place: Place) -> None:
    """There is no time after which files count as new."""

    def land(name: str, number: int, modified_s: int) -> None:
        place.land(name, number)
        os.utime(place.world.landing / name, (modified_s, modified_s))

    land("b.json", 1, 1_700_000_000)
    assert place.load().files_loaded == 1
    land("c.json", 2, 1_700_000_000)
    assert place.load().files_loaded == 1
    land("d.json", 3, 1_500_000_000)
    assert place.load().files_loaded == 1
    place.assert_whole()


def test_a_name_that_sorts_before_the_last_one(place: Place) -> None:
    """There is no name after which files count as new."""
    for number, name in enumerate(("m.json", "z.json", "a.json", "0.json", "é.json", "zz.json", "n.json")):
        place.land(name, number)
        assert place.load().files_loaded == 1, name
    place.assert_whole()


# --- files that move --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TurningReader(LocalReader):
    """Somebody overwrites the file of that name when the first of its bytes have been read."""

    name: str

    def stream(self, file: SourceFile, chunk_bytes: int) -> Iterator[bytes]:
        pieces = super().stream(file, min(chunk_bytes, 1_000))
        yield next(pieces)
        if file.key.endswith(self.name):
            path = Path(file.key.removeprefix("file://"))
            path.write_bytes(path.read_bytes().replace(b'"old"', b'"new"'))
        yield from pieces

    def read(self, file: SourceFile, start: int = 0, end: int | None = None) -> bytes:
        return b"".join(self.stream(file, 1_000))[start:end]


class TurningSource:
    """A folder whose files are overwritten while they are read."""

    def __init__(self, inner: Source, name: str) -> None:
        self._inner, self._name = inner, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def reader(self) -> TurningReader:
        return TurningReader(self._name)


def test_overwritten_before_while_and_after_it_is_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is loaded in one version, whole; a mixture never."""
    place.land("0.json", 0, v="old")
    place.load()
    rows = tuple(range(1000, 1500))
    place.land("a.json", *rows, v="old")
    place.land("b.json", 2, v="old")
    place.land("c.json", 3, v="old")
    opened = place.world.open_source
    monkeypatch.setattr(place.world, "open_source", lambda *given: TurningSource(opened(*given), "a.json"))
    report = place.load(place.life("after claim", lambda _: place.land("b.json", 2, v="new")))
    assert (report.files_loaded, report.files_failed) == (1, 2)
    assert {e.category for e in report.errors} == {Category.PATH_NOT_FOUND}
    monkeypatch.undo()
    assert place.load().files_loaded == 2
    found = place.world.found()
    assert found is not None
    values = {r["id"]: r["v"] for r in found.scan(selected_fields=("id", "v")).to_arrow().to_pylist()}
    assert values == {0: "old", 2: "new", 3: "old", **dict.fromkeys(rows, "new")}
    # After it was loaded: the new version is noted, and left alone as it was asked for.
    place.land("c.json", 3, v="new")
    after = place.load()
    assert (after.files_loaded, after.files_changed) == (0, 1)
    assert place.world.rows()["c.json", 3] == 1


def test_gone_between_listing_and_reading(place: Place) -> None:
    """The others load; the file is no longer waited for, and is loaded when it is back."""
    place.land("a.json", 1)
    place.land("b.json", 2)
    report = place.load(place.life("after claim", lambda _: place.world.delete("a.json")))
    assert (report.status, report.files_loaded) == (RunStatus.PARTIAL, 1)
    assert (report.errors[0].category, report.errors[0].retryable) == (Category.PATH_NOT_FOUND, True)
    assert place.load().files_loaded == 0
    place.land("a.json", 1)
    assert place.load().files_loaded == 1
    place.assert_whole()


# --- the ledger -------------------------------------------------------------------------------------------------------


def test_a_ledger_that_cannot_be_read_for_a_moment(place: Place) -> None:
    """It is an error, and never an empty ledger."""
    place.land("a.json", 1)
    place.load()
    place.world.backup()
    database = Path(place.world.url.removeprefix("sqlite:///"))
    for damage in (b"", b"not a database" * 1000):
        database.write_bytes(damage or b"SQLite format 3\0" + b"\xff" * 5000)
        with pytest.raises(LedgerUnreadableError):
            open_ledger(place.world.url)
    place.world.restore()
    place.land("b.json", 2)
    assert place.load().files_loaded == 1
    place.assert_whole()


def test_another_path_or_setting_forgets_nothing(place: Place) -> None:
    """What was loaded belongs to the table, under the files' whole names."""
    for number in range(4):
        place.land(f"{number}.json", number)
    folder = Path(place.world.path)
    assert place.load(path=f"{folder}/0.json").files_loaded == 1
    assert place.load(path=f"{folder}/[01].json").files_loaded == 1
    place.settings = replace(SETTINGS, batch_files=1, lease_s=30.0)
    assert place.load(path=str(folder), file_pattern="*[0-2].json").files_loaded == 1
    link = folder.parent / "link"
    link.symlink_to(folder)
    report = place.load(path=f"{link}/../landing/.")
    assert (report.files_loaded, report.files_known) == (1, 3)
    place.assert_whole()


# --- cost -------------------------------------------------------------------------------------------------------------


class Work:
    """Counts what a run asks of the database and of the catalog."""

    def __init__(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: Counter[str] = Counter()
        self._place = place
        event.listen(place.world.ledger._engine, "before_cursor_execute", self._statement)
        catalog = place.world.catalog

        def counted(life: Life, fate: str) -> Any:
            life.tell = self._call
            return catalog(life, fate)

        monkeypatch.setattr(place.world, "catalog", counted)

    def _statement(self, *_: object) -> None:
        self.done["statements"] += 1

    def _call(self, name: str, _: object, __: object) -> None:
        self.done[name] += 1

    def of(self, files: int) -> dict[str, int]:
        """What a run costs that finds `files` new files."""
        for _ in range(files):
            number = len(self._place.ids)
            self._place.land(f"{number:04d}.json", number)
        self.done.clear()
        assert self._place.load().files_loaded == files
        return dict(self.done)


def test_cost_does_not_grow_with_history(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run asks the database and the catalog as often after many runs, files and snapshots as after few."""
    work = Work(place, monkeypatch)
    work.of(1)
    nothing, one = work.of(0), work.of(1)
    assert one["commit"] == 1
    assert "references" not in one | nothing
    for _ in range(8):
        work.of(1)
    work.of(60)
    assert (work.of(0), work.of(1)) == (nothing, one)
    # Many files at once are claimed and closed together.
    assert work.of(30)["statements"] <= one["statements"] + 2
    place.assert_whole()


# --- failures, limits, drift ------------------------------------------------------------------------------------------


def test_a_failed_file_is_neither_forgotten_nor_tried_for_ever(place: Place) -> None:
    """Three tries with growing pauses; then on demand, or when the file is mended."""
    place.land("a.json", 1)
    place.land("ok.json", 2)
    place.world.put("bad.json", b"{nonsense\n")
    for tries in (1, 2, 3):
        report = place.load(place.life("after claim", lambda _: place.world.delete("a.json")))
        assert place.files()["a.json"].tries == tries, report
        place.land("a.json", 1)
        # The second pause is no longer none.
        assert tries == 1 or place.load().files_still_failed == 2
        place.world.execute("update files set next_try_at = 0 where next_try_at is not null")
    report = place.load()
    assert (report.status, report.files_loaded, report.files_still_failed) == (RunStatus.SUCCESS, 0, 2)
    assert "--retry-failed" in report.warnings[0]
    report = place.load(retry=True)
    assert (report.files_loaded, [e.category for e in report.errors]) == (1, [Category.DATA_MALFORMED])
    place.land("bad.json", 3)
    assert place.load().files_loaded == 1
    assert place.world.rows() == Counter({("a.json", 1): 1, ("ok.json", 2): 1, ("bad.json", 3): 1})


@pytest.mark.parametrize("at", ["after claim", "after write", "after commit_table"])
def test_limits_that_change_between_a_crash_and_its_recovery(place: Place, at: str) -> None:
    """The batch is loaded as it was planned, whatever the limits are by then; nothing of it is stranded."""
    for number in range(6):
        place.land(f"{number}.json", number)
    place.settings = replace(SETTINGS, batch_files=4)
    place.load_and_die(at)
    place.settings = replace(SETTINGS, batch_files=3, batch_bytes=1, lease_s=30.0, file_tries=1)
    report = place.load()
    assert (report.status, report.files_loaded) == (RunStatus.SUCCESS, 6)
    assert place.batches() == {1: ["0.json", "1.json", "2.json", "3.json"], 2: ["4.json"], 3: ["5.json"]}
    place.assert_whole()


def test_schema_drifts_inside_one_batch(place: Place) -> None:
    """New columns, nested ones too, come with the data in one commit; what no column can hold fails its file alone."""
    place.land("0.json", 0, deep={"x": 1})
    place.load()
    place.land("a.json", 1)
    place.land("b.json", 2, extra="text")
    place.land("c.json", 3, deep={"x": 2, "y": [1]})
    place.land("e.json", 5, extra=5, more=True)
    place.world.put("d.json", b'{"id": "no number"}\n')
    report = place.load()
    assert (report.files_loaded, report.files_failed, report.batches) == (4, 1, 1)
    assert report.errors[0].category is Category.SCHEMA_MISMATCH
    table = place.world.found()
    assert table is not None
    assert len(table.metadata.snapshots) == 2
    found = {r["id"]: r for r in table.scan().to_arrow().to_pylist()}
    assert sorted(found) == [0, 1, 2, 3, 5]
    assert found[2]["extra"] == "text"
    assert found[3]["deep"] == {"x": 2, "y": [1]}
    assert (found[0]["more"], found[5]["more"]) == (None, True)
    place.land("d.json", 4)
    place.load()
    place.assert_whole()
