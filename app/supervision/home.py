"""The folder of a tree: it can be written, and belongs to one tree at a time."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from app.domain.errors import AlreadyUpError, HomeUnwritableError

LOCK = "up.lock"
# What a tree that was killed has left is ended by its watchdog, which holds the lock meanwhile.
LEFTOVERS_S = 30.0
LOOK_EVERY_S = 0.1
_MOST = 4096


def take_home(home: Path, *, leftovers_s: float = LEFTOVERS_S) -> int:
    """Make the folder where it is missing, and lock it for this process; the lock's descriptor.

    The lock is the system's: it is gone with the last process that holds it, however that ended.

    Raises:
        HomeUnwritableError: The folder cannot be made or written.
        AlreadyUpError: Another process has it.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HomeUnwritableError(f"AUTOLOADER_HOME, {home}, cannot be written: {error.strerror}.") from error
    deadline = time.monotonic() + leftovers_s
    while not _locked(descriptor):
        holder = _holder(descriptor)
        # A name of our own is left from another one: whoever looks at the lock has it too, for a moment.
        if (holder != os.getpid() and _is_alive(holder)) or time.monotonic() > deadline:
            os.close(descriptor)
            raise AlreadyUpError(
                f"`autoloader up` is at work in {home} already, as process {holder or 'unknown'}.",
                remedy=f"Stop it (kill {holder or 'PID'}), or set AUTOLOADER_HOME to another folder.",
            )
        time.sleep(LOOK_EVERY_S)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def leave_word(lock: int, prefect_url: str, database: str) -> None:
    """Write down where the Prefect server of this home's tree is, for commands that work on the same database.

    Args:
        lock: The home's.
        prefect_url: The server's address.
        database: Address of the tree's database, without a password.
    """
    os.pwrite(lock, f"{os.getpid()}\n{prefect_url}\n{database}\n".encode(), 0)


def prefect_at_work(home: Path, database: str) -> str | None:
    """The address of the Prefect server of the tree that is at work in a home on that database; None: there is none."""
    try:
        descriptor = os.open(home / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if _locked(descriptor, fcntl.LOCK_SH):
            return None
        _, *word = os.pread(descriptor, _MOST, 0).decode("utf-8", "replace").splitlines()
        return word[0] if len(word) > 1 and word[1] == database else None
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)


def _locked(descriptor: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> int:
    with suppress(ValueError):
        return int(os.pread(descriptor, _MOST, 0).split(b"\n")[0])
    return 0


def _is_alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return True
