"""The files of the scenarios: 1,000 records each, ids `file × 1000 + n`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

RECORDS = 1000


def event_file(number: int, **more: Any) -> bytes:
    """File `number` as NDJSON; `more` are fields that every record has beside the five."""
    return b"".join(json.dumps(event(number * RECORDS + n, **more)).encode() + b"\n" for n in range(RECORDS))


def event(number: int, **more: Any) -> dict[str, Any]:
    """One record."""
    return {
        "id": number,
        "timestamp": f"2024-05-01T{number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z",
        "user_id": f"user_{number % 97}",
        "event_type": ("view", "click", "purchase")[number % 3],
        "value": number / 4,
        **more,
    }


def event_files(*numbers: int, **more: Any) -> Mapping[str, bytes]:
    """Names below the landing place, and contents."""
    return {f"data/batch_{number}.json": event_file(number, **more) for number in numbers}
