"""Where an endpoint leads: resolved once, checked, and from then on nowhere else."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.domain.errors import SourceNotAllowedError, SourceUnreachableError
from app.domain.reach import AllowedHosts, is_host

Resolve = Callable[[str, int], list[str]]
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Way:
    """A host, and the addresses that it was found to have when that was checked."""

    host: str
    port: int
    addresses: tuple[str, ...]


def addresses_of(host: str, port: int) -> list[str]:
    """What the system's resolver says, in its order.

    Raises:
        OSError: Nothing.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # A zone tells which of the machine's own networks is meant, so that it is none of the world's.
    return list(dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found))


def checked_way(endpoint: str, allowed: AllowedHosts, resolve: Resolve = addresses_of) -> Way:
    """The way to an endpoint that may be reached.

    Args:
        endpoint: Its URL, as `domain.endpoints.checked_endpoint` gives it.
        allowed: What of the inside may be reached.
        resolve: Tells a host's addresses.

    Raises:
        SourceNotAllowedError: It is inside, or one of the addresses that its name has is.
        SourceUnreachableError: Its name has none.
    """
    parts = urlsplit(endpoint)
    host, port = (parts.hostname or "").lower(), parts.port or _PORTS[parts.scheme]
    if not is_host(host):
        raise SourceNotAllowedError(
            "endpoint_url has no name of a host and no address in its usual form.",
            remedy="Write a name such as s3.example.com, or the address as 203.0.113.7 or [2001:db8::7].",
        )
    try:
        addresses = tuple(resolve(host, port))
    except OSError:
        addresses = ()
    if not addresses:
        raise SourceUnreachableError(f"The name {host} of endpoint_url cannot be resolved.")
    if allowed.reachable(host, port, addresses) != addresses:
        raise SourceNotAllowedError(f"endpoint_url leads to {host}, which is inside this service's network.")
    return Way(host, port, addresses)
