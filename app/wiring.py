"""Builds the services from the settings: the only file that names concrete classes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from app.config import Settings
from app.domain.discovery import in_key_order
from app.domain.errors import TableNotFoundError
from app.domain.files import LedgerFile, SourceFile
from app.domain.locations import file_key
from app.domain.ports import Engine, Source
from app.domain.runs import RunReport
from app.domain.table import TableName, parse_table_name
from app.domain.watch import Failpoint, Watcher
from app.services.checking import CheckPorts, CheckReport, CheckRequest, check
from app.services.loading import LoadService
from app.services.preflight import LoadRequest
from app.services.preview import Plan, PlanPorts, plan_load
from app.services.rebuilding import Rebuilder, RebuildPorts, RebuildReport, RebuildRequest
from app.services.run import LoadPorts, RunSettings
from app.services.sweeping import Sweeper, SweepReport

if TYPE_CHECKING:
    from app.destinations.catalog import IcebergCatalog
    from app.domain.ledger import Ledger

LOCAL_CATALOG = "local"
LEASE_GRACE_S = 5.0
FAILPOINT_VARIABLE = "AUTOLOADER_FAILPOINT"


class Product:
    """Everything that one process can do, built when it is asked for. Libraries are imported then, not before."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ

    # --- verbs ------------------------------------------------------------------------------------------------------

    def table_name(self, text: str) -> TableName:
        """The table that a user names."""
        return parse_table_name(text, default_catalog=self._settings.autoloader_default_catalog)

    @property
    def default_wait_s(self) -> float:
        """How long a load waits for another one on its table: long enough for the lease of a dead one to run out."""
        return self._settings.autoloader_lease_s + LEASE_GRACE_S

    def load(self, request: LoadRequest, watcher: Watcher) -> RunReport:
        """Load what is new."""
        with self._engine() as engine, self._lazy_ledger(watcher) as open_ledger:
            from app.persistence.leases import this_process

            catalog = self.catalog(request.table.catalog)
            ports = LoadPorts(
                open_ledger=open_ledger,
                has_ledger=self._has_ledger,
                catalog=catalog,
                storage=catalog,
                reader=catalog,
                engine=engine,
                open_source=self._open_source,
                in_order=_in_order,
                owner=this_process(),
                failpoint=self._failpoint(),
                keep_out=self._keep_out(request.table),
            )
            return LoadService(ports, self._run_settings()).load(request, watcher)

    def plan(self, request: LoadRequest) -> Plan:
        """Say what a load would do."""
        with self._engine() as engine, self._existing_ledger() as ledger:
            ports = PlanPorts(
                ledger=ledger,
                catalog=self.catalog(request.table.catalog),
                engine=engine,
                open_source=self._open_source,
                in_order=_in_order,
                keep_out=self._keep_out(request.table),
            )
            return plan_load(ports, self._run_settings(), request)

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

    def clear(self, table: TableName) -> tuple[int, int]:
        """Begin a new generation of a table's ledger; returns (files forgotten, new generation).

        Raises:
            TableNotFoundError: No ledger knows the table.
            RunInProgressError: A run is at work on it.
        """
        with self._existing_ledger() as ledger:
            record = ledger.table(str(table)) if ledger else None
            if ledger is None or record is None:
                raise self._unknown(table)
            return ledger.clear(record)

    def check(self, request: CheckRequest) -> CheckReport:
        """Hold a table against its ledger, and against a source.

        Raises:
            TableNotFoundError: No ledger knows the table.
        """
        with self._existing_ledger() as ledger:
            if ledger is None:
                raise self._unknown(request.table)
            ports = CheckPorts(
                ledger=ledger,
                reader=self.catalog(request.table.catalog),
                open_source=self._open_source,
                in_order=_in_order,
                keep_out=self._keep_out(request.table),
            )
            return check(ports, request)

    def sweep(self, table: TableName, *, dry_run: bool) -> SweepReport:
        """Remove what killed runs left beside a table, or only say what that is.

        Raises:
            TableNotFoundError: There is no table, or no ledger of it.
        """
        with self._existing_ledger() as ledger:
            if ledger is None:
                raise self._unknown(table)
            sweeper = Sweeper(ledger, self.catalog(table.catalog), table, lease_s=self._settings.autoloader_lease_s)
            return sweeper.sweep(dry_run=dry_run)

    def rebuild(self, request: RebuildRequest, watcher: Watcher) -> RebuildReport:
        """Give a table's ledger back from the table."""
        from app.persistence.leases import this_process

        catalog = self.catalog(request.table.catalog)
        if catalog.head(request.table) is None:
            raise TableNotFoundError(f"There is no table {request.table}.")
        with self._lazy_ledger(watcher) as open_ledger:
            ports = RebuildPorts(open_ledger(), catalog, catalog, catalog, this_process())
            return Rebuilder(ports, request.table, lease_s=self._settings.autoloader_lease_s).run(request)

    def catalog(self, name: str) -> IcebergCatalog:
        """The catalog of that name.

        Raises:
            CatalogNotConfiguredError: There is none.
        """
        from app.destinations.configured import configured_catalog, local_catalog

        if name == LOCAL_CATALOG:
            return local_catalog(self._settings.warehouse)
        return configured_catalog(name)

    def catalogs(self) -> list[str]:
        """The names of the catalogs that can be used."""
        from app.destinations.configured import configured_catalogs

        return [LOCAL_CATALOG, *(name for name in configured_catalogs() if name != LOCAL_CATALOG)]

    def _unknown(self, table: TableName) -> TableNotFoundError:
        return TableNotFoundError(f"No load into {table} is known to the ledger {self._shown_ledger()}.")

    # --- parts ------------------------------------------------------------------------------------------------------

    def _open_source(self, path: str, pattern: str | None, credentials: Mapping[str, str] | None) -> Source:
        from app.sources.factory import open_source

        return open_source(path, file_pattern=pattern, credentials=credentials, environ=self._environ)

    @contextmanager
    def _engine(self) -> Iterator[Engine]:
        from app.engines.embedded.engine import EmbeddedEngine

        engine = EmbeddedEngine()
        try:
            yield engine
        finally:
            engine.close()

    @contextmanager
    def _lazy_ledger(self, watcher: Watcher) -> Iterator[Callable[[], Ledger]]:
        from app.persistence.ledger import SqlLedger, ledger_exists, open_ledger

        opened: list[SqlLedger] = []

        def open_it() -> Ledger:
            is_new = not ledger_exists(self._settings.ledger_url)
            opened.append(open_ledger(self._settings.ledger_url))
            if is_new:
                watcher.note(f"Made a new ledger: {self._shown_ledger()} (AUTOLOADER_HOME is {self._settings.home}).")
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

    def _shown_ledger(self) -> str:
        from app.persistence.ledger import shown_url

        return shown_url(self._settings.ledger_url)

    def _keep_out(self, table: TableName) -> tuple[str, ...]:
        warehouse = self._settings.warehouse
        if table.catalog == LOCAL_CATALOG or warehouse.exists():
            return (file_key(os.fsencode(warehouse)),)
        return ()

    def _run_settings(self) -> RunSettings:
        return RunSettings(
            lease_s=self._settings.autoloader_lease_s,
            batch_bytes=self._settings.autoloader_batch_bytes,
            batch_files=self._settings.autoloader_batch_files,
            file_tries=self._settings.autoloader_file_tries,
        )

    def _failpoint(self) -> Failpoint:
        """Dies at the place that AUTOLOADER_FAILPOINT names, as a machine would that loses its power there.

        `NAME:stop` stops the process instead, as a machine would that is suspended.
        """
        wanted, _, action = self._environ.get(FAILPOINT_VARIABLE, "").partition(":")
        what = signal.SIGSTOP if action == "stop" else signal.SIGKILL

        def failpoint(name: str) -> None:
            if name == wanted:
                os.kill(os.getpid(), what)

        return failpoint


def _in_order(listing: Iterator[SourceFile], on_disorder: Callable[[str], None]) -> Iterator[SourceFile]:
    from app.sources.sorting import DiskSorter

    return in_key_order(listing, DiskSorter(), on_disorder)


def build(settings: Settings, environ: Mapping[str, str]) -> Product:
    """The product for one process.

    Args:
        settings: What `read_settings` read.
        environ: The process's environment, for credentials of stores.
    """
    return Product(settings, environ)
