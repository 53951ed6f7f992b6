"""A server that says the same to everybody, or nothing at all."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass
class Listener:
    """A server that answers every request with these bytes, or never; the first requests with other ones."""

    answer: bytes | None
    first: list[bytes] = field(default_factory=list)
    _socket: socket.socket = field(default_factory=socket.socket)
    _open: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        if self.answer is None:
            # Whoever comes is taken by the system: nobody has to be at work for that, and none is counted late.
            self._socket.setblocking(False)  # noqa: FBT003 - the library has no name for it
        else:
            self._thread.start()

    @property
    def connections(self) -> int:
        """How many have connected."""
        if self.answer is None:
            with suppress(BlockingIOError):
                while True:
                    self._open.append(self._socket.accept()[0])
        return len(self._open)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/api"

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._open.append(connection)
                if self.answer is not None:
                    # Who hung up meanwhile is not answered; the next one is.
                    with suppress(OSError):
                        connection.recv(65536)
                        connection.sendall(self.first.pop() if self.first else self.answer)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if self._thread.ident is not None:
            self._thread.join()
        for one in self._open:
            one.close()
