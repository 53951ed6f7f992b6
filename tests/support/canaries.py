"""Odd secrets that are found again, whatever form they have taken, in every kind of place they may have come to."""

from __future__ import annotations

import base64
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

# Bits of a byte, and of a character of base64.
BYTE, SIXTH = 8, 6
SHOWN = 80
EVERY_S = 0.05


@dataclass(frozen=True)
class Canary:
    """A secret of which no part may come to light.

    Args:
        name: What it is.
        text: The secret.
        cores: Runs of letters and digits in it, which nothing that quotes or escapes a text changes.
    """

    name: str
    text: str
    cores: tuple[str, ...]

    @property
    def marks(self) -> frozenset[bytes]:
        """What every form of it holds one of: a core, or what base64 makes of a core at whatever place it begins."""
        plain = {core.encode() for core in self.cores}
        return frozenset(plain | {mark for core in plain for mark in _in_base64(core)})


def canary(name: str, number: int, form: str) -> Canary:
    """A secret with an odd middle.

    Args:
        name: What it is.
        number: Of its own.
        form: The secret, with `{0}` and `{1}` where its cores are to be: its beginning and its end may be parted.
    """
    cores = (f"kq{number:02d}HeadZw", f"vj{number:02d}TailXb")
    return Canary(name, form.replace("{0}", cores[0]).replace("{1}", cores[1]), cores)


def _in_base64(core: bytes) -> Iterator[bytes]:
    """The characters that stand for nothing but `core`, for each of the three places at which it may begin."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + core)
        first, end = -(-before * BYTE // SIXTH), (before + len(core)) * BYTE // SIXTH
        yield text[first:end]
        yield text[first:end].translate(bytes.maketrans(b"+/", b"-_"))


def sightings(places: Mapping[str, bytes], canaries: Iterable[Canary]) -> list[str]:
    """Where a part of a secret stands, and what stands around it."""
    found = []
    for one in canaries:
        for place, content in places.items():
            at = next((begin for mark in sorted(one.marks) if (begin := content.find(mark)) >= 0), None)
            if at is not None:
                found.append(f"{one.name} in {place}: {content[max(0, at - SHOWN) : at + SHOWN]!r}")
    return found


# --- places --------------------------------------------------------------------------------------------------------


def files_of(folder: Path, *, leave_out: Iterable[str] = ()) -> bytes:
    """What is in all files below a folder, and how they are called; those of the names in `leave_out` are left out."""
    skipped = set(leave_out)
    parts = []
    for path in sorted(folder.rglob("*")):
        parts.append(str(path).encode())
        if path.is_file() and path.name not in skipped:
            # One that is gone by now holds nothing.
            with suppress(FileNotFoundError):
                parts.append(path.read_bytes())
    return b"\n".join(parts)


def rows_of(database: Path) -> bytes:
    """Every value of every table of a SQLite database: in its file a long one is parted by the ends of pages."""
    parts = []
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as connection:
        connection.text_factory = bytes
        names = [name.decode() for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        for name in names:
            # A virtual table needs an extension that is not here; what it keeps is in tables of its own.
            with suppress(sqlite3.OperationalError):
                for row in connection.execute(f'select * from "{name}"'):
                    parts += [one if isinstance(one, bytes) else str(one).encode() for one in row]
    return b"\n".join(parts)


@dataclass(frozen=True)
class Process:
    """A process as the system tells of it; with its start its id is nobody else's."""

    pid: int
    parent: int
    session: int
    started: int


@dataclass
class CommandLines:
    """The command lines of the processes below one that were seen while they were looked at.

    Not of all on the machine: somebody may look for a secret there, by a command that names it.

    Args:
        root: Id of the process that all others are below.
    """

    root: int
    seen: set[bytes] = field(default_factory=set)
    # One whose parent has ended is below another process, and ours all the same.
    _known: set[Process] = field(default_factory=set)
    _sessions: set[int] = field(default_factory=set)

    @property
    def content(self) -> bytes:
        """All of them."""
        return b"\n".join(sorted(self.seen))

    def look(self) -> None:
        """Look once."""
        table = {one.pid: one for one in _processes()}
        for one in table.values():
            if self._is_ours(one, table):
                self._known.add(replace(one, parent=0))
                if one.pid == one.session:
                    self._sessions.add(one.session)
                with suppress(OSError):
                    self.seen.add(Path(f"/proc/{one.pid}/cmdline").read_bytes())

    def _is_ours(self, process: Process, table: Mapping[int, Process]) -> bool:
        above: Process | None = process
        while above is not None:
            if above.pid == self.root or above.session in self._sessions or replace(above, parent=0) in self._known:
                return True
            above = table.get(above.parent)
        return False


def _processes() -> Iterator[Process]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # Behind the name, which is in parentheses: the state, the parent, and so on.
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            yield Process(int(path.parent.name), int(fields[1]), int(fields[3]), int(fields[19]))


@contextmanager
def command_lines() -> Iterator[CommandLines]:
    """Look at those of this test run, of all its workers, again and again until the block ends."""
    root = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    lines, ended = CommandLines(root), threading.Event()

    def look() -> None:
        while not ended.wait(EVERY_S):
            lines.look()

    with in_thread(look):
        try:
            yield lines
        finally:
            ended.set()


@contextmanager
def in_thread(work: Callable[[], None]) -> Iterator[None]:
    """Do `work` beside the block, and wait for it at the end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
        assert not thread.is_alive()
