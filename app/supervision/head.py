"""The head of a tree as a program of its own: `python -m app.supervision.head autoloader up ORDERS LOCK`.

The first two words are for whoever looks for it in a list of processes, the others are file descriptors.

`autoloader up` reads the settings and decides what is to be run, and then becomes this program: the head lives as long
as the service, and what decided it, the command line and its libraries, would take twice the memory for nothing.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from app.domain.errors import AutoloaderError, InternalError, OutputError
from app.domain.redaction import Redactor
from app.supervision.supervisor import SELF, Supervisor
from app.supervision.tree import TreePlan, children
from app.supervision.voices import Voices

MODULE = "app.supervision.head"
SHOWN = ("autoloader", "up")
STDERR = 2
FAILED = 1
SIGNAL_BASE = 128


@dataclass(frozen=True)
class Orders:
    """What a head is to do.

    Args:
        plan: What is to be run.
        api_environ: The environment of the API.
        worker_environ: The environment of the worker, of its runs, and of a Prefect server.
        told: What a person is told when all is ready.
        document: What a program is told then, beside the process ids of the children; None: it is a person who asks.
        secrets: What no line may hold.
    """

    plan: TreePlan
    told: str
    document: Mapping[str, Any] | None
    api_environ: Mapping[str, str] = field(repr=False)
    worker_environ: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


def become(orders: Orders, lock: int, environ: Mapping[str, str]) -> NoReturn:
    """Go on as the head, in this process: its id stays, and so does the lock that it holds.

    Args:
        orders: What it is to do. They hold secrets, so they are neither arguments nor in a file that has a name.
        lock: Descriptor of the home's lock.
        environ: The environment of the head itself.
    """
    handed_on = _nameless_file()
    os.write(handed_on, _to_json(orders))
    os.lseek(handed_on, 0, os.SEEK_SET)
    for descriptor in (handed_on, lock):
        os.set_inheritable(descriptor, True)  # noqa: FBT003 - the system's function
    if sys.stdout is not None:
        sys.stdout.flush()
    command = [sys.executable, "-P", "-m", MODULE, *SHOWN, str(handed_on), str(lock)]
    os.execve(command[0], command, environ)  # noqa: S606 - ours


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("orders")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _to_json(orders: Orders) -> bytes:
    return json.dumps(asdict(orders), default=str).encode("utf-8", "surrogateescape")


def _from_json(text: bytes) -> Orders:
    fields = json.loads(text.decode("utf-8", "surrogateescape"))
    plan = fields.pop("plan")
    secrets = tuple(fields.pop("secrets"))
    return Orders(plan=TreePlan(**{**plan, "home": Path(plan["home"])}), secrets=secrets, **fields)


def main() -> None:
    """Run the tree until it is told to stop; nothing of it is left then."""
    taken, lock = map(int, sys.argv[1 + len(SHOWN) :])
    os.set_inheritable(lock, False)  # noqa: FBT003 - the system's function
    with os.fdopen(taken, "rb") as file:
        orders = _from_json(file.read())
    redactor = Redactor(orders.secrets)
    # Unbuffered: a buffer would try again and again to be rid of what it holds where the disk is full.
    sys.stderr = io.TextIOWrapper(
        io.FileIO(STDERR, "wb", closefd=False), "utf-8", errors="backslashreplace", write_through=True
    )
    try:
        number = _run(orders, redactor, lock)
    except AutoloaderError as error:
        _tell(error, redactor, as_json=orders.document is not None)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        # Before there is anything to end.
        sys.exit(SIGNAL_BASE + signal.SIGINT)
    except Exception as error:  # noqa: BLE001 - the outermost frame, and all children have been ended
        _say(redactor.text(traceback.format_exc()))
        _tell(InternalError(f"{type(error).__name__}: {error}"), redactor, as_json=orders.document is not None)
        sys.exit(FAILED)
    # Being stopped is how it ends, and no failure.
    _say(f"Stopped by signal {number}; nothing is left running.\n")


def _run(orders: Orders, redactor: Redactor, lock: int) -> int:
    specs = children(orders.plan, orders.api_environ, orders.worker_environ)
    names = (SELF, *(spec.name for spec in specs))
    voices = Voices(_say, redactor, names, colours=sys.stderr.isatty())
    voices.say(SELF, f"Starting in {orders.plan.home}, process {os.getpid()}.")

    def on_ready(pids: Mapping[str, int]) -> None:
        document = None if orders.document is None else {**orders.document, "children": dict(pids)}
        _answer(f"{orders.told}\n" if document is None else f"{json.dumps(document)}\n")

    return Supervisor(specs, orders.plan.mark, lock, say=voices.say, on_ready=on_ready).run()


def _say(text: str) -> None:
    """Say it on stderr, if it can be said: the service goes on where nobody can be told."""
    with suppress(OSError):
        sys.stderr.write(text)


def _answer(text: str) -> None:
    """Say it on stdout.

    Raises:
        OutputError: It cannot be said.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # What its buffer still holds is not to fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(f"The answer could not be written to standard output: {error.strerror}.") from error


def _tell(error: AutoloaderError, redactor: Redactor, *, as_json: bool) -> None:
    message, remedy = redactor.text(error.message), redactor.text(error.advice or "")
    if as_json and not isinstance(error, OutputError):
        _answer(
            json.dumps({"status": "failed", "code": error.code, "detail": message, "remedy": remedy or None}) + "\n"
        )
    else:
        _say(f"Error ({error.code}): {message}\n" + (f"  {remedy}\n" if remedy else ""))


if __name__ == "__main__":
    main()
