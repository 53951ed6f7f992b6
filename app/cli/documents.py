"""Definitions of ingestions from files: JSON or YAML, read as strictly as the API reads its bodies."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from app.domain.errors import InvalidFieldError, UsageError

# More than any definition has; a schema of ten thousand columns fits.
MAX_BYTES = 1 << 20
_YAML = (".yaml", ".yml")


def read_document(file: str) -> dict[str, Any]:
    """The definition in a file, or, for `-`, on standard input.

    `.json` and `.yaml` say what it is; of others the first character does.

    Raises:
        InvalidFieldError: It cannot be read, or is no object of JSON or YAML. What it holds is never shown, for it may
            be a key.
    """
    shown = "standard input" if file == "-" else file
    text = _text(file, shown)
    is_yaml = file.endswith(_YAML) or (not file.endswith(".json") and not text.lstrip().startswith("{"))
    if not text.strip():
        raise InvalidFieldError(f"{shown} is empty.")
    try:
        document = (_yaml if is_yaml else _json)(text)
    except _BrokenError as error:
        form = "YAML" if is_yaml else "JSON"
        raise InvalidFieldError(f"{shown} is no {form} that can be taken: {error}") from None
    except RecursionError:
        raise InvalidFieldError(f"{shown} is nested too deeply.") from None
    if not isinstance(document, dict):
        raise InvalidFieldError(f'{shown} has to hold one object, such as {{"name": …, "source": …}}.')
    return document


class _BrokenError(Exception):
    """What is wrong with a text, in words that quote nothing of it but names."""


def _text(file: str, shown: str) -> str:
    try:
        content = sys.stdin.buffer.read(MAX_BYTES + 1) if file == "-" else _content(Path(file))
        if len(content) > MAX_BYTES:
            raise InvalidFieldError(f"{shown} is larger than a definition may be ({MAX_BYTES:,} bytes).")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise InvalidFieldError(f"{shown} cannot be read: {error.strerror}.", remedy="Check its name.") from None
    except UnicodeDecodeError as error:
        raise InvalidFieldError(f"{shown} is not UTF-8, at byte {error.start}.") from None


def _content(path: Path) -> bytes:
    with path.open("rb") as opened:
        return opened.read(MAX_BYTES + 1)


def _json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise _BrokenError(f"{error.msg}, line {error.lineno} column {error.colno}.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _BrokenError(
            f"the name {next(n for n in found if names.count(n) > 1)[:100]!r} stands twice in one object."
        )
    return found


def _no_number(text: str) -> float:
    raise _BrokenError(f"{text} is no number of JSON.")


def _yaml(text: str) -> object:
    try:
        import yaml
    except ImportError:
        raise UsageError(
            "The library that reads YAML is not installed.",
            remedy="Send JSON, or install it: pip install 'iceberg-autoloader[server]'.",
        ) from None
    from app.cli.plain_yaml import load

    try:
        return load(text, _BrokenError)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1} column {mark.column + 1}" if mark else ""
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise _BrokenError(f"{what}{where}.") from None
    except yaml.YAMLError:
        raise _BrokenError("it holds a character that YAML does not allow.") from None
