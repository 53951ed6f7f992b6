"""Hold a source's listing, the ledger and the table against each other: the proof that nothing is missing or twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from app.domain.comparison import Difference, DifferenceKind, compare_files
from app.domain.discovery import Sighting, merge_join
from app.domain.errors import TableNotFoundError
from app.domain.files import FileState, LedgerFile, SourceFile, version_by_time
from app.domain.ledger import Ledger
from app.domain.runs import TableRecord
from app.domain.table import TableName
from app.domain.table_checks import check_identity
from app.domain.upkeep import Contents, TableReader
from app.services.preflight import LoadRequest, OpenSource, prepare

# Of each kind so many files are named, however many there are.
DEFAULT_LIMIT = 1_000


@dataclass(frozen=True)
class CheckPorts:
    """What a check works with."""

    ledger: Ledger
    reader: TableReader
    open_source: OpenSource
    in_order: Callable[[Iterator[SourceFile], Callable[[str], None]], Iterator[SourceFile]]
    keep_out: tuple[str, ...]


@dataclass(frozen=True)
class CheckRequest:
    """Which table, against which source; without a source only ledger and table are compared."""

    table: TableName
    source: LoadRequest | None = None
    limit: int = DEFAULT_LIMIT


@dataclass
class Tally:
    """How many files of one kind differ, and the first of them."""

    count: int = 0
    first: list[Difference] = field(default_factory=list)


@dataclass
class CheckReport:
    """What was found. Memory does not grow with the number of files."""

    table: str
    source: str | None
    checked_at: datetime
    snapshot_id: int | None = None
    generation: int = 1
    by_file: bool = True
    files_listed: int | None = None
    files_in_ledger: int = 0
    files_in_table: int = 0
    rows_in_ledger: int = 0
    rows_in_table: int = 0
    # Rows that name no file: another writer's.
    rows_of_no_file: int = 0
    # Batches that were claimed and not closed when the check began.
    open_batches: int = 0
    # A load was at work meanwhile, or was killed: a difference may be one that it settles.
    disturbed: bool = False
    duration_s: float = 0.0
    differences: dict[DifferenceKind, Tally] = field(default_factory=lambda: {kind: Tally() for kind in DifferenceKind})

    @property
    def equal(self) -> bool:
        """Whether listing, ledger and table agree on every file, and there was something to agree on."""
        return not self.proves_nothing and not any(tally.count for tally in self.differences.values())

    @property
    def proves_nothing(self) -> bool:
        """Whether the source showed no file although files were loaded: what is not listed cannot be missed."""
        return self.files_listed == 0 and self.files_in_ledger > 0

    def warnings(self) -> list[str]:
        """What keeps the report from being a proof, for people."""
        if not self.proves_nothing:
            return []
        known = f"the ledger knows loaded files ({self.files_in_ledger})"
        advice = "Check the path and the pattern; if all files were taken away on purpose, check without a source."
        return [f"Nothing was listed in {self.source}, so that nothing is proven: {known}. {advice}"]


def check(ports: CheckPorts, request: CheckRequest) -> CheckReport:
    """Compare, writing nothing.

    The listing is read first, then the table, then the ledger. A load that is at work meanwhile may show as a
    difference; `disturbed` says that there was one.

    Raises:
        TableNotFoundError: No ledger knows the table.
        TableReplacedError, TableRolledBackError: It is not the table that the ledger knows.
        AutoloaderError: As `prepare` for the source, as `TableReader.contents` for the table.
    """
    began = time.monotonic()
    record = ports.ledger.table(str(request.table))
    if record is None:
        raise TableNotFoundError(f"No load into {request.table} is known to this ledger.")
    report = CheckReport(
        table=str(request.table),
        source=request.source.path if request.source else None,
        checked_at=datetime.now(UTC),
        generation=record.generation,
        open_batches=ports.ledger.count_open_batches(record),
    )
    tell = _Teller(report, request.limit)
    if request.source is not None:
        _check_listing(ports, record, request.source, tell)
    _check_table(ports, record, request.table, tell)
    after = ports.ledger.table(str(request.table))
    report.disturbed = after != record or report.open_batches > 0 or ports.ledger.count_open_batches(record) > 0
    report.duration_s = time.monotonic() - began
    return report


class _Teller:
    """Writes differences into a report."""

    def __init__(self, report: CheckReport, limit: int) -> None:
        self.report = report
        self._limit = limit

    def __call__(self, difference: Difference) -> None:
        tally = self.report.differences[difference.kind]
        tally.count += 1
        if len(tally.first) < self._limit:
            tally.first.append(difference)


def _check_listing(ports: CheckPorts, record: TableRecord, source: LoadRequest, tell: _Teller) -> None:
    prepared = prepare(source, ports.open_source, ports.keep_out)
    listing = ports.in_order(prepared.listing, lambda _key: None)
    listed = 0
    for sighting in merge_join(listing, lambda key: ports.ledger.versions_after(record, key)):
        listed += 1
        kind = missing(sighting)
        if kind is not None:
            tell(Difference(kind, sighting.file.key, sighting.file.version))
    tell.report.files_listed = listed


def missing(sighting: Sighting) -> DifferenceKind | None:
    """Why a listed file is not in the table in the version that is listed; None when it is, or has no rows to be in."""
    file, known = sighting.file, sighting.known
    states = {k.version: k.state for k in known}
    state = states.get(file.version) or states.get(version_by_time(file.modified_at))
    if state is FileState.SUCCESS:
        return None
    if FileState.SUCCESS in states.values():
        return DifferenceKind.CHANGED
    if state is FileState.FAILED:
        return DifferenceKind.FAILED
    return None if file.size_bytes == 0 else DifferenceKind.NOT_LOADED


def _check_table(ports: CheckPorts, record: TableRecord, table: TableName, tell: _Teller) -> None:
    report = tell.report
    contents = _contents(ports.reader, record, table)
    if contents is None:
        _compare(ports.ledger.files_after(record, ""), None, tell)
        return
    check_identity(record, contents.head)
    report.snapshot_id = contents.head.snapshot_id
    report.by_file = contents.by_file
    _compare(ports.ledger.files_after(record, ""), contents, tell)


def _contents(reader: TableReader, record: TableRecord, table: TableName) -> Contents | None:
    try:
        return reader.contents(table)
    except TableNotFoundError:
        # Nothing was ever committed: then no table is what there should be.
        check_identity(record, None)
        return None


def _compare(ledger: Iterator[LedgerFile], contents: Contents | None, tell: _Teller) -> None:
    report = tell.report
    if contents is not None and not contents.by_file:
        _compare_totals(ledger, contents, tell)
        return
    for compared in compare_files(ledger, contents.files if contents else ()):
        if compared.key is None:
            report.rows_of_no_file += compared.table_rows
            continue
        report.files_in_ledger += compared.ledger_rows is not None
        report.files_in_table += compared.table_rows > 0
        report.rows_in_ledger += compared.ledger_rows or 0
        report.rows_in_table += compared.table_rows
        if compared.difference is not None:
            tell(compared.difference)


def _compare_totals(ledger: Iterator[LedgerFile], contents: Contents, tell: _Teller) -> None:
    """Of a table whose rows name no files nothing but the sum can be compared."""
    report = tell.report
    for file in ledger:
        if file.state is FileState.SUCCESS:
            report.files_in_ledger += 1
            report.rows_in_ledger += file.rows or 0
    report.rows_in_table = sum(f.rows for f in contents.files)
    if report.rows_in_table != report.rows_in_ledger:
        tell(
            Difference(
                DifferenceKind.ROWS_DIFFER, None, ledger_rows=report.rows_in_ledger, table_rows=report.rows_in_table
            )
        )
