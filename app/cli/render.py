"""Numbers and tables as people read them, values as JSON."""

from __future__ import annotations

import base64
import json
import math
import sys
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

_UNITS = ("B", "KB", "MB", "GB", "TB")
_STEP = 1000

WHY_LEFT_ALONE = "empty, a new version of a loaded file, or in the hands of another run"


def size(size_bytes: float) -> str:
    """Bytes in the unit that keeps the number short."""
    for unit in _UNITS:
        if size_bytes < _STEP or unit == _UNITS[-1]:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= _STEP
    raise AssertionError(size_bytes)


def count(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def print_json(document: Any) -> None:  # noqa: ANN401 - any JSON
    """One JSON document on stdout."""
    # A message may quote half a surrogate pair of a file, which has no form in UTF-8; as an escape it has one in JSON.
    text = json.dumps(_finite(document), ensure_ascii=False, default=_plain, allow_nan=False) + "\n"
    sys.stdout.write("".join(c if not "\ud800" <= c <= "\udfff" else f"\\u{ord(c):04x}" for c in text))


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """The value with NaN and infinities, which JSON does not have, as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return str(value)
    if isinstance(value, Decimal | UUID):
        return str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"{type(value).__name__} has no JSON form.")


def print_rows(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table for people: every column as wide as its widest value, none cut."""
    texts = [[_text(value) for value in row] for row in rows]
    widths = [max([len(h), *(len(row[i]) for row in texts)]) for i, h in enumerate(headers)]
    for row in (list(headers), ["-" * w for w in widths], *texts):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def _text(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=_plain)
    text = str(_plain(value)) if isinstance(value, bytes) else str(value)
    return text.replace("\n", "\\n").replace("\r", "\\r")
