"""Errors at the edge: what a person reads, what a program reads, and the exit status."""

from __future__ import annotations

import sys

from app.cli.render import print_json
from app.domain.errors import AutoloaderError, UsageError

FAILED = 1
USAGE = 2


def exit_code(error: AutoloaderError) -> int:
    """The exit status of a command that ended in this error."""
    return USAGE if isinstance(error, UsageError) else FAILED


def error_document(error: AutoloaderError) -> dict[str, str | None]:
    """What a program reads of an error."""
    return {"code": error.code, "detail": error.message, "remedy": error.advice or None}


def show_error(error: AutoloaderError, *, as_json: bool) -> None:
    """Say what failed and what to do: on stderr, and as one JSON document on stdout where that was asked for."""
    if as_json:
        print_json({"status": "failed", **error_document(error)})
        return
    sys.stderr.write(f"Error ({error.code}): {error.message}\n")
    if error.advice:
        sys.stderr.write(f"  {error.advice}\n")


def first_line(error: Exception) -> str:
    """What an unexpected error says, on one line of bearable length."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else "no message"
