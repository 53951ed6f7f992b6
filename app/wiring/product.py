"""The main job on one machine: the ports of a load, a plan, a check, and all that is asked of one table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from app.config import Settings
from app.domain.errors import NoMatchError, TableNotFoundError
from app.domain.failpoints import parse_failpoints
from app.domain.files import LedgerFile, SourceFile
from app.domain.locations import file_key
from app.domain.ports import Engine, Source
from app.domain.runs import RunReport
from app.domain.table import TableName, parse_table_name
from app.domain.watch import Watcher
from app.wiring.environment import learn_secrets

if TYPE_CHECKING:
    from app.destinations.catalog import IcebergCatalog
    from app.domain.ledger import Ledger
    from app.domain.reach import Reach
    from app.domain.redaction import Redactor
    from app.domain.watching import Beat, Lookout
    from app.services.checking import CheckReport, CheckRequest
    from app.services.clearing import Cleared, Fenced, FencePorts
    from app.services.costs import CostEstimate
    from app.services.preflight import LoadRequest, Prepared
    from app.services.preview import Plan
    from app.services.rebuilding import RebuildReport, RebuildRequest
    from app.services.run import LoadPorts, RunOrder, RunSettings
    from app.services.source_preview import SourcePreview
    from app.services.sweeping import SweepReport
    from app.services.watching import Reporter, WatchOutcome
    from app.sources.local import LocalSource
    from app.sources.object_store import ObjectStoreSource


LOCAL_CATALOG = "local"


LEASE_GRACE_S = 5.0


FAILPOINT_VARIABLE = "AUTOLOADER_FAILPOINT"


class Product:
    """Everything that one process can do, built when it is asked for. Libraries are imported then, not before."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        reach: Callable[[], Reach | None] | None = None,
        learn: Callable[[Iterable[str]], None] | None = None,
    ) -> None:
        """Build nothing yet.

        Args:
            settings: What `read_settings` read.
            environ: The process's environment.
            reach: Tells, whenever a source is opened, what may be read (None: anything).
            learn: Told every secret that a source or a catalog is opened with.
        """
        self._learn = learn or _forget
        self._settings = settings
        self._reach = reach or _anything
        self._environ = environ
        self._failpoints = parse_failpoints(environ.get(FAILPOINT_VARIABLE, ""))
        self._catalogs: dict[str, IcebergCatalog] = {}

    def close(self) -> None:
        """Let go of the catalogs' connections: SQLite then puts its log into the file. Idempotent."""
        for catalog in self._catalogs.values():
            catalog.close()

    # --- verbs ------------------------------------------------------------------------------------------------------

    def table_name(self, text: str) -> TableName:
        """The table that a user names."""
        return parse_table_name(text, default_catalog=self._settings.autoloader_default_catalog)

    @property
    def default_wait_s(self) -> float:
        """How long a load waits for another one on its table: long enough for the lease of a dead one to run out."""
        return self._settings.autoloader_lease_s + LEASE_GRACE_S

    def load(self, request: LoadRequest, watcher: Watcher, order: RunOrder | None = None) -> RunReport:
        """Load what is new; for the service, by its order."""
        from app.services.loading import LoadService

        left = 0

        def on_left(_file: SourceFile) -> None:
            nonlocal left
            left += 1

        def say_left(report: RunReport) -> None:
            if left:
                report.warnings.append(f"Files that are still being written were left for the next run ({left}).")

        def finish(error: BaseException | None) -> None:
            # A run of the service is told whole when it ends.
            assert order is not None  # noqa: S101 - it is only called for one
            say_left(order.report)
            order.finish(error)

        with self._engine() as engine, self._lazy_ledger(watcher) as open_ledger, _telling_of_left(lambda: left):
            # A run of the service looks at its source itself: what is wrong with it is the run's outcome.
            prepared = None if order is not None else self._prepare(request, engine, on_left)
            ports = self._load_ports(request, engine, open_ledger, on_left)
            service = LoadService(ports, self._run_settings())
            if order is not None:
                return service.load(request, watcher, order=replace(order, finish=finish))
            report = service.load(request, watcher, prepared)
        say_left(report)
        return report

    def _prepare(self, request: LoadRequest, engine: Engine, on_left: Callable[[SourceFile], None]) -> Prepared:
        """Look at the source, before the libraries of catalog and ledger are imported.

        Files that came after the ledger was last written are new in all likelihood: the engine's processes then come
        up while we import. Whether a file is to be loaded is the ledger's to say, later.
        """
        from app.services.preflight import prepare

        with self._failpoints.step("source_listed"):
            prepared = prepare(request, self._opens(request.values, on_left), self._keep_out(request.table))
        written_at = self._settings.ledger_written_at
        landed = prepared.landed_after(written_at) if written_at else []
        if landed:
            engine.expect(landed)
        return prepared

    def watch(self, request: LoadRequest, beat: Beat, watcher: Watcher, report: Reporter) -> WatchOutcome:
        """Load what is there and what lands, until the process is told to stop."""
        from app.services.resting import RestingEngine
        from app.services.watching import Watch, WatchPorts, WatchSettings
        from app.sources.factory import open_lookout

        def open_it() -> tuple[Source, Lookout]:
            open_source = self._opens(request.values)
            source = open_source(request.path, request.values.get("file_pattern"), request.credentials)
            return source, open_lookout(source, watcher.note)

        engine = RestingEngine(self._make_engine)
        with closing(engine), self._lazy_ledger(watcher) as open_ledger:
            ports = WatchPorts(
                lambda: self._load_ports(request, engine, open_ledger, _say_nothing), engine, open_it, report
            )
            return Watch(ports, self._run_settings(), WatchSettings(beat), watcher).until_stopped(request)

    def _load_ports(
        self,
        request: LoadRequest,
        engine: Engine,
        open_ledger: Callable[[], Ledger],
        on_left: Callable[[SourceFile], None],
    ) -> LoadPorts:
        from app.persistence.leases import this_process
        from app.services.run import LoadPorts

        catalog = self.catalog(request.table.catalog)
        return LoadPorts(
            open_ledger=open_ledger,
            has_ledger=self._has_ledger,
            catalog=catalog,
            storage=catalog,
            reader=catalog,
            engine=engine,
            open_source=self._opens(request.values, on_left),
            in_order=_in_order,
            owner=this_process(),
            failpoints=self._failpoints,
            keep_out=self._keep_out(request.table),
        )

    def plan(self, request: LoadRequest) -> Plan:
        """Say what a load would do."""
        from app.services.preview import PlanPorts, plan_load

        with self._engine() as engine, self._existing_ledger() as ledger:
            ports = PlanPorts(
                ledger=ledger,
                catalog=self.catalog(request.table.catalog),
                engine=engine,
                open_source=self._opens(request.values),
                in_order=_in_order,
                keep_out=self._keep_out(request.table),
            )
            return plan_load(ports, self._run_settings(), request)

    def preview(self, request: LoadRequest) -> SourcePreview:
        """Show what a load would find in its source; see `services.previews.PreviewWork`."""
        from app.engines.embedded.engine import EmbeddedEngine
        from app.services.source_preview import PreviewPorts, preview_source

        with closing(EmbeddedEngine(failpoints=self._failpoints)) as engine:
            ports = PreviewPorts(self._opens(request.values), self._keep_out(request.table), engine, engine)
            return preview_source(ports, request)

    def estimate_cost(self, request: LoadRequest, runs_per_month: float | None) -> CostEstimate:
        """Say what loading its source would cost; see `services.previews.PreviewWork`."""
        from app.services.costs import Prices, estimate_source

        settings = self._settings
        prices = Prices(settings.cost_per_dbu_hour, settings.storage_cost_per_gb, settings.list_operation_cost_per_1000)
        keep_out = self._keep_out(request.table)
        return estimate_source(self._opens(request.values), keep_out, request, prices, runs_per_month)

    def files(self, table: TableName, *, failed: bool, limit: int, after: str | None) -> list[LedgerFile]:
        """A page of a table's ledger.

        Raises:
            TableNotFoundError: No ledger knows the table.
        """
        with self._existing_ledger() as ledger:
            record = ledger.table(str(table)) if ledger else None
            if ledger is None or record is None:
                raise self._unknown(table)
            return ledger.list_files(record, failed=failed, limit=limit, after=after)

    def clear(self, table: TableName) -> Cleared:
        """Begin a new generation of a table's ledger, the table fenced against runs that sleep.

        Raises:
            TableNotFoundError: No ledger knows the table.
            RunInProgressError: A run is at work on it.
            AutoloaderError: Its catalog does not answer, and a batch is open; nothing was forgotten.
        """
        from app.services.clearing import clear

        with self._existing_ledger() as ledger:
            record = ledger.table(str(table)) if ledger else None
            if ledger is None or record is None:
                raise self._unknown(table)
            return clear(self._fence_ports(ledger, table), record, table)

    def fence(self, table: TableName) -> Fenced:
        """Shut out the runs that sleep with a batch for the table in hand. Raises as `clear`."""
        from app.services.clearing import fence_table

        with self._existing_ledger() as ledger:
            record = ledger.table(str(table)) if ledger else None
            if ledger is None or record is None:
                raise self._unknown(table)
            return fence_table(self._fence_ports(ledger, table), record, table)

    def _fence_ports(self, ledger: Ledger, table: TableName) -> FencePorts:
        from app.persistence.leases import this_process
        from app.services.clearing import FencePorts

        return FencePorts(
            ledger,
            lambda: self.catalog(table.catalog),
            this_process(),
            self._settings.autoloader_lease_s,
            self._failpoints,
        )

    def check(self, request: CheckRequest) -> CheckReport:
        """Hold a table against its ledger, and against a source.

        Raises:
            TableNotFoundError: No ledger knows the table.
        """
        from app.services.checking import CheckPorts, check

        with self._existing_ledger() as ledger:
            if ledger is None:
                raise self._unknown(request.table)
            ports = CheckPorts(
                ledger=ledger,
                reader=self.catalog(request.table.catalog),
                open_source=self._opens(request.source.values if request.source else {}),
                in_order=_in_order,
                keep_out=self._keep_out(request.table),
            )
            return check(ports, request)

    def sweep(self, table: TableName, *, dry_run: bool) -> SweepReport:
        """Remove what killed runs left beside a table, or only say what that is.

        Raises:
            TableNotFoundError: There is no table, or no ledger of it.
        """
        from app.services.sweeping import Sweeper

        with self._existing_ledger() as ledger:
            if ledger is None:
                raise self._unknown(table)
            catalog, lease_s = self.catalog(table.catalog), self._settings.autoloader_lease_s
            sweeper = Sweeper(ledger, catalog, table, lease_s=lease_s, failpoints=self._failpoints)
            return sweeper.sweep(dry_run=dry_run)

    def rebuild(self, request: RebuildRequest, watcher: Watcher) -> RebuildReport:
        """Give a table's ledger back from the table."""
        from app.persistence.leases import this_process
        from app.services.rebuilding import Rebuilder, RebuildPorts

        catalog = self.catalog(request.table.catalog)
        if catalog.head(request.table) is None:
            raise TableNotFoundError(f"There is no table {request.table}.")
        with self._lazy_ledger(watcher) as open_ledger:
            ports = RebuildPorts(open_ledger(), catalog, catalog, catalog, this_process(), self._failpoints)
            return Rebuilder(ports, request.table, lease_s=self._settings.autoloader_lease_s).run(request)

    def catalog(self, name: str) -> IcebergCatalog:
        """The catalog of that name. Its connections are let go when the product is closed, or is asked for it again.

        Raises:
            CatalogNotConfiguredError: There is none.
        """
        from app.destinations.configured import configured_catalog, local_catalog

        if name == LOCAL_CATALOG:
            catalog = local_catalog(self._settings.warehouse, self._failpoints)
        else:
            timeout_s = self._settings.autoloader_catalog_timeout_s
            catalog = configured_catalog(name, timeout_s=timeout_s, failpoints=self._failpoints, learn=self._learn)
        earlier, self._catalogs[name] = self._catalogs.get(name), catalog
        if earlier is not None:
            # Of a round of a watch that is over; were it still in use, it would open anew.
            earlier.close()
        return catalog

    def catalogs(self) -> list[str]:
        """The names of the catalogs that can be used."""
        from app.destinations.configured import configured_catalogs

        return [LOCAL_CATALOG, *(name for name in configured_catalogs() if name != LOCAL_CATALOG)]

    def _unknown(self, table: TableName) -> TableNotFoundError:
        return TableNotFoundError(f"No load into {table} is known to the ledger {self.shown_ledger()}.")

    # --- parts ------------------------------------------------------------------------------------------------------

    def _opens(
        self, values: Mapping[str, Any], on_left: Callable[[SourceFile], None] | None = None
    ) -> Callable[[str, str | None, Mapping[str, str] | None], LocalSource | ObjectStoreSource]:
        """What opens sources for a definition: `values` are its fields by name.

        `on_left` is told of each file that is left because it is still being written.
        """
        from app.domain.definition import hidden_credentials
        from app.sources.factory import open_source as open_it
        from app.sources.settling import Moment

        moment = Moment(self._settings.autoloader_settle_s, left=on_left or _say_nothing)
        marker = values.get("complete_when")

        def open_source(
            path: str, pattern: str | None, credentials: Mapping[str, str] | None
        ) -> LocalSource | ObjectStoreSource:
            self._learn(hidden_credentials(credentials or {}))
            return open_it(
                path,
                file_pattern=pattern,
                credentials=credentials,
                environ=self._environ,
                complete_when=marker,
                moment=moment,
                reach=self._reach(),
            )

        return open_source

    @contextmanager
    def _engine(self) -> Iterator[Engine]:
        from app.services.resting import RestingEngine

        with closing(RestingEngine(self._make_engine)) as engine:
            yield engine

    def _make_engine(self) -> Engine:
        from app.engines.embedded.engine import EmbeddedEngine

        return EmbeddedEngine(failpoints=self._failpoints)

    @contextmanager
    def _lazy_ledger(self, watcher: Watcher) -> Iterator[Callable[[], Ledger]]:
        from app.persistence.ledger import SqlLedger, ledger_exists, open_ledger

        opened: list[SqlLedger] = []

        def open_it() -> Ledger:
            if opened:
                return opened[-1]
            is_new = not ledger_exists(self._settings.ledger_url)
            opened.append(open_ledger(self._settings.ledger_url, self._failpoints))
            if is_new:
                watcher.note(f"Made a new ledger: {self.shown_ledger()} (AUTOLOADER_HOME is {self._settings.home}).")
            return opened[-1]

        try:
            yield open_it
        finally:
            for ledger in opened:
                ledger.dispose()

    @contextmanager
    def _existing_ledger(self) -> Iterator[Ledger | None]:
        from app.persistence.ledger import open_existing_ledger

        ledger = open_existing_ledger(self._settings.ledger_url)
        try:
            yield ledger
        finally:
            if ledger is not None:
                ledger.dispose()

    def _has_ledger(self) -> bool:
        from app.persistence.ledger import ledger_exists

        return ledger_exists(self._settings.ledger_url)

    def shown_ledger(self) -> str:
        """The database's address, passwords masked."""
        from app.persistence.ledger import shown_url

        return shown_url(self._settings.ledger_url)

    def _keep_out(self, table: TableName) -> tuple[str, ...]:
        warehouse = self._settings.warehouse
        if table.catalog == LOCAL_CATALOG or warehouse.exists():
            return (file_key(os.fsencode(warehouse)),)
        return ()

    def _run_settings(self) -> RunSettings:
        from app.services.run import RunSettings

        return RunSettings(
            lease_s=self._settings.autoloader_lease_s,
            batch_bytes=self._settings.autoloader_batch_bytes,
            batch_files=self._settings.autoloader_batch_files,
            file_tries=self._settings.autoloader_file_tries,
        )


def _anything() -> None:
    """What a person on the machine itself may read."""


def _forget(_secrets: Iterable[str]) -> None:
    """What learns secrets where nothing is told."""


def _say_nothing(_file: SourceFile) -> None:
    """What is told of files that are left, where the next look comes by itself."""


def _in_order(listing: Iterator[SourceFile], on_disorder: Callable[[str], None]) -> Iterator[SourceFile]:
    from app.domain.discovery import in_key_order
    from app.sources.sorting import DiskSorter

    return in_key_order(listing, DiskSorter(), on_disorder)


def build(settings: Settings, environ: Mapping[str, str], redactor: Redactor | None = None) -> Product:
    """The product for one process.

    Args:
        settings: What `read_settings` read.
        environ: The process's environment, for credentials of stores, and for failpoints.
        redactor: Told every secret that is read, where there is one.

    Raises:
        InvalidFieldError: AUTOLOADER_FAILPOINT holds none.
    """
    if redactor is None:
        return Product(settings, environ)
    learn_secrets(settings, environ, redactor)
    return Product(settings, environ, learn=redactor.learn)


@contextmanager
def _telling_of_left(left: Callable[[], int]) -> Iterator[None]:
    """Where no file matched but those that were left because they are still being written, say that."""
    try:
        yield
    except NoMatchError as error:
        if not left():
            raise
        raise NoMatchError(
            f"The only files that match are still being written ({left()}).",
            remedy="Nothing was loaded. Run it again when they are whole.",
        ) from error
