"""What object stores' services are asked by, as people give it: addresses, and texts that go into headers. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from app.domain.errors import InvalidFieldError


def has_control_character(text: str) -> bool:
    """Whether it holds what no header of HTTP can carry, such as a line end."""
    return any(ord(c) < 32 or ord(c) == 127 for c in text)  # noqa: PLR2004 - the control characters of ASCII


def checked_endpoint(endpoint: str | None, service: str) -> str | None:
    """The endpoint without a "/" at its end; None where none is given.

    Raises:
        InvalidFieldError: It is no URL of a service, or holds a secret.
    """
    if endpoint is None:
        return None
    try:
        parts = urlsplit(endpoint)
        # A port that is none is only found out when it is asked for.
        port = parts.port
        usable = (
            not has_control_character(endpoint)
            and parts.scheme in {"http", "https"}
            and parts.hostname
            and not parts.query
            and not parts.fragment
        )
    except ValueError:
        usable, port = False, None
    if not usable or port == 0:
        raise InvalidFieldError(
            f"endpoint_url is no URL of {service}.", remedy="Write https://host or http://host:port."
        )
    if parts.username or parts.password:
        raise InvalidFieldError(
            "endpoint_url must not hold a name or password.", remedy="Give the key in its own fields."
        )
    return endpoint.rstrip("/")
