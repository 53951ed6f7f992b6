"""A landing place, a ledger and a table behind fault proxies, with loads that run in the test's own process."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog as Inner
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from app.destinations.catalog import IcebergCatalog, open_catalog
from app.domain.discovery import in_key_order
from app.domain.errors import AutoloaderError
from app.domain.failpoints import Failpoints
from app.domain.files import FileState
from app.domain.locations import parse_location
from app.domain.patterns import file_pattern
from app.domain.ports import Source
from app.domain.runs import RunReport, RunStatus
from app.domain.table import SNAPSHOT_MANIFEST, TableName
from app.engines.embedded.engine import EmbeddedEngine
from app.persistence.leases import this_process
from app.persistence.ledger import SqlLedger, open_ledger
from app.services.loading import LoadService
from app.services.preflight import LoadRequest
from app.services.run import LoadPorts, RunSettings
from app.services.sweeping import Sweeper
from app.sources.aws import aws_settings
from app.sources.factory import open_source
from app.sources.object_store import ObjectStoreSource
from app.sources.s3 import S3Access
from app.sources.sorting import DiskSorter
from tests.support.fault_proxy import Proxy
from tests.support.fault_table import SILENT
from tests.support.seaweed import Seaweed
from tests.support.told import told_events

RECORDS = 20
CATALOG = "rest"
# What is asked of pyiceberg's catalog, and may raise.
ASKED = ("load_table", "commit_table", "namespace_exists", "create_namespace", "create_table_transaction")
LEASE_S = 60.0
# So long a server that is to say nothing is waited for.
SILENT_TIMEOUT_S, SILENT_PATIENCE_S = 10.0, 10


def record(number: int) -> dict[str, Any]:
    """One record."""
    return {"id": number, "name": f"name {number}", "value": number / 4}


def content(number: int) -> bytes:
    """File `number` as NDJSON."""
    return b"".join(json.dumps(record(number * RECORDS + n)).encode() + b"\n" for n in range(RECORDS))


@dataclass
class Quiet:
    """A watcher that keeps what it is told."""

    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)

    def batch_begins(self, *, files: int, stored_bytes: int) -> None:
        """Nothing to do."""

    def progress(self, *, files: int = 0, rows: int = 0, stored_bytes: int = 0) -> None:
        """Nothing to do."""

    def batch_ends(self, *, files: int, rows: int, failed: int) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class Loaded:
    """A load that has ended, and what was seen on the way."""

    report: RunReport
    # What pyiceberg's catalog raised: what was asked, and the name of the exception.
    raised: tuple[tuple[str, str], ...]
    # Names of the events that were logged.
    events: tuple[str, ...]
    log: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]
    # Whether there was a table before.
    on_a_table: bool

    @property
    def status(self) -> RunStatus:
        """As the report says."""
        return self.report.status

    @property
    def code(self) -> str:
        """What stopped the run; "" when nothing did."""
        return self.report.stopped_by.code if self.report.stopped_by else ""

    @property
    def ends(self) -> str:
        """`success`, or what stopped the run."""
        return self.code or self.report.status.value

    @property
    def seen(self) -> str:
        """The first exception of the catalog that is none of a good day; a dash where there was none."""
        names = [name for _, name in self.raised if self.on_a_table or name != "NoSuchTableError"]
        return names[0] if names else "—"

    @property
    def text(self) -> str:
        """All that a person can see of it."""
        parts = [str(self.report.stopped_by or ""), *self.report.warnings, *self.notes, str(self.log)]
        return " ".join([*parts, *(e.message for e in self.report.errors)])


@dataclass
class FaultWorld:
    """One table, its ledger and its source."""

    seaweed: Seaweed
    rest: Proxy
    s3: Proxy
    engine: EmbeddedEngine
    folder: Path
    ledger_url: str
    table: TableName = field(default_factory=lambda: TableName(CATALOG, ("faults",), f"t_{uuid.uuid4().hex[:12]}"))
    # Seconds that a catalog and a source are waited for.
    timeout_s: float = 60.0
    patience_s: int = 10
    source: str = ""
    credentials: Mapping[str, str] | None = None
    # What is done when a run comes to a place, as "step:moment"; once.
    on_the_way: dict[str, Callable[[], object]] = field(default_factory=dict)
    storage: Mapping[str, str] = field(default_factory=dict)
    unknown_waits_s: tuple[float, ...] = (0.01,) * 5
    contest_s: float = 60.0
    # Files that were loaded before the test begins.
    known: tuple[int, ...] = ()

    # --- what the world holds ---------------------------------------------------------------------------------------

    @property
    def landing(self) -> Path:
        """The folder that files land in."""
        return self.folder / "landing"

    @property
    def bucket(self) -> str:
        """The bucket that files land in, where they land in one."""
        return self.source.removeprefix("s3://").partition("/")[0]

    def land_in_a_bucket(self) -> None:
        """From now on files land in the store, which is behind its proxy."""
        bucket = self.seaweed.create_bucket(f"w-{uuid.uuid4().hex[:16]}")
        self.source = f"s3://{bucket}/landing/"
        self.credentials = {**self.seaweed.credentials, "endpoint_url": self.s3.url}

    def land(self, *numbers: int) -> None:
        """Put files there."""
        if self.source:
            self.seaweed.put(self.bucket, {f"landing/batch_{number}.json": content(number) for number in numbers})
            return
        self.landing.mkdir(exist_ok=True)
        for number in numbers:
            (self.landing / f"batch_{number}.json").write_bytes(content(number))

    def key(self, number: int) -> str:
        """Key of a file that landed."""
        root = self.source.rstrip("/") if self.source else f"file://{self.landing.resolve()}"
        return f"{root}/batch_{number}.json"

    def properties(self, rest: str, s3: str) -> dict[str, str]:
        """The catalog's, with these addresses."""
        keys = self.seaweed.credentials
        return {
            "type": "rest",
            "uri": rest,
            "warehouse": self.seaweed.rest_warehouse,
            "credential": f"{keys['aws_access_key_id']}:{keys['aws_secret_access_key']}",
            "oauth2-server-uri": f"{rest}/v1/oauth/tokens",
            "s3.endpoint": s3,
            "s3.access-key-id": keys["aws_access_key_id"],
            "s3.secret-access-key": keys["aws_secret_access_key"],
            "s3.region": keys["aws_region"],
            **self.storage,
        }

    # --- a load -----------------------------------------------------------------------------------------------------

    @contextmanager
    def patient_with(self, words: str) -> Iterator[None]:
        """Until the block ends, a server whose fault is that it says nothing is waited for less long."""
        patience = self.timeout_s, self.patience_s
        if words == SILENT:
            self.timeout_s, self.patience_s = SILENT_TIMEOUT_S, SILENT_PATIENCE_S
        try:
            yield
        finally:
            self.timeout_s, self.patience_s = patience

    def let_leases_run_out(self) -> None:
        """Time passes for a run that never heard that it has one."""
        with self._ledger() as ledger, ledger._write() as connection:
            connection.exec_driver_sql("update leases set expires_at = 0")

    def load(self, *, retry_failed: bool = False, **values: Any) -> Loaded:
        """One run, as the command `load` makes one."""
        raised: list[tuple[str, str]] = []
        watcher = Quiet()
        catalog = IcebergCatalog(
            CATALOG,
            self.properties(self.rest.url, self.s3.url),
            opener=lambda name, p: _opened(name, p, self.timeout_s, raised),
            contest_s=self.contest_s,
            failpoints=Failpoints(self._pass),
        )
        request = LoadRequest(
            self.source or str(self.landing),
            self.table,
            values,
            credentials=self.credentials,
            retry_failed=retry_failed,
        )
        with told_events() as log, self._ledger() as ledger:
            try:
                report = LoadService(self._ports(catalog, ledger), self._settings()).load(request, watcher)
            except AutoloaderError as error:
                report = RunReport(run_id="", table=str(self.table), status=RunStatus.FAILED, stopped_by=error)
            finally:
                catalog.close()
        events = tuple(str(entry["event"]) for entry in log)
        return Loaded(report, tuple(raised), events, tuple(log), tuple(watcher.notes), bool(self.known))

    def _ports(self, catalog: IcebergCatalog, ledger: SqlLedger) -> LoadPorts:
        return LoadPorts(
            open_ledger=lambda: ledger,
            has_ledger=lambda: True,
            catalog=catalog,
            storage=catalog,
            reader=catalog,
            engine=self.engine,
            open_source=self._open_source,
            in_order=lambda listing, on_disorder: in_key_order(listing, DiskSorter(), on_disorder),
            owner=this_process(),
            failpoints=Failpoints(self._pass),
            keep_out=(),
        )

    def _open_source(self, path: str, pattern: str | None, credentials: Mapping[str, str] | None) -> Source:
        if not path.startswith("s3://"):
            return open_source(path, file_pattern=pattern, credentials=credentials, environ={})
        access = S3Access(replace(aws_settings(credentials, {}), patience_s=self.patience_s))
        return ObjectStoreSource(parse_location(path, cwd="/"), access, file_pattern(pattern) if pattern else None)

    def _pass(self, place: str) -> None:
        self.on_the_way.pop(place, lambda: None)()

    def _settings(self) -> RunSettings:
        return RunSettings(
            lease_s=LEASE_S,
            batch_bytes=1 << 30,
            batch_files=10_000,
            file_tries=3,
            unknown_waits_s=self.unknown_waits_s,
        )

    @contextmanager
    def _ledger(self) -> Iterator[SqlLedger]:
        ledger = open_ledger(self.ledger_url)
        try:
            yield ledger
        finally:
            ledger.dispose()

    # --- what came of it --------------------------------------------------------------------------------------------

    def hand(self) -> Inner:
        """The catalog itself, without a proxy before it."""
        return open_catalog("hand", self.properties(self.seaweed.rest_uri, self.seaweed.endpoint))

    def found(self) -> Table | None:
        """The table as it is; None where there is none."""
        try:
            return self.hand().load_table((*self.table.namespace, self.table.name))
        except NoSuchTableError:
            return None

    def rows(self) -> pa.Table:
        """All rows, which reads every data file that is live."""
        table = self.found()
        assert table is not None
        return table.scan().to_arrow()

    def assert_exact(self, *numbers: int) -> None:
        """Every file's rows once, the ledger says the same, and a sweep leaves nothing that nobody names."""
        keys = {self.key(number): number for number in numbers}
        rows = self.rows()
        by_file: dict[str, list[dict[str, Any]]] = {}
        for row in rows.select(["id", "name", "value", "_file_path"]).to_pylist():
            by_file.setdefault(row.pop("_file_path"), []).append(row)
        assert set(by_file) == set(keys)
        for key, number in keys.items():
            wanted = [record(number * RECORDS + n) for n in range(RECORDS)]
            assert sorted(by_file[key], key=lambda r: int(r["id"])) == wanted, key
        with self._ledger() as ledger:
            known = ledger.table(str(self.table))
            assert known is not None
            files = ledger.list_files(known, failed=False, limit=1000, after=None)
        assert {f.key: f.rows for f in files if f.state is FileState.SUCCESS} == dict.fromkeys(keys, RECORDS)
        self.assert_swept()

    def assert_swept(self) -> None:
        """A sweep leaves exactly the data files and the manifests that the table names."""
        table = self.found()
        assert table is not None
        catalog = IcebergCatalog(CATALOG, self.properties(self.seaweed.rest_uri, self.seaweed.endpoint))
        with self._ledger() as ledger:
            # Seen from so far ahead that no file is too young to go.
            Sweeper(ledger, catalog, self.table, lease_s=-LEASE_S).sweep()
        live = {task.file.file_path for task in table.scan().plan_files()}
        assert {f.path for f in catalog.data_folder(self.table)} == live
        named = {s.summary[SNAPSHOT_MANIFEST] for s in table.metadata.snapshots if s.summary}
        ours = {f.path for f in catalog.manifest_folder(self.table) if f.name.endswith(".stats")}
        assert ours == named - {None}
        catalog.close()


def _opened(name: str, properties: Mapping[str, str], timeout_s: float, raised: list[tuple[str, str]]) -> Inner:
    """The catalog, with what it raises written down."""
    inner: Inner = _noted("open", partial(open_catalog, timeout_s=timeout_s), raised, name, properties)
    for asked in ASKED:
        setattr(inner, asked, partial(_noted, asked, getattr(inner, asked), raised))
    return inner


def _noted(
    name: str, ask: Callable[..., Any], raised: list[tuple[str, str]], *arguments: object, **named: object
) -> Any:
    try:
        return ask(*arguments, **named)
    except Exception as error:
        raised.append((name, type(error).__name__))
        raise


def make_fault_world(  # noqa: PLR0917 - each is needed once
    seaweed: Seaweed, rest: Proxy, s3: Proxy, engine: EmbeddedEngine, folder: Path, migrated: Path
) -> FaultWorld:
    """A world of its own in `folder`, its ledger a copy of the file `migrated`."""
    rest.clear()
    s3.clear()
    shutil.copy(migrated, folder / "autoloader.db")
    world = FaultWorld(seaweed, rest, s3, engine, folder, f"sqlite:///{folder}/autoloader.db")
    world.landing.mkdir()
    return world
