"""Servers that tests start: processes on free ports of loopback, one of a kind for all workers of a test run."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar
from urllib.error import HTTPError

START_TIMEOUT_S = 60
# Below those that systems take by themselves (32768 and more on Linux), above those that services are known by.
OURS = range(12_000, 32_000)
# Processes of one run of pytest that have ports of their own; and what this one gave.
AT_MOST_WORKERS = 8
_GIVEN: set[int] = set()
TRIES = 3
CONFLICT = 409


@dataclass(frozen=True)
class Server:
    """A running server.

    `pid` leads its process group; `folder` is where it keeps data and log, and is removed with it. What a kind of
    server adds can be written as JSON.
    """

    pid: int
    folder: str


S = TypeVar("S", bound=Server)


class Described(Protocol):
    """Any dataclass: what describes a server to the processes that share it."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


D = TypeVar("D", bound=Described)


@contextmanager
def shared(folder: Path, kind: type[D], start: Callable[[], D], stop: Callable[[D], None]) -> Iterator[D]:
    """A server that all processes with the same `folder` share: the first one starts it, the last one stops it."""
    folder.mkdir(parents=True, exist_ok=True)
    with _users(folder) as users:
        server = kind(**users["server"]) if users.get("count") else start()
        users.update(server=asdict(server), count=users.get("count", 0) + 1)
    try:
        yield server
    finally:
        with _users(folder) as users:
            users["count"] -= 1
            if users["count"] == 0:
                stop(server)


@contextmanager
def _users(folder: Path) -> Iterator[dict[str, Any]]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = folder / "users.json"
        users = json.loads(state.read_text()) if state.exists() else {}
        yield users
        state.write_text(json.dumps(users))


def started(
    launch: Callable[[], S],
    is_ready: Callable[[S], bool],
    stop: Callable[[S], None],
    *,
    within_s: float = START_TIMEOUT_S,
) -> S:
    """A server that answers.

    Args:
        launch: Starts a process on free ports; its output goes to the file `log` in its folder.
        is_ready: Asks it.
        stop: Ends one that does not answer.
        within_s: So long each try may take.

    Raises:
        AssertionError: None of several tries came up.
    """
    tail = ""
    for _ in range(TRIES):
        # A port that was free may be taken by the time the server binds it, so a server that ends is tried again.
        server = launch()
        if _wait(server, is_ready, within_s):
            return server
        tail = Path(server.folder, "log").read_text(errors="replace")[-4000:]
        stop(server)
    raise AssertionError(f"The server did not start in {TRIES} tries; the end of its log:\n{tail}")


def _wait(server: S, is_ready: Callable[[S], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and is_alive(server.pid):
        if is_ready(server):
            return True
        time.sleep(0.1)
    return False


def is_there(make: Callable[[], object]) -> bool:
    """Whether there is what `make` makes: now, or by an earlier request whose answer came too late."""
    try:
        make()
    except HTTPError as error:
        with error:
            return error.code == CONFLICT
    except OSError:
        return False
    return True


def spawn(arguments: list[str], environ: Mapping[str, str], folder: str) -> int:
    """Start a process in `folder`, in a group of its own; its output goes to the file `log` there.

    Not a Popen: the process that stops the server may be another than the one that starts it.
    """
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    complete = {"PATH": os.environ.get("PATH", ""), "HOME": folder, "TMPDIR": folder, **environ}
    return os.posix_spawn(arguments[0], arguments, complete, file_actions=files, setsid=True)


def stop(server: Server) -> None:
    """End the server's whole process group and remove its data; it need not run any more."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(server.pid, 0)
    for _ in range(1000):
        if not is_alive(server.pid):
            break
        time.sleep(0.01)
    shutil.rmtree(server.folder, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """Whether the process runs."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # The state stands behind the name, which is in parentheses; a zombie only waits for its parent.
    return status.rpartition(")")[2].split()[0] != "Z"


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on, all different, and never given before.

    The system takes the ports of outgoing connections, and of listeners that do not care, from another range: none of
    them can come in between before a port from here is used, and who asks one that nobody listens on yet cannot be
    connected to itself.
    """
    # Not the generator that a test may have seeded: two of them would come to the same ports.
    choice = random.SystemRandom().choice
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            port = choice(_of_this_process())
            if port in _GIVEN:
                continue
            one = stack.enter_context(closing(socket.socket()))
            with suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
                _GIVEN.add(port)
        return found


def _of_this_process() -> range:
    """Those that no other process of the same run of pytest gives."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return OURS[number % AT_MOST_WORKERS :: AT_MOST_WORKERS]
