"""Takes secrets out of what `ps` and /proc show of this process's command line."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

_PROCESS = Path("/proc/self")
# Of the fields of /proc/PID/stat behind the program's name, the one that says where its arguments begin in memory.
_ARG_START = 45


def hide_values(option: str) -> None:
    """Overwrite what stands behind that option; where the system does not tell where that is, it stays."""
    with suppress(OSError, ValueError, IndexError):
        start = int((_PROCESS / "stat").read_text().rpartition(")")[2].split()[_ARG_START])
        line = (_PROCESS / "cmdline").read_bytes()
        # Nothing is overwritten but what was read a moment ago.
        if start and ctypes.string_at(start, len(line)) == line:
            for position, length in secret_spans(line.split(b"\0"), option.encode()):
                ctypes.memset(start + position, ord("*"), length)


def secret_spans(arguments: Sequence[bytes], option: bytes) -> Iterator[tuple[int, int]]:
    """Begin and length of the option's values among the bytes of a command line."""
    begin, is_next = 0, False
    for argument in arguments:
        given = option + b"="
        if is_next and argument:
            yield begin, len(argument)
        elif argument.startswith(given) and len(argument) > len(given):
            yield begin + len(given), len(argument) - len(given)
        is_next = argument == option and not is_next
        begin += len(argument) + 1
