"""A process that has imported the program and becomes a run of it by a fork, which saves a second of imports each.

It reads orders from standard input, one JSON object a line, and answers each with a line. It has one thread, so that a
fork takes all of it along.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import sys
from pathlib import Path
from typing import Any, TextIO

# All that a load imports, but for what starts threads: that is imported by each run itself.
MODULES = (
    "alembic.command",
    "app.cli.progress",
    "app.config",
    "app.destinations.configured",
    "app.persistence.ledger",
    "app.services.checking",
    "app.sources.factory",
    "app.sources.local",
    "app.sources.s3",
    "app.sources.sorting",
    "app.telemetry",
    "app.wiring",
    "app.engines.embedded.engine",
    "psycopg",
    "pyarrow.dataset",
    "pyiceberg.catalog.rest",
    "pyiceberg.catalog.sql",
    "pyiceberg.io.pyarrow",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.sqlite",
)


def main() -> None:
    """Serve orders until there are no more; in a child: be a run of the program."""
    for name in MODULES:
        importlib.import_module(name)
    from app.cli import main as program

    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads: a fork takes one of them along"
    orders, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    gc.freeze()
    _tell(answers, {"ready": os.getpid()})
    while line := orders.readline():
        order = json.loads(line)
        if "reap" in order:
            _, status = os.waitpid(order["reap"], 0)
            _tell(answers, {"status": os.waitstatus_to_exitcode(status)})
        elif (pid := os.fork()) == 0:
            orders.close()
            answers.close()
            _become(order)
            program()
        else:
            _tell(answers, {"pid": pid})


def _tell(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _become(order: dict[str, Any]) -> None:
    """Take on the identity of a run: session, folder, environment, output, arguments."""
    os.setsid()
    # Else all runs would draw the same.
    random.seed()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, random.sample(cores, min(order["cores"], len(cores))))
    os.chdir(order["cwd"])
    for descriptor, path in ((0, os.devnull), (1, order["out"]), (2, order["err"])):
        opened = os.open(path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(order["environ"])
    sys.argv = ["autoloader", *order["arguments"]]
    if order["defect"]:
        from tests.crash.kill.defects import DEFECTS

        DEFECTS[order["defect"]]()


if __name__ == "__main__":
    main()
