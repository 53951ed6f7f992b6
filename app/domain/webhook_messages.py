"""What a receiver gets: the message, and the headers that let it check where it is from. Pure.

Headers and signature are those of the specification "Standard Webhooks", 1.0.0: `webhook-id`, `webhook-timestamp` and
`webhook-signature`, an HMAC-SHA256 of `id.timestamp.body`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

SECRET_PREFIX = "whsec_"  # noqa: S105 - what every such secret begins with
# So many failed files are told; the run's resource has more.
ERRORS_TOLD = 5
LONGEST_ERROR = 300
LONGEST_FILE = 1_000


def message(kind: str, at: datetime, data: Mapping[str, Any]) -> str:
    """The body of a message: JSON in ASCII, without a needless space.

    Args:
        kind: Its type, such as `run.failed`.
        at: When that happened.
        data: What it is about.
    """
    return json.dumps({"type": kind, "timestamp": utc_text(at), "data": dict(data)}, separators=(",", ":"))


def utc_text(time: datetime | None) -> str | None:
    """A time as RFC 3339 has it."""
    return None if time is None else time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def run_link(ingestion_id: str, run_id: str) -> str:
    """Where the service tells of a run, below its address."""
    return f"/api/v1/ingestions/{ingestion_id}/runs/{run_id}"


def told_errors(errors: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first errors of a run, cut to what a message bears."""
    return [
        {
            "file": None if one.get("file") is None else str(one["file"])[:LONGEST_FILE],
            "category": one.get("category"),
            "line": one.get("line"),
            "message": str(one.get("message") or "")[:LONGEST_ERROR],
            "retryable": bool(one.get("retryable")),
        }
        for one in errors[:ERRORS_TOLD]
    ]


def headers(delivery_id: str, at_s: int, body: bytes, secret: str | None) -> dict[str, str]:
    """The headers of one attempt.

    Args:
        delivery_id: The same for every attempt of a message.
        at_s: The time of this attempt, in seconds since 1970.
        body: As it is sent.
        secret: Of the webhook; without one there is no signature.
    """
    found = {"webhook-id": delivery_id, "webhook-timestamp": str(at_s)}
    if secret is not None:
        found["webhook-signature"] = signature(secret, delivery_id, at_s, body)
    return found


def signature(secret: str, delivery_id: str, at_s: int, body: bytes) -> str:
    """The value of the header `webhook-signature`."""
    signed = f"{delivery_id}.{at_s}.".encode() + body
    digest = hmac.new(signing_key(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def signing_key(secret: str) -> bytes:
    """The key that a secret stands for: base64 after `whsec_`, as the specification spells it, else the text itself.

    Raises:
        ValueError: What follows `whsec_` is no base64.
    """
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
