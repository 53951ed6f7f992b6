"""A watch, round by round: what it looks at, when it runs, what a round without news costs, how it fails and ends."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from app.domain.errors import (
    AutoloaderError,
    CatalogUnreachableError,
    CommitUnknownError,
    InvalidFieldError,
    MixedFormatsError,
    SourceAuthError,
    SourceNotFoundError,
    SourceUnreachableError,
    StoppedByUser,
    TableReplacedError,
)
from app.domain.failpoints import NO_FAILPOINTS
from app.domain.files import FileState, SourceFile
from app.domain.ports import Source
from app.domain.runs import Lease, RunReport, RunStatus
from app.domain.watching import Beat
from app.persistence.leases import this_process
from app.persistence.ledger import SqlLedger, open_ledger
from app.services.preflight import LoadRequest
from app.services.resting import RestingEngine
from app.services.run import LoadPorts
from app.services.watching import Watch, WatchOutcome, WatchPorts, WatchSettings
from tests.fakes.catalog import FakeCatalog
from tests.fakes.engine import FakeEngine
from tests.fakes.source import MemorySource
from tests.unit.services.desk import TABLE, Desk, Notes, _in_order

SIGTERM = 15
# What happens in one wait; it returns whether something is heard of.
Step = Callable[[], bool | None]


class Counted:
    """Passes calls on and counts them by name."""

    def __init__(self, inner: object, calls: Counter[str]) -> None:
        self._inner = inner
        self._calls = calls

    def __getattr__(self, name: str) -> object:
        self._calls[name] += 1
        return getattr(self._inner, name)


@dataclass
class ScriptedLookout:
    """Sees a source in memory. Each wait plays a step; when there is none left, the process is told to stop."""

    source: Source
    steps: list[Step]
    clock: ScriptedClock
    hears: bool = True
    # What `landed` gives; None: only a look at everything can tell.
    heard: list[SourceFile] | None = field(default_factory=list)
    looks: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    closed: bool = False

    @property
    def glances(self) -> bool:
        return self.heard is not None

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        if not self.steps:
            raise StoppedByUser(SIGTERM)
        heard = bool(self.steps.pop(0)())
        if not heard:
            self.clock.now += seconds
        return heard

    def everything(self) -> Iterator[SourceFile]:
        self.looks.append("everything")
        yield from self.source.discover()

    def landed(self) -> Iterator[SourceFile] | None:
        self.looks.append("landed")
        heard = self.heard
        if heard is None:
            return None
        self.heard = []
        return iter(heard)

    def close(self) -> None:
        self.closed = True


@dataclass
class ScriptedClock:
    now: float = 1000.0
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Floor:
    """A watch over the desk's source, with everything counted that it asks."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.clock = ScriptedClock()
        self.lookout = ScriptedLookout(desk.source, [], self.clock)
        self.notes = Notes()
        self.reports: list[RunReport] = []
        self.catalog_calls: Counter[str] = Counter()
        self.ledger_calls: Counter[str] = Counter()
        self.catalog: Any = FakeCatalog(desk.store)
        self.open_source: Callable[[str, str | None, Mapping[str, str] | None], Source] = lambda _p, _f, _k: desk.source
        self.ledger = open_ledger(desk.url)
        self.make_engine: Callable[[], FakeEngine] = FakeEngine
        self.settings = WatchSettings(Beat(5.0))
        self.opens: Callable[[], object] = lambda: None

    def watch(self, *steps: Step, values: Mapping[str, Any] | None = None, retry_failed: bool = False) -> WatchOutcome:
        """Watch until the steps are played."""
        self.lookout.steps = list(steps)
        return self.start(values or {}, retry_failed=retry_failed)

    def start(self, values: Mapping[str, Any], *, retry_failed: bool = False) -> WatchOutcome:
        engine = RestingEngine(self.make_engine)
        ports = WatchPorts(
            lambda: self._load_ports(engine),
            engine,
            self._open,
            lambda report, _: self.reports.append(report),
            self.clock,
            self.clock.pause,
        )
        watch = Watch(ports, self.desk.settings, self.settings, self.notes)
        request = LoadRequest("s3://memory/", TABLE, values, None, retry_failed)
        return watch.until_stopped(request)

    def _open(self) -> tuple[Source, ScriptedLookout]:
        self.opens()
        return self.desk.source, self.lookout

    def _load_ports(self, engine: RestingEngine) -> LoadPorts:
        catalog: Any = Counted(self.catalog, self.catalog_calls)
        ledger: Any = Counted(self.ledger, self.ledger_calls)
        return LoadPorts(
            open_ledger=lambda: ledger,
            has_ledger=lambda: True,
            catalog=catalog,
            storage=catalog,
            reader=catalog,
            engine=engine,
            open_source=self.open_source,
            in_order=_in_order,
            owner=this_process(),
            failpoints=NO_FAILPOINTS,
            keep_out=(),
        )

    def lands(self, name: str, *rows: Mapping[str, object], heard: bool = True) -> Step:
        """A file lands in the wait, and is heard of."""

        def step() -> bool:
            file = self.desk.put(name, *rows)
            if heard and self.lookout.heard is not None:
                self.lookout.heard.append(file)
            return heard

        return step

    def forget_calls(self) -> None:
        self.catalog_calls.clear()
        self.ledger_calls.clear()

    def runs(self) -> int:
        return int(str(self.desk.query("select count(*) from runs")))


@pytest.fixture
def floor(desk: Desk) -> Iterator[Floor]:
    one = Floor(desk)
    yield one
    one.ledger.dispose()


def quiet() -> None:
    """Nothing happens until the time is over."""


# --- news ------------------------------------------------------------------------------------------------------------


def test_what_is_there_and_what_lands_is_loaded_each_by_a_run_of_its_own(floor: Floor) -> None:
    floor.desk.put("a.json", {"id": 1})
    outcome = floor.watch(floor.lands("b.json", {"id": 2}), quiet, floor.lands("c.json", {"id": 3}))
    assert floor.desk.ids() == [1, 2, 3]
    assert [(r.status, r.files_loaded) for r in floor.reports] == [(RunStatus.SUCCESS, 1)] * 3
    assert len({r.run_id for r in floor.reports}) == 3
    assert outcome == WatchOutcome(SIGTERM, any_failed=False)
    assert floor.lookout.closed


def test_only_what_was_heard_of_is_looked_at(floor: Floor) -> None:
    floor.desk.put("a.json", {"id": 1})
    floor.watch(floor.lands("b.json", {"id": 2}), floor.lands("c.json", {"id": 3}, heard=False), lambda: True)
    assert floor.lookout.looks == ["everything", "landed", "everything", "landed"]
    assert floor.desk.ids() == [1, 2, 3]


def test_where_nothing_is_heard_every_beat_looks(floor: Floor) -> None:
    floor.lookout.hears = False
    floor.lookout.heard = None
    floor.watch(floor.lands("a.json", {"id": 1}, heard=False), quiet, floor.lands("b.json", {"id": 2}, heard=False))
    assert floor.desk.ids() == [1, 2]
    assert floor.lookout.waits == [5.0] * 4


def test_nothing_there_yet_is_what_a_watch_is_for(floor: Floor) -> None:
    floor.watch(quiet, floor.lands("a.json", {"id": 1}))
    assert floor.desk.ids() == [1]
    assert len(floor.reports) == 1
    assert floor.runs() == 1


def test_an_empty_file_is_noted_once(floor: Floor) -> None:
    floor.desk.put("a.json", {"id": 1})
    floor.watch(floor.lands("b.json"), quiet, quiet)
    assert floor.desk.states()["b.json"] is FileState.SKIPPED
    assert [r.files_skipped for r in floor.reports] == [0, 1]
    assert floor.runs() == 2


def test_a_new_version_is_noted_once(floor: Floor) -> None:
    floor.desk.put("a.json", {"id": 1})
    floor.watch(floor.lands("a.json", {"id": 9}), quiet, quiet)
    assert floor.desk.ids() == [1]
    assert floor.runs() == 2


@pytest.mark.parametrize(("policy", "ids"), [("append", [1, 9]), ("replace", [9])])
def test_a_new_version_is_loaded_once_where_that_is_asked(floor: Floor, policy: str, ids: list[int]) -> None:
    floor.desk.put("a.json", {"id": 1})
    floor.watch(floor.lands("a.json", {"id": 9}), quiet, quiet, values={"on_file_change": policy})
    assert floor.desk.ids() == ids
    assert floor.runs() == 2


def test_a_new_version_that_failed_waits_for_its_turn(floor: Floor) -> None:
    def breaks() -> None:
        floor.desk.source.put("a.json", b"{")

    floor.desk.put("a.json", {"id": 1})
    floor.watch(breaks, quiet, quiet, values={"on_file_change": "replace"})
    assert [r.files_failed for r in floor.reports] == [0, 1]
    assert floor.desk.ids() == [1]
    assert floor.runs() == 2


def test_a_failed_file_is_tried_again_when_its_turn_comes(floor: Floor) -> None:
    def turn() -> None:
        floor.desk.execute("update files set next_try_at = 0, retryable = 1, tries = 1 where state = 'failed'")
        floor.desk.source.files[key] = (file, b'{"id": 2}\n')

    floor.desk.put("a.json", {"id": 1})
    file = floor.desk.source.put("b.json", b"{")
    key = file.key
    floor.watch(quiet, turn, quiet)
    assert [r.status for r in floor.reports] == [RunStatus.PARTIAL, RunStatus.SUCCESS]
    assert floor.desk.ids() == [1, 2]


def test_failed_files_are_retried_on_demand_once_and_not_in_every_round(floor: Floor) -> None:
    floor.desk.source.put("b.json", b"{")
    floor.desk.load()
    floor.watch(quiet, quiet, retry_failed=True)
    assert len(floor.reports) == 1
    assert floor.runs() == 2


def test_a_run_reports_what_it_did_although_the_look_passed_known_files(floor: Floor) -> None:
    for number in range(5):
        floor.desk.put(f"{number}.json", {"id": number})
    floor.watch(floor.lands("9.json", {"id": 9}, heard=False), quiet)
    assert [r.files_loaded for r in floor.reports] == [5, 1]


# --- what a round without news costs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("hears", [True, False])
def test_a_round_without_news_asks_no_catalog_and_writes_nothing(floor: Floor, hears: bool) -> None:  # noqa: FBT001
    floor.lookout.hears = hears
    for number in range(3):
        floor.desk.put(f"{number}.json", {"id": number})
    floor.watch(floor.forget_calls, *[quiet] * 20)
    assert len(floor.lookout.looks) > 20
    assert floor.catalog_calls == Counter()
    assert set(floor.ledger_calls) == {"table", "pages_after"}
    assert floor.runs() == 1


def test_a_round_that_saw_no_file_does_not_even_ask_the_ledger(floor: Floor) -> None:
    floor.desk.put("a.json", {"id": 1})
    floor.watch(floor.forget_calls, *[lambda: True] * 5)
    assert floor.lookout.looks.count("landed") == 5
    assert set(floor.ledger_calls) == {"table", "pages_after"}
    assert floor.ledger_calls["table"] == 1


def test_memory_stays_flat_over_hundreds_of_rounds(floor: Floor) -> None:
    for number in range(3):
        floor.desk.put(f"{number}.json", {"id": number})
    sizes: list[int] = []

    def heard_of() -> bool:
        known, _ = next(iter(floor.desk.source.files.values()))
        floor.lookout.heard = [known]
        return True

    def measure() -> None:
        floor.lookout.looks.clear()
        floor.lookout.waits.clear()
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        floor.watch(*[quiet, heard_of] * 20, measure, *[heard_of, quiet, heard_of] * 60, measure)
    finally:
        tracemalloc.stop()
    # A file that each round kept would weigh more than this.
    assert sizes[1] - sizes[0] < 100 * 180


def test_an_engine_without_work_is_let_go_and_another_one_made_when_there_is(floor: Floor) -> None:
    closed: list[int] = []
    made: list[FakeEngine] = []

    class Engine(FakeEngine):
        def close(self) -> None:
            closed.append(len(made))

    def make() -> FakeEngine:
        made.append(Engine())
        return made[-1]

    floor.make_engine = make
    floor.settings = replace(floor.settings, rest_s=30.0)
    floor.desk.put("a.json", {"id": 1})
    floor.watch(quiet, quiet, quiet, floor.lands("b.json", {"id": 2}))
    assert (len(made), closed) == (2, [1])
    assert floor.desk.ids() == [1, 2]


def test_runs_keep_their_distance_so_that_a_stream_makes_no_commit_for_each_file(floor: Floor) -> None:
    floor.desk.put("a.json", {"id": 1})
    floor.watch(floor.lands("b.json", {"id": 2}), floor.lands("c.json", {"id": 3}))
    assert floor.clock.pauses == [1.0, 1.0]


# --- what fails and passes -------------------------------------------------------------------------------------------


class Failing:
    """Raises what it is told for as long as it is told."""

    def __init__(self, inner: object, name: str) -> None:
        self._inner = inner
        self._name = name
        self.error: AutoloaderError | None = None

    def __getattr__(self, name: str) -> Any:
        if name == self._name and self.error is not None:
            raise self.error
        return getattr(self._inner, name)


def test_a_catalog_that_is_away_is_said_once_and_tried_again_later_and_later(floor: Floor) -> None:
    catalog = Failing(floor.catalog, "head")
    floor.catalog = catalog
    floor.desk.put("a.json", {"id": 1})
    pause = floor.clock.pause

    def back_after_six(seconds: float) -> None:
        pause(seconds)
        if len(floor.clock.pauses) == 7:
            catalog.error = None

    def away() -> bool:
        catalog.error = CatalogUnreachableError()
        return floor.lands("b.json", {"id": 2})() is True

    floor.clock.pause = back_after_six  # type: ignore[method-assign]
    outcome = floor.watch(away, quiet)
    assert floor.clock.pauses == [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert [n.partition(":")[0] for n in floor.notes.notes] == [
        "Cannot load for now (catalog_unreachable)",
        "It works again.",
    ]
    assert floor.desk.ids() == [1, 2]
    assert not outcome.any_failed


@pytest.mark.parametrize("error", [SourceUnreachableError("gone"), SourceNotFoundError("gone")])
def test_a_source_that_was_there_is_waited_for(floor: Floor, error: AutoloaderError) -> None:
    source = FlakySource()
    floor.desk.source = source
    floor.lookout.source = source
    source.put("a.json", b'{"id": 1}\n')

    def goes() -> bool:
        source.error = error
        floor.lookout.heard = None
        return True

    pause = floor.clock.pause

    def comes_back(seconds: float) -> None:
        pause(seconds)
        if len(floor.clock.pauses) == 3:
            source.error = None
            source.put("b.json", b'{"id": 2}\n')

    floor.clock.pause = comes_back  # type: ignore[method-assign]
    floor.watch(goes, quiet)
    assert floor.desk.ids() == [1, 2]


class FlakySource(MemorySource):
    error: AutoloaderError | None = None

    def discover(self) -> Iterator[SourceFile]:
        if self.error is not None:
            raise self.error
        yield from super().discover()


def test_a_source_that_was_never_there_ends_the_watch(floor: Floor) -> None:
    source = FlakySource()
    source.error = SourceNotFoundError("There is nothing at x.")
    floor.lookout.source = source
    with pytest.raises(SourceNotFoundError):
        floor.watch(quiet)
    assert floor.lookout.closed


def test_another_run_at_work_is_not_waited_for_in_the_round(floor: Floor) -> None:
    floor.desk.put("a.json", {"id": 1})
    other: list[Lease] = []

    def begins() -> bool:
        record = floor.ledger.ensure_table(str(TABLE))
        ingestion = floor.ledger.load_ingestion(record)
        assert ingestion is not None
        got = floor.ledger.acquire(ingestion, "other", this_process(), 60.0)
        assert isinstance(got, Lease)
        other.append(got)
        return floor.lands("b.json", {"id": 2})() is True

    pause = floor.clock.pause

    def ends(seconds: float) -> None:
        pause(seconds)
        if len(floor.clock.pauses) == 3:
            floor.ledger.release(other[0])

    floor.clock.pause = ends  # type: ignore[method-assign]
    floor.watch(begins, quiet)
    assert floor.desk.ids() == [1, 2]
    assert [n.partition(":")[0] for n in floor.notes.notes] == [
        "Cannot load for now (run_in_progress)",
        "It works again.",
    ]


def test_a_batch_whose_commit_nobody_answered_for_is_settled_by_the_next_round(floor: Floor) -> None:
    """No file is new then: the round runs all the same, because a batch is open."""
    floor.desk.put("a.json", {"id": 1})
    catalog = Deaf(floor.desk.store)
    floor.catalog = catalog

    def mute() -> bool:
        catalog.lose_answers = True
        catalog.broken = CatalogUnreachableError()
        return floor.lands("b.json", {"id": 2})() is True

    pause = floor.clock.pause

    def answers(seconds: float) -> None:
        pause(seconds)
        if floor.reports[-1].stopped_by is not None:
            catalog.lose_answers = False
            catalog.broken = None

    floor.clock.pause = answers  # type: ignore[method-assign]
    outcome = floor.watch(mute, quiet)
    assert [r.status for r in floor.reports] == [RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.SUCCESS]
    assert isinstance(floor.reports[1].stopped_by, CommitUnknownError)
    assert floor.desk.ids() == [1, 2]
    assert floor.desk.open_batches() == 0
    assert outcome.any_failed


class Deaf(FakeCatalog):
    """Cannot be asked what became of a batch, for as long as it is broken."""

    broken: AutoloaderError | None = None

    def find_batch(self, table: Any, batch: Any) -> Any:
        if self.broken is not None:
            raise self.broken
        return super().find_batch(table, batch)


def test_a_batch_that_a_killed_run_left_is_settled_first_although_nothing_is_new(floor: Floor) -> None:
    floor.desk.put("a.json", {"id": 1})
    floor.desk.load_and_die("committed:after")
    floor.watch(quiet)
    assert floor.desk.ids() == [1]
    assert floor.desk.open_batches() == 0
    assert len(floor.reports) == 1


def test_a_key_that_expires_is_asked_for_again(floor: Floor) -> None:
    source = FlakySource()
    floor.desk.source = source
    floor.lookout.source = source
    source.put("a.json", b'{"id": 1}\n')
    opened: list[int] = []
    floor.opens = lambda: opened.append(len(opened)) or setattr(source, "error", None)  # type: ignore[func-returns-value]

    def expires() -> bool:
        source.error = SourceAuthError("The key has expired.")
        source.put("b.json", b'{"id": 2}\n')
        floor.lookout.heard = None
        return True

    floor.watch(expires, quiet)
    assert opened == [0, 1]
    assert floor.desk.ids() == [1, 2]


def test_storms_do_not_make_one_look_at_everything_follow_another_without_a_rest(floor: Floor) -> None:
    source = SlowSource(floor.clock)
    floor.desk.source = source
    floor.lookout.source = source
    source.put("a.json", b'{"id": 1}\n')
    floor.lookout.heard = None
    floor.watch(*[lambda: True] * 3)
    assert floor.lookout.looks == ["everything", *["landed", "everything"] * 3]
    assert floor.clock.pauses.count(SlowSource.took_s) == 3


@pytest.mark.parametrize(("glances", "pause_s"), [(False, 800.0), (True, 40.0)])
def test_a_source_that_takes_long_to_look_at_is_looked_at_less_often(
    floor: Floor,
    glances: bool,  # noqa: FBT001
    pause_s: float,
) -> None:
    """Where a glance can tell, the time until the next look at everything is spent with glances."""
    source = SlowSource(floor.clock)
    floor.desk.source = source
    floor.lookout.source = source
    floor.lookout.hears = False
    floor.lookout.heard = [] if glances else None
    floor.settings = replace(floor.settings, rest_s=10_000.0)
    source.put("a.json", b'{"id": 1}\n')
    floor.watch(quiet, quiet, quiet)
    assert floor.lookout.waits[0] == pause_s
    assert floor.lookout.looks == (["everything", *["landed"] * 3] if glances else ["everything"] * 4)


class SlowSource(MemorySource):
    """Its listing takes time."""

    took_s = 40.0

    def __init__(self, clock: ScriptedClock) -> None:
        super().__init__()
        self._clock = clock

    def discover(self) -> Iterator[SourceFile]:
        self._clock.now += self.took_s
        yield from super().discover()


# --- what ends a watch -----------------------------------------------------------------------------------------------


def test_a_table_that_was_replaced_ends_it(floor: Floor) -> None:
    floor.desk.put("a.json", {"id": 1})

    def replaced() -> bool:
        floor.desk.store.change(TABLE, lambda t: replace(t, uuid="another"))
        return floor.lands("b.json", {"id": 2})() is True

    outcome = floor.watch(replaced, quiet)
    assert isinstance(outcome.error, TableReplacedError)
    assert outcome.signal_number is None
    assert outcome.any_failed
    assert [r.status for r in floor.reports] == [RunStatus.SUCCESS, RunStatus.FAILED]
    assert floor.desk.ids() == [1]


def test_a_file_of_another_format_ends_it_before_it_is_loaded(floor: Floor) -> None:
    def lands() -> bool:
        floor.lookout.heard = [floor.desk.source.put("b.csv", b"id\n2\n")]
        return True

    floor.desk.put("a.json", {"id": 1})
    with pytest.raises(MixedFormatsError, match=r"json and s3://memory/b\.csv"):
        floor.watch(lands, quiet)
    assert floor.desk.ids() == [1]


def test_a_format_that_was_given_is_that_of_every_file(floor: Floor) -> None:
    def lands() -> bool:
        floor.lookout.heard = [floor.desk.source.put("b.log", b'{"id": 2}\n')]
        return True

    floor.desk.put("a.json", {"id": 1})
    floor.watch(lands, quiet, values={"format": "json"})
    assert floor.desk.ids() == [1, 2]


def test_a_definition_that_is_wrong_ends_it_at_once(floor: Floor) -> None:
    with pytest.raises(InvalidFieldError):
        floor.watch(quiet, values={"source_type": "gcs"})


def test_stopped_amid_a_batch(floor: Floor) -> None:
    floor.desk.settings = replace(floor.desk.settings, batch_files=1)
    for number in range(3):
        floor.desk.put(f"{number}.json", {"id": number})

    class Engine(FakeEngine):
        writes = 0

        def write(self, *args: Any, **kwargs: Any) -> Any:
            Engine.writes += 1
            if Engine.writes == 2:
                raise StoppedByUser(SIGTERM)
            return super().write(*args, **kwargs)

    floor.make_engine = Engine
    outcome = floor.watch(quiet)
    assert outcome == WatchOutcome(SIGTERM, any_failed=False)
    (report,) = floor.reports
    assert (report.status, report.files_loaded) == (RunStatus.CANCELLED, 1)
    floor.lookout.steps = []
    floor.start({})
    assert floor.desk.ids() == [0, 1, 2]


def test_a_file_that_fails_is_no_failed_watch_but_a_run_of_which_nothing_loaded_is(floor: Floor) -> None:
    floor.desk.put("a.json", {"id": 1})
    floor.desk.source.put("b.json", b"{")
    assert not floor.watch(quiet).any_failed
    floor.desk.source.put("c.json", b"{")
    assert floor.watch(quiet).any_failed


def test_the_ledger_is_one_for_all_rounds(floor: Floor) -> None:
    assert isinstance(floor.ledger, SqlLedger)
    floor.desk.put("a.json", {"id": 1})
    floor.watch(*[floor.lands(f"n{n}.json", {"id": n}) for n in range(2, 8)])
    assert floor.desk.ids() == list(range(1, 8))
