"""The verbs on ingestions: create, change, run, pause, resume, delete, and look at their runs and files.

What is wanted is committed to the database first, and the scheduler is told afterwards. No transaction is open while it
is waited for; what it did not hear, the reconciler tells it when it is back.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from app.domain.errors import (
    AutoloaderError,
    ConfirmationNeededError,
    InvalidFieldError,
    LoadIngestionError,
    NotFoundError,
    NothingToRetryError,
    RunAtWorkError,
    RunInProgressError,
    SchedulerUnavailableError,
    SecretKeyError,
    SharedTableError,
    VersionMismatchError,
)
from app.domain.events import EventLog
from app.domain.files import LedgerFile
from app.domain.ingestions import (
    Deployment,
    Ingestion,
    IngestionStatus,
    Method,
    RunRecord,
    Scheduler,
    Trigger,
    User,
)
from app.domain.live import RunLog
from app.domain.patterns import has_magic
from app.domain.runs import RunStatus, TableRecord
from app.domain.service import IngestionQuery, NewIngestion, NewRun, RetryPolicy, ServiceStore
from app.domain.webhooks import Webhook, webhooks_of
from app.services.clearing import Fenced
from app.services.execution import LOCAL_CLUSTER, absolute_path
from app.services.ingestion_documents import (
    Checked,
    changed_credentials,
    changed_document,
    check_document,
    whole_document,
)
from app.services.webhook_documents import FIELD as WEBHOOKS
from app.services.webhook_documents import doubts as webhook_doubts
from app.services.webhook_documents import refuse_kept_secrets

log = EventLog(__name__)

NOT_SCHEDULED = "Ingestion created but scheduling unavailable"
# Built in, so it need not be looked for.
LOCAL_CATALOG = "local"
LATER = "Scheduling unavailable: the schedule follows by itself when the Prefect server is back"
CLEAR_TRIES = 10
CLEAR_PAUSE_S = 0.2
# So many runs are queued and given to the scheduler at once, which takes no more; others wait for their turn.
BEGUN_AT_ONCE = 4


class Runner(Protocol):
    """Carries queued direct runs out."""

    def nudge(self) -> None:
        """Look now for what is queued."""
        ...

    async def run(self, run_id: str, wait_s: float) -> RunRecord:
        """Wait for a queued run to end, so many seconds at most; the run as it is then."""
        ...


class TableDropper(Protocol):
    """Drops tables from their catalogs, and fences those whose ledger is to begin anew."""

    def drop(self, table: str) -> bool:
        """Drop the table of that full name from its catalog; False where there is none. Its files stay.

        Raises:
            CatalogUnreachableError, CatalogAuthError, CatalogNotConfiguredError, CatalogRefusedError.
        """
        ...

    def fence(self, table: str) -> Fenced:
        """Shut out the runs that sleep with a batch for that table in hand. Raises as `clearing.fence_table`."""
        ...


class Looks(Protocol):
    """Looks whether receivers of webhooks are there."""

    async def doubts(self, webhooks: Sequence[Webhook]) -> list[str]:
        """A sentence for each whose messages would not arrive as things are now. Waits a moment at most."""
        ...


@dataclass(frozen=True)
class ServiceSettings:
    """What the service works by."""

    default_catalog: str
    # The folder that a relative local path starts from.
    home: str
    direct_wait_s: float
    retry: RetryPolicy
    # Names of the catalogs that are configured.
    catalogs: Callable[[], Collection[str]]
    # Refuses a source that may not be read; it is asked once more by whoever reads.
    check_source: Callable[[str, Mapping[str, str]], None] = lambda _path, _credentials: None


@dataclass(frozen=True)
class Changed:
    """An ingestion as it is now, and what its owner should know."""

    ingestion: Ingestion
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunOutcome:
    """A run that was begun, as it is now."""

    run: RunRecord

    @property
    def method(self) -> Method:
        """Who carries it out."""
        return self.run.method

    @property
    def flow_run_id(self) -> str | None:
        """The scheduler's run of it."""
        return self.run.flow_run_id

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.run.is_over


class IngestionService:
    """The service's ingestions, for whoever asks over HTTP or otherwise."""

    def __init__(
        self,
        store: ServiceStore,
        runner: Runner,
        dropper: TableDropper,
        settings: ServiceSettings,
        scheduler: Scheduler | None = None,
        *,
        looks: Looks | None = None,
    ) -> None:
        """Work with `store`; without a `scheduler`, scheduling is off; without `looks`, no receiver is looked for."""
        self._store = store
        self._runner = runner
        self._dropper = dropper
        self._settings = settings
        self._scheduler = scheduler
        self._looks = looks
        self._beginning = asyncio.Semaphore(BEGUN_AT_ONCE)

    # --- create, change, delete -----------------------------------------------------------------------------------

    async def create_ingestion(
        self, document: Mapping[str, Any], current_user: User, *, made_id: str | None = None
    ) -> Changed:
        """Keep a new ingestion, and have it scheduled.

        The row is committed whatever the scheduler says; a warning tells that it did not answer.

        Args:
            document: A JSON object of the document's form.
            current_user: Who asks.
            made_id: The id that it is to have. An ingestion that has it already is the one that was asked for: its
                process died before it answered.

        Raises:
            InvalidFieldError, NotSupportedError: The document cannot be understood; nothing was made.
            NameTakenError: The name is in use; nothing was made.
            TableTakenError: The table is another tenant's; nothing was made.
            SourceNotAllowedError: The source may not be read; nothing was made.
        """
        checked = self._check(document)
        made = await self._made_before(made_id, current_user)
        if made is None:
            await self._check_source(checked, checked.credentials)
        warnings = (*await self._doubts(checked), *await self._webhook_doubts(checked))
        if made is None:
            new = _new_ingestion(checked, made_id or uuid.uuid4().hex, current_user)
            made = await asyncio.to_thread(self._store.add_ingestion, new)
            log.info("ingestion_created", ingestion_id=made.id, tenant=made.tenant)
        if made.deleted_at is not None:
            # Somebody deleted it since. That it was made is still the answer.
            return Changed(made, warnings)
        return await self._scheduled(made, NOT_SCHEDULED, warnings)

    async def _made_before(self, ingestion_id: str | None, current_user: User) -> Ingestion | None:
        if ingestion_id is None:
            return None
        return await asyncio.to_thread(self._store.ingestion, ingestion_id, current_user.tenant, deleted=True)

    async def update_ingestion(
        self,
        ingestion_id: str,
        changes: Mapping[str, Any],
        expected_versions: Collection[int] | None,
        current_user: User,
    ) -> Changed:
        """Change what is named: null removes, what is absent stays; the same for credentials.

        Args:
            ingestion_id: Which one.
            changes: A JSON object of the document's form.
            expected_versions: The version that the changes were made for, or several that will do; None: any.
            current_user: Who asks.

        Raises:
            NotFoundError, InvalidFieldError, NotSupportedError: Nothing was changed.
            DestinationFixedError: The destination is another one, and the ingestion has loaded or is about to.
            RunAtWorkError: The destination is another one, and a run is queued or at work.
            TableTakenError, SourceNotAllowedError: Nothing was changed.
            VersionMismatchError: It is of none of these versions, or by now no more.
        """
        while True:
            present = await self._owned(ingestion_id, current_user)
            _refuse_other(present, expected_versions)
            try:
                changed, warnings = await self._change(present, changes)
                break
            except VersionMismatchError:
                # Somebody else's change came first; this one is made to what came of it, where that will do.
                continue
        log.info("ingestion_changed", ingestion_id=changed.id, version=changed.version)
        return await self._scheduled(changed, LATER, warnings)

    async def _change(self, present: Ingestion, changes: Mapping[str, Any]) -> tuple[Ingestion, tuple[str, ...]]:
        """Make the changes to the ingestion as it was read; what it is then, and what its owner should know.

        Raises:
            VersionMismatchError: It is not so any more; nothing was changed.
        """
        paused, changes = _wants_pause(present, changes)
        document = changed_document(whole_document(present.name, IngestionStatus.ACTIVE, present.document), changes)
        # What is checked is the document that comes of it, with all its credentials.
        secrets = await self._changed_secrets(present, changes)
        checked = self._check(_with_credentials(document, secrets or {}))
        wanted = replace(
            present,
            name=checked.name,
            status=paused or present.status,
            table=str(checked.table),
            document=checked.document,
            schedule=checked.schedule,
        )
        await self._check_source(checked, secrets)
        warnings = await self._doubts(checked)
        webhook_secrets = None
        if WEBHOOKS in changes:
            refuse_kept_secrets(webhooks_of(present.document), present.webhook_states, checked.webhooks)
            webhook_secrets = checked.webhooks.secrets
            warnings = (*warnings, *await self._webhook_doubts(checked, present))
        if secrets is None and _source_type(present) != _source_type(wanted) and present.credential_names:
            raise InvalidFieldError(
                "source.credentials are those of another type of source.",
                remedy="Send the credentials of the new source, or null.",
                field="source.credentials",
            )
        changed = await asyncio.to_thread(
            self._store.change_ingestion, wanted, secrets, present.version, webhook_secrets=webhook_secrets
        )
        return changed, warnings

    async def delete_ingestion(
        self,
        ingestion_id: str,
        *,
        delete_table: bool,
        expected_versions: Collection[int] | None,
        current_user: User,
    ) -> None:
        """Delete it: its credentials at once, then its deployment, then the row.

        While the scheduler is away the row stays as a tombstone, which nobody sees and which never runs.

        Args:
            ingestion_id: Which one.
            delete_table: Drop its table from the catalog too; the table's files stay in the storage.
            expected_versions: The version that is to be deleted, or several that will do; None: any.
            current_user: Who asks.

        Raises:
            NotFoundError, VersionMismatchError: Nothing was deleted.
            RunAtWorkError: A run of it is queued or at work.
            SharedTableError: Its table is to be dropped, and another ingestion writes it too.
            CatalogUnreachableError, CatalogAuthError, CatalogRefusedError: The table could not be dropped; the
                ingestion was deleted.
        """
        present = await self._owned(ingestion_id, current_user)
        await asyncio.to_thread(self._store.settle_dead_runs, self._settings.retry, ingestion_id)
        if delete_table:
            await self._refuse_shared(present)
        buried = await asyncio.to_thread(self._store.bury_ingestion, ingestion_id, expected_versions)
        log.info("ingestion_deleted", ingestion_id=ingestion_id, delete_table=delete_table)
        try:
            if delete_table:
                await asyncio.to_thread(self._drop, present.table)
        finally:
            # Whatever the catalog says, the ingestion is gone.
            await self._remove(buried)

    async def _remove(self, buried: Ingestion) -> None:
        """Forget a tombstone, after its deployment."""
        if buried.deployment is not None:
            if self._scheduler is None:
                return
            try:
                await self._scheduler.delete_deployment(buried.deployment.id)
            except SchedulerUnavailableError as error:
                log.warning("deployment_not_deleted", ingestion_id=buried.id, reason=str(error))
                return
        await asyncio.to_thread(self._store.remove_ingestion, buried.id)

    def _drop(self, table: str) -> None:
        self._dropper.drop(table)
        record = self._store.table(table)
        if record is not None:
            # What was loaded into it is loaded again by whoever makes it anew.
            self._clear(record)

    def _clear(self, record: TableRecord) -> tuple[int, int]:
        """Begin a new generation; a run that is over by its row may be about to give its lease back."""
        for _ in range(CLEAR_TRIES):
            try:
                return self._clear_fenced(record)
            except RunInProgressError:
                time.sleep(CLEAR_PAUSE_S)
        return self._clear_fenced(record)

    def _clear_fenced(self, record: TableRecord) -> tuple[int, int]:
        fenced = self._dropper.fence(record.name)
        for batch in fenced.committed:
            log.warning("cleared_batch_in_table", table=record.name, batch_id=batch.batch_id)
        return self._store.clear(record, fenced=fenced.epochs)

    # --- pause, resume --------------------------------------------------------------------------------------------

    async def pause_ingestion(
        self, ingestion_id: str, current_user: User, *, expected_versions: Collection[int] | None = None
    ) -> Changed:
        """Let it run no more until it is resumed. A run at work goes on. Again: no change.

        Raises:
            NotFoundError: There is no such ingestion.
            VersionMismatchError: It is of none of the expected versions; nothing was changed.
        """
        return await self._become(ingestion_id, IngestionStatus.PAUSED, current_user, expected_versions)

    async def resume_ingestion(
        self, ingestion_id: str, current_user: User, *, expected_versions: Collection[int] | None = None
    ) -> Changed:
        """Let it run again; a draft becomes active. Again: no change.

        Raises:
            NotFoundError: There is no such ingestion.
            VersionMismatchError: It is of none of the expected versions; nothing was changed.
        """
        return await self._become(ingestion_id, IngestionStatus.ACTIVE, current_user, expected_versions)

    async def _become(
        self,
        ingestion_id: str,
        status: IngestionStatus,
        current_user: User,
        expected_versions: Collection[int] | None,
    ) -> Changed:
        while True:
            present = await self._owned(ingestion_id, current_user)
            _refuse_other(present, expected_versions)
            if present.status is status:
                return await self._scheduled(present, LATER, ())
            wanted = replace(present, status=status)
            try:
                changed = await asyncio.to_thread(self._store.change_ingestion, wanted, None, present.version)
                break
            except VersionMismatchError:
                # Somebody else's change came first; this one is made to what came of it, where that will do.
                continue
        log.info("ingestion_status_changed", ingestion_id=ingestion_id, status=status.value)
        return await self._scheduled(changed, LATER, (), before=present)

    # --- look -----------------------------------------------------------------------------------------------------

    async def get_ingestion(self, ingestion_id: str, current_user: User) -> Ingestion:
        """The ingestion.

        Raises:
            NotFoundError: The user's tenant has none of that id.
        """
        found = await asyncio.to_thread(self._store.ingestion, ingestion_id, current_user.tenant)
        if found is None:
            raise NotFoundError(f"There is no ingestion {ingestion_id}.")
        return found

    async def list_ingestions(self, query: IngestionQuery, current_user: User) -> list[Ingestion]:
        """A page of the user's tenant; one row more than `query.limit` where there are more."""
        return await asyncio.to_thread(self._store.list_ingestions, replace(query, tenant=current_user.tenant))

    async def get_run(self, ingestion_id: str, run_id: str, current_user: User) -> RunRecord:
        """The run of that ingestion.

        Raises:
            NotFoundError: The ingestion has none of that id.
        """
        await self.get_ingestion(ingestion_id, current_user)
        found = await asyncio.to_thread(self._store.run, run_id)
        if found is None or found.ingestion_id != ingestion_id:
            raise NotFoundError(f"The ingestion has no run {run_id}.")
        return found

    async def list_runs(
        self, ingestion_id: str, *, limit: int, after: tuple[datetime, str] | None, current_user: User
    ) -> list[RunRecord]:
        """A page of its runs, newest first; one more than `limit` where there are more."""
        await self.get_ingestion(ingestion_id, current_user)
        return await asyncio.to_thread(self._store.list_runs, ingestion_id, limit=limit, after=after)

    async def run_log(self, ingestion_id: str, run_id: str, *, after: int, limit: int, current_user: User) -> RunLog:
        """Lines of a run's log with higher numbers; one more than `limit` where there are more.

        Raises:
            NotFoundError: There is no such run.
        """
        await self.get_run(ingestion_id, run_id, current_user)
        return await asyncio.to_thread(self._store.run_log, run_id, after=after, limit=limit)

    async def list_files(
        self, ingestion_id: str, *, failed: bool, limit: int, after: str | None, current_user: User
    ) -> list[LedgerFile]:
        """A page of the ledger of its table, in key order, after that key; the versions of a key are never parted."""
        record = await self._record(await self.get_ingestion(ingestion_id, current_user))
        if record is None:
            return []
        return await asyncio.to_thread(self._store.list_files, record, failed=failed, limit=limit, after=after)

    # --- run ------------------------------------------------------------------------------------------------------

    async def trigger_manual_run(
        self, ingestion_id: str, current_user: User, *, waits: bool = True, made_id: str | None = None
    ) -> RunOutcome:
        """Begin a run: by the scheduler where the ingestion has a deployment, else directly.

        A direct run is waited for, as long as the settings say; not at all without `waits`. The run has the id
        `made_id`, where one is given. One that has it already is the one that was asked for, and is not begun again:
        its process died before it answered.

        Raises:
            NotFoundError: There is no such ingestion.
            NotActiveError: It is a draft or paused.
            RunAtWorkError: A run of it is queued or at work.
        """
        present = await self._owned(ingestion_id, current_user)
        wait_s = self._settings.direct_wait_s if waits else 0.0
        begun = await self._begun_before(present, made_id, wait_s)
        return begun or await self._begin(present, self._new_run(present, Trigger.MANUAL, made_id), wait_s)

    async def retry_run(
        self, ingestion_id: str, run_id: str, current_user: User, *, made_id: str | None = None
    ) -> RunOutcome:
        """Begin a run of the files that failed in that run; of everything new, where it failed as a whole.

        `made_id` as for any run.

        Raises:
            NotFoundError: There is no such run.
            NothingToRetryError: Nothing of it failed, or what failed was loaded since.
            NotActiveError, RunAtWorkError: As for any run.
        """
        run = await self.get_run(ingestion_id, run_id, current_user)
        present = await self._owned(ingestion_id, current_user)
        begun = await self._begun_before(present, made_id, 0.0)
        if begun is not None:
            return begun
        keys = await asyncio.to_thread(self._store.failed_keys, ingestion_id, run_id=run_id)
        stopped = any(error.get("file") is None for error in run.errors)
        if not run.is_over or not (keys or stopped):
            raise NothingToRetryError(f"Nothing of run {run_id} failed that is not loaded by now.")
        only = run.only_keys if stopped else tuple(keys)
        new = self._new_run(present, Trigger.RETRY, made_id, retry_of=run_id, only_keys=only)
        return await self._begin(present, new, 0.0)

    async def retry_files(
        self, ingestion_id: str, paths: Sequence[str] | None, current_user: User, *, made_id: str | None = None
    ) -> RunOutcome:
        """Begin a run of failed files: of those `paths`, or of all. `made_id` as for any run.

        Raises:
            InvalidFieldError: One of the paths is no failed file of its table.
            NothingToRetryError: No file is failed.
            NotFoundError, NotActiveError, RunAtWorkError: As for any run.
        """
        present = await self._owned(ingestion_id, current_user)
        begun = await self._begun_before(present, made_id, 0.0)
        if begun is not None:
            return begun
        failed = await asyncio.to_thread(self._store.failed_keys, ingestion_id)
        unknown = sorted(set(paths or ()) - set(failed))
        if unknown:
            raise InvalidFieldError(f"{unknown[0]!r} is no file that failed.", field="paths")
        chosen = tuple(failed if paths is None else sorted(set(paths)))
        if not chosen:
            raise NothingToRetryError
        return await self._begin(present, self._new_run(present, Trigger.RETRY, made_id, only_keys=chosen), 0.0)

    async def cancel_run(self, ingestion_id: str, run_id: str, current_user: User) -> RunRecord:
        """Ask for a run's end: what was committed stays, the rest is as if never begun.

        Raises:
            NotFoundError: There is no such run.
            RunOverError: It is over.
            LoadIngestionError: It is the command line's: its own process is told to end.
        """
        await self.get_run(ingestion_id, run_id, current_user)
        await self._owned(ingestion_id, current_user)
        log.info("run_cancel_requested", run_id=run_id, user=current_user.name)
        return await asyncio.to_thread(self._store.request_cancel, run_id)

    async def clear_processed_files(self, ingestion_id: str, *, confirm: bool, current_user: User) -> int:
        """Begin a new generation of its table's ledger: the next run loads every file again.

        Returns:
            How many loaded files were forgotten.

        Raises:
            ConfirmationNeededError: `confirm` is not true.
            RunAtWorkError: A run is queued or at work.
            SharedTableError: Another ingestion writes the table too.
            AutoloaderError: A run may sleep, and the table's catalog does not answer; nothing was forgotten.
        """
        present = await self.get_ingestion(ingestion_id, current_user)
        if not confirm:
            raise ConfirmationNeededError(
                "This makes the next run load every file again, beside the rows that are in the table."
            )
        await asyncio.to_thread(self._store.settle_dead_runs, self._settings.retry, ingestion_id)
        at_work = await asyncio.to_thread(self._store.run_at_work, ingestion_id)
        if at_work is not None:
            raise RunAtWorkError(f"Run {at_work.id} of this ingestion is queued or at work.", run_id=at_work.id)
        await self._refuse_shared(present)
        record = await self._record(present)
        if record is None:
            return 0
        cleared, generation = await asyncio.to_thread(self._clear, record)
        log.info("ledger_cleared", ingestion_id=ingestion_id, files=cleared, generation=generation)
        return cleared

    def _new_run(
        self,
        ingestion: Ingestion,
        trigger: Trigger,
        run_id: str | None,
        *,
        retry_of: str | None = None,
        only_keys: tuple[str, ...] | None = None,
    ) -> NewRun:
        can_schedule = ingestion.deployment is not None and self._scheduler is not None
        method = Method.PREFECT if can_schedule else Method.DIRECT
        return NewRun(run_id or uuid.uuid4().hex, ingestion.id, trigger, method, retry_of, only_keys)

    async def _begin(self, ingestion: Ingestion, new: NewRun, wait_s: float) -> RunOutcome:
        """Queue a run and ask the scheduler for it, or carry it out directly where it does not answer."""
        # When many are asked for at once, those who ask for something else are answered between them.
        async with self._beginning if new.method is Method.PREFECT else nullcontext():
            run = await asyncio.to_thread(self._queue, new)
            run = await self._triggered(ingestion, run)
        return await self._outcome(run, wait_s)

    async def _begun_before(self, ingestion: Ingestion, run_id: str | None, wait_s: float) -> RunOutcome | None:
        """How the run of that id stands, given to the scheduler where it was not yet; None where there is none."""
        run = None if run_id is None else await asyncio.to_thread(self._store.run, run_id)
        if run is None or run.ingestion_id != ingestion.id:
            return None
        return await self._outcome(await self._triggered(ingestion, run), wait_s)

    async def _outcome(self, run: RunRecord, wait_s: float) -> RunOutcome:
        """The run as it is told: one that the scheduler has is not waited for."""
        return RunOutcome(run if run.flow_run_id is not None else await self._runner.run(run.id, wait_s))

    def _queue(self, new: NewRun) -> RunRecord:
        try:
            return self._store.queue_run(new)
        except RunAtWorkError:
            # Its process may be dead; a run that was settled so goes on by itself, and is told again.
            self._store.settle_dead_runs(self._settings.retry, new.ingestion_id)
        return self._store.queue_run(new)

    async def _triggered(self, ingestion: Ingestion, run: RunRecord) -> RunRecord:
        """A queued run as it is when the scheduler was asked for it; where it does not answer, it has no flow run."""
        if run.method is not Method.PREFECT or self._scheduler is None or ingestion.deployment is None:
            return run
        if run.flow_run_id is not None or run.status is not RunStatus.QUEUED:
            return run
        parameters = {"ingestion_id": ingestion.id, "trigger": run.trigger.value, "run_id": run.id}
        try:
            flow_run_id = await self._scheduler.trigger_deployment(ingestion.deployment.id, parameters)
        except SchedulerUnavailableError as error:
            # Should it have heard us all the same, its flow run finds the run over, or at work.
            log.warning("run_not_triggered", run_id=run.id, reason=str(error))
            await asyncio.to_thread(self._store.reroute_run, run.id, Method.DIRECT)
            return run
        await asyncio.to_thread(self._store.set_flow_run, run.id, flow_run_id)
        return replace(run, flow_run_id=flow_run_id)

    # --- what the verbs have in common ----------------------------------------------------------------------------

    async def _owned(self, ingestion_id: str, current_user: User) -> Ingestion:
        """An ingestion of the service's own, which can be changed and run.

        Raises:
            NotFoundError: The tenant has none of that id.
            LoadIngestionError: It is the command line's.
        """
        found = await self.get_ingestion(ingestion_id, current_user)
        if found.is_load:
            raise LoadIngestionError
        return found

    async def _record(self, ingestion: Ingestion) -> TableRecord | None:
        return await asyncio.to_thread(self._store.table, ingestion.table)

    async def _refuse_shared(self, ingestion: Ingestion) -> None:
        others = await asyncio.to_thread(self._store.other_ingestions, ingestion.id)
        writers = [other for other in others if not other.is_load or other.has_loaded]
        if writers:
            raise SharedTableError(f"The ingestion {writers[0].name!r} writes the table {ingestion.table} too.")

    def _check(self, document: Mapping[str, Any]) -> Checked:
        return check_document(document, default_catalog=self._settings.default_catalog, home=self._settings.home)

    async def _check_source(self, checked: Checked, credentials: Mapping[str, str] | None) -> None:
        """Refuse what may not be read; credentials that stay as they are were looked at before."""
        source = checked.document["source"]
        if credentials is not None or source["type"] == "local":
            path = absolute_path(str(source["path"]), self._settings.home)
            await asyncio.to_thread(self._settings.check_source, path, credentials or {})

    async def _changed_secrets(self, present: Ingestion, changes: Mapping[str, Any]) -> dict[str, str] | None:
        source = changes.get("source", {})
        if isinstance(source, Mapping) and "credentials" not in source:
            return None
        try:
            known = await asyncio.to_thread(self._store.credentials, present.id)
        except SecretKeyError as error:
            # Nobody can read them any more: what is sent now takes their place.
            log.warning("credentials_lost", ingestion_id=present.id, reason=str(error))
            known = {}
        return changed_credentials(known, changes)

    async def _doubts(self, checked: Checked) -> tuple[str, ...]:
        """What can be kept and will not run."""
        doubts = await self._source_doubts(checked)
        cluster = checked.document.get("cluster_id", LOCAL_CLUSTER)
        if cluster != LOCAL_CLUSTER:
            doubts.append(f"The cluster {cluster!r} is not registered: runs fail until cluster_id is set to local.")
        catalog = checked.table.catalog
        if catalog == LOCAL_CATALOG:
            return tuple(doubts)
        try:
            known = await asyncio.to_thread(self._settings.catalogs)
        except AutoloaderError as error:
            return (*doubts, error.message)
        if catalog not in known:
            doubts.append(
                f"The catalog {catalog!r} is not configured: runs fail until it is, in .pyiceberg.yaml "
                f"or by PYICEBERG_CATALOG__{catalog.upper()}__URI."
            )
        return tuple(doubts)

    async def _source_doubts(self, checked: Checked) -> list[str]:
        """A folder that is not there is more often a slip than one that somebody is still to make."""
        source = checked.document["source"]
        if source["type"] != "local":
            return []
        path = absolute_path(str(source["path"]), self._settings.home).removeprefix("file://")
        if has_magic(path) or await asyncio.to_thread(os.path.exists, path):
            return []
        return [f"There is no {path} on this machine: runs fail until it is where they are carried out."]

    async def _webhook_doubts(self, checked: Checked, present: Ingestion | None = None) -> list[str]:
        """Which receivers will not be told, or cannot tell who calls."""
        found = webhook_doubts(checked.webhooks, () if present is None else present.webhook_states)
        if self._looks is not None and checked.webhooks.webhooks:
            found += await self._looks.doubts(checked.webhooks.webhooks)
        return found

    async def _scheduled(
        self, ingestion: Ingestion, unavailable: str, warnings: tuple[str, ...], *, before: Ingestion | None = None
    ) -> Changed:
        """Make the scheduler equal to what is wanted of the ingestion, as far as it answers.

        Args:
            ingestion: What is wanted.
            unavailable: The warning where it does not answer.
            warnings: Others, to go before it.
            before: It as it was, where nothing but its status has changed.
        """
        if not _is_scheduled(ingestion) and ingestion.deployment is None:
            return Changed(ingestion, warnings)
        scheduler = self._scheduler
        if scheduler is None:
            log.warning("scheduling_unavailable", ingestion_id=ingestion.id, reason="off", told=unavailable)
            return Changed(ingestion, (*warnings, unavailable))
        try:
            deployment = await _deployed(scheduler, ingestion, before)
        except SchedulerUnavailableError as error:
            log.warning("scheduling_unavailable", ingestion_id=ingestion.id, reason=str(error), told=unavailable)
            return Changed(ingestion, (*warnings, unavailable))
        if deployment != ingestion.deployment:
            is_there = await asyncio.to_thread(self._store.set_deployment, ingestion.id, deployment)
            if not is_there and deployment is not None:
                await self._withdraw(scheduler, deployment)
            ingestion = replace(ingestion, deployment=deployment)
        return Changed(ingestion, warnings)

    @staticmethod
    async def _withdraw(scheduler: Scheduler, deployment: Deployment) -> None:
        """Take back what was made for an ingestion that was deleted meanwhile."""
        try:
            await scheduler.delete_deployment(deployment.id)
        except SchedulerUnavailableError as error:
            # The reconciler finds it: no ingestion knows it.
            log.warning("deployment_left", deployment_id=deployment.id, reason=str(error))


def _new_ingestion(checked: Checked, ingestion_id: str, current_user: User) -> NewIngestion:
    return NewIngestion(
        id=ingestion_id,
        tenant=current_user.tenant,
        name=checked.name,
        status=checked.status,
        table=str(checked.table),
        document=checked.document,
        credentials=checked.credentials,
        webhook_secrets=checked.webhooks.secrets,
    )


def _is_scheduled(ingestion: Ingestion) -> bool:
    """Whether the scheduler is to know it; a paused one is known, and paused there."""
    return ingestion.schedule is not None and ingestion.status is not IngestionStatus.DRAFT


async def _deployed(scheduler: Scheduler, ingestion: Ingestion, before: Ingestion | None) -> Deployment | None:
    """Give the scheduler what it lacks; what it has now. Nothing is sent where nothing has changed."""
    present = ingestion.deployment
    if not _is_scheduled(ingestion):
        if present is not None:
            await scheduler.delete_deployment(present.id)
        return None
    fingerprint = scheduler.fingerprint(ingestion)
    if present is not None and present.fingerprint == fingerprint:
        return present
    was_equal = before is not None and present is not None and present.fingerprint == scheduler.fingerprint(before)
    if present is not None and was_equal:
        is_paused = ingestion.status is IngestionStatus.PAUSED
        await (scheduler.pause_deployment if is_paused else scheduler.resume_deployment)(present.id)
        return Deployment(present.id, fingerprint)
    return Deployment(await scheduler.create_deployment(ingestion), fingerprint)


def _wants_pause(present: Ingestion, changes: Mapping[str, Any]) -> tuple[IngestionStatus | None, dict[str, Any]]:
    """The status among the changes, and the others. A draft becomes active; nothing becomes a draft again."""
    others = dict(changes)
    if "status" not in others:
        return None, others
    given = others.pop("status")
    allowed = {IngestionStatus.ACTIVE.value, IngestionStatus.PAUSED.value, present.status.value}
    if not isinstance(given, str) or given not in allowed:
        raise InvalidFieldError(
            f"status = {str(given)[:40]!r} is not possible here.", remedy="Use active or paused.", field="status"
        )
    return IngestionStatus(given), others


def _with_credentials(document: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, Any]:
    source = document.get("source")
    if not isinstance(source, Mapping):
        return dict(document)
    return {**document, "source": {**source, "credentials": dict(secrets)}}


def _refuse_other(present: Ingestion, expected_versions: Collection[int] | None) -> None:
    if expected_versions is not None and present.version not in expected_versions:
        raise VersionMismatchError


def _source_type(ingestion: Ingestion) -> str:
    return str(ingestion.document["source"].get("type"))
