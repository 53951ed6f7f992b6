"""A proxy inside this process that leads to one place: what is behind it cannot be asked for anything else.

The store's library resolves names by itself, each time anew, and follows redirects. Through here neither works: a
connection goes to an address that was checked, and to another host or port there is none. What is encrypted stays so
from end to end, and the certificate is checked for the name.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import weakref
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.sources.access import MISDIRECTED
from app.sources.endpoints import Way

LOOPBACK = "127.0.0.1"
_REFUSED = b"HTTP/1.1 %d Misdirected Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % MISDIRECTED
_UNREACHABLE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_TUNNEL = b"HTTP/1.1 200 Connection established\r\n\r\n"
_LARGEST_HEAD = 64 * 1024
_PIECE = 256 * 1024
_HEAD_S = 10.0
_CONNECT_S = 3.0
# Longer than the library waits for anything.
_IDLE_S = 300.0


class Gate:
    """The way to one place, opened in whichever process needs it; goes to another one as the mere way."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._opening = threading.Lock()
        self._listener: socket.socket | None = None

    def __reduce__(self) -> tuple[type[Gate], tuple[Way]]:
        return Gate, (self._way,)

    def __repr__(self) -> str:
        return f"Gate({self._way!r})"

    @property
    def proxy_url(self) -> str:
        """The address of the proxy; it stands as long as the gate does."""
        with self._opening:
            if self._listener is None:
                self._listener = socket.create_server((LOOPBACK, 0), backlog=128)
                weakref.finalize(self, _close, self._listener)
                # It must not hold the gate, with which it ends.
                arguments = (self._listener, self._way)
                threading.Thread(target=_accept, args=arguments, name="gate", daemon=True).start()
            return f"http://{LOOPBACK}:{self._listener.getsockname()[1]}"


def _close(listener: socket.socket) -> None:
    # It wakes whoever waits for a connection; closing alone would not.
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _accept(listener: socket.socket, way: Way) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            # It was closed.
            return
        threading.Thread(target=_serve, args=(connection, way), name="gate-connection", daemon=True).start()


def _serve(connection: socket.socket, way: Way) -> None:
    # Whatever breaks off on either side, the other one sees it break off.
    with connection, contextlib.suppress(OSError):
        connection.settimeout(_HEAD_S)
        asked = _asked(connection)
        if asked is None or (asked.host, asked.port) != (way.host, way.port):
            connection.sendall(_REFUSED)
            return
        upstream = _connected(way)
        if upstream is None:
            connection.sendall(_UNREACHABLE)
            return
        with upstream:
            if asked.is_tunnel:
                connection.sendall(_TUNNEL)
            upstream.sendall(asked.forward)
            _relay(connection, upstream)


@dataclass(frozen=True)
class _Asked:
    """Where a connection wants to go, and the bytes that are to go there first."""

    host: str
    port: int
    is_tunnel: bool
    forward: bytes


def _asked(connection: socket.socket) -> _Asked | None:
    """What a client wants of a proxy; None where that cannot be understood."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(_PIECE)
        received += piece
        if not piece or len(received) > _LARGEST_HEAD:
            return None
    head, _, rest = received.partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    try:
        method, target, version = line.decode("ascii").split(" ")
        is_tunnel = method == "CONNECT"
        parts = urlsplit(f"//{target}" if is_tunnel else target)
        port = parts.port or 80
    except ValueError:
        return None
    if parts.hostname is None or (not is_tunnel and parts.scheme != "http"):
        return None
    if is_tunnel:
        return _Asked(parts.hostname, port, is_tunnel, rest)
    path = target.split("/", 3)[3] if target.count("/") > 2 else ""  # noqa: PLR2004 - those before the path
    kept = [one for one in headers if not one.lower().startswith((b"proxy-", b"connection:"))]
    # One request a connection, so that every one is looked at.
    lines = (f"{method} /{path} {version}".encode(), *kept, b"Connection: close", b"", rest)
    return _Asked(parts.hostname, port, is_tunnel, b"\r\n".join(lines))


def _connected(way: Way) -> socket.socket | None:
    for address in way.addresses:
        with contextlib.suppress(OSError):
            # An address, so that nothing is resolved.
            return socket.create_connection((address, way.port), timeout=_CONNECT_S)
    return None


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Hand on what each says to the other, until both have said all."""
    with selectors.DefaultSelector() as selector:
        for speaker, listener in ((one, other), (other, one)):
            speaker.settimeout(_IDLE_S)
            selector.register(speaker, selectors.EVENT_READ, (speaker, listener))
        while selector.get_map():
            ready = selector.select(_IDLE_S)
            if not ready:
                return
            for key, _ in ready:
                speaker, listener = key.data
                piece = speaker.recv(_PIECE)
                if piece:
                    listener.sendall(piece)
                else:
                    selector.unregister(speaker)
                    listener.shutdown(socket.SHUT_WR)
