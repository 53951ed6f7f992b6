"""One run at work under its lease: settle what is open, find what is new, load it batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime

from app.domain.batch import BatchKind
from app.domain.discovery import Sighting, news
from app.domain.errors import (
    AutoloaderError,
    CommitUnknownError,
    LeaseLostError,
    LedgerBehindTableError,
    RetriableError,
    RunCancelled,
)
from app.domain.events import EventLog
from app.domain.failpoints import Failpoints
from app.domain.files import FileState, SourceFile
from app.domain.ledger import Closing, Ledger, OpenBatch
from app.domain.locations import source_type
from app.domain.ports import Catalog, Engine, Reading, Source
from app.domain.runs import Lease, Owner, RunReport, TableRecord
from app.domain.selection import Decision, decide, fitting, plan_batches
from app.domain.table import TableHead
from app.domain.table_checks import batches_behind, check_identity
from app.domain.upkeep import TableReader, TableStorage
from app.domain.watch import Watcher
from app.services.batch_loading import UNKNOWN_WAITS_S, BatchLoader, BatchTask
from app.services.expiry import Expiry
from app.services.heartbeat import Heartbeat
from app.services.preflight import LoadRequest, OpenSource, Prepared, check_format
from app.services.rebuilding import Hold, Rebuilder, RebuildPorts, highest_epoch
from app.services.recovery import GivenUp, Orphans, settle
from app.services.sweeping import Sweeper, sweep_quietly

log = EventLog(__name__)

_MARK_CHUNK = 1_000
# So many new files are looked at before the first batch of a run that may be too large where it is: some 40 MB. Larger
# numbers of small files can turn out to be too much after batches were loaded, which stay.
_LOOK_AHEAD_FILES = 100_000


@dataclass(frozen=True)
class RunSettings:
    """The numbers that a run works by; `contract` names their settings."""

    lease_s: float
    batch_bytes: int
    batch_files: int
    file_tries: int
    # Seconds between tries to learn what became of a commit that nobody answered for.
    unknown_waits_s: tuple[float, ...] = UNKNOWN_WAITS_S


@dataclass(frozen=True)
class LoadPorts:
    """What a load works with."""

    # Opened when the source and the table have been looked at, so that a mistyped path makes no database.
    open_ledger: Callable[[], Ledger]
    # Whether there is a ledger already.
    has_ledger: Callable[[], bool]
    catalog: Catalog
    storage: TableStorage
    reader: TableReader
    engine: Engine
    open_source: OpenSource
    # Puts a source's listing into key order; told by the callback where it was not.
    in_order: Callable[[Iterator[SourceFile], Callable[[str], None]], Iterator[SourceFile]]
    owner: Owner
    failpoints: Failpoints
    # Folders of ours, in the form of keys.
    keep_out: tuple[str, ...]


@dataclass(frozen=True)
class RunOrder:
    """A run that the service has a row of: it is carried out under its ids, and told of in its row.

    Args:
        report: What the run is to fill in; it has the run's id.
        finish: Called once the run has begun its work and however it ends, while its lease is still held: keeps the
            report. It is given what ended the run before its end.
        only_keys: Nothing but these files is loaded, and each of them is tried now; None: all that is new.
        most_bytes: Where it finds more new bytes than that, it is not to be carried out here: the load ends with
            `RunTooLarge`. None: here, whatever it finds.
    """

    ingestion_id: str
    report: RunReport
    finish: Callable[[BaseException | None], None]
    only_keys: frozenset[str] | None = None
    most_bytes: int | None = None


@dataclass(frozen=True)
class Job:
    """One run: what was asked for, and what it holds."""

    request: LoadRequest
    prepared: Prepared
    ledger: Ledger
    lease: Lease
    watcher: Watcher
    report: RunReport
    order: RunOrder | None = None


class Run:
    """One run at work, under its lease."""

    def __init__(self, ports: LoadPorts, settings: RunSettings, job: Job) -> None:
        self._ports = ports
        self._settings = settings
        self._request = job.request
        self._prepared = job.prepared
        self._ledger = job.ledger
        self._lease = job.lease
        self._watcher = job.watcher
        self._report = job.report
        self._is_load = job.order is None
        self._only_keys = job.order.only_keys if job.order else None
        self._most_bytes = job.order.most_bytes if job.order else None
        self._failpoints = ports.failpoints
        self._loader = BatchLoader(
            ports.catalog, ports.engine, ports.failpoints, unknown_waits_s=settings.unknown_waits_s
        )
        self._heartbeat = Heartbeat(job.ledger, job.lease, settings.lease_s, failpoints=ports.failpoints)
        self._expiry = Expiry(ports.catalog, job.request.table, self._heartbeat.assert_alive, ports.failpoints)
        self._marks: list[tuple[SourceFile, FileState]] = []
        # Files of settled batches: this run loaded them, so they are not known from before.
        self._settled: set[tuple[str, str]] = set()
        self._settled_any = False
        self._given_up = GivenUp()
        self._files_taken = 0

    def kept_alive(self) -> AbstractContextManager[object]:
        """Its lease is renewed until the block ends; `work` is done inside."""
        return self._heartbeat.beating()

    def work(self) -> None:
        """Check the table, settle what is open, load what is new."""
        head = self._head()
        record = self._rebuild_if_behind(self._record(), head)
        with self._failpoints.step("open_batches_read"):
            open_batches = self._ledger.open_batches(self._lease, record)
        for batch in open_batches:
            self._settle(batch)
            self._settled_any = True
        self._settle_orphans(record, head)
        for files in plan_batches(
            self._fitting_files(), batch_bytes=self._settings.batch_bytes, batch_files=self._settings.batch_files
        ):
            self._load_batch(files)
        self._flush_marks()
        with self._failpoints.step("hints_added"):
            self._add_hints()
        if self._settled_any:
            sweep_quietly(self._sweeper().sweep)
        elif self._expiry.happened:
            sweep_quietly(self._sweeper().sweep_expired)

    def _sweeper(self) -> Sweeper:
        return Sweeper(
            self._ledger,
            self._ports.storage,
            self._request.table,
            lease_s=self._settings.lease_s,
            failpoints=self._failpoints,
        )

    # --- the table ------------------------------------------------------------------------------------------------

    def _record(self) -> TableRecord:
        """The ledger's record as it is now: every commit of ours moves its head."""
        return self._ledger.ensure_table(str(self._request.table))

    def _head(self) -> TableHead | None:
        """The table now, which is the one that the ledger knows.

        Raises:
            TableReplacedError, TableRolledBackError: It is not.
        """
        # The record first: a head that is read later holds whatever was committed before, by other ingestions too.
        record = self._record()
        with self._failpoints.step("table_read"):
            head = self._ports.catalog.head(self._request.table)
        check_identity(record, head)
        self._given_up.check(head)
        return head

    def _rebuild_if_behind(self, record: TableRecord, head: TableHead | None) -> TableRecord:
        """Give the ledger what the table holds of ours and it lacks, as after its database was lost.

        Raises:
            LedgerBehindTableError: The table holds batches of which nobody here knows, or nothing says which files
                are in.
        """
        ledger = self._ledger
        behind = batches_behind(record.name, head, ledger.committed_batches(record), ledger.foreign_ingestions(record))
        if not behind:
            return record
        ports = RebuildPorts(
            ledger,
            self._ports.catalog,
            self._ports.storage,
            self._ports.reader,
            self._ports.owner,
            self._failpoints,
        )
        rebuilder = Rebuilder(ports, self._request.table, lease_s=self._settings.lease_s)
        held = {self._lease.ingestion_id: Hold(self._lease, self._heartbeat.assert_alive)}
        rebuilt = rebuilder.rebuild(sorted(behind), held)
        self._watcher.note(
            "The ledger lacked what the table holds and was rebuilt from it; "
            f"batches: {rebuilt.batches}, files: {rebuilt.files_loaded}, rows: {rebuilt.rows}."
        )
        for sentence in rebuilt.sentences():
            self._warn(sentence)
        return self._record()

    # --- batches --------------------------------------------------------------------------------------------------

    def _settle(self, batch: OpenBatch) -> None:
        """An earlier run's batch: closed if the table has it, loaded again as it was planned if not."""
        settlement = settle(
            self._ports.catalog, self._request.table, batch, self._heartbeat.assert_alive, self._failpoints
        )
        if settlement.closing is None and batch.cancelled and not self._is_load:
            # Its files are found again where they are still wanted, and loaded as is wanted now.
            self._watcher.note(f"Batch {batch.batch.number} of a cancelled run is not in the table; it is given up.")
            self._given_up.note(batch.batch, settlement)
            self._ledger.close(self._lease, self._record(), Closing(batch.batch, committed=False))
            return
        self._settled.update((f.key, f.version) for f in batch.files)
        if settlement.closing is not None:
            self._watcher.note(f"Batch {batch.batch.number} of an earlier run is in the table; the ledger now says so.")
            self._close(batch, settlement.closing)
            return
        if not batch.files:
            self._close(batch, Closing(batch.batch, committed=False))
            return
        source = self._frozen_source(batch)
        if source is None:
            self._close(batch, Closing(batch.batch, committed=False))
            return
        self._watcher.note(f"Batch {batch.batch.number} of an earlier run is not in the table; it is loaded again.")
        self._work_on(batch, source, recovered=True)

    def _settle_orphans(self, record: TableRecord, head: TableHead | None) -> None:
        """What deleted ingestions left open in this table: their files may be this one's now."""
        ports = self._ports
        orphans = Orphans(self._ledger, ports.catalog, ports.owner, self._settings.lease_s, self._failpoints)

        def above_epoch(ingestion_id: str) -> int:
            return highest_epoch(ports.storage, head, ingestion_id, behind=False)

        files = orphans.settle(self._request.table, record, above_epoch, self._given_up)
        if files:
            self._settled_any = True
            self._watcher.note(f"Files of a deleted ingestion's unfinished run were given back: {files}.")

    def _frozen_source(self, batch: OpenBatch) -> Source | None:
        """The source that the batch was planned for; None where it cannot be opened any more.

        Then the batch is given up: it is not in the table, nobody can put it there, and its files are found again
        when their source is. A source of the past must not stand in the way of the present one for ever.
        """
        frozen, today = batch.definition, self._prepared.definition
        if (frozen.path, frozen.file_pattern) == (today.path, today.file_pattern):
            return self._prepared.source
        # Keys belong to the kind of store they were given for.
        same_kind = source_type(frozen.path) == source_type(today.path)
        try:
            return self._ports.open_source(
                frozen.path, frozen.file_pattern, self._request.credentials if same_kind else None
            )
        except AutoloaderError as error:
            self._warn(
                f"Files of an earlier run that did not end ({len(batch.files)}) were not loaded, because their source "
                f"{frozen.path} cannot be opened: {error.message} Load it again when it can."
            )
            return None

    def _load_batch(self, files: tuple[SourceFile, ...]) -> None:
        self._ports.engine.expect(files)
        self._flush_marks()
        with self._failpoints.step("batch_claimed"):
            batch = self._ledger.claim(self._lease, self._record(), self._prepared.definition, files)
        if batch is None:
            return
        self._work_on(batch, self._prepared.source)

    def _work_on(self, batch: OpenBatch, source: Source, *, recovered: bool = False) -> None:
        self._watcher.batch_begins(files=len(batch.files), stored_bytes=sum(f.size_bytes for f in batch.files))
        task = BatchTask(
            batch=batch,
            table=self._request.table,
            reading=Reading(source.reader(), batch.definition.options),
            assert_lease=self._heartbeat.assert_alive,
            head=self._head,
            progress=self._watcher.progress,
            warn=self._warn,
            history_grew=self._expiry.note,
            retried=self._note_retry,
            is_load=self._is_load,
        )
        try:
            closing = self._loader.load(task)
        except (CommitUnknownError, LeaseLostError, LedgerBehindTableError):
            # The batch stays open: the next run looks it up before it does anything else.
            raise
        except RunCancelled:
            if not self._loader.may_be_committed and not recovered:
                self._give_up(batch)
            raise
        except AutoloaderError as error:
            if recovered and isinstance(error, RetriableError):
                # Where there is no table yet there was nothing to fence: an older process may still make it with this
                # batch in it. Left open, it is looked up before its files are loaded under another number.
                raise
            self._give_up(batch)
            raise
        self._close(batch, closing)
        self._expiry.settle(batch.batch)

    def _note_retry(self) -> None:
        self._report.commit_retries += 1

    def _give_up(self, batch: OpenBatch) -> None:
        """Close a batch of which nothing is in the table and nothing is on its way: its files are found again."""
        try:
            self._ledger.close(self._lease, self._record(), Closing(batch.batch, committed=False))
        except AutoloaderError as error:
            # What went wrong with the batch is the news: a full disk may hold table and ledger. The next run finds
            # the batch open and settles it.
            log.warning("batch_not_closed", batch_id=batch.batch.batch_id, reason=str(error))

    def _close(self, batch: OpenBatch, closing: Closing) -> None:
        with self._failpoints.step("batch_closed"):
            self._ledger.close(self._lease, self._record(), closing)
        report = self._report
        sizes = {(f.key, f.version): f.size_bytes for f in batch.files}
        report.batches += 1
        report.files_loaded += len(closing.loaded)
        report.files_failed += len(closing.failed)
        again = {f.key for f in batch.earlier} & {f.key for f in closing.loaded}
        if batch.kind is BatchKind.REPLACE:
            report.files_replaced += len(again)
        else:
            report.files_appended += len(again)
        report.rows_loaded += sum(f.rows for f in closing.loaded)
        report.stored_bytes += sum(sizes.get((f.key, f.version), 0) for f in closing.loaded)
        report.errors.extend(closing.failed)
        report.snapshot_id = closing.snapshot_id or report.snapshot_id
        self._watcher.batch_ends(
            files=len(closing.loaded), rows=sum(f.rows for f in closing.loaded), failed=len(closing.failed)
        )

    # --- files ----------------------------------------------------------------------------------------------------

    def _fitting_files(self) -> Iterator[SourceFile]:
        """The files to load.

        Raises:
            RunTooLarge: They are more than is to be loaded here.
        """
        files = self._new_files()
        if self._most_bytes is None:
            return files
        return fitting(files, most_bytes=self._most_bytes, ahead=_LOOK_AHEAD_FILES)

    def _new_files(self) -> Iterator[SourceFile]:
        """The files to load, in key order; what is not to be loaded is counted, and noted where it is new."""
        now = datetime.now(UTC)
        listing = self._ports.in_order(self._prepared.listing, self._say_disorder)
        record = self._record()
        with self._failpoints.step("files_joined"):
            sightings = news(listing, lambda key: self._ledger.pages_after(record, key), self._count_known)
            yield from self._chosen(sightings, now)

    def _chosen(self, sightings: Iterator[Sighting], now: datetime) -> Iterator[SourceFile]:
        for sighting in sightings:
            if self._only_keys is not None and sighting.file.key not in self._only_keys:
                continue
            decision = decide(
                sighting.file,
                sighting.known,
                now=now,
                max_tries=self._settings.file_tries,
                retry_failed=self._request.retry_failed or self._only_keys is not None,
                on_file_change=self._prepared.definition.on_file_change,
            )
            if decision.loads:
                self._report.discovered_bytes += sighting.file.size_bytes
                if self._prepared.by_name:
                    check_format(sighting.file, self._prepared.definition)
                yield sighting.file
            else:
                self._count(sighting.file, decision)

    def _count_known(self, file: SourceFile) -> None:
        if not self._settled or (file.key, file.version) not in self._settled:
            self._report.files_known += 1

    def _count(self, file: SourceFile, decision: Decision) -> None:
        report = self._report
        if decision is Decision.KNOWN:
            self._count_known(file)
            return
        if (file.key, file.version) in self._settled:
            return
        if decision is Decision.STILL_FAILED:
            report.files_still_failed += 1
        else:
            report.files_skipped += 1
        self._files_taken += decision is Decision.TAKEN
        if decision in (Decision.SKIP_EMPTY, Decision.SKIP_EMPTIED):
            report.files_emptied += decision is Decision.SKIP_EMPTIED
            self._mark(file, FileState.SKIPPED)
        elif decision is Decision.CHANGED:
            self._mark(file, FileState.CHANGED)
        if decision in (Decision.CHANGED, Decision.STILL_CHANGED):
            report.files_changed += 1

    def _mark(self, file: SourceFile, state: FileState) -> None:
        self._marks.append((file, state))
        if len(self._marks) >= _MARK_CHUNK:
            self._flush_marks()

    def _flush_marks(self) -> None:
        if self._marks:
            with self._failpoints.step("marks_written"):
                self._ledger.mark(self._record(), self._report.run_id, self._marks)
            self._marks = []

    # --- what people are told ---------------------------------------------------------------------------------------

    def _warn(self, text: str) -> None:
        if text not in self._report.warnings:
            self._report.warnings.append(text)

    def _say_disorder(self, key: str) -> None:
        self._watcher.note(f"The store does not list in key order, from {key} on: the rest is sorted on disk.")

    def _add_hints(self) -> None:
        report = self._report
        if report.files_still_failed:
            self._warn(
                f"Files that failed in earlier runs were left alone ({report.files_still_failed}): "
                f"{'--retry-failed' if self._is_load else 'POST …/files/retry'} tries them now."
            )
        if self._files_taken:
            self._warn(
                f"Files that another ingestion's run has in hand were left to it ({self._files_taken}): it is at work, "
                "or its next run settles them."
            )
        if report.files_changed:
            self._warn(
                f"Loaded files have a new version in the source ({report.files_changed}), which was not loaded "
                "(on_file_change is ignore)."
            )
        if report.files_emptied:
            self._warn(
                f"Loaded files have a new version without any content ({report.files_emptied}), which was left alone: "
                "their rows stay as they are."
            )
