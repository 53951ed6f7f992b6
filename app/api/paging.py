"""Pages of lists: a cursor that a client hands back as it got it, and that means nothing to it."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import Query

from app.api.problems import Refusal
from app.domain.errors import InvalidFieldError

DEFAULT_LIMIT = 50
MAX_LIMIT = 500

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items of a page.")]
Cursor = Annotated[
    str | None, Query(max_length=8_000, description="`next` of the page before, as it was given. Its form may change.")
]


def cursor_of(keys: Sequence[str | int | None]) -> str:
    """The cursor for what comes after an item with these sort keys."""
    return base64.urlsafe_b64encode(json.dumps(list(keys)).encode()).decode().rstrip("=")


def keys_of(cursor: str | None, count: int) -> tuple[str | int | None, ...] | None:
    """The sort keys in a cursor; None where there is no cursor.

    Raises:
        Refusal: It is no cursor of such a list.
    """
    if cursor is None:
        return None
    try:
        keys = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        keys = None
    if not isinstance(keys, list) or len(keys) != count or not all(_is_key(key) for key in keys):
        raise bad_cursor()
    return tuple(keys)


def time_of(key: str) -> datetime:
    """The time that a cursor holds.

    Raises:
        Refusal: It holds none.
    """
    try:
        return datetime.fromisoformat(key).astimezone(UTC)
    except (ValueError, OverflowError):
        raise bad_cursor() from None


def bad_cursor() -> Refusal:
    """The answer to what is no cursor of a list."""
    message = "This is no cursor of this list. Hand back `next` as it was given, with the same filters."
    return Refusal(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        InvalidFieldError.code,
        f"query.cursor: {message}",
        fields=[("query.cursor", message)],
    )


def _is_key(key: object) -> bool:
    if isinstance(key, str):
        return "\0" not in key and not any("\ud800" <= c <= "\udfff" for c in key)
    return key is None or (isinstance(key, int) and not isinstance(key, bool) and abs(key) < 1 << 63)
