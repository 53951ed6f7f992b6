"""A database of the service on either kind of server: what tests of its parts write on."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.domain.definition import Definition
from app.domain.files import SourceFile
from app.domain.formats import FileFormat, FormatOptions
from app.domain.ingestions import Ingestion, IngestionStatus, Method, RunRecord, Trigger
from app.domain.ledger import OpenBatch
from app.domain.redaction import Redactor
from app.domain.runs import Lease, Owner
from app.domain.service import NewIngestion, NewRun
from app.persistence.keys import Keyring
from app.persistence.leases import this_process
from app.persistence.service import SqlServiceStore, open_service_store

ELSEWHERE = Owner("another-host", 1, 0.0)
# A process of this host that is known to be gone: nothing ever started then.
DEAD = replace(this_process(), process_started_at=1.0)
SECRET = "wJalrXUtnFEMI-not-a-real-key"
LONG_S = 3600.0


@dataclass
class ServiceDesk:
    url: str
    folder: Path
    secret_key: str | None = "a passphrase of the tests"
    previous: str | None = None
    redactor: Redactor = field(default_factory=Redactor)

    def open(self) -> SqlServiceStore:
        keys = Keyring(self.secret_key, self.previous, self.folder)
        return open_service_store(self.url, keys, self.redactor.learn)


def new_ingestion(**changes: Any) -> NewIngestion:
    ingestion_id = uuid.uuid4().hex
    plain = NewIngestion(
        id=ingestion_id,
        tenant="default",
        name=f"n-{ingestion_id}",
        status=IngestionStatus.ACTIVE,
        table="local.db.t",
        document={"source": {"type": "s3", "path": "s3://b/"}},
    )
    return replace(plain, **changes)


def with_schedule(frequency: str = "hourly") -> Mapping[str, Any]:
    return {"source": {"type": "s3", "path": "s3://b/"}, "schedule": {"frequency": frequency}}


def queue(store: SqlServiceStore, ingestion: Ingestion, **changes: Any) -> RunRecord:
    new = NewRun(uuid.uuid4().hex, ingestion.id, Trigger.MANUAL, Method.DIRECT)
    return store.queue_run(replace(new, **changes))


def take(store: SqlServiceStore, run: RunRecord, owner: Owner | None = None, seconds: float = LONG_S) -> Lease:
    got = store.acquire(run.ingestion_id, run.id, owner or this_process(), seconds)
    assert isinstance(got, Lease)
    return got


def claim(store: SqlServiceStore, lease: Lease, *names: str) -> OpenBatch:
    """A batch of those files, durable."""
    table = store.table("local.db.t")
    assert table is not None
    found = [SourceFile(f"s3://b/{name}", "v1", 10, datetime(2026, 1, 1, tzinfo=UTC)) for name in names]
    batch = store.claim(lease, table, Definition("s3://b/", None, FormatOptions(FileFormat.JSON)), found)
    assert batch is not None
    return batch
