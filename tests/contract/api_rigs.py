"""The API over HTTP, on what stands behind it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import httpx
from psycopg.errors import DeadlockDetected
from sqlalchemy import delete, update
from sqlalchemy.exc import OperationalError

from app.api.application import application
from app.api.services import Services
from app.config import Settings
from app.domain.redaction import Redactor
from app.main import serving as serving_services
from app.persistence.answers import LONGEST_REQUEST
from app.persistence.schema import idempotency_keys, metadata
from app.wiring.service import Service, build_service
from tests.support.api_in_memory import Api, served_in_memory
from tests.support.api_server import client_of, serving

ROOT = Path(__file__).resolve().parents[2]


class Rig(Protocol):
    """A served API."""

    @property
    def client(self) -> httpx.Client:
        """Talks to it."""
        ...

    def runnable(self) -> dict[str, Any]:
        """A new ingestion whose run succeeds."""
        ...

    def clear(self) -> None:
        """Begin with nothing."""
        ...

    def abandon(self) -> None:
        """Have every request with an idempotency key end with its process, as if long ago, just before its answer."""
        ...


@dataclass(frozen=True)
class MemoryRig:
    """On services in memory."""

    api: Api

    @property
    def client(self) -> httpx.Client:
        return self.api.client

    def runnable(self) -> dict[str, Any]:
        return self.api.created(name="Runnable")

    def clear(self) -> None:
        self.api.forget()

    def abandon(self) -> None:
        self.api.answers.abandon()


@contextmanager
def memory_rig() -> Iterator[MemoryRig]:
    with served_in_memory() as api:
        yield MemoryRig(api)


@dataclass
class DatabaseRig:
    """On the service itself, without Prefect: runs are direct, in processes of their own."""

    client: httpx.Client
    home: Path
    service: Service
    tables: int = 0

    def land(self, name: str, *records: dict[str, Any]) -> Path:
        """A file of JSON lines in the folder that `runnable` loads."""
        path = self.home / "landing" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    def runnable(self, **fields: Any) -> dict[str, Any]:
        """A new ingestion of the landing folder, where one good file is."""
        self.land("a.json", {"id": 1}, {"id": 2})
        self.tables += 1
        document = {
            "name": f"Landing {self.tables}",
            "source": {"path": str(self.home / "landing")},
            "destination": {"database": "d", "table": f"t{self.tables}"},
            **fields,
        }
        answer = self.client.post("/api/v1/ingestions", json=document)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def clear(self) -> None:
        while not self._emptied():
            # The service is at work on the same rows.
            time.sleep(0.1)
        for path in (self.home / "landing").glob("*"):
            path.unlink()

    def abandon(self) -> None:
        gone = {"status": None, "headers": None, "body": None}
        began_at = datetime.now(UTC) - LONGEST_REQUEST - timedelta(minutes=1)
        with self.service.store._engine.begin() as connection:
            connection.execute(update(idempotency_keys).values(**gone, created_at=began_at))

    def _emptied(self) -> bool:
        """Empty all tables; False where somebody else and this were waiting for each other."""
        try:
            with self.service.store._engine.begin() as connection:
                if connection.dialect.name == "postgresql":
                    # So that of the two it is this that is broken off.
                    connection.exec_driver_sql("set local deadlock_timeout = '10ms'")
                for table in reversed(metadata.sorted_tables):
                    connection.execute(delete(table))
        except OperationalError as error:
            if isinstance(error.orig, DeadlockDetected):
                return False
            raise
        return True


@contextmanager
def database_rig(folder: Path, **settings: Any) -> Iterator[DatabaseRig]:
    given = Settings(
        autoloader_home=folder,
        autoloader_settle_s=0,
        autoloader_lease_s=60,
        # Less than the client waits for an answer.
        autoloader_direct_run_wait_s=150,
        **settings,
    )
    # What a child is told goes by its environment.
    told = {"autoloader_settle_s": 0, "autoloader_lease_s": 60, **settings}
    environ = {**os.environ, **{name.upper(): str(value) for name, value in told.items()}, "PYTHONPATH": str(ROOT)}
    service = build_service(given, environ, Redactor())

    def open_services() -> AbstractAsyncContextManager[Services]:
        return serving_services(service, environ)

    with serving(application(open_services, "0.0.0")) as base, client_of(base) as client:
        yield DatabaseRig(client, folder, service)
