"""The desk in this process: the services of the API, on the database."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, TypeVar

from app.api.models import IngestionModel, MigrationModel, RunLogPage, RunModel, StatusModel, Triggered
from app.cli.desk import Json, Progress
from app.cli.heeding import run_heeding
from app.config import Settings
from app.domain.errors import InvalidFieldError, SchedulingOffError
from app.domain.ingestions import IngestionStatus, User
from app.domain.live import EventFilter
from app.domain.locations import SourceType
from app.domain.redaction import Redactor
from app.domain.service import IngestionQuery
from app.services.following import RowNews
from app.services.ingestion_service import IngestionService
from app.services.orchestration import Orchestration
from app.wiring.service import Service, build_orchestration, build_service

T = TypeVar("T")
Word = TypeVar("Word", bound=StrEnum)
LOG_LINES = 200


@contextmanager
def open_at_hand(
    settings: Settings, environ: Mapping[str, str], redactor: Redactor, *, verbose: bool = False
) -> Iterator[AtHandDesk]:
    """The desk on the database of these settings, until the block ends. Runs that it began go on.

    Args:
        settings: Say which database.
        environ: For the processes of runs.
        redactor: Told every secret that is read.
        verbose: Let it be seen what those processes log.

    Raises:
        AutoloaderError: The database cannot be used.
    """
    service = build_service(settings, environ, redactor, quiet_runs=not verbose)
    with asyncio.Runner() as runner:
        desk = AtHandDesk(service, build_orchestration(service, environ, _tell_nobody), runner)
        try:
            yield desk
        finally:
            run_heeding(runner, desk.close())


class AtHandDesk:
    """Keeps `Desk`'s promises. Whoever can read the database may do anything with it."""

    def __init__(self, service: Service, orchestration: Orchestration | None, runner: asyncio.Runner) -> None:
        """Work with `service` in the event loop of `runner`; without `orchestration`, scheduling is off."""
        self._service = service
        self._orchestration = orchestration
        self._runner = runner
        self._user = User()
        self._has_looked = False

    async def close(self) -> None:
        """Let go of everything."""
        await self._service.runner.close()
        if self._orchestration is not None:
            await self._orchestration.prefect.close()
        self._service.close()

    # --- the promises -----------------------------------------------------------------------------------------------

    def create(self, document: Mapping[str, Any]) -> Json:
        """Make one."""
        made = self._do(self._ingestions(scheduling=True).create_ingestion(document, self._user))
        return _json(IngestionModel.of(made.ingestion, made.warnings))

    def ingestion(self, ingestion_id: str) -> Json:
        """One."""
        return _json(IngestionModel.of(self._do(self._ingestions().get_ingestion(ingestion_id, self._user))))

    def ingestions(
        self, *, status: str | None = None, source_type: str | None = None, q: str | None = None, limit: int
    ) -> list[Json]:
        """The newest."""
        query = IngestionQuery(
            tenant=self._user.tenant,
            status=_one_of(IngestionStatus, "status", status),
            source_type=_value(_one_of(SourceType, "source_type", source_type)),
            q=q,
            limit=limit,
        )
        found = self._do(self._ingestions().list_ingestions(query, self._user))
        return [_json(IngestionModel.of(one)) for one in found[:limit]]

    def pause(self, ingestion_id: str) -> Json:
        """Let its schedule rest."""
        changed = self._do(self._ingestions(scheduling=True).pause_ingestion(ingestion_id, self._user))
        return _json(StatusModel.of(changed.ingestion, changed.warnings), exclude_none=True)

    def resume(self, ingestion_id: str) -> Json:
        """Let it go on."""
        changed = self._do(self._ingestions(scheduling=True).resume_ingestion(ingestion_id, self._user))
        return _json(StatusModel.of(changed.ingestion, changed.warnings), exclude_none=True)

    def delete(self, ingestion_id: str, *, delete_table: bool) -> None:
        """Delete it."""
        self._do(
            self._ingestions(scheduling=True).delete_ingestion(
                ingestion_id, delete_table=delete_table, expected_versions=None, current_user=self._user
            )
        )

    def run(self, ingestion_id: str, *, waits: bool = True) -> Json:
        """Begin a run."""
        ingestions = self._ingestions(scheduling=True)
        begun = self._do(ingestions.trigger_manual_run(ingestion_id, self._user, waits=waits))
        return _json(Triggered.of(begun.run), exclude_unset=True)

    def runs(self, ingestion_id: str, *, limit: int) -> list[Json]:
        """Its runs."""
        found = self._do(self._ingestions().list_runs(ingestion_id, limit=limit, after=None, current_user=self._user))
        return [_json(RunModel.of(run)) for run in found[:limit]]

    def run_of(self, ingestion_id: str, run_id: str) -> Json:
        """One run."""
        return _json(RunModel.of(self._do(self._ingestions().get_run(ingestion_id, run_id, self._user))))

    def log(self, ingestion_id: str, run_id: str, *, after: int) -> list[Json]:
        """Lines of its log."""
        found = self._do(
            self._ingestions().run_log(ingestion_id, run_id, after=after, limit=LOG_LINES, current_user=self._user)
        )
        return list(_json(RunLogPage.of(found, LOG_LINES))["items"])

    @contextmanager
    def listening(self, ingestion_id: str, run_id: str) -> Iterator[RowNews]:
        """News of a run."""
        wanted = EventFilter(self._user.tenant, ingestion_id, run_id)
        yield RowNews(self._service.store, wanted, self.pause_for)

    def migrate(self, *, dry_run: bool, on_progress: Progress) -> Json:
        """Make the deployments that are missing."""
        if self._orchestration is None:
            raise SchedulingOffError
        self._look_for_prefect()
        report = self._do(
            self._orchestration.migration.migrate(self._user, dry_run=dry_run, within_s=None, on_progress=on_progress)
        )
        return _json(MigrationModel.of(report))

    def pause_for(self, seconds: float) -> None:
        """Let time go by."""
        self._do(asyncio.sleep(seconds))

    # --- how --------------------------------------------------------------------------------------------------------

    def _do(self, call: Coroutine[Any, Any, T]) -> T:
        return run_heeding(self._runner, self._patiently(call))

    async def _patiently(self, call: Coroutine[Any, Any, T]) -> T:
        """Wait for Prefect longer than the API does: a command keeps nobody else waiting."""
        if self._orchestration is None:
            return await call
        with self._orchestration.prefect.patiently():
            return await call

    def _ingestions(self, *, scheduling: bool = False) -> IngestionService:
        if scheduling:
            self._look_for_prefect()
        return self._service.ingestions

    def _look_for_prefect(self) -> None:
        """Connect once. Where nobody is there, it is as with the API: what is to be scheduled follows later."""
        if self._orchestration is not None and not self._has_looked:
            self._has_looked = True
            self._do(self._orchestration.prefect.initialize())


def _json(model: Any, **how: bool) -> Json:  # noqa: ANN401 - any of the API's models
    """The JSON that the API would answer."""
    found: Json = model.model_dump(mode="json", by_alias=True, **how)
    return found


def _one_of(kind: type[Word], name: str, given: str | None) -> Word | None:
    if given is None:
        return None
    try:
        return kind(given)
    except ValueError:
        known = ", ".join(kind)
        raise InvalidFieldError(f"There is no {name} {given!r}.", remedy=f"Use {known}.", field=name) from None


def _value(word: StrEnum | None) -> str | None:
    return None if word is None else word.value


def _tell_nobody(_up: bool, _detail: str, _facts: Mapping[str, Any]) -> None:
    """A command has no board of health."""
