"""`autoloader ledger check`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.errors import FAILED
from app.cli.options import (
    CredentialsOption,
    Output,
    OutputOption,
    TableArgument,
    VerboseOption,
    chosen,
    one_source,
    read_credentials,
    with_definition_options,
)
from app.cli.product import product
from app.cli.render import count, print_json, print_rows

if TYPE_CHECKING:
    from app.domain.comparison import Difference
    from app.services.checking import CheckReport

NAMED = 1000
WORDS = {
    "not_loaded": "in the source, and not loaded",
    "failed": "in the source, and failed",
    "changed": "changed in the source since it was loaded",
    "not_in_table": "loaded by the ledger, and not in the table",
    "not_in_ledger": "in the table, and not loaded by the ledger",
    "rows_differ": "with other rows in the table than were loaded",
}


@with_definition_options
def check(
    table: TableArgument,
    source: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE]", help="What the table is to be equal to; without it ledger and table only."),
    ] = None,
    *,
    credentials: CredentialsOption = None,
    limit: Annotated[int, typer.Option(min=0, help="How many files to name of each kind.")] = NAMED,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
    **values: Any,  # noqa: ANN401 - the fields of a definition
) -> None:
    """Hold source, ledger and table against each other, file by file. Writes nothing.

    Exit status 0 says that they are equal, 1 that they are not, or that no file was listed of a source that was loaded.
    """
    from app.services.checking import CheckRequest
    from app.services.preflight import LoadRequest

    given = chosen(values)
    path = one_source(source) if source else None
    the_product = product(verbose=verbose)
    name = the_product.table_name(table)
    load = None if path is None else LoadRequest(path, name, given, read_credentials(credentials))
    report = the_product.check(CheckRequest(name, load, limit))
    if output is Output.JSON:
        print_json(check_document(report))
    else:
        _show(report)
    raise typer.Exit(0 if report.equal else FAILED)


def check_document(report: CheckReport) -> dict[str, Any]:
    """The report as it may be kept."""
    return {
        "table": report.table,
        "source": report.source,
        "equal": report.equal,
        "snapshot_id": report.snapshot_id,
        "generation": report.generation,
        "checked_at": report.checked_at,
        "duration_s": round(report.duration_s, 3),
        "by_file": report.by_file,
        "open_batches": report.open_batches,
        "disturbed": report.disturbed,
        "warnings": report.warnings(),
        "files": {"listed": report.files_listed, "ledger": report.files_in_ledger, "table": report.files_in_table},
        "rows": {"ledger": report.rows_in_ledger, "table": report.rows_in_table, "of_no_file": report.rows_of_no_file},
        "differences": {
            kind.value: {"count": tally.count, "files": [_difference(d) for d in tally.first]}
            for kind, tally in report.differences.items()
        },
    }


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "path": difference.key,
        "version": difference.version,
        "rows_ledger": difference.ledger_rows,
        "rows_table": difference.table_rows,
        "batches": list(difference.batches),
    }


def _show(report: CheckReport) -> None:
    what = "Source, ledger and table" if report.source else "Ledger and table"
    verdict = "were NOT proven equal" if report.proves_nothing else "are equal" if report.equal else "are NOT equal"
    listed = "" if report.files_listed is None else f"{count(report.files_listed, 'file')} listed, "
    sys.stdout.write(
        f"{what} {verdict}: {report.table}, snapshot {report.snapshot_id}, generation {report.generation}.\n"
        f"{listed}{count(report.files_in_ledger, 'file')} with {count(report.rows_in_ledger, 'row')} in the ledger, "
        f"{count(report.files_in_table, 'file')} with {count(report.rows_in_table, 'row')} in the table.\n"
    )
    for kind, tally in report.differences.items():
        if tally.count:
            sys.stdout.write(f"\n{count(tally.count, 'file')} {WORDS[kind.value]}:\n")
            print_rows(
                ("rows in ledger", "rows in table", "path"),
                [(_number(d.ledger_rows), _number(d.table_rows), d.key or "all of them") for d in tally.first],
            )
            if tally.count > len(tally.first):
                sys.stdout.write(f"… and {tally.count - len(tally.first):,} more.\n")
    _show_notes(report)


def _show_notes(report: CheckReport) -> None:
    for warning in report.warnings():
        sys.stderr.write(f"Note: {warning}\n")
    if report.rows_of_no_file:
        sys.stderr.write(f"Note: {count(report.rows_of_no_file, 'row')} of the table name no file: another writer's.\n")
    if not report.by_file:
        sys.stderr.write("Note: the table's rows do not name their files, so that only their number was compared.\n")
    if report.disturbed:
        sys.stderr.write("Note: a load was at work, or was killed; check again when the next load has ended.\n")


def _number(rows: int | None) -> str:
    return "" if rows is None else f"{rows:,}"
