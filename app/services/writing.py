"""Write a batch's files under a schema that grows until all of them fit, so that drift and data commit together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from app.domain.errors import FileFailure
from app.domain.evolution import extends
from app.domain.files import LoadedFile, SourceFile
from app.domain.ports import DataFile, Draft, Engine, Progress, Reading, WriteOrder, WriteResult
from app.domain.types import EMPTY, Struct, join_structs
from app.services.discarding import discard
from app.services.replacing import Taken

# Drift is looked at in whole files, so the second round fits; more happen only when files' drifts meet each other.
MAX_ROUNDS = 4

# What a round wrote, and for which draft.
_Round: TypeAlias = tuple[Draft, WriteResult]


@dataclass(frozen=True)
class Written:
    """A batch's files as data files of `draft`'s schema: each of the batch's files is in `loaded` or in `failed`."""

    draft: Draft
    data_files: tuple[DataFile, ...]
    loaded: tuple[LoadedFile, ...]
    failed: tuple[FileFailure, ...]
    # What goes in exchange.
    taken: Taken = field(default_factory=Taken)

    def discard(self) -> None:
        """Remove the data files. Only for a batch that is known not to be committed with them."""
        discard(self.draft, self.data_files)
        discard(self.draft, self.taken.removal.data_files)


def fits(draft: Draft, written_for: Draft) -> bool:
    """Whether `draft` can take over data files that were written for another draft of the same table."""
    return draft.location == written_for.location and extends(draft.schema, written_for.schema)


@dataclass(frozen=True)
class WritePlan:
    """What to write, and how a draft is made that holds what the files turned out to hold."""

    files: tuple[SourceFile, ...]
    reading: Reading
    batch_id: str
    name_prefix: str
    provenance: bool
    # Given everything observed so far that the table cannot hold, a draft that can hold what may be added.
    draft_for: Callable[[Struct], Draft]


def write_all(engine: Engine, plan: WritePlan, progress: Progress) -> Written:
    """Write the plan's files, in as many rounds as their schemas need.

    Raises:
        WriteFailureError: The data location takes no files; nothing of the batch is left there.
    """
    done: list[_Round] = []
    try:
        draft = _write_rounds(engine, plan, plan.draft_for(EMPTY), done, progress)
    except BaseException:
        # What earlier rounds wrote will not be committed either.
        for draft, result in done:
            discard(draft, result.data_files)
        raise
    return Written(
        draft=draft,
        data_files=tuple(f for _, r in done for f in r.data_files),
        loaded=tuple(f for _, r in done for f in r.loaded),
        failed=tuple(f for _, r in done for f in r.failed),
    )


def _write_rounds(engine: Engine, plan: WritePlan, draft: Draft, done: list[_Round], progress: Progress) -> Draft:
    """The draft that all files fit; `done` holds at every moment what was written and is still there."""
    observed = EMPTY
    pending = plan.files
    for number in range(1, MAX_ROUNDS + 1):
        result = engine.write(_order(plan, draft, pending, number, report_drift=number < MAX_ROUNDS), progress)
        done.append((draft, result))
        if not result.drifted:
            break
        observed = join_structs(observed, result.drift)
        draft = plan.draft_for(observed)
        done[:], again = _drop_stale(draft, done, plan.files)
        pending = (*result.drifted, *again)
    return draft


def _order(
    plan: WritePlan, draft: Draft, files: tuple[SourceFile, ...], number: int, *, report_drift: bool
) -> WriteOrder:
    return WriteOrder(
        files=tuple(sorted(files, key=lambda f: f.order)),
        reading=plan.reading,
        schema=draft.schema,
        sink=draft.sink(),
        batch_id=plan.batch_id,
        name_prefix=f"{plan.name_prefix}-{number}",
        provenance=plan.provenance,
        report_drift=report_drift,
    )


def _drop_stale(
    draft: Draft, done: list[_Round], files: tuple[SourceFile, ...]
) -> tuple[list[_Round], tuple[SourceFile, ...]]:
    """Remove what the new draft cannot take over; its files are to be written again.

    Data files have to be readable under its schema. And they have to lie at its table: a catalog may give every draft
    of a new table a place of its own, and the key that it gives readers is good for the table's place alone.
    """
    kept: list[_Round] = []
    stale: set[tuple[str, str]] = set()
    for old, result in done:
        if fits(draft, old):
            kept.append((old, result))
        else:
            discard(old, result.data_files)
            stale.update((f.key, f.version) for f in result.loaded)
            kept.append((old, replace(result, data_files=(), loaded=())))
    return kept, tuple(f for f in files if (f.key, f.version) in stale)
