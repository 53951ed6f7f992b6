"""Signed requests to an S3 server, for what a store library does not let one ask: buckets, odd keys, folder markers."""

from __future__ import annotations

import hashlib
import hmac
import urllib.request
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit


def s3_request(
    method: str, endpoint: str, path: str, body: bytes = b"", *, access_key: str, secret_key: str, region: str
) -> int:
    """Send one request, signed with AWS Signature Version 4.

    Args:
        method: Such as PUT.
        endpoint: `http://host:port`.
        path: `/bucket` or `/bucket/key`, not encoded; it is sent byte for byte, empty segments and all.
        body: The content.
        access_key: Who asks.
        secret_key: Its secret.
        region: What the signature names.

    Returns:
        The status.

    Raises:
        urllib.error.HTTPError: The server refused.
    """
    now = datetime.now(UTC)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    encoded = quote(path, safe="/-_.~")
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": urlsplit(endpoint).netloc, "x-amz-content-sha256": digest, "x-amz-date": stamp}
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = f"{method}\n{encoded}\n\n{lines}\n{names}\n{digest}"
    scope = f"{day}/{region}/s3/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    request = urllib.request.Request(endpoint + encoded, data=body, method=method, headers=headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return int(answer.status)
