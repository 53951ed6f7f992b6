"""One Iceberg catalog, whichever pyiceberg speaks to."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import cast

from pyiceberg.catalog import Catalog as Inner
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import CommitFailedException, NamespaceAlreadyExistsError
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.utils.config import Config, merge_config

from app.destinations.contents import contents
from app.destinations.describing import TableDescription, describe
from app.destinations.draft import CONTEST_S, ROUNDS, ExistingDraft, NewDraft, Target, load_guarded
from app.destinations.expiring import expire, expired, noted_manifests
from app.destinations.guard import Guard
from app.destinations.heads import table_head
from app.destinations.manifests import find_manifest, read_manifest
from app.destinations.properties import missing_properties, new_table_properties
from app.destinations.querying import printed_query, query
from app.destinations.refusal import fenced, is_in
from app.destinations.schema_changes import assert_suitable, evolve, missing_system_columns
from app.destinations.schemas import from_iceberg
from app.destinations.slim import history, slim
from app.destinations.staging import stage
from app.destinations.storage import data_folder, manifest_folder, references, remove
from app.destinations.translation import (
    committing,
    creating,
    listing,
    opening,
    preparing,
    reading,
    redacted,
    short,
    translated,
)
from app.domain.batch import BatchManifest, BatchRef
from app.domain.errors import (
    AutoloaderError,
    CatalogRefusedError,
    CatalogUnreachableError,
    TableConflictError,
    TableNotFoundError,
    TableUnreadableError,
    WriteFailureError,
)
from app.domain.evolution import Change
from app.domain.failpoints import NO_FAILPOINTS, Failpoints
from app.domain.ports import Draft, FoundBatch
from app.domain.system_columns import FILE_PATH
from app.domain.table import SNAPSHOT_EPOCH, TableHead, TableName, epoch_property
from app.domain.types import Struct
from app.domain.upkeep import Contents, Expired, References, StoredObject

Opener = Callable[[str, Mapping[str, str]], Inner]

SNAPSHOT_FENCE = "autoloader.fence"
OPEN_TRIES = 5
TIMEOUT_S = 60.0


def open_catalog(name: str, properties: Mapping[str, str], *, timeout_s: float = TIMEOUT_S) -> Inner:
    """The catalog of pyiceberg for these properties, together with what its own configuration says of the name.

    Args:
        name: The catalog's.
        properties: In pyiceberg's words.
        timeout_s: Seconds that a REST catalog may be silent.
    """
    whole = merge_config(Config().get_catalog_config(name) or {}, dict(properties))
    given = cast("dict[str, str]", whole)
    kind = _kind(whole)
    # Each is imported only where there is such a catalog.
    if kind == "rest":
        from app.destinations.rest import PatientRestCatalog  # noqa: PLC0415

        return PatientRestCatalog(name, timeout_s, **given)
    if kind == "sql":
        from app.destinations.sql import AttentiveSqlCatalog  # noqa: PLC0415

        return AttentiveSqlCatalog(name, **given)
    return load_catalog(name, **properties)


def _kind(properties: Mapping[str, object]) -> str:
    """What pyiceberg would take these for: `rest`, `sql`, or "" for anything else."""
    kind, uri = properties.get("type"), properties.get("uri")
    if not isinstance(uri, str) or "py-catalog-impl" in properties:
        return ""
    if kind:
        return str(kind).lower()
    if uri.startswith("http"):
        return "rest"
    return "sql" if uri.startswith(("sqlite", "postgresql")) else ""


class IcebergCatalog:
    """The port `Catalog`, and what is needed to look at tables. It may be used from several threads."""

    def __init__(
        self,
        name: str,
        properties: Mapping[str, str],
        *,
        opener: Opener = open_catalog,
        local_file: Path | None = None,
        contest_s: float = CONTEST_S,
        failpoints: Failpoints = NO_FAILPOINTS,
    ) -> None:
        """Nothing is opened or made before it is needed.

        Args:
            name: As tables' names begin with it.
            properties: In pyiceberg's words.
            opener: Opens the catalog; called once.
            local_file: The SQLite file of a catalog that is made when something is first written to it, and that is
                empty before.
            contest_s: Seconds after which a contest with other writers for the next commit is given up for now.
            failpoints: For tests.
        """
        self.name = name
        self._shown = name if local_file is None else f"{name} in {local_file}"
        self._properties = dict(properties)
        self._opener = opener
        self._local_file = local_file
        self._contest_s = contest_s
        self._failpoints = failpoints
        self._opened: Inner | None = None
        self._opening = threading.Lock()

    # --- the port ------------------------------------------------------------------------------------------------

    def head(self, table: TableName) -> TableHead | None:
        """The table now; None where there is none. Raises as the port says."""
        loaded = self._find(table)
        return None if loaded is None else table_head(table, loaded.metadata)

    def draft_new(self, table: TableName, schema: Struct, properties: Mapping[str, str]) -> Draft:
        """A table that does not exist yet. Raises as the port says."""
        inner = self._open_or_make()
        target = self._target(inner, table)
        self._make_namespace(inner, table)
        if self._find(table) is not None:
            raise TableConflictError(f"The table {table} exists by now.")
        provenance = schema.find(FILE_PATH) is not None
        with translated(creating, str(table)):
            staged = stage(inner, target, schema, new_table_properties(properties, provenance=provenance))
        return NewDraft(target, staged, staged.metadata)

    def draft(self, table: TableName, changes: Sequence[Change], *, provenance: bool = True) -> Draft:
        """The existing table with `changes` made. Raises as the port says."""
        loaded = self.load(table)
        assert_suitable(loaded.metadata, str(table))
        missing_system_columns(from_iceberg(loaded.metadata.schema()), str(table), provenance=provenance)
        make_changes = partial(evolve, changes=tuple(changes), table=str(table), provenance=provenance)
        loaded.metadata = slim(loaded.metadata, history(loaded.metadata))
        with translated(preparing, str(table)):
            transaction = loaded.transaction()
            make_changes(transaction)
            additions = missing_properties(loaded.metadata.properties, provenance=provenance)
            if additions:
                # Before data files are measured: what is kept of their bounds is up to these properties.
                transaction.set_properties(additions)
            metadata = transaction.table_metadata
        return ExistingDraft(
            self._target(loaded.catalog, table),
            loaded,
            metadata,
            evolve=make_changes,
            additions=additions,
        )

    def find_batch(self, table: TableName, batch: BatchRef) -> FoundBatch | None:
        """The batch as the table has it; None where it does not. Raises as the port says."""
        loaded = self._find(table)
        if loaded is None or not is_in(loaded.metadata, batch):
            return None
        try:
            manifest = find_manifest(loaded.metadata, batch, loaded.io)
        except OSError as error:
            raise CatalogUnreachableError(f"The manifests of {table} cannot be read.") from error
        return FoundBatch(manifest, table_head(table, loaded.metadata))

    def fence(self, table: TableName, batch: BatchRef, assert_lease: Callable[[], None]) -> TableHead:
        """Shut out every commit of the batch's ingestion under a lower epoch. Raises as the port says."""
        target = self._target(self.load(table).catalog, table)
        for attempt in range(ROUNDS):
            try:
                return table_head(table, _fence(target, batch, assert_lease))
            except CommitFailedException:
                time.sleep(0.01 * (attempt + 1))
        raise TableConflictError(f"Other writers of {table} were faster {ROUNDS} times; try again later.")

    def expire(self, table: TableName, batch: BatchRef, assert_lease: Callable[[], None]) -> int:
        """Let go of the snapshots that nobody asks to keep. Raises as the port says."""
        return expire(self._target(self.load(table).catalog, table), batch, assert_lease)

    # --- looking -------------------------------------------------------------------------------------------------

    def load(self, table: TableName) -> Table:
        """The table as pyiceberg shows it.

        Raises:
            TableNotFoundError: There is none. Else as `head`.
        """
        loaded = self._find(table)
        if loaded is None:
            raise TableNotFoundError(f"There is no table {table}.")
        return loaded

    def describe(self, table: TableName) -> TableDescription:
        """What is there to see of the table. Raises as `load`."""
        loaded = self.load(table)
        with translated(reading, str(table)):
            return describe(table, loaded)

    def query(self, table: TableName, sql: str) -> list[dict[str, object]]:
        """The rows that one SELECT over the table gives; it sees this table and nothing else.

        Args:
            table: The only table in sight, as `table`, `db.table` and `catalog.db.table`.
            sql: In DuckDB's dialect.

        Raises:
            InvalidQueryError: It is no SELECT, or DuckDB cannot run it. Else as `load`.
        """
        loaded = self.load(table)
        return query(table, loaded.metadata, loaded.metadata_location, loaded.io.properties, sql)

    def contents(self, table: TableName) -> Contents:
        """The table's rows, counted by file and batch. Raises as the port `TableReader` says."""
        return contents(table, self.load(table))

    # --- upkeep --------------------------------------------------------------------------------------------------

    def data_folder(self, table: TableName) -> Iterator[StoredObject]:
        """What lies where data files are written. Raises as the port `TableStorage` says, before it yields."""
        loaded = self.load(table)
        with translated(listing, str(table)):
            return iter(list(data_folder(loaded)))

    def manifest_folder(self, table: TableName) -> Iterator[StoredObject]:
        """What lies where manifests are kept. Raises as the port `TableStorage` says, before it yields."""
        loaded = self.load(table)
        with translated(listing, str(table)):
            return iter(list(manifest_folder(loaded)))

    def read_manifests(self, table: TableName, paths: Iterable[str]) -> Iterator[BatchManifest | None]:
        """The manifest at each of the paths. Raises as the port `TableStorage` says."""
        loaded = self.load(table)
        for path in paths:
            with translated(listing, str(table)):
                manifest = read_manifest(path, loaded.io)
            yield manifest

    def references(self, table: TableName, names: Collection[str]) -> References:
        """What the metadata of now holds on to. Raises as the port `TableStorage` says."""
        loaded = self.load(table)
        with translated(reading, str(table)):
            return references(table, loaded, names, noted_manifests(loaded))

    def expired(self, table: TableName, before: datetime) -> Expired:
        """What is left of snapshots that went. Raises as the port `TableStorage` says."""
        loaded = self.load(table)
        with translated(reading, str(table)):
            return expired(loaded, before)

    def remove(self, table: TableName, paths: Iterable[str]) -> None:
        """Remove files beside the table. Raises as the port `TableStorage` says."""
        loaded = self.load(table)
        for path in paths:
            with self._failpoints.step("leftover_removed"):
                remove(path, loaded.io)

    # --- looking for people --------------------------------------------------------------------------------------

    def drop(self, table: TableName) -> bool:
        """Take the table out of the catalog; False where there is none. Its files stay where they are.

        Raises:
            CatalogUnreachableError, CatalogAuthError, CatalogRefusedError: It may still be there.
        """
        inner = self._open()
        if inner is None:
            return False
        try:
            with translated(reading, str(table)):
                inner.drop_table((*table.namespace, table.name))
        except TableNotFoundError:
            return False
        return True

    def printed_query(self, table: TableName) -> str:
        """A query that `query` runs as it stands."""
        return printed_query(table)

    def ping(self) -> str | None:
        """None when the catalog answers, else why it does not, in a sentence without secrets. Makes no warehouse."""
        try:
            inner = self._open()
            if inner is not None:
                with translated(reading, self.name):
                    inner.list_namespaces()
        except AutoloaderError as error:
            return redacted(error.message, self._properties)
        return None

    def close(self) -> None:
        """Let go of connections. Idempotent."""
        with self._opening:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    # --- opening -------------------------------------------------------------------------------------------------

    def _open(self) -> Inner | None:
        with self._opening:
            if self._opened is None and (self._local_file is None or self._local_file.exists()):
                self._opened = self._open_patiently()
            return self._opened

    def _open_patiently(self) -> Inner:
        # Two processes that open a new SQLite catalog at once both make its tables, and one of them fails.
        for attempt in range(OPEN_TRIES):
            try:
                with translated(opening, self._shown):
                    return self._opener(self.name, self._properties)
            except CatalogUnreachableError:
                if self._local_file is None or attempt == OPEN_TRIES - 1:
                    raise
                time.sleep(0.05 * (attempt + 1))
        raise CatalogUnreachableError(f"The catalog {self.name!r} does not answer.")

    def _open_or_make(self) -> Inner:
        if self._local_file is not None and not is_made(self._local_file):
            make_local_file(self._local_file)
        inner = self._open()
        if inner is None:
            raise CatalogUnreachableError(f"The file of the catalog {self.name!r} vanished.")
        return inner

    def _find(self, table: TableName) -> Table | None:
        inner = self._open()
        if inner is None:
            return None
        identifier = (*table.namespace, table.name)
        try:
            with translated(reading, str(table)):
                return inner.load_table(identifier)
        except TableNotFoundError:
            self._refuse_view(inner, identifier, table)
            return None

    def _refuse_view(self, inner: Inner, identifier: tuple[str, ...], table: TableName) -> None:
        try:
            with translated(reading, str(table)):
                is_view = inner.view_exists(identifier)
        except (AutoloaderError, NotImplementedError):
            # Most catalogs know no views; then the name is simply free.
            return
        if is_view:
            raise TableUnreadableError(f"{table} is a view, not a table.")

    def _make_namespace(self, inner: Inner, table: TableName) -> None:
        for depth in range(1, len(table.namespace) + 1):
            namespace = table.namespace[:depth]
            try:
                with translated(creating, str(table)):
                    if not inner.namespace_exists(namespace):
                        inner.create_namespace(namespace)
            except NamespaceAlreadyExistsError:
                continue
            except (CatalogUnreachableError, CatalogRefusedError):
                # Somebody may have made it in the same moment; that is all we want.
                with translated(creating, str(table)):
                    if not inner.namespace_exists(namespace):
                        raise

    def _target(self, inner: Inner, table: TableName) -> Target:
        warehouse = str(inner.properties.get("warehouse", ""))
        place = warehouse if "/" in warehouse else ""
        return Target(inner, (*table.namespace, table.name), str(table), place, self._contest_s, self._failpoints)


def is_made(path: Path) -> bool:
    """Whether a catalog's file is there. One without a byte is what a full disk or a killed process leaves."""
    return path.exists() and path.stat().st_size > 0


def make_local_file(path: Path) -> None:
    """Make an empty SQLite file whose readers and writers do not lock each other out.

    Raises:
        WriteFailureError: It cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            connection.execute("pragma journal_mode=wal")
    except (OSError, sqlite3.OperationalError) as error:
        raise WriteFailureError(f"The catalog {path} could not be made: {short(error)}.") from error


def _fence(target: Target, batch: BatchRef, assert_lease: Callable[[], None]) -> TableMetadata:
    guard = Guard(
        target.catalog,
        lambda metadata: fenced(metadata, batch),
        assert_lease,
        failpoints=target.failpoints,
        step="fence_request",
    )
    try:
        table = load_guarded(guard, target)
    except TableConflictError as error:
        raise TableNotFoundError(f"There is no table {target.name}.") from error
    verdict = fenced(table.metadata, batch)
    if verdict is not None:
        raise verdict
    with translated(preparing, target.name):
        transaction = table.transaction()
        transaction.set_properties({epoch_property(batch.ingestion_id): str(batch.epoch)})
        # The empty snapshot moves the head that an older process asserts; the property stops that process's retry.
        summary = {SNAPSHOT_FENCE: batch.ingestion_id, SNAPSHOT_EPOCH: str(batch.epoch)}
        with transaction.update_snapshot(snapshot_properties=summary).fast_append():
            pass
    with translated(committing, target.name):
        return guard.whole(transaction.commit_transaction())
