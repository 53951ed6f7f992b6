"""The names in one folder, in key order and in bounded memory, however many there are.

A name is held as a mark: the form that it has in a key, then "/" for a folder, then NUL for a symbolic link; no name
has either of the two. Marks sort as the keys do.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import IO

from app.domain.locations import escaped, unescaped

# About 10 MB.
MOST_NAMES = 100_000
_FOLDER = b"/"
_LINK = b"\0"
# No mark holds it, and none ends in a part of it that another one begins with.
_BETWEEN = b"\0//"
_BLOCK_BYTES = 16 * 1024


def mark_of(name: bytes, *, is_folder: bool, is_link: bool) -> bytes:
    """The mark of a name."""
    mark = name if name.isascii() and b"\\" not in name else escaped(name).encode()
    if is_folder:
        mark += _FOLDER
    return mark + _LINK if is_link else mark


def is_link(mark: bytes) -> bool:
    """Whether it is that of a symbolic link."""
    return mark[-1:] == _LINK


def is_folder(mark: bytes) -> bool:
    """Whether it is that of a folder, or of a link to one."""
    return mark[-2:].rstrip(_LINK)[-1:] == _FOLDER


def name_in_key(mark: bytes) -> bytes:
    """The name as it stands in a key."""
    return mark.rstrip(b"/\0")


def name_of(mark: bytes) -> bytes:
    """The name as the system knows it."""
    name = name_in_key(mark)
    return name if b"\\" not in name else unescaped(name.decode())


def in_order(marks: Iterable[bytes], *, most_names: int = MOST_NAMES) -> Iterator[bytes]:
    """The marks in order: read to their end at once, and what is too many lies on disk until it is asked for.

    Raises:
        OSError: The disk does not take them.
    """
    coming = iter(marks)
    first = sorted(islice(coming, most_names))
    if len(first) < most_names:
        return iter(first)
    with ExitStack() as files:
        runs = [_spilled(first, files)]
        while run := sorted(islice(coming, most_names)):
            runs.append(_spilled(run, files))
        merged = _merged(runs, files.pop_all())
        # From here on it closes the files, also when nobody asks for a mark.
        next(merged)
        return merged


def _spilled(run: list[bytes], files: ExitStack) -> IO[bytes]:
    file = files.enter_context(tempfile.TemporaryFile(prefix="autoloader-names-"))  # noqa: SIM115 - the stack closes it
    for start in range(0, len(run), 1_000):
        file.write(b"".join(mark + _BETWEEN for mark in run[start : start + 1_000]))
    run.clear()
    file.seek(0)
    return file


def _merged(runs: list[IO[bytes]], files: ExitStack) -> Iterator[bytes]:
    with files:
        yield b""
        yield from heapq.merge(*map(_read, runs))


def _read(file: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while block := file.read(_BLOCK_BYTES):
        *marks, rest = (rest + block).split(_BETWEEN)
        yield from marks
