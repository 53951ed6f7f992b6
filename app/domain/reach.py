"""What a service that has tokens may reach for those who ask it: folders of its machine, and hosts. Pure.

Whoever may make an ingestion has the service read for him, from where it stands: inside the network, on a machine with
files of its own. So what is inside is only read where whoever runs the service said so.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from app.domain.errors import InvalidFieldError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
# The last label has a letter: what has none is an address in one of its odd spellings.
_NAME = re.compile(rf"(?:{_LABEL}\.)*(?=[a-z0-9_-]*[a-z]){_LABEL}")
# What the library may take for the world's, and is not, or not always: ranges for special use, Azure's own services,
# and addresses of version 6 that hold another one of version 4.
_INSIDE = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "168.63.129.16/32"),
        *("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fec0::/10"),
    )
)
_EXAMPLES = "Separate by commas: minio.internal, minio.internal:9000, 10.0.0.5, 10.1.0.0/16."


@dataclass(frozen=True)
class AllowedHosts:
    """Hosts that may be reached although they are inside.

    Args:
        names: Name (or address, as text) and port; None: any port.
        networks: Whatever name leads into them.
    """

    names: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[Network, ...] = ()

    def has_name(self, host: str, port: int) -> bool:
        """Whether that host may be reached, wherever its name leads."""
        return not self.names.isdisjoint({(host, None), (host, port)})

    def has_address(self, text: str) -> bool:
        """Whether that address may be reached by any name."""
        address = _unwrapped(ipaddress.ip_address(text))
        return any(address in network for network in self.networks if network.version == address.version)

    def reachable(self, host: str, port: int, addresses: Iterable[str]) -> tuple[str, ...]:
        """Those of a host's addresses that may be reached: the world's, and what of the inside is allowed."""
        if self.has_name(host.lower().removesuffix("."), port):
            return tuple(addresses)
        return tuple(address for address in addresses if is_public(address) or self.has_address(address))


@dataclass(frozen=True)
class Reach:
    """What may be reached.

    Args:
        roots: Folders below which local sources may lie, real and absolute; none: there are no local sources.
        never: Files and folders that are no source wherever they lie: what is the program's own, and the system's.
        hosts: What of the inside may be reached as an endpoint.
    """

    roots: tuple[bytes, ...] = ()
    never: tuple[bytes, ...] = ()
    hosts: AllowedHosts = AllowedHosts()

    def has_path(self, path: bytes) -> bool:
        """Whether a file or folder at that real path may be read."""
        return any(_is_inside(path, root) for root in self.roots) and not any(
            _is_inside(path, one) for one in self.never
        )


def _is_inside(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def parse_allowed_hosts(text: str) -> AllowedHosts:
    """Read the setting.

    Raises:
        InvalidFieldError: A part of it is neither a host nor a network.
    """
    names: set[tuple[str, int | None]] = set()
    networks: list[Network] = []
    for part in filter(None, (one.strip().lower() for one in text.split(","))):
        try:
            networks.append(ipaddress.ip_network(part))
        except ValueError:
            names.add(_host_and_port(part))
    return AllowedHosts(frozenset(names), tuple(networks))


def _host_and_port(text: str) -> tuple[str, int | None]:
    host, colon, digits = text.rpartition(":")
    if not colon:
        host, digits = text, ""
    host = host.removeprefix("[").removesuffix("]")
    if not is_host(host) or (colon and not (digits.isdecimal() and 0 < int(digits) < 1 << 16)):
        raise InvalidFieldError(
            f"AUTOLOADER_ALLOWED_HOSTS has {text[:80]!r}, which is neither a host nor a network.", remedy=_EXAMPLES
        )
    return host, int(digits) if colon else None


def is_host(text: str) -> bool:
    """Whether a text in small letters is the name of a host, or an address as it is usually spelt."""
    try:
        return str(ipaddress.ip_address(text)) == text
    except ValueError:
        return len(text) < 1 << 8 and _NAME.fullmatch(text) is not None


def is_public(text: str) -> bool:
    """Whether an address is one of the world's, and not of this machine, this network, or whoever rents it out."""
    address = _unwrapped(ipaddress.ip_address(text))
    if any(address in network for network in _INSIDE if network.version == address.version):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _unwrapped(address: Address) -> Address:
    """The address of version 4 that one of version 6 only spells in another way."""
    return getattr(address, "ipv4_mapped", None) or address
