"""`autoloader worker`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from app.cli.options import Output, OutputOption

MODULE = "app.prefect.worker"


def worker(
    *,
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", metavar="NAME", help="A queue to serve; again for more (default: all)."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="Runs at once (default: AUTOLOADER_WORKER_LIMIT, else the number of cores, at least 2)."
        ),
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds that runs may go on once it is told to stop (AUTOLOADER_WORKER_GRACE_S)."),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Carry out the runs that Prefect schedules, until stopped.

    It takes them from the pool `autoloader-pool` at PREFECT_API_URL. Each run has a process of its own. Ctrl-C or
    SIGTERM stop it: it begins nothing more, and what does not end in time is handed over to the next worker.
    """
    from app.config import read_settings
    from app.wiring.environment import worker_environ

    arguments = [f"--queue={name}" for name in queue or []]
    arguments += [] if limit is None else [f"--limit={limit}"]
    arguments += [] if grace is None else [f"--grace={grace}"]
    arguments += [f"--output={output.value}"]
    environ = worker_environ(read_settings(), os.environ)
    sys.stdout.flush()
    # In the place of this process: signals find the worker itself, and its start needs nothing of the command line's.
    os.execve(sys.executable, [sys.executable, "-P", "-m", MODULE, *arguments], environ)  # noqa: S606 - ours
