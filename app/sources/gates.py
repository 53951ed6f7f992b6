"""The gate that a source's own endpoint is reached through, where not everything may be reached."""

from __future__ import annotations

from collections.abc import Mapping

from app.domain.endpoints import checked_endpoint
from app.domain.errors import InvalidFieldError
from app.domain.reach import Reach
from app.sources.endpoints import checked_way
from app.sources.forward import Gate
from app.sources.google import named_endpoint

# What signs requests by itself, by the scheme of the keys: with one of these nothing of the service's own is sent.
_KEYS = {
    "s3": ("aws_access_key_id",),
    "az": ("account_key", "sas_token"),
    "gs": ("service_account_key",),
}


def gate_of(scheme: str, credentials: Mapping[str, str], reach: Reach) -> Gate | None:
    """The gate to the endpoint that the credentials name; None: they name none, and the service's own is used.

    Raises:
        SourceNotAllowedError: It may not be reached.
        SourceUnreachableError: Its name cannot be resolved.
        InvalidFieldError: It is no endpoint, or there is no key of its own, so that the service's would be sent to it.
    """
    endpoint = credentials.get("endpoint_url")
    if scheme == "gs" and not endpoint:
        endpoint = named_endpoint(credentials.get("service_account_key"))
    checked = checked_endpoint(endpoint or None, "an object store")
    if checked is None:
        return None
    if not any(credentials.get(name) for name in _KEYS[scheme]):
        raise InvalidFieldError(
            "source.credentials names an endpoint and no key: the service's own is not sent to it.",
            remedy=f"Give {' or '.join(_KEYS[scheme])} too.",
            field="source.credentials.endpoint_url",
        )
    return Gate(checked_way(checked, reach.hosts))
