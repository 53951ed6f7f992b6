"""`autoloader catalogs`."""

from __future__ import annotations

from app.cli.options import Output, OutputOption, VerboseOption
from app.cli.product import product
from app.cli.render import print_json, print_rows


def catalogs(*, output: OutputOption = Output.TEXT, verbose: VerboseOption = False) -> None:
    """List the catalogs that can be used, and whether each answers."""
    the_product = product(verbose=verbose)
    tested = [(name, the_product.catalog(name).ping()) for name in the_product.catalogs()]
    if output is Output.JSON:
        print_json([{"name": name, "ok": error is None, "error": error} for name, error in tested])
    else:
        print_rows(("catalog", "answers", "why not"), [(name, error is None, error or "") for name, error in tested])
