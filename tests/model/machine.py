"""The state machine: what may happen to files, runs, ledger and table, in any order, held against the model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.domain.comparison import DifferenceKind
from app.domain.errors import (
    AutoloaderError,
    CommitUnknownError,
    LedgerBehindTableError,
    NoMatchError,
    RunInProgressError,
)
from app.domain.files import FileState
from app.domain.history import KEEP, MOST
from app.domain.patterns import file_pattern
from app.domain.runs import Owner, RunReport
from app.persistence.leases import this_process
from app.services.checking import CheckPorts, CheckRequest, check
from app.services.preflight import LoadRequest
from app.services.rebuilding import Rebuilder, RebuildPorts, RebuildRequest
from app.services.run import RunSettings
from app.services.sweeping import Sweeper
from tests.model.lives import Hand, Killed, Life
from tests.model.model import Books, Model, Policy, Version
from tests.model.telling import Teller, version_of
from tests.model.worlds import APPLIED, LATE, NOT_APPLIED, SENT, World, in_order
from tests.unit.services.desk import DEAD, Notes

NAMES = ("a.json", "b.json", "c.json", "d.json")
PATTERNS = (None, None, "[ab].json")
LEASE_S = 600.0
ELSEWHERE = Owner("another-host", 1, 1.0)
LIVING, DYING, STRANGER = "here", "dead", "elsewhere"

names = st.sampled_from(NAMES)
whos = st.sampled_from(["A", "A", "B"])
# Where a run dies or stands still: at the so-manieth step, or the first time at a place of interest.
spots = st.sampled_from([
    "before acquire", "after open_batches", "after fence", "after claim", "after write", "after write_manifest",
    "after is_alive", "after commit_table", "after commit", "before close", "after close", "before expire",
    "after expire", "before mark", "before restore_head", "before restore_batch", "after restore_batch",
    "before remove", "before release",
])  # fmt: skip
places = spots | spots | spots | st.integers(1, 120)
kinds = st.sampled_from(["one", "one", "two", "two", "wide", "bad", "empty"])


lands = st.dictionaries(names, kinds, min_size=1, max_size=3)


@dataclass(frozen=True)
class How:
    """How a run is started."""

    who: str
    pattern: str | None
    limit: int
    retry: bool


policies = st.sampled_from(Policy)
hows = st.builds(How, whos, st.sampled_from(PATTERNS), st.integers(1, 3), st.booleans())


class Machine(RuleBasedStateMachine):
    """One installation, its table, and everything that may befall them."""

    world: ClassVar[World]

    @initialize(files=st.dictionaries(names, kinds), policy=policies)
    def begin(self, files: dict[str, str], policy: Policy) -> None:
        self.world.begin()
        self.model = Model(policy)
        self.contents: dict[Version, bytes] = {}
        self.made = 0
        self.losses = 0
        self.ids = {"A": "a" * 32, "B": "b" * 32}
        # Ingestions whose lease is held by a process of which nobody here knows whether it lives.
        self.held: set[str] = set()
        self.saved: tuple[Books, dict[str, str], set[str]] | None = None
        self.strange_rows: Counter[tuple[str, int]] = Counter()
        self.was_reset = False
        self._land_all(files)

    # --- files --------------------------------------------------------------------------------------------------------

    @rule(files=st.dictionaries(names, kinds, min_size=1))
    def land_some(self, files: dict[str, str]) -> None:
        self._land_all(files)

    def _land_all(self, files: dict[str, str]) -> None:
        """Files land, or change; of one kind all have one size."""
        for name, kind in files.items():
            self._land(name, kind)

    def _land(self, name: str, kind: str) -> None:
        self.made += 1
        number = 10_000_000 + 10 * self.made
        row = json.dumps({"id": number}).encode() + b"\n"
        data = {
            "one": row,
            "two": row + json.dumps({"id": number + 1}).encode() + b"\n",
            "wide": json.dumps({"id": number, "more": "x"}).encode() + b"\n",
            "bad": b"#" + row[1:],
            "empty": b"",
        }[kind]
        self._put(name, data)

    @precondition(lambda self: self.contents)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        """A file has, or is, what it once was."""
        version = data.draw(st.sampled_from(sorted(self.contents)))
        self._put(version[0], self.contents[version])

    @precondition(lambda self: self.model.source)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.source)))
        self.world.delete(name)
        del self.model.source[name]

    def _put(self, name: str, data: bytes) -> None:
        version = name, self.world.put(name, data)
        self.contents[version] = data
        self.model.source[name] = version[1]
        if not data:
            self.model.empty.add(version)
        elif not data.startswith(b"#"):
            self.model.rows[version] = data.count(b"\n")

    # --- runs ---------------------------------------------------------------------------------------------------------

    @rule(how=hows)
    def run(self, how: How) -> None:
        self._run(how)

    @rule(files=st.dictionaries(names, kinds, min_size=1), how=hows)
    def land_and_run(self, files: dict[str, str], how: How) -> None:
        self._land_all(files)
        self._run(how)

    @rule(files=lands, how=hows, at=places, owner=st.sampled_from([DYING, DYING, DYING, DYING, STRANGER]))
    def run_and_die(self, files: dict[str, str], how: How, at: int | str, owner: str) -> None:
        self._land_all(files)
        self._run(how, at=at, owner=owner, happens="dies")

    @rule(files=lands, how=hows, fate=st.sampled_from([APPLIED, NOT_APPLIED, LATE]), blind=st.booleans())
    def run_unanswered(self, files: dict[str, str], how: How, fate: str, *, blind: bool) -> None:
        self._land_all(files)
        self._run(how, fate=fate, blind=blind)

    @rule(
        files=lands, how=hows, at=places, meanwhile=st.sampled_from(["rival", "other", "upkeep", "late"]), second=hows
    )
    def run_and_sleep(
        self, files: dict[str, str], how: How, at: int | str, meanwhile: str, second: How
    ) -> None:  # fmt: skip
        """A process stands still at some place, and goes on when the world is another one."""
        self._land_all(files)
        self._run(how, at=at, happens=meanwhile, second=second)

    @rule(files=lands, how=hows, name=names, gone=st.booleans())
    def run_while_a_file_changes(self, files: dict[str, str], how: How, name: str, *, gone: bool) -> None:
        """After the claim, before the file is read."""
        self._land_all(files)
        self._run(how, at="after claim", happens="vanish" if gone else "land", second=name)

    def _run(
        self, how: How, *, at: int | str = 0, owner: str = LIVING, happens: str = "", second: How | str = "",
        fate: str = SENT, blind: bool = False,
    ) -> None:  # fmt: skip
        ingestion = self.ids[how.who]
        life = self._life(_owner(owner), how.limit, retry=how.retry)
        life.at, life.goes_blind = at, blind
        life.happens = partial(self._happens, life, how, happens, second)
        listed = self._listed(how.pattern)
        awaited = self._refusal(ingestion, listed)
        was_held = ingestion in self.held
        settings = RunSettings(LEASE_S, 1 << 20, how.limit, self.model.max_tries, (0.0, 0.0))
        service = self.world.service(life, settings, fate=fate, ingestion=ingestion, is_second=how.who == "B")
        values = {"file_pattern": how.pattern, "format": "json", "on_file_change": self.model.policy.value}
        report, refused = None, None
        try:
            report = service.load(LoadRequest(self.world.path, self.world.table, values, None, how.retry), Notes())
        except Killed:
            note(f"died at step {life.steps}")
            # One that was refused the lease leaves it to whoever has it.
            if ingestion in self.held and not was_held:
                (self.held.discard if owner == DYING else self.held.add)(ingestion)
            return
        except AutoloaderError as error:
            refused = error
        if happens == "rival" and life.happens is None:
            # It lost its lease at some place; what it did before and after was told to the model.
            return
        assert type(refused) is (awaited or type(None)) or life.happens is None, (
            f"{awaited} was awaited, not {refused!r}"
        )
        if report is not None:
            self._ended(life, ingestion, listed, report)

    def _life(self, owner: Owner, limit: int, *, retry: bool) -> Life:
        teller = Teller(self.model, self.held, limit=limit, retry=retry)
        teller.life = Life(owner, teller)
        return teller.life

    def _ended(self, life: Life, ingestion: str, listed: Collection[Version], report: RunReport) -> None:
        if life.is_blind:
            assert isinstance(report.stopped_by, CommitUnknownError), report
            return
        if isinstance(report.stopped_by, RunInProgressError):
            # The ledger lacks batches of the other ingestion, and somebody is at work for that one.
            assert self.model.is_behind()
            assert self.held - {ingestion}
            return
        assert report.stopped_by is None, report.stopped_by
        assert self.model.undone(listed, life.tried) == []
        assert report.files_loaded == life.loaded
        assert not [b for b, c in self.model.books.batches.items() if b[0] == ingestion and c.state == "open"]

    def _listed(self, pattern: str | None) -> list[Version]:
        wanted = file_pattern(pattern or "*")
        return [(name, version) for name, version in self.model.source.items() if wanted.matches(name)]

    def _refusal(self, ingestion: str, listed: Collection[Version]) -> type[AutoloaderError] | None:
        """Why a run may not begin."""
        if not listed and not self.model.has_table:
            return NoMatchError
        if {b[0] for b in self.model.table} - self.model.books.ingestions - {ingestion}:
            return LedgerBehindTableError
        return RunInProgressError if ingestion in self.held else None

    def _happens(self, life: Life, how: How, what: str, second: How | str, place: str) -> None:
        note(f"{what or 'nothing'} {place} (step {life.steps})")
        if what in ("rival", "other"):
            life.saw_others = True
        if what == "dies":
            life.die(place)
        elif isinstance(second, str):
            self._move(what, second)
        elif what == "late" and self.world.late:
            self.world.arrive()
        elif what == "upkeep":
            self._upkeep()
        elif what == "rival":
            self._let_leases_run_out()
            self._run(replace(second, who=how.who))
        elif what == "other":
            self._run(replace(second, who="B" if how.who == "A" else "A"))

    def _move(self, what: str, name: str) -> None:
        if what == "land":
            self._land(name, "one")
        elif name in self.model.source:
            self.world.delete(name)
            del self.model.source[name]

    # --- time, people, other programs ---------------------------------------------------------------------------------

    @rule()
    def time_passes(self) -> None:
        """Every failed file's turn comes."""
        self.world.execute("update files set next_try_at = 0 where next_try_at is not null")
        for entry in self.model.books.files.values():
            entry.is_due = True

    @rule()
    def lease_runs_out(self) -> None:
        self._let_leases_run_out()

    def _let_leases_run_out(self) -> None:
        self.world.execute("update leases set expires_at = 0")
        self.held.clear()

    @precondition(lambda self: self.world.late)
    @rule()
    def late_request_arrives(self) -> None:
        note(f"applied: {self.world.arrive()}")

    @precondition(lambda self: self.model.has_table)
    @rule()
    def upkeep(self) -> None:
        """Snapshots are expired, and leftovers swept."""
        self._upkeep()

    def _upkeep(self) -> None:
        if not self.model.has_table:
            return
        self.world.expire()
        if self.world.ledger.table(str(self.world.table)) is not None:
            now = timedelta()
            Sweeper(self.world.ledger, self.world.keeper(), self.world.table, lease_s=0.0, grace=now).sweep()

    @precondition(lambda self: self.model.has_table)
    @rule()
    def somebody_asks_for_less_history(self) -> None:
        """From now on each commit makes all older snapshots go."""
        self.world.ask({KEEP: "1", MOST: "1"})

    @precondition(lambda self: self.model.has_table)
    @rule()
    def somebody_appends(self) -> None:
        self.made += 1
        self.world.append(self.made)
        self.strange_rows += self.world.strange(self.made)

    @rule()
    def clear(self) -> None:
        record = self.world.ledger.table(str(self.world.table))
        if record is None:
            return
        if self.held & self.model.books.ingestions:
            with pytest.raises(RunInProgressError):
                self.world.ledger.clear(record)
            return
        self.world.ledger.clear(record)
        self.model.cleared()
        self.was_reset = True

    # --- the database -------------------------------------------------------------------------------------------------

    @rule()
    def copy_the_ledger(self) -> None:
        self.world.backup()
        self.saved = self.model.backup(), dict(self.ids), set(self.held)

    @precondition(lambda self: self.saved is not None)
    @rule()
    def restore_the_ledger(self) -> None:
        assert self.saved is not None
        books, ids, held = self.saved
        self.world.restore()
        self.model.books, self.ids, self.held = Books(), dict(ids), set(held)
        self.model.books = books
        self.saved = self.model.backup(), ids, held
        self.was_reset = True

    @rule()
    def lose_the_ledger(self) -> None:
        self.world.restore("fresh")
        self.model.books, self.held, self.was_reset = Books(), set(), True
        self.losses += 1
        in_table = {batch[0] for batch in self.model.table}
        for who, ingestion in self.ids.items():
            if ingestion not in in_table:
                self.ids[who] = f"{who.lower()}{self.losses:031d}"

    @precondition(lambda self: self.model.has_table)
    @rule()
    def rebuild(self) -> None:
        """By command; ingestions that nobody knows are adopted."""
        self._rebuild_all()

    def _rebuild_all(self) -> None:
        ledger = self.world.ledger
        ledger.ensure_load_ingestion(ledger.ensure_table(str(self.world.table)), self.ids["A"])
        self.model.books.ingestions.add(self.ids["A"])
        for unknown in sorted({batch[0] for batch in self.model.table} - self.model.books.ingestions):
            self.model.books.ingestions.add(unknown)
            self._rebuild(unknown)
        self._rebuild(None)

    def _rebuild(self, adopt: str | None) -> None:
        life = self._life(_owner(LIVING), 0, retry=False)
        keeper: Any = self.world.keeper()
        ledger: Any = Hand(life, self.world.ledger)
        ports = RebuildPorts(ledger, keeper, keeper, keeper, life.owner)
        unknown = {batch[0] for batch in self.model.table} - self.model.books.ingestions
        held = set(self.held)
        refused: AutoloaderError | None = None
        try:
            Rebuilder(ports, self.world.table, lease_s=LEASE_S).run(RebuildRequest(self.world.table, adopt))
        except AutoloaderError as error:
            refused = error
        if isinstance(refused, LedgerBehindTableError):
            assert unknown
        elif refused is not None:
            assert isinstance(refused, RunInProgressError)
            assert held & {batch[0] for batch in self.model.table}

    # --- what must always be true -------------------------------------------------------------------------------------

    @invariant()
    def table_is_as_it_should_be(self) -> None:
        self._look_at_table()

    def _look_at_table(self) -> None:
        rows = Counter(self.strange_rows)
        for version, times in self.model.rows_by_version().items():
            for line in self.contents[version].splitlines():
                rows[version[0], json.loads(line)["id"]] += times
        assert self.world.rows() == rows
        assert self.model.twice() == []

    @invariant()
    def ledger_is_as_it_should_be(self) -> None:
        self._look_at_ledger()

    def _look_at_ledger(self) -> None:
        ledger, books = self.world.ledger, self.model.books
        record = ledger.table(str(self.world.table))
        known = list(ledger.files_after(record, "")) if record else []
        assert {version_of(f): _shown(f) for f in known} == {v: _shown(e) for v, e in books.files.items()}
        with ledger._read() as connection:
            found = connection.exec_driver_sql("select ingestion_id, number, state from batches").all()
        assert {(i, n): s for i, n, s in found} == {batch: claim.state for batch, claim in books.batches.items()}

    def teardown(self) -> None:
        """Whatever happened: two plain runs later nothing is missing, nothing is twice, and nothing is left behind."""
        if not hasattr(self, "model"):
            return
        self.world.late.clear()
        self._let_leases_run_out()
        if self.model.has_table:
            self._rebuild_all()
        for who in ("A", "B", "A"):
            self._run(How(who, None, 3, retry=False))
        self._look_at_table()
        self._look_at_ledger()
        assert not [c for c in self.model.books.batches.values() if c.state == "open"]
        if not self.model.has_table:
            return
        self._upkeep()
        assert self.was_reset or not self.world.orphans()
        self._checked()

    def _checked(self) -> None:
        """The product's own proof comes to the same."""
        ports = CheckPorts(self.world.ledger, self.world.keeper(), self.world.open_source, in_order, ())
        source = LoadRequest(self.world.path, self.world.table, {"format": "json"})
        report = check(ports, CheckRequest(self.world.table, source))
        missing = report.differences[DifferenceKind.NOT_LOADED].count
        assert missing == 0, report


def _owner(kind: str) -> Owner:
    return {LIVING: this_process(), DYING: DEAD, STRANGER: ELSEWHERE}[kind]


def _shown(file: Any) -> tuple[object, ...]:
    """What ledger and model say alike of a version."""
    if file.state is FileState.SUCCESS:
        return file.state, file.rows
    return (file.state, file.tries, file.retryable) if file.state is FileState.FAILED else (file.state,)
