"""Previews and costs of definitions that are not kept yet: what the API asks for, done in threads of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

from app.domain.ingestions import Schedule, User
from app.services.costs import DAYS_PER_MONTH, CostEstimate
from app.services.ingestion_documents import Checked, check_document, values_of
from app.services.preflight import LoadRequest
from app.services.schedules import slots
from app.services.source_preview import SourcePreview

T = TypeVar("T")
# A source that is slow must not take the threads that everything else is done in.
AT_ONCE = 2
# What a definition needs and a preview does not.
_UNNEEDED: Mapping[str, Any] = {"name": "preview", "destination": {"database": "preview", "table": "preview"}}
_FEW_SLOTS = 50
_MANY_SLOTS = 5_000
_LONG = timedelta(days=60)


class PreviewWork(Protocol):
    """Looks into a source, in the calling thread."""

    def preview(self, request: LoadRequest) -> SourcePreview:
        """What a load would find."""
        ...

    def estimate_cost(self, request: LoadRequest, runs_per_month: float | None) -> CostEstimate:
        """What it would cost."""
        ...


class PreviewService:
    """Answers for definitions as they would be sent to make an ingestion; name and destination may be left out."""

    def __init__(self, work: PreviewWork, *, default_catalog: str, home: Path) -> None:
        """Start nothing yet.

        Args:
            work: Does it.
            default_catalog: The catalog of a destination that names none.
            home: The folder that a relative local path starts from.
        """
        self._work = work
        self._default_catalog = default_catalog
        self._home = home
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="preview")

    async def preview(self, document: Mapping[str, Any], current_user: User) -> SourcePreview:  # noqa: ARG002 - one tenant sees every source
        """What a load would find. Writes nothing.

        Raises:
            AutoloaderError: The definition is wrong, or the source cannot be looked into.
        """
        request = self._request(self._checked(document))
        return await self._apart(lambda: self._work.preview(request))

    async def estimate_cost(self, document: Mapping[str, Any], current_user: User) -> CostEstimate:  # noqa: ARG002 - as above
        """What it would cost. Writes nothing.

        Raises:
            AutoloaderError: As `preview`.
        """
        checked = self._checked(document)
        request = self._request(checked)

        def work() -> CostEstimate:
            runs = None if checked.schedule is None else runs_per_month(checked.schedule, datetime.now(UTC))
            return self._work.estimate_cost(request, runs)

        return await self._apart(work)

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _apart(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _checked(self, document: Mapping[str, Any]) -> Checked:
        whole = {name: value for name, value in document.items() if value is not None}
        for name, value in _UNNEEDED.items():
            given = whole.get(name, value)
            whole[name] = {**value, **given} if isinstance(value, Mapping) and isinstance(given, Mapping) else given
        return check_document(whole, default_catalog=self._default_catalog, home=str(self._home))

    def _request(self, checked: Checked) -> LoadRequest:
        path = checked.document["source"]["path"]
        if "://" not in path:
            path = f"{self._home}/{path}" if not path.startswith("/") else path
        return LoadRequest(path, checked.table, values_of(checked.document), dict(checked.credentials) or None)


def runs_per_month(schedule: Schedule, now: datetime) -> float:
    """How often it is due in a month, by its next times."""
    due = slots(schedule, now, _FEW_SLOTS)
    if due and due[-1] - now < _LONG:
        due = slots(schedule, now, _MANY_SLOTS)
    if not due:
        return 0.0
    return len(due) * DAYS_PER_MONTH / max((due[-1] - now) / timedelta(days=1), 1 / 24)
