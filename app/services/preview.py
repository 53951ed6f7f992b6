"""A plan: which files, bytes, batches and schema changes a load would have. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from app.domain.definition import OnFileChange
from app.domain.discovery import LedgerPage, news
from app.domain.errors import SourceContainsWarehouseError
from app.domain.evolution import apply_changes, plan_changes
from app.domain.files import SourceFile
from app.domain.ledger import Ledger
from app.domain.ports import Catalog, Engine, Reading
from app.domain.runs import TableRecord
from app.domain.selection import Decision, decide, plan_batches
from app.domain.system_columns import data_columns
from app.domain.table import TableHead
from app.domain.table_checks import check_batches, check_identity
from app.domain.types import EMPTY, Struct
from app.services.batch_loading import new_table_schema
from app.services.preflight import LoadRequest, OpenSource, Prepared, check_format, prepare
from app.services.run import RunSettings


@dataclass(frozen=True)
class PlanPorts:
    """What a plan works with."""

    # None: there is no ledger yet, so every file is new.
    ledger: Ledger | None
    catalog: Catalog
    engine: Engine
    open_source: OpenSource
    in_order: Callable[[Iterator[SourceFile], Callable[[str], None]], Iterator[SourceFile]]
    keep_out: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What a load would do now. `schema` has the data columns of the table after the first batch."""

    table: str
    files: int
    stored_bytes: int
    batches: int
    known: int
    # Of `files` those that are new versions of loaded files.
    replaced: int
    appended: int
    schema: Struct
    changes: tuple[str, ...]
    warnings: tuple[str, ...]


def plan_load(ports: PlanPorts, settings: RunSettings, request: LoadRequest) -> Plan:
    """Say what a load of `request` would do now.

    Raises:
        AutoloaderError: As the load itself would before it reads a file.
    """
    prepared = prepare(request, ports.open_source, ports.keep_out)
    # The record first: a head that is read later holds whatever was committed before, by a load at work too.
    record = ports.ledger.table(str(request.table)) if ports.ledger else None
    head = ports.catalog.head(request.table)
    if head is not None and prepared.source.can_find_below(head.location):
        raise SourceContainsWarehouseError(f"The source {request.path} contains the table at {head.location}.")
    given_out: Mapping[str, int] = {}
    foreign: frozenset[str] = frozenset()
    if ports.ledger is not None and record is not None:
        check_identity(record, head)
        given_out = ports.ledger.committed_batches(record)
        foreign = ports.ledger.foreign_ingestions(record)
    check_batches(str(request.table), head, given_out, foreign)
    new = _NewFiles(ports, settings, request, prepared, record)
    first: tuple[SourceFile, ...] = ()
    batches = files = stored_bytes = 0
    for group in plan_batches(new.stream(), batch_bytes=settings.batch_bytes, batch_files=settings.batch_files):
        first = first or group
        batches += 1
        files += len(group)
        stored_bytes += sum(f.size_bytes for f in group)
    replaces = prepared.definition.on_file_change is OnFileChange.REPLACE
    schema, changes, warnings = _schema_after(ports.engine, prepared, head, first)
    return Plan(
        table=str(request.table),
        files=files,
        stored_bytes=stored_bytes,
        batches=batches,
        known=new.known,
        replaced=new.versions if replaces else 0,
        appended=0 if replaces else new.versions,
        schema=schema,
        changes=changes,
        warnings=warnings,
    )


class _NewFiles:
    """The files that a load would take, and how many it knows."""

    def __init__(
        self,
        ports: PlanPorts,
        settings: RunSettings,
        request: LoadRequest,
        prepared: Prepared,
        record: TableRecord | None,
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._request = request
        self._prepared = prepared
        self._record = record
        self.known = 0
        # New versions of loaded files.
        self.versions = 0

    def _ledger_pages(self, key: str) -> Iterator[LedgerPage]:
        if self._ports.ledger is None or self._record is None:
            return iter(())
        return self._ports.ledger.pages_after(self._record, key)

    def _count_known(self, _file: SourceFile) -> None:
        self.known += 1

    def stream(self) -> Iterator[SourceFile]:
        now = datetime.now(UTC)
        listing = self._ports.in_order(self._prepared.listing, lambda _key: None)
        for sighting in news(listing, self._ledger_pages, self._count_known):
            decision = decide(
                sighting.file,
                sighting.known,
                now=now,
                max_tries=self._settings.file_tries,
                retry_failed=self._request.retry_failed,
                on_file_change=self._prepared.definition.on_file_change,
            )
            if decision.loads:
                self.versions += decision is Decision.LOAD_VERSION
                if self._prepared.by_name:
                    check_format(sighting.file, self._prepared.definition)
                yield sighting.file
            elif decision is Decision.KNOWN:
                self.known += 1


def _schema_after(
    engine: Engine, prepared: Prepared, head: TableHead | None, files: tuple[SourceFile, ...]
) -> tuple[Struct, tuple[str, ...], tuple[str, ...]]:
    known = data_columns(head.schema) if head else EMPTY
    if not files:
        return known, (), ()
    reading = Reading(prepared.source.reader(), prepared.definition.options)
    inferred = engine.infer(files, reading, known)
    warnings = (*inferred.warnings, *(f"{f.key} cannot be read: {f.message}" for f in inferred.failed))
    if head is None:
        schema = data_columns(new_table_schema(inferred.schema, provenance=False))
        return (
            schema,
            (f"create table with {len(schema.fields)} column{'' if len(schema.fields) == 1 else 's'}",),
            warnings,
        )
    changes = plan_changes(known, inferred.schema)
    return apply_changes(known, changes), tuple(str(c) for c in changes), warnings
