"""The process that runs are forked from.

It has imported whatever a run needs and has used none of it, for what is used starts threads, and a process with
threads must not be forked. It ends with the worker, and its children end with it.

A worker forks it from itself when it starts, so that what both have imported is in memory once. One that takes the
place of another is a program of its own, `python -m app.prefect.worker.forkserver SOCKET`: by then the worker has
threads.
"""

from __future__ import annotations

import ctypes
import gc
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.prefect.worker import names
from app.prefect.worker.messages import Began, Ended, Lines, Message, Order, Ready, Refused, from_line, to_line
from app.prefect.worker.preloading import preload
from app.services.vigil import GIVE_BACK_SIGNAL
from app.services.yielding import let_others_go_first

_PR_SET_PDEATHSIG = 1
_READ_BYTES = 1 << 16
# When the machine's memory runs out the kernel takes a run first, and never the worker.
_TAKEN_FIRST = "500"


@dataclass(frozen=True)
class Forked:
    """One that was forked from this process: its process id, and our end of what we talk to it by."""

    pid: int
    channel: socket.socket


def main() -> None:
    """Be one, in a program of its own."""
    _obey_the_worker_alone()
    channel = socket.socket(fileno=int(sys.argv[1]))
    prepare()
    _be(channel)


def prepare() -> None:
    """Import all that a run needs. What is here stays."""
    preload()
    # Looking through it for garbage would copy each page of it in every child.
    gc.collect()
    gc.freeze()


def fork_one() -> Forked | None:
    """Fork one from this process, which is prepared; the new process never returns from here.

    None where that must not be, for this process has threads, or cannot be now.
    """
    if thread_count() != 1:
        return None
    ours, theirs = socket.socketpair()
    try:
        pid = os.fork()
    except OSError:
        for end in (ours, theirs):
            end.close()
        return None
    if pid:
        theirs.close()
        return Forked(pid, ours)
    _obey_the_worker_alone()
    ours.close()
    # As one has it that is a program of its own: what is typed is not for runs.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    _be(theirs)
    sys.exit(0)


def _obey_the_worker_alone() -> None:
    # Ctrl-C goes to the whole group, and an end of all at once to every process of a service: the worker decides.
    for number in (signal.SIGINT, signal.SIGTERM, GIVE_BACK_SIGNAL):
        signal.signal(number, signal.SIG_IGN)


def _be(channel: socket.socket) -> None:
    """Serve until the worker is gone; in a child: carry out its order."""
    names.show_as(names.FORK_SERVER)
    order = _Server(channel).serve()
    if order is not None:
        from app.prefect.worker.child import carry_out  # noqa: PLC0415 - imported by now

        carry_out(order)


def thread_count() -> int:
    """Threads of this process, those that Python does not know of too."""
    return len(list(Path("/proc/self/task").iterdir()))


class _Server:
    """Forks as it is told, and tells what became of each child."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lines = Lines()
        self._wakes, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()

    def serve(self) -> Order | None:
        """Returns in a child, with its order; and when the worker is gone, with None."""
        for end in (self._wakes, self._woken):
            end.settimeout(0)
        signal.signal(signal.SIGCHLD, _note)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        for source in (self._channel, self._woken):
            self._selector.register(source, selectors.EVENT_READ)
        self._tell(Ready(thread_count()))
        while True:
            ready = {key.fileobj for key, _ in self._selector.select()}
            if self._woken in ready:
                with suppress(BlockingIOError):
                    self._woken.recv(_READ_BYTES)
            self._reap()
            if self._channel not in ready:
                continue
            data = self._received()
            if not data:
                return None
            for line in self._lines.feed(data):
                order = from_line(line)
                if isinstance(order, Order) and self._forked(order):
                    return order

    def _received(self) -> bytes:
        """What the worker sends; nothing when it is gone, also where it went without hearing all that it was told."""
        with suppress(ConnectionResetError):
            return self._channel.recv(_READ_BYTES)
        return b""

    def _forked(self, order: Order) -> bool:
        """Whether this is the child."""
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._tell(Refused(order.number, f"No process can be started: {error.strerror}."))
            return False
        if pid:
            self._tell(Began(order.number, pid))
            return False
        self._become_child(parent)
        os.environ.update(order.environ)
        return True

    def _become_child(self, parent: int) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            # It died before the kernel was asked to tell.
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self._selector.close()
        for end in (self._channel, self._wakes, self._woken):
            end.close()
        names.show_as(names.RUN)
        let_others_go_first()
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_TAKEN_FIRST)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._tell(Ended(pid, os.waitstatus_to_exitcode(status)))

    def _tell(self, message: Message) -> None:
        # A worker that is gone is met with the next look at the channel.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._channel.sendall(to_line(message))


def _note(_number: int, _frame: object) -> None:
    """That there is a handler is what has the kernel's note written down."""


if __name__ == "__main__":
    main()
