"""Defects to be planted into runs, each a way in which a loader loses or doubles rows: the harness has to find them.

They take effect in this process for good, so that they are planted into runs and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from app.destinations import catalog, draft
from app.destinations.guard import Guard
from app.domain.files import LoadedFile
from app.domain.ledger import Closing, OpenBatch
from app.domain.ports import Committed
from app.persistence.batches import SqlBatches
from app.services import batch_loading, recovery, run
from app.services.sweeping import Sweeper


def _put(owner: Any, name: str, value: Any) -> Any:
    """Put something in the place of a part of the program; that part is given back."""
    part = getattr(owner, name)
    setattr(owner, name, value)
    return part


def forget_open_batches() -> None:
    """What an earlier run left open is never looked at."""
    _put(SqlBatches, "open_batches", lambda *_: [])


def give_up_open_batches() -> None:
    """What an earlier run left open is taken for not committed, without a look into the table."""
    _put(run, "settle", lambda _catalog, _table, batch, _lease: Closing(batch.batch, committed=False))


def record_before_commit() -> None:
    """The ledger says that a batch is loaded before its commit is tried."""
    late: list[Callable[[], Any]] = []

    def put_off(self: Any, order: Any) -> Any:
        late.append(lambda: commit(self, order))
        # Which snapshot it will be is not known yet.
        nothing: Any = None
        return Committed(nothing, 0, self.table_uuid)

    def close_then_commit(self: Any, lease: Any, table: Any, closing: Closing) -> None:
        close(self, lease, table, closing)
        while late:
            late.pop()()

    commit = _put(draft.IcebergDraft, "commit", put_off)
    close = _put(SqlBatches, "close", close_then_commit)


def trust_the_claim() -> None:
    """A batch that is found in the table is closed with all files of its claim, not with those of its manifest."""

    def by_claim(batch: OpenBatch, table: Any, found: Any) -> Closing:
        closing: Closing = by_manifest(batch, table, found)
        rows = {file.key: file.rows for file in closing.loaded}
        claimed = (LoadedFile(f.key, f.version, rows.get(f.key, 0), f.size_bytes) for f in batch.files)
        return replace(closing, loaded=tuple(claimed), failed=())

    by_manifest = _put(batch_loading, "closing_from_table", by_claim)
    _put(recovery, "closing_from_table", by_claim)


def switch_the_guard_off() -> None:
    """Nothing is checked before a commit, neither the batch nor the epoch nor the lease."""
    _put(Guard, "_refuse_or_pass", lambda *_: None)
    _put(draft, "refusal", lambda *_: None)


def take_over_without_a_fence() -> None:
    """An older process is not shut out before its batch is loaded again."""
    _put(catalog, "_fence", lambda target, *_: target.catalog.load_table(target.identifier).metadata)


def sweep_what_is_named() -> None:
    """A sweep does not ask the metadata which files are in use."""

    def names_nothing(*arguments: Any) -> Any:
        return replace(references(*arguments), names=frozenset())

    references = _put(catalog, "references", names_nothing)


def never_sweep() -> None:
    """A sweep removes nothing."""

    def look_only(self: Any, **_: Any) -> Any:
        return sweep(self, dry_run=True)

    sweep = _put(Sweeper, "sweep", look_only)


DEFECTS: Mapping[str, Callable[[], None]] = {
    defect.__name__.replace("_", "-"): defect
    for defect in (
        forget_open_batches,
        give_up_open_batches,
        record_before_commit,
        trust_the_claim,
        switch_the_guard_off,
        take_over_without_a_fence,
        sweep_what_is_named,
        never_sweep,
    )
}
