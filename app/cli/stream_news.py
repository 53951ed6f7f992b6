"""News of a run at a server: its stream of events, read in a thread of its own beside the one that asks and prints."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from types import TracebackType
from typing import Self

from app.domain.errors import AutoloaderError
from app.services.following import ANYWAY_S, FollowedEvent, parse_stream

# While there is no stream, it is looked so often.
LOOK_EVERY_S = 1.0
# A stream that broke is opened again after so long; one that was refused, as when there are too many, after so long.
AGAIN_S = 1.0
REFUSED_S = 10.0
# The service is never silent for so long: the line is dead.
SILENCE_S = 45.0
# A thread that is just connecting is not waited for longer.
FAREWELL_S = 2.0
LONGEST_LINE = 1 << 20


class StreamNews:
    """Rings when something may have changed. News are hints: where there is no stream it rings every second."""

    def __init__(self, connect: Callable[[int | None], HTTPResponse]) -> None:
        """Listen to the stream that `connect` opens behind that event; None: behind all that there are.

        It raises AutoloaderError where the stream is refused, and OSError or HTTPException where nobody answers.
        """
        self._connect = connect
        self._rung = threading.Event()
        self._closing = threading.Event()
        # Holds together whether it is closing and which line there is to cut.
        self._lock = threading.Lock()
        self._answer: HTTPResponse | None = None
        self._seen: int | None = None
        self._thread = threading.Thread(target=self._listen, name="stream-news", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closing.set()
            if self._answer is not None:
                _cut(self._answer)
        self._thread.join(FAREWELL_S)

    def wait(self) -> None:
        """Until something may have changed since this was last waited for; at the latest after some seconds."""
        self._rung.wait(LOOK_EVERY_S if self._answer is None else ANYWAY_S)
        self._rung.clear()

    # --- the thread -------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while not self._closing.is_set():
            pause_s = AGAIN_S
            try:
                with self._connect(self._seen) as answer:
                    self._hear(answer)
            except (OSError, HTTPException):
                pass
            except (AutoloaderError, ValueError, RecursionError):
                pause_s = REFUSED_S
            with self._lock:
                was_open, self._answer = self._answer is not None, None
            if was_open:
                # From here on it is asked.
                self._rung.set()
            self._closing.wait(pause_s)

    def _hear(self, answer: HTTPResponse) -> None:
        with self._lock:
            if self._closing.is_set():
                return
            self._answer = answer
        # What happened before the line stood is not told on it.
        self._rung.set()
        for event in _events(answer):
            if event.kind:
                self._rung.set()
            self._seen = event.id


def _events(answer: HTTPResponse) -> Iterator[FollowedEvent]:
    """Those that come, until the line breaks.

    Raises:
        ValueError: It is no stream of events.
    """
    return parse_stream(_lines(answer))


def _lines(answer: HTTPResponse) -> Iterator[str]:
    while line := answer.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise ValueError("A line that has no end.")
        yield line.decode("utf-8").rstrip("\r\n")


def _cut(answer: HTTPResponse) -> None:
    """End a line on which another thread waits for what comes."""
    with suppress(OSError, ValueError), socket.socket(fileno=os.dup(answer.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
