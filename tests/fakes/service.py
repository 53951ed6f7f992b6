"""The services behind the API, in memory: they keep their promises, so that the edge is tested without a database."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from app.domain.errors import (
    ConfirmationNeededError,
    DestinationFixedError,
    InvalidFieldError,
    KeyAtWorkError,
    KeyReusedError,
    NameTakenError,
    NotActiveError,
    NotFoundError,
    NothingToRetryError,
    RunAtWorkError,
    RunOverError,
    VersionMismatchError,
    WebhookOffError,
)
from app.domain.files import FileState, LedgerFile
from app.domain.fixing import changed_fixed_fields
from app.domain.ingestions import Ingestion, IngestionStatus, Method, RunRecord, Trigger, User
from app.domain.live import RunLog
from app.domain.runs import RunStatus
from app.domain.service import AnswerBegun, IngestionQuery, KeptAnswer, Sort
from app.domain.webhooks import Delivery, DeliveryState, WebhookState
from app.services.ingestion_documents import Checked, changed_document, check_document, whole_document
from app.services.webhook_retries import Answer
from app.services.webhook_service import TestCall
from tests.fakes.live import MemoryLive

FLOW_RUN_ID = "3f6c1c0e-8a58-4f0e-9d5b-0f6f3a9a2b7d"
START = datetime(2026, 11, 25, 10, tzinfo=UTC)


@dataclass(frozen=True)
class FakeChanged:
    ingestion: Ingestion
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class FakeOutcome:
    run: RunRecord


class FakeIngestions:
    """Keeps `IngestionCalls`' promises. A run of it is over at once, as `ends` says."""

    def __init__(self, live: MemoryLive | None = None) -> None:
        self.live = live or MemoryLive()
        self.forget()

    def forget(self) -> None:
        """Begin with nothing."""
        self.live.forget()
        self.kept: dict[str, Ingestion] = {}
        self.runs: dict[str, RunRecord] = {}
        self.files: dict[str, list[LedgerFile]] = {}
        self.ends = RunStatus.SUCCESS
        self.method = Method.DIRECT
        self.calls = 0
        self._numbers = itertools.count(1)

    async def create_ingestion(
        self, document: Mapping[str, Any], current_user: User, *, made_id: str | None = None
    ) -> FakeChanged:
        self.calls += 1
        checked = check_document(document, default_catalog="local", home="/")
        if made_id in self.kept:
            return FakeChanged(self.kept[made_id])
        self._check_name(checked.name, None)
        number = next(self._numbers)
        at = START + timedelta(seconds=number)
        ingestion = Ingestion(
            id=made_id or f"{number:032x}",
            tenant=current_user.tenant,
            name=checked.name,
            status=checked.status,
            table=str(checked.table),
            document=checked.document,
            schedule=checked.schedule,
            credential_names=tuple(sorted(checked.credentials)),
            webhook_states=_states(checked),
            version=1,
            created_at=at,
            updated_at=at,
        )
        self.kept[ingestion.id] = ingestion
        unscheduled = ("Ingestion created but scheduling unavailable",)
        return FakeChanged(ingestion, unscheduled if ingestion.schedule else ())

    async def update_ingestion(
        self,
        ingestion_id: str,
        changes: Mapping[str, Any],
        expected_versions: Collection[int] | None,
        current_user: User,
    ) -> FakeChanged:
        present = self._checked(ingestion_id, expected_versions)
        wanted = dict(changes)
        status = IngestionStatus.PAUSED if wanted.get("status") == "paused" else None
        if status is not None:
            del wanted["status"]
        whole = whole_document(present.name, IngestionStatus.ACTIVE, present.document)
        checked = check_document(changed_document(whole, wanted), default_catalog="local", home="/")
        self._check_name(checked.name, ingestion_id)
        fixed = changed_fixed_fields(
            present.table, present.document, wanted_table=str(checked.table), wanted=checked.document
        )
        if fixed and present.has_loaded:
            raise DestinationFixedError(f"The ingestion has loaded, which fixes {', '.join(fixed)}.")
        changed = replace(
            present,
            name=checked.name,
            status=status or (checked.status if "status" in wanted else present.status),
            table=str(checked.table),
            document=checked.document,
            schedule=checked.schedule,
            webhook_states=_states(checked) if "webhooks" in wanted else present.webhook_states,
            version=present.version + 1,
            updated_at=present.updated_at + timedelta(seconds=1),
        )
        self.kept[ingestion_id] = changed
        return FakeChanged(changed)

    async def delete_ingestion(
        self,
        ingestion_id: str,
        *,
        delete_table: bool,
        expected_versions: Collection[int] | None,
        current_user: User,
    ) -> None:
        self._checked(ingestion_id, expected_versions)
        self._check_idle(ingestion_id)
        del self.kept[ingestion_id]

    async def pause_ingestion(
        self, ingestion_id: str, current_user: User, *, expected_versions: Collection[int] | None = None
    ) -> FakeChanged:
        self._checked(ingestion_id, expected_versions)
        return FakeChanged(self._set_status(ingestion_id, IngestionStatus.PAUSED))

    async def resume_ingestion(
        self, ingestion_id: str, current_user: User, *, expected_versions: Collection[int] | None = None
    ) -> FakeChanged:
        self._checked(ingestion_id, expected_versions)
        return FakeChanged(self._set_status(ingestion_id, IngestionStatus.ACTIVE))

    async def get_ingestion(self, ingestion_id: str, current_user: User) -> Ingestion:
        return self._checked(ingestion_id, None)

    async def list_ingestions(self, query: IngestionQuery, current_user: User) -> list[Ingestion]:
        def key(one: Ingestion) -> tuple[str, str]:
            at = one.created_at if query.sort is Sort.CREATED_AT else one.updated_at
            return (one.name if query.sort is Sort.NAME else at.isoformat(), one.id)

        found = sorted(
            (
                one
                for one in self.kept.values()
                if query.status in (None, one.status)
                and query.source_type in (None, one.document["source"].get("type"))
                and (query.q or "").lower() in one.name.lower()
            ),
            key=key,
            reverse=query.descending,
        )
        after = query.after
        if after is not None:
            found = [one for one in found if (key(one) < after if query.descending else key(one) > after)]
        return found[: query.limit + 1]

    async def trigger_manual_run(
        self, ingestion_id: str, current_user: User, *, waits: bool = True, made_id: str | None = None
    ) -> FakeOutcome:
        run = self.runs.get(made_id or "") or self._begin(ingestion_id, Trigger.MANUAL, made_id)
        return FakeOutcome(run if waits else replace(run, status=RunStatus.RUNNING, ended_at=None))

    async def list_runs(
        self, ingestion_id: str, *, limit: int, after: tuple[datetime, str] | None, current_user: User
    ) -> list[RunRecord]:
        self._checked(ingestion_id, None)
        found = sorted(
            (run for run in self.runs.values() if run.ingestion_id == ingestion_id),
            key=lambda run: (run.created_at, run.id),
            reverse=True,
        )
        return [run for run in found if after is None or (run.created_at, run.id) < after][: limit + 1]

    async def get_run(self, ingestion_id: str, run_id: str, current_user: User) -> RunRecord:
        self._checked(ingestion_id, None)
        run = self.runs.get(run_id)
        if run is None or run.ingestion_id != ingestion_id:
            raise NotFoundError
        return run

    async def run_log(self, ingestion_id: str, run_id: str, *, after: int, limit: int, current_user: User) -> RunLog:
        await self.get_run(ingestion_id, run_id, current_user)
        return self.live.run_log(run_id, after=after, limit=limit)

    async def retry_run(
        self, ingestion_id: str, run_id: str, current_user: User, *, made_id: str | None = None
    ) -> FakeOutcome:
        run = await self.get_run(ingestion_id, run_id, current_user)
        if made_id in self.runs:
            return FakeOutcome(self.runs[made_id])
        if not run.files_failed:
            raise NothingToRetryError
        return FakeOutcome(self._begin(ingestion_id, Trigger.RETRY, made_id, run_id))

    async def cancel_run(self, ingestion_id: str, run_id: str, current_user: User) -> RunRecord:
        run = await self.get_run(ingestion_id, run_id, current_user)
        if run.is_over:
            raise RunOverError
        self.runs[run_id] = replace(run, status=RunStatus.CANCELLED, ended_at=run.created_at)
        return self.runs[run_id]

    async def list_files(
        self, ingestion_id: str, *, failed: bool, limit: int, after: str | None, current_user: User
    ) -> list[LedgerFile]:
        self._checked(ingestion_id, None)
        found = sorted(self.files.get(ingestion_id, []), key=lambda file: file.key.encode())
        wanted = [file for file in found if file.state is FileState.FAILED or not failed]
        rest = [file for file in wanted if after is None or file.key > after]
        return [*rest[:limit], *(file for file in rest[limit:] if file.key == rest[limit - 1].key)]

    async def retry_files(
        self, ingestion_id: str, paths: Sequence[str] | None, current_user: User, *, made_id: str | None = None
    ) -> FakeOutcome:
        if made_id in self.runs:
            return FakeOutcome(self.runs[made_id])
        failed = await self.list_files(ingestion_id, failed=True, limit=10_000, after=None, current_user=current_user)
        if not [file for file in failed if paths is None or file.key in paths]:
            raise NothingToRetryError
        return FakeOutcome(self._begin(ingestion_id, Trigger.RETRY, made_id))

    async def clear_processed_files(self, ingestion_id: str, *, confirm: bool, current_user: User) -> int:
        self._checked(ingestion_id, None)
        if not confirm:
            raise ConfirmationNeededError
        self._check_idle(ingestion_id)
        return len(self.files.pop(ingestion_id, []))

    def _begin(
        self, ingestion_id: str, trigger: Trigger, made_id: str | None, retry_of: str | None = None
    ) -> RunRecord:
        ingestion = self._checked(ingestion_id, None)
        if ingestion.status is not IngestionStatus.ACTIVE:
            raise NotActiveError
        self._check_idle(ingestion_id)
        number = next(self._numbers)
        at = START + timedelta(seconds=number)
        run = RunRecord(
            id=made_id or f"{number:032x}",
            ingestion_id=ingestion_id,
            table=ingestion.table,
            trigger=trigger,
            method=self.method,
            status=self.ends,
            created_at=at,
            retry_of=retry_of,
            flow_run_id=FLOW_RUN_ID if self.method is Method.PREFECT else None,
        )
        if run.is_over:
            run = replace(run, started_at=at, ended_at=at + timedelta(seconds=1), attempts=1)
        if run.status in (RunStatus.PARTIAL, RunStatus.FAILED):
            error = {"file": "s3://b/a", "category": "auth", "line": None, "message": "No.", "retryable": False}
            run = replace(run, files_failed=1, errors=(error,))
        self.runs[run.id] = run
        return run

    def _set_status(self, ingestion_id: str, status: IngestionStatus) -> Ingestion:
        present = self._checked(ingestion_id, None)
        if present.status is not status:
            self.kept[ingestion_id] = replace(present, status=status, version=present.version + 1)
        return self.kept[ingestion_id]

    def _checked(self, ingestion_id: str, expected_versions: Collection[int] | None) -> Ingestion:
        found = self.kept.get(ingestion_id)
        if found is None:
            raise NotFoundError
        if expected_versions is not None and found.version not in expected_versions:
            raise VersionMismatchError
        return found

    def _check_name(self, name: str, ingestion_id: str | None) -> None:
        if any(one.name == name and one.id != ingestion_id for one in self.kept.values()):
            raise NameTakenError

    def _check_idle(self, ingestion_id: str) -> None:
        for run in self.runs.values():
            if run.ingestion_id == ingestion_id and not run.is_over:
                raise RunAtWorkError(run_id=run.id)


def _states(checked: Checked) -> tuple[WebhookState, ...]:
    secrets = checked.webhooks.secrets
    return tuple(WebhookState(one.key, signed=secrets.get(one.key) is not None) for one in checked.webhooks.webhooks)


class FakeWebhooks:
    """Keeps `WebhookCalls`' promises for the ingestions of `FakeIngestions`; receivers answer 204."""

    def __init__(self, ingestions: FakeIngestions) -> None:
        self._ingestions = ingestions
        self.forget()

    def forget(self) -> None:
        """Begin with nothing."""
        self.kept: list[Delivery] = []

    async def list_deliveries(
        self,
        ingestion_id: str,
        *,
        state: DeliveryState | None,
        limit: int,
        before: int | None,
        current_user: User,
    ) -> list[Delivery]:
        await self._ingestions.get_ingestion(ingestion_id, current_user)
        found = [one for one in reversed(self.kept) if one.ingestion_id == ingestion_id and state in (None, one.state)]
        return [one for one in found if before is None or one.position < before][: limit + 1]

    async def redeliver(self, ingestion_id: str, delivery_id: str, current_user: User) -> Delivery:
        ingestion = await self._ingestions.get_ingestion(ingestion_id, current_user)
        for number, one in enumerate(self.kept):
            if (one.id, one.ingestion_id) == (delivery_id, ingestion_id):
                if one.webhook not in {state.key for state in ingestion.webhook_states}:
                    raise WebhookOffError
                self.kept[number] = replace(one, state=DeliveryState.PENDING, attempts=0, next_attempt_at=START)
                return self.kept[number]
        raise NotFoundError

    async def test(self, ingestion_id: str, webhook: str | None, current_user: User) -> TestCall:
        ingestion = await self._ingestions.get_ingestion(ingestion_id, current_user)
        found = [state for state in ingestion.webhook_states if webhook in (None, state.key)]
        if len(found) != 1:
            raise InvalidFieldError("There is no such webhook.", field="webhook")
        return TestCall(found[0].key, "d" * 32, found[0].signed, Answer(204))


class FakeAnswers:
    """Keeps `KeptAnswers`' promises."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Begin with nothing."""
        self._kept: dict[tuple[str, str], tuple[str, AnswerBegun, KeptAnswer | None]] = {}
        self._abandoned: set[tuple[str, str]] = set()

    def abandon(self) -> None:
        """Have every request end with its process, as if long ago, before its answer was kept."""
        with self._lock:
            self._kept = {key: (digest, begun, None) for key, (digest, begun, _) in self._kept.items()}
            self._abandoned = set(self._kept)

    def begin_answer(self, tenant: str, key: str, request_hash: str) -> KeptAnswer | AnswerBegun:
        with self._lock:
            if (tenant, key) not in self._kept:
                begun = AnswerBegun(uuid.uuid4().hex)
                self._kept[tenant, key] = (request_hash, begun, None)
                return begun
            digest, begun, answer = self._kept[tenant, key]
            if digest != request_hash:
                raise KeyReusedError
            if answer is not None:
                return answer
            if (tenant, key) not in self._abandoned:
                raise KeyAtWorkError
            self._abandoned.remove((tenant, key))
            return begun

    def keep_answer(self, tenant: str, key: str, answer: KeptAnswer) -> None:
        with self._lock:
            self._kept[tenant, key] = (*self._kept[tenant, key][:2], answer)

    def forget_answer(self, tenant: str, key: str) -> None:
        with self._lock:
            del self._kept[tenant, key]
