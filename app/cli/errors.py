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
    from app.telemetry import without_secrets

    advice = error.advice
    return {
        "code": error.code,
        "detail": without_secrets(error.message),
        "remedy": without_secrets(advice) if advice else None,
    }


def show_error(error: AutoloaderError, *, as_json: bool) -> None:
    """Say what failed and what to do: on stderr, and as one JSON document on stdout where that was asked for."""
    document = error_document(error)
    if as_json:
        print_json({"status": "failed", **document})
        return
    sys.stderr.write(f"Error ({document['code']}): {document['detail']}\n")
    if document["remedy"]:
        sys.stderr.write(f"  {document['remedy']}\n")


def first_line(error: BaseException) -> str:
    """What an unexpected error says, on one line of bearable length."""
    from app.telemetry import without_secrets

    # Before it is cut: half a secret would not be known for one.
    text = without_secrets(str(error)).strip()
    return text.splitlines()[0][:300] if text else "no message"


def tell_whole() -> None:
    """Say on stderr where the error that is being handled came from."""
    import traceback

    from app.telemetry import without_secrets

    sys.stderr.write(without_secrets(traceback.format_exc()))
