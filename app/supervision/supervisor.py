"""The head of the tree: starts the children, starts again what ends, tells when all is ready, and ends all of it.

One loop in one thread. It decides by what the system says of processes, never by what it remembers of them.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from app.domain.errors import ChildFailedError
from app.supervision.children import Child, ChildSpec, how_it_ended, spawn
from app.supervision.marked import VARIABLE, children_of, kill_marked, send

# A child that never was ready is given up when it has ended so often.
TRIES = 3
TICK_S = 0.25
# While all is ready only news from the system wake it up.
QUIET_TICK_S = 2.0
WATCHDOGS_APART_S = 1.0
LOOK_EVERY_S = 0.5
# How soon it is said again what is waited for.
TELL_EVERY_S = 10.0
# When a stop has begun: those that others need are asked to end, and whoever is still there is killed.
LAST_AFTER_S = 7.0
KILL_AFTER_S = 8.0
SWEEP_S = 2.0
PIECE = 1 << 16
LONGEST_LINE = 1 << 16
PR_SET_CHILD_SUBREAPER = 36
SELF = "up"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Say = Callable[[str, str], None]


class Supervisor:
    """Runs one tree, once."""

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        mark: str,
        lock: int,
        *,
        say: Say,
        on_ready: Callable[[dict[str, int]], None],
        last_after_s: float = LAST_AFTER_S,
        kill_after_s: float = KILL_AFTER_S,
    ) -> None:
        """Prepare to run these children.

        Args:
            specs: The children, in the order in which they are started. Each one's environment has the mark.
            mark: What `marked` finds the processes of this tree by.
            lock: The home's, which the watchdog holds too.
            say: Told (speaker, line).
            on_ready: Called when all are ready for the first time, with the process id of each.
            last_after_s: When those that others need are asked to end, although others have not.
            kill_after_s: When whoever is still there is killed.
        """
        self._children = [Child(spec) for spec in specs]
        self._mark = mark
        self._lock = lock
        self._say = say
        self._on_ready = on_ready
        self._last_after_s = last_after_s
        self._kill_after_s = kill_after_s
        self._selector = selectors.DefaultSelector()
        self._held: dict[int, bytes] = {}
        self._signals: list[int] = []
        self._watchdog: int | None = None
        self._watchdog_at = 0.0
        self._asked: set[int] = set()
        self._looked_at = self._told_at = time.monotonic()
        self._told = ""
        self._was_ready = self._is_ready = self._is_stopping = False
        # The pipe whose other end the watchdog reads: it ends with this process.
        self._life = os.pipe()

    def run(self) -> int:
        """Run until a signal says to stop; its number. Nothing of the tree is left then.

        Raises:
            ChildFailedError: A child cannot be started; the others were ended.
        """
        with self._attentive():
            try:
                while not self._signals:
                    self._see_to_watchdog()
                    self._start_due()
                    self._wait(QUIET_TICK_S if self._is_ready else TICK_S)
                    self._reap()
                    self._look()
            finally:
                self._stop()
            return self._signals[0]

    # --- starting ---------------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        for child in self._children:
            if child.pid is None and time.monotonic() >= child.start_at and child.needed() is None:
                self._start(child)

    def _start(self, child: Child) -> None:
        ours, theirs = os.pipe()
        try:
            child.began(spawn(child.spec.command, child.spec.environ, output=theirs))
        except OSError as error:
            # The system has no more processes or no more memory, for now.
            os.close(ours)
            self._failed(child, child.ended(f"before it began: {error.strerror}"))
            return
        finally:
            os.close(theirs)
        os.set_blocking(ours, False)
        self._held[ours] = b""
        self._selector.register(ours, selectors.EVENT_READ, child.spec.name)

    def _see_to_watchdog(self) -> None:
        if self._watchdog is not None or time.monotonic() < self._watchdog_at:
            return
        self._watchdog_at = time.monotonic() + WATCHDOGS_APART_S
        arguments = [sys.executable, "-m", "app.supervision.watchdog", self._mark]
        files = [(os.POSIX_SPAWN_DUP2, self._life[0], 0), (os.POSIX_SPAWN_DUP2, self._lock, 3)]
        # It has no mark, for it is not to end itself.
        environ = {name: value for name, value in self._children[0].spec.environ.items() if name != VARIABLE}
        # Where the system has no process for it now, it is asked again; until then the kernel's tie has to do.
        with suppress(OSError):
            self._watchdog = os.posix_spawn(arguments[0], arguments, environ, file_actions=files, setsid=True)

    # --- what happens -----------------------------------------------------------------------------------------------

    def _wait(self, timeout_s: float = TICK_S) -> None:
        """Wait for something to happen, and pass on what the children wrote."""
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                # Only to wake up; which signals came is known.
                with suppress(BlockingIOError):
                    os.read(key.fd, PIECE)
            else:
                self._read(key.fd, str(key.data))

    def _read(self, descriptor: int, name: str) -> None:
        try:
            piece = os.read(descriptor, PIECE)
        except BlockingIOError:
            return
        *lines, rest = (self._held[descriptor] + piece).split(b"\n")
        if len(rest) > LONGEST_LINE or not piece:
            lines.append(rest)
            rest = b""
        left_out = next((child.spec.left_out for child in self._children if child.spec.name == name), None)
        for line in lines:
            text = line.decode("utf-8", "backslashreplace")
            if left_out is None or not left_out.match(text):
                self._say(name, text)
        self._held[descriptor] = rest
        if not piece:
            self._selector.unregister(descriptor)
            del self._held[descriptor]
            os.close(descriptor)

    def _reap(self) -> None:
        """Take note of whoever has ended; those that were left by their parents are among them."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._watchdog:
                self._watchdog = None
            for child in self._children:
                if child.pid == pid:
                    self._failed(child, child.ended(how_it_ended(status)))

    def _failed(self, child: Child, delay_s: float) -> None:
        """Say that it has ended, and give it up where it can never start."""
        if self._is_stopping:
            return
        title = child.spec.title
        if not child.was_ready and child.failures >= TRIES:
            raise ChildFailedError(
                f"{title} cannot be started: it ended {child.failures} times before it was ready, the last time "
                f"{child.how_it_ended}."
            )
        self._is_ready = False
        self._say(SELF, f"{title} ended {child.how_it_ended}; it is started again in {delay_s:g} s.")

    # --- whether all is ready ---------------------------------------------------------------------------------------

    def _look(self) -> None:
        if self._is_ready or time.monotonic() - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = time.monotonic()
        for child in self._children:
            if child.pid is not None and not child.is_ready and child.look():
                self._say(SELF, f"{child.spec.title} is ready.")
        waiting = [what for child in self._children for what in _waits_for(child)]
        if waiting:
            self._tell(f"Waiting for {' and '.join(dict.fromkeys(waiting))}.")
            return
        self._is_ready = True
        if self._was_ready:
            self._say(SELF, "Everything is ready again.")
            return
        self._was_ready = True
        self._on_ready({child.spec.name: child.pid for child in self._children if child.pid is not None})

    def _tell(self, line: str) -> None:
        now = time.monotonic()
        if line != self._told or now - self._told_at > TELL_EVERY_S:
            self._told, self._told_at = line, now
            self._say(SELF, line)

    # --- the end ----------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """End everything, in order while there is time, at once when a second signal comes."""
        began, self._is_stopping = time.monotonic(), True
        if self._signals:
            self._say(SELF, "Stopping; once more kills at once.")
        while self._running() and len(self._signals) <= 1 and time.monotonic() - began < self._kill_after_s:
            self._ask_to_end(with_last=time.monotonic() - began > self._last_after_s)
            self._wait()
            self._reap()
        killed = self._running()
        send(killed, signal.SIGKILL)
        if not kill_marked(self._mark, within_s=SWEEP_S):
            self._say(SELF, "A process does not end although it was killed: the system is busy with it.")
        if killed and self._signals:
            why = "at once" if len(self._signals) > 1 else f"after {self._kill_after_s:g} s"
            self._say(SELF, f"Killed {why}: {', '.join(map(str, killed))}.")
        self._reap()
        self._close()

    def _running(self) -> list[int]:
        """Children, and what was left by one of theirs and is ours now."""
        own = [child.pid for child in self._children if child.pid is not None]
        left = [pid for pid in children_of(os.getpid()) if pid != self._watchdog and pid not in own]
        return [*own, *left]

    def _ask_to_end(self, *, with_last: bool) -> None:
        last = {child.pid for child in self._children if child.spec.last}
        first = [pid for pid in self._running() if pid not in last]
        due = {pid for pid in [*first, *last] if pid is not None} if with_last or not first else set(first)
        send(due - self._asked, signal.SIGTERM)
        self._asked |= due

    def _close(self) -> None:
        for descriptor in list(self._held):
            # What it has written is told, and whoever still has the other end is none of ours.
            self._read(descriptor, str(self._selector.get_key(descriptor).data))
        self._selector.close()
        for descriptor in self._held:
            os.close(descriptor)
        os.close(self._life[1])
        os.close(self._life[0])
        if self._watchdog is not None:
            with suppress(ChildProcessError):
                os.waitpid(self._watchdog, 0)
        os.close(self._lock)

    @contextmanager
    def _attentive(self) -> Iterator[None]:
        """Have signals wake the loop up, and orphans of the children become children of this process."""
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        os.set_blocking(theirs, False)
        self._selector.register(ours, selectors.EVENT_READ, None)
        earlier_wakeup = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        earlier = {number: signal.signal(number, self._note) for number in SIGNALS if not _is_ignored(number)}
        earlier[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _wake)
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(earlier_wakeup)
            os.close(ours)
            os.close(theirs)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)


def _waits_for(child: Child) -> list[str]:
    if child.pid is None:
        needed = child.needed()
        again = " again" if child.failures else ""
        return [needed or f"{child.spec.title[0].lower()}{child.spec.title[1:]} to be started{again}"]
    return [child.waits_for[0].what] if child.waits_for else []


def _is_ignored(number: int) -> bool:
    """`nohup` has the hang-up ignored, and that is to stay so."""
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


def _wake(_number: int, _frame: FrameType | None) -> None:
    """That a signal came is all that is needed: the loop looks."""
