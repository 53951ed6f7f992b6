"""Signals that come while an event loop is at work: they end it first, and are then what they are anywhere else."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_heeding(runner: asyncio.Runner, call: Coroutine[Any, Any, T]) -> T:
    """What `call` gives, carried out in the loop of `runner`.

    A signal that comes meanwhile has it cancelled, and is handed to its handler when it has ended. In the midst of the
    loop a handler might raise in a callback, and of those the loop logs what they raise and forgets it. The second
    signal is handed on at once.

    Raises:
        BaseException: What the handler raises, or the call.
    """
    if threading.current_thread() is not threading.main_thread():
        return runner.run(call)
    heed = _Heed(runner.get_loop())
    try:
        return runner.run(heed.carried_out(call))
    finally:
        heed.end()


class _Heed:
    """Stands in for the handlers of one call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None
        self._came: int | None = None
        # Python's own for Ctrl-C is one that a runner knows how to take the place of.
        kept = {number: signal.getsignal(number) for number in SIGNALS}
        self._before = {n: h for n, h in kept.items() if callable(h) and h is not signal.default_int_handler}
        for number in self._before:
            signal.signal(number, self._on_signal)

    async def carried_out(self, call: Coroutine[Any, Any, T]) -> T:
        """The call, to be cancelled by a signal."""
        self._task = asyncio.current_task()
        if self._came is not None:
            self._cancel()
        return await call

    def end(self) -> None:
        """Give the handlers back, and hand on the signal that came."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._came is not None:
            self._hand_on(self._came, None)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._came is not None:
            self._hand_on(number, frame)
            return
        self._came = number
        # Not at once: the loop is in the midst of something.
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        handler = self._before[signal.Signals(number)]
        assert callable(handler)  # noqa: S101 - no other is stood in for
        handler(number, frame)
