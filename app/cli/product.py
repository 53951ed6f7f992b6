"""Builds the product for a command."""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.wiring.product import Product


def product(*, verbose: bool = False) -> Product:
    """The product with this process's settings, its logs on stderr; it is closed when the process ends.

    Raises:
        InvalidFieldError: A setting has a value that is not allowed.
    """
    from app.config import read_settings
    from app.telemetry import configure_logging
    from app.wiring.product import build

    redactor = configure_logging(verbose=verbose)
    made = build(read_settings(), os.environ, redactor)
    # Nothing else would: the process ends without a look for what is to be closed.
    atexit.register(made.close)
    return made
