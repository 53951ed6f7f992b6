"""What must be true of table and ledger after every step of a run: the promise without anything that can go wrong.

A run tells each of its steps; the model says whether a run may take it now, and what is true from then on. When a run
has gone through, the model says what the run must not have left undone.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TypeAlias

from app.domain.files import FileState

S = FileState
# A file's name and its version; an ingestion and the number of its batch.
Version: TypeAlias = tuple[str, str]
BatchKey: TypeAlias = tuple[str, int]


class Policy(enum.StrEnum):
    """What becomes of a new version of a file that was loaded."""

    IGNORE = "ignore"
    APPEND = "append"
    REPLACE = "replace"


@dataclass
class Entry:
    """What the ledger knows of a version of a file."""

    state: FileState
    rows: int | None = None
    tries: int = 0
    retryable: bool = False
    is_due: bool = True
    # Which batch loaded it.
    batch: BatchKey | None = None


@dataclass
class Claim:
    """What the ledger knows of a batch: `open`, `committed`, `empty` or `cleared`."""

    generation: int
    files: frozenset[Version] = frozenset()
    state: str = "open"


@dataclass
class Books:
    """The ledger. A copy of it is a backup."""

    files: dict[Version, Entry] = field(default_factory=dict)
    batches: dict[BatchKey, Claim] = field(default_factory=dict)
    generation: int = 1
    ingestions: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class InTable:
    """A batch that is in the table: rows by version of a file, and what was left out of it."""

    generation: int
    loaded: Mapping[Version, int]
    failed: frozenset[Version]
    # Versions whose rows it took out, and the batches that had loaded them.
    replaced: frozenset[tuple[BatchKey, Version]] = field(default=frozenset(), compare=False)


class Model:
    """A source, a ledger and a table, as they should be."""

    def __init__(self, policy: Policy = Policy.IGNORE, max_tries: int = 3) -> None:
        self.policy = policy
        self.max_tries = max_tries
        self.source: dict[str, str] = {}
        # Rows of each version that can be read; one that cannot is missing. Those of zero bytes are in `empty`.
        self.rows: dict[Version, int] = {}
        self.empty: set[Version] = set()
        self.books = Books()
        self.table: dict[BatchKey, InTable] = {}
        # What later batches took out of the table again.
        self.gone: set[tuple[BatchKey, Version]] = set()
        self.has_table = False

    # --- what a run may do ----------------------------------------------------------------------------------------

    def wants(self, version: Version, *, retry: bool) -> bool:
        """Whether a run that sees this version has to load it."""
        known = {v: e for (name, v), e in self.books.files.items() if name == version[0]}
        mine = known.get(version[1])
        states = {e.state for e in known.values()}
        if S.PROCESSING in states or (mine is not None and mine.state in (S.SUCCESS, S.SKIPPED)):
            return False
        if S.SUCCESS in states and self.policy is Policy.IGNORE:
            return False
        if mine is not None and mine.state is S.FAILED:
            return retry or (mine.retryable and mine.tries < self.max_tries and mine.is_due)
        return version not in self.empty

    def is_behind(self) -> bool:
        """Whether the table holds batches that the ledger lacks."""
        lacking = set(self.table) - {b for b, claim in self.books.batches.items() if claim.state != "empty"}
        return bool(lacking)

    def claimed(self, batch: BatchKey, files: Collection[Version], *, limit: int, retry: bool) -> None:
        """A run makes a batch durable."""
        assert not self.is_behind(), "it claims before the ledger knows what the table holds"
        assert batch not in self.table, "the number was given out before"
        assert not [b for b, c in self.books.batches.items() if b[0] == batch[0] and c.state == "open"]
        assert 0 < len(files) <= limit
        for version in files:
            assert self.wants(version, retry=retry), f"{version} is not to be loaded"
            for other, entry in self.books.files.items():
                if other[0] == version[0] and other != version and entry.state is S.FAILED:
                    entry.state, entry.retryable = S.SUPERSEDED, False
            self._entry(version).state = S.PROCESSING
        self.books.batches[batch] = Claim(self.books.generation, frozenset(files))

    def outcome(self, batch: BatchKey) -> InTable:
        """What loading an open batch must give with the source as it is now."""
        claim = self.books.batches[batch]
        loaded = {v: self.rows[v] for v in claim.files if self.source.get(v[0]) == v[1] and v in self.rows}
        return InTable(claim.generation, loaded, claim.files - loaded.keys())

    def committed(self, batch: BatchKey, content: InTable) -> None:
        """A batch is in the table from now on, whoever put it there."""
        assert batch not in self.table, "a batch is committed twice"
        names = {name for name, _ in content.loaded}
        assert {version[0] for _, version in content.replaced} <= names, "rows are taken out and none put in"
        self.table[batch] = content
        self.gone |= content.replaced
        self.has_table = True

    def closed(self, batch: BatchKey, content: InTable, *, committed: bool, gone: Collection[Version] = ()) -> None:
        """The ledger records how a batch ended. `gone` are failures that may be over when nobody changes anything."""
        claim = self.books.batches[batch]
        if claim.state != "open":
            return
        assert committed == (batch in self.table), "the ledger says otherwise than the table"
        if committed:
            assert content == self.table[batch], "a batch in the table is closed with other files"
        claim.state = "committed" if committed else "empty"
        for version in claim.files:
            entry = self._entry(version)
            if version in content.loaded:
                self._entry(version, S.SUCCESS, content.loaded[version], batch)
            elif version in content.failed:
                entry.state, entry.tries, entry.retryable = S.FAILED, entry.tries + 1, version in gone
                entry.is_due = entry.tries < 2
            else:
                entry.state = S.DISCOVERED
        if committed:
            self.superseded(self.table[batch].replaced)

    def superseded(self, replaced: Collection[tuple[BatchKey, Version]]) -> None:
        """The ledger notes that rows were taken out of the table."""
        for batch, version in replaced:
            entry = self.books.files.get(version)
            if entry is not None and entry.state is S.SUCCESS and entry.batch == batch:
                entry.state = S.SUPERSEDED

    def marked(self, version: Version, state: FileState) -> None:
        """A run notes a version that is not to be loaded."""
        others = {e.state for (name, v), e in self.books.files.items() if name == version[0] and v != version[1]}
        if state is S.CHANGED:
            assert S.SUCCESS in others, f"nothing of {version[0]} was loaded"
        else:
            assert (state, version in self.empty) == (S.SKIPPED, True), f"{version} is to be loaded"
        if self._entry(version, new=state).state in (S.DISCOVERED, S.FAILED):
            self.books.files[version].state = state

    def restored(self, batch: BatchKey, content: InTable, *, committed: bool, gone: Collection[Version] = ()) -> None:
        """A rebuild gives the ledger a batch of the past."""
        # Of a batch of which nothing was loaded, nobody can tell whether it was committed, and nobody need.
        if content.loaded or batch in self.table:
            assert committed == (batch in self.table), "the rebuilt ledger says otherwise than the table"
        if batch in self.table:
            assert content == self.table[batch], "the rebuilt ledger has other files than the table"
        before = self.books.batches.get(batch, Claim(content.generation))
        self.books.batches[batch] = Claim(content.generation, before.files, "committed" if committed else "empty")
        if content.generation == self.books.generation:
            self._restored_files(batch, content, gone)
        # Those of a generation that is over are forgotten.
        for version in before.files & self.books.files.keys():
            if self.books.files[version].state is S.PROCESSING:
                self.books.files[version].state = S.DISCOVERED

    def _restored_files(self, batch: BatchKey, content: InTable, gone: Collection[Version]) -> None:
        for version, rows in content.loaded.items():
            if (batch, version) not in self.gone:
                self._entry(version, S.SUCCESS, rows, batch)
            elif self._entry(version).state is not S.SUCCESS:
                self._entry(version, S.SUPERSEDED, rows, batch)
        for version in content.failed:
            entry = self._entry(version)
            if entry.state in (S.DISCOVERED, S.PROCESSING):
                entry.state, entry.tries, entry.is_due = S.FAILED, 1, True
                entry.retryable = version in gone
        for version, entry in self.books.files.items():
            if entry.state is S.FAILED and any(v[0] == version[0] and v != version for v in content.loaded):
                entry.state, entry.retryable = S.SUPERSEDED, False

    def _entry(
        self,
        version: Version,
        state: FileState | None = None,
        rows: int | None = None,
        batch: BatchKey | None = None,
        *,
        new: FileState = S.DISCOVERED,
    ) -> Entry:
        entry = self.books.files.setdefault(version, Entry(new))
        if state is not None:
            entry.state, entry.rows, entry.retryable, entry.batch = state, rows, False, batch
        return entry

    # --- what may happen between runs -----------------------------------------------------------------------------

    def backup(self) -> Books:
        """A copy of the ledger as it is now."""
        return deepcopy(self.books)

    def cleared(self) -> None:
        """A new generation begins."""
        for claim in self.books.batches.values():
            claim.state = "cleared" if claim.state == "open" else claim.state
        self.books.files, self.books.generation = {}, self.books.generation + 1

    def raised(self, generation: int) -> None:
        """A rebuild finds that the generation is a later one."""
        if generation > self.books.generation:
            self.books.files, self.books.generation = {}, generation

    # --- what must be true ----------------------------------------------------------------------------------------

    def undone(self, listed: Collection[Version], tried: Collection[Version]) -> list[Version]:
        """What a run that has gone through should have loaded and did not."""
        return [v for v in listed if v not in tried and self.wants(v, retry=False)]

    def twice(self) -> list[object]:
        """What is in the table more often than it may, by generation."""
        keys = (
            (content.generation, name, version if self.policy is Policy.APPEND else "")
            for batch, content in self.table.items()
            for name, version in content.loaded
            if (batch, (name, version)) not in self.gone
        )
        return [key for key, times in Counter(keys).items() if times > 1]

    def rows_by_version(self) -> Counter[Version]:
        """How often each version of a file is in the table."""
        return Counter(
            version
            for batch, content in self.table.items()
            for version in content.loaded
            if (batch, version) not in self.gone
        )
