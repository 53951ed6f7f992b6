"""Where names of hosts lead to, asked without taking the threads that everything else is done in."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

# Names that are asked for at once. A name server that says nothing holds a thread for as long as the system likes.
AT_ONCE = 16
# Host, port, and the addresses that the host has → those of them that may be connected to. It may ask the database, and
# is called in a thread.
Allowed = Callable[[str, int, Sequence[str]], Sequence[str]]


class HostUnknownError(Exception):
    """A name leads nowhere, or nobody said where."""


class HostRefusedError(HostUnknownError):
    """A name leads where the service connects to nothing."""


async def allowed_addresses(allowed: Allowed, resolver: Resolver, host: str, port: int) -> list[str]:
    """The addresses of a host that may be connected to, one at least.

    Raises:
        HostUnknownError: It leads nowhere.
        HostRefusedError: It leads where the service connects to nothing.
    """
    addresses = await resolver.addresses(host, port)
    found = await asyncio.to_thread(allowed, host, port, addresses)
    if not addresses:
        raise HostUnknownError(f"{host} has no address that can be used.")
    if not found:
        raise HostRefusedError(_refusal(host, addresses))
    return list(found)


class Resolver:
    """Asks the system's resolver, in threads of its own that no process waits for at its end."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        """Ask for so many names at once at most."""
        self._free = threading.BoundedSemaphore(at_once)

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host, in the order in which they are to be tried; an address leads to itself.

        Raises:
            HostUnknownError: It leads nowhere, or too many names are being asked for.
        """
        with suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        if not self._free.acquire(blocking=False):
            raise HostUnknownError(f"{host} was not looked up: the resolver is busy.")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[str]] = loop.create_future()

        def tell(addresses: list[str], error: str) -> None:
            if found.done():
                return
            if error:
                found.set_exception(HostUnknownError(error))
            else:
                found.set_result(addresses)

        def ask() -> None:
            addresses, error = _look_up(host, port)
            self._free.release()
            # Whoever asked may be gone, and his loop with him.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(tell, addresses, error)

        try:
            threading.Thread(target=ask, name="resolver", daemon=True).start()
        except RuntimeError as error:
            self._free.release()
            raise HostUnknownError(f"{host} was not looked up: {error}.") from error
        return await found


def _look_up(host: str, port: int) -> tuple[list[str], str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        return [], f"{host} does not resolve: {reason}. Correct the name, or have the name server know it."
    # An address with a zone is good on one network card alone.
    addresses = dict.fromkeys(str(one[4][0]) for one in found)
    return [one for one in addresses if "%" not in one], ""


def _refusal(host: str, addresses: Sequence[str]) -> str:
    """Why none of a host's addresses may be connected to."""
    is_address = list(addresses) == [host]
    what = f"{host} is not called:" if is_address else f"{host} leads to {', '.join(addresses)}, and"
    return (
        f"{what} the service does not connect to private, loopback or link-local addresses. "
        "Whoever runs it can allow the host in AUTOLOADER_ALLOWED_HOSTS."
    )
