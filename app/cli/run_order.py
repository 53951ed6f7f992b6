"""`autoloader run-order`: what the service starts for a direct run. People have no use for it."""

from __future__ import annotations

import os
from typing import Annotated

import typer


def run_order(run_id: Annotated[str, typer.Argument(metavar="RUN_ID")]) -> None:
    """Carry out a run that the service has queued."""
    from app.config import read_settings
    from app.services.yielding import let_others_go_first
    from app.telemetry import configure_logging, told_without_secrets
    from app.wiring.scheduling import open_executor

    let_others_go_first()
    redactor = configure_logging(verbose=True)
    with told_without_secrets(redactor), open_executor(read_settings(), os.environ, redactor) as executor:
        executor.execute_run(run_id)
