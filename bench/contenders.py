"""Contenders: what is run beside each other in a case, and how it is known that each did the work."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import Sample
from bench.measuring import Command, Measured, measure


class WrongResultError(Exception):
    """A contender did not do the work; the message says what is wrong."""


# Looks at a home after a run; raises WrongResultError.
Check = Callable[[Path, Measured], None]
# Makes what a home holds before a run.
Prepare = Callable[[Path], None]


def unchecked(_home: Path, _measured: Measured) -> None:
    """Its exit status says enough."""


@dataclass(frozen=True)
class Contender:
    """A command of one case.

    Args:
        name: As the tables show it.
        command: What to run, with the home's path for `{home}`.
        environ: On top of this process's environment.
        prepare: Makes the home's content, once; every run begins with a copy of it at the same path.
        check: Whether the work was done.
        clocks_itself: The last line it prints is JSON with figures that count instead of those of the whole process.
        most_runs: It is run so often at most.
        unavailable: Why it cannot be run; "" when it can.
    """

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    prepare: Prepare | None = None
    check: Check = unchecked
    clocks_itself: bool = False
    most_runs: int = 100
    unavailable: str = ""


class Stand:
    """A contender's place: its home, and the copy that the home is restored from."""

    def __init__(self, contender: Contender, folder: Path) -> None:
        self.contender = contender
        self._home = folder / "home"
        self._template = folder / "template"
        self._is_prepared = False

    def run(self) -> Sample:
        """Restore the home and run once.

        Raises:
            WrongResultError: The command failed, or its result is not what it must be.
        """
        contender = self.contender
        if contender.unavailable:
            raise WrongResultError(contender.unavailable)
        self._restore()
        # What the one before it wrote is not to be written while this one is timed.
        os.sync()
        arguments = [part.replace("{home}", str(self._home)) for part in contender.command]
        environ = {name: value.replace("{home}", str(self._home)) for name, value in contender.environ.items()}
        measured = measure(Command(arguments, self._home, environ))
        if measured.status:
            raise WrongResultError(f"ended with {measured.status}: {last_line(measured.stderr)}")
        contender.check(self._home, measured)
        figures = {"wall_s": measured.wall_s, "cpu_s": measured.cpu_s, "peak_mb": measured.peak_mb}
        if contender.clocks_itself:
            figures |= json.loads(last_line(measured.stdout))
        return figures | {"cores": figures["cpu_s"] / figures["wall_s"]}

    def remove(self) -> None:
        """Remove everything."""
        shutil.rmtree(self._home.parent, ignore_errors=True)

    def _restore(self) -> None:
        prepare = self.contender.prepare
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(parents=True)
        if prepare is None:
            return
        if not self._is_prepared:
            # At the home's own path: tables and ledgers name their files by it.
            prepare(self._home)
            shutil.rmtree(self._template, ignore_errors=True)
            shutil.copytree(self._home, self._template, symlinks=True)
            self._is_prepared = True
        shutil.copytree(self._template, self._home, symlinks=True, dirs_exist_ok=True)


def folder_name(name: str) -> str:
    """A contender's name as that of a folder."""
    return re.sub(r"\W+", "-", name).strip("-")


def last_line(text: str) -> str:
    """The last line that is not empty; "" where there is none."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def run_or_fail(command: tuple[str, ...], home: Path, environ: Mapping[str, str]) -> Measured:
    """Run what prepares a home.

    Raises:
        WrongResultError: It failed.
    """
    arguments = [part.replace("{home}", str(home)) for part in command]
    done = measure(Command(arguments, home, {k: v.replace("{home}", str(home)) for k, v in environ.items()}))
    if done.status:
        raise WrongResultError(f"the preparation ended with {done.status}: {last_line(done.stderr)}")
    return done
