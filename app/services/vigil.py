"""Keeps a run's lease while its process works for it, and ends the work when that is wanted or its time is over."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from app.domain.errors import AutoloaderError, RunCancelled, RunGivenBack, RunTimedOut, StoppedByUser
from app.domain.events import EventLog, in_context
from app.domain.ledger import Leases
from app.domain.runs import Lease
from app.services.heartbeat import RENEWALS

log = EventLog(__name__)

LONGEST_POLL_S = 1.0
# Nobody else uses it. SIGTERM and SIGINT keep the meaning that the process gave them.
SIGNAL = signal.SIGUSR2
# By which a worker that ends asks for a run back. Whoever starts processes that may get it while no run is
# at work in them has it ignored there.
GIVE_BACK_SIGNAL = signal.SIGUSR1


class Interruption:
    """Raises an exception in the main thread, in the midst of whatever it does, as Ctrl-C would."""

    def __init__(self) -> None:
        self._error: StoppedByUser | None = None
        self._armed = False

    @contextmanager
    def armed(self) -> Iterator[Interruption]:
        """Be able to, until the block ends. In the main thread only."""
        before = signal.signal(SIGNAL, self._on_signal)
        before_give_back = signal.signal(GIVE_BACK_SIGNAL, self._on_give_back)
        self._armed = True
        try:
            yield self
        finally:
            self.disarm()
            signal.signal(SIGNAL, before)
            signal.signal(GIVE_BACK_SIGNAL, before_give_back)

    def disarm(self) -> None:
        """From now on nothing is raised: what ends the work is written down already."""
        self._armed = False

    def interrupt(self, error: StoppedByUser) -> None:
        """Have this raised, once. From any thread."""
        self._error = error
        signal.pthread_kill(_main_thread(), SIGNAL)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        error, self._error = self._error, None
        if error is not None:
            self._raise(error)

    def _on_give_back(self, _number: int, _frame: FrameType | None) -> None:
        self._raise(RunGivenBack())

    def _raise(self, error: StoppedByUser) -> None:
        if self._armed:
            self._armed = False
            raise error


def _main_thread() -> int:
    found = threading.main_thread().ident
    assert found is not None  # noqa: S101 - it has begun, else nobody were here
    return found


class Vigil:
    """Watches over one attempt of one run, from a thread of its own."""

    def __init__(
        self,
        leases: Leases,
        lease: Lease,
        lease_s: float,
        *,
        wants_end: Callable[[], bool],
        timeout_s: float,
        interruption: Interruption,
    ) -> None:
        """Watch as long as `watching` lasts.

        Args:
            leases: Where the lease is kept.
            lease: The run's; where the load takes it anew under a higher epoch it renews that itself.
            lease_s: How long it holds.
            wants_end: Whether somebody asked for the run's end.
            timeout_s: Seconds that the attempt may take from now.
            interruption: What ends it.
        """
        self._leases = leases
        self._lease = lease
        self._lease_s = lease_s
        self._wants_end = wants_end
        self._deadline = time.monotonic() + timeout_s
        self._interruption = interruption
        self._poll_s = min(LONGEST_POLL_S, lease_s / RENEWALS)
        self._renewed_at = time.monotonic()
        self._is_ours = True
        self._stopped = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch until the block ends."""
        thread = threading.Thread(target=in_context(self._watch), name="run-vigil", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(self._poll_s):
            try:
                end = self._look()
            except AutoloaderError as error:
                # The database may be back in a moment; the load itself asks before it commits.
                log.warning("run_not_watched", run_id=self._lease.run_id, reason=str(error))
                continue
            if end is not None:
                self._interruption.interrupt(end)
                return

    def _look(self) -> StoppedByUser | None:
        now = time.monotonic()
        if now >= self._deadline:
            return RunTimedOut()
        if self._is_ours and now - self._renewed_at >= self._lease_s / RENEWALS:
            self._is_ours = self._leases.renew(self._lease, self._lease_s)
            self._renewed_at = now
        return RunCancelled() if self._wants_end() else None
