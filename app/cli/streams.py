"""Where a command's output goes. Both streams may lead to a disk that is full, or be closed."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

from app.domain.errors import OutputError

STDOUT, STDERR = 1, 2


def install() -> None:
    """Put our streams in the place of the interpreter's, which has none where they are closed."""
    fill_closed()
    out, err = sys.stdout, sys.stderr
    sys.stdout = Answer(
        io.BufferedWriter(_Nobody() if out is None else io.FileIO(STDOUT, "wb", closefd=False)),
        encoding="utf-8" if out is None else out.encoding,
        errors="strict" if out is None else out.errors,
        line_buffering=out is not None and out.isatty(),
    )
    # Without a buffer, which would try again and again to be rid of what it holds.
    sys.stderr = Talk(
        io.FileIO(STDERR, "wb", closefd=False),
        encoding="utf-8" if err is None else err.encoding,
        errors="backslashreplace",
        write_through=True,
    )


def fill_closed() -> None:
    """Have standard descriptors lead nowhere where they are closed, lest a database that is opened take their place."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest that is free is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def finish() -> None:
    """Write out what is still held.

    Raises:
        OutputError: It cannot be written.
    """
    if sys.stdout is not None:
        sys.stdout.flush()


def drop(descriptor: int) -> None:
    """Let what is written there from now on, and what a buffer still holds, lead nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


class _Nobody(io.RawIOBase):
    """Where a closed stream leads: the first write fails; what is still held then goes nowhere."""

    _told = False

    def writable(self) -> bool:
        """It has to be, to be written to."""
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - anything that holds bytes
        """Raises OSError, once."""
        if not self._told:
            self._told = True
            raise OSError(errno.EBADF, "it is closed")
        return memoryview(data).nbytes


class Answer(io.TextIOWrapper):
    """Standard output: an answer that nobody got is an error of the command."""

    def write(self, text: str) -> int:
        """Raises OutputError where the text cannot be written."""
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unsaid(error) from error

    def flush(self) -> None:
        """Raises OutputError where what is held cannot be written."""
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unsaid(error) from error


class Talk(io.TextIOWrapper):
    """Standard error: notes, progress and logs. A load does not fail because nobody can be told how it goes."""

    def write(self, text: str) -> int:
        """Say it, if it can be said."""
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Nothing is held."""


def _unsaid(error: OSError) -> OutputError:
    drop(STDOUT)
    return OutputError(f"The answer could not be written to standard output: {error.strerror}.")
