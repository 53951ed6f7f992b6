"""Calls of a process to the kernel that fail, by strace."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Fault:
    """Which calls fail, and how.

    `when` is strace's: `1` the first call of each thread, `2+` all from the second on. With `paths` only calls on
    exactly these files count; without `follow` only those of the process's first thread.
    """

    calls: str
    error: str
    when: str = "1+"
    paths: Sequence[str] = ()
    follow: bool = True

    def command(self, log: Path) -> list[str]:
        """What to put before a command; the calls that count go to `log`."""
        program = shutil.which("strace")
        if program is None:
            pytest.fail("strace is missing, which the tests of failing disks need. `scripts/strace.sh` installs it.")
        follow = ["-f"] if self.follow else []
        paths = [option for path in self.paths for option in ("-P", path)]
        what = f"inject={self.calls}:error={self.error}:when={self.when}"
        return [program, *follow, "-qq", "-y", "-o", str(log), *paths, "-e", f"trace={self.calls}", "-e", what]


UNFINISHED, RESUMED = "<unfinished ...>", " resumed>"


def hit(log: Path) -> list[str]:
    """The calls that failed, each as `call path`."""
    found = []
    # By process: a call in the midst of which another process had its own.
    begun: dict[str, str] = {}
    for line in log.read_text(errors="replace").splitlines():
        process = line.partition(" ")[0]
        if line.endswith(UNFINISHED):
            begun[process] = line.removesuffix(UNFINISHED)
        elif line.endswith("(INJECTED)"):
            whole = begun.pop(process, "") + line.partition(RESUMED)[2] if RESUMED in line else line
            call = re.search(r"(\w+)\((.*)", whole)
            assert call is not None, line
            # A path that is passed comes before what a descriptor stands for: that is only the folder it starts from.
            by_name = call[1] in {"openat", "rename", "unlink", "mkdir"}
            path = re.search(r'"([^"]*)"' if by_name else r"<([^>]*)>", call[2])
            found.append(f"{call[1]} {path[1] if path else ''}")
    return found
