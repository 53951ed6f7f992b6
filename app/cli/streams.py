"""Where a command's output goes. Both streams may lead to a disk that is full."""

from __future__ import annotations

import io
import os
import sys

from app.domain.errors import OutputError

STDOUT, STDERR = 1, 2


def install() -> None:
    """Put our streams in the place of the interpreter's; nothing where they are closed."""
    if sys.stdout is None or sys.stderr is None:
        return
    sys.stdout = Answer(
        io.BufferedWriter(io.FileIO(STDOUT, "wb", closefd=False)),
        encoding=sys.stdout.encoding,
        errors=sys.stdout.errors,
        line_buffering=sys.stdout.isatty(),
    )
    # Without a buffer, which would try again and again to be rid of what it holds.
    sys.stderr = Talk(
        io.FileIO(STDERR, "wb", closefd=False),
        encoding=sys.stderr.encoding,
        errors="backslashreplace",
        write_through=True,
    )


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
