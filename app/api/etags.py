"""ETags: the version of an ingestion, so that a change that was made meanwhile is not overwritten unseen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Header
from starlette.requests import Request

_OURS = re.compile(r'"v(\d{1,18})"')
_TAG = re.compile(r'(?:W/)?"[^"]*"')
# As RFC 9110, 5.6.1 has lists: between two commas there may be nothing.
_LIST = re.compile(r'\s*(?:(?:W/)?"[^"]*"\s*)?(?:,\s*(?:(?:W/)?"[^"]*"\s*)?)*')


def etag(version: int) -> str:
    """The ETag of that version."""
    return f'"v{version}"'


def versions_of(lines: Sequence[str]) -> frozenset[int] | None:
    """The versions that a change is asked of, any of which will do (RFC 9110, 13.1.1); None where each will.

    Args:
        lines: The values of the headers `If-Match`, one after the other; together they are one list.
    """
    whole = ", ".join(lines)
    if not lines or whole.strip() == "*":
        return None
    # What is no tag, weak or not ours is no version that there is.
    tags = _TAG.findall(whole) if _LIST.fullmatch(whole) else []
    return frozenset(int(found[1]) for tag in tags if (found := _OURS.fullmatch(tag)))


async def _expected_versions(
    request: Request,
    if_match: Annotated[
        str | None,
        Header(
            description="The `ETag` of the ingestion as it was read; where it has changed since, the answer is 412."
        ),
    ] = None,
) -> frozenset[int] | None:
    # The parameter has one line of the header, and shows it in OpenAPI.
    return None if if_match is None else versions_of(request.headers.getlist("if-match"))


IfMatch = Annotated[frozenset[int] | None, Depends(_expected_versions)]
