"""Find what is new, as a run does: the listing in key order, held against the ledger. Or a part of that alone.

discovery.py listing SOURCE            the source's own listing: key, version, size
discovery.py bare SOURCE               what the system or the store gives, with nothing made of it
discovery.py known SOURCE DATABASE     the listing against the ledger
discovery.py claim SOURCE DATABASE     the same, and what is new is planned and claimed
discovery.py ledger DATABASE           the ledger's rows alone
discovery.py rows DATABASE             the same rows by SQLite's own module
discovery.py make SOURCE DATABASE N    a ledger that knows all files of the source but each Nth; 0: all
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from app.domain import discovery
from app.domain.definition import Definition
from app.domain.discovery import in_key_order, merge_join
from app.domain.files import SourceFile
from app.domain.formats import FileFormat, FormatOptions
from app.domain.runs import Lease, Owner, TableRecord
from app.domain.selection import Decision, decide, plan_batches
from app.persistence.ledger import SqlLedger, open_ledger
from app.sources.factory import open_source
from app.sources.sorting import DiskSorter

TABLE = "local.bench.events"
CHUNK = 10_000
# A commit to compare with may not have it.
news: Callable[..., Iterator[discovery.Sighting]] | None = getattr(discovery, "news", None)
BATCH_FILES, BATCH_BYTES = 10_000, 1 << 30


@dataclass
class Clock:
    """Wall and CPU time since it was made."""

    began: float = field(default_factory=time.perf_counter)
    began_cpu: float = field(default_factory=time.process_time)

    def say(self, **more: float) -> None:
        """Print the times until now as the last line."""
        wall_s, cpu_s = time.perf_counter() - self.began, time.process_time() - self.began_cpu
        print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, **more}))


def main() -> None:
    """Do what is asked for and print figures."""
    verb, *rest = sys.argv[1:]
    verbs: dict[str, Callable[..., None]] = {
        "listing": listing,
        "bare": bare,
        "known": known,
        "claim": claim,
        "ledger": ledger_rows,
        "rows": plain_rows,
        "make": make,
    }
    verbs[verb](*rest)


def listed(source: str) -> Iterator[SourceFile]:
    """The source's listing."""
    return open_source(source, file_pattern=None, credentials=None, environ=os.environ).discover()


def in_order(source: str) -> Iterator[SourceFile]:
    """The listing as a run takes it."""
    return in_key_order(listed(source), DiskSorter(), lambda key: print(f"out of order from {key}"))


def listing(source: str) -> None:
    """Time the source's listing."""
    clock = Clock()
    count = sum(1 for _ in listed(source))
    clock.say(files=count)


def bare(source: str) -> None:
    """Time what is below the source's listing."""
    clock = Clock()
    count = sum(1 for _ in (_objects(source) if source.startswith("s3://") else _entries(source)))
    clock.say(files=count)


def _entries(folder: str) -> Iterator[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.is_dir():
            yield from _entries(entry.path)
        else:
            status = entry.stat()
            yield entry.path, status.st_mtime_ns, status.st_size


def _objects(source: str) -> Iterator[tuple[str, str | None, int]]:
    from obstore.store import S3Store  # noqa: PLC0415

    bucket, _, folder = source.removeprefix("s3://").partition("/")
    store = S3Store(
        bucket,
        endpoint=os.environ["AWS_ENDPOINT_URL"],
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region=os.environ["AWS_REGION"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    for page in store.list(folder, chunk_size=1000):
        for meta in page:
            yield meta["path"], meta["e_tag"], meta["size"]


def versions(ledger: SqlLedger, record: TableRecord, key: str) -> Iterator[Any]:
    """The ledger's rows as a run reads them; a commit to compare with may have had another road."""
    reading: Callable[[TableRecord, str], Iterator[Any]] = getattr(ledger, "versions_after", ledger.files_after)
    return reading(record, key)


def new_files(source: str, ledger: SqlLedger, record: TableRecord) -> Iterator[SourceFile]:
    """The files that a run would load."""
    now = datetime.now(UTC)
    if news is not None:
        sightings = news(in_order(source), lambda key: ledger.pages_after(record, key), _ignore)
    else:
        sightings = merge_join(in_order(source), lambda key: versions(ledger, record, key))
    for sighting in sightings:
        decision = decide(sighting.file, sighting.known, now=now, max_tries=3, retry_failed=False)
        if decision is Decision.LOAD:
            yield sighting.file


def known(source: str, database: str) -> None:
    """Time a discovery."""
    ledger = open_ledger(f"sqlite:///{database}")
    record = ledger.ensure_table(TABLE)
    clock = Clock()
    count = sum(1 for _ in new_files(source, ledger, record))
    clock.say(new=count)
    ledger.dispose()


def claim(source: str, database: str) -> None:
    """Time a discovery whose new files are claimed, batch by batch."""
    ledger = open_ledger(f"sqlite:///{database}")
    record, lease = begun(ledger)
    clock = Clock()
    count = 0
    for files in plan_batches(new_files(source, ledger, record), batch_bytes=BATCH_BYTES, batch_files=BATCH_FILES):
        batch = ledger.claim(lease, record, definition(source), files)
        count += len(batch.files) if batch else 0
    clock.say(claimed=count)
    ledger.dispose()


def _ignore(_file: SourceFile) -> None:
    """What is told of a file that is known."""


def ledger_rows(database: str) -> None:
    """Time the ledger's rows as a discovery reads them."""
    ledger = open_ledger(f"sqlite:///{database}")
    record = ledger.ensure_table(TABLE)
    clock = Clock()
    if news is None:
        count = sum(1 for _ in versions(ledger, record, ""))
    else:
        count = sum(len(page.loaded) for page in ledger.pages_after(record, ""))
    clock.say(rows=count)
    ledger.dispose()


def plain_rows(database: str) -> None:
    """Time the columns that a discovery needs, without anything in between."""
    with closing(sqlite3.connect(database)) as connection:
        clock = Clock()
        rows = connection.execute("select key, version, state from files order by table_id, generation, key, version")
        count = sum(1 for _ in rows)
        clock.say(rows=count)


def make(source: str, database: str, every: str) -> None:
    """Make a ledger in which files of the source were loaded."""
    ledger = open_ledger(f"sqlite:///{database}")
    record, lease = begun(ledger)
    ledger.dispose()
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    step = int(every)
    files = (file for i, file in enumerate(listed(source)) if not step or i % step)
    insert = (
        "insert into files (table_id, generation, key, version, state, size_bytes, modified_at, ingestion_id, "
        "batch_number, run_id, rows, retryable, tries, updated_at) "
        "values (?, ?, ?, ?, 'success', ?, ?, ?, 1, ?, 1, 0, 0, ?)"
    )
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("pragma synchronous = off")
        while chunk := list(islice(files, CHUNK)):
            connection.executemany(
                insert,
                [(record.id, record.generation, f.key, f.version, f.size_bytes, now, *_by(lease), now) for f in chunk],
            )
        connection.commit()
        connection.execute("pragma wal_checkpoint(truncate)")


def _by(lease: Lease) -> tuple[str, str]:
    return lease.ingestion_id, lease.run_id


def begun(ledger: SqlLedger) -> tuple[TableRecord, Lease]:
    """The table's record and a lease on its ingestion, as a run has them."""
    record = ledger.ensure_table(TABLE)
    ingestion = ledger.ensure_load_ingestion(record, "bench")
    lease = ledger.acquire(ingestion, "run", Owner("bench", os.getpid(), 0.0), 36_000)
    assert isinstance(lease, Lease)  # noqa: S101 - nobody else is there
    return record, lease


def definition(source: str) -> Definition:
    """What a batch is claimed with."""
    return Definition(source, None, FormatOptions(format=FileFormat.JSON))


if __name__ == "__main__":
    main()
