"""`autoloader load`."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.errors import FAILED, error_document, exit_code
from app.cli.options import (
    CredentialsOption,
    Output,
    OutputOption,
    RetryOption,
    SourceArgument,
    ToOption,
    VerboseOption,
    chosen,
    one_source,
    read_credentials,
    with_definition_options,
)
from app.cli.product import product
from app.cli.render import WHY_LEFT_ALONE, count, print_json, size
from app.domain.errors import AutoloaderError, FileFailure, StoppedByUser, UsageError
from app.domain.runs import RunReport, RunStatus
from app.domain.watching import Beat, parse_duration

if TYPE_CHECKING:
    from app.services.preflight import LoadRequest
    from app.wiring.product import Product

EXIT_CODES = {RunStatus.SUCCESS: 0, RunStatus.FAILED: FAILED, RunStatus.PARTIAL: 3, RunStatus.CANCELLED: 130}
ERRORS_SHOWN = 10
EVERY = "5s"


@with_definition_options
def load(
    source: SourceArgument,
    *,
    to: ToOption,
    credentials: CredentialsOption = None,
    retry_failed: RetryOption = False,
    wait: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds to wait while another run loads the table (default: lease + 5)."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and load what lands, until stopped.")] = False,
    every: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="With --watch: how often to look where nothing tells (default: 5s)."),
    ] = None,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
    **values: Any,  # noqa: ANN401 - the fields of a definition
) -> None:
    """Load what is new in SOURCE into an Iceberg table, every row once.

    Run it again whenever you like: files that were loaded are known. The table is made when it is missing.
    """
    began = time.monotonic()
    asked = _Asked(values, credentials, retry_failed=retry_failed, wait=wait, verbose=verbose)
    try:
        beat = _beat(watch=watch, every=every)
        if beat is not None:
            raise typer.Exit(_watch(one_source(source), to, asked, beat, output))
        report = _run(one_source(source), to, asked)
    except AutoloaderError as error:
        if output is Output.TEXT:
            raise
        # What stops a load before it begins has the same form as what stops it later.
        report = RunReport(run_id="", table=to, status=RunStatus.FAILED, stopped_by=error)
        print_json(report_document(report, time.monotonic() - began))
        raise typer.Exit(exit_code(error)) from error
    except StoppedByUser as stopped:
        if output is Output.JSON and isinstance(stopped.report, RunReport):
            print_json(report_document(stopped.report, time.monotonic() - began))
        raise
    if output is Output.JSON:
        print_json(report_document(report, time.monotonic() - began))
    else:
        _show(report, time.monotonic() - began, to)
    raise typer.Exit(EXIT_CODES[report.status])


@dataclass(frozen=True)
class _Asked:
    """What the options say."""

    values: dict[str, Any]
    credentials: str | None
    retry_failed: bool
    wait: float | None
    verbose: bool

    def request(self, the_product: Product, path: str, to: str, default_wait_s: float) -> LoadRequest:
        """The request that they make."""
        from app.services.preflight import LoadRequest

        return LoadRequest(
            path=path,
            table=the_product.table_name(to),
            values=chosen(self.values),
            credentials=read_credentials(self.credentials),
            retry_failed=self.retry_failed,
            wait_s=default_wait_s if self.wait is None else self.wait,
        )


def _run(path: str, to: str, asked: _Asked) -> RunReport:
    from app.cli.progress import watcher

    the_product = product(verbose=asked.verbose)
    request = asked.request(the_product, path, to, the_product.default_wait_s)
    with watcher() as watching:
        return the_product.load(request, watching)


def _beat(*, watch: bool, every: str | None) -> Beat | None:
    """How often a watch looks; None for a load that ends.

    Raises:
        UsageError: What was given is no time, or has no use.
    """
    if every is not None and not watch:
        raise UsageError("--every has a meaning with --watch alone.")
    return Beat(parse_duration(every or EVERY)) if watch else None


def _watch(path: str, to: str, asked: _Asked, beat: Beat, output: Output) -> int:
    from app.cli.progress import Lines
    from app.cli.watching import Told, exit_status

    the_product = product(verbose=asked.verbose)
    # Whoever else loads the table meanwhile is not waited for: the next round comes by itself.
    request = asked.request(the_product, path, to, 0.0)
    with Lines() as watching:
        told = Told(output, report_document, lambda report: _show_failures(report, to), watching.begin_anew)
        if output is Output.TEXT:
            watching.note(f"Watching {path}; stop with Ctrl-C.")
        return exit_status(the_product.watch(request, beat, watching, told), FAILED)


def report_document(report: RunReport, duration_s: float) -> dict[str, Any]:
    """The contract's JSON of a run."""
    errors = [_error(e) for e in report.errors]
    if report.stopped_by is not None:
        errors.append(
            {
                "file": None,
                "category": report.stopped_by.code,
                "line": None,
                "message": str(report.stopped_by),
                "retryable": _is_retriable(report),
            }
        )
    document = {
        "run_id": report.run_id or None,
        "status": report.status.value,
        "table": report.table,
        "snapshot_id": report.snapshot_id,
        "files": {
            "loaded": report.files_loaded,
            "failed": report.files_failed,
            "skipped": report.files_skipped,
            "known": report.files_known,
        },
        "new_versions": {"replaced": report.files_replaced, "appended": report.files_appended},
        "rows": {"loaded": report.rows_loaded, "rescued": 0, "quarantined": 0, "dropped": 0},
        "bytes": report.stored_bytes,
        "duration_s": round(duration_s, 3),
        "warnings": report.warnings,
        "errors": errors,
    }
    if report.stopped_by is not None:
        document |= error_document(report.stopped_by)
    return document


def _is_retriable(report: RunReport) -> bool:
    from app.domain.errors import RetriableError

    return isinstance(report.stopped_by, RetriableError)


def _error(failure: FileFailure) -> dict[str, Any]:
    return {
        "file": failure.key,
        "category": failure.category.value,
        "line": failure.line,
        "message": failure.message,
        "retryable": failure.retryable,
    }


def _show(report: RunReport, duration_s: float, table: str) -> None:
    write = sys.stdout.write
    if report.files_loaded:
        write(
            f"Loaded {count(report.files_loaded, 'file')}, {count(report.rows_loaded, 'row')}, "
            f"{size(report.stored_bytes)} in {duration_s:.1f} s into {report.table}"
            f" ({size(report.stored_bytes / max(duration_s, 0.001))}/s).\n"
        )
        if report.snapshot_id is not None:
            the_product = product()
            name = the_product.table_name(table)
            query = the_product.catalog(name.catalog).printed_query(name)
            write(f"Snapshot {report.snapshot_id}. Query it:\n")
            write(f"  autoloader table {shlex.quote(table)} --sql {shlex.quote(query)}\n")
    elif not report.files_failed and report.stopped_by is None:
        write(f"Nothing new for {report.table}: {count(report.files_known, 'file')} known. No snapshot was made.\n")
    _show_versions(report)
    if report.files_skipped:
        write(f"{count(report.files_skipped, 'file')} left alone: {WHY_LEFT_ALONE}.\n")
    if report.files_loaded and report.files_known:
        write(f"{count(report.files_known, 'file')} known from before.\n")
    _show_failures(report, table)
    for warning in report.warnings:
        sys.stderr.write(f"Note: {warning}\n")
    if report.stopped_by is not None:
        sys.stderr.write(f"Error ({report.stopped_by.code}): {report.stopped_by.message}\n")
        if report.stopped_by.advice:
            sys.stderr.write(f"  {report.stopped_by.advice}\n")


def _show_versions(report: RunReport) -> None:
    if report.files_replaced:
        sys.stdout.write(f"{count(report.files_replaced, 'file')} of them replaced the rows of an earlier version.\n")
    if report.files_appended:
        sys.stdout.write(f"{count(report.files_appended, 'file')} of them added to the rows of an earlier version.\n")


def _show_failures(report: RunReport, table: str) -> None:
    if not report.errors:
        return
    sys.stderr.write(f"{count(report.files_failed, 'file')} failed and left out; the others are not affected:\n")
    for failure in report.errors[:ERRORS_SHOWN]:
        sys.stderr.write(f"  {failure.key}{_where(failure)}: {failure.message} ({failure.category.value})\n")
    if len(report.errors) > ERRORS_SHOWN:
        sys.stderr.write(f"  … and {len(report.errors) - ERRORS_SHOWN:,} more.\n")
    sys.stderr.write(f"See all of them: autoloader files {shlex.quote(table)} --failed\n")


def _where(failure: FileFailure) -> str:
    """The place in the file, unless the message names it."""
    if failure.line is not None:
        return "" if f"line {failure.line}" in failure.message else f", line {failure.line}"
    return "" if failure.offset is None else f", byte {failure.offset}"
