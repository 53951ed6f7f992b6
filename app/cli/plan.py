"""`autoloader plan`."""

from __future__ import annotations

import sys
from typing import Any

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
from app.cli.render import count, print_json, print_rows, size


@with_definition_options
def plan(
    source: SourceArgument,
    *,
    to: ToOption,
    credentials: CredentialsOption = None,
    retry_failed: RetryOption = False,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
    **values: Any,  # noqa: ANN401 - the fields of a definition
) -> None:
    """Say what a load would do: files, bytes, schema and changes. Writes nothing."""
    from app.services.preflight import LoadRequest

    given = chosen(values)
    path = one_source(source)
    the_product = product(verbose=verbose)
    request = LoadRequest(
        path=path,
        table=the_product.table_name(to),
        values=given,
        credentials=read_credentials(credentials),
        retry_failed=retry_failed,
    )
    planned = the_product.plan(request)
    columns = [(field.name, str(field.type)) for field in planned.schema.fields]
    if output is Output.JSON:
        print_json(
            {
                "files": planned.files,
                "new_versions": {"replaced": planned.replaced, "appended": planned.appended},
                "bytes": planned.stored_bytes,
                "batches": planned.batches,
                "schema": [{"name": name, "type": kind} for name, kind in columns],
                "changes": list(planned.changes),
                "table": planned.table,
            }
        )
    else:
        sys.stdout.write(
            f"Would load {count(planned.files, 'file')}, {size(planned.stored_bytes)}, "
            f"in {count(planned.batches, 'commit')} into {planned.table}; {count(planned.known, 'file')} known.\n"
        )
        if planned.replaced:
            sys.stdout.write(f"New versions: {count(planned.replaced, 'file')} would replace the rows loaded before.\n")
        if planned.appended:
            sys.stdout.write(
                f"New versions: {count(planned.appended, 'file')} would be added to the rows loaded before.\n"
            )
        for change in planned.changes:
            sys.stdout.write(f"Schema change: {change}\n")
        if columns:
            sys.stdout.write("\n")
            print_rows(("column", "type"), columns)
    for warning in planned.warnings:
        sys.stderr.write(f"Note: {warning}\n")
