"""`autoloader ledger rebuild`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.options import Output, OutputOption, TableArgument, VerboseOption
from app.cli.product import product
from app.cli.render import count, print_json

if TYPE_CHECKING:
    from app.services.rebuilding import RebuildReport


def rebuild(
    table: TableArgument,
    *,
    adopt: Annotated[
        str | None, typer.Option("--adopt", metavar="ID", help="Take over the batches of this ingestion.")
    ] = None,
    not_ours: Annotated[
        str | None,
        typer.Option("--not-ours", metavar="ID", help="The batches of this ingestion are another installation's."),
    ] = None,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Give a table's ledger back from the table and the manifests beside it. Again: no change."""
    from app.cli.progress import watcher
    from app.services.rebuilding import RebuildRequest

    the_product = product(verbose=verbose)
    request = RebuildRequest(the_product.table_name(table), adopt, not_ours)
    with watcher() as watching:
        report = the_product.rebuild(request, watching)
    if output is Output.JSON:
        print_json(rebuild_document(report))
        return
    sys.stdout.write(
        f"The ledger of {report.table} was given {report.batches:,} batches that it "
        f"lacked: {count(report.files_loaded, 'loaded file')} with {count(report.rows, 'row')}, "
        f"{count(report.files_failed, 'failed file')}. Generation {report.generation}.\n"
    )
    for sentence in report.sentences():
        sys.stderr.write(f"Note: {sentence}\n")


def rebuild_document(report: RebuildReport) -> dict[str, Any]:
    """The report as JSON."""
    doubts = report.doubts
    return {
        "table": report.table,
        "ingestions": report.ingestions,
        "generation": report.generation,
        "batches": report.batches,
        "files": {"loaded": report.files_loaded, "failed": report.files_failed, "known_by_rows": doubts.files_by_rows},
        "rows": report.rows,
        "doubts": {
            "without_rows": doubts.batches_without_rows,
            "without_trace": doubts.batches_without_trace,
            "on_trust": doubts.batches_on_trust,
        },
        "warnings": report.sentences(),
    }
