"""Builds the product for a command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.wiring import Product


def product(*, verbose: bool = False) -> Product:
    """The product with this process's settings, its logs on stderr.

    Raises:
        InvalidFieldError: A setting has a value that is not allowed.
    """
    from app.config import read_settings
    from app.telemetry import configure_logging
    from app.wiring import build

    configure_logging(verbose=verbose)
    return build(read_settings(), os.environ)
