"""Ports that are to be listened on: free ones, and who is in the way of others."""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import closing, suppress

from app.domain.errors import PortTakenError, UsageError


def free_port(host: str) -> int:
    """A port of that address that nobody listens on now.

    Raises:
        UsageError: The address is not this machine's.
    """
    return _bound(host, 0)


def check_port(host: str, port: int, option: str) -> None:
    """Make sure that the port can be listened on.

    Raises:
        PortTakenError: Somebody else listens on it, or it takes more rights.
        UsageError: The address is not this machine's.
    """
    try:
        _bound(host, port)
    except PortTakenError as error:
        raise PortTakenError(
            f"{error.message}{_who(port)}",
            remedy=f"End what listens there, give another one by {option}, or say --free-ports.",
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def shown_host(host: str) -> str:
    """The address as it stands in a URL; where all of this machine's are meant, the nearest."""
    nearest = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nothing is bound here
    return f"[{nearest}]" if ":" in nearest else nearest


def _bound(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closing(socket.socket(family)) as one:
        # As the servers themselves do: what a connection of before has left does not count.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
            one.listen(1)
        except PermissionError:
            raise PortTakenError(f"Port {port} of {host} may not be listened on without more rights.") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTakenError(f"Port {port} of {host} is taken.") from None
            raise UsageError(
                f"{host} cannot be listened on: {error.strerror}.", remedy="Give an address of this machine by --host."
            ) from None
        return int(one.getsockname()[1])


def _who(port: int) -> str:
    """Who listens on it, as far as this user may know."""
    import psutil  # noqa: PLC0415 - only where something is in the way

    with suppress(psutil.Error, OSError):
        for one in psutil.net_connections(kind="tcp"):
            if one.status == psutil.CONN_LISTEN and getattr(one.laddr, "port", None) == port and one.pid:
                return f" Process {one.pid} ({psutil.Process(one.pid).name()}) listens there."
    return ""
