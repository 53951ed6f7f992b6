"""What a run tells of its steps, put to the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from app.domain.batch import BatchManifest, BatchRef
from app.domain.errors import FileFailure
from app.domain.files import EarlierVersion
from app.domain.ledger import Closing
from app.domain.rebuilding import RestoredBatch
from app.domain.runs import Lease
from tests.model.lives import Life
from tests.model.model import BatchKey, Claim, InTable, Model, Version


class Teller:
    """Listens to one run: every call of a port that it made, with what was given and what came back."""

    def __init__(self, model: Model, held: set[str], *, limit: int, retry: bool) -> None:
        """Listen for a run that may claim `limit` files at once; `held` are the leases that nobody gave back."""
        self.model, self.held, self.limit, self.retry = model, held, limit, retry
        self.life: Life | None = None

    def __call__(self, what: str, given: tuple[Any, ...], got: Any) -> None:
        told: Callable[[tuple[Any, ...], Any], None] | None = getattr(self, f"_{what}", None)
        if told is not None:
            told(given, got)

    # --- leases -------------------------------------------------------------------------------------------------------

    def _acquire(self, _: tuple[Any, ...], got: Any) -> None:
        if isinstance(got, Lease):
            self.held.add(got.ingestion_id)

    def _release(self, given: tuple[Any, ...], _: Any) -> None:
        self.held.discard(given[0].ingestion_id)

    def _ensure_load_ingestion(self, _: tuple[Any, ...], got: Any) -> None:
        self.model.books.ingestions.add(got)

    # --- batches ------------------------------------------------------------------------------------------------------

    def _claim(self, _: tuple[Any, ...], got: Any) -> None:
        if got is not None:
            assert self.life is not None
            retry = self.retry or self.life.saw_others
            self.model.claimed(key(got.batch), versions(got.files), limit=self.limit, retry=retry)
            self._try(got.files)

    def _open_batches(self, _: tuple[Any, ...], got: Any) -> None:
        for batch in got:
            assert versions(batch.files) == self.model.books.batches[key(batch.batch)].files
            self._try(batch.files)

    def _try(self, files: Iterable[Any]) -> None:
        assert self.life is not None
        self.life.tried.update(versions(files))

    def _write_manifest(self, given: tuple[Any, ...], _: Any) -> None:
        manifest: BatchManifest = given[0]
        content = contents(manifest.generation, manifest.files, manifest.failed, manifest.replaced)
        batch, claim = key(manifest.batch), self.model.books.batches.get(key(manifest.batch))
        assert self.life is not None
        self.life.contents[batch] = content
        if claim is not None and claim.state == "open":
            assert content == self.model.outcome(batch)
            lasting = {version_of(f) for f in manifest.failed if not f.retryable}
            assert lasting == {v for v in content.failed if self.model.source.get(v[0]) == v[1]}

    def _commit_table(self, given: tuple[Any, ...], _: Any) -> None:
        assert self.life is not None
        batch = key(given[0].batch)
        self.model.committed(batch, self.life.contents[batch])

    _arrived = _commit_table

    def _close(self, given: tuple[Any, ...], _: Any) -> None:
        closing: Closing = given[2]
        batch = key(closing.batch)
        claim = self.model.books.batches.get(batch, Claim(0))
        content = contents(claim.generation, closing.loaded, closing.failed)
        if claim.state == "open" and not closing.committed and claim.files:
            # Nothing is given up here: what is not in the table failed, file by file.
            assert content == self.model.outcome(batch)
        assert self.life is not None
        self.life.loaded += len(closing.loaded)
        self.model.closed(batch, content, committed=closing.committed, gone=_retryable(closing.failed))

    def _mark(self, given: tuple[Any, ...], _: Any) -> None:
        for file, state in given[2]:
            self.model.marked(version_of(file), state)

    # --- rebuilds -----------------------------------------------------------------------------------------------------

    def _restore_generation(self, _: tuple[Any, ...], got: Any) -> None:
        self.model.raised(got.generation)

    def _restore_replaced(self, given: tuple[Any, ...], _: Any) -> None:
        self.model.superseded(taken_out(given[2]))

    def _restore_batch(self, given: tuple[Any, ...], got: Any) -> None:
        if got:
            restored: RestoredBatch = given[2]
            content = contents(restored.generation, (*restored.loaded, *restored.superseded), restored.failed)
            gone = _retryable(restored.failed)
            self.model.restored(key(restored.batch), content, committed=restored.committed, gone=gone)


def key(batch: BatchRef) -> BatchKey:
    """A batch as the model names it."""
    return batch.ingestion_id, batch.number


def version_of(file: Any) -> Version:
    """A version of a file as the model names it."""
    return file.key.rpartition("/")[2], file.version


def versions(files: Iterable[Any]) -> frozenset[Version]:
    """Several of them."""
    return frozenset(version_of(f) for f in files)


def contents(
    generation: int, loaded: Iterable[Any], failed: Iterable[FileFailure], replaced: Iterable[EarlierVersion] = ()
) -> InTable:
    """What a batch came to, as the model has it."""
    return InTable(generation, {version_of(f): f.rows for f in loaded}, versions(failed), taken_out(replaced))


def taken_out(replaced: Iterable[EarlierVersion]) -> frozenset[tuple[BatchKey, Version]]:
    """Versions whose rows were taken out, each with the batch that had loaded it."""
    found = set()
    for earlier in replaced:
        ingestion, _, number = earlier.batch_id.rpartition("-")
        found.add(((ingestion, int(number)), version_of(earlier)))
    return frozenset(found)


def _retryable(failed: Iterable[FileFailure]) -> frozenset[Version]:
    return versions(f for f in failed if f.retryable)
