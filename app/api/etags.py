"""ETags: the version of an ingestion, so that a change that was made meanwhile is not overwritten unseen."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Header

from app.domain.errors import VersionMismatchError

_OURS = re.compile(r'"v(\d{1,18})"')
_TAG = re.compile(r'(?:W/)?"[^"]*"')
_LIST = re.compile(r'\s*(?:W/)?"[^"]*"\s*(?:,\s*(?:W/)?"[^"]*"\s*)*')

IfMatch = Annotated[
    str | None,
    Header(description="The `ETag` of the ingestion as it was read; where it has changed since, the answer is 412."),
]


def etag(version: int) -> str:
    """The ETag of that version."""
    return f'"v{version}"'


def expected_version(if_match: str | None) -> int | None:
    """The version that a change is asked of; None where any will do.

    Of several the newest: a client that has seen it does not mean an older one.

    Raises:
        VersionMismatchError: The header names no version of ours.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    tags = _TAG.findall(if_match) if _LIST.fullmatch(if_match) else []
    versions = [int(found[1]) for tag in tags if (found := _OURS.fullmatch(tag))]
    if not versions:
        raise VersionMismatchError
    return max(versions)
