"""A child of the tree: what it is, and how it stands."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

LEASH = str(Path(__file__).with_name("leash.py"))
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
# One that lived for so long after it was ready has not failed to start.
SETTLED_S = 30.0


@dataclass(frozen=True)
class Look:
    """Something that has to be so before a child counts as ready.

    Args:
        what: What is waited for, as it is told: "the API to answer".
        ask: Whether it is so; given the child's process id.
    """

    what: str
    ask: Callable[[int], bool]


@dataclass(frozen=True)
class ChildSpec:
    """What a child is.

    Args:
        name: As the log has it.
        title: As sentences have it: "The API".
        command: Program and arguments.
        environ: The whole environment of its own.
        needs: What has to be so before it is started.
        looks: What has to be so until it is ready.
        last: Whether the others need it until they have ended.
        left_out: Which of its lines tell nothing that is not told better, if any.
    """

    name: str
    title: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    needs: tuple[Look, ...] = ()
    looks: tuple[Look, ...] = ()
    last: bool = False
    left_out: re.Pattern[str] | None = None


def spawn(command: tuple[str, ...], environ: Mapping[str, str], *, output: int) -> int:
    """Start a program in a session of its own, tied to this process's life; what it writes goes to `output`."""
    arguments = [sys.executable, "-I", "-S", LEASH, str(os.getpid()), *command]
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output, 1),
        (os.POSIX_SPAWN_DUP2, output, 2),
    ]
    return os.posix_spawn(arguments[0], arguments, environ, file_actions=files, setsid=True)


@dataclass
class Child:
    """How a child stands."""

    spec: ChildSpec
    pid: int | None = None
    # How often it has ended since it was last at work for a while.
    failures: int = 0
    was_ready: bool = False
    start_at: float = 0.0
    ready_at: float | None = None
    how_it_ended: str = ""
    waits_for: list[Look] = field(default_factory=list)

    @property
    def is_ready(self) -> bool:
        """Whether it runs, and all that was looked for is so."""
        return self.ready_at is not None

    def needed(self) -> str | None:
        """What it cannot be started without, where that is not there."""
        return next((look.what for look in self.spec.needs if not look.ask(0)), None)

    def began(self, pid: int) -> None:
        """It was started."""
        self.pid, self.ready_at = pid, None
        self.waits_for = list(self.spec.looks)

    def look(self) -> bool:
        """Look once for what is waited for; whether it has just become ready."""
        assert self.pid is not None  # noqa: S101 - it is asked of one that runs
        while self.waits_for and self.waits_for[0].ask(self.pid):
            del self.waits_for[0]
        if self.waits_for or self.is_ready:
            return False
        self.ready_at, self.was_ready = time.monotonic(), True
        return True

    def ended(self, how: str) -> float:
        """It has ended, as `how` says; seconds until it is to be started again."""
        now = time.monotonic()
        settled = self.ready_at is not None and now - self.ready_at > SETTLED_S
        self.failures = 1 if settled else self.failures + 1
        self.pid, self.ready_at = None, None
        self.how_it_ended = how
        delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** (self.failures - 1))
        self.start_at = now + delay_s
        return delay_s


def how_it_ended(status: int) -> str:
    """What a status of `waitpid` tells."""
    code = os.waitstatus_to_exitcode(status)
    return f"with exit status {code}" if code >= 0 else f"by signal {-code}"
