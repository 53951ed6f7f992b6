"""A load with the real ledger, and everything else in memory: what tests of the services work on."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow.parquet as pq

from app.domain.discovery import in_key_order
from app.domain.errors import AutoloaderError
from app.domain.failpoints import Failpoints, Reach
from app.domain.files import FileState, SourceFile
from app.domain.ports import Catalog, Source
from app.domain.runs import Owner, RunReport
from app.domain.table import TableName
from app.persistence.leases import this_process
from app.persistence.ledger import SqlLedger, open_ledger
from app.services.loading import LoadService
from app.services.preflight import LoadRequest
from app.services.run import LoadPorts, RunSettings
from app.sources.sorting import DiskSorter
from tests.fakes.catalog import FakeCatalog, FakeStore
from tests.fakes.engine import FakeEngine
from tests.fakes.source import MemorySource

TABLE = TableName("local", ("db",), "t")
SETTINGS = RunSettings(lease_s=60.0, batch_bytes=1 << 20, batch_files=100, file_tries=3, unknown_waits_s=(0.0, 0.0))
# A process of this host that is known to be gone: nothing ever started then.
DEAD = replace(this_process(), process_started_at=1.0)


class Killed(BaseException):
    """The process is gone: nothing of it goes on, nothing is cleaned up."""


@dataclass
class Notes:
    """A watcher that remembers."""

    notes: list[str] = field(default_factory=list)
    batches: list[tuple[int, int, int]] = field(default_factory=list)
    progressed: int = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def batch_begins(self, *, files: int, stored_bytes: int) -> None:
        pass

    def progress(self, *, files: int = 0, rows: int = 0, stored_bytes: int = 0) -> None:
        self.progressed += files + rows + stored_bytes

    def batch_ends(self, *, files: int, rows: int, failed: int) -> None:
        self.batches.append((files, rows, failed))


@dataclass
class DeadLedger:
    """The ledger of a process that dies: from then on nothing of it reaches the database."""

    inner: SqlLedger
    dead: bool = False

    def __getattr__(self, name: str) -> object:
        if self.dead:
            raise Killed
        return getattr(self.inner, name)


def lines(*rows: Mapping[str, object]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@dataclass
class Desk:
    url: str
    source: MemorySource = field(default_factory=MemorySource)
    store: FakeStore = field(default_factory=FakeStore)
    engine: FakeEngine = field(default_factory=FakeEngine)
    settings: RunSettings = SETTINGS
    notes: Notes = field(default_factory=Notes)
    # What opens a source by its path; by default every path is the one source.
    open_source: Callable[[str, str | None, Mapping[str, str] | None], Source] | None = None

    # What looks at the files beside the table; by default the catalog itself.
    storage: FakeCatalog | None = None

    def put(self, name: str, *rows: Mapping[str, object]) -> SourceFile:
        return self.source.put(name, lines(*rows))

    def service(
        self,
        ledger: object,
        *,
        catalog: Catalog | None = None,
        reach: Reach | None = None,
        owner: Owner | None = None,
    ) -> LoadService:
        failpoints = Failpoints(reach)
        ports = LoadPorts(
            open_ledger=lambda: ledger,  # type: ignore[arg-type, return-value]
            has_ledger=lambda: True,
            catalog=catalog or FakeCatalog(self.store, failpoints=failpoints),
            storage=self.storage or FakeCatalog(self.store, failpoints=failpoints),
            reader=FakeCatalog(self.store),
            engine=self.engine,
            open_source=self.open_source or (lambda _path, _pattern, _keys: self.source),
            in_order=_in_order,
            owner=owner or this_process(),
            failpoints=failpoints,
            keep_out=(),
        )
        return LoadService(ports, self.settings)

    def load(
        self,
        *,
        catalog: Catalog | None = None,
        reach: Reach | None = None,
        retry_failed: bool = False,
        path: str = "s3://memory/",
        wait_s: float = 0.0,
        values: Mapping[str, object] | None = None,
    ) -> RunReport:
        """One run of a process that lives on."""
        ledger = open_ledger(self.url)
        try:
            service = self.service(ledger, catalog=catalog, reach=reach)
            return service.load(LoadRequest(path, TABLE, values or {}, None, retry_failed, wait_s), self.notes)
        finally:
            ledger.dispose()

    def load_and_die(self, place: str, *, occurrence: int = 1, values: Mapping[str, object] | None = None) -> None:
        """One run of a process that is killed at a place on its way, such as "committed:after"."""
        ledger = DeadLedger(open_ledger(self.url))
        seen = 0

        def reach(here: str) -> None:
            nonlocal seen
            seen += here == place
            if here == place and seen == occurrence:
                ledger.dead = True
                raise Killed

        try:
            service = self.service(ledger, reach=reach, owner=DEAD)
            service.load(LoadRequest("s3://memory/", TABLE, values or {}), self.notes)
        except Killed:
            return
        finally:
            ledger.inner.dispose()
        raise AssertionError(f"{place} was not reached")

    def load_as(self, ingestion_id: str, values: Mapping[str, object]) -> RunReport:
        """One run of the ingestion of that id, which loads the table beside others."""
        ledger = open_ledger(self.url)
        record = ledger.ensure_table(str(TABLE))
        ledger.adopt(record, ingestion_id)
        ledger.dispose()
        self.execute("update ingestions set kind = 'adopted'")
        self.execute(f"update ingestions set kind = 'load' where id = '{ingestion_id}'")
        return self.load(values=values)

    # --- what is there ----------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, object]]:
        """The table's rows, sorted by their text."""
        table = self.store.get(TABLE)
        if table is None:
            return []
        found: list[dict[str, object]] = []
        for data_file in table.data_files:
            found += pq.read_table(io.BytesIO(self.store.read(data_file.path))).to_pylist()
        return sorted(found, key=str)

    def ids(self) -> list[int]:
        return sorted(int(str(row["id"])) for row in self.rows())

    def source_ids(self) -> list[int]:
        """Every id of every file of the source."""
        texts = [data.decode() for _, data in self.source.files.values()]
        return sorted(int(json.loads(line)["id"]) for text in texts for line in text.splitlines())

    def snapshots(self) -> int:
        table = self.store.get(TABLE)
        return len(table.snapshots) if table else 0

    def states(self) -> dict[str, FileState]:
        """Name → state of the newest version of each file."""
        with_ledger = open_ledger(self.url)
        record = with_ledger.ensure_table(str(TABLE))
        found = {f.key.removeprefix("s3://memory/"): f.state for f in with_ledger.files_after(record, "")}
        with_ledger.dispose()
        return found

    def versions(self) -> dict[str, list[tuple[FileState, int | None]]]:
        """Name → state and rows of every version of each file, by the versions' names."""
        with_ledger = open_ledger(self.url)
        record = with_ledger.ensure_table(str(TABLE))
        found: dict[str, list[tuple[FileState, int | None]]] = {}
        for f in with_ledger.files_after(record, ""):
            found.setdefault(f.key.removeprefix("s3://memory/"), []).append((f.state, f.rows))
        with_ledger.dispose()
        return found

    def open_batches(self) -> int:
        return int(str(self.query("select count(*) from batches where state = 'open'")))

    def query(self, statement: str) -> object:
        """One value of the ledger's database, as it is."""
        ledger = open_ledger(self.url)
        with ledger._read() as connection:
            value: object = connection.exec_driver_sql(statement).scalar()
        ledger.dispose()
        return value

    def execute(self, statement: str) -> None:
        """Change the ledger's database, as time would."""
        ledger = open_ledger(self.url)
        with ledger._write() as connection:
            connection.exec_driver_sql(statement)
        ledger.dispose()

    def let_time_pass(self) -> None:
        """Every failed file's turn comes."""
        self.execute("update files set next_try_at = 0 where next_try_at is not null")

    def orphans(self) -> set[str]:
        """Data files that the table does not name."""
        table = self.store.get(TABLE)
        named = {f.path for f in table.data_files} if table else set()
        return {path for path in self.store.files if path.endswith(".parquet")} - named


def _in_order(listing: Iterator[SourceFile], on_disorder: Callable[[str], None]) -> Iterator[SourceFile]:
    return in_key_order(listing, DiskSorter(), on_disorder)


def desk_at(folder: Path) -> Desk:
    return Desk(f"sqlite:///{folder}/ledger.db")


def error_of(report: RunReport) -> AutoloaderError:
    assert report.stopped_by is not None, report
    return report.stopped_by
