"""A child's voice: what it did is gathered and told a few times a second, everything else at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import BinaryIO

from app.engines.embedded.messages import Beat, Message, frame

# Each message wakes the parent. Thousands of small files a second would keep it busy with nothing else.
PAUSE_S = 0.1


class Voice:
    """Sends messages down a pipe, from any thread."""

    def __init__(
        self, pipe: BinaryIO, *, pause_s: float = PAUSE_S, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Say nothing yet.

        Args:
            pipe: Unbuffered; a write may take a part of what it is given.
            pause_s: Seconds from one beat that is sent to the next.
            now_s: The clock.
        """
        self._pipe = pipe
        self._pause_s = pause_s
        self._now_s = now_s
        self._lock = threading.Lock()
        self._kept: Beat | None = None
        self._next_s = 0.0

    def tell(self, message: Message) -> None:
        """Send `message`, and before it what was kept; a beat that comes too soon is kept and added to the next."""
        with self._lock:
            if isinstance(message, Beat):
                self._kept = message if self._kept is None else self._kept + message
                now_s = self._now_s()
                if now_s < self._next_s:
                    return
                self._next_s = now_s + self._pause_s
                self._send(b"")
            else:
                self._send(frame(message))

    def _send(self, framed: bytes) -> None:
        if self._kept is not None:
            framed, self._kept = frame(self._kept) + framed, None
        data = memoryview(framed)
        while data:
            data = data[self._pipe.write(data) :]
